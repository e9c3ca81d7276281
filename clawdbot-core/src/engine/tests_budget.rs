//! The cost of requests in a small memory, in computed tokens.

use super::*;
use crate::api::model::Model;
use crate::api::session::{Prompt, Session};
use crate::api::tests::support;
use crate::cache::Pages;
use crate::cancel::CancelHandle;
use crate::load::source::Source;
use crate::options::{EmbedOptions, GenerateOptions, ModelOptions, Pooling, RuntimeOptions};
use crate::runtime::Runtime;
use crate::tokenizer::{AddSpecialTokens, Tokenizer};

fn load(source: &Source, options: &ModelOptions, budget: Option<u64>) -> Model {
    let options_of_runtime = RuntimeOptions { memory_budget: budget, ..RuntimeOptions::default().threads(1) };
    Runtime::new(&options_of_runtime).unwrap().load(source, options).unwrap()
}

/// The model with memory for a sequence of `needed` tokens, plus `more` bytes.
pub(super) fn tight(source: &Source, options: &ModelOptions, needed: usize, more: u64) -> Model {
    let free = load(source, options, None);
    let fixed = free.runtime().memory_used();
    let bytes = free.loaded().unwrap().engine().unwrap().cache.bytes(needed, options.prefill_chunk as usize);
    load(source, options, Some(fixed + bytes + more))
}

pub(super) fn greedy(tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).max_tokens(tokens).ignore_eos(true)
}

fn prompt(i: usize) -> Vec<u32> {
    (0..10 + (i * 37) % 70).map(|j| 3 + ((i * 31 + j * 7) % 400) as u32).collect()
}

/// Passes and computed tokens.
pub(super) fn counts(model: &Model) -> (u64, u64) {
    let loaded = model.loaded().unwrap();
    let engine = loaded.engine().unwrap();
    (engine.counts.passes, engine.counts.rows)
}

/// Full attention; sliding windows, with several residual streams or one; two with recurrent states, with and without
/// experts.
pub(super) fn sources() -> Vec<Source> {
    let families = ["gemma3n", "gemma4", "granite4", "qwen3_5"].into_iter().map(support::family);
    [Source::Builtin].into_iter().chain(families.map(Source::Path)).collect()
}

#[test]
fn a_batch_costs_what_its_requests_cost_in_any_memory() {
    const TOKENS: usize = 5;
    let options = ModelOptions::default().prefill_chunk(64_u32);
    for (index, source) in sources().iter().enumerate() {
        let roomy = load(source, &options, None);
        let sizes: &[usize] = if index == 0 { &[1, 2, 16, 32, 64, 200] } else { &[2, 16] };
        let most = *sizes.last().unwrap();
        let prompts: Vec<Prompt> = (0..most).map(|i| prompt(i).into()).collect();
        let expected: Vec<Vec<u32>> = {
            let all = roomy.generate_batch(prompts.clone(), &greedy(TOKENS as u32));
            all.into_iter().map(|completion| completion.unwrap().token_ids).collect()
        };
        for &count in sizes {
            for more in [0, 1 << 18] {
                let model = tight(source, &options, 79 + TOKENS, more);
                let results = model.generate_batch(prompts[..count].to_vec(), &greedy(TOKENS as u32));
                for (result, expected) in results.iter().zip(&expected) {
                    assert_eq!(&result.as_ref().unwrap().token_ids, expected);
                }
                let alone: usize = (0..count).map(|i| prompt(i).len() + TOKENS - 1).sum();
                let (_, rows) = counts(&model);
                assert_eq!(rows, alone as u64, "{count} of {source:?}, {more} more");
            }
        }
    }
}

