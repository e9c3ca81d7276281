//! int4 that is calibrated on a text: closer to the model than rounding to nearest, and the same file everywhere.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    ErrorKind, GenerateOptions, KvType, ModelOptions, PackOptions, Result, Runtime, RuntimeOptions, Source,
    WeightType,
};
use serde_json::{Map, Value, json};

/// A temporary directory, removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-calibration-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(2)).unwrap()
}

/// Stories that the built-in model writes.
fn stories(count: u64, seed: u64) -> String {
    let model = runtime().load(&Source::Builtin, &ModelOptions::default()).unwrap();
    let write = |seed| {
        let options = GenerateOptions::default().temperature(1.0).seed(seed).max_tokens(300_u32);
        model.generate("Once upon a time", &options).unwrap().text
    };
    (seed..seed + count).map(|seed| format!("Once upon a time{}\n", write(seed))).collect()
}

fn pack(
    runtime: &Runtime,
    target: &Path,
    weights: WeightType,
    text: Option<&Path>,
    source: &Source,
) -> Result<u64> {
    let mut options = PackOptions::default().weights(weights).overwrite(true);
    options.calibrate = text.map(Path::to_owned);
    runtime.pack(source, target, &options)
}

/// One layer with random weights, whose texts are short; the tokenizer is that of a family.
fn tiny_model(dir: &Dir) -> PathBuf {
    const HIDDEN: usize = 32;
    let path = dir.0.join("tiny");
    std::fs::create_dir_all(&path).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(support::family("llama").join(file), path.join(file)).unwrap();
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": true,
    });
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let attention = ["q", "k", "v", "o"].map(|name| format!("layers.0.self_attn.{name}_proj"));
    let mlp = ["gate", "up", "down"].map(|name| format!("layers.0.mlp.{name}_proj"));
    let matrices = attention.into_iter().chain(mlp).map(|name| (name, vec![HIDDEN, HIDDEN]));
    let norms = ["norm", "layers.0.input_layernorm", "layers.0.post_attention_layernorm"];
    let norms = norms.map(|name| (name.to_owned(), vec![HIDDEN]));
    let embedding = ("embed_tokens".to_owned(), vec![512, HIDDEN]);
    let (mut header, mut data, mut state) = (Map::new(), Vec::new(), 1_u32);
    for (name, shape) in matrices.chain(norms).chain([embedding]) {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend(if shape.len() == 1 { 1.0_f32 } else { random }.to_le_bytes());
        }
        let tensor = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(format!("model.{name}.weight"), tensor);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path.join("model.safetensors"), [&length, header.as_bytes(), &data].concat()).unwrap();
    path
}

/// Mean KL divergence from the built-in model in f32.
fn divergence(source: &Source, tokens: &[u32]) -> f64 {
    let options = ModelOptions::default().kv(KvType::F32);
    let exact = runtime().load(&Source::Builtin, &options.clone().weights(WeightType::F32)).unwrap();
    let other = runtime().load(source, &options).unwrap();
    let (vocab, count) = (exact.info().vocab_size, tokens.len() as f64);
    let (expected, found) = (exact.logits(tokens).unwrap(), other.logits(tokens).unwrap());
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
        row.iter().map(|x| f64::from(x - most) - sum.ln()).collect()
    };
    let rows = expected.chunks_exact(vocab).zip(found.chunks_exact(vocab));
    rows.map(|(p, q)| {
        let terms = log_softmax(p).into_iter().zip(log_softmax(q));
        terms.map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / count
    })
    .sum()
}

#[test]
fn calibrated_weights_are_closer_and_the_same_everywhere() {
    let dir = Dir::new("closer");
    let text = dir.file("stories.txt", &stories(20, 100));
    let tokens = {
        let model = runtime().load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let mut session = model.session().unwrap();
        let options =
            GenerateOptions::default().temperature(1.0).seed(7).max_tokens(400_u32).ignore_eos(true);
        session.generate(&options).unwrap();
        session.tokens().unwrap()
    };
    let target = dir.0.join("model.clawdbot");
    let mut kl = Vec::new();
    let mut calibrated = Vec::new();
    for (weights, text) in [
        (WeightType::Int4, None),
        (WeightType::Int4Mixed, Some(text.as_path())),
        (WeightType::Int4, Some(text.as_path())),
    ] {
        pack(&runtime(), &target, weights, text, &Source::Builtin).unwrap();
        kl.push(divergence(&Source::Path(target.clone()), &tokens));
        let plan = runtime().plan(&Source::Path(target.clone()), &ModelOptions::default()).unwrap();
        assert_eq!((plan.weights, plan.calibrated_tokens.is_some()), (weights.name(), text.is_some()));
        calibrated = std::fs::read(&target).unwrap();
    }
    println!("KL: nearest {:.2e}, mixed {:.2e}, calibrated {:.2e}", kl[0], kl[1], kl[2]);
    assert!(kl[2] < 0.85 * kl[0] && kl[1] < 0.8 * kl[2], "{kl:?}");

    for threads in [1, 3] {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(threads)).unwrap();
        pack(&runtime, &target, WeightType::Int4, Some(&text), &Source::Builtin).unwrap();
        assert!(std::fs::read(&target).unwrap() == calibrated, "{threads} threads");
    }

    // A smaller model, as the scalar kernels are slow in a test.
    let tiny = Source::Path(tiny_model(&dir));
    let mut expected = None;
    for kernels in Runtime::available_kernels() {
        for threads in [1, 2, 3] {
            let options = RuntimeOptions::default().threads(threads).kernels(Some(kernels.to_owned()));
            let runtime = Runtime::new(&options).unwrap();
            pack(&runtime, &target, WeightType::Int4, Some(&text), &tiny).unwrap();
            let found = std::fs::read(&target).unwrap();
            assert!(expected.get_or_insert_with(|| found.clone()) == &found, "{kernels}, {threads} threads");
        }
    }
    let nearest = Runtime::new(&RuntimeOptions::default()).unwrap();
    pack(&nearest, &target, WeightType::Int4, None, &tiny).unwrap();
    assert!(expected.unwrap() != std::fs::read(&target).unwrap());
}

