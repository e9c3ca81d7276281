//! Passes that fail: what users see, and what remains.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::api::model::Model;
use crate::api::session::Stream;
use crate::api::tests::support;
use crate::cache::Pages;
use crate::event::Event;
use crate::forward::trap::{Place, Trap};
use crate::load::source::Source;
use crate::options::{GenerateOptions, ModelOptions, RuntimeOptions};
use crate::runtime::Runtime;
use crate::tokenizer::AddSpecialTokens;

fn load(source: &Source, options: &ModelOptions, budget: Option<u64>) -> Model {
    let runtime = RuntimeOptions { memory_budget: budget, ..RuntimeOptions::default().threads(2) };
    Runtime::new(&runtime).unwrap().load(source, options).unwrap()
}

/// Full attention; sliding windows; two with recurrent states, with and without experts.
fn sources() -> Vec<Source> {
    let families = ["gemma4", "granite4", "qwen3_5"].into_iter().map(support::family);
    [Source::Builtin].into_iter().chain(families.map(Source::Path)).collect()
}

fn greedy(tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).max_tokens(tokens).ignore_eos(true)
}

fn prompt(i: usize) -> Vec<u32> {
    (0..30 + i).map(|j| 3 + ((i * 31 + j * 7) % 400) as u32).collect()
}

fn set(model: &Model, trap: Option<Arc<Trap>>) {
    model.loaded().unwrap().engine().unwrap().trap = trap;
}

/// An error or a panic in layer 1 of pass `at`, counted from 0 from now on, and only there.
fn once(at: usize, fault: fn() -> Result<()>) -> Arc<Trap> {
    let passes = AtomicUsize::new(0);
    Arc::new(move |place| match place {
        Place::Layer(1) if passes.fetch_add(1, Ordering::Relaxed) == at => fault(),
        _ => Ok(()),
    })
}

fn error() -> Result<()> {
    Err(Error::new(ErrorKind::NonFinite, "on purpose"))
}

fn panic() -> Result<()> {
    panic!("on purpose")
}

/// The error that ends a stream: nothing comes after it.
fn ended(stream: &mut Stream) -> Error {
    let error = loop {
        match stream.next_event() {
            Ok(event) => assert!(event.is_some(), "an end without an error"),
            Err(error) => break error,
        }
    };
    assert!(stream.next_event().unwrap().is_none());
    error
}

/// In the first chunk of the prompt, in the second, and in decode passes.
#[test]
fn a_fault_ends_only_the_requests_of_its_pass() {
    let faults = [(error as fn() -> Result<()>, ErrorKind::NonFinite), (panic, ErrorKind::Internal)];
    for source in sources() {
        let options = ModelOptions::default().prefill_chunk(16_u32).max_batch(2_u32);
        let model = load(&source, &options, None);
        let expected: Vec<Vec<u32>> =
            (0..4).map(|i| model.generate(prompt(i), &greedy(6)).unwrap().token_ids).collect();
        let fixed = model.runtime().memory_used();
        for ((fault, kind), at) in faults.into_iter().flat_map(|fault| [0, 1, 4, 6].map(|at| (fault, at))) {
            let name = format!("{kind:?} in pass {at} of {source:?}");
            let mut session = model.session().unwrap();
            session.append(prompt(0), AddSpecialTokens::No).unwrap();
            let mut streams = vec![session.stream(&greedy(6)).unwrap()];
            streams.extend((1..4).map(|i| model.stream(prompt(i), &greedy(6)).unwrap()));
            set(&model, Some(once(at, fault)));
            // Two fit in a pass: the others were not in it.
            let outcomes: Vec<Result<Vec<u32>>> =
                streams.into_iter().map(|stream| Ok(stream.finish()?.token_ids)).collect();
            let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(
                failed.clone().all(|error| error.kind() == kind && error.message().contains("on purpose"))
            );
            assert!((1..=2).contains(&failed.count()), "{name}: {outcomes:?}");
            for (outcome, expected) in outcomes.iter().zip(&expected) {
                assert!(outcome.as_ref().map_or(true, |found| found == expected), "{name}");
            }
            // The session keeps its earlier tokens and continues from them to the same bits.
            let so_far = session.tokens().unwrap();
            let whole = [prompt(0), expected[0].clone()].concat();
            assert!(so_far.len() >= 30 && whole.starts_with(&so_far), "{name}");
            let left = whole.len() - so_far.len();
            if left > 0 {
                let rest = session.generate(&greedy(left as u32)).unwrap().token_ids;
                assert_eq!([so_far, rest].concat(), whole, "{name}");
            }
            drop(session);
            let loaded = model.loaded().unwrap();
            assert_eq!(loaded.engine().unwrap().cache.usage(), (0, 0), "{name}");
            assert_eq!(model.runtime().memory_used(), fixed, "{name}");
        }
    }
}

