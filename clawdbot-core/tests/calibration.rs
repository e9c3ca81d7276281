//! int4 that is calibrated on a text: closer to the model than rounding to nearest, and the same file everywhere.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clawdbot_core::{
    ErrorKind, GenerateOptions, KvType, ModelOptions, PackOptions, Result, Runtime, RuntimeOptions, Source,
    WeightType,
};

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
    let text = dir.file("stories.txt", &stories(40, 100));
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
    for (weights, text) in [
        (WeightType::Int4, None),
        (WeightType::Int4, Some(text.as_path())),
        (WeightType::Int4Mixed, Some(text.as_path())),
    ] {
        pack(&runtime(), &target, weights, text, &Source::Builtin).unwrap();
        kl.push(divergence(&Source::Path(target.clone()), &tokens));
        let plan = runtime().plan(&Source::Path(target.clone()), &ModelOptions::default()).unwrap();
        assert_eq!((plan.weights, plan.calibrated_tokens.is_some()), (weights.name(), text.is_some()));
    }
    println!("KL: nearest {:.2e}, calibrated {:.2e}, mixed {:.2e}", kl[0], kl[1], kl[2]);
    assert!(kl[1] < 0.85 * kl[0] && kl[2] < 0.8 * kl[1], "{kl:?}");

    let text = dir.file("few.txt", &stories(20, 100));
    let packed = |options: &RuntimeOptions| {
        let runtime = Runtime::new(options).unwrap();
        pack(&runtime, &target, WeightType::Int4, Some(&text), &Source::Builtin).unwrap();
        std::fs::read(&target).unwrap()
    };
    let expected = packed(&RuntimeOptions::default().threads(1));
    for kernels in Runtime::available_kernels() {
        let threads = if kernels == "scalar" { 2 } else { 3 };
        let found = packed(&RuntimeOptions::default().threads(threads).kernels(Some(kernels.to_owned())));
        assert!(found == expected, "{kernels}, {threads} threads");
    }
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
                refused.push(name);
            }
        }
    }
    assert!(refused.iter().all(|name| name.starts_with("gemma4")), "{refused:?}");
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
    assert_eq!(error(WeightType::Int4, &dir.0.join("none.txt")).kind(), ErrorKind::NotFound);
    std::fs::write(dir.0.join("bytes.txt"), [0xff; 9000]).unwrap();
    assert!(error(WeightType::Int4, &dir.0.join("bytes.txt")).message().contains("UTF-8"));

    let small = Runtime::new(&RuntimeOptions::default().memory_budget(Some(1 << 20))).unwrap();
    let found = pack(&small, &target, WeightType::Int4, Some(&text), &Source::Builtin).unwrap_err();
    assert_eq!(found.kind(), ErrorKind::OutOfBudget);
    assert!(found.message().contains("the calibration"), "{found}");

    let options = PackOptions::default().weights(WeightType::Int4).calibrate(Some(text));
    let mut calls = 0;
    let found = runtime().pack_with_progress(&Source::Builtin, &target, &options, |_| {
        calls += 1;
        if calls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!target.exists());
}
