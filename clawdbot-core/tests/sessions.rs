//! What sessions and streams do at their edges: cancelling, truncating to what is computed already.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    AddGenerationPrompt, AddSpecialTokens, CancelHandle, Chat, Completion, Error, ErrorKind, Event,
    FinishReason, GenerateOptions, KvType, LogLevel, LogRecord, Model, ModelOptions, Prompt, Request, Result,
    Runtime, RuntimeOptions, Source, Stream,
};
use serde_json::json;

mod support;
use support::child::{Limits, in_child};

fn greedy(max_tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(max_tokens)
}

#[test]
fn a_cancelled_stream_ends_with_its_completion() {
    let model = Model::builtin().unwrap();
    let mut stream = model.stream("Once upon a time", &greedy(200)).unwrap();
    stream.next_event().unwrap();
    stream.cancel_handle().cancel();
    let completion = stream.finish().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Cancelled);
}

#[test]
fn closing_the_model_ends_a_stream() {
    let model = Model::builtin().unwrap();
    let stream = model.stream("Once upon a time", &greedy(200)).unwrap();
    model.close();
    assert_eq!(stream.finish().unwrap().finish_reason, FinishReason::Cancelled);
}

#[test]
fn truncating_to_the_prompt_generates_the_same_again() {
    let model = Model::builtin().unwrap();
    let mut session = model.session().unwrap();
    let length = session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let first = session.generate(&greedy(5)).unwrap();
    session.truncate(length).unwrap();
    let again = session.generate(&greedy(5)).unwrap();
    assert_eq!(again.token_ids, first.token_ids);
    assert_eq!(again.usage.cached_tokens, length - 1, "all but the last token of the prompt");
}

fn tiny() -> (Model, GenerateOptions) {
    (Model::builtin().unwrap(), greedy(5))
}

#[test]
fn an_old_stream_does_not_touch_the_next_request() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let mut old = session.stream(&options).unwrap();
    for _ in 0..5 {
        assert!(matches!(old.next_event().unwrap(), Some(Event::Token { .. })));
    }
    // Its end was not taken, but the session is free.
    let new = session.stream(&options).unwrap();
    assert_eq!(old.next_event().unwrap_err().kind(), ErrorKind::Closed);
    drop(old);
    assert_eq!(new.finish().unwrap().token_ids.len(), 5);
}