/// What is gathered over several passes is complete, or an error.
#[test]
fn a_fault_while_scoring_fails_that_request() {
    for source in sources() {
        let model = load(&source, &ModelOptions::default().prefill_chunk(16_u32), None);
        let expected = model.logits(&prompt(20)).unwrap();
        for fault in [error as fn() -> Result<()>, panic] {
            for at in 0..3 {
                set(&model, Some(once(at, fault)));
                assert!(model.logits(&prompt(20)).is_err());
                set(&model, None);
                assert!(model.logits(&prompt(20)).unwrap() == expected, "{source:?} after {at}");
            }
        }
    }
}

/// Another user of the runtime takes the rest of the budget between passes.
#[test]
fn a_shrinking_budget_fails_the_requests_that_do_not_fit() {
    for source in sources() {
        let options = ModelOptions::default().prefill_chunk(64_u32);
        let free = load(&source, &options, None);
        let fixed = free.runtime().memory_used();
        let expected: Vec<Vec<u32>> =
            (0..2).map(|i| free.generate(prompt(i), &greedy(120)).unwrap().token_ids).collect();
        let bytes = free.loaded().unwrap().engine().unwrap().cache.bytes(200, 64);
        let model = load(&source, &options, Some(fixed + 4 * bytes));
        let mut session = model.session().unwrap();
        session.append(prompt(0), AddSpecialTokens::No).unwrap();
        let mut first = session.stream(&greedy(120)).unwrap();
        let mut second = model.stream(prompt(1), &greedy(120)).unwrap();
        for stream in [&mut first, &mut second] {
            while !matches!(stream.next_event().unwrap(), Some(Event::Token { .. })) {}
        }
        let budget = model.runtime().budget();
        let taken = budget.reserve(budget.left(), "somebody else").unwrap();
        // Neither can finish, together or alone: the error is typed, and goes to those that need more.
        let outcomes = [first.finish(), second.finish()];
        for (outcome, expected) in outcomes.into_iter().zip(&expected) {
            match outcome {
                Ok(completion) => assert_eq!(completion.token_ids, *expected, "{source:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfBudget, "{error}"),
            }
        }
        let so_far = session.tokens().unwrap();
        let whole = [prompt(0), expected[0].clone()].concat();
        assert!(so_far.len() > 30 && whole.starts_with(&so_far));
        drop(taken);
        if so_far.len() < whole.len() {
            let rest = session.generate(&greedy((whole.len() - so_far.len()) as u32)).unwrap().token_ids;
            assert_eq!([so_far, rest].concat(), whole, "{source:?}");
        }
        drop(session);
        assert_eq!(model.runtime().memory_used(), fixed);
    }
}

/// A panic in a task: the requests of the pass get a typed error; others, later ones and sessions continue.
#[test]
fn a_panic_ends_only_the_requests_of_its_pass() {
    let model = load(&Source::Builtin, &ModelOptions::default(), None);
    let runtime = model.runtime().clone();
    let options = GenerateOptions::default().temperature(0.0).max_tokens(12).ignore_eos(true);
    let expected = model.generate("The fox", &options).unwrap().token_ids;

    let mut session = model.session().unwrap();
    session.append("The fox", AddSpecialTokens::Yes).unwrap();
    let mut streams = [session.stream(&options).unwrap(), model.stream("The dog", &options).unwrap()];
    let mut finished = model.stream("Once", &options.clone().max_tokens(1)).unwrap();
    for stream in &mut streams {
        stream.next_event().unwrap().unwrap();
    }
    let tokens = session.tokens().unwrap().len();
    set(
        &model,
        Some(Arc::new(|place| {
            assert!(place != Place::Task(5), "on purpose");
            Ok(())
        })),
    );
    for stream in &mut streams {
        let error = ended(stream);
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("a forward pass panicked: on purpose"), "{error}");
    }
    assert_eq!(model.logits(&[5, 6]).unwrap_err().kind(), ErrorKind::Internal);
    // One that had ended before is not touched.
    assert!(matches!(finished.next_event().unwrap(), Some(Event::Token { .. })));
    assert!(matches!(finished.next_event().unwrap(), Some(Event::Done(_))));
    set(&model, None);
    assert_eq!(model.generate("The fox", &options).unwrap().token_ids, expected);
    assert!(session.tokens().unwrap().len() >= tokens);
    // The session continues where it was.
    let so_far = session.tokens().unwrap();
    let rest = session.generate(&options.clone().max_tokens(8)).unwrap().token_ids;
    assert_eq!(rest, model.generate(so_far, &options.max_tokens(8)).unwrap().token_ids);
    drop((session, streams));
    model.close();
    drop(finished);
    assert_eq!(runtime.memory_used(), 0);
}
