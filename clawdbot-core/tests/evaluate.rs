//! How good a model is: perplexity and divergence agree with logits, and everything else is refused with a reason.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clawdbot_core::{
    AddSpecialTokens, ErrorKind, EvaluateOptions, Evaluation, KvType, ModelOptions, PackOptions,
    ReferenceType, Runtime, RuntimeOptions, Source, Stage, WeightType,
};

const STORY: &str = "Once upon a time there was a little dog. It liked to run in the park and to play with \
                     a red ball. One day the ball was gone. The dog looked for it under every tree.";

/// A temporary directory, removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-evaluate-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime(threads: u32) -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(threads)).unwrap()
}

fn evaluate(source: &Source, options: &EvaluateOptions) -> Evaluation {
    runtime(2).evaluate(source, options).unwrap()
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    row.iter().map(|&x| f64::from(x) - most - sum.ln()).collect()
}

/// What the logits of the whole model say.
struct Expected {
    perplexity: f64,
    divergence: f64,
    top1: f64,
}

/// Of the story, which is one sequence.
fn expected(source: &Source, weights: WeightType, kv: KvType) -> Expected {
    let load = |weights, kv| {
        let options = ModelOptions::default().weights(weights).kv(kv);
        runtime(2).load(source, &options).unwrap()
    };
    let model = load(Some(weights), kv);
    let tokenizer = model.tokenizer().unwrap();
    let mut tokens = tokenizer.encode("", AddSpecialTokens::Yes).unwrap();
    tokens.truncate(1);
    tokens.extend(tokenizer.encode(STORY, AddSpecialTokens::No).unwrap());
    let vocab = model.info().vocab_size;
    let (own, reference) =
        (model.logits(&tokens).unwrap(), load(Some(WeightType::F32), KvType::F32).logits(&tokens).unwrap());
    let rows = own.chunks_exact(vocab).zip(reference.chunks_exact(vocab)).zip(&tokens[1..]);
    let (mut surprise, mut divergence, mut same) = (0.0, 0.0, 0.0);
    let count = tokens.len() as f64 - 1.0;
    for ((own, reference), &next) in rows {
        let (q, p) = (log_softmax(own), log_softmax(reference));
        let best = |row: &[f64]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        surprise -= q[next as usize] / count;
        divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / count;
        same += f64::from(u8::from(best(&p) == best(&q))) / count;
    }
    Expected { perplexity: surprise.exp(), divergence, top1: same }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-5 * expected.abs() + 1e-12
}

#[test]
fn figures_are_those_of_the_logits() {
    let dir = Dir::new("logits");
    let text = dir.file("story.txt", STORY);
    for (weights, kv) in [
        (WeightType::F32, KvType::Int8),
        (WeightType::Bf16, KvType::Bf16),
        (WeightType::Int8, KvType::Int8),
        (WeightType::Int4, KvType::Bf16),
        (WeightType::Int4Mixed, KvType::Bf16),
    ] {
        let options = EvaluateOptions::default().weights(weights).kv(kv).text(text.clone());
        let found = evaluate(&Source::Builtin, &options);
        let expected = expected(&Source::Builtin, weights, kv);
        assert!(close(found.perplexity, expected.perplexity), "{weights}: {}", found.perplexity);
        assert!(close(found.kl_divergence.unwrap(), expected.divergence), "{weights}: {found:?}");
        assert!(close(found.top1_agreement.unwrap(), expected.top1), "{weights}: {found:?}");
        assert_eq!((found.weights, found.kv), (weights.name(), kv.name()));
        assert_eq!((found.sequences, found.predicted), (1, found.tokens - 1));
    }
}

