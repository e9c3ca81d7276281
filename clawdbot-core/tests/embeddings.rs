//! Embedding and reranking models: small ones with random weights against transformers and sentence-transformers (see
//! `golden/embeddings/make.py`), and what must hold for all of them.
//!
//! `cargo test -p clawdbot-core --test embeddings -- --nocapture` prints the table of `docs/embeddings.md`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clawdbot_core::{
    AddSpecialTokens, CancelHandle, EmbedOptions, EmbedResults, Error, ErrorKind, GenerateOptions, Model,
    ModelOptions, PackOptions, Pooling, Progress, Prompt, RerankOptions, RerankResults, Runtime,
    RuntimeOptions, Source, WeightType,
};
use serde_json::{Value, json};

/// Fixtures that give vectors.
const VECTORS: [&str; 6] = ["bert", "xlm_roberta", "distilbert", "modernbert", "qwen3", "gemma3"];
/// Fixtures that give scores.
const SCORES: [&str; 6] =
    ["bert_score", "xlm_roberta_score", "distilbert_score", "modernbert_score", "qwen3_score", "qwen3_judge"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embeddings").join(name)
}

fn reference(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name).join("reference.json")).unwrap()).unwrap()
}

fn texts(reference: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(reference[key].clone()).unwrap()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn load_with(dir: &Path, options: &ModelOptions, kernels: Option<&str>, threads: u32) -> Model {
    let mut runtime = RuntimeOptions::default().threads(threads);
    if let Some(kernels) = kernels {
        runtime = runtime.kernels(kernels.to_owned());
    }
    Runtime::new(&runtime).unwrap().load(&Source::Path(dir.to_owned()), options).unwrap()
}

fn load(name: &str, weights: WeightType) -> Model {
    load_with(&fixture(name), &ModelOptions::default().weights(weights), None, 2)
}

fn embed(model: &Model, texts: &[String], options: &EmbedOptions) -> Vec<Vec<f32>> {
    let prompts = texts.iter().map(|text| Prompt::from(text.as_str())).collect();
    let found = model.embed(prompts, options).unwrap();
    found.rows().map(<[f32]>::to_vec).collect()
}

/// Checks that each row is as expected, up to 2e-5 of the row's largest element.
fn close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let mut worst = 0.0_f32;
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}");
        let range = expected.iter().fold(0.0_f32, |range, x| range.max(x.abs()));
        let error = found.iter().zip(expected).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
        assert!(error < 2e-5 * range, "{what}, text {row}: off by {error} of {range}");
        worst = worst.max(error / range);
    }
    worst
}

#[test]
fn states_and_vectors_agree_with_transformers() {
    for name in VECTORS {
        let expected = reference(name);
        let texts = texts(&expected, "texts");
        let model = load(name, WeightType::F32);
        let tokenizer = model.tokenizer().unwrap();
        for (text, ids) in texts.iter().zip(expected["ids"].as_array().unwrap()) {
            assert_eq!(json!(tokenizer.encode(text, AddSpecialTokens::Yes).unwrap()), *ids, "{name}");
        }
        // The states themselves, before what the modules of the folder make of them.
        let bare = support::Copy::of(&fixture(name), &format!("bare-{name}"));
        bare.edit("modules.json", |modules| modules.as_array_mut().unwrap().truncate(2));
        let states = load_with(bare.path(), &ModelOptions::default().weights(WeightType::F32), None, 2);
        for pooling in Pooling::ALL {
            let found = embed(&states, &texts, &EmbedOptions::default().pooling(pooling));
            let worst = close(name, &found, &rows(&expected["pooled"][pooling.name()]));
            println!("{name} {pooling}: {worst:.1e} of the range");
        }
        let found = embed(&model, &texts, &EmbedOptions::default());
        close(name, &found, &rows(&expected["embeddings"]));
        for (prompt, expected) in expected["prompted"].as_object().unwrap() {
            let options = EmbedOptions::default().prompt_name(prompt.clone());
            close(&format!("{name} {prompt}"), &embed(&model, &texts[..2], &options), &rows(expected));
        }
    }
}

