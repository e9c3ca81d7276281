//! Events that no caller can trigger at a chosen moment.

use super::share::{Share, StatePositions};
use super::*;
use crate::api::loaded::Loaded;
use crate::api::tests::support;
use crate::forward::pooling::Pooler;
use crate::load::source::Source;
use crate::options::{ModelOptions, Pooling, Resolved, RuntimeOptions};
use crate::runtime::Runtime;

const CHUNK: u32 = 16;

/// What `job` has gathered from `tokens`, if the pass after the first `steps` is abandoned.
fn gathered(loaded: &Loaded, tokens: &[u32], job: Job, steps: usize) -> Vec<f32> {
    let mut engine = loaded.engine().unwrap();
    let id = engine.open().unwrap();
    engine.idle(id).unwrap().tokens = tokens.to_vec();
    let ticket = engine.start(id, job).unwrap();
    let mut done = 0;
    while !engine.job(id, &ticket).unwrap().is_finished() {
        if done == steps {
            // As if another sequence of the pass was cancelled.
            let start = engine.sequences[&id].computed;
            let states = StatePositions { first: 0, count: 0 };
            let rows = CHUNK as usize;
            engine.abandon(&[Share { id, start, rows, drafts: 0, room: 0, logits: 0, states }]);
        }
        engine.step(loaded).unwrap();
        done += 1;
        assert!(done < 100);
    }
    let job = engine.stop(id, &ticket).unwrap();
    engine.close(id);
    match job.scores {
        Some(Scores::Logits(logits)) => logits,
        Some(Scores::Next(next)) => next.found.iter().map(|score| score.logprob).collect(),
        None => job.pooler.map_or_else(Vec::new, Pooler::finish),
    }
}

/// Recurrent states cannot be taken back, so some positions are computed again.
#[test]
fn an_abandoned_pass_gathers_nothing_twice() {
    let tokens: Vec<u32> = (3..103).collect();
    for family in ["granite4", "qwen3_5", "llama"] {
        let dir = support::family(family);
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
        let options = ModelOptions::default().prefill_chunk(CHUNK);
        let model = runtime.load(&Source::Path(dir), &options).unwrap();
        let loaded = model.loaded().unwrap();
        for job in [
            || Job::pool(100, Pooler::new(Pooling::Mean, 0)),
            || Job::pool(100, Pooler::new(Pooling::WeightedMean, 3)),
            || Job::score(100, Scores::Logits(Vec::new())),
            || {
                let targets = (44..104).collect();
                Job::score(100, Scores::Next(NextTokens { first: 40, targets, found: Vec::new() }))
            },
        ] {
            let expected = gathered(&loaded, &tokens, job(), usize::MAX);
            assert!(!expected.is_empty());
            for steps in 0..7 {
                assert!(gathered(&loaded, &tokens, job(), steps) == expected, "{family} after {steps}");
            }
        }
    }
}

/// What is generated if the sequence loses its pages after `steps` passes.
fn generated(loaded: &Loaded, options: &Resolved, steps: usize) -> Vec<u32> {
    let mut engine = loaded.engine().unwrap();
    let id = engine.open().unwrap();
    engine.idle(id).unwrap().tokens = (3..40).collect();
    let ticket = engine.start(id, Job::generate(options.clone(), 37, None)).unwrap();
    let mut done = 0;
    while !engine.job(id, &ticket).unwrap().is_finished() {
        if done == steps {
            engine.evict_running(id);
        }
        engine.step(loaded).unwrap();
        done += 1;
        assert!(done < 100);
    }
    let tokens = engine.tokens(id).unwrap()[37..].to_vec();
    engine.close(id);
    tokens
}

#[test]
fn what_sampling_keeps_outlasts_a_preemption() {
    let model = crate::api::model::Model::builtin().unwrap();
    let loaded = model.loaded().unwrap();
    let mirostat = Resolved {
        temperature: 1.2,
        mirostat_tau: Some(3.0),
        mirostat_eta: 0.9,
        max_tokens: 24,
        seed: 5,
        ..Resolved::greedy()
    };
    let expected = generated(&loaded, &mirostat, usize::MAX);
    assert_eq!(expected.len(), 24);
    // It has kept something.
    let fixed = Resolved { mirostat_eta: 1e-9, ..mirostat.clone() };
    assert_ne!(generated(&loaded, &fixed, usize::MAX), expected);
    for steps in [1, 2, 7, 20] {
        assert_eq!(generated(&loaded, &mirostat, steps), expected, "{steps}");
    }
}