/// Windows, states, latent attention, experts: a layer at a time gives what the whole model gives.
#[test]
fn every_family() {
    let dir = Dir::new("families");
    let text = dir.file("story.txt", STORY);
    let mut refused = Vec::new();
    for (name, path) in support::families() {
        let source = Source::Path(path);
        let options = EvaluateOptions::default().weights(WeightType::Int8).text(text.clone());
        let found = match runtime(2).evaluate(&source, &options) {
            Ok(found) => found,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{name}: {error}");
                assert!(error.message().contains("layers share more"), "{name}: {error}");
                refused.push(name);
                continue;
            }
        };
        let expected = expected(&source, WeightType::Int8, KvType::Auto);
        assert!(close(found.perplexity, expected.perplexity), "{name}: {}", found.perplexity);
        assert!(close(found.kl_divergence.unwrap(), expected.divergence), "{name}: {found:?}");
    }
    assert_eq!(refused, ["gemma3n", "gemma3n_two_streams", "gemma4"]);
}

#[test]
fn a_model_is_equal_to_itself() {
    for (weights, reference) in
        [(WeightType::F32, ReferenceType::F32), (WeightType::Bf16, ReferenceType::Bf16)]
    {
        let options = EvaluateOptions::default().weights(weights).reference(reference).sequences(3_u32);
        let found = evaluate(&Source::Builtin, &options);
        assert_eq!((found.kl_divergence, found.kl_p99), (Some(0.0), Some(0.0)));
        assert_eq!((found.kl_standard_error, found.top1_agreement), (Some(0.0), Some(1.0)));
        assert!(
            found.layers.iter().all(|layer| layer.relative_error == 0.0 && layer.mean_token_error == 0.0)
        );
        let reference = found.reference.unwrap();
        assert_eq!((reference.perplexity, reference.weights), (found.perplexity, weights.name()));
        assert_eq!((found.text.as_str(), found.sequences), ("builtin", 3));
    }
}