#[test]
fn a_refused_request_changes_nothing() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    let bad = options.clone().stop_token_ids([u32::MAX]);
    assert_eq!(session.stream(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(session.tokens().unwrap().is_empty(), "no token of the beginning stays behind");
}

#[test]
fn sessions_of_a_closed_model_are_closed() {
    let (model, options) = tiny();
    let mut session = model.session().unwrap();
    session.append("Once", AddSpecialTokens::Yes).unwrap();
    model.close();
    assert_eq!(session.append("upon", AddSpecialTokens::No).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(session.generate(&options).unwrap_err().kind(), ErrorKind::Closed);
}

fn loaded(options: &ModelOptions) -> Model {
    Runtime::new(&RuntimeOptions::default().threads(2)).unwrap().load(&Source::Builtin, options).unwrap()
}

#[test]
fn an_overflow_names_what_was_asked_for() {
    let model = loaded(&ModelOptions::default().max_context(100_u32));
    let detail = |error: &Error| ["prompt_tokens", "max_tokens"].map(|key| error.detail().get(key).cloned());
    let error = model.generate(vec![5; 120], &greedy(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextOverflow);
    assert_eq!(detail(&error), [Some(120.into()), Some(3.into())]);
    assert!(error.message().contains("120 tokens of prompt and 3 to generate"), "{error}");
    let open = greedy(1).max_tokens(None::<u32>);
    for length in [100, 120] {
        let error = model.stream(vec![5; length], &open).unwrap_err();
        assert_eq!(detail(&error), [Some(length.into()), None]);
        assert!(error.message().contains("at least 1 to generate"), "{error}");
    }
    let mut session = model.session().unwrap();
    let error = session.append(vec![5; 101], AddSpecialTokens::No).unwrap_err();
    assert!(error.message().ends_with("holds 100 tokens, but 101 tokens are asked for"), "{error}");
    assert_eq!(detail(&error), [Some(101.into()), None]);
    session.append(vec![5; 99], AddSpecialTokens::No).unwrap();
    let error = session.generate(&greedy(2)).unwrap_err();
    assert_eq!(detail(&error), [Some(99.into()), Some(2.into())]);
    assert!(model.logits(&[5; 101]).unwrap_err().message().contains("101 tokens are asked for"));
}

/// Bytes of a page of the KV cache.
fn page(model: &Model) -> u64 {
    let plan = &model.info().plan;
    plan.load_bytes - plan.weights_bytes - plan.scratch_bytes
}

/// Pages that a pool keeps at most.
const RESERVE: u64 = 4;

#[test]
fn pages_go_back_to_the_budget() {
    let model = loaded(&ModelOptions::default());
    let fixed = model.runtime().memory_used();
    let pages = || (model.runtime().memory_used() - fixed) / page(&model);
    // A small session that stays does not keep what others had.
    let mut small = model.session().unwrap();
    small.append(vec![5; 7], AddSpecialTokens::No).unwrap();
    small.generate(&greedy(1)).unwrap();
    assert_eq!(pages(), 1);
    let mut large = model.session().unwrap();
    large.append(vec![5; 640], AddSpecialTokens::No).unwrap();
    large.generate(&greedy(1)).unwrap();
    assert_eq!(pages(), 11);
    large.truncate(100).unwrap();
    assert!(pages() <= 3 + RESERVE, "{}", pages());
    drop(large);
    assert!(pages() <= 1 + RESERVE, "{}", pages());
    // Nor does a stream that has ended, as nobody can go on from it.
    let mut stream = model.stream(vec![5; 640], &greedy(2)).unwrap();
    let ended = |event: &Event| matches!(event, Event::Done(_));
    let mut most = 0;
    while !stream.next_event().unwrap().as_ref().is_some_and(ended) {
        most = most.max(pages());
    }
    assert!(most >= 11 && pages() <= 1 + RESERVE, "{most}, {}", pages());
    drop((small, stream));
    assert_eq!(model.runtime().memory_used(), fixed);
}

#[test]
fn a_batch_of_many_is_served_in_order() {
    let options = ModelOptions::default().max_batch(4_u32).prefill_chunk(32_u32);
    let model = loaded(&options);
    let prompts: Vec<u32> = (0..40).map(|i| if i == 7 { u32::MAX } else { 3 + i * 11 }).collect();
    let batch = |prompts: &[u32]| prompts.iter().map(|&id| Prompt::Tokens(vec![id; 9])).collect();
    let mut lengths: Vec<GenerateOptions> = Vec::new();
    lengths.extend((0..40).map(|i| greedy(1 + (i * 5) % 17)));
    let requests = || {
        let prompts: Vec<Prompt> = batch(&prompts);
        let each = prompts.into_iter().zip(&lengths);
        each.map(|(prompt, options)| Ok::<_, Error>(Request::new(prompt, options.clone())))
    };
    let (cancel, mut calls) = (CancelHandle::default(), Vec::new());
    let results = model.generate_each(requests(), &cancel, |now| {
        calls.push((now.done, now.total));
        ControlFlow::Continue(())
    });
    assert!(calls.is_sorted() && calls.last() == Some(&(40, 40)), "{calls:?}");
    for (i, result) in results.into_iter().enumerate() {
        match i {
            7 => assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument),
            _ => {
                let alone = model.generate(vec![prompts[i]; 9], &lengths[i]).unwrap();
                assert_eq!(result.unwrap().token_ids, alone.token_ids, "{i}");
            }
        }
    }
    let mut passes = 0;
    let some = model.generate_each(requests(), &cancel, |_| {
        passes += 1;
        if passes < 8 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(!cancel.is_cancelled(), "a caller's handle is the caller's");
    let cancelled = |result: &&clawdbot_core::Result<_>| {
        result.as_ref().is_err_and(|error: &Error| error.kind() == ErrorKind::Cancelled)
    };
    assert!((1..38).contains(&some.iter().filter(|result| result.is_ok()).count()));
    assert!(some.iter().filter(cancelled).count() > 1);
    model.close();
    let refused = model.generate_batch(batch(&prompts), &greedy(1));
    assert!(
        refused.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed))
    );
}

/// Without a budget, in an address space that all of them at a time would not fit into.
#[test]
fn twenty_thousand_prompts_are_served() {
    let limits = Limits { address_space: 1000, peak: 300, cpu: 40 };
    in_child(limits, || {
        const COUNT: usize = 20_000;
        let model = loaded(&ModelOptions::default());
        let fixed = model.runtime().memory_used();
        let prompts = (0..COUNT).map(|i| Prompt::Tokens(vec![3 + (i % 400) as u32, 5])).collect();
        let results = model.generate_batch(prompts, &greedy(2));
        let first: Vec<Vec<u32>> = (0..400).map(|i| results[i].as_ref().unwrap().token_ids.clone()).collect();
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.as_ref().unwrap().token_ids, first[i % 400], "{i}");
        }
        // Streams that nobody reads wait: they have no pages before it is their turn.
        let streams: Vec<Stream> =
            (0..400).map(|i| model.stream(vec![3 + i % 400, 5], &greedy(2)).unwrap()).collect();
        let bytes = model.runtime().memory_used() - fixed;
        assert!(bytes < 16 << 20, "{bytes} bytes");
        for (i, stream) in streams.into_iter().enumerate() {
            assert_eq!(stream.finish().unwrap().token_ids, first[i % 400], "{i}");
        }
        assert_eq!(model.runtime().memory_used(), fixed);
    });
}

