//! Guessed tokens change times, and no result.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use clawdbot_core::{
    AddSpecialTokens, Completion, Driver, ErrorKind, GenerateOptions, Model, ModelOptions, ModelPool,
    PackOptions, PoolModel, Prompt, Runtime, RuntimeOptions, Source, Speculation,
};
use support::mtp::Guesses;

fn load(source: &Source, driver: Driver, speculation: Speculation) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver);
    let options = ModelOptions::default().speculation(speculation);
    Runtime::new(&runtime).unwrap().load(source, &options).unwrap()
}

/// Something that repeats itself.
fn prompt(salt: u32) -> Prompt {
    Prompt::Tokens((0..90).map(|i| 3 + (i % 17 * 37 + salt * 101) % 400).collect())
}

fn prompts() -> Vec<Prompt> {
    (0..6).map(prompt).collect()
}

fn ways() -> [GenerateOptions; 5] {
    let base = GenerateOptions::default().ignore_eos(true).max_tokens(80_u32).logprobs(2_u32);
    let sampled = base.clone().temperature(0.8).top_k(Some(20)).seed(3_u64);
    // Mirostat keeps something from token to token.
    let mirostat = base.clone().temperature(0.8).mirostat_tau(2.0).mirostat_eta(0.5).seed(3_u64);
    let further = sampled.clone().dry_multiplier(0.4).xtc_probability(0.5).dynatemp_range(0.3);
    let penalties = sampled.clone().repetition_penalty(1.1).frequency_penalty(0.2);
    [base.temperature(0.0), sampled, penalties, mirostat, further]
}

/// Text, tokens, and the bits of the log-probabilities.
fn bits(done: &Completion) -> (String, Vec<u32>, Vec<u32>) {
    let all = done.logprobs.iter().flatten().flat_map(|entry| &entry.top);
    (done.text.clone(), done.token_ids.clone(), all.map(|top| top.logprob.to_bits()).collect())
}

fn all(model: &Model, options: &GenerateOptions) -> Vec<Completion> {
    let mut all: Vec<_> =
        prompts().into_iter().map(|prompt| model.generate(prompt, options).unwrap()).collect();
    all.extend(model.generate_batch(prompts(), options).into_iter().map(Result::unwrap));
    all
}

#[test]
fn what_occurred_before_is_guessed_and_no_bit_changes() {
    let mut all_tried = 0;
    for family in ["", "gemma3", "gpt_oss", "qwen3_5", "granite4", "lfm2", "deepseek_v2"] {
        let source = match family {
            "" => Source::Builtin,
            family => Source::Path(support::family(family)),
        };
        let plain = load(&source, Driver::Caller, Speculation::None);
        for driver in [Driver::Caller, Driver::Thread] {
            let model = load(&source, driver, Speculation::Ngram);
            let mut usages = Vec::new();
            for (way, options) in ways().iter().enumerate() {
                let (expected, found) = (all(&plain, options), all(&model, options));
                assert!(found.iter().map(bits).eq(expected.iter().map(bits)), "{family} {way}");
                assert!(expected.iter().all(|done| done.usage.draft_tokens == 0));
                usages.extend(found.iter().map(|done| done.usage));
            }
            let sum = |of: fn(&clawdbot_core::Usage) -> usize| usages.iter().map(of).sum::<usize>() as u64;
            let (tried, right) = (sum(|usage| usage.draft_tokens), sum(|usage| usage.accepted_tokens));
            println!("{family} {driver}: {right} of {tried} drafts were right");
            all_tried += tried;
            // The metrics are those of the requests.
            let metrics = &model.runtime().metrics().models[0];
            assert_eq!((metrics.draft_tokens, metrics.accepted_tokens), (tried, right));
            assert_eq!(metrics.drafts_by_position.iter().sum::<u64>(), tried);
            let by_position =
                |at: usize| usages.iter().map(|usage| u64::from(usage.accepted_by_position[at])).sum::<u64>();
            for (at, count) in metrics.accepted_by_position.iter().enumerate() {
                assert_eq!(*count, by_position(at));
                assert!(*count <= metrics.drafts_by_position[at]);
            }
        }
    }
    assert!(all_tried > 100, "{all_tried}");
}

