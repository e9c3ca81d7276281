//! What the engine does where no caller can make it happen at a certain moment.

use super::*;
use crate::event::Event;
use crate::model::pooling::Pooler;
use crate::model::{Source, tests::support};
use crate::options::{GenerateOptions, ModelOptions, Pooling, RuntimeOptions};
use crate::runtime::Runtime;

const CHUNK: u32 = 16;

/// What `job` has gathered of `tokens`, where the pass after the first `steps` is abandoned.
fn gathered(loaded: &Loaded, tokens: &[u32], job: Job, steps: usize) -> Vec<f32> {
    let mut engine = loaded.engine().unwrap();
    let id = engine.open().unwrap();
    engine.idle(id).unwrap().tokens = tokens.to_vec();
    let ticket = engine.start(id, job).unwrap();
    let mut done = 0;
    while !engine.job(id, &ticket).unwrap().is_finished() {
        if done == steps {
            // As when another sequence of the pass was cancelled.
            let start = engine.sequences[&id].computed;
            engine.abandon(&[Share { id, start, rows: CHUNK as usize, logits: 0, states: (0, 0) }]);
        }
        engine.step(loaded).unwrap();
        done += 1;
        assert!(done < 100);
    }
    let job = engine.stop(id, &ticket).unwrap();
    engine.close(id);
    job.scores.unwrap_or_else(|| job.pooler.map_or_else(Vec::new, Pooler::finish))
}

/// States of recurrent layers cannot be taken back, so that some positions are computed again.
#[test]
fn what_an_abandoned_pass_had_gathered_counts_once() {
    let tokens: Vec<u32> = (3..103).collect();
    for family in ["granite4", "qwen3_5", "llama"] {
        let Some(dir) = support::family(family) else { continue };
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
        let options = ModelOptions::default().prefill_chunk(CHUNK);
        let model = runtime.load(&Source::Path(dir), &options).unwrap();
        let loaded = model.loaded().unwrap();
        for job in [
            || Job::pool(100, Pooler::new(Pooling::Mean, 0)),
            || Job::pool(100, Pooler::new(Pooling::WeightedMean, 3)),
            || Job::score(100, Vec::new()),
        ] {
            let expected = gathered(&loaded, &tokens, job(), usize::MAX);
            assert!(!expected.is_empty());
            for steps in 0..7 {
                assert!(gathered(&loaded, &tokens, job(), steps) == expected, "{family} after {steps}");
            }
        }
    }
}

/// The requests of the pass get a typed error; the others, later ones and the sessions go on, to the same tokens.
#[test]
fn a_panic_in_a_pass_ends_its_requests_and_nothing_else() {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
    let options = GenerateOptions::default().temperature(0.0).max_tokens(12).ignore_eos(true);
    let expected = model.generate("The fox", &options).unwrap().token_ids;
    let set = |trap: Option<fn(usize)>| model.loaded().unwrap().engine().unwrap().trap = trap;

    let mut session = model.session().unwrap();
    session.append("The fox", true).unwrap();
    let mut streams = [session.stream(&options).unwrap(), model.stream("The dog", &options).unwrap()];
    let mut finished = model.stream("Once", &options.clone().max_tokens(1)).unwrap();
    for stream in &mut streams {
        stream.next_event().unwrap().unwrap();
    }
    let tokens = session.tokens().unwrap().len();
    set(Some(|task| assert!(task != 5, "on purpose")));
    for stream in &mut streams {
        let error = loop {
            match stream.next_event() {
                Ok(event) => assert!(event.is_some(), "an end without an error"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("a forward pass panicked: on purpose"), "{error}");
        assert!(stream.next_event().unwrap().is_none());
    }
    assert_eq!(model.logits(&[5, 6]).unwrap_err().kind(), ErrorKind::Internal);
    // One that had ended before is not touched.
    assert!(matches!(finished.next_event().unwrap(), Some(Event::Token { .. })));
    assert!(matches!(finished.next_event().unwrap(), Some(Event::Done(_))));
    set(None);
    assert_eq!(model.generate("The fox", &options).unwrap().token_ids, expected);
    assert!(session.tokens().unwrap().len() >= tokens);
    // The session goes on where it was.
    let so_far = session.tokens().unwrap();
    let rest = session.generate(&options.clone().max_tokens(8)).unwrap().token_ids;
    assert_eq!(rest, model.generate(so_far, &options.max_tokens(8)).unwrap().token_ids);
    drop((session, streams));
    model.close();
    drop(finished);
    assert_eq!(runtime.memory_used(), 0);
}
