//! Encoders and embedding models, converted from a directory as llama.cpp's converter does it: the same bits.
//!
//! With `CLAWDBOT_GGUF_OUT` the files stay in that folder, each with the vector of 40 tokens. Token i is
//! `(37 i + 5) % 73`.

use std::path::Path;

use serde_json::Value;

use super::tests::save;
use crate::api::session::Prompt;
use crate::error::{Error, ErrorKind};
use crate::load::source::{Opened, Source};
use crate::options::{EmbedOptions, ModelOptions, Pooling, RerankOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::weights::gguf_testing::{
    typed_array, typed_bool, typed_f32, typed_string, typed_strings, typed_u32,
};
use crate::weights::testing::{TempDir, f32_bytes};
use crate::weights::{GgufWriter, WeightSource};

/// Fixture, architecture in GGUF files, what comes before the names of tensors, names in files.
struct Case(&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const BERT: &[(&str, &str)] = &[
    ("encoder.layer.", "blk."),
    ("embeddings.word_embeddings.", "token_embd."),
    ("embeddings.position_embeddings.", "position_embd."),
    ("embeddings.token_type_embeddings.", "token_types."),
    ("embeddings.LayerNorm.", "token_embd_norm."),
    ("attention.self.query.", "attn_q."),
    ("attention.self.key.", "attn_k."),
    ("attention.self.value.", "attn_v."),
    ("attention.output.dense.", "attn_output."),
    ("attention.output.LayerNorm.", "attn_output_norm."),
    ("intermediate.dense.", "ffn_up."),
    ("output.dense.", "ffn_down."),
    ("output.LayerNorm.", "layer_output_norm."),
    ("pooler.dense.", "cls."),
    ("classifier.", "cls.output."),
];
const DISTILBERT: &[(&str, &str)] = &[
    ("transformer.layer.", "blk."),
    ("embeddings.word_embeddings.", "token_embd."),
    ("embeddings.position_embeddings.", "position_embd."),
    ("embeddings.LayerNorm.", "token_embd_norm."),
    ("attention.q_lin.", "attn_q."),
    ("attention.k_lin.", "attn_k."),
    ("attention.v_lin.", "attn_v."),
    ("attention.out_lin.", "attn_output."),
    ("sa_layer_norm.", "attn_output_norm."),
    ("ffn.lin1.", "ffn_up."),
    ("ffn.lin2.", "ffn_down."),
    ("output_layer_norm.", "layer_output_norm."),
];
const MODERNBERT: &[(&str, &str)] = &[
    ("layers.", "blk."),
    ("embeddings.tok_embeddings.", "token_embd."),
    ("embeddings.norm.", "token_embd_norm."),
    ("final_norm.", "output_norm."),
    ("attn.Wqkv.", "attn_qkv."),
    ("attn.Wo.", "attn_output."),
    ("mlp_norm.", "ffn_norm."),
    ("mlp.Wi.", "ffn_up."),
    ("mlp.Wo.", "ffn_down."),
];
const GEMMA: &[(&str, &str)] = &[
    ("layers.", "blk."),
    ("embed_tokens.", "token_embd."),
    ("input_layernorm.", "attn_norm."),
    ("post_attention_layernorm.", "post_attention_norm."),
    ("pre_feedforward_layernorm.", "ffn_norm."),
    ("post_feedforward_layernorm.", "post_ffw_norm."),
    ("self_attn.q_proj.", "attn_q."),
    ("self_attn.k_proj.", "attn_k."),
    ("self_attn.v_proj.", "attn_v."),
    ("self_attn.o_proj.", "attn_output."),
    ("self_attn.q_norm.", "attn_q_norm."),
    ("self_attn.k_norm.", "attn_k_norm."),
    ("mlp.gate_proj.", "ffn_gate."),
    ("mlp.up_proj.", "ffn_up."),
    ("mlp.down_proj.", "ffn_down."),
    ("norm.", "output_norm."),
];
const QWEN: &[(&str, &str)] = &[
    ("layers.", "blk."),
    ("embed_tokens.", "token_embd."),
    ("input_layernorm.", "attn_norm."),
    ("post_attention_layernorm.", "ffn_norm."),
    ("self_attn.q_proj.", "attn_q."),
    ("self_attn.k_proj.", "attn_k."),
    ("self_attn.v_proj.", "attn_v."),
    ("self_attn.o_proj.", "attn_output."),
    ("self_attn.q_norm.", "attn_q_norm."),
    ("self_attn.k_norm.", "attn_k_norm."),
    ("mlp.gate_proj.", "ffn_gate."),
    ("mlp.up_proj.", "ffn_up."),
    ("mlp.down_proj.", "ffn_down."),
    ("norm.", "output_norm."),
];

const CASES: [Case; 6] = [
    Case("bert", "bert", "", BERT),
    Case("xlm_roberta", "bert", "", BERT),
    Case("distilbert", "bert", "", DISTILBERT),
    Case("modernbert", "modern-bert", "", MODERNBERT),
    Case("qwen3", "qwen3", "", QWEN),
    Case("gemma3", "gemma-embedding", "", GEMMA),
];

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embeddings").join(name)
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The first of several keys that there is.
fn number(config: &Value, keys: &[&str]) -> Option<u32> {
    keys.iter().find_map(|key| config[*key].as_u64()).map(|number| number as u32)
}

/// The model in `dir`, with `pooling` as files number it.
fn convert(dir: &Path, &Case(_, family, prefix, names): &Case, pooling: Option<u32>) -> GgufWriter {
    let config = json_file(&dir.join("config.json"));
    // RoBERTa's positions begin after that of padding.
    let skipped = match config["model_type"] == "xlm-roberta" {
        true => number(&config, &["pad_token_id"]).unwrap() + 1,
        false => 0,
    };
    let types = config["type_vocab_size"].as_u64().unwrap_or(0);
    let mut writer = GgufWriter::new()
        .pair("general.architecture", typed_string(family))
        .pair("tokenizer.ggml.model", typed_string("no_vocab"))
        .pair("tokenizer.ggml.token_type_count", typed_u32(types.max(1) as u32));
    let mut pair = |key: &str, value: Option<Vec<u8>>| {
        if let Some(value) = value {
            writer =
                std::mem::replace(&mut writer, GgufWriter::new()).pair(&format!("{family}.{key}"), value);
        }
    };
    for (key, fields) in [
        ("vocab_size", &["vocab_size"][..]),
        ("block_count", &["num_hidden_layers", "n_layers"]),
        ("embedding_length", &["hidden_size", "dim"]),
        ("feed_forward_length", &["intermediate_size", "hidden_dim"]),
        ("attention.head_count", &["num_attention_heads", "n_heads"]),
        ("attention.head_count_kv", &["num_key_value_heads"]),
        ("attention.key_length", &["head_dim"]),
        ("attention.value_length", &["head_dim"]),
        ("attention.sliding_window", &["sliding_window", "local_attention"]),
    ] {
        pair(key, number(&config, fields).map(typed_u32));
    }
    let context = number(&config, &["max_position_embeddings"]).unwrap() - skipped;
    pair("context_length", Some(typed_u32(context)));
    match config["rms_norm_eps"].as_f64() {
        Some(eps) => pair("attention.layer_norm_rms_epsilon", Some(typed_f32(eps as f32))),
        None => {
            let eps = config["layer_norm_eps"].as_f64().or(config["norm_eps"].as_f64()).unwrap_or(1e-12);
            pair("attention.layer_norm_epsilon", Some(typed_f32(eps as f32)));
            pair("attention.causal", Some(typed_bool(false)));
        }
    }
    pair("pooling_type", pooling.map(typed_u32));
    for folder in [2, 3].into_iter().filter(|_| family == "gemma-embedding") {
        let dense = json_file(&dir.join(format!("{folder}_Dense/config.json")));
        for side in ["in", "out"] {
            let size = number(&dense, &[&format!("{side}_features")]);
            pair(&format!("dense_{folder}_feat_{side}"), size.map(typed_u32));
        }
    }
    let ropes = &config["rope_parameters"];
    let global = ropes.get("full_attention").unwrap_or(ropes);
    pair("rope.freq_base", global["rope_theta"].as_f64().map(|theta| typed_f32(theta as f32)));
    let local = ropes["sliding_attention"]["rope_theta"].as_f64();
    pair("rope.freq_base_swa", local.map(|theta| typed_f32(theta as f32)));
    if let (Some(types), Some(_)) = (config["layer_types"].as_array(), local) {
        let marks: Vec<u8> = types.iter().map(|kind| u8::from(kind == "sliding_attention")).collect();
        pair("attention.sliding_window_pattern", Some(typed_array(7, marks.len() as u64, &marks)));
    }
    let mut put = |name: &str, source: &WeightSource, stored: &str| {
        let mut shape = source.tensor(name).unwrap().shape.to_vec();
        let mut data = source.elements(name, &shape).unwrap();
        if stored == "position_embd.weight" {
            data.drain(..skipped as usize * shape[1]);
            shape[0] -= skipped as usize;
        }
        if family == "gemma-embedding" && stored.ends_with("norm.weight") {
            data.iter_mut().for_each(|x| *x += 1.0);
        }
        let dims: Vec<u64> = shape.iter().rev().map(|&size| size as u64).collect();
        writer = std::mem::replace(&mut writer, GgufWriter::new()).tensor(stored, 0, &dims, f32_bytes(&data));
    };
    let source = WeightSource::open_dir(dir).unwrap();
    for name in source.names() {
        if name.starts_with("pooler.") && !dir.ends_with("bert_score") {
            continue;
        }
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        let (layers, rest) = match names[0].0 {
            layers if bare.starts_with(layers) => {
                let (number, rest) = bare[layers.len()..].split_once('.').unwrap();
                (format!("blk.{number}."), rest)
            }
            _ => (String::new(), bare),
        };
        let found = names.iter().find(|(module, _)| rest.starts_with(module));
        let stored = match found {
            Some((module, stored)) => format!("{layers}{stored}{}", &rest[module.len()..]),
            // ModernBERT's name is that of files.
            None => format!("{layers}{rest}"),
        };
        put(name, &source, &stored);
    }
    if family == "gemma-embedding" {
        for number in [2, 3] {
            let source = WeightSource::open_dir(&dir.join(format!("{number}_Dense"))).unwrap();
            put("linear.weight", &source, &format!("dense_{number}.weight"));
        }
    }
    writer
}

/// Bits of the vectors of two texts of tokens.
fn vectors(source: &Source, weights: WeightType, options: &EmbedOptions) -> Result<Vec<u32>, Error> {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let model = runtime.load(source, &ModelOptions::default().weights(weights))?;
    let text = |count: u32| Prompt::Tokens((0..count).map(|i| (i * 37 + 5) % 73).collect());
    let found = model.embed(vec![text(40), text(7)], options)?;
    Ok(found.rows().flatten().map(|x| x.to_bits()).collect())
}

#[test]
fn every_encoder_computes_what_it_does_from_its_directory() {
    let dir = TempDir::new();
    for case in &CASES {
        let model = fixture(case.0);
        let source = Source::Path(model.clone());
        let opened = Opened::open(&source).unwrap();
        let pooling = opened.embedding.pooling.unwrap();
        let number = match pooling {
            Pooling::Mean => 1,
            Pooling::Cls => 2,
            Pooling::Last => 3,
            // What the format has no number for, callers ask for.
            _ => 0,
        };
        let mut options = EmbedOptions::default().pooling(pooling);
        if !opened.embedding.normalize {
            options = options.normalize(true);
        }
        let file = save(&dir, "m.gguf", &convert(&model, case, Some(number)));
        let found = Opened::open(&file).unwrap_or_else(|error| panic!("{}: {error}", case.0));
        assert!(found.unused.is_empty(), "{}: {:?}", case.0, found.unused);
        assert_eq!(found.embedding.pooling, (number > 0).then_some(pooling), "{}", case.0);
        // DistilBERT's modules have a layer after pooling, for which files have no place.
        let bare = crate::api::tests::support::Copy::of(&model, "encoder");
        if case.0 == "distilbert" {
            bare.edit("modules.json", |modules| modules.as_array_mut().unwrap().truncate(2));
        }
        let source = Source::Path(bare.path().to_owned());
        let options = options.normalize(true);
        for weights in [WeightType::F32, WeightType::Int8] {
            let (found, expected) = (vectors(&file, weights, &options), vectors(&source, weights, &options));
            assert!(found.unwrap() == expected.unwrap(), "{}, {weights}", case.0);
        }
        if let Some(out) = std::env::var_os("CLAWDBOT_GGUF_OUT") {
            let path = |kind: &str| Path::new(&out).join(format!("encoder-{}.{kind}", case.0));
            std::fs::write(path("gguf"), convert(&model, case, Some(number)).bytes()).unwrap();
            let rows = vectors(&file, WeightType::F32, &options).unwrap();
            std::fs::write(path("json"), serde_json::to_vec(&rows[..rows.len() / 2]).unwrap()).unwrap();
        }
        if number > 0 {
            let default = vectors(&file, WeightType::F32, &EmbedOptions::default()).unwrap();
            assert!(default == vectors(&file, WeightType::F32, &options).unwrap(), "{}", case.0);
        }
    }
}

/// BERT with the layers of a cross-encoder, and its vocabulary as files have it.
fn cross_encoder() -> GgufWriter {
    let dir = fixture("bert_score");
    let prefix = "bert.";
    let vocabulary = json_file(&dir.join("tokenizer.json"));
    let mut tokens: Vec<(&String, u64)> = vocabulary["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (token, id.as_u64().unwrap()))
        .collect();
    tokens.sort_by_key(|&(_, id)| id);
    let marked: Vec<&str> = vocabulary["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|added| added["content"].as_str().unwrap())
        .collect();
    let stored = |token: &str| match token.strip_prefix("##") {
        _ if marked.contains(&token) => token.to_owned(),
        Some(goes_on) => goes_on.to_owned(),
        None => format!("\u{2581}{token}"),
    };
    let texts: Vec<String> = tokens.iter().map(|(token, _)| stored(token)).collect();
    let kinds: Vec<u8> = tokens
        .iter()
        .flat_map(|(token, _)| i32::to_le_bytes(if marked.contains(&token.as_str()) { 3 } else { 1 }))
        .collect();
    let mut writer = convert(&dir, &Case("bert_score", "bert", prefix, BERT), None);
    writer.remove("tokenizer.ggml.model");
    writer
        .pair("bert.classifier.output_labels", typed_strings(&["LABEL_0"]))
        .pair("tokenizer.ggml.model", typed_string("bert"))
        .pair("tokenizer.ggml.tokens", typed_strings(&texts.iter().map(String::as_str).collect::<Vec<_>>()))
        .pair("tokenizer.ggml.token_type", typed_array(5, tokens.len() as u64, &kinds))
        .pair("tokenizer.ggml.unknown_token_id", typed_u32(1))
        .pair("tokenizer.ggml.cls_token_id", typed_u32(2))
        .pair("tokenizer.ggml.seperator_token_id", typed_u32(3))
}

#[test]
fn a_cross_encoder_gives_the_same_scores() {
    let dir = TempDir::new();
    let scores = |source: &Source| {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        let model = runtime.load(source, &ModelOptions::default().weights(WeightType::F32)).unwrap();
        model.rerank("the sea", &["light", "the light house", "sea"], &RerankOptions::default()).unwrap()
    };
    let source = Source::Path(fixture("bert_score"));
    assert_eq!(scores(&save(&dir, "m.gguf", &cross_encoder())), scores(&source));
}

#[test]
fn what_would_change_vectors_unseen_is_refused() {
    let dir = TempDir::new();
    let model = fixture("bert");
    let refused = |writer: &GgufWriter, parts: &[&str]| {
        let error = Opened::open(&save(&dir, "bad.gguf", writer)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{error}");
        for part in parts {
            assert!(error.message().contains(part), "{error} should contain {part:?}");
        }
    };
    refused(
        &convert(&model, &CASES[0], Some(4)),
        &["bert.pooling_type", "1 (mean), 2 (cls) or 3 (last)", "4"],
    );
    let mut causal = convert(&model, &CASES[0], Some(1));
    causal.remove("bert.attention.causal");
    refused(
        &causal.pair("bert.attention.causal", typed_bool(true)),
        &["bert.attention.causal", "false", "true"],
    );
    // Two labels are no score.
    let mut labels = cross_encoder();
    labels.remove_tensor("cls.output.weight");
    let two = labels.tensor("cls.output.weight", 0, &[48, 2], f32_bytes(&[0.0; 96]));
    refused(&two, &["num_labels", "one label"]);
    let modern = convert(&fixture("modernbert"), &CASES[3], Some(2));
    let classifier = modern.tensor("cls.output.weight", 0, &[48, 1], f32_bytes(&[0.0; 48]));
    refused(&classifier, &["cls.output.weight", "a classifier"]);
    // Without a pooling there is nothing for the layers after it.
    refused(
        &convert(&fixture("gemma3"), &CASES[5], None),
        &["gemma-embedding.pooling_type", "found nothing"],
    );
}
