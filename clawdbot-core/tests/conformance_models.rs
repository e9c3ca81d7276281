//! The published architectures, with random weights, against logits that transformers computed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::Path;

use clawdbot_core::{
    GenerateOptions, Model, ModelOptions, PackOptions, Runtime, RuntimeOptions, Source, WeightType,
};
use serde_json::{Map, Value};

/// Families that were never published in the older notation.
const NEW: &[&str] = &["gemma4", "gemma4_moe", "ministral3"];

struct Reference {
    prompt: Vec<u32>,
    last_logits: Vec<f32>,
    argmax: Vec<u32>,
    /// Largest logits of each position, descending.
    top5: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

fn reference(dir: &Path) -> Reference {
    let json: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
    let ids = |key: &str| serde_json::from_value(json[key].clone()).unwrap();
    Reference {
        prompt: ids("prompt"),
        last_logits: serde_json::from_value(json["last_logits"].clone()).unwrap(),
        argmax: ids("argmax"),
        top5: serde_json::from_value(json["top5"].clone()).unwrap(),
        greedy: ids("greedy"),
    }
}

fn load(dir: &Path, weights: WeightType) -> Model {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    runtime.load(&Source::Path(dir.to_owned()), &ModelOptions::default().weights(weights)).unwrap()
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32
}

#[test]
fn f32_agrees_with_transformers() {
    for (family, dir) in support::all_families() {
        let expected = reference(&dir);
        let model = load(&dir, WeightType::F32);
        let vocab = model.info().vocab_size;
        let logits = model.logits(&expected.prompt).unwrap();
        let last = &logits[logits.len() - vocab..];
        let range = expected.last_logits.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        let tolerance = 1e-4 * (range.1 - range.0);
        let worst = last.iter().zip(&expected.last_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{family}: largest difference {worst:.2e}, allowed {tolerance:.2e}");
        assert!(worst < tolerance, "{family}");
        for (position, row) in logits.chunks_exact(vocab).enumerate() {
            let margin = expected.top5[position][0] - expected.top5[position][1];
            if margin > 2.0 * tolerance {
                assert_eq!(argmax(row), expected.argmax[position], "{family} at {position}");
            }
        }
        let options = GenerateOptions::default().max_tokens(24_u32).temperature(0.0).ignore_eos(true);
        let completion = model.generate(expected.prompt.clone(), &options).unwrap();
        assert_eq!(completion.token_ids, expected.greedy, "{family}");
    }
}

/// `config.json` as it was written before transformers 5: `rope_theta`, `rope_scaling`, `torch_dtype`, and layers by a
/// pattern instead of a list.
fn older_style(config: &mut Value) {
    let config = config.as_object_mut().unwrap();
    let dtype = config.remove("dtype").unwrap();
    config.insert("torch_dtype".into(), dtype);
    match config.get_mut("text_config") {
        Some(text) => older_text(text.as_object_mut().unwrap()),
        None => older_text(config),
    }
}

fn older_text(config: &mut Map<String, Value>) {
    let Some(mut rope) = config.remove("rope_parameters") else {
        if config["model_type"] == "nemotron_h" {
            let kinds = config.remove("layers_block_type").unwrap();
            let sign = |kind: &Value| match kind.as_str().unwrap() {
                "linear_attention" => 'M',
                "full_attention" => '*',
                "mlp" => '-',
                _ => 'E',
            };
            let pattern: String = kinds.as_array().unwrap().iter().map(sign).collect();
            config.insert("hybrid_override_pattern".into(), pattern.into());
        } else {
            assert_eq!(config["model_type"], "gpt2", "others have rotations");
        }
        return;
    };
    let rope = rope.as_object_mut().unwrap();
    if let Some(local) = rope.remove("sliding_attention") {
        config.insert("rope_theta".into(), rope["full_attention"]["rope_theta"].clone());
        config.insert("rope_local_base_freq".into(), local["rope_theta"].clone());
        let full = &mut rope["full_attention"];
        full.as_object_mut().unwrap().remove("rope_theta");
        let scaling = if full["rope_type"] == "default" { Value::Null } else { full.clone() };
        config.insert("rope_scaling".into(), scaling);
    } else {
        config.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
        if let Some(factor) = rope.remove("partial_rotary_factor") {
            config.insert("partial_rotary_factor".into(), factor);
        }
        let scaling = if rope["rope_type"] == "default" { Value::Null } else { Value::Object(rope.clone()) };
        config.insert("rope_scaling".into(), scaling);
    }
    // Which always has a list.
    let listed = config["model_type"] == "gemma3n_text";
    let types = if listed { None } else { config.remove("layer_types") };
    config.remove("_sliding_window_pattern");
    if types.is_some() && matches!(config["model_type"].as_str(), Some("gemma3_text" | "cohere2")) {
        config.insert("sliding_window_pattern".into(), 2.into());
    }
    if matches!(config["model_type"].as_str(), Some("qwen3_5_text" | "qwen3_5_moe_text")) {
        config.insert("full_attention_interval".into(), 2.into());
    }
    if config["model_type"] == "granitemoehybrid" {
        config.insert("layer_types".into(), vec!["mamba", "attention", "mamba"].into());
    }
    if config["model_type"] == "qwen3_moe" {
        let experts = config.remove("num_local_experts").unwrap();
        config.insert("num_experts".into(), experts);
    }
    if config["model_type"] == "lfm2" {
        let size = config.remove("intermediate_size").unwrap();
        config.insert("block_ff_dim".into(), size);
        let tied = config.remove("tie_word_embeddings").unwrap();
        config.insert("tie_embedding".into(), tied);
        config.insert("full_attn_idxs".into(), vec![1].into());
    }
    if config["model_type"] == "smollm3" {
        config.remove("no_rope_layers");
        config.insert("no_rope_layer_interval".into(), 3.into());
    }
}

#[test]
fn the_older_style_of_configuration_gives_the_same_logits() {
    for (family, dir) in support::families() {
        if NEW.contains(&family.as_str()) {
            continue;
        }
        let older = support::Copy::of(&dir, &format!("older-{family}"));
        older.edit("config.json", older_style);
        let prompt = reference(&dir).prompt;
        let logits = |dir: &Path| load(dir, WeightType::F32).logits(&prompt).unwrap();
        assert!(logits(older.path()) == logits(&dir), "{family}");
    }
}

#[test]
fn packed_models_are_the_same() {
    for (family, dir) in support::families() {
        let prompt = reference(&dir).prompt;
        let file = std::env::temp_dir().join(format!("clawdbot-{}-{family}.clawdbot", std::process::id()));
        for weights in [WeightType::Int8, WeightType::F32] {
            let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
            let options = PackOptions::default().weights(weights).overwrite(true);
            runtime.pack(&Source::Path(dir.clone()), &file, &options).unwrap();
            let packed = runtime.load(&Source::Path(file.clone()), &ModelOptions::default()).unwrap();
            let loaded = load(&dir, weights);
            assert!(packed.logits(&prompt).unwrap() == loaded.logits(&prompt).unwrap(), "{family} {weights}");
            let (packed, loaded) = (&packed.info().plan, &loaded.info().plan);
            assert_eq!(packed.parameters, loaded.parameters, "{family}");
            assert_eq!(packed.load_bytes, loaded.load_bytes, "{family}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