#[test]
fn a_request_says_whether_tokens_are_guessed() {
    let guessing = load(&Source::Builtin, Driver::Caller, Speculation::Ngram);
    let plain = load(&Source::Builtin, Driver::Caller, Speculation::None);
    let options = ways()[0].clone();
    let drafts = |model: &Model, options: &GenerateOptions| {
        let done = model.generate(prompt(1), options).unwrap();
        (done.options["speculation"].as_str().unwrap().to_owned(), done.usage.draft_tokens > 0)
    };
    assert_eq!(drafts(&guessing, &options), ("ngram".to_owned(), true));
    assert_eq!(drafts(&plain, &options), ("none".to_owned(), false));
    let none = options.clone().speculation(Speculation::None);
    assert_eq!(drafts(&guessing, &none), ("none".to_owned(), false));
    let ngram = options.speculation(Speculation::Ngram);
    assert_eq!(drafts(&plain, &ngram), ("ngram".to_owned(), true));
    let bad = serde_json::json!({"speculation": "tree"});
    let error = GenerateOptions::from_json(bad.as_object().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().starts_with("option speculation: expected "), "{error}");
}

/// What ends a request ends it at the same place among drafts.
#[test]
fn stop_texts_and_tokens_end_where_they_do_without() {
    let (guessing, plain) = (
        load(&Source::Builtin, Driver::Caller, Speculation::Ngram),
        load(&Source::Builtin, Driver::Caller, Speculation::None),
    );
    let story =
        "Once upon a time there was a dog. Once upon a time there was a cat. Once upon a time there was";
    let base = GenerateOptions::default().temperature(0.0).max_tokens(60_u32);
    let long = plain.generate(story, &base).unwrap();
    for cut in 1..long.text.len() - 4 {
        let Some(stop) = long.text.get(cut..cut + 4) else { continue };
        let options = base.clone().stop(vec![stop.to_owned()]);
        let (expected, found) =
            (plain.generate(story, &options).unwrap(), guessing.generate(story, &options).unwrap());
        assert!(found == expected, "{stop:?}");
    }
    for &token in &long.token_ids {
        let options = base.clone().stop_token_ids(vec![token]);
        let (expected, found) =
            (plain.generate(story, &options).unwrap(), guessing.generate(story, &options).unwrap());
        assert!(found == expected, "{token}");
    }
}

#[test]
fn a_model_that_generates_nothing_has_nothing_to_guess() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embeddings/bert");
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let options = ModelOptions::default().speculation(Speculation::Ngram);
    for error in [
        runtime.load(&Source::Path(dir.clone()), &options).unwrap_err(),
        runtime.plan(&Source::Path(dir.clone()), &options).unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), &error.detail()["option"]),
            (ErrorKind::InvalidArgument, &"speculation".into())
        );
        assert!(error.message().starts_with("option speculation: expected none, as "), "{error}");
    }
}

#[test]
fn another_model_guesses_and_no_bit_changes() {
    // Trained differently, with the same tokens.
    for (family, draft) in
        [("qwen3", "llama"), ("gemma2", "qwen2"), ("granite4", "llama"), ("qwen3_5", "olmo3")]
    {
        let source = Source::Path(support::family(family));
        let plain = load(&source, Driver::Caller, Speculation::None);
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
        let options =
            ModelOptions::default().draft_model(Some(support::family(draft))).speculation(Speculation::Draft);
        let alone = runtime.plan(&source, &ModelOptions::default()).unwrap();
        let plan = runtime.plan(&source, &options).unwrap();
        assert!(plan.draft_bytes > 0 && plan.load_bytes == alone.load_bytes + plan.draft_bytes);
        let model = runtime.load(&source, &options).unwrap();
        assert_eq!(model.info().plan.load_bytes, plan.load_bytes);
        let fixed = runtime.memory_used();
        for options in ways() {
            assert!(
                all(&model, &options).iter().map(bits).eq(all(&plain, &options).iter().map(bits)),
                "{family}"
            );
        }
        let metrics = runtime.metrics();
        assert_eq!((metrics.models.len(), runtime.memory_used()), (1, fixed));
        assert!(metrics.models[0].draft_tokens > 0, "{family}");
        drop(model);
        assert_eq!(runtime.memory_used(), 0);
    }
}

