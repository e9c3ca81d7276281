//! The engine over a model without weights: what it computes, for which sequences, and within which bounds.

use std::sync::Mutex;

use clawdbot_kernels::threads::ThreadPool;
use proptest::prelude::*;

use super::*;
use crate::cache::LayerState;
use crate::event::{Event, FinishReason};
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::options::{KvType, Resolved};
use crate::runtime::Budget;
use crate::sampling::Drawable;

pub(super) const VOCAB: usize = 50;
/// The logits after this token are not finite.
pub(super) const BROKEN: u32 = 49;
/// A pass with this token fails.
const REFUSED: u32 = 48;

/// The token after `token` at `position`, never one of the two above.
fn following(token: u32, position: usize) -> u32 {
    (token * 7 + position as u32 * 3 + 1) % 48
}

pub(super) struct Fake {
    limits: Limits,
    pool: ThreadPool,
    drawable: Drawable,
    /// Rows and sequences of each pass.
    pub(super) passes: Mutex<Vec<(usize, usize)>>,
    /// What drafts its tokens.
    pub(super) draft: Option<Box<Fake>>,
    /// After a multiple of this token comes another one.
    pub(super) differs: Option<u32>,
    /// All passes fail.
    pub(super) fails: bool,
    /// Its head for multi-token prediction, which reads states.
    pub(super) head: Option<Box<Fake>>,
}

/// The state at a position, which says what the token there is.
fn state(token: u32, position: usize) -> f32 {
    (position * 64 + token as usize) as f32
}