/// Without a budget, in an address space that is small: what does not fit waits or is refused, and nothing aborts.
#[test]
fn what_the_process_has_no_memory_for_is_an_error() {
    let limits = Limits { address_space: 500, peak: 350, cpu: 60 };
    in_child(limits, || {
        let model = loaded(&ModelOptions::default().kv(KvType::F32));
        let fixed = model.runtime().memory_used();
        let prompt = |i: u32| vec![3 + i % 400; 1000];
        // 4 MB each, so not all at a time: those that are idle make room.
        let mut sessions = Vec::new();
        let mut found = Vec::new();
        for i in 0..90 {
            let mut session = model.session().unwrap();
            session.append(prompt(i), AddSpecialTokens::No).unwrap();
            found.push(session.generate(&greedy(1)).unwrap().token_ids);
            sessions.push(session);
        }
        assert!(model.runtime().memory_used() - fixed < 90 * 4_000_000, "all have their pages");
        sessions[0].truncate(1000).unwrap();
        assert_eq!(sessions[0].generate(&greedy(1)).unwrap().token_ids, found[0]);
        // Too long, one and all.
        let long = model.generate_batch(vec![Prompt::Tokens(vec![5; 1100]); 2000], &greedy(1));
        let overflows = |result: &Result<Completion>| {
            result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ContextOverflow)
        };
        assert!(long.len() == 2000 && long.iter().all(overflows));
        // Sessions without end.
        let error = loop {
            match model.session() {
                Ok(session) => sessions.push(session),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert!(error.message().contains("memory_budget"), "{error}");
        assert!(sessions.len() > 10_000);
        let refused = model.generate(prompt(0), &greedy(1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfBudget);
        sessions.truncate(1);
        assert_eq!(model.generate(prompt(0), &greedy(1)).unwrap().token_ids, found[0]);
        sessions[0].truncate(1000).unwrap();
        assert_eq!(sessions[0].generate(&greedy(1)).unwrap().token_ids, found[0]);
        drop(sessions);
        assert_eq!(model.runtime().memory_used(), fixed);
    });
}

fn chat(said: &[(&str, &str)]) -> Chat {
    Chat::new(said.iter().map(|(role, text)| json!({"role": role, "content": text})).collect::<Vec<_>>())
}

#[test]
fn a_session_that_chats_computes_what_is_new() {
    let (model, options) = (Model::builtin().unwrap(), greedy(12));
    let mut session = model.session().unwrap();
    let mut said = vec![("user", "Tell me a story.".to_owned())];
    let conversation = |said: &[(&'static str, String)]| {
        chat(&said.iter().map(|(role, text)| (*role, text.as_str())).collect::<Vec<_>>())
    };
    for next in ["And then?", "Why?", "What did the dog say?"] {
        let asked = conversation(&said);
        let found = session.chat(&asked, &options).unwrap();
        let alone = model.chat(&asked, &options).unwrap();
        assert_eq!((&found.token_ids, &found.text), (&alone.token_ids, &alone.text));
        assert_eq!(found.usage.prompt_tokens, alone.usage.prompt_tokens);
        said.push(("assistant", found.text));
        said.push(("user", next.to_owned()));
    }
    let held = session.tokens().unwrap();
    let last = session.chat_stream(&conversation(&said), &options).unwrap().finish().unwrap();
    let whole = session.tokens().unwrap();
    let kept = held.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    assert_eq!(last.usage.cached_tokens, kept.min(held.len() - 1), "all that is the same");
    assert!(kept > 60 && last.usage.prompt_tokens > kept);

    // Another first message: all after the first difference is computed again.
    said[0].1 = "Tell me a joke.".to_owned();
    let asked = conversation(&said);
    let found = session.chat(&asked, &options).unwrap();
    assert_eq!(found.token_ids, model.chat(&asked, &options).unwrap().token_ids);
    assert!((1..12).contains(&found.usage.cached_tokens), "{:?}", found.usage);
    // A shorter one: the rest is forgotten.
    let found = session.chat(&conversation(&said[..1]), &options).unwrap();
    assert_eq!(session.tokens().unwrap().len(), found.usage.prompt_tokens + 12);
    // The same again: all but the last token is there.
    let again = session.chat(&conversation(&said[..1]), &options).unwrap();
    assert_eq!(
        (again.usage.cached_tokens, again.token_ids),
        (again.usage.prompt_tokens - 1, found.token_ids)
    );

    let before = session.tokens().unwrap();
    let refused = session.chat(&conversation(&said), &greedy(5000)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ContextOverflow);
    assert_eq!(session.chat(&Chat::new("Hi"), &options).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(session.tokens().unwrap(), before, "a refused request changes nothing");
}

#[test]
fn a_beginning_that_the_text_has_is_not_doubled() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let hook = move |record: &LogRecord| heard.lock().unwrap().push((record.level, record.message.clone()));
    let runtime = Runtime::with_log(&RuntimeOptions::default(), hook).unwrap();
    let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    let said = chat(&[("user", "Hello")]);
    let rendered = model.render_chat(&said, AddGenerationPrompt::Yes).unwrap();
    let tokens = model.tokenizer().unwrap().encode(&rendered, AddSpecialTokens::No).unwrap();
    let bos = model.info().bos_token_id.unwrap();
    assert!(tokens[0] == bos && tokens[1] != bos);
    lines.lock().unwrap().clear();
    let prompt_tokens = |completion: Completion| completion.usage.prompt_tokens;
    assert_eq!(prompt_tokens(model.chat(&said, &greedy(1)).unwrap()), tokens.len());
    assert!(lines.lock().unwrap().is_empty(), "a chat adds none");
    for options in [greedy(1), greedy(1).add_special_tokens(false)] {
        assert_eq!(prompt_tokens(model.generate(rendered.as_str(), &options).unwrap()), tokens.len());
        assert_eq!(
            prompt_tokens(model.chat(&said, &options.add_special_tokens(true)).unwrap()),
            tokens.len()
        );
    }
    let mut session = model.session().unwrap();
    assert_eq!(session.append(rendered.as_str(), AddSpecialTokens::Yes).unwrap(), tokens.len());
    assert_eq!(
        lines.lock().unwrap().iter().filter(|(_, line)| line.contains("not added once more")).count(),
        4
    );

    // Within a session it is a slip.
    lines.lock().unwrap().clear();
    session.append("And", AddSpecialTokens::No).unwrap();
    assert!(lines.lock().unwrap().is_empty());
    session.append("then", AddSpecialTokens::Yes).unwrap();
    assert!(lines.lock().unwrap()[0].1.contains("within a session"));

    // Variables that have no effect.
    lines.lock().unwrap().clear();
    let variables = json!({"colour": "red"}).as_object().unwrap().clone();
    model.render_chat(&said.variables(variables), AddGenerationPrompt::Yes).unwrap();
    let lines = lines.lock().unwrap();
    let [(level, line)] = &lines[..] else { panic!("{lines:?}") };
    assert!(*level == LogLevel::Warning && line.contains("colour"), "{line}");
}

#[test]
fn a_batch_is_cancelled_as_a_whole() {
    let model = Model::builtin().unwrap();
    let cancel = CancelHandle::default();
    let requests = (0..200).map(|_| Ok::<_, Error>(Request::new("Once", greedy(50))));
    let go_on = |_| ControlFlow::Continue(());
    cancel.clone().cancel();
    let done = model.generate_each(requests, &cancel, go_on);
    assert_eq!(done.len(), 200);
    let ended = |result: &Result<Completion>| match result {
        Ok(completion) => completion.finish_reason == FinishReason::Cancelled,
        Err(error) => error.kind() == ErrorKind::Cancelled,
    };
    assert!(done.iter().all(ended));
    assert!(cancel.is_cancelled());
    // Before anything is computed, there is nothing to complete.
    let error = model.generate_until("Once", &greedy(50), &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let found = model.generate_until("Once", &greedy(3), &CancelHandle::default()).unwrap();
    assert_eq!(found.token_ids.len(), 3);
}

#[test]
fn what_is_wrong_with_a_prompt_of_a_batch_is_named_with_its_place() {
    let model = Model::builtin().unwrap();
    let options = greedy(2);
    let given = Error::new(ErrorKind::InvalidUtf8, "given");
    let request = |prompt: Prompt| Ok(Request::new(prompt, options.clone()));
    let requests =
        [request("Once".into()), Err(given), request(vec![u32::MAX].into()), request("Once".into())];
    let go_on = |_| ControlFlow::Continue(());
    let found = model.generate_each(requests.into_iter(), &CancelHandle::default(), go_on);
    assert_eq!(found[0].as_ref().unwrap(), found[3].as_ref().unwrap());
    assert_eq!(found[1].as_ref().unwrap_err().message(), "given");
    let error = found[2].as_ref().unwrap_err();
    assert!(error.message().starts_with("prompt[2]: "), "{error}");
    assert_eq!((error.kind(), &error.detail()["prompt"]), (ErrorKind::InvalidArgument, &json!(2)));
    // A prompt alone has no place.
    let alone = model.generate(vec![u32::MAX], &options).unwrap_err();
    assert_eq!(error.message(), format!("prompt[2]: {alone}"));
}