#[test]
fn fewer_bits_are_farther_away() {
    let of =
        |weights| evaluate(&Source::Builtin, &EvaluateOptions::default().weights(weights).sequences(4_u32));
    let (bf16, int8, int4) = (of(WeightType::Bf16), of(WeightType::Int8), of(WeightType::Int4));
    for (better, worse) in [(&bf16, &int8), (&int8, &int4)] {
        assert!(better.kl_divergence < worse.kl_divergence);
        assert!(better.kl_p99 < worse.kl_p99 && better.top1_agreement >= worse.top1_agreement);
        let layers = better.layers.iter().zip(&worse.layers);
        assert!(layers.skip(1).all(|(a, b)| a.relative_error < b.relative_error));
    }
    // The embedding and four layers.
    assert_eq!(int4.layers.iter().map(|layer| layer.layer).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(int4.kl_standard_error.unwrap() < int4.kl_divergence.unwrap());
    let same = bf16.reference.unwrap().perplexity;
    assert!([int8, int4].iter().all(|found| found.reference.as_ref().unwrap().perplexity == same));
}

#[test]
fn threads_change_nothing() {
    for source in [Source::Builtin, Source::Path(support::family("qwen3_next"))] {
        for weights in [WeightType::Int4, WeightType::Bf16] {
            let options = EvaluateOptions::default().weights(weights).sequences(5_u32);
            let bits = |threads| {
                let mut found = runtime(threads).evaluate(&source, &options).unwrap();
                (found.threads, found.seconds, found.tokens_per_s) = (0, 0.0, 0.0);
                serde_json::to_string(&found).unwrap()
            };
            let one = bits(1);
            assert!([2, 3].map(bits).iter().all(|other| *other == one), "{source:?} {weights}");
        }
    }
}

#[test]
fn instruction_sets_change_nothing() {
    let dir = Dir::new("kernels");
    let text = dir.file("story.txt", STORY);
    for weights in [WeightType::Int4, WeightType::Bf16] {
        let options = EvaluateOptions::default().weights(weights).text(text.clone());
        let bits = |kernels: &str| {
            let runtime = Runtime::new(&RuntimeOptions::default().threads(2).kernels(kernels.to_owned()));
            let mut found = runtime.unwrap().evaluate(&Source::Builtin, &options).unwrap();
            (found.kernels, found.seconds, found.tokens_per_s) = ("", 0.0, 0.0);
            serde_json::to_string(&found).unwrap()
        };
        let scalar = bits("scalar");
        for kernels in Runtime::available_kernels() {
            assert!(bits(kernels) == scalar, "{weights} {kernels}");
        }
    }
}

#[test]
fn perplexity_alone() {
    let options = EvaluateOptions::default().sequences(2_u32);
    let compared = evaluate(&Source::Builtin, &options);
    let alone = evaluate(&Source::Builtin, &options.reference(ReferenceType::None));
    assert_eq!(alone.perplexity, compared.perplexity);
    assert_eq!((alone.reference, alone.kl_divergence, alone.top1_agreement), (None, None, None));
    assert!(alone.layers.is_empty() && alone.tokens_per_s > 0.0);
}

#[test]
fn packed_files_have_their_own_weights_or_a_reference() {
    let dir = Dir::new("packed");
    let path = |name: &str| Source::Path(dir.0.join(name));
    let pack = |source: &Source, name: &str, weights| {
        runtime(2).pack(source, dir.0.join(name), &PackOptions::default().weights(weights)).unwrap();
        path(name)
    };
    let family = support::family("qwen2");
    let source = Source::Path(family.clone());
    let options = EvaluateOptions::default().sequences(2_u32);
    // Stored as int8: the file has the codes of the model.
    let builtin = pack(&Source::Builtin, "builtin", WeightType::Int8);
    let (file, model) = (evaluate(&builtin, &options), evaluate(&Source::Builtin, &options));
    assert_eq!((file.kl_divergence, file.perplexity), (model.kl_divergence, model.perplexity));
    assert_eq!(file.layers, model.layers);
    let description = |found: &Evaluation| found.reference.as_ref().unwrap().description.clone();
    assert_eq!(description(&file), "the packed file's own weights, dequantized, in f32");
    assert_eq!(description(&model), "the same weights, dequantized, in f32");

    for weights in [WeightType::Int8, WeightType::Int4, WeightType::Int4Mixed, WeightType::Bf16] {
        let file = pack(&source, weights.name(), weights);
        let own = evaluate(&file, &options);
        assert_eq!(own.weights, weights.name());
        let quantized = weights != WeightType::Bf16;
        assert_eq!(own.reference.as_ref().unwrap().dequantized, quantized);
        // What rounding the weights costs is seen by comparing with the source alone.
        let compared = evaluate(&file, &options.clone().reference_model(family.clone()));
        assert_eq!(description(&compared), format!("the weights of {}, in f32", family.display()));
        // The source is stored as bf16.
        assert_eq!(own.kl_divergence < compared.kl_divergence, quantized, "{weights}");
        assert!(own.kl_divergence.unwrap() < 5e-3, "{weights}: {:?}", own.kl_divergence);
        assert_eq!(own.perplexity, compared.perplexity);
        // The source in that type is the same model.
        let direct = evaluate(&source, &options.clone().weights(weights));
        assert_eq!((direct.kl_divergence, direct.perplexity), (compared.kl_divergence, compared.perplexity));
        assert_eq!(description(&direct), "the same weights, in f32");
    }
    let error = runtime(2).evaluate(&path("int4"), &options.weights(WeightType::Int8)).unwrap_err();
    assert!(error.message().contains("is packed as int4, found int8"), "{error}");
}

#[test]
fn quantized_models_are_said_to_be() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quantized");
    let dir = Dir::new("quantized");
    for name in ["gptq4", "w8a8", "fp8"] {
        let model = dir.0.join(name);
        std::fs::create_dir_all(&model).unwrap();
        for entry in std::fs::read_dir(golden.join(name)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
        std::fs::copy(golden.join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
        let found = evaluate(&Source::Path(model), &EvaluateOptions::default().sequences(1_u32));
        let reference = found.reference.unwrap();
        assert!(reference.dequantized && found.weights == "stored", "{name}");
        assert!(found.kl_divergence.unwrap() < 0.05, "{name}: {:?}", found.kl_divergence);
    }
}

#[test]
fn random_weights_have_arbitrary_tokens() {
    let source = Source::Shape("qwen2.5-0.5b".to_owned());
    let options = EvaluateOptions::default().sequences(1_u32).reference(ReferenceType::None);
    // The first report comes when all is checked.
    let mut stages = Vec::new();
    let error = runtime(2)
        .evaluate_with_progress(&source, &options, |now| {
            stages.push(now.stage);
            ControlFlow::Break(())
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(stages, [Some(Stage::EvaluatingLayer { layer: 1, layers: 24 })]);
}

#[test]
fn progress_goes_on_and_can_cancel() {
    let options = EvaluateOptions::default().sequences(4_u32).weights(WeightType::Int4);
    let mut seen = Vec::new();
    let runtime = runtime(2);
    runtime
        .evaluate_with_progress(&Source::Builtin, &options, |now| {
            seen.push(now);
            // The hook may use the runtime: nothing computes meanwhile.
            assert!(runtime.evaluate(&Source::Shape("none".to_owned()), &options).is_err());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(seen.is_sorted_by_key(|now| now.done) && seen[0].done == 0);
    let last = seen[seen.len() - 1];
    assert_eq!((last.done, last.stage), (last.total, Some(Stage::EvaluatingOutput)));
    let used = runtime.memory_used();
    for stop in [1, seen.len() / 2, seen.len() - 1] {
        let mut calls = 0;
        let error = runtime
            .evaluate_with_progress(&Source::Builtin, &options, |_| {
                calls += 1;
                if calls > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    assert_eq!((used, runtime.memory_used()), (0, 0));
}

#[test]
fn the_budget_is_asked_first() {
    let budget =
        |bytes: u64| Runtime::new(&RuntimeOptions::default().threads(1).memory_budget(bytes)).unwrap();
    let options = EvaluateOptions::default().sequences(1_u32);
    let error = budget(1 << 20).evaluate(&Source::Builtin, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    let needed = error.detail()["needed"].as_u64().unwrap();
    assert!(budget(needed).evaluate(&Source::Builtin, &options).is_ok());
    assert_eq!(budget(needed - 1).evaluate(&Source::Builtin, &options).unwrap_err().kind(), error.kind());
    // More text takes more.
    let error = budget(1 << 20).evaluate(&Source::Builtin, &options.sequences(8_u32)).unwrap_err();
    assert!(error.detail()["needed"].as_u64().unwrap() > needed);
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let dir = Dir::new("refused");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embeddings");
    let options = EvaluateOptions::default();
    for (name, task) in [("bert", "embed"), ("bert_score", "rerank"), ("qwen3_score", "rerank")] {
        let error = runtime(1).evaluate(&Source::Path(golden.join(name)), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{name}");
        let words = format!("which has no output layer and can only {task}");
        assert!(error.message().contains("expected a model that generates, found "), "{error}");
        assert!(error.message().ends_with(&words), "{error}");
        assert_eq!(error.detail()["found"][0], task);
    }
    let short = dir.file("short.txt", "a");
    let binary = dir.file("binary.txt", [0xff, 0xfe, b'a', 0]);
    let other = support::family("qwen2");
    for (options, kind, words) in [
        (
            options.clone().text(short),
            ErrorKind::InvalidArgument,
            "option text: expected a text of at least 2 tokens, found 1",
        ),
        (options.clone().text(binary), ErrorKind::InvalidArgument, "expected a text in UTF-8"),
        (options.clone().text(dir.0.join("none")), ErrorKind::NotFound, "option text: "),
        (
            options.clone().sequences(0_u32),
            ErrorKind::InvalidArgument,
            "option sequences: expected a whole number from 1 to 4096, found 0",
        ),
        (
            options.clone().reference_model(other.clone()),
            ErrorKind::InvalidArgument,
            "option reference_model: expected 4 layers, ",
        ),
        (
            options.clone().reference_model(dir.0.join("none")),
            ErrorKind::NotFound,
            "option reference_model: ",
        ),
        (
            options.clone().reference(ReferenceType::None).reference_model(other),
            ErrorKind::InvalidArgument,
            "option reference_model: expected none, as the option reference is none",
        ),
    ] {
        let error = runtime(1).evaluate(&Source::Builtin, &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(error.detail().contains_key("option"), "{error}");
    }
}

#[test]
fn the_reference_has_the_same_tokens() {
    let family = support::family("qwen2");
    let dir = Dir::new("tokens");
    for entry in std::fs::read_dir(&family).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), dir.0.join(entry.file_name())).unwrap();
    }
    let options = EvaluateOptions::default().sequences(1_u32).reference_model(dir.0.clone());
    assert!(runtime(1).evaluate(&Source::Path(family.clone()), &options).is_ok());
    let path = dir.0.join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["model"]["merges"].as_array_mut().unwrap().truncate(3);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let error = runtime(1).evaluate(&Source::Path(family), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("expected a model with the same tokens"), "{error}");
}

#[test]
fn a_report_is_stored_in_the_file() {
    let dir = Dir::new("stored");
    let path = dir.0.join("model.clawdbot");
    let runtime = runtime(2);
    runtime.pack(&Source::Builtin, &path, &PackOptions::default().weights(WeightType::Int4)).unwrap();
    let source = Source::Path(path.clone());
    let plan = || runtime.plan(&source, &ModelOptions::default()).unwrap();
    assert_eq!(plan().evaluation, None);
    let tokens = [5_u32, 6, 7, 8];
    let logits =
        |runtime: &Runtime| runtime.load(&source, &ModelOptions::default()).unwrap().logits(&tokens).unwrap();
    let expected = logits(&runtime);
    let options = EvaluateOptions::default().text(dir.file("text", STORY)).store(true);
    let mut stages = Vec::new();
    let found = runtime.evaluate_with_progress(&source, &options, |now| {
        stages.extend(now.stage.filter(|stage| stages.last() != Some(stage)));
        ControlFlow::Continue(())
    });
    let found = found.unwrap();
    assert_eq!(stages.last(), Some(&Stage::StoringReport));
    let stored = plan().evaluation.unwrap();
    assert_eq!(stored["perplexity"].as_f64(), Some(found.perplexity));
    assert_eq!(stored["layers"].as_array().unwrap().len(), found.layers.len());
    // It is the same model, whole, also for those who have no reference.
    assert!(logits(&runtime) == expected);
    runtime.load(&source, &ModelOptions::default().verify(true)).unwrap();
    let again = runtime.evaluate(&source, &options.clone().reference(ReferenceType::None)).unwrap();
    assert_eq!(again.perplexity, found.perplexity);
    let stored = plan().evaluation.unwrap();
    assert!(stored["kl_divergence"].is_null() && stored["layers"].as_array().unwrap().is_empty());
    // Cancelled while it is stored: the file stays as it is.
    let before = std::fs::read(&path).unwrap();
    let error = runtime.evaluate_with_progress(&source, &options, |now| match now.stage {
        Some(Stage::StoringReport) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(std::fs::read(&path).unwrap() == before);
    // What was found is not lost.
    assert_eq!(error.detail()["report"]["perplexity"].as_f64(), Some(found.perplexity));
    // Only what is packed has a place for it, and that is said before anything is computed.
    let error = runtime.evaluate(&Source::Builtin, &options).unwrap_err();
    assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &"store".into()));
}