/// Open-ended requests: two are admitted because few need that much, and then they do not fit together.
#[test]
fn open_ended_requests_recompute_little() {
    const TOKENS: usize = 2400;
    let dir = support::family("olmo3");
    let dir = support::Copy::of(&dir, "open-requests");
    dir.edit("config.json", |config| config["max_position_embeddings"] = 4096.into());
    let (source, options) = (Source::Path(dir.path().to_owned()), ModelOptions::default());
    let prompts = || -> Vec<Prompt> { (0..3).map(|i| prompt(i).into()).collect() };
    let generate = |model: &Model| -> Vec<Vec<u32>> {
        let all = model.generate_batch(prompts(), &greedy(TOKENS as u32));
        all.into_iter().map(|completion| completion.unwrap().token_ids).collect()
    };
    let model = tight(&source, &options, 100 + TOKENS, 0);
    assert_eq!(generate(&model), generate(&load(&source, &options, None)));
    let alone: u64 = (0..3).map(|i| (prompt(i).len() + TOKENS - 1) as u64).sum();
    let (_, rows) = counts(&model);
    assert!(rows > alone && rows * 10 <= alone * 13, "{rows} of {alone}");
}

/// Tokenizing a text takes memory before its request begins: idle sessions and running requests make room for that too.
#[test]
fn a_text_is_tokenized_although_the_memory_is_full() {
    let options = ModelOptions::default().prefill_chunk(64_u32);
    let source = Source::Builtin;
    let text = "Once upon a time there was a small dog. ".repeat(40);
    let expected = load(&source, &options, None).generate(&*text, &greedy(4)).unwrap();
    let needed = Tokenizer::encoding_bytes(&text);
    let model = tight(&source, &options, 600, 0);
    // Pages of a session that is idle take what there is.
    let mut session = model.session().unwrap();
    let room = |model: &Model| model.runtime().memory_budget().unwrap() - model.runtime().memory_used();
    let mut length = 0;
    while room(&model) > needed / 2 {
        session.append(prompt(length), AddSpecialTokens::No).unwrap();
        session.generate(&greedy(1)).unwrap();
        length += 1;
    }
    assert_eq!(model.generate(&*text, &greedy(4)).unwrap().token_ids, expected.token_ids);
    // A request that runs is computed until its pages are free.
    drop(session);
    let mut running = model.stream(prompt(1), &greedy(80)).unwrap();
    running.next_event().unwrap();
    let left = needed - 1;
    let _held = model.runtime().budget().reserve(room(&model) - left, "what another model has").unwrap();
    let mut session = model.session().unwrap();
    assert!(session.append(&*text, AddSpecialTokens::No).unwrap() > 100);
    assert_eq!(running.finish().unwrap().token_ids.len(), 80);
    // With nothing left to free, it is an error.
    let mut session = model.session().unwrap();
    let _all = model.runtime().budget().reserve(room(&model) - 1000, "what another model has").unwrap();
    let error = session.append(&*text, AddSpecialTokens::No).unwrap_err();
    assert_eq!((error.kind(), error.detail()["needed"].as_u64()), (ErrorKind::OutOfBudget, Some(left + 1)));
}

/// Pages that a request has left in reserve are room for what has none, though there is nothing else to free.
#[test]
fn pages_in_reserve_make_room() {
    let options = ModelOptions::default().prefill_chunk(64_u32).prefix_cache(false);
    let model = tight(&Source::Builtin, &options, 600, 0);
    // Without any sequence, the reserve is freed too.
    let _idle = model.session().unwrap();
    model.generate(prompt(1), &greedy(80)).unwrap();
    let (runtime, loaded) = (model.runtime(), model.loaded().unwrap());
    let reserve = loaded.engine().unwrap().cache.allocated_bytes();
    assert!(reserve > Tokenizer::encoding_bytes("dog"));
    let left = runtime.memory_budget().unwrap() - runtime.memory_used();
    let _all = runtime.budget().reserve(left, "what another model has").unwrap();
    loaded.reserve_encoding(&["dog"], &CancelHandle::default()).unwrap();
    assert_eq!(loaded.engine().unwrap().cache.allocated_bytes(), 0);
}

