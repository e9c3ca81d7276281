//! Vocabularies that others published, against their token ids; what is refused; special tokens and templates.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::weights::GgufWriter;
use crate::weights::gguf_testing::{
    typed_array, typed_bool, typed_f32, typed_string, typed_strings, typed_u32,
};

/// The conformance vocabularies, if they are there.
fn vocabularies() -> Option<PathBuf> {
    let shared = std::env::var_os("CLAWDBOT_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into());
    let dir = shared.join("conformance/tokenizers");
    if !dir.is_dir() {
        println!("skipped: {} not found", dir.display());
        return None;
    }
    Some(dir)
}

#[test]
fn ids_are_those_of_the_published_vectors() {
    let Some(dir) = vocabularies() else { return };
    let mut failures = Vec::new();
    let mut cases_run = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let dir = entry.unwrap().path();
        let tokenizer = Tokenizer::from_file(dir.join("vocab.gguf")).unwrap();
        let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let found = tokenizer.encode(text, false).unwrap();
            cases_run += 1;
            if found != expected {
                failures.push(format!("{}: {text:?}: expected {expected:?}, found {found:?}", dir.display()));
            }
            // Some letters are tokens of their own in deepseek-coder, which its own decoder takes for bytes.
            let letters = dir.ends_with("deepseek-coder") && text == "Führer";
            let back = tokenizer.decode(&found, false).unwrap();
            if back != text && !letters {
                failures.push(format!("{}: {text:?} comes back as {back:?}", dir.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases_run > 200, "{cases_run}");
}

fn metadata(writer: &GgufWriter) -> Metadata {
    GgufHeader::read(&DataFile::from_memory(writer.bytes(), "m.gguf")).unwrap().metadata
}

fn files(writer: &GgufWriter) -> Result<Option<TokenizerFiles>> {
    tokenizer_files(&metadata(writer))
}

#[track_caller]
fn refused(writer: &GgufWriter, kind: ErrorKind, parts: &[&str]) {
    let error = files(writer).err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    for part in std::iter::once(&"m.gguf: ").chain(parts) {
        assert!(error.message().contains(part), "{error:?} should contain {part:?}");
    }
}

fn i32s(numbers: &[i32]) -> Vec<u8> {
    typed_array(5, numbers.len() as u64, &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>())
}

fn f32s(numbers: &[f32]) -> Vec<u8> {
    typed_array(6, numbers.len() as u64, &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>())
}

/// `a`, `b`, `ab`, a marker and an end of turn.
fn small() -> GgufWriter {
    GgufWriter::new()
        .pair(MODEL, typed_string("gpt2"))
        .pair("tokenizer.ggml.pre", typed_string("qwen2"))
        .pair("tokenizer.ggml.tokens", typed_strings(&["a", "b", "ab", "<s>", "<|im_end|>", "</s>"]))
        .pair("tokenizer.ggml.token_type", i32s(&[1, 1, 1, 3, 3, 3]))
        .pair("tokenizer.ggml.merges", typed_strings(&["a b"]))
        .pair("tokenizer.ggml.bos_token_id", typed_u32(3))
        .pair("tokenizer.ggml.eos_token_id", typed_u32(5))
}

fn without(mut writer: GgufWriter, key: &str) -> GgufWriter {
    writer.remove(key);
    writer
}

#[test]
fn special_tokens_and_templates_are_those_of_the_file() {
    let writer = small()
        .pair("tokenizer.ggml.add_bos_token", typed_bool(true))
        .pair("tokenizer.chat_template", typed_string("T"));
    let files = files(&writer).unwrap().unwrap();
    assert_eq!((files.bos, files.eos, files.pad), (Some(3), vec![5, 4], None));
    let config: Value = serde_json::from_slice(&files.config).unwrap();
    let expected = serde_json::json!({
        "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "chat_template": "T"
    });
    assert_eq!(config, expected);
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
    assert_eq!(tokenizer.encode("abba", true).unwrap(), [3, 2, 1, 0]);
    assert_eq!(tokenizer.encode("ab<|im_end|>", false).unwrap(), [2, 4]);
    assert_eq!(tokenizer.decode(&[3, 2, 1, 5], true).unwrap(), "abb");
    assert!(tokenizer.is_special(4) && !tokenizer.is_special(2));

    let named = writer.pair("tokenizer.chat_template.tool_use", typed_string("U"));
    let config: Value =
        serde_json::from_slice(&super::tests::files(&named).unwrap().unwrap().config).unwrap();
    let templates = config["chat_template"].as_array().unwrap();
    assert_eq!(templates.len(), 2);
    assert!(templates.contains(&serde_json::json!({"name": "tool_use", "template": "U"})));
    assert!(templates.contains(&serde_json::json!({"name": "default", "template": "T"})));
}

#[test]
fn without_a_vocabulary_there_is_no_tokenizer() {
    assert!(files(&GgufWriter::new()).unwrap().is_none());
    assert!(files(&GgufWriter::new().pair(MODEL, typed_string("none"))).unwrap().is_none());
}

#[test]
fn what_is_unknown_or_contradictory_is_refused() {
    use ErrorKind::{InvalidTokenizer, UnsupportedModel};
    let changed = |key: &str, value: Vec<u8>| without(small(), key).pair(key, value);
    refused(&changed(MODEL, typed_string("rwkv")), UnsupportedModel, &[MODEL, "gpt2 or llama", "rwkv"]);
    let pre = "tokenizer.ggml.pre";
    refused(
        &changed(pre, typed_string("nobody")),
        UnsupportedModel,
        &[pre, "one of gpt-2, ", "found \"nobody\""],
    );
    refused(&without(small(), pre), UnsupportedModel, &[pre, "found nothing"]);
    let tokens = "tokenizer.ggml.tokens";
    refused(&without(small(), tokens), InvalidTokenizer, &[tokens, "an array of strings, found nothing"]);
    let twice = typed_strings(&["a", "b", "ab", "a", "x", "y"]);
    refused(&changed(tokens, twice), InvalidTokenizer, &["\"a\" is both 0 and 3"]);
    let types = "tokenizer.ggml.token_type";
    refused(&changed(types, i32s(&[1, 1])), InvalidTokenizer, &[types, "6 integers from 1 to 6", "2 x i32"]);
    refused(&changed(types, i32s(&[1, 1, 1, 1, 1, 7])), InvalidTokenizer, &[types]);
    let eos = "tokenizer.ggml.eos_token_id";
    refused(&changed(eos, typed_u32(6)), InvalidTokenizer, &[eos, "an id below 6", "found 6"]);
    let merges = "tokenizer.ggml.merges";
    for bad in ["ab", "a c", "b a", "a ", " a"] {
        refused(&changed(merges, typed_strings(&[bad])), InvalidTokenizer, &[merges, &format!("{bad:?}")]);
    }
    let add = small().pair("tokenizer.ggml.add_bos_token", typed_bool(true));
    let add = without(add, "tokenizer.ggml.bos_token_id");
    refused(&add, InvalidTokenizer, &["bos_token_id", "as tokenizer.ggml.add_bos_token is true"]);
}

#[test]
fn sentencepiece_scores_are_checked_and_decide() {
    let tokens = ["<unk>", "a", "b", "ab", "ba", "\u{2581}"];
    let spm = |scores: Vec<u8>| {
        GgufWriter::new()
            .pair(MODEL, typed_string("llama"))
            .pair("tokenizer.ggml.tokens", typed_strings(&tokens))
            .pair("tokenizer.ggml.token_type", i32s(&[2, 1, 1, 1, 1, 1]))
            .pair("tokenizer.ggml.add_space_prefix", typed_bool(false))
            .pair("tokenizer.ggml.scores", scores)
    };
    let ids = |scores: &[f32]| {
        let files = files(&spm(f32s(scores))).unwrap().unwrap();
        Tokenizer::from_bytes(&files.tokenizer).unwrap().encode("aba", false).unwrap()
    };
    assert_eq!(ids(&[0.0, 0.0, 0.0, -1.0, -2.0, 0.0]), [3, 1]);
    assert_eq!(ids(&[0.0, 0.0, 0.0, -2.0, -1.0, 0.0]), [1, 4]);
    let long = "a".repeat(70_000);
    let writer = without(spm(f32s(&[0.0; 6])), "tokenizer.ggml.tokens");
    let tokens = ["<unk>", "a", "b", "ab", "ba", &long];
    let error = files(&writer.pair("tokenizer.ggml.tokens", typed_strings(&tokens))).err().unwrap();
    assert!(error.message().contains("ordinary lengths"), "{error}");
    let key = "tokenizer.ggml.scores";
    for bad in [f32s(&[0.0; 5]), f32s(&[f32::NAN; 6]), typed_f32(1.0)] {
        let error = files(&spm(bad)).err().unwrap();
        assert!(error.message().contains(key), "{error}");
    }
}
