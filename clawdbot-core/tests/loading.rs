//! Model directories, good and bad: each fault is a typed error that names what was expected and what was found.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    AddGenerationPrompt, AddSpecialTokens, Chat, ErrorKind, GenerateOptions, LogLevel, Model, ModelOptions,
    PackOptions, Prompt, Runtime, RuntimeOptions, Source, WeightType,
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
        ("vocab_size", json!(512), ErrorKind::InvalidModel, &["512", "1024"]),
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
    refuse(copy.path(), ErrorKind::InvalidModel, &["rms_norm_eps", "NaN"]);
    // Where nothing is read of it, it does not matter.
    copy.edit_text("config.json", |text| text.replace("NaN", "1e-05, \"initializer_range\": Infinity"));
    load(copy.path()).unwrap();
}

#[test]
fn files_may_begin_with_a_byte_order_mark() {
    let copy = builtin_files("bom");
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        copy.edit_text(file, |text| format!("\u{feff}{text}"));
    }
    let ids =
        load(copy.path()).unwrap().tokenizer().unwrap().encode("Once upon", AddSpecialTokens::Yes).unwrap();
    assert_eq!(
        ids,
        Model::builtin().unwrap().tokenizer().unwrap().encode("Once upon", AddSpecialTokens::Yes).unwrap()
    );
    let utf16 = |text: String| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let path = copy.path().join("config.json");
    std::fs::write(&path, utf16(std::fs::read_to_string(&path).unwrap())).unwrap();
    refuse(copy.path(), ErrorKind::InvalidModel, &["config.json", "UTF-16"]);
}

/// Name, dtype, shape, data.
type Tensor = (String, String, Value, Vec<u8>);

/// The metadata and the tensors of a safetensors file.
fn tensors(path: &Path) -> (Value, Vec<Tensor>) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let tensor = |(name, entry): (&String, &Value)| {
        let at = |i: usize| usize::try_from(entry["data_offsets"][i].as_u64().unwrap()).unwrap();
        let dtype = entry["dtype"].as_str().unwrap().to_owned();
        (name.clone(), dtype, entry["shape"].clone(), data[at(0)..at(1)].to_vec())
    };
    let metadata = header.get("__metadata__").cloned().unwrap_or_else(|| json!({}));
    (metadata, header.iter().filter(|(name, _)| *name != "__metadata__").map(tensor).collect())
}

fn write_tensors(path: &Path, (metadata, tensors): &(Value, Vec<Tensor>)) {
    let (mut header, mut data) = (json!({"__metadata__": metadata}), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
        .unwrap();
}

/// Loads `path`, and what the log says of it as a warning.
fn load_with_log(path: &Path, options: &ModelOptions) -> (Model, Vec<String>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let log = move |record: &clawdbot_core::LogRecord| {
        if record.level == LogLevel::Warning {
            heard.lock().unwrap().push(record.message.clone());
        }
    };
    let runtime = Runtime::with_log(&RuntimeOptions::default().threads(1), log).unwrap();
    let model = runtime.load(&Source::from(path), options).unwrap();
    let warnings = warnings.lock().unwrap().clone();
    (model, warnings)
}

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// The model in `dir`, whose configuration ties, with a head of its own: its embedding with the rows the other way round. The
/// same without the tie. A copy that has the head alone, and one with an equal head.
fn heads(dir: &Path, name: &str) -> [Copy; 4] {
    let copies = ["own", "untied", "only", "equal"].map(|kind| Copy::of(dir, &format!("{name}-{kind}")));
    let weights = |copy: &Copy| copy.path().join("model.safetensors");
    let (metadata, all) = tensors(&weights(&copies[0]));
    let embedding = |name: &str| name.starts_with(EMBEDDING);
    let head: Vec<Tensor> = all.iter().filter(|tensor| embedding(&tensor.0)).cloned().collect();
    let named = |change: &dyn Fn(&Tensor) -> Vec<u8>| -> Vec<Tensor> {
        let rename = |tensor: &Tensor| {
            (tensor.0.replace(EMBEDDING, HEAD), tensor.1.clone(), tensor.2.clone(), change(tensor))
        };
        head.iter().map(rename).collect()
    };
    let turned = named(&|(_, _, shape, data)| {
        let rows = usize::try_from(shape[0].as_u64().unwrap()).unwrap();
        data.chunks(data.len() / rows).rev().flatten().copied().collect()
    });
    let equal = named(&|tensor| tensor.3.clone());
    let rest: Vec<Tensor> = all.iter().filter(|tensor| !embedding(&tensor.0)).cloned().collect();
    for (copy, tensors) in copies.iter().zip([
        [all.clone(), turned.clone()].concat(),
        [all.clone(), turned].concat(),
        [rest, equal.clone()].concat(),
        [all.clone(), equal].concat(),
    ]) {
        write_tensors(&weights(copy), &(metadata.clone(), tensors));
    }
    copies[1].edit("config.json", |config| config["tie_word_embeddings"] = json!(false));
    copies
}

/// What a tie means where the file has a head: as in transformers 5, it holds if the two are equal.
#[track_caller]
fn ties(dir: &Path, name: &str, weights: WeightType) {
    let options = ModelOptions::default().weights(weights);
    let prompt = [1_u32, 40, 50, 60];
    let [own, untied, only, equal] = heads(dir, name);
    let (tied, _) = load_with_log(dir, &options);
    let expected = tied.logits(&prompt).unwrap();
    let (with_own, warnings) = load_with_log(own.path(), &options);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("tie_word_embeddings") && warning.contains(HEAD), "{warning}");
    let (reference, warnings) = load_with_log(untied.path(), &options);
    assert_eq!(warnings, [""; 0]);
    let own_logits = with_own.logits(&prompt).unwrap();
    assert!(own_logits == reference.logits(&prompt).unwrap() && own_logits != expected);
    let (of, untied) = (&with_own.info().plan, &reference.info().plan);
    assert_eq!((of.parameters, of.weights_bytes), (untied.parameters, untied.weights_bytes));
    assert!(of.parameters > tied.info().plan.parameters);
    for copy in [&only, &equal] {
        let (model, warnings) = load_with_log(copy.path(), &options);
        assert_eq!(warnings, [""; 0]);
        assert!(model.logits(&prompt).unwrap() == expected);
        assert_eq!(model.info().plan.parameters, tied.info().plan.parameters);
    }
    // A packed file of it has both matrices too.
    let file = own.path().join("m.clawdbot");
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
    runtime.pack(&Source::from(own.path()), &file, &PackOptions::default().weights(weights)).unwrap();
    let (packed, _) = load_with_log(&file, &ModelOptions::default());
    assert!(packed.logits(&prompt).unwrap() == own_logits);
    assert_eq!(packed.info().plan.parameters, of.parameters);
}