/// Idle sessions give up their pages; when they continue, their tokens are computed again, once.
#[test]
fn idle_sessions_make_room_once() {
    let options = ModelOptions::default().prefill_chunk(64_u32);
    for source in sources() {
        let roomy = load(&source, &options, None);
        let model = tight(&source, &options, 200, 0);
        let talk = |model: &Model| {
            let mut sessions: Vec<Session> = (0..4).map(|_| model.session().unwrap()).collect();
            let mut found = Vec::new();
            for (i, session) in sessions.iter_mut().enumerate() {
                session.append(prompt(i), AddSpecialTokens::No).unwrap();
                found.push(session.generate(&greedy(5)).unwrap().token_ids);
            }
            let batch = model.generate_batch((4..10).map(|i| prompt(i).into()).collect(), &greedy(90));
            found.extend(batch.into_iter().map(|completion| completion.unwrap().token_ids));
            let streams: Vec<_> =
                sessions.iter_mut().map(|session| session.stream(&greedy(9)).unwrap()).collect();
            found.extend(streams.into_iter().map(|stream| stream.finish().unwrap().token_ids));
            found
        };
        assert_eq!(talk(&model), talk(&roomy));
        let lost: usize = (0..4).map(|i| prompt(i).len() + 4).sum();
        let (rows, free) = (counts(&model).1, counts(&roomy).1);
        assert!(rows <= free + lost as u64, "{rows}, with more memory {free}, of {source:?}");
    }
}

/// Sessions whose pages were taken can be truncated, continue with the same tokens, and may be dropped in any order.
#[test]
fn sessions_that_lost_their_pages_continue() {
    let options = ModelOptions::default().prefill_chunk(64_u32);
    for source in sources() {
        let roomy = load(&source, &options, None);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let talk = |model: &Model| {
                let mut found = Vec::new();
                let mut sessions: Vec<Option<Session>> = Vec::new();
                for i in 0..3 {
                    let mut session = model.session().unwrap();
                    session.append(prompt(i), AddSpecialTokens::No).unwrap();
                    found.push(session.generate(&greedy(5)).unwrap().token_ids);
                    sessions.push(Some(session));
                }
                found.push(model.generate(vec![7; 150], &greedy(40)).unwrap().token_ids);
                for (i, session) in sessions.iter_mut().flatten().enumerate() {
                    session.truncate(prompt(i).len() - i).unwrap();
                    found.push(session.generate(&greedy(6)).unwrap().token_ids);
                }
                for gone in order {
                    sessions[gone] = None;
                    let left = sessions.iter_mut().flatten();
                    found.extend(left.map(|session| session.generate(&greedy(3)).unwrap().token_ids));
                }
                found
            };
            let model = tight(&source, &options, 190, 0);
            let fixed = model.runtime().memory_used();
            assert_eq!(talk(&model), talk(&roomy), "{source:?}");
            assert_eq!(model.loaded().unwrap().engine().unwrap().cache.usage(), (0, 0));
            assert_eq!(model.runtime().memory_used(), fixed);
        }
    }
}

#[test]
fn texts_to_embed_are_computed_once_in_any_memory() {
    let dir = support::family("qwen3");
    let options = ModelOptions::default().prefill_chunk(64_u32);
    let texts = || -> Vec<Prompt> { (0..60).map(|i| prompt(i).into()).collect() };
    let pooled = EmbedOptions::default().pooling(Pooling::Mean);
    let source = Source::Path(dir);
    let expected = load(&source, &options, None).embed(texts(), &pooled).unwrap();
    let vectors = 8 * expected.values.len() as u64;
    for more in [0, 1 << 18] {
        let model = tight(&source, &options, 80, vectors + more);
        assert!(model.embed(texts(), &pooled).unwrap().values == expected.values);
        assert_eq!(counts(&model).1, expected.tokens as u64);
    }
}

/// Scheduling costs no extra pass where there is room: each pass is as full as it can be.
#[test]
fn passes_are_full_where_there_is_room() {
    let model = load(&Source::Builtin, &ModelOptions::default(), None);
    let batch = |count: usize| (0..count).map(|_| Prompt::Tokens(vec![7; 8])).collect();
    let results = model.generate_batch(batch(64), &greedy(21));
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(counts(&model), (21, 64 * 28), "a pass for all prompts, then one for each token");
    // More than a pass holds: they take turns.
    let results = model.generate_batch(batch(96), &greedy(21));
    assert!(results.iter().all(Result::is_ok));
    let (passes, rows) = counts(&model);
    assert_eq!(rows, (64 + 96) * 28);
    assert!(passes <= 21 + 21 * 96_u64.div_ceil(64), "{passes}");
}