/// Experts, recurrent layers, latent attention and all else that families have.
#[test]
fn every_family_is_calibrated_or_refused() {
    let dir = Dir::new("families");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = ["numerics.md", "performance.md", "generation.md"]
        .map(|name| std::fs::read_to_string(docs.join(name)).unwrap())
        .concat();
    let text = dir.file("docs.txt", &text);
    let target = dir.0.join("model.clawdbot");
    let mut refused = Vec::new();
    for (name, path) in support::families() {
        let source = Source::Path(path);
        match pack(&runtime(), &target, WeightType::Int4, Some(&text), &source) {
            Ok(_) => {
                let model = runtime().load(&Source::Path(target.clone()), &ModelOptions::default()).unwrap();
                let logits = model.logits(&[5, 6, 7]).unwrap();
                assert!(logits.iter().all(|x| x.is_finite()), "{name}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{name}: {error}");
                assert_eq!(error.detail()["option"], "calibrate", "{name}: {error}");
                refused.push(name);
            }
        }
    }
    assert!(
        refused.iter().all(|name| ["gemma3n", "gemma4"].iter().any(|family| name.starts_with(family))),
        "{refused:?}"
    );
}

#[test]
fn stages_have_names() {
    let dir = Dir::new("stages");
    let target = dir.0.join("model.clawdbot");
    let logged = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&logged);
    let runtime = Runtime::with_log(&RuntimeOptions::default().threads(2), move |record| {
        log.lock().unwrap().push(record.message.to_string());
    })
    .unwrap();
    let options = PackOptions::default().weights(WeightType::Int4).calibrate(Some(PathBuf::from("builtin")));
    let mut stages: Vec<String> = Vec::new();
    let pack = runtime.pack_with_progress(&Source::Builtin, &target, &options, |now| {
        let stage = now.stage.unwrap().to_string();
        if stages.last() != Some(&stage) {
            stages.push(stage);
        }
        ControlFlow::Continue(())
    });
    pack.unwrap();
    let layers = (1..=4).map(|layer| format!("calibrating layer {layer} of 4"));
    let expected: Vec<String> = layers.chain(["calibrating the output layer".to_owned()]).collect();
    assert_eq!(stages, expected);
    let logged = logged.lock().unwrap();
    let found = logged.iter().filter_map(|message| message.split_once(": calibrating"));
    assert_eq!(found.count(), 5, "{logged:?}");
}

#[test]
fn what_cannot_be_calibrated_is_said() {
    let dir = Dir::new("errors");
    let short = dir.file("short.txt", "Once upon a time");
    let text = dir.file("stories.txt", &stories(20, 1));
    let target = dir.0.join("model.clawdbot");
    let error =
        |weights, text: &Path| pack(&runtime(), &target, weights, Some(text), &Source::Builtin).unwrap_err();
    let found = error(WeightType::Int4, &short);
    assert_eq!(found.kind(), ErrorKind::InvalidArgument);
    assert!(found.message().contains("at least 4096 tokens, found 4"), "{found}");
    assert_eq!(found.detail()["option"], "calibrate");
    let found = error(WeightType::Int8, &text);
    assert!(found.message().contains("expected weights int4 or int4-mixed, found int8"), "{found}");
    assert!(error(WeightType::Stored, &text).message().ends_with("found stored"));
    let found = error(WeightType::Int4, &dir.0.join("none.txt"));
    assert_eq!((found.kind(), &found.detail()["option"]), (ErrorKind::NotFound, &"calibrate".into()));
    for bytes in [[0xff].repeat(9000), b"a\0".repeat(4500)] {
        std::fs::write(dir.0.join("bytes.txt"), bytes).unwrap();
        let found = error(WeightType::Int4, &dir.0.join("bytes.txt"));
        assert!(found.message().starts_with("option calibrate: "), "{found}");
        assert!(found.message().contains("UTF-8"), "{found}");
    }

    let small = Runtime::new(&RuntimeOptions::default().memory_budget(Some(1 << 20))).unwrap();
    let found = pack(&small, &target, WeightType::Int4, Some(&text), &Source::Builtin).unwrap_err();
    assert_eq!(found.kind(), ErrorKind::OutOfBudget);
    assert!(found.message().contains("the calibration"), "{found}");

    let options =
        PackOptions::default().weights(WeightType::Int4).overwrite(true).calibrate(Some(text.clone()));
    let found = runtime().pack(&Source::Builtin, &text, &options).unwrap_err();
    assert!(found.message().contains("expected another file than the text"), "{found}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), stories(20, 1));

    let options = PackOptions::default().weights(WeightType::Int4).calibrate(Some(text));
    let mut calls = 0;
    let found = runtime().pack_with_progress(&Source::Builtin, &target, &options, |_| {
        calls += 1;
        if calls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!target.exists());
}
