//! Model directories, good and bad: each fault is a typed error that names what was expected and what was found.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;

use clawdbot_core::{
    Chat, ErrorKind, GenerateOptions, Model, ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
    WeightType,
};
use serde_json::{Value, json};
use support::Copy;

fn builtin_files(name: &str) -> Copy {
    Copy::of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin")), name)
}

fn load(dir: &Path) -> clawdbot_core::Result<Model> {
    Runtime::new(&RuntimeOptions::default().threads(1))?.load(&Source::from(dir), &ModelOptions::default())
}

#[track_caller]
fn refuse(dir: &Path, kind: ErrorKind, words: &[&str]) {
    let error = load(dir).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{error:?} should mention {word:?}");
    }
}

#[test]
fn a_directory_gives_what_the_builtin_model_gives() {
    let copy = builtin_files("same");
    let prompt = [1_u32, 40, 50, 60];
    let builtin = Model::builtin().unwrap();
    assert!(load(copy.path()).unwrap().logits(&prompt).unwrap() == builtin.logits(&prompt).unwrap());
}

#[test]
fn files_that_are_missing_or_broken() {
    let copy = builtin_files("missing");
    refuse(&copy.path().join("nowhere"), ErrorKind::NotFound, &["nowhere"]);
    refuse(&copy.path().join("config.json"), ErrorKind::InvalidArgument, &["directory"]);
    let weights = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for (length, word) in [(0, "8"), (7, "8"), (100, "header"), (bytes.len() - 1, "model.safetensors")] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        refuse(copy.path(), ErrorKind::InvalidModel, &[word]);
    }
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&(1_u64 << 32).to_le_bytes());
    std::fs::write(&weights, &huge).unwrap();
    refuse(copy.path(), ErrorKind::InvalidModel, &["4294967296"]);
    std::fs::remove_file(&weights).unwrap();
    refuse(copy.path(), ErrorKind::NotFound, &["model.safetensors"]);
    std::fs::write(&weights, &bytes).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        let path = copy.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert!(load(copy.path()).is_err(), "{file} cut in half");
        std::fs::remove_file(&path).unwrap();
        refuse(copy.path(), ErrorKind::NotFound, &[file]);
        std::fs::write(&path, good).unwrap();
    }
    load(copy.path()).unwrap();
}

#[test]
fn configurations_that_do_not_fit() {
    let cases: [(&str, Value, ErrorKind, &[&str]); 8] = [
        (
            "architectures",
            json!(["MambaForCausalLM"]),
            ErrorKind::UnsupportedModel,
            &["Mamba", "LlamaForCausalLM", "Qwen3"],
        ),
        ("vocab_size", json!(512), ErrorKind::InvalidTokenizer, &["512", "1024"]),
        ("hidden_size", json!(260), ErrorKind::InvalidModel, &["260"]),
        ("hidden_size", json!(-1), ErrorKind::InvalidModel, &["hidden_size", "-1"]),
        ("num_hidden_layers", json!(2.5), ErrorKind::InvalidModel, &["num_hidden_layers", "2.5"]),
        ("hidden_act", json!("relu6"), ErrorKind::UnsupportedModel, &["relu6", "silu"]),
        ("rms_norm_eps", json!("small"), ErrorKind::InvalidModel, &["rms_norm_eps"]),
        ("num_hidden_layers", json!(5), ErrorKind::InvalidModel, &["layers."]),
    ];
    for (index, (key, value, kind, words)) in cases.into_iter().enumerate() {
        let copy = builtin_files(&format!("config-{index}"));
        copy.edit("config.json", |config| config[key] = value);
        refuse(copy.path(), kind, words);
    }
    let copy = builtin_files("config-nan");
    let path = copy.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("1e-05", "NaN");
    assert!(text.contains("NaN"));
    std::fs::write(&path, text).unwrap();
    refuse(copy.path(), ErrorKind::InvalidModel, &["NaN"]);
}

#[test]
fn an_empty_prompt_needs_a_beginning() {
    let copy = builtin_files("no-bos");
    let remove = |json: &mut Value| {
        json.as_object_mut().unwrap().remove("bos_token_id");
    };
    copy.edit("config.json", remove);
    copy.edit("generation_config.json", remove);
    let model = load(copy.path()).unwrap();
    let options = GenerateOptions::default().max_tokens(2_u32);
    let error = model.generate(Prompt::Tokens(Vec::new()), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EmptyPrompt);
    let builtin = Model::builtin().unwrap();
    assert_eq!(builtin.generate(Prompt::Tokens(Vec::new()), &options).unwrap().token_ids.len(), 2);
}

#[test]
fn a_model_without_a_template_says_so() {
    let copy = builtin_files("no-template");
    copy.edit("tokenizer_config.json", |json| {
        json.as_object_mut().unwrap().remove("chat_template");
    });
    let chat = Chat::new(json!([{"role": "user", "content": "Hi"}]));
    let render = |model: &Model| model.render_chat(&chat, true);
    assert_eq!(render(&load(copy.path()).unwrap()).unwrap_err().kind(), ErrorKind::MissingTemplate);
    std::fs::write(copy.path().join("chat_template.jinja"), "{{ messages[0].content }}!").unwrap();
    assert_eq!(render(&load(copy.path()).unwrap()).unwrap(), "Hi!");
}

#[test]
fn shapes_are_random_models_without_text() {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let error = runtime.plan(&Source::Shape("gpt-9".into()), &ModelOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("llama-3.2-1b"), "{error}");
    for name in Source::SHAPES {
        for weights in [WeightType::Int8, WeightType::Bf16] {
            let plan = runtime
                .plan(&Source::Shape((*name).into()), &ModelOptions::default().weights(weights))
                .unwrap();
            assert!(plan.weights_bytes > plan.parameters && plan.load_bytes > plan.weights_bytes, "{name}");
        }
    }
}
