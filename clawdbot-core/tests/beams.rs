//! Beam search: the tokens that transformers finds, and what a request is in other respects.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use clawdbot_core::{
    CancelHandle, Chat, Completion, Driver, Error, ErrorKind, FinishReason, GenerateOptions, KvType, Model,
    ModelOptions, Prompt, Request, Runtime, RuntimeOptions, Source, WeightType,
};
use serde_json::{Value, json};

fn load(source: &Source, runtime: RuntimeOptions, options: &ModelOptions) -> Model {
    Runtime::new(&runtime).unwrap().load(source, options).unwrap()
}

fn threads(count: u32) -> RuntimeOptions {
    RuntimeOptions::default().threads(count)
}

fn plain(family: &str) -> Model {
    load(&Source::Path(support::family(family)), threads(2), &ModelOptions::default())
}

/// A model, and the runtime that counts what it does.
fn counted() -> (Model, Runtime) {
    let runtime = Runtime::new(&threads(2)).unwrap();
    let source = Source::Path(support::family("llama"));
    (runtime.load(&source, &ModelOptions::default()).unwrap(), runtime)
}

fn prompt(length: u32, salt: u32) -> Prompt {
    Prompt::Tokens((0..length).map(|i| 3 + (i * 37 + salt * 101) % 400).collect())
}

fn beams(count: u32, n: u32) -> GenerateOptions {
    GenerateOptions::default().num_beams(count).n(n).ignore_eos(true).max_tokens(10_u32)
}

/// All completions of a request, best first.
fn apart(mut completion: Completion) -> Vec<Completion> {
    let alternatives = std::mem::take(&mut completion.alternatives);
    std::iter::once(completion).chain(alternatives).collect()
}

fn token_ids(completion: Completion) -> Vec<Vec<u32>> {
    apart(completion).into_iter().map(|one| one.token_ids).collect()
}

#[test]
fn it_finds_what_transformers_finds() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/beams.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let exact = ModelOptions::default().weights(WeightType::F32).kv(KvType::F32);
    for (family, golden) in golden["models"].as_object().unwrap() {
        let model = load(&Source::Path(support::family(family)), threads(2), &exact);
        let prompt: Vec<u32> = serde_json::from_value(golden["prompt"].clone()).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 20, "{family}: {}", cases.len());
        for case in cases {
            let options = GenerateOptions::from_json(case["options"].as_object().unwrap()).unwrap();
            let found = model.generate(prompt.clone(), &options.ignore_eos(true)).unwrap();
            assert_eq!(json!(token_ids(found)), case["token_ids"], "{family} {}", case["options"]);
        }
    }
}

#[test]
fn the_bits_are_the_same_however_it_is_computed() {
    for family in ["gemma3", "qwen3_5", "deepseek_v2"] {
        let source = Source::Path(support::family(family));
        let options = beams(4, 3).logprobs(2_u32).max_tokens(20_u32);
        let expected: Vec<Completion> =
            (0..3).map(|salt| plain(family).generate(prompt(60 + salt, salt), &options).unwrap()).collect();
        for (runtime, model) in [
            (threads(1), ModelOptions::default()),
            (threads(2), ModelOptions::default().max_batch(3_u32)),
            (threads(2).driver(Driver::Thread), ModelOptions::default()),
        ] {
            let model = load(&source, runtime, &model);
            let prompts = (0..3).map(|salt| prompt(60 + salt, salt)).collect();
            for (found, expected) in model.generate_batch(prompts, &options).into_iter().zip(&expected) {
                assert_eq!(apart(found.unwrap()), apart(expected.clone()), "{family}");
            }
            assert_eq!(model.generate(prompt(61, 1), &options).unwrap(), expected[1], "{family}");
        }
    }
}

#[test]
fn pages_that_are_lost_are_computed_again() {
    let alone = plain("qwen3_5");
    let plan = &alone.info().plan;
    let options = beams(4, 4).max_tokens(40_u32);
    let expected = alone.generate(prompt(100, 1), &options).unwrap();
    let room = plan.load_bytes + 4 * 64 * plan.kv_bytes_per_token + 3 * (plan.load_bytes / 64);
    let source = Source::Path(support::family("qwen3_5"));
    let model = load(&source, threads(2).memory_budget(room), &ModelOptions::default());
    let prompts = vec![prompt(100, 1); 3];
    for found in model.generate_batch(prompts, &options) {
        assert_eq!(apart(found.unwrap()), apart(expected.clone()));
    }
}

