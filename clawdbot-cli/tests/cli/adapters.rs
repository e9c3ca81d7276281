//! LoRA adapters on the command line.

use std::path::{Path, PathBuf};

use crate::support::{empty_dir, run};

fn golden(sub: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden").join(sub)
}

/// The model that the adapters of the fixtures are for.
fn model(name: &str) -> String {
    let dir = empty_dir(name);
    for file in ["adapters/base/config.json", "adapters/base/model.safetensors", "quantized/tokenizer.json"] {
        let from = golden(file);
        std::fs::copy(&from, dir.join(from.file_name().unwrap())).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

#[test]
fn adapters_are_loaded_chosen_and_merged() {
    let model = model("lora");
    let (some, everything) = (golden("adapters/some"), golden("adapters/everything"));
    let (some, everything) = (some.to_str().unwrap(), everything.to_str().unwrap());
    let generate = |more: &[&str]| {
        let fixed = ["generate", "--prompt", "w3 w9 w7", "--temperature", "0", "--max-tokens", "3", "--json"];
        run(&[&fixed[..], &["--ignore-eos", "--logprobs", "2", "--weights", "f32"], more].concat())
    };
    let plain = generate(&["--model", &model]).json();
    let with = generate(&["--model", &model, "--lora", some]).json();
    assert_eq!((&plain["options"]["adapter"], &with["options"]["adapter"]), (&().into(), &"some".into()));
    assert_ne!(plain["logprobs"], with["logprobs"]);
    let named = format!("all={everything}");
    let both = ["--model", &model, "--lora", some, "--lora", &named];
    let chosen = generate(&[&both[..], &["--adapter", "some"]].concat()).json();
    assert_eq!(chosen["logprobs"], with["logprobs"]);
    let other = generate(&[&both[..], &["--adapter", "all"]].concat()).json();
    assert_ne!(other["logprobs"], with["logprobs"]);
    let open = generate(&both);
    assert_eq!(open.code, Some(2));
    assert!(open.stdout.contains("--adapter with one of some, all"), "{}", open.stdout);
    let unknown = generate(&["--model", &model, "--adapter", "x"]);
    assert!(unknown.stdout.contains("expected the name of a loaded adapter"), "{}", unknown.stdout);
    let merged = generate(&["--model", &model, "--merge-adapters", everything]).json();
    let second = |json: &serde_json::Value| json["logprobs"][0]["top"][1]["logprob"].as_f64().unwrap();
    let error = (second(&merged) - second(&other)).abs();
    assert!(error < 1e-3 && (second(&merged) - second(&plain)).abs() > 1.0, "{error}");
    let packed = empty_dir("lora-packed").join("m");
    let packed = packed.to_str().unwrap();
    run(&["pack", &model, packed, "--weights", "f32", "--merge-adapters", everything]).text();
    assert_eq!(generate(&["--model", packed]).json()["logprobs"], merged["logprobs"]);
}

#[test]
fn quantized_directories_are_inspected_and_packed() {
    let dir = empty_dir("quantized");
    for file in ["quantized/awq/config.json", "quantized/awq/model.safetensors", "quantized/tokenizer.json"] {
        let from = golden(file);
        std::fs::copy(&from, dir.join(from.file_name().unwrap())).unwrap();
    }
    let model = dir.to_str().unwrap();
    let text = run(&["inspect", model]).text();
    assert!(text.contains("AWQ int4/32 with zero points 7 matrices"), "{text}");
    assert!(text.contains("from their own codes: int4/32/f32min") && text.contains("as stored"), "{text}");
    let packed = dir.join("m");
    let packed = packed.to_str().unwrap();
    assert_eq!(run(&["pack", model, packed, "--json"]).json()["weights"], "stored");
    let generate = |model: &str| {
        run(&[
            "generate",
            "--model",
            model,
            "--prompt",
            "w5",
            "--temperature",
            "0",
            "--max-tokens",
            "8",
            "--json",
        ])
        .json()["token_ids"]
            .clone()
    };
    assert_eq!(generate(packed), generate(model));
}
