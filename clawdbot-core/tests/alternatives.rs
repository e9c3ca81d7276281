//! Several completions of one prompt: each has the bits that it has alone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use clawdbot_core::{
    AddSpecialTokens, CancelHandle, Chat, Completion, Driver, ErrorKind, FinishReason, GenerateOptions,
    Model, ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
};

fn load(source: &Source, driver: Driver) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver);
    Runtime::new(&runtime).unwrap().load(source, &ModelOptions::default()).unwrap()
}

fn prompt(length: u32, salt: u32) -> Prompt {
    Prompt::Tokens((0..length).map(|i| 3 + (i * 37 + salt * 101) % 400).collect())
}

fn options() -> GenerateOptions {
    GenerateOptions::default()
        .temperature(0.9)
        .ignore_eos(true)
        .max_tokens(12_u32)
        .seed(7_u64)
        .logprobs(2_u32)
}

/// A completion alone, with the seed `7 + index`.
fn alone(model: &Model, prompt: &Prompt, index: u64) -> Completion {
    model.generate(prompt.clone(), &options().seed(7 + index)).unwrap()
}

/// All completions of a request, without their being part of it.
fn apart(mut completion: Completion) -> Vec<Completion> {
    let alternatives = std::mem::take(&mut completion.alternatives);
    std::iter::once(completion).chain(alternatives).collect()
}

fn mean(completion: &Completion) -> f64 {
    let logprobs = completion.logprobs.as_ref().unwrap();
    logprobs.iter().map(|one| f64::from(one.chosen.logprob)).sum::<f64>() / logprobs.len() as f64
}

#[test]
fn each_has_the_bits_that_it_has_alone() {
    for family in ["", "gemma3", "qwen3_5", "deepseek_v2"] {
        let source = match family {
            "" => Source::Builtin,
            family => Source::Path(support::family(family)),
        };
        let plain = load(&source, Driver::Caller);
        for driver in [Driver::Caller, Driver::Thread] {
            let model = load(&source, driver);
            for length in [1, 2, 64, 65, 100] {
                let prompt = prompt(length, 1);
                let expected: Vec<Completion> = (0..3).map(|index| alone(&plain, &prompt, index)).collect();
                let found = apart(model.generate(prompt.clone(), &options().n(3_u32)).unwrap());
                assert_eq!(found, expected, "{family} {driver} {length}");
                if driver == Driver::Caller {
                    let cached: Vec<usize> = found.iter().map(|one| one.usage.cached_tokens).collect();
                    assert_eq!(cached, [0, length as usize - 1, length as usize - 1]);
                }
                let seeds: Vec<u64> = found.iter().map(|one| one.options["seed"].as_u64().unwrap()).collect();
                assert_eq!(seeds, [7, 8, 9]);
            }
        }
    }
}

#[test]
fn the_best_come_first() {
    let model = load(&Source::Builtin, Driver::Caller);
    let prompt = prompt(70, 2);
    let mut expected: Vec<Completion> = (0..5).map(|index| alone(&model, &prompt, index)).collect();
    expected.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    expected.truncate(2);
    let found = model.generate(prompt.clone(), &options().n(2_u32).best_of(5_u32)).unwrap();
    assert_eq!(apart(found.clone()), expected);
    // What was asked for is reported, and gives the same again.
    assert_eq!((&found.options["n"], &found.options["best_of"]), (&2.into(), &5.into()));
    let again = GenerateOptions::from_json(&found.options).unwrap();
    assert_eq!(model.generate(prompt.clone(), &again).unwrap(), found);
    // Log-probabilities are there only if they are asked for.
    let silent = options().best_of(5_u32).logprobs(None);
    let found = model.generate(prompt, &silent).unwrap();
    assert_eq!((&found.token_ids, &found.logprobs), (&expected[0].token_ids, &None));
    assert!(found.alternatives.is_empty() && found.options["logprobs"].is_null());
}

#[test]
fn batches_and_chats_have_them_too() {
    let model = load(&Source::Builtin, Driver::Caller);
    let prompts: Vec<Prompt> = (0..5).map(|salt| prompt(30 + 20 * salt, salt)).collect();
    let options = options().n(2_u32);
    let found = model.generate_batch(prompts.clone(), &options);
    for (prompt, found) in prompts.into_iter().zip(found) {
        assert_eq!(found.unwrap(), model.generate(prompt, &options).unwrap());
    }
    let bad = vec![prompt(9, 1), Prompt::Tokens(vec![u32::MAX]), prompt(9, 2)];
    let found = model.generate_batch(bad, &options);
    assert!(found[0].is_ok() && found[2].is_ok());
    let error = found[1].as_ref().unwrap_err();
    assert!(error.message().starts_with("prompt[1]: "), "{error}");
    let chat = Chat::new(serde_json::json!([{"role": "user", "content": "Hello"}]));
    let found = apart(model.chat(&chat, &options).unwrap());
    let alone = |seed: u64| model.chat(&chat, &options.clone().n(1_u32).seed(seed)).unwrap();
    assert_eq!(found, [alone(7), alone(8)]);
}

#[test]
fn what_gives_one_completion_refuses_more() {
    let model = load(&Source::Builtin, Driver::Caller);
    let refused = |error: clawdbot_core::Error, option: &str| {
        assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &option.into()));
    };
    refused(model.stream("Once", &options().n(2_u32)).unwrap_err(), "n");
    refused(model.submit("Once", &options().best_of(2_u32)).unwrap_err(), "best_of");
    let mut session = model.session().unwrap();
    session.append("Once", AddSpecialTokens::Yes).unwrap();
    refused(session.generate(&options().n(2_u32)).unwrap_err(), "n");
    refused(model.generate("Once", &options().n(3_u32).best_of(2_u32)).unwrap_err(), "best_of");
    let long = prompt(100, 1);
    let error = model.generate(long, &options().n(2_u32).max_tokens(u32::MAX)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextOverflow);
    // One that is cancelled, or late, ends as a single one does.
    let cancel = CancelHandle::default();
    cancel.cancel();
    let found = model.generate_until(prompt(9, 1), &options().n(2_u32), &cancel).unwrap();
    assert!(apart(found).iter().all(|one| one.finish_reason == FinishReason::Cancelled));
    let late = model.generate(prompt(9, 1), &options().n(2_u32).deadline_ms(0_u64)).unwrap();
    assert_eq!(late.options["deadline_ms"], 0);
    assert!(apart(late).iter().all(|one| one.finish_reason == FinishReason::Deadline));
}