/// Instances share the draft model, too: its weights are there once, and until the last of them has gone.
#[test]
fn an_instance_guesses_with_the_same_model() {
    let source = Source::Path(support::family("qwen3"));
    let plain = load(&source, Driver::Caller, Speculation::None);
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
    let options = ModelOptions::default().speculation(Speculation::Draft);
    let model = runtime.load(&source, &options.clone().draft_model(Some(support::family("llama")))).unwrap();
    let (of_model, fixed) = (model.info().plan.clone(), runtime.memory_used());
    let instance = model.instance(&options.max_batch(3_u32)).unwrap();
    let of_instance = &instance.info().plan;
    assert!(of_instance.draft_bytes > 0 && of_instance.draft_bytes < of_model.draft_bytes);
    let own = runtime.memory_used() - fixed;
    assert!(own > of_instance.scratch_bytes && own <= of_instance.load_bytes, "{own} {of_instance:?}");
    // Of one that guesses nothing, it guesses when a request asks for that.
    let quiet = model.instance(&ModelOptions::default()).unwrap();
    for options in ways() {
        let expected: Vec<_> = all(&plain, &options).iter().map(bits).collect();
        // Both at the same time.
        std::thread::scope(|scope| {
            for model in [&model, &instance] {
                scope.spawn(|| assert!(all(model, &options).iter().map(bits).eq(expected.iter().cloned())));
            }
        });
        let asks = options.clone().speculation(Speculation::Draft);
        for (options, guesses) in [(&options, false), (&asks, true)] {
            let found = all(&quiet, options);
            assert!(found.iter().map(bits).eq(expected.iter().cloned()));
            assert_eq!(found.iter().any(|done| done.usage.draft_tokens > 0), guesses);
        }
    }
    let drafts: Vec<u64> = runtime.metrics().models.iter().map(|model| model.draft_tokens).collect();
    assert!(drafts.len() == 3 && drafts.iter().all(|&drafts| drafts > 0), "{drafts:?}");
    drop((quiet, model));
    let found = all(&instance, &ways()[0]);
    assert!(found.iter().map(bits).eq(all(&plain, &ways()[0]).iter().map(bits)));
    drop(instance);
    assert_eq!(runtime.memory_used(), 0);
}

#[test]
fn a_pool_names_the_draft_model_once() {
    let source = Source::Path(support::family("qwen3"));
    let plain = load(&source, Driver::Caller, Speculation::None);
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
    let pool = ModelPool::new(&runtime).unwrap();
    let options = ModelOptions::default().speculation(Speculation::Draft);
    let first = options.clone().draft_model(Some(support::family("llama")));
    pool.add("a", PoolModel::new(source, first).instance(options)).unwrap();
    let now = std::time::Duration::ZERO;
    let models = [pool.get("a", now).unwrap(), pool.get("a", now).unwrap()];
    let expected = all(&plain, &ways()[0]);
    for model in &models {
        assert!(all(model, &ways()[0]).iter().map(bits).eq(expected.iter().map(bits)));
    }
    let drafts: Vec<u64> = runtime.metrics().models.iter().map(|model| model.draft_tokens).collect();
    assert!(drafts.len() == 2 && drafts.iter().all(|&drafts| drafts > 0), "{drafts:?}");
}

