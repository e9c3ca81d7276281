//! Every key that transformers' own classes define is read, known to be without effect, or refused, and the table in
//! `docs/config-keys.md` says which. `tools/config-keys/list.py` lists them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::*;
use crate::load::quantization::parse_spec;
use crate::spec::registry::architectures;

const LIST: &str = include_str!("../../../tests/golden/config_keys.json");
const DOCS: &str = "../docs/config-keys.md";
/// Set to write the table instead of comparing it.
const WRITE: &str = "CLAWDBOT_WRITE_DOCS";
const BEGIN: &str = "<!-- begin: written by the test of spec/config_keys.rs -->\n";
const END: &str = "<!-- end -->\n";

/// The configuration that transformers' class has for the family, for the architecture `name`.
fn defaults(list: &Value, model_type: &str, name: &str) -> Value {
    let mut config = list["families"][model_type].clone();
    config["architectures"] = json!([name]);
    // Without it the class alone is not usable.
    if config.get("num_experts_per_tok").is_some_and(Value::is_null) {
        config["num_experts_per_tok"] = json!(2);
    }
    if model_type == "glm4_moe" {
        config["head_dim"] = json!(128);
    }
    // Those of some classes are not in their own vocabulary.
    for key in ["bos_token_id", "eos_token_id"] {
        if config[key].as_u64() >= config["vocab_size"].as_u64() {
            config[key] = Value::Null;
        }
    }
    if name.ends_with("ForSequenceClassification") {
        config["num_labels"] = json!(1);
    }
    config
}

fn parsed(config: &Value) -> ModelConfig {
    ModelConfig::parse(config.to_string().as_bytes(), "config.json").unwrap()
}

fn keys(config: &Value) -> impl Iterator<Item = &String> {
    let text = config.get("text_config").and_then(Value::as_object);
    config.as_object().into_iter().chain(text).flat_map(Map::keys)
}

