//! Two busy models of one runtime, in a budget that does not hold what both want: each request has the bits that it has alone, or an
//! error that says how many bytes it needs, and none waits for ever.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "support/requests.rs"]
mod requests;
mod support;

use std::sync::mpsc::channel;
use std::time::Duration;

use clawdbot_core::{
    AddSpecialTokens, Completion, Driver, Error, ErrorKind, Model, ModelOptions, Runtime, RuntimeOptions,
    Source,
};
use requests::{bits, greedy, prompt};

/// Longer than this takes on any machine.
const HANGS: Duration = Duration::from_secs(300);
/// Conversations with each model at the same time.
const SESSIONS: u32 = 4;
const TURNS: u32 = 3;
/// Tokens of a conversation, at most.
const TOKENS: u64 = 384;

fn sources() -> [Source; 2] {
    [Source::Builtin, Source::Path(support::family("gemma3"))]
}

/// The turns of a conversation. One that fails keeps its prompt, and the next one adds to it.
fn converse(model: &Model, salt: u32) -> Vec<(Vec<u32>, Result<Completion, Error>)> {
    let mut session = model.session().unwrap();
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        let length = session.tokens().unwrap().len();
        session.append(prompt(60 + 7 * salt as usize, salt + 10 * turn), AddSpecialTokens::No).unwrap();
        let tokens = session.tokens().unwrap();
        let done = session.generate(&greedy(20 + 5 * salt));
        if done.is_err() {
            session.truncate(length).unwrap();
        }
        turns.push((tokens, done));
    }
    turns
}

/// How many requests had their bits, and how many an error.
fn busy(driver: Driver, swap_space: u64, room: impl Fn(u64, u64) -> u64) -> (usize, usize) {
    let free = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
    let load = |runtime: &Runtime| {
        sources().map(|source| runtime.load(&source, &ModelOptions::default().max_batch(4_u32)).unwrap())
    };
    let alone = load(&free);
    let [first, second] =
        [0, 1].map(|index: usize| TOKENS * alone[index].info().plan.kv_bytes_per_token + (64 << 10));
    let budget = free.memory_used() + room(first, second);
    let options = RuntimeOptions::default().threads(2_u32).driver(driver).swap_space(swap_space);
    let runtime = Runtime::new(&options.memory_budget(budget)).unwrap();
    let models = load(&runtime);
    let (sender, results) = channel();
    let work = std::thread::spawn(move || {
        let all = std::thread::scope(|scope| {
            let begin = |(index, salt): (usize, u32)| {
                let model = &models[index];
                (index, scope.spawn(move || converse(model, salt)))
            };
            let all: Vec<_> = (0..SESSIONS).flat_map(|salt| [(0, salt), (1, salt)]).map(begin).collect();
            all.into_iter().map(|(index, one)| (index, one.join().unwrap())).collect::<Vec<_>>()
        });
        sender.send(all).unwrap();
    });
    let all = results.recv_timeout(HANGS).expect("no end, or a panic");
    work.join().unwrap();
    assert!(runtime.memory_used() <= budget);
    let (mut right, mut refused) = (0, 0);
    for (index, turns) in all {
        for (tokens, done) in turns {
            match done {
                Ok(done) => {
                    let options = greedy(done.token_ids.len() as u32);
                    let expected = alone[index].generate(tokens, &options).unwrap();
                    assert!(bits(&done) == bits(&expected), "{driver} {swap_space} model {index}");
                    right += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfBudget, "{error}");
                    assert!(error.message().contains("bytes"), "{error}");
                    assert!(error.detail()["needed"].as_u64().is_some_and(|needed| needed > 0), "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{driver}, {swap_space} bytes of swap space: {right} requests right, {refused} refused");
    (right, refused)
}

#[test]
fn two_busy_models_in_a_tight_budget() {
    for driver in [Driver::Caller, Driver::Thread] {
        for swap_space in [0, 64 << 20] {
            // For one conversation of the larger ones, for one of each, and for more than one of each.
            let rooms: [fn(u64, u64) -> u64; 3] = [|a, b| a.max(b), |a, b| a + b, |a, b| 2 * (a + b)];
            for room in rooms {
                let (right, refused) = busy(driver, swap_space, room);
                assert_eq!(right + refused, (2 * SESSIONS * TURNS) as usize);
                assert!(right > 0);
            }
        }
    }
}

/// What one model keeps for nobody (the prefix cache, an idle session) is room for the other one, whose request fits alone.
#[test]
fn what_is_idle_in_one_model_is_room_for_the_other() {
    const LENGTH: usize = TOKENS as usize - 40;
    for (driver, session) in
        [Driver::Caller, Driver::Thread].into_iter().flat_map(|driver| [(driver, false), (driver, true)])
    {
        let free = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
        let options = ModelOptions::default().max_batch(4_u32).prefix_cache(true);
        let load = |runtime: &Runtime| sources().map(|source| runtime.load(&source, &options).unwrap());
        let alone = load(&free);
        let bytes = [0, 1].map(|index: usize| TOKENS * alone[index].info().plan.kv_bytes_per_token);
        let budget = free.memory_used() + bytes[0].max(bytes[1]) + (32 << 10);
        let of_runtime = RuntimeOptions::default().threads(2_u32).driver(driver).memory_budget(budget);
        let runtime = Runtime::new(&of_runtime).unwrap();
        let models = load(&runtime);
        let mut sessions = Vec::new();
        for (round, index) in [0, 1, 0, 1].into_iter().enumerate() {
            let tokens = prompt(LENGTH, round as u32);
            let expected = alone[index].generate(tokens.clone(), &greedy(20)).unwrap();
            let mut kept = models[index].session().unwrap();
            let done = match session {
                true => kept.append(tokens, AddSpecialTokens::No).and_then(|_| kept.generate(&greedy(20))),
                false => models[index].generate(tokens, &greedy(20)),
            };
            assert!(bits(&done.unwrap()) == bits(&expected), "{driver} {session} model {index}");
            // It is idle while the other model works.
            sessions.push(kept);
        }
        assert!(runtime.memory_used() <= budget);
    }
}