impl Fake {
    pub(super) fn new(rows: usize, sequences: usize) -> Self {
        Fake {
            limits: Limits { rows, sequences, whole: false, prompts: usize::MAX },
            pool: ThreadPool::new(1),
            drawable: Drawable::all(VOCAB),
            passes: Mutex::default(),
            draft: None,
            differs: None,
            fails: false,
            head: None,
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
    fn draft_model(&self) -> Option<&dyn Served> {
        self.draft.as_deref().map(|draft| draft as &dyn Served)
    }
    fn mtp_head(&self) -> Option<&dyn Served> {
        self.head.as_deref().map(|head| head as &dyn Served)
    }
    fn forward(&self, resources: Resources<'_>, batch: &Batch<'_>) -> Result<Pass> {
        self.passes.lock().unwrap().push((batch.rows(), batch.sequences.len()));
        if self.fails || batch.tokens.contains(&REFUSED) {
            return Err(Error::new(ErrorKind::OutOfBudget, "refused"));
        }
        // A head sees the token after that of a state, and is asked for the one after that.
        let position = |row: usize| match batch.given_states.get(row) {
            Some(given) => *given as usize / 64 + 1,
            None => batch.positions[row],
        };
        let mut first = 0;
        for sequence in &batch.sequences {
            let rows = first..first + sequence.rows;
            assert!(rows.clone().all(|row| position(row) == position(first) + row - first));
            first = rows.end;
        }
        resources.scratch.states.reserve(batch.state_rows.len())?;
        for (&row, given) in batch.state_rows.iter().zip(resources.scratch.states.iter_mut()) {
            *given = state(batch.tokens[row], position(row));
        }
        let logits = &mut resources.scratch.logits;
        logits.reserve(batch.logits_rows.len() * VOCAB)?;
        for (&row, logits) in batch.logits_rows.iter().zip(logits.chunks_exact_mut(VOCAB)) {
            let token = batch.tokens[row];
            logits.fill(if token == BROKEN { f32::NAN } else { 0.0 });
            let next = following(token, position(row));
            let other = self.differs.is_some_and(|differs| token.is_multiple_of(differs));
            logits[(next + u32::from(other)) as usize % 48] += 1.0;
        }
        Ok(Pass::Done)
    }
}

pub(super) fn engine() -> Engine {
    let budget = Budget::new(None);
    let state = LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 };
    Engine::new(KvCache::new(KvType::F32, &[state], &budget).unwrap(), 0, &budget, Meter::default())
}

pub(super) fn begin(engine: &mut Engine, prompt: &[u32], max_tokens: u32) -> (SequenceId, Ticket) {
    begin_as(engine, prompt, Resolved { max_tokens, ..Resolved::greedy() }).unwrap()
}

pub(super) fn begin_as(
    engine: &mut Engine,
    prompt: &[u32],
    options: Resolved,
) -> Result<(SequenceId, Ticket)> {
    let id = engine.open()?;
    engine.append(id, prompt)?;
    Ok((id, engine.start(id, Job::generate(options, prompt.len(), None))?))
}

/// Runs steps until all jobs have ended.
pub(super) fn run(engine: &mut Engine, fake: &Fake, jobs: &[(SequenceId, Ticket)]) {
    for _ in 0..10_000 {
        if jobs.iter().all(|(id, ticket)| engine.job(*id, ticket).unwrap().is_finished()) {
            return;
        }
        assert!(engine.step(fake).unwrap());
    }
    panic!("no end");
}

pub(super) fn expected(prompt: &[u32], tokens: usize) -> Vec<u32> {
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

pub(super) fn error(engine: &mut Engine, (id, ticket): &(SequenceId, Ticket)) -> Option<Error> {
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

/// The numbers of `jobs` in the order in which they end.
fn order(engine: &mut Engine, fake: &Fake, jobs: &[(SequenceId, Ticket)]) -> Vec<usize> {
    let mut ended: Vec<usize> = Vec::new();
    for _ in 0..10_000 {
        for (index, (id, ticket)) in jobs.iter().enumerate() {
            if engine.job(*id, ticket).unwrap().is_finished() && !ended.contains(&index) {
                ended.push(index);
            }
        }
        if ended.len() == jobs.len() {
            return ended;
        }
        assert!(engine.step(fake).unwrap());
    }
    panic!("no end");
}

#[test]
fn requests_of_higher_priority_are_served_first() {
    // One at a time.
    let (mut engine, fake) = (engine(), Fake::new(64, 1));
    let mut as_priority = |priority| {
        let options = Resolved { max_tokens: 4, priority, ..Resolved::greedy() };
        begin_as(&mut engine, &[1], options).unwrap()
    };
    let jobs = [50, 50, 70, 10, 70].map(&mut as_priority);
    assert_eq!(order(&mut engine, &fake, &jobs), [2, 4, 0, 1, 3]);
    // One that comes later takes the place of one that runs.
    let slow = begin(&mut engine, &[1], 50);
    (0..5).for_each(|_| assert!(engine.step(&fake).unwrap()));
    let options = Resolved { max_tokens: 4, priority: 90, ..Resolved::greedy() };
    let urgent = begin_as(&mut engine, &[1], options).unwrap();
    assert_eq!(order(&mut engine, &fake, &[slow, urgent]), [1, 0]);
}

#[test]
fn groups_share_and_not_requests() {
    let (mut engine, fake) = (engine(), Fake::new(64, 1));
    let mut of_group = |group: &str| {
        let options = Resolved { max_tokens: 4, group: Some(group.to_owned()), ..Resolved::greedy() };
        begin_as(&mut engine, &[1], options).unwrap()
    };
    let jobs: Vec<_> = ["a", "a", "a", "a", "b", "b"].map(&mut of_group).into();
    assert_eq!(order(&mut engine, &fake, &jobs), [0, 4, 1, 5, 2, 3]);
}

#[test]
fn groups_share_though_they_come_one_after_the_other() {
    let (mut engine, fake) = (engine(), Fake::new(64, 1));
    let of_group = |engine: &mut Engine, group: &str, max_tokens| {
        let options = Resolved { max_tokens, group: Some(group.to_owned()), ..Resolved::greedy() };
        begin_as(engine, &[1], options).unwrap()
    };
    let mut jobs: Vec<_> = (0..4).map(|_| of_group(&mut engine, "a", 4)).collect();
    engine.step(&fake).unwrap();
    jobs.extend((0..2).map(|_| of_group(&mut engine, "b", 4)));
    assert_eq!(order(&mut engine, &fake, &jobs), [0, 4, 1, 5, 2, 3]);
    // Long ones take turns, and groups have equal parts of them.
    let mut jobs: Vec<_> = (0..3).map(|_| of_group(&mut engine, "a", 200)).collect();
    engine.step(&fake).unwrap();
    jobs.push(of_group(&mut engine, "b", 200));
    assert_eq!(order(&mut engine, &fake, &jobs)[0], 3);
}

/// Requests that may generate much and do not are no reason for others of their group to wait.
#[test]
fn groups_are_charged_what_is_computed() {
    let (mut engine, fake) = (engine(), Fake::new(64, 1));
    let mut begin = |group: &str, max_tokens| {
        let group = Some(group.to_owned());
        let stop_token_ids = vec![following(1, 0)];
        begin_as(&mut engine, &[1], Resolved { max_tokens, group, stop_token_ids, ..Resolved::greedy() })
            .unwrap()
    };
    let mut jobs: Vec<_> = (0..4).map(|_| begin("a", 900)).collect();
    jobs.extend((0..4).map(|_| begin("b", 1)));
    assert_eq!(order(&mut engine, &fake, &jobs), [0, 4, 1, 5, 2, 6, 3, 7]);
    // Neither are those that are given up.
    let mut begin = |group: &str, max_tokens| {
        let group = Some(group.to_owned());
        begin_as(&mut engine, &[1], Resolved { max_tokens, group, ..Resolved::greedy() }).unwrap()
    };
    let given_up: Vec<_> = (0..4).map(|_| begin("a", 900)).collect();
    let mut jobs: Vec<_> = (0..2).map(|_| begin("a", 4)).collect();
    jobs.extend((0..2).map(|_| begin("b", 4)));
    let mut given_up = given_up.into_iter();
    given_up.by_ref().take(2).for_each(|(id, _)| engine.close(id));
    given_up.for_each(|(id, ticket)| drop(engine.stop(id, &ticket)));
    assert_eq!(order(&mut engine, &fake, &jobs), [0, 2, 1, 3]);
}

/// A request whose beginning is being computed waits for that, and for nobody else.
#[test]
fn whose_page_comes_waits_for_it() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    engine.cache.keep_prefixes(1 << 30);
    let prompt = |salt: u32, length: u32| (0..length).map(|i| (i * 5 + salt) % 48).collect::<Vec<u32>>();
    let mut as_priority = |priority, prompt: &[u32]| {
        begin_as(&mut engine, prompt, Resolved { max_tokens: 1, priority, ..Resolved::greedy() }).unwrap().0
    };
    let first = as_priority(50, &prompt(1, 100));
    let same = as_priority(50, &prompt(1, 200));
    let other = as_priority(50, &prompt(2, 100));
    let short = as_priority(50, &prompt(1, 64));
    let urgent = as_priority(70, &prompt(2, 100));
    let of_urgent = as_priority(60, &prompt(2, 65));
    let waits = |engine: &Engine| {
        let entries = engine.sequences.iter().filter_map(|(&id, sequence)| sequence.entry(id, 1000));
        let all: Vec<_> = entries.collect();
        let mut left = all.clone();
        engine.wait_for_prefixes(&mut left);
        let stays = |id: &SequenceId| !left.iter().any(|entry| entry.id == *id);
        all.iter().map(|entry| entry.id).filter(stays).collect::<Vec<_>>()
    };
    // The last token of a short one is computed in any case.
    assert_eq!((waits(&engine), short > 0), (vec![same, other, of_urgent], true));
    engine.step(&fake).unwrap();
    // The pass has taken the urgent one's page; the next ones are those of others, too.
    engine.attach_prefixes();
    let urgent_has = engine.sequences[&urgent].computed;
    let known = [other, of_urgent].map(|id| engine.sequences[&id].computed);
    assert_eq!((urgent_has, known), (64, [64, 64]));
    // Nobody computes a second full page of these.
    assert_eq!(waits(&engine), vec![same]);
    assert_eq!(engine.sequences[&first].computed, 0);
}

#[test]
fn a_request_ends_at_its_deadline_with_what_it_has() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    let options = |ms| Resolved { max_tokens: 900, deadline_ms: Some(ms), ..Resolved::greedy() };
    let late = begin_as(&mut engine, &[1], options(30)).unwrap();
    let never = begin_as(&mut engine, &[1], Resolved { max_tokens: 5, ..options(u64::MAX) }).unwrap();
    let reason = |engine: &mut Engine, (id, ticket): &(SequenceId, Ticket)| {
        let mailbox = &engine.job(*id, ticket).unwrap().mailbox;
        match std::iter::from_fn(|| mailbox.take()).last().unwrap().unwrap() {
            Event::Done(done) => (done.finish_reason, done.token_ids.len()),
            other => panic!("{other:?}"),
        }
    };
    run(&mut engine, &fake, std::slice::from_ref(&never));
    assert_eq!(reason(&mut engine, &never), (FinishReason::Length, 5));
    std::thread::sleep(std::time::Duration::from_millis(31));
    run(&mut engine, &fake, std::slice::from_ref(&late));
    let (found, tokens) = reason(&mut engine, &late);
    assert_eq!(found, FinishReason::Deadline);
    assert!((5..900).contains(&tokens), "{tokens}");
    let at_once = begin_as(&mut engine, &[1], options(0)).unwrap();
    run(&mut engine, &fake, std::slice::from_ref(&at_once));
    assert_eq!(reason(&mut engine, &at_once), (FinishReason::Deadline, 0));
}

#[test]
fn more_than_may_wait_are_refused_and_service_goes_on() {
    let (mut engine, fake) = (engine(), Fake::new(64, 2));
    engine.bound_queue(Some(3));
    let options = || Resolved { max_tokens: 4, ..Resolved::greedy() };
    let mut begun = Vec::new();
    let mut refused = 0;
    for _ in 0..500 {
        match begin_as(&mut engine, &[1, 2], options()) {
            Ok(job) => begun.push(job),
            Err(error) => {
                assert_eq!((error.kind(), &error.detail()["waiting"]), (ErrorKind::Overloaded, &3.into()));
                assert!(error.detail()["retry_after_ms"].as_u64().unwrap() > 0);
                refused += 1;
            }
        }
        if refused % 3 == 2 {
            engine.step(&fake).unwrap();
        }
    }
    assert!(refused > 100 && begun.len() > 100, "{refused} {}", begun.len());
    run(&mut engine, &fake, &begun);
    assert!(begin_as(&mut engine, &[1, 2], options()).is_ok());
}