#[test]
fn a_completion_says_all_that_it_is_asked_for() {
    let model = Model::builtin().unwrap();
    let options = beams(5, 3).logprobs(2_u32).prompt_logprobs(1_u32).length_penalty(0.5_f32);
    let found = model.generate("Once upon a time", &options).unwrap();
    let again = GenerateOptions::from_json(&found.options).unwrap();
    assert_eq!(model.generate("Once upon a time", &again).unwrap(), found);
    assert_eq!(found.options["num_beams"], 5);
    assert_eq!(found.options["early_stopping"], "false");
    let tokens = model.tokenizer().unwrap().encode("Once upon a time", true.into()).unwrap();
    assert_eq!(found.prompt_logprobs.as_ref().unwrap().len(), tokens.len() - 1);
    assert_eq!((found.usage.prompt_tokens, found.usage.cached_tokens), (tokens.len(), 0));
    let all = apart(found);
    let score = |one: &Completion| -> f64 {
        let logprobs = one.logprobs.as_ref().unwrap();
        assert!(logprobs.iter().all(|entry| entry.top.len() == 2));
        assert!(logprobs.iter().zip(&one.token_ids).all(|(entry, id)| entry.chosen.id == *id));
        let scores = model.score(tokens.clone(), &[Prompt::Tokens(one.token_ids.clone())]).unwrap();
        assert!(scores[0].logprobs.iter().eq(logprobs.iter().map(|entry| &entry.chosen.logprob)));
        scores[0].logprob / (one.token_ids.len() as f64).sqrt()
    };
    assert!(all.is_sorted_by(|a, b| score(a) >= score(b)));
    for one in &all {
        assert_eq!(one.finish_reason, FinishReason::Length);
        assert_eq!(one.usage.completion_tokens, 10);
        assert!(!one.text.is_empty());
    }
    // It is better than what greedy sampling finds, which is one of what it compares.
    let greedy = beams(1, 1).temperature(0.0).logprobs(2_u32);
    assert!(score(&all[0]) >= score(&model.generate("Once upon a time", &greedy).unwrap()));
    let chat = Chat::new(json!([{"role": "user", "content": "Hello"}]));
    assert_eq!(apart(model.chat(&chat, &beams(3, 2)).unwrap()).len(), 2);
}

#[test]
fn it_counts_as_one_request() {
    let (model, runtime) = counted();
    let found = model.generate(prompt(20, 1), &beams(4, 3)).unwrap();
    let cancel = CancelHandle::default();
    cancel.cancel();
    let stopped = model.generate_until(prompt(20, 2), &beams(4, 3), &cancel).unwrap();
    assert_eq!((stopped.finish_reason, stopped.token_ids.len()), (FinishReason::Cancelled, 0));
    let late = model.generate(prompt(20, 3), &beams(4, 3).deadline_ms(0_u64)).unwrap();
    assert_eq!((late.finish_reason, late.token_ids.len()), (FinishReason::Deadline, 0));
    let masked = beams(4, 3).allowed_token_ids(vec![7]);
    let error = model.generate(prompt(20, 4), &masked).unwrap_err();
    assert!(error.message().starts_with("option n: expected at most 1, as masks leave no more"), "{error}");
    let metrics = &runtime.metrics().models[0];
    let outcomes = metrics.requests;
    assert_eq!((outcomes.length, outcomes.cancelled, outcomes.deadline), (1, 1, 1));
    assert_eq!((outcomes.failed, outcomes.stop, metrics.running), (1, 0, 0));
    assert_eq!(metrics.prompt_tokens, 60);
    assert_eq!(metrics.generated_tokens, found.token_ids.len() as u64 + 10);
}

#[test]
fn one_that_is_cancelled_gives_what_it_has() {
    let (model, runtime) = counted();
    let cancel = CancelHandle::default();
    let mut passes = 0;
    let requests = [Ok::<_, Error>(Request::new(prompt(20, 1), beams(4, 3).max_tokens(99_u32)))];
    let found = model.generate_each(requests.into_iter(), &cancel, |_| {
        passes += 1;
        if passes == 5 {
            cancel.cancel();
        }
        ControlFlow::Continue(())
    });
    let all = apart(found.into_iter().next().unwrap().unwrap());
    assert_eq!(all.len(), 3);
    for one in all {
        assert_eq!(one.finish_reason, FinishReason::Cancelled);
        assert!((1..6).contains(&one.token_ids.len()), "{}", one.token_ids.len());
    }
    // Nothing is left of it, and of one that is dropped.
    let requests = [Ok::<_, Error>(Request::new(prompt(20, 1), beams(4, 3)))];
    let dropped =
        model.generate_each(requests.into_iter(), &CancelHandle::default(), |_| ControlFlow::Break(()));
    assert_eq!(dropped[0].as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    let metrics = &runtime.metrics().models[0];
    assert_eq!((metrics.requests.cancelled, metrics.running, metrics.waiting), (2, 0, 0));
}

#[test]
fn where_there_is_no_beam_search_it_is_an_error() {
    let model = Model::builtin().unwrap();
    let chat = Chat::new(json!([{"role": "user", "content": "Hello"}]));
    let mut session = model.session().unwrap();
    session.append("Once", true.into()).unwrap();
    let errors = [
        model.stream("Once", &beams(4, 1)).err(),
        model.submit("Once", &beams(4, 1)).err(),
        model.chat_stream(&chat, &beams(4, 1)).err(),
        session.generate(&beams(4, 1)).err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert_eq!(
            (error.kind(), &error.detail()["option"]),
            (ErrorKind::InvalidArgument, &json!("num_beams"))
        );
    }
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>{% endif %}";
    let template = ModelOptions::default().chat_template(template.to_owned());
    let model = load(&Source::Builtin, threads(1), &template);
    let tools = |strict: bool| json!([{"type": "function", "function": {"name": "f", "strict": strict, "parameters": {"type": "object"}}}]);
    let error = model.chat(&chat.clone().tools(tools(true)), &beams(4, 1)).unwrap_err();
    assert!(error.message().contains("num_beams: expected 1 where calls are enforced"), "{error}");
    assert_eq!(model.chat(&chat.tools(tools(false)), &beams(4, 1)).unwrap().token_ids.len(), 10);
}
