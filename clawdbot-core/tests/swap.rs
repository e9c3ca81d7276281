//! Conversations in swap space: many of them in memory for a few, with the bits that each has alone.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "support/requests.rs"]
mod requests;
mod support;

use std::time::Instant;

use clawdbot_core::{
    AddSpecialTokens, ErrorKind, KvType, Model, ModelMetrics, ModelOptions, Runtime, RuntimeOptions, Session,
    Source, Stream,
};
use requests::{bits, greedy, prompt};

fn load(source: &Source, runtime: RuntimeOptions, options: &ModelOptions) -> Model {
    Runtime::new(&runtime.threads(2_u32)).unwrap().load(source, options).unwrap()
}

fn metrics(model: &Model) -> ModelMetrics {
    model.runtime().metrics().models.remove(0)
}

struct Size {
    sessions: u32,
    /// How many of them fit into memory.
    fit: u64,
    tokens: usize,
    /// Tokens of a turn's prompt and of its answer.
    turn: (usize, u32),
}

/// Turns of all conversations at the same time, in `rounds` rounds.
fn converse(model: &Model, size: &Size, rounds: usize) -> Vec<Vec<(Vec<u32>, Vec<u32>)>> {
    let mut sessions: Vec<Session> = (0..size.sessions).map(|_| model.session().unwrap()).collect();
    let mut rows = Vec::new();
    for round in 0..rounds {
        let mut streams: Vec<Stream> = Vec::new();
        for (salt, session) in (0..).zip(&mut sessions) {
            let length = if round == 0 { size.tokens } else { size.turn.0 };
            session.append(prompt(length, salt + 1000 * round as u32), AddSpecialTokens::No).unwrap();
            streams.push(session.stream(&greedy(size.turn.1)).unwrap());
        }
        rows.push(streams.into_iter().map(|stream| bits(&stream.finish().unwrap())).collect());
    }
    rows
}

/// Conversations that do not fit together: with swap space, and alone.
fn many_in_memory_for_few(source: &Source, options: &ModelOptions, size: &Size) {
    let alone = load(source, RuntimeOptions::default(), options);
    let fixed = alone.runtime().memory_used();
    let plan = &alone.info().plan;
    let one = (size.tokens + 3 * (size.turn.0 + size.turn.1 as usize)).next_multiple_of(64) as u64 + 64;
    let budget = fixed + size.fit * one * plan.kv_bytes_per_token + (64 << 10);
    let swap_space = u64::from(size.sessions) * (one * plan.kv_bytes_per_token + (1 << 20));
    let rounds = 3;
    let limits = RuntimeOptions::default().memory_budget(budget);
    let timed = |model: &Model| {
        let started = Instant::now();
        (converse(model, size, rounds), started.elapsed().as_secs_f64())
    };
    let swapping = load(source, limits.clone().swap_space(swap_space), options);
    let (found, with) = timed(&swapping);
    let of_swapping = metrics(&swapping);
    assert!(swapping.runtime().memory_used() <= budget);
    // Each conversation by itself.
    for salt in 0..size.sessions {
        let mut session = alone.session().unwrap();
        for (round, found) in found.iter().enumerate() {
            let length = if round == 0 { size.tokens } else { size.turn.0 };
            session.append(prompt(length, salt + 1000 * round as u32), AddSpecialTokens::No).unwrap();
            let expected = bits(&session.generate(&greedy(size.turn.1)).unwrap());
            assert!(found[salt as usize] == expected, "conversation {salt}, turn {round}");
        }
    }
    let computing = load(source, limits, options);
    let (again, without) = timed(&computing);
    assert!(again == found);
    let of_computing = metrics(&computing);
    assert!(of_swapping.swap_ins > 0 && of_swapping.swap_failures == 0, "{of_swapping:?}");
    assert_eq!((of_computing.swap_ins, of_computing.swap_outs, of_computing.swapped_bytes), (0, 0, 0));
    assert!(of_swapping.computed_tokens < of_computing.computed_tokens);
    println!(
        "{} conversations of {} tokens in memory for {}: {with:.1} s with swap space ({} times out, {} in, {} tokens computed), \
         {without:.1} s without ({} tokens computed)",
        size.sessions,
        size.tokens,
        size.fit,
        of_swapping.swap_outs,
        of_swapping.swap_ins,
        of_swapping.computed_tokens,
        of_computing.computed_tokens
    );
}

#[test]
fn many_conversations_in_memory_for_few() {
    let size = Size { sessions: 24, fit: 3, tokens: 300, turn: (30, 5) };
    many_in_memory_for_few(&Source::Builtin, &ModelOptions::default(), &size);
    let size = Size { sessions: 12, fit: 3, tokens: 150, turn: (30, 5) };
    for family in ["gemma4", "lfm2", "granite4"] {
        let source = Source::Path(support::family(family));
        many_in_memory_for_few(&source, &ModelOptions::default().kv(KvType::Int8), &size);
    }
}