#[test]
fn scores_agree_with_transformers() {
    for name in SCORES {
        let expected = reference(name);
        let (query, documents) = (expected["query"].as_str().unwrap(), texts(&expected, "documents"));
        let logits: Vec<f32> = serde_json::from_value(expected["logits"].clone()).unwrap();
        let model = load(name, WeightType::F32);
        let found = model.rerank(query, &documents, &RerankOptions::default().sigmoid(false)).unwrap();
        for (found, expected) in found.iter().zip(&logits) {
            assert!((found - expected).abs() < 2e-5, "{name}: {found} {expected}");
        }
        let found = model.rerank(query, &documents, &RerankOptions::default()).unwrap();
        for (found, expected) in found.iter().zip(&logits) {
            assert!((found - 1.0 / (1.0 + (-expected).exp())).abs() < 1e-5, "{name}: {found} {expected}");
        }
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

const TYPES: [WeightType; 4] = [WeightType::F32, WeightType::Bf16, WeightType::Int8, WeightType::Int4];

#[test]
fn the_same_bits_in_any_batch_and_on_any_instruction_set() {
    for name in VECTORS {
        let texts = texts(&reference(name), "texts");
        for weights in TYPES {
            let options = ModelOptions::default().weights(weights);
            let model = load_with(&fixture(name), &options, Some("scalar"), 1);
            let alone: Vec<_> = texts
                .iter()
                .flat_map(|text| embed(&model, std::slice::from_ref(text), &EmbedOptions::default()))
                .collect();
            let expected = bits(&alone);
            for kernels in Runtime::available_kernels() {
                for (threads, rows, sequences) in [(1, 512_u32, 64_u32), (3, 16, 64), (2, 512, 1), (2, 30, 2)]
                {
                    let options = options.clone().prefill_chunk(rows).max_batch(sequences);
                    let model = load_with(&fixture(name), &options, Some(kernels), threads);
                    let found = bits(&embed(&model, &texts, &EmbedOptions::default()));
                    assert!(found == expected, "{name} {weights} {kernels} x {threads}, {rows} rows");
                }
            }
        }
    }
}

#[test]
fn packed_models_are_the_same() {
    for name in VECTORS {
        let texts = texts(&reference(name), "texts");
        let file =
            std::env::temp_dir().join(format!("clawdbot-{}-{name}-embed.clawdbot", std::process::id()));
        for weights in [WeightType::F32, WeightType::Int8] {
            let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
            let options = PackOptions::default().weights(weights).overwrite(true);
            runtime.pack(&Source::Path(fixture(name)), &file, &options).unwrap();
            let packed = runtime.load(&Source::Path(file.clone()), &ModelOptions::default()).unwrap();
            let loaded = load(name, weights);
            let options = EmbedOptions::default();
            assert!(embed(&packed, &texts, &options) == embed(&loaded, &texts, &options), "{name} {weights}");
            assert_eq!(packed.info().plan.embedding, loaded.info().plan.embedding);
            assert_eq!(packed.info().plan.load_bytes, loaded.info().plan.load_bytes, "{name}");
        }
        std::fs::remove_file(file).unwrap();
    }
    let file = std::env::temp_dir().join(format!("clawdbot-{}-score.clawdbot", std::process::id()));
    let expected = reference("bert_score");
    let (query, documents) = (expected["query"].as_str().unwrap(), texts(&expected, "documents"));
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    let options = PackOptions::default().weights(WeightType::F32);
    runtime.pack(&Source::Path(fixture("bert_score")), &file, &options).unwrap();
    let packed = runtime.load(&Source::Path(file.clone()), &ModelOptions::default()).unwrap();
    let scores = |model: &Model| model.rerank(query, &documents, &RerankOptions::default()).unwrap();
    assert_eq!(scores(&packed), scores(&load("bert_score", WeightType::F32)));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_cached_directory_gives_the_same() {
    let cache = std::env::temp_dir().join(format!("clawdbot-{}-embed-cache", std::process::id()));
    let texts = texts(&reference("gemma3"), "texts");
    let options = ModelOptions::default().cache(cache.clone());
    let vectors = || {
        let model = load_with(&fixture("gemma3"), &options, None, 2);
        embed(&model, &texts, &EmbedOptions::default())
    };
    let (first, second) = (vectors(), vectors());
    assert!(first == second);
    let files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    // What is changed in the file shows: the second load read it.
    let mut bytes = std::fs::read(file).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let gains = json["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[header + gains..][..4].copy_from_slice(&1e6_f32.to_le_bytes());
    std::fs::write(file, bytes).unwrap();
    assert!(vectors() != first);
    std::fs::remove_dir_all(cache).unwrap();
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn lower_precision_stays_close() {
    println!("| fixture | architecture | bf16 | int8 | int4 |");
    println!("|---|---|--:|--:|--:|");
    for name in VECTORS {
        let texts = texts(&reference(name), "texts");
        let exact = load(name, WeightType::F32);
        let expected = embed(&exact, &texts, &EmbedOptions::default());
        let worst = [WeightType::Bf16, WeightType::Int8, WeightType::Int4].map(|weights| {
            let found = embed(&load(name, weights), &texts, &EmbedOptions::default());
            found.iter().zip(&expected).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
        });
        let architecture = exact.info().plan.architecture;
        println!("| {name} | {architecture} | {:.5} | {:.5} | {:.4} |", worst[0], worst[1], worst[2]);
        assert!(worst[0] > 0.999 && worst[1] > 0.99 && worst[2] > 0.6, "{name}: {worst:?}");
    }
}

#[test]
fn models_refuse_what_they_cannot_do() {
    let kind = |error: clawdbot_core::Error| error.kind();
    let bert = load("bert", WeightType::F32);
    let error = bert.generate("a", &GenerateOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedModel);
    assert!(error.message().contains("BertModel") && error.message().contains("embed"), "{error}");
    assert_eq!(kind(bert.session().unwrap_err()), ErrorKind::UnsupportedModel);
    assert_eq!(kind(bert.logits(&[1]).unwrap_err()), ErrorKind::UnsupportedModel);
    assert_eq!(
        kind(bert.rerank("a", &["b"], &RerankOptions::default()).unwrap_err()),
        ErrorKind::UnsupportedModel
    );
    let score = load("bert_score", WeightType::F32);
    assert_eq!(
        kind(score.embed(vec!["a".into()], &EmbedOptions::default()).unwrap_err()),
        ErrorKind::UnsupportedModel
    );
    assert_eq!(kind(score.session().unwrap_err()), ErrorKind::UnsupportedModel);
    let told = RerankOptions::default().instruction("find".to_owned());
    assert_eq!(kind(score.rerank("a", &["b"], &told).unwrap_err()), ErrorKind::InvalidArgument);
    // Made to give vectors, and without the output head that its configuration promises.
    let qwen3 = load("qwen3", WeightType::F32);
    assert_eq!(kind(qwen3.session().unwrap_err()), ErrorKind::UnsupportedModel);
    assert_eq!(qwen3.info().plan.tasks, ["embed"]);
    let judge = load("qwen3_judge", WeightType::F32);
    assert_eq!(judge.info().plan.tasks, ["generate", "embed"]);
    let generated =
        judge.generate(vec![7, 8], &GenerateOptions::default().max_tokens(2_u32).ignore_eos(true));
    assert_eq!(generated.unwrap().token_ids.len(), 2);
}

#[test]
fn options_count() {
    let model = load("bert", WeightType::F32);
    let texts = texts(&reference("bert"), "texts");
    let plain = embed(&model, &texts, &EmbedOptions::default());
    let raw = embed(&model, &texts, &EmbedOptions::default().normalize(false));
    for (unit, raw) in plain.iter().zip(&raw) {
        assert!((cosine(unit, unit) - 1.0).abs() < 1e-12 && cosine(unit, raw) > 0.999_999);
        let length: f32 = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() > 0.1, "{length}");
    }
    let short = embed(&model, &texts, &EmbedOptions::default().dimensions(5_u32));
    let length: f32 = short[0].iter().map(|x| x * x).sum();
    assert!(
        short[0].len() == 5 && (length - 1.0).abs() < 1e-5 && cosine(&short[0], &raw[0][..5]) > 0.999_999
    );
    // A prompt is text before the text; token ids are taken as they are.
    let prompted = embed(&model, &texts[1..2], &EmbedOptions::default().prompt("light: ".to_owned()));
    assert_eq!(prompted, embed(&model, &["light: bread".to_owned()], &EmbedOptions::default()));
    assert_eq!(
        prompted,
        embed(&model, &texts[1..2], &EmbedOptions::default().prompt_name("query".to_owned()))
    );
    let ids = model.tokenizer().unwrap().encode("bread", AddSpecialTokens::Yes).unwrap();
    let found = model.embed(vec![Prompt::Tokens(ids.clone())], &EmbedOptions::default()).unwrap();
    assert_eq!((found.values.as_slice(), found.tokens), (plain[1].as_slice(), ids.len()));
    assert_eq!(model.embed(Vec::new(), &EmbedOptions::default()).unwrap().rows().len(), 0);

    let error = |options: EmbedOptions| model.embed(vec!["a".into()], &options).unwrap_err();
    for (name, options) in [
        ("prompt_name", EmbedOptions::default().prompt_name("passage".to_owned())),
        ("prompt", EmbedOptions::default().prompt_name("query".to_owned()).prompt("a".to_owned())),
        ("dimensions", EmbedOptions::default().dimensions(49_u32)),
        ("dimensions", EmbedOptions::default().dimensions(0_u32)),
    ] {
        let error = error(options);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.detail()["option"], name, "{error}");
    }
    let texts = vec!["a".into(), Prompt::Tokens(vec![5, 1 << 20])];
    let error = model.embed(texts, &EmbedOptions::default()).unwrap_err();
    assert_eq!((error.kind(), &error.detail()["text"]), (ErrorKind::InvalidArgument, &json!(1)));
    let error = model.embed(vec![Prompt::Tokens(Vec::new())], &EmbedOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EmptyPrompt);
}

#[test]
fn long_texts_are_errors_or_cut() {
    let model = load("bert", WeightType::F32);
    assert_eq!(model.info().plan.embedding.max_tokens, 140);
    let words = |count| "bread ".repeat(count);
    let fits = embed(&model, &[words(138)], &EmbedOptions::default());
    let error = model.embed(vec!["a".into(), words(139).into()], &EmbedOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextOverflow);
    assert_eq!((&error.detail()["text"], &error.detail()["tokens"]), (&json!(1), &json!(141)));
    assert_eq!(embed(&model, &[words(500)], &EmbedOptions::default().truncate(true)), fits);

    for name in SCORES {
        let model = load(name, WeightType::F32);
        let long = [words(300)];
        let error = model.rerank("the sea", &long, &RerankOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContextOverflow, "{name}");
        let cut = RerankOptions::default().truncate(true);
        // What is cut off does not matter.
        let scores = model.rerank("the sea", &[words(300), words(299) + "ship"], &cut).unwrap();
        assert_eq!(scores[0], scores[1], "{name}");
        // A query that is too long is no document's fault.
        let documents = || [Ok::<_, Error>("a"), Ok("b")].into_iter();
        for options in [RerankOptions::default(), cut] {
            match model.rerank_each(&words(500), documents(), &options, &CancelHandle::default(), go_on) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ContextOverflow, "{name}");
                    assert!(error.message().starts_with("query: expected a text "), "{name}: {error}");
                    assert!(error.detail().get("text").is_none());
                }
                // A pair is cut where it is longer.
                Ok(found) => {
                    assert!(options.truncate && name != "qwen3_judge" && found.faults.is_empty(), "{name}");
                }
            }
        }
    }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_bad_text_fails_alone() {
    let model = load("bert", WeightType::F32);
    let options = EmbedOptions::default();
    let given = || Error::new(ErrorKind::InvalidUtf8, "given");
    let long = "bread ".repeat(200);
    let texts = [
        Ok(Prompt::from("the sea")),
        Ok(Prompt::from(long.as_str())),
        Err(given()),
        Ok(Prompt::Tokens(Vec::new())),
        Ok(Prompt::from("bread")),
    ];
    let cancel = CancelHandle::default();
    let found = model.embed_each(texts.into_iter(), &options, &cancel, go_on).unwrap();
    let EmbedResults { embeddings: found, faults: errors, .. } = found;
    let good = embed(&model, &["the sea".to_owned(), "bread".to_owned()], &options);
    let rows: Vec<&[f32]> = found.rows().collect();
    assert_eq!((rows[0], rows[4]), (&good[0][..], &good[1][..]));
    assert!(rows[1..4].iter().all(|row| row.iter().all(|x| x.is_nan())));
    let kinds: Vec<_> = errors.iter().map(|fault| (fault.index, fault.error.kind())).collect();
    use ErrorKind::{ContextOverflow, EmptyPrompt, InvalidUtf8};
    assert_eq!(kinds, [(1, ContextOverflow), (2, InvalidUtf8), (3, EmptyPrompt)]);
    assert!(errors.get(1).unwrap().message().starts_with("texts[1]: "), "{errors:?}");
    assert_eq!(
        (errors.get(2).unwrap().message(), &errors.get(3).unwrap().detail()["text"]),
        ("given", &json!(3))
    );
    // What is wrong with the call fails the call.
    let wrong = EmbedOptions::default().dimensions(0_u32);
    assert!(
        model.embed_each([Ok::<_, Error>(Prompt::from("a"))].into_iter(), &wrong, &cancel, go_on).is_err()
    );

    for name in SCORES {
        let model = load(name, WeightType::F32);
        let options = RerankOptions::default();
        let documents = [Ok("the sea"), Ok(&long), Err(given()), Ok("bread")];
        let found = model.rerank_each("sea", documents.into_iter(), &options, &cancel, go_on).unwrap();
        let RerankResults { scores: found, faults: errors, .. } = found;
        let good = model.rerank("sea", &["the sea", "bread"], &options).unwrap();
        assert_eq!((found[0], found[3]), (good[0], good[1]), "{name}");
        assert!(found[1].is_nan() && found[2].is_nan(), "{name}");
        assert_eq!(errors.iter().map(|fault| fault.index).collect::<Vec<_>>(), [1, 2], "{name}");
        assert!(errors.get(1).unwrap().message().starts_with("documents[1]: "), "{name}: {errors:?}");
    }
    // A handle stops all of them, once one of them or the first pass has begun too.
    let stopping = |now: Progress| {
        if now.done == 2 {
            cancel.cancel();
        }
        ControlFlow::Continue(())
    };
    let texts = (0..9).map(|_| Ok::<_, Error>(Prompt::from("the sea")));
    let error = model.embed_each(texts, &options, &cancel, stopping).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let documents = (0..9).map(|_| Ok::<_, Error>("the sea"));
    let scores = load(SCORES[0], WeightType::F32);
    let error = scores.rerank_each("sea", documents, &RerankOptions::default(), &cancel, go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn progress_cancels_and_threads_share_passes() {
    let model = load("bert", WeightType::Int8);
    let texts: Vec<Prompt> = (0..40).map(|i| Prompt::from("rain ".repeat(1 + i % 7))).collect();
    let mut calls = Vec::new();
    let options = EmbedOptions::default();
    let all = model.embed_with_progress(texts.clone(), &options, |now| {
        calls.push((now.done, now.total));
        ControlFlow::Continue(())
    });
    assert_eq!(calls, (1..=40).map(|done| (done, 40)).collect::<Vec<_>>());
    let stopped = model.embed_with_progress(texts.clone(), &options, |now| {
        if now.done < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
    let expected = all.unwrap();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| model.embed(texts.clone(), &options).unwrap())).collect();
        assert!(workers.into_iter().all(|worker| worker.join().unwrap() == expected));
    });
    model.close();
    assert_eq!(model.embed(texts, &options).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn budgets_hold() {
    let plan = load("modernbert", WeightType::Int8).info().plan.clone();
    let texts = texts(&reference("modernbert"), "texts");
    let prompts = || texts.iter().map(|text| Prompt::from(text.as_str())).collect::<Vec<_>>();
    let load = |budget: u64| {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2).memory_budget(budget)).unwrap();
        runtime.load(&Source::Path(fixture("modernbert")), &ModelOptions::default())
    };
    assert_eq!(load(plan.load_bytes - 1).unwrap_err().kind(), ErrorKind::OutOfBudget);
    // A page at a time is enough for texts one after another, but for the longest.
    let model = load(plan.load_bytes + 4096).unwrap();
    let error = model.embed(prompts(), &EmbedOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    let three = 3 * 64 * plan.kv_bytes_per_token + 4096;
    let found = load(plan.load_bytes + three).unwrap().embed(prompts(), &EmbedOptions::default()).unwrap();
    let free = load(1 << 30).unwrap().embed(prompts(), &EmbedOptions::default()).unwrap();
    assert_eq!(found, free);
}

/// A folder whose files are changed.
fn changed(name: &str, file: &str, change: impl FnOnce(&mut Value)) -> clawdbot_core::Result<Model> {
    let copy = support::Copy::of(&fixture(name), &format!("changed-{name}"));
    copy.edit(file, change);
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
    runtime.load(&Source::Path(copy.path().to_owned()), &ModelOptions::default())
}

#[test]
fn what_is_not_known_is_refused() {
    let kind = |kind: &str| format!("sentence_transformers.models.{kind}");
    let refuse = |file: &str, change: &dyn Fn(&mut Value), expected: ErrorKind, word: &str| {
        let error = changed("gemma3", file, change).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.message().contains(word), "{word}: {error}");
    };
    use ErrorKind::{InvalidModel, UnsupportedModel};
    let modules = "modules.json";
    refuse(modules, &|m| m[1]["type"] = json!(kind("CNN")), UnsupportedModel, "CNN");
    refuse(modules, &|m| m[1]["type"] = json!("custom.Pooling"), UnsupportedModel, "custom.Pooling");
    refuse(modules, &|m| m[1]["type"] = json!(kind("Dense")), UnsupportedModel, "after the pooling");
    refuse(
        modules,
        &|m| m[2]["type"] = json!(kind("Normalize")),
        UnsupportedModel,
        "nothing after Normalize",
    );
    refuse(modules, &|m| m[0]["path"] = json!("0_Transformer"), UnsupportedModel, "Transformer");
    for path in ["..", ".", "a/b", "/etc", "a\\b"] {
        refuse(modules, &|m| m[1]["path"] = json!(path), InvalidModel, "plain folder");
    }
    refuse(modules, &|m| m[1]["path"] = json!(""), UnsupportedModel, "a folder of its own");
    refuse(modules, &|m| m[1]["path"] = Value::Null, InvalidModel, "path");
    refuse(modules, &|m| *m = json!({}), InvalidModel, "modules.json");
    refuse("1_Pooling/config.json", &|m| m["pooling_mode"] = json!("median"), UnsupportedModel, "lasttoken");
    refuse(
        "1_Pooling/config.json",
        &|m| m["pooling_mode"] = json!(["cls", "max"]),
        UnsupportedModel,
        "pooling_mode",
    );
    refuse("1_Pooling/config.json", &|m| m["embedding_dimension"] = json!(47), InvalidModel, "48");
    refuse("2_Dense/config.json", &|m| m["use_residual"] = json!(true), UnsupportedModel, "use_residual");
    refuse("2_Dense/config.json", &|m| m["activation_function"] = json!("x.Sin"), UnsupportedModel, "Sin");
    refuse("2_Dense/config.json", &|m| m["in_features"] = json!(47), InvalidModel, "48 inputs");
    refuse("2_Dense/config.json", &|m| m["out_features"] = json!(65), InvalidModel, "65 inputs");
    refuse(
        "config_sentence_transformers.json",
        &|m| m["default_prompt_name"] = json!("x"),
        InvalidModel,
        "prompts",
    );
    let bert =
        |file: &str, change: &dyn Fn(&mut Value)| changed("bert", file, change).map(|_| ()).unwrap_err();
    for (key, value) in [
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("hidden_act", json!("mish")),
    ] {
        assert_eq!(
            bert("config.json", &|config| config[key] = value.clone()).kind(),
            UnsupportedModel,
            "{key}"
        );
    }
    let labels = json!({"0": "a", "1": "b"});
    let error = changed("bert_score", "config.json", |config| config["id2label"] = labels).unwrap_err();
    assert_eq!(error.kind(), UnsupportedModel);
}

/// The notation of earlier versions.
#[test]
fn older_notations_are_read() {
    let model = changed("bert", "1_Pooling/config.json", |config| {
        *config = json!({"word_embedding_dimension": 48, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    });
    assert_eq!(model.unwrap().info().plan.embedding.pooling, Some(Pooling::Cls));
    let model =
        changed("bert", "modules.json", |modules| modules.as_array_mut().unwrap().truncate(1)).unwrap();
    let error = model.embed(vec!["a".into()], &EmbedOptions::default()).unwrap_err();
    assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &json!("pooling")));
    let model = changed("bert_score", "config.json", |config| {
        config["sbert_ce_default_activation_function"] = json!("torch.nn.modules.linear.Identity");
    });
    let expected = reference("bert_score");
    let (query, documents) = (expected["query"].as_str().unwrap(), texts(&expected, "documents"));
    let scores = |model: &Model, options| model.rerank(query, &documents, &options).unwrap();
    let plain = load("bert_score", WeightType::Int8);
    let logits = scores(&plain, RerankOptions::default().sigmoid(false));
    assert_eq!(scores(&model.unwrap(), RerankOptions::default()), logits);
}

/// Hidden states of some tokens in chunks of `chunk`, and the vector that `pooling` makes of them.
fn states(source: &Source, chunk: u32, pooling: Pooling) -> (Vec<u32>, Vec<u32>, usize) {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let options = ModelOptions::default().prefill_chunk(chunk);
    let model = runtime.load(source, &options).unwrap();
    let tokens: Vec<u32> = (3..40).collect();
    let bits = |floats: &[f32]| floats.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let states = model.hidden_states(&tokens).unwrap();
    let options = EmbedOptions::default().pooling(pooling).normalize(false);
    let pooled = model.embed(vec![tokens.into()], &options).unwrap();
    (bits(&states), bits(&pooled.values), pooled.dimensions)
}

#[test]
fn hidden_states_are_what_is_pooled_and_do_not_depend_on_chunks() {
    let bare = support::Copy::of(&fixture("bert"), "states-bert");
    bare.edit("modules.json", |modules| modules.as_array_mut().unwrap().truncate(2));
    let sources = [Source::Builtin, Source::Path(fixture("qwen3")), Source::Path(bare.path().to_owned())];
    for (source, pooling) in sources.iter().zip([Pooling::Last, Pooling::Last, Pooling::Cls]) {
        let (found, pooled, hidden) = states(source, 512, pooling);
        assert_eq!(found.len(), 37 * hidden);
        let row = if pooling == Pooling::Cls { 0 } else { 36 };
        assert_eq!(found[row * hidden..][..hidden], pooled, "{source:?}");
        assert_eq!(found, states(source, 16, pooling).0, "{source:?}");
    }
}

#[test]
fn hidden_states_that_cannot_be_had_are_errors() {
    let model = Model::builtin().unwrap();
    let kind = |tokens: &[u32], adapter| model.hidden_states_with(tokens, adapter).unwrap_err().kind();
    assert_eq!(kind(&[], None), ErrorKind::EmptyPrompt);
    assert_eq!(kind(&[u32::MAX], None), ErrorKind::InvalidArgument);
    assert_eq!(kind(&[5], Some("none")), ErrorKind::InvalidArgument);
    assert_eq!(kind(&vec![5; model.info().plan.max_context + 1], None), ErrorKind::ContextOverflow);
    let used = model.runtime().memory_used();
    model.hidden_states(&[5, 6]).unwrap();
    assert_eq!(model.runtime().memory_used(), used);
    let options = RuntimeOptions::default().memory_budget(model.info().plan.load_bytes + 1000);
    let tight = Runtime::new(&options).unwrap().load(&Source::Builtin, &ModelOptions::default()).unwrap();
    assert_eq!(tight.hidden_states(&[5; 100]).unwrap_err().kind(), ErrorKind::OutOfBudget);
    model.close();
    assert_eq!(kind(&[5], None), ErrorKind::Closed);
}
