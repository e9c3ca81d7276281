//! The engine over a model without weights: what it computes, for which sequences, and within which bounds.

use std::sync::Mutex;

use clawdbot_kernels::threads::ThreadPool;
use proptest::prelude::*;

use super::*;
use crate::cache::LayerState;
use crate::event::Event;
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::options::{KvType, Resolved};
use crate::runtime::Budget;
use crate::sampling::Drawable;

const VOCAB: usize = 50;
/// The logits after this token are not finite.
const BROKEN: u32 = 49;
/// A pass with this token fails.
const REFUSED: u32 = 48;

/// The token after `token` at `position`, never one of the two above.
fn following(token: u32, position: usize) -> u32 {
    (token * 7 + position as u32 * 3 + 1) % 48
}

struct Fake {
    limits: Limits,
    pool: ThreadPool,
    drawable: Drawable,
    /// Rows and sequences of each pass.
    passes: Mutex<Vec<(usize, usize)>>,
}

impl Fake {
    fn new(rows: usize, sequences: usize) -> Self {
        Fake {
            limits: Limits { rows, sequences, whole: false },
            pool: ThreadPool::new(1),
            drawable: Drawable::all(VOCAB),
            passes: Mutex::default(),
        }
    }
}

impl Served for Fake {
    fn limits(&self) -> Limits {
        self.limits
    }
    fn max_context(&self) -> usize {
        1000
    }
    fn vocab_size(&self) -> usize {
        VOCAB
    }
    fn hidden_size(&self) -> usize {
        1
    }
    fn longrope_from(&self) -> Option<usize> {
        None
    }
    fn drawable(&self) -> &Drawable {
        &self.drawable
    }
    fn pool(&self) -> &ThreadPool {
        &self.pool
    }
    fn forward(&self, resources: Resources<'_>, batch: &Batch<'_>) -> Result<Pass> {
        self.passes.lock().unwrap().push((batch.rows(), batch.sequences.len()));
        if batch.tokens.contains(&REFUSED) {
            return Err(Error::new(ErrorKind::OutOfBudget, "refused"));
        }
        let logits = &mut resources.scratch.logits;
        logits.reserve(batch.logits_rows.len() * VOCAB)?;
        for (&row, logits) in batch.logits_rows.iter().zip(logits.chunks_exact_mut(VOCAB)) {
            let token = batch.tokens[row];
            logits.fill(if token == BROKEN { f32::NAN } else { 0.0 });
            logits[following(token, batch.positions[row]) as usize] += 1.0;
        }
        Ok(Pass::Done)
    }
}

fn engine() -> Engine {
    let budget = Budget::new(None);
    let state = LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 };
    Engine::new(KvCache::new(KvType::F32, &[state], &budget).unwrap(), 0, &budget)
}

fn begin(engine: &mut Engine, prompt: &[u32], max_tokens: u32) -> (SequenceId, Ticket) {
    let id = engine.open().unwrap();
    engine.append(id, prompt).unwrap();
    let options = Resolved { max_tokens, ..Resolved::greedy() };
    (id, engine.start(id, Job::generate(options, prompt.len(), None)).unwrap())
}

/// Runs steps until all jobs have ended.
fn run(engine: &mut Engine, fake: &Fake, jobs: &[(SequenceId, Ticket)]) {
    for _ in 0..10_000 {
        if jobs.iter().all(|(id, ticket)| engine.job(*id, ticket).unwrap().is_finished()) {
            return;
        }
        assert!(engine.step(fake).unwrap());
    }
    panic!("no end");
}

fn expected(prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..tokens {
        all.push(following(all[all.len() - 1], all.len() - 1));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// However sequences are batched, each gets what follows from its own tokens, passes keep to the bounds, and
    /// nothing is computed twice.
    #[test]
    fn each_sequence_is_computed_as_if_alone(
        requests in proptest::collection::vec((proptest::collection::vec(0_u32..48, 1..90), 1_u32..20), 1..12),
        rows in 1_usize..70,
        sequences in 1_usize..6,
    ) {
        let (mut engine, fake) = (engine(), Fake::new(rows, sequences));
        let jobs: Vec<_> = requests.iter().map(|(prompt, most)| begin(&mut engine, prompt, *most)).collect();
        run(&mut engine, &fake, &jobs);
        let mut all = 0;
        for ((id, _), (prompt, most)) in jobs.iter().zip(&requests) {
            prop_assert_eq!(engine.tokens(*id).unwrap(), expected(prompt, *most as usize));
            all += prompt.len() + *most as usize - 1;
        }
        let passes = fake.passes.into_inner().unwrap();
        prop_assert!(passes.iter().all(|&(passed, of)| passed <= rows.max(of) && of <= sequences), "{:?}", passes);
        prop_assert_eq!(passes.iter().map(|pass| pass.0).sum::<usize>(), all);
    }
}

fn error(engine: &mut Engine, (id, ticket): &(SequenceId, Ticket)) -> Option<Error> {
    let job = engine.job(*id, ticket).unwrap();
    std::iter::from_fn(|| job.mailbox.take()).find_map(Result::err)
}

#[test]
fn logits_that_are_not_finite_end_their_own_sequence() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    let jobs =
        [begin(&mut engine, &[1, 2], 5), begin(&mut engine, &[1, BROKEN], 5), begin(&mut engine, &[3], 5)];
    run(&mut engine, &fake, &jobs);
    let kinds = jobs.each_ref().map(|job| error(&mut engine, job).map(|error| error.kind()));
    assert_eq!(kinds, [None, Some(ErrorKind::NonFinite), None]);
    assert_eq!(engine.tokens(jobs[2].0).unwrap(), expected(&[3], 5));
}

#[test]
fn a_failed_pass_ends_only_its_own_sequences() {
    let (mut engine, fake) = (engine(), Fake::new(64, 2));
    // Two at a time: the third waits.
    let jobs = [begin(&mut engine, &[1], 3), begin(&mut engine, &[REFUSED], 3), begin(&mut engine, &[5], 3)];
    run(&mut engine, &fake, &jobs);
    let kinds = jobs.each_ref().map(|job| error(&mut engine, job).map(|error| error.kind()));
    assert_eq!(kinds, [Some(ErrorKind::OutOfBudget), Some(ErrorKind::OutOfBudget), None]);
    assert_eq!(engine.tokens(jobs[2].0).unwrap(), expected(&[5], 3));
}

#[test]
fn cancelled_jobs_end_without_a_pass() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    let job = begin(&mut engine, &[1], 100);
    engine.step(&fake).unwrap();
    job.1.cancel();
    run(&mut engine, &fake, std::slice::from_ref(&job));
    let mailbox = &engine.job(job.0, &job.1).unwrap().mailbox;
    let last = std::iter::from_fn(|| mailbox.take()).last().unwrap().unwrap();
    assert!(matches!(last, Event::Done(done) if done.finish_reason == FinishReason::Cancelled));
    assert_eq!(fake.passes.into_inner().unwrap().len(), 1);
}