#[test]
fn every_key_of_every_family_is_known() {
    let list: Value = crate::json::value(LIST.as_bytes()).unwrap();
    // For each key: the families that have it, and whether they read it.
    let mut table: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    let mut problems = Vec::new();
    for architecture in architectures() {
        let (name, model_type) = (architecture.name, architecture.model_type);
        let json = defaults(&list, model_type, name);
        let config = parsed(&json);
        if let Err(error) = parse_spec(&config) {
            problems.push(format!("{name}: {error}"));
        }
        config.dtype().unwrap();
        let asked: BTreeSet<String> = config.asked();
        let unread = config.unread();
        if !unread.is_empty() {
            problems.push(format!("{name}: {unread:?}: read, without effect, or refused?"));
        }
        for key in keys(&json) {
            let read = asked.contains(key) || asked.contains(&format!("text_config.{key}"));
            *table.entry(key.clone()).or_default().entry(model_type).or_default() |= read;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let mut rows = String::from("| key | |\n|---|---|\n");
    for (key, families) in &table {
        let of = |wanted: bool| -> Vec<&str> {
            families.iter().filter(|(_, read)| **read == wanted).map(|(name, _)| *name).collect()
        };
        let (readers, others) = (of(true), of(false));
        let ignored = without_effect(key);
        let what = match (readers.is_empty(), others.is_empty()) {
            (false, true) => "read".to_owned(),
            (true, _) => format!("ignored: {}", ignored.unwrap_or("null in all of them")),
            (false, false) => {
                let reason = ignored.unwrap_or("null there");
                format!("read by {}; else ignored: {reason}", readers.join(", "))
            }
        };
        rows.push_str(&format!("| `{key}` | {what} |\n"));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCS);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{rows}{END}{tail}")).unwrap();
    } else {
        assert!(found == rows, "{DOCS} is out of date: run this test with {WRITE}=1");
    }
    for (what, keys) in [("generation", &list["generation"]), ("tokenizer", &list["tokenizer"])] {
        for key in keys.as_array().unwrap().iter().filter_map(Value::as_str) {
            assert!(tail.contains(&format!("`{key}`")), "{DOCS} should say how {key} is used ({what})");
        }
    }
}

#[test]
fn keys_listed_as_refused_are_refused() {
    let list: Value = crate::json::value(LIST.as_bytes()).unwrap();
    let docs = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCS)).unwrap();
    for (name, key, value) in [
        ("LlamaForCausalLM", "is_encoder_decoder", json!(true)),
        ("LlamaForCausalLM", "transformers_weights", json!("other.safetensors")),
        ("LlamaForCausalLM", "hidden_act", json!("mish")),
        ("LlamaForCausalLM", "partial_rotary_factor", json!(0.5)),
        ("LlamaForCausalLM", "quantization_config", json!({"quant_method": "bitsandbytes"})),
        ("Qwen2ForCausalLM", "layer_types", json!(["chunked_attention"])),
        ("Qwen3NextForCausalLM", "attn_output_gate", json!(false)),
        ("GemmaForCausalLM", "use_bidirectional_attention", json!(true)),
        ("GraniteMoeHybridForCausalLM", "mamba_proj_bias", json!(true)),
        ("GraniteMoeHybridForCausalLM", "time_step_limit", json!([0.0, 1.0])),
        ("GraniteMoeHybridForCausalLM", "position_embedding_type", json!("alibi")),
        ("Lfm2ForCausalLM", "use_pos_enc", json!(false)),
        ("DeepseekV2ForCausalLM", "mlp_bias", json!(true)),
        ("DeepseekV2ForCausalLM", "norm_topk_prob", json!(true)),
        ("DeepseekV2ForCausalLM", "topk_method", json!("noaux_tc")),
        ("DeepseekV3ForCausalLM", "scoring_func", json!("softmax")),
        ("DeepseekV3ForCausalLM", "moe_layer_freq", json!(2)),
        ("DeepseekV3ForCausalLM", "attention_sink_bias", json!(true)),
        ("GPT2LMHeadModel", "scale_attn_weights", json!(false)),
        ("GPT2LMHeadModel", "scale_attn_by_inverse_layer_idx", json!(true)),
        ("PhiForCausalLM", "qk_layernorm", json!(true)),
        ("ApertusForCausalLM", "hidden_act", json!("silu")),
        ("NemotronHForCausalLM", "moe_latent_size", json!(64)),
        ("NemotronHForCausalLM", "layers_block_type", json!(["mlp"])),
        ("BertModel", "is_decoder", json!(true)),
        ("BertModel", "add_cross_attention", json!(true)),
        ("ModernBertForSequenceClassification", "classifier_pooling", json!("max")),
        ("BertForSequenceClassification", "num_labels", json!(2)),
    ] {
        let architecture = architectures().find(|architecture| architecture.name == name).unwrap();
        let mut config = defaults(&list, architecture.model_type, name);
        if key == "layer_types" {
            config["num_hidden_layers"] = json!(1);
        }
        config[key] = value;
        let error = parse_spec(&parsed(&config)).expect_err(key);
        assert!(error.message().contains(key), "{key}: {error}");
        assert!(docs.contains(&format!("`{key}`")), "{DOCS} should say that {key} is refused");
    }
}

#[test]
fn unread_keys_are_noted() {
    let list: Value = crate::json::value(LIST.as_bytes()).unwrap();
    let mut config = defaults(&list, "qwen3_5", "Qwen3_5ForConditionalGeneration");
    config["text_config"]["attn_logit_softcapping"] = json!(30.0);
    config["text_config"]["nothing"] = Value::Null;
    config["clip_qkv"] = json!(8);
    let config = parsed(&config);
    parse_spec(&config).unwrap();
    config.note_unread();
    let notes = config.notes();
    let expected = "config.json: clip_qkv: is not read; so are text_config.attn_logit_softcapping";
    assert_eq!(notes, [expected]);
}
