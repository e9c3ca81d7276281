//! Events that no caller can trigger at a chosen moment.

use super::share::{Share, StatePositions};
use super::*;
use crate::api::loaded::Loaded;
use crate::api::tests::support;
use crate::forward::pooling::Pooler;
use crate::load::source::Source;
use crate::options::{ModelOptions, Pooling, RuntimeOptions};
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
    job.scores.unwrap_or_else(|| job.pooler.map_or_else(Vec::new, Pooler::finish))
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