#[test]
fn a_short_request_does_not_wait_for_those_that_fill_the_passes() {
    let model = load(&Source::Builtin, &ModelOptions::default().max_batch(8_u32), None);
    let long: Vec<_> = (0..8).map(|_| model.stream(vec![7; 8], &greedy(250)).unwrap()).collect();
    let loaded = model.loaded().unwrap();
    for _ in 0..40 {
        assert!(loaded.engine().unwrap().step(&*loaded).unwrap());
    }
    let before = counts(&model).0;
    let short = model.generate(vec![9; 8], &greedy(10)).unwrap();
    assert_eq!(short.token_ids.len(), 10);
    // At most one turn, and its own passes.
    let took = counts(&model).0 - before;
    assert!(took <= u64::from(entry::TURN) + 10, "{took} passes");
    for stream in long {
        assert_eq!(stream.finish().unwrap().token_ids.len(), 250);
    }
}

#[test]
fn interrupted_requests_leave_nothing() {
    for source in sources() {
        let options = ModelOptions::default().prefill_chunk(16_u32);
        let model = load(&source, &options, None);
        let fixed = model.runtime().memory_used();
        let loaded = model.loaded().unwrap();
        let usage = || {
            let engine = loaded.engine().unwrap();
            (engine.cache.usage(), engine.requests.used(), engine.sequences.len())
        };
        // Dropped while its prompt is computed, next to one that continues.
        let mut kept = model.stream(prompt(1), &greedy(5)).unwrap();
        let mut dropped = model.stream(prompt(3), &greedy(5)).unwrap();
        dropped.next_event().unwrap();
        drop(dropped);
        kept.next_event().unwrap();
        // Cancelled, with an abandoned pass.
        let cancelled = model.stream(prompt(3), &greedy(5)).unwrap();
        cancelled.cancel_handle().cancel();
        kept.finish().unwrap();
        cancelled.finish().unwrap();
        assert_eq!(usage(), ((0, 0), 0, 0), "{source:?}");
        // A session truncated after its pages were taken, and one of a closed model.
        let mut session = model.session().unwrap();
        session.append(prompt(3), AddSpecialTokens::No).unwrap();
        let expected = session.generate(&greedy(3)).unwrap().token_ids;
        let id = *loaded.engine().unwrap().sequences.keys().next().unwrap();
        loaded.engine().unwrap().evict(id);
        session.truncate(prompt(3).len()).unwrap();
        assert_eq!(session.generate(&greedy(3)).unwrap().token_ids, expected);
        model.close();
        let engine = loaded.engine().unwrap();
        assert_eq!(engine.cache.usage(), (0, 0));
        drop(engine);
        drop(session);
        assert_eq!(usage(), ((0, 0), 0, 0));
        assert_eq!(model.runtime().memory_used(), fixed, "what is loaded is still referred to");
    }
}

#[test]
fn memory_of_requests_is_counted() {
    let model = tight(&Source::Builtin, &ModelOptions::default(), 640, 1 << 16);
    let loaded = model.loaded().unwrap();
    let used = || loaded.engine().unwrap().requests.used();
    let mut session = model.session().unwrap();
    let before = used();
    session.append(vec![5; 500], AddSpecialTokens::No).unwrap();
    assert!(used() >= before + 2000);
    session.truncate(1).unwrap();
    assert!(used() < before + 100);
    // Queued events with log-probabilities.
    let mut stream = session.stream(&greedy(200).logprobs(64_u32)).unwrap();
    for _ in 0..100 {
        loaded.engine().unwrap().step(&*loaded).unwrap();
    }
    assert!(used() > before + 2 * 100 * 64 * 8);
    stream.next_event().unwrap();
    drop(stream);
    drop(session);
    assert_eq!(used(), 0);
    // Sessions without end are refused, and give everything back.
    let mut sessions = Vec::new();
    let error = loop {
        match model.session() {
            Ok(session) => sessions.push(session),
            Err(error) => break error,
        }
        assert!(sessions.len() < 100_000);
    };
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    drop(sessions);
    assert_eq!(used(), 0);
    assert_eq!(model.generate(vec![5; 600], &greedy(20)).unwrap().token_ids.len(), 20);
}
