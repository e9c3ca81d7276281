//! Trained models: the text they were published with, and what this library's own reference computes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use clawdbot_core::{
    FinishReason, GenerateOptions, Model, ModelOptions, Runtime, RuntimeOptions, Source, WeightType,
};

fn load(source: &Source, weights: WeightType) -> Model {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    runtime.load(source, &ModelOptions::default().weights(weights)).unwrap()
}

/// 200 tokens from BOS alone, greedy.
#[test]
fn stories260k_tells_the_published_story() {
    let Some(dir) = support::shared("real-models/stories260k") else { return };
    let expected = std::fs::read_to_string(dir.join("expected.txt")).unwrap();
    let greedy = GenerateOptions::default().max_tokens(200_u32).temperature(0.0);
    let source = Source::Path(dir);
    let told = |weights| load(&source, weights).generate(Vec::new(), &greedy).unwrap().text;
    let text = told(WeightType::F32);
    assert_eq!(text.trim(), expected.trim());
    for weights in [WeightType::Bf16, WeightType::Int8] {
        let text = told(weights);
        let same = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
        println!("{weights}: equal for the first {same} of {} bytes", expected.len());
        assert!(same > 100, "{weights}: {text}");
    }
}

#[test]
fn the_builtin_model_agrees_with_its_reference() {
    let json = include_str!("golden/builtin/reference.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    assert!(!cases.is_empty());
    let model = load(&Source::Builtin, WeightType::F32);
    let vocab = model.info().vocab_size;
    for case in &cases {
        let prompt: Vec<u32> = serde_json::from_value(case["prompt"].clone()).unwrap();
        let expected: Vec<f32> = serde_json::from_value(case["last_logits"].clone()).unwrap();
        let logits = model.logits(&prompt).unwrap();
        let last = &logits[logits.len() - vocab..];
        let range = expected.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        for (found, expected) in last.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * (range.1 - range.0), "{found} {expected}");
        }
        let greedy = GenerateOptions::default().max_tokens(48_u32).temperature(0.0).ignore_eos(true);
        let completion = model.generate(prompt, &greedy).unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["greedy"].clone()).unwrap();
        assert_eq!(completion.token_ids, expected);
        assert_eq!(completion.finish_reason, FinishReason::Length);
    }
}