/// The size that is asked for: minutes to hours. `CLAWDBOT_SWAP_SHAPE` names another shape with random weights.
#[test]
#[ignore = "minutes to hours"]
fn sixty_four_conversations_of_4000_tokens_in_memory_for_eight() {
    let size = Size { sessions: 64, fit: 8, tokens: 4000, turn: (30, 8) };
    let copy = support::Copy::of(&support::family("llama"), "swap-llama");
    copy.edit("config.json", |config| config["max_position_embeddings"] = 8192.into());
    let source = match std::env::var("CLAWDBOT_SWAP_SHAPE") {
        Ok(shape) => Source::Shape(shape),
        Err(_) => Source::from(copy.path()),
    };
    let options = ModelOptions::default().max_context(8192_u32).max_batch(64_u32);
    many_in_memory_for_few(&source, &options, &size);
}

/// A request that goes on while another one's pages are read.
#[test]
fn a_conversation_is_saved_from_swap_space() {
    let free = load(&Source::Builtin, RuntimeOptions::default(), &ModelOptions::default());
    let fixed = free.runtime().memory_used();
    let budget = fixed + 640 * free.info().plan.kv_bytes_per_token + (64 << 10);
    let runtime = RuntimeOptions::default().memory_budget(budget).swap_space(64_u64 << 20);
    let model = load(&Source::Builtin, runtime, &ModelOptions::default());
    let mut sessions: Vec<Session> = (0..6).map(|_| model.session().unwrap()).collect();
    for (salt, session) in (0..).zip(&mut sessions) {
        session.append(prompt(200, salt), AddSpecialTokens::No).unwrap();
        session.generate(&greedy(5)).unwrap();
    }
    assert!(metrics(&model).swap_outs > 0);
    for session in &mut sessions {
        let mut bytes = Vec::new();
        session.save_to(&mut bytes).unwrap();
        let mut restored = free.restore_session_from(bytes.as_slice()).unwrap();
        let (expected, found) =
            (session.generate(&greedy(5)).unwrap(), restored.generate(&greedy(5)).unwrap());
        assert!(bits(&expected) == bits(&found));
    }
    model.close();
    assert_eq!(metrics(&model).swapped_bytes, 0);
    drop(sessions);
}

/// A conversation that takes all the memory that there is, so that there is none for a second copy of it, or for one page more.
fn one_that_fills_the_memory(source: &Source, cut: usize) {
    let free = load(source, RuntimeOptions::default(), &ModelOptions::default());
    let said = |model: &Model| {
        let mut session = model.session().unwrap();
        session.append(prompt(400, 1), AddSpecialTokens::No).unwrap();
        session.generate(&greedy(5)).unwrap();
        session
    };
    let saved = |session: &Session| {
        let mut bytes = Vec::new();
        session.save_to(&mut bytes).unwrap();
        bytes
    };
    let fixed = free.runtime().memory_used();
    let mut expected = said(&free);
    let needed = 448 * free.info().plan.kv_bytes_per_token;
    let budget = (fixed + needed).max(free.runtime().memory_used());
    let runtime = RuntimeOptions::default().memory_budget(budget).swap_space(64_u64 << 20);
    let model = load(source, runtime, &ModelOptions::default());
    let mut session = said(&model);
    assert_eq!(metrics(&model).swap_outs, 0);
    // From memory, which may have no room for a copy of a page: it goes to the swap space meanwhile.
    assert!(saved(&session) == saved(&expected));
    assert!(metrics(&model).swap_outs > 0 || model.runtime().memory_used() < budget);
    // From the swap space.
    let mut other = model.session().unwrap();
    other.append(prompt(380, 3), AddSpecialTokens::No).unwrap();
    other.generate(&greedy(5)).unwrap();
    assert!(metrics(&model).swap_outs > 0);
    for session in [&mut session, &mut expected] {
        session.truncate(cut).unwrap();
    }
    for _ in 0..2 {
        assert!(saved(&session) == saved(&expected), "{cut}");
    }
    let mut restored = free.restore_session_from(saved(&session).as_slice()).unwrap();
    for session in [&mut restored, &mut session, &mut expected] {
        session.append(prompt(3, 2), AddSpecialTokens::No).unwrap();
    }
    let expected = expected.generate(&greedy(5)).unwrap();
    for session in [&mut restored, &mut session] {
        let found = session.generate(&greedy(5)).unwrap();
        assert!(bits(&found) == bits(&expected));
        assert_eq!(found.usage.cached_tokens, cut.min(404));
    }
    assert_eq!(metrics(&model).swap_failures, 0);
}

#[test]
fn a_conversation_that_fills_the_memory_is_saved_with_all_that_is_cached() {
    for cut in [405, 404, 384, 300] {
        one_that_fills_the_memory(&Source::Builtin, cut);
    }
    for family in ["gemma4", "lfm2"] {
        one_that_fills_the_memory(&Source::Path(support::family(family)), 405);
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let nowhere = std::env::temp_dir().join("clawdbot-no-such-directory");
    let error =
        Runtime::new(&RuntimeOptions::default().swap_space(1_u64 << 20).swap_directory(nowhere.clone()));
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.detail()["option"].as_str()),
        (ErrorKind::NotFound, Some("swap_directory"))
    );
    let error = Runtime::new(&RuntimeOptions::default().swap_space(65_535_u64)).unwrap_err();
    assert_eq!(error.message(), "option swap_space: expected 0, or at least 65536 bytes, found 65535");
    let error = Runtime::new(&RuntimeOptions::default().swap_directory(nowhere)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.message().starts_with("option swap_directory: expected nothing without swap_space, found"),
        "{error}"
    );
}
