//! Published vocabularies against their token ids; errors; special tokens and templates.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::tokenizer::tables::tests::same as tables_do_the_same;
use crate::tokenizer::{AddSpecialTokens, SkipSpecialTokens};
use crate::weights::GgufWriter;
use crate::weights::gguf_testing::{
    typed_array, typed_bool, typed_f32, typed_string, typed_strings, typed_u32,
};

/// The conformance vocabularies, if present.
fn vocabularies() -> Option<PathBuf> {
    crate::api::tests::support::shared("conformance/tokenizers")
}

#[test]
fn ids_agree_with_published_vectors() {
    let Some(dir) = vocabularies() else { return };
    let mut failures = Vec::new();
    let mut cases_run = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let dir = entry.unwrap().path();
        let tokenizer = Tokenizer::from_file(dir.join("vocab.gguf")).unwrap();
        let header = GgufHeader::read(&DataFile::open(&dir.join("vocab.gguf")).unwrap()).unwrap();
        let json = tokenizer_files(&header.metadata).unwrap().unwrap().tokenizer;
        tables_do_the_same(&json);
        let tables = Tokenizer::tables(&json).unwrap().unwrap();
        let tables = Tokenizer::from_tables(tables, json.len() as u64).unwrap();
        let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let found = tokenizer.encode(text, AddSpecialTokens::No).unwrap();
            assert_eq!(tables.encode(text, AddSpecialTokens::No).unwrap(), found, "{text:?}");
            cases_run += 1;
            if found != expected {
                failures.push(format!("{}: {text:?}: expected {expected:?}, found {found:?}", dir.display()));
            }
            // Some letters are tokens of their own in deepseek-coder, and its own decoder takes them for bytes.
            let letters = dir.ends_with("deepseek-coder") && text == "Führer";
            let back = tokenizer.decode(&found, SkipSpecialTokens::No).unwrap();
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
fn special_tokens_and_templates_are_read() {
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
    assert_eq!(tokenizer.encode("abba", AddSpecialTokens::Yes).unwrap(), [3, 2, 1, 0]);
    assert_eq!(tokenizer.encode("ab<|im_end|>", AddSpecialTokens::No).unwrap(), [2, 4]);
    assert_eq!(tokenizer.decode(&[3, 2, 1, 5], SkipSpecialTokens::Yes).unwrap(), "abb");
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
fn unknown_or_contradictory_metadata_are_refused() {
    use ErrorKind::{InvalidTokenizer, UnsupportedModel};
    let changed = |key: &str, value: Vec<u8>| without(small(), key).pair(key, value);
    refused(
        &changed(MODEL, typed_string("rwkv")),
        UnsupportedModel,
        &[MODEL, "gpt2, llama, gemma4, bert or t5", "rwkv"],
    );
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
fn sentencepiece_scores_are_checked_and_rank_merges() {
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
        Tokenizer::from_bytes(&files.tokenizer).unwrap().encode("aba", AddSpecialTokens::No).unwrap()
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

/// Placeholder names with which the converter pads a vocabulary: llama.cpp gives them no text, and transformers has no
/// such token.
#[test]
fn unused_tokens_have_no_text() {
    let tokens = ["a", "b", "ab", "<s>", "<|im_end|>", "</s>", "[PAD6]", "[PAD7]"];
    let padded = |kinds: &[i32]| {
        let writer = without(without(small(), "tokenizer.ggml.tokens"), "tokenizer.ggml.token_type");
        let writer = writer.pair("tokenizer.ggml.tokens", typed_strings(&tokens));
        let files = files(&writer.pair("tokenizer.ggml.token_type", i32s(kinds))).unwrap().unwrap();
        Tokenizer::from_bytes(&files.tokenizer).unwrap().padded_to(8)
    };
    let tokenizer = padded(&[1, 1, 1, 3, 3, 3, 5, 5]);
    assert_eq!((tokenizer.id_to_token(6), tokenizer.id_to_token(7)), (None, None));
    assert_eq!(tokenizer.decode(&[0, 6, 1, 7], SkipSpecialTokens::No).unwrap(), "ab");
    let drawable = crate::sampling::Drawable::of(&tokenizer, 8);
    assert!((0..8).all(|id| drawable.has(id) == (id < 6)));
    // One that a merge makes, or that begins a text, is a normal token.
    let tokenizer = padded(&[1, 1, 5, 5, 3, 3, 5, 1]);
    assert_eq!(tokenizer.encode("ab", AddSpecialTokens::No).unwrap(), [2]);
    assert_eq!(tokenizer.id_to_token(3).as_deref(), Some("<s>"));
    let drawable = crate::sampling::Drawable::of(&tokenizer, 8);
    assert!((0..8).all(|id| drawable.has(id) == (id != 6)));

    let spm = GgufWriter::new()
        .pair(MODEL, typed_string("llama"))
        .pair("tokenizer.ggml.tokens", typed_strings(&["<unk>", "a", "b", "ab", "[PAD4]"]))
        .pair("tokenizer.ggml.token_type", i32s(&[2, 1, 1, 5, 5]))
        .pair("tokenizer.ggml.add_space_prefix", typed_bool(false))
        .pair("tokenizer.ggml.scores", f32s(&[0.0, 0.0, 0.0, -1.0, -2.0]));
    let tokenizer = Tokenizer::from_bytes(&files(&spm).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(
        (tokenizer.id_to_token(4), tokenizer.encode("ab", AddSpecialTokens::No).unwrap()),
        (None, vec![3])
    );
}

#[test]
fn merges_in_the_file_are_used_and_spaces_are_tokens() {
    let tokens = ["<unk>", "a", "b", "ab", "ba", "\u{2581}", "\u{2581}a", "<0x63>", "<bos>"];
    let gemma = |merges: &[&str]| {
        GgufWriter::new()
            .pair(MODEL, typed_string("gemma4"))
            .pair("tokenizer.ggml.tokens", typed_strings(&tokens))
            .pair("tokenizer.ggml.token_type", i32s(&[2, 1, 1, 1, 1, 1, 1, 6, 3]))
            .pair("tokenizer.ggml.merges", typed_strings(merges))
            .pair("tokenizer.ggml.bos_token_id", typed_u32(8))
            .pair("tokenizer.ggml.add_bos_token", typed_bool(true))
    };
    let tokenizer =
        |merges: &[&str]| Tokenizer::from_bytes(&files(&gemma(merges)).unwrap().unwrap().tokenizer).unwrap();
    let first = tokenizer(&["a b", "b a", "\u{2581} a"]);
    assert_eq!(first.encode("aba  ac", AddSpecialTokens::Yes).unwrap(), [8, 3, 1, 5, 6, 7]);
    assert_eq!(first.decode(&[3, 1, 5, 6, 7], SkipSpecialTokens::Yes).unwrap(), "aba  ac");
    assert_eq!(tokenizer(&["b a", "a b"]).encode("aba", AddSpecialTokens::No).unwrap(), [1, 4]);
    refused(&gemma(&["a a"]), ErrorKind::InvalidTokenizer, &["tokenizer.ggml.merges", "make a third"]);
}

/// Compares the ids of texts by the vocabulary in a file and by a `tokenizer.json`.
fn same_ids(writer: &GgufWriter, json: &Value, texts: &[&str]) {
    tables_do_the_same(json.to_string().as_bytes());
    let found = Tokenizer::from_bytes(&files(writer).unwrap().unwrap().tokenizer).unwrap();
    let expected = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    for text in texts {
        for special in [false, true] {
            let ids = expected.encode(text, special.into()).unwrap();
            assert_eq!(found.encode(text, special.into()).unwrap(), ids, "{text:?}");
            assert_eq!(
                found.decode(&ids, SkipSpecialTokens::Yes).unwrap(),
                expected.decode(&ids, SkipSpecialTokens::Yes).unwrap(),
                "{text:?}"
            );
        }
    }
}

#[test]
fn word_pieces_agree_with_bert() {
    // As in BERT's own vocabularies, and as in GGUF files.
    let tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[unused1]",
        "em",
        "##bed",
        "##ding",
        "##s",
        ",",
        "!",
        "cafe",
        "##",
        "[",
        "\u{4e2d}",
        "a",
        "##a",
        "##]",
        "]",
        "e",
    ];
    let stored: Vec<String> = tokens
        .iter()
        .map(|token| match token.strip_prefix("##") {
            _ if token.starts_with('[') && token.ends_with(']') => (*token).to_owned(),
            Some(goes_on) => goes_on.to_owned(),
            None => format!("\u{2581}{token}"),
        })
        .collect();
    let stored: Vec<&str> = stored.iter().map(String::as_str).collect();
    let kinds: Vec<i32> = (0..tokens.len())
        .map(|id| {
            if id == 1 {
                2
            } else if id < 4 {
                3
            } else {
                1
            }
        })
        .collect();
    let writer = GgufWriter::new()
        .pair(MODEL, typed_string("bert"))
        .pair("tokenizer.ggml.tokens", typed_strings(&stored))
        .pair("tokenizer.ggml.token_type", i32s(&kinds))
        .pair("tokenizer.ggml.unknown_token_id", typed_u32(1))
        .pair("tokenizer.ggml.cls_token_id", typed_u32(2))
        .pair("tokenizer.ggml.seperator_token_id", typed_u32(3));
    let vocab: Value =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let expected = json!({
        "version": "1.0", "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    let long = "a".repeat(101);
    let texts = [
        "embeddings, Embedding!",
        "Caf\u{e9} \u{4e2d}\u{4e2d}a",
        "nothing of that",
        "[CLS] em [SEP]",
        "",
        " \t\n",
        "## [] a]",
        "[unused1]",
        "\u{0}aa\u{fffd}a",
        &long[..100],
        &long,
    ];
    same_ids(&writer, &expected, &texts);
    let cased = writer.clone().pair("tokenizer.ggml.normalizer.lowercase", typed_bool(false));
    let found = Tokenizer::from_bytes(&files(&cased).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(found.encode("em Em", AddSpecialTokens::No).unwrap(), [5, 1]);
    // Accents go with the case.
    assert_eq!(found.encode("\u{e9}m", AddSpecialTokens::No).unwrap(), [1]);
    let stripped = cased.pair("tokenizer.ggml.normalizer.strip_accents", typed_bool(true));
    let found = Tokenizer::from_bytes(&files(&stripped).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(found.encode("\u{e9}m", AddSpecialTokens::No).unwrap(), [5]);
    let bare = writer.clone().pair("tokenizer.ggml.add_bos_token", typed_bool(false));
    let found = Tokenizer::from_bytes(&files(&bare).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(found.encode("em", AddSpecialTokens::Yes).unwrap(), [5, 3]);
    let twice = without(writer.clone(), "tokenizer.ggml.tokens");
    let twice = without(twice, "tokenizer.ggml.token_type");
    let twice = twice.pair("tokenizer.ggml.tokens", typed_strings(&["a", "b", "\u{2581}##a", "c"]));
    refused(&twice, ErrorKind::InvalidTokenizer, &["two are \"##a\""]);
    let unknown = without(without(writer, "tokenizer.ggml.unknown_token_id"), "tokenizer.ggml.token_type");
    refused(&unknown, ErrorKind::InvalidTokenizer, &["an unknown token"]);
}

#[test]
fn unigrams_agree_with_sentencepiece() {
    let tokens =
        ["<pad>", "</s>", "<unk>", "\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{2581}ab", "ba", "<u>"];
    let scores = [0.0, 0.0, 0.0, -2.0, -3.0, -3.5, -4.0, -4.5, -9.0, -5.0, -7.0];
    let writer = GgufWriter::new()
        .pair(MODEL, typed_string("t5"))
        .pair("tokenizer.ggml.tokens", typed_strings(&tokens))
        .pair("tokenizer.ggml.token_type", i32s(&[3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 4]))
        .pair("tokenizer.ggml.scores", f32s(&scores))
        .pair("tokenizer.ggml.eos_token_id", typed_u32(1))
        .pair("tokenizer.ggml.remove_extra_whitespaces", typed_bool(true));
    let vocab: Vec<Value> = tokens.iter().zip(scores).map(|(token, score)| json!([token, score])).collect();
    let added = |id: usize, special: bool| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    // As the transformers library converts T5's.
    let spaces =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let expected = json!({
        "version": "1.0",
        "added_tokens": [added(0, true), added(1, true), added(2, true), added(10, false)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Strip", "strip_left": true, "strip_right": true},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": spaces, "decoder": spaces,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    });
    let texts = ["ab ba", "  a   b ", "aba", "abxyzab", "", "a<u>b", "a</s>b", "\u{1f600}"];
    same_ids(&writer, &expected, &texts);
    // Scores decide: three times `a` scores more than a token with two of them.
    let found = Tokenizer::from_bytes(&files(&writer).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(found.encode("ab", AddSpecialTokens::Yes).unwrap(), [3, 6, 1]);
    let bare = writer.clone().pair("tokenizer.ggml.add_eos_token", typed_bool(false));
    let bare = bare.pair("tokenizer.ggml.add_space_prefix", typed_bool(false));
    let found = Tokenizer::from_bytes(&files(&bare).unwrap().unwrap().tokenizer).unwrap();
    assert_eq!(found.encode("ab", AddSpecialTokens::Yes).unwrap(), [6]);
    let key = "tokenizer.ggml.precompiled_charsmap";
    refused(
        &writer.clone().pair(key, typed_strings(&["a"])),
        ErrorKind::InvalidTokenizer,
        &[key, "an array of bytes"],
    );
    // One rule: 'B' is replaced by 'b'. A trie of one byte, in the order of its units: see `charsmap`.
    let rules = typed_array(0, charsmap().len() as u64, &charsmap());
    let found = files(&writer.clone().pair(key, rules)).unwrap().unwrap();
    let found = Tokenizer::from_bytes(&found.tokenizer).unwrap();
    assert_eq!(
        found.encode("aB", AddSpecialTokens::No).unwrap(),
        found.encode("ab", AddSpecialTokens::No).unwrap()
    );
    let broken = writer.pair(key, typed_array(0, 3, &[1, 2, 3]));
    let error = Tokenizer::from_bytes(&files(&broken).unwrap().unwrap().tokenizer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTokenizer);
}

/// Rules that replace `B` by `b`: length of the trie in bytes, its units, zero-terminated replacements.
///
/// A unit of the double array (Darts-clone) has the offset of its children from bit 10 on, a flag for a value in bit 8,
/// and the byte that leads to it in the lowest eight bits; a unit with a value has bit 31 set. A child is at `unit ^
/// byte`.
fn charsmap() -> Vec<u8> {
    let mut units = vec![0_u32; 256];
    units[0] = 1 << 10;
    // The root's child for 'B' is at 0 ^ 1 ^ 0x42 = 0x43; its value, for byte 0, at 0x43 ^ 1 = 0x42.
    units[0x43] = 1 << 10 | 1 << 8 | 0x42;
    units[0x42] = 1 << 31;
    let mut out = (units.len() as u32 * 4).to_le_bytes().to_vec();
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    out.extend_from_slice(b"b\0");
    out
}