#[test]
fn a_model_that_cannot_draft_is_refused() {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let llama = Source::Path(support::family("llama"));
    let embeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embeddings/bert");
    let gone = std::path::PathBuf::from("/nowhere/at/all");
    for (draft, kind, message) in [
        (
            support::family("granite4"),
            ErrorKind::InvalidArgument,
            "option draft_model: expected a model without recurrent layers, found ",
        ),
        (embeds, ErrorKind::InvalidArgument, "option draft_model: expected a model that generates, found "),
        (gone, ErrorKind::NotFound, "option draft_model: "),
    ] {
        let options = ModelOptions::default().draft_model(Some(draft));
        for error in
            [runtime.load(&llama, &options).unwrap_err(), runtime.plan(&llama, &options).unwrap_err()]
        {
            assert_eq!((error.kind(), &error.detail()["option"]), (kind, &"draft_model".into()), "{error}");
            assert!(error.message().starts_with(message), "{error}");
        }
        assert_eq!(runtime.memory_used(), 0);
    }
    // Other tokens.
    let options = ModelOptions::default().draft_model(Some(support::family("llama")));
    let error = runtime.load(&Source::Builtin, &options).unwrap_err();
    assert!(error.message().starts_with("option draft_model: expected "), "{error}");
    // A model is needed.
    let error = runtime.load(&llama, &ModelOptions::default().speculation(Speculation::Draft)).unwrap_err();
    assert_eq!(
        error.message(),
        "option draft_model: expected the path of a model, with speculation draft, found nothing"
    );
    let model = runtime.load(&llama, &ModelOptions::default()).unwrap();
    let error =
        model.generate(prompt(1), &GenerateOptions::default().speculation(Speculation::Draft)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let expected = "option speculation: expected none or ngram, as the model was loaded without a draft_model, found draft";
    assert_eq!(error.message(), expected);
}

#[test]
fn its_own_head_guesses_and_no_bit_changes() {
    // The first with recurrent layers, which are verified through copies of their states.
    for family in ["qwen3_5", "qwen3_5_moe", "qwen3_next", "deepseek_v3"] {
        for guesses in [Guesses::Any, Guesses::Right] {
            let dir = support::mtp::with_head(family, guesses, &format!("head-{family}-{guesses:?}"));
            let source = Source::Path(dir.path().to_owned());
            let plain = load(&source, Driver::Caller, Speculation::None);
            let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
            let options = ModelOptions::default().speculation(Speculation::Mtp);
            let alone = runtime.plan(&source, &ModelOptions::default()).unwrap();
            let plan = runtime.plan(&source, &options).unwrap();
            assert!(plan.draft_bytes > 0 && plan.load_bytes == alone.load_bytes + plan.draft_bytes);
            assert!(!plan.warnings.iter().any(|warning| warning.contains("not used")), "{:?}", plan.warnings);
            let model = runtime.load(&source, &options).unwrap();
            assert_eq!(model.info().plan.load_bytes, plan.load_bytes);
            let fixed = runtime.memory_used();
            for options in ways() {
                let (found, expected) = (all(&model, &options), all(&plain, &options));
                assert!(found.iter().map(bits).eq(expected.iter().map(bits)), "{family} {guesses:?}");
            }
            let metrics = runtime.metrics();
            assert_eq!((metrics.models.len(), runtime.memory_used()), (1, fixed));
            let (tried, right) = (metrics.models[0].draft_tokens, metrics.models[0].accepted_tokens);
            assert!(
                tried > 0 && (guesses == Guesses::Any || right > tried / 5),
                "{family}: {right} of {tried}"
            );
            // A request may have none, or others.
            let none = ways()[0].clone().speculation(Speculation::None);
            assert_eq!(model.generate(prompt(1), &none).unwrap().usage.draft_tokens, 0);
            // An instance has the same head.
            let instance = model.instance(&options).unwrap();
            assert!(
                bits(&instance.generate(prompt(1), &ways()[0]).unwrap())
                    == bits(&plain.generate(prompt(1), &ways()[0]).unwrap())
            );
            drop((instance, model));
            assert_eq!(runtime.memory_used(), 0);
        }
    }
}

/// The head is read only where it is asked for, and is no part of what tells a model from others.
#[test]
fn a_head_that_is_not_asked_for_is_not_there() {
    let dir = support::mtp::with_head("qwen3_5", Guesses::Any, "unasked");
    let source = Source::Path(dir.path().to_owned());
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let (with, without) = (
        runtime.plan(&source, &ModelOptions::default()).unwrap(),
        runtime.plan(&Source::Path(support::family("qwen3_5")), &ModelOptions::default()).unwrap(),
    );
    assert_eq!((with.load_bytes, with.draft_bytes), (without.load_bytes, 0));
    let model = runtime.load(&source, &ModelOptions::default()).unwrap();
    let request = GenerateOptions::default().speculation(Speculation::Mtp);
    let options = ModelOptions::default().speculation(Speculation::Mtp);
    for error in [model.generate(prompt(1), &request).unwrap_err(), model.instance(&options).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let expected = "option speculation: expected none or ngram, as the model was loaded without speculation mtp, found mtp";
        assert_eq!(error.message(), expected);
    }
}

#[test]
fn a_model_without_a_head_is_refused() {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let dir = support::mtp::with_head("qwen3_5", Guesses::Any, "packed");
    let packed = dir.path().join("model.cbot");
    runtime.pack(&Source::Path(dir.path().to_owned()), &packed, &PackOptions::default()).unwrap();
    let needs = "option speculation: mtp needs a directory whose safetensors have a head for multi-token prediction \
                 (docs/speculation.md), found ";
    for (source, found) in [
        (Source::Path(support::family("llama")), "LlamaForCausalLM, for which none is read"),
        (Source::Path(support::family("qwen3_5")), "none in "),
        (Source::Path(support::family("deepseek_v3")), "none in "),
        (Source::Path(packed), "a packed file, which keeps none"),
        (Source::Shape("qwen2.5-0.5b".into()), "random weights"),
        (Source::Builtin, "LlamaForCausalLM, for which none is read"),
    ] {
        let options = ModelOptions::default().speculation(Speculation::Mtp);
        for error in
            [runtime.load(&source, &options).unwrap_err(), runtime.plan(&source, &options).unwrap_err()]
        {
            let expected = (ErrorKind::InvalidArgument, &"speculation".into());
            assert_eq!((error.kind(), &error.detail()["option"]), expected, "{error}");
            assert!(error.message().starts_with(&format!("{needs}{found}")), "{error}");
        }
        assert_eq!(runtime.memory_used(), 0);
    }
}

#[test]
fn a_head_of_another_kind_is_refused() {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1_u32)).unwrap();
    let options = ModelOptions::default().speculation(Speculation::Mtp);
    for (family, tensor, change, kind, message) in [
        (
            "qwen3_5",
            "mtp.layers.1.mlp.up_proj.weight",
            None,
            ErrorKind::UnsupportedModel,
            "with one layer, found ",
        ),
        (
            "deepseek_v3",
            "model.layers.3.hnorm.weight",
            None,
            ErrorKind::UnsupportedModel,
            "with one layer, found ",
        ),
        (
            "deepseek_v3",
            "model.layers.2.embed_tokens.weight",
            Some(1.0),
            ErrorKind::UnsupportedModel,
            "that has model.embed_tokens.weight of the model, found mtp.embed_tokens.weight",
        ),
        ("qwen3_5", "mtp.norm.weight", None, ErrorKind::InvalidModel, "mtp.norm.weight"),
    ] {
        let dir = support::mtp::with_head(family, Guesses::Any, &format!("kind-{tensor}"));
        support::mtp::change(dir.path(), |tensors| match (tensors.get_mut(tensor), change) {
            (Some((_, values)), Some(value)) => values[0] = value,
            (Some(_), None) => drop(tensors.remove(tensor)),
            (None, _) => drop(tensors.insert(tensor.into(), (vec![1], vec![0.0]))),
        });
        let error = runtime.load(&Source::Path(dir.path().to_owned()), &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
        // Nobody else minds.
        runtime.load(&Source::Path(dir.path().to_owned()), &ModelOptions::default()).unwrap();
    }
}

/// Sessions fit with and without the head, and so does what the option `cache` leaves.
#[test]
fn a_head_is_no_part_of_what_tells_a_model_from_others() {
    let dir = support::mtp::with_head("qwen3_5", Guesses::Any, "told");
    let source = Source::Path(dir.path().to_owned());
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
    let plain = runtime.load(&source, &ModelOptions::default()).unwrap();
    let mut session = plain.session().unwrap();
    session.append(prompt(1), AddSpecialTokens::No).unwrap();
    session.generate(&ways()[0]).unwrap();
    let file = dir.path().join("session");
    session.save(&file).unwrap();
    let more = ways()[1].clone();
    session.append(prompt(2), AddSpecialTokens::No).unwrap();
    let expected = bits(&session.generate(&more).unwrap());
    let cache = dir.path().join("cache");
    for _ in 0..2 {
        let options = ModelOptions::default().speculation(Speculation::Mtp).cache(cache.clone());
        let model = runtime.load(&source, &options).unwrap();
        let mut restored = model.restore_session(&file).unwrap();
        restored.append(prompt(2), AddSpecialTokens::No).unwrap();
        assert!(bits(&restored.generate(&more).unwrap()) == expected);
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    }
}