#[test]
fn a_head_of_its_own_is_used_whatever_the_configuration_says() {
    // Stored as int8 codes with scales.
    ties(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin")), "builtin", WeightType::Int8);
}

#[test]
fn so_it_is_in_other_families() {
    ties(&support::family("gemma4_moe"), "gemma4-moe", WeightType::F32);
}

#[test]
fn a_missing_tensor_is_an_error_that_no_index_hides() {
    let copy = builtin_files("needed");
    let single = copy.path().join("model.safetensors");
    let (metadata, mut all) = tensors(&single);
    let map: Value = all.iter().map(|tensor| (tensor.0.clone(), json!("1.safetensors"))).collect();
    all.retain(|tensor| tensor.0 != "model.norm.weight");
    write_tensors(&copy.path().join("1.safetensors"), &(metadata, all));
    std::fs::remove_file(&single).unwrap();
    let index = json!({"weight_map": map}).to_string();
    std::fs::write(copy.path().join("model.safetensors.index.json"), index).unwrap();
    refuse(copy.path(), ErrorKind::InvalidModel, &["model.norm.weight", "found none"]);
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_nowhere_is_no_missing_file() {
    for name in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja", "modules.json"] {
        let copy = builtin_files("dangling");
        let _ = std::fs::remove_file(copy.path().join(name));
        std::os::unix::fs::symlink("../nowhere", copy.path().join(name)).unwrap();
        refuse(copy.path(), ErrorKind::NotFound, &[name]);
    }
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
    let render = |model: &Model| model.render_chat(&chat, AddGenerationPrompt::Yes);
    assert_eq!(render(&load(copy.path()).unwrap()).unwrap_err().kind(), ErrorKind::MissingTemplate);
    std::fs::write(copy.path().join("chat_template.jinja"), "{{ messages[0].content }}!").unwrap();
    assert_eq!(render(&load(copy.path()).unwrap()).unwrap(), "Hi!");
}

#[test]
fn a_template_that_does_not_compile_matters_to_chats_alone() {
    let copy = builtin_files("bad-template");
    copy.edit("tokenizer_config.json", |json| json["chat_template"] = json!("{% for m in %}"));
    let (model, warnings) = load_with_log(copy.path(), &ModelOptions::default());
    assert!(!model.info().plan.has_chat_template);
    assert_eq!(model.info().plan.warnings, warnings);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("tokenizer_config.json: ") && warning.contains("cannot chat"), "{warning}");
    let chat = Chat::new(json!([{"role": "user", "content": "Hi"}]));
    assert_eq!(
        model.render_chat(&chat, AddGenerationPrompt::Yes).unwrap_err().kind(),
        ErrorKind::InvalidTemplate
    );
    assert!(model.generate("Once", &GenerateOptions::default().max_tokens(2_u32)).is_ok());
    // Another one takes its place, and is checked.
    let with = |template: &str| ModelOptions::default().chat_template(template.to_owned());
    let (model, warnings) = load_with_log(copy.path(), &with("{{ messages[0].content }}!"));
    assert_eq!(
        (model.render_chat(&chat, AddGenerationPrompt::Yes).unwrap().as_str(), warnings.len()),
        ("Hi!", 0)
    );
    let source = Source::from(copy.path());
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    for bad in [
        runtime.load(&source, &with("{% if %}")).unwrap_err(),
        runtime.plan(&source, &with("{% if %}")).unwrap_err(),
    ] {
        assert_eq!(
            (bad.kind(), &bad.detail()["option"]),
            (ErrorKind::InvalidTemplate, &json!("chat_template"))
        );
    }
    std::fs::write(copy.path().join("chat_template.jinja"), b"\xff\xfe").unwrap();
    let (model, _) = load_with_log(copy.path(), &ModelOptions::default());
    assert_eq!(
        model.render_chat(&chat, AddGenerationPrompt::Yes).unwrap_err().kind(),
        ErrorKind::InvalidUtf8
    );
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
