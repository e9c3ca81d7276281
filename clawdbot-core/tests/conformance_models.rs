//! The published architectures, with random weights, against logits that transformers computed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::Path;

use clawdbot_core::{GenerateOptions, Model, ModelOptions, Runtime, RuntimeOptions, Source, WeightType};
use serde_json::Value;

/// Families that are supported.
const FAMILIES: &[&str] = &["llama", "llama3_rope", "llama_yarn", "mistral", "qwen2", "qwen3"];

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
    let Some(models) = support::shared("conformance/models") else { return };
    for family in FAMILIES {
        let dir = models.join(family);
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

/// `config.json` as it was written before transformers 5: `rope_theta`, `rope_scaling`, `torch_dtype`.
fn older_style(config: &mut Value) {
    let config = config.as_object_mut().unwrap();
    let mut rope = config.remove("rope_parameters").unwrap();
    let rope = rope.as_object_mut().unwrap();
    config.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
    let scaling = if rope["rope_type"] == "default" { Value::Null } else { Value::Object(rope.clone()) };
    config.insert("rope_scaling".into(), scaling);
    let dtype = config.remove("dtype").unwrap();
    config.insert("torch_dtype".into(), dtype);
}

#[test]
fn the_older_style_of_configuration_gives_the_same_logits() {
    let Some(models) = support::shared("conformance/models") else { return };
    for family in FAMILIES {
        let dir = models.join(family);
        let older = support::Copy::of(&dir, &format!("older-{family}"));
        older.edit("config.json", older_style);
        let prompt = reference(&dir).prompt;
        let logits = |dir: &Path| load(dir, WeightType::F32).logits(&prompt).unwrap();
        assert!(logits(older.path()) == logits(&dir), "{family}");
    }
}
