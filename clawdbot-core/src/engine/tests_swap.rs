//! Swapping, over a model that reads all that is cached: with a page that is not what it was, its tokens are others.

use clawdbot_kernels::threads::ThreadPool;
use proptest::prelude::*;

use super::*;
use crate::cache::{LayerState, PageData, PageId};
use crate::event::{Completion, Event};
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::metrics::{Meters, ModelMetrics};
use crate::options::{KvType, Resolved};
use crate::runtime::Faults;
use crate::sampling::Drawable;

const VOCAB: usize = 50;
const PAGE: usize = clawdbot_kernels::attention::PAGE_TOKENS;
const WINDOW: usize = 100;
const PRIME: u64 = 997;

/// What follows `tokens`: depends on all of them, on the last ones, and on their order.
fn following(tokens: &[u32]) -> u32 {
    let of = |(at, token): (usize, &u32)| u64::from(*token) * (at as u64 % 13 + 1);
    let all: u64 = tokens.iter().enumerate().map(of).sum();
    let seen: u64 = tokens[tokens.len().saturating_sub(WINDOW)..].iter().map(|token| u64::from(*token)).sum();
    let state = tokens.iter().fold(0, |state, token| (state * 31 + u64::from(*token)) % PRIME);
    ((all % PRIME + seen % PRIME + state) % VOCAB as u64) as u32
}

/// Layers of three kinds.
fn layers() -> [LayerState; 3] {
    let attention = |window| LayerState::Attention { window, kv_heads: 1, head_dim: 4 };
    [attention(None), attention(Some(WINDOW)), LayerState::Recurrent { floats: 4 }]
}

/// Computes [`following`] from what is cached.
pub(super) struct Reading {
    limits: Limits,
    pool: ThreadPool,
    drawable: Drawable,
}

fn floats(cache: &mut KvCache, layer: usize, page: PageId) -> &mut [f32] {
    match cache.pool_mut(layer).pages_mut(&[page]).pop() {
        Some(PageData::F32(data)) => data,
        _ => panic!("a page is missing"),
    }
}

impl Served for Reading {
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
    fn forward(&self, Resources { cache, scratch, .. }: Resources<'_>, batch: &Batch<'_>) -> Result<Pass> {
        scratch.logits.reserve(batch.logits_rows.len() * VOCAB)?;
        scratch.logits.fill(0.0);
        let (mut first_row, mut wanted) = (0, batch.logits_rows.iter().enumerate().peekable());
        for sequence in &batch.sequences {
            let state = sequence.tables.states(2).unwrap();
            assert_eq!(state.live().unwrap().tokens, batch.positions[first_row]);
            let rows = first_row..first_row + sequence.rows;
            first_row = rows.end;
            for row in rows {
                let (position, token) = (batch.positions[row], batch.tokens[row]);
                for layer in [0, 1] {
                    let page = sequence.tables.of_group(layer)[position / PAGE].unwrap();
                    floats(cache, layer, page)[position % PAGE] = token as f32;
                }
                if let Some(snapshot) = state.snapshot().filter(|snapshot| snapshot.tokens == position) {
                    let live = floats(cache, 2, state.live().unwrap().page).to_vec();
                    floats(cache, 2, snapshot.page).copy_from_slice(&live);
                }
                let live = floats(cache, 2, state.live().unwrap().page);
                live[0] = ((live[0] as u64 * 31 + u64::from(token)) % PRIME) as f32;
                let live = live[0] as u64;
                let Some((index, _)) = wanted.next_if(|(_, wanted)| **wanted == row) else { continue };
                let mut read = |layer: usize, position: usize| {
                    let page = sequence.tables.of_group(layer)[position / PAGE].unwrap();
                    floats(cache, layer, page)[position % PAGE] as u64
                };
                let all: u64 = (0..=position).map(|at| read(0, at) * (at as u64 % 13 + 1)).sum();
                let first = (position + 1).saturating_sub(WINDOW);
                let seen: u64 = (first..=position).map(|at| read(1, at)).sum();
                let next = (all % PRIME + seen % PRIME + live) % VOCAB as u64;
                scratch.logits[index * VOCAB + next as usize] = 1.0;
            }
        }
        Ok(Pass::Done)
    }
}

pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) model: Reading,
    pub(super) budget: Budget,
    pub(super) space: SwapSpace,
    meters: Meters,
}

/// An engine with a budget of so many pages, which swaps whatever it costs.
pub(super) fn bench(pages: u64, chunk: usize, swap_bytes: u64) -> Bench {
    bench_that_keeps(0, pages, chunk, swap_bytes)
}

/// As [`bench`]; it keeps at most so many bytes of prefixes.
pub(super) fn bench_that_keeps(prefix_bytes: u64, pages: u64, chunk: usize, swap_bytes: u64) -> Bench {
    let budget = Budget::new(Some(pages * 64 * (4 + 16) * 4));
    let mut cache = KvCache::new(KvType::F32, &layers(), &budget).unwrap();
    if prefix_bytes > 0 {
        cache.keep_prefixes(prefix_bytes);
    }
    let meters = Meters::new();
    let mut engine = Engine::new(cache, 1 << 30, &budget, meters.add("m"));
    let space = SwapSpace::new(&std::env::temp_dir(), swap_bytes).unwrap();
    engine.swap_to(Some(space.clone()));
    engine.costs.forced = Some(true);
    let limits = Limits { rows: chunk, sequences: 8, whole: false, prompts: usize::MAX };
    let model = Reading { limits, pool: ThreadPool::new(1), drawable: Drawable::all(VOCAB) };
    Bench { engine, model, budget, space, meters }
}

impl Bench {
    pub(super) fn metrics(&self) -> ModelMetrics {
        self.meters.read().remove(0)
    }

    pub(super) fn start(&mut self, id: SequenceId, new: &[u32], max_tokens: u32) -> Running {
        self.engine.append(id, new).unwrap();
        let length = self.engine.tokens(id).unwrap().len();
        let mut job = Job::generate(Resolved { max_tokens, ..Resolved::greedy() }, length, None);
        job.quiet = true;
        let prompt = self.engine.tokens(id).unwrap().to_vec();
        Running { id, ticket: self.engine.start(id, job).unwrap(), prompt }
    }

    pub(super) fn step(&mut self) {
        assert!(self.engine.step(&self.model).unwrap());
    }

    /// The completion of a job that has ended.
    pub(super) fn ended(&mut self, running: &Running) -> Option<Completion> {
        let job = self.engine.job(running.id, &running.ticket).unwrap();
        if !job.is_finished() {
            return None;
        }
        match job.mailbox.take() {
            Some(Ok(Event::Done(completion))) => Some(*completion),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn finish(&mut self, running: &Running) -> Completion {
        for _ in 0..100_000 {
            if let Some(completion) = self.ended(running) {
                running.check(&completion);
                return completion;
            }
            self.step();
        }
        panic!("no end");
    }

    /// Nothing is left of anything.
    pub(super) fn end(mut self) {
        for id in self.engine.sequences.keys().copied().collect::<Vec<_>>() {
            self.engine.close(id);
        }
        self.engine.shut();
        // What the thread is reading goes when it has read it.
        for _ in 0..5000 {
            if self.budget.used() == 0 && self.space.used() == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{} bytes of memory, {} of swap space", self.budget.used(), self.space.used());
    }
}

pub(super) struct Running {
    id: SequenceId,
    ticket: Ticket,
    prompt: Vec<u32>,
}

impl Running {
    /// All tokens are those that follow.
    fn check(&self, completion: &Completion) {
        let mut tokens = self.prompt.clone();
        for &id in &completion.token_ids {
            assert_eq!(id, following(&tokens), "token {} of sequence {}", tokens.len(), self.id);
            tokens.push(id);
        }
    }
}

pub(super) fn prompt(length: usize, salt: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 7 + salt * 13) % VOCAB) as u32).collect()
}

/// Conversations that take turns in memory for two of them: each goes on from its own pages.
#[test]
fn idle_sequences_come_back_and_nothing_is_computed_twice() {
    let mut bench = bench(20, 64, 64 << 20);
    let ids: Vec<SequenceId> = (0..10).map(|_| bench.engine.open().unwrap()).collect();
    let mut tokens = 0;
    for round in 0..4 {
        for (salt, &id) in ids.iter().enumerate() {
            let running = bench.start(id, &prompt(60 + salt, salt), 9);
            let completion = bench.finish(&running);
            assert_eq!(completion.token_ids.len(), 9);
            let known = if round == 0 { 0 } else { running.prompt.len() - 60 - salt - 1 };
            assert_eq!(completion.usage.cached_tokens, known, "{round} {salt}");
            tokens += 60 + salt + 8 + usize::from(round > 0);
        }
    }
    let metrics = bench.metrics();
    assert_eq!(metrics.computed_tokens, tokens as u64);
    assert!(metrics.swap_outs >= 25 && metrics.swap_ins >= 25, "{metrics:?}");
    assert!(metrics.swapped_bytes > 0 && metrics.swap_failures == 0);
    bench.end();
}

/// Open-ended requests that lose their pages while they run.
#[test]
fn preempted_requests_come_back() {
    let mut bench = bench(24, 32, 64 << 20);
    let ids: Vec<SequenceId> = (0..6).map(|_| bench.engine.open().unwrap()).collect();
    let running: Vec<Running> =
        ids.iter().map(|&id| bench.start(id, &prompt(40, id as usize), 450)).collect();
    for (index, running) in running.iter().enumerate() {
        // The latest ones lose theirs.
        if index < 3 {
            (0..5).for_each(|_| bench.step());
            let holds = |id: &&SequenceId| {
                let sequence = &bench.engine.sequences[*id];
                sequence.is_running() && sequence.tables.hold_pages()
            };
            let last = *ids.iter().rev().find(holds).unwrap();
            bench.engine.evict_running(last);
        }
        assert_eq!(bench.finish(running).token_ids.len(), 450);
    }
    let metrics = bench.metrics();
    assert!(metrics.preemptions >= 3 && metrics.swap_ins > 0, "{metrics:?}");
    bench.end();
}

#[test]
fn without_room_or_sense_there_is_no_swapping() {
    for (bytes, forced, full) in [(1, true, false), (64 << 20, false, false), (64 << 20, true, true)] {
        let mut bench = bench(20, 64, bytes);
        bench.engine.costs.forced = Some(forced);
        bench.space.set_faults(Faults { full, ..Faults::default() });
        let ids: Vec<SequenceId> = (0..6).map(|_| bench.engine.open().unwrap()).collect();
        for _ in 0..2 {
            for &id in &ids {
                let running = bench.start(id, &prompt(100, 1), 5);
                bench.finish(&running);
            }
        }
        let metrics = bench.metrics();
        assert_eq!((metrics.swap_outs, metrics.swap_ins, metrics.swapped_bytes), (0, 0, 0));
        assert_eq!(metrics.swap_failures > 0, full);
        bench.end();
    }
}

#[test]
fn what_comes_back_wrong_is_computed_again() {
    for faults in
        [Faults { unreadable: true, ..Faults::default() }, Faults { flipped: true, ..Faults::default() }]
    {
        let mut bench = bench(20, 64, 64 << 20);
        let ids: Vec<SequenceId> = (0..6).map(|_| bench.engine.open().unwrap()).collect();
        for round in 0..3 {
            bench.space.set_faults(if round == 1 { faults } else { Faults::default() });
            for &id in &ids {
                let running = bench.start(id, &prompt(100, 1), 5);
                bench.finish(&running);
            }
        }
        let metrics = bench.metrics();
        assert!(metrics.swap_failures > 0 && metrics.swap_ins > 0, "{metrics:?}");
        bench.end();
    }
}

/// What a sequence has in the swap space is that of its first tokens, whatever becomes of the others.
#[test]
fn changes_of_what_is_swapped_out() {
    let mut bench = bench(60, 64, 64 << 20);
    let id = bench.engine.open().unwrap();
    let running = bench.start(id, &prompt(200, 1), 5);
    bench.finish(&running);
    let held = |bench: &Bench, id| bench.engine.sequences[&id].reach();
    // A fork has them too; the tokens that were cut off do not count.
    assert!(bench.engine.evict(id));
    let fork = bench.engine.fork(id).unwrap();
    assert_eq!((held(&bench, fork), held(&bench, id)), (204, 204));
    for id in [fork, id] {
        let running = bench.start(id, &prompt(30, 3), 5);
        assert_eq!(bench.finish(&running).usage.cached_tokens, 204);
    }
    assert!(bench.engine.evict(fork));
    bench.engine.truncate(fork, 150).unwrap();
    assert_eq!(held(&bench, fork), 0, "states cannot be rewound");
    let running = bench.start(fork, &[3], 5);
    bench.finish(&running);
    // What is saved is read where it is.
    assert!(bench.engine.evict(id));
    let saved = bench.engine.hold(id).unwrap();
    let held = bench.engine.held(saved).unwrap();
    assert_eq!((held.computed, held.tokens.len()), (239, 240));
    assert!(matches!(held.image, Image::Swapped(_)) && !bench.engine.sequences[&saved].tables.hold_pages());
    drop(held);
    bench.end();
}

/// There is memory for a snapshot, but not for the copy of a page that a fork shares.
#[test]
fn copies_and_snapshots_do_not_take_each_others_memory_for_ever() {
    let mut bench = bench(24, 64, 1);
    let id = bench.engine.open().unwrap();
    let running = bench.start(id, &prompt(100, 1), 5);
    bench.finish(&running);
    let fork = bench.engine.fork(id).unwrap();
    bench.engine.cache.trim_reserve();
    let others = bench.budget.reserve(bench.budget.left() - 16, "somebody else").unwrap();
    let running = bench.start(fork, &prompt(3, 2), 5);
    bench.finish(&running);
    drop(others);
    bench.end();
}

#[derive(Debug, Clone, Copy)]
enum Do {
    /// Append so many tokens and generate so many.
    Start(usize, usize, u32),
    Steps(usize),
    Cancel(usize),
    Truncate(usize, usize),
    Fork(usize),
    Close(usize),
    Evict(usize),
    Faults(bool, bool, bool),
}

fn actions() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        6 => (0_usize..12, 1_usize..150, 1_u32..60).prop_map(|(who, new, most)| Do::Start(who, new, most)),
        6 => (1_usize..30).prop_map(Do::Steps),
        1 => (0_usize..12).prop_map(Do::Cancel),
        1 => (0_usize..12, 0_usize..200).prop_map(|(who, length)| Do::Truncate(who, length)),
        1 => (0_usize..12).prop_map(Do::Fork),
        1 => (0_usize..12).prop_map(Do::Close),
        2 => (0_usize..12).prop_map(Do::Evict),
        1 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(full, unreadable, flipped)| Do::Faults(full, unreadable, flipped)),
    ];
    proptest::collection::vec(one, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any schedule, with anything that may go wrong in between: no request fails, and all tokens are those that follow.
    #[test]
    fn whatever_happens_tokens_are_right(
        list in actions(),
        pages in 24_u64..60,
        chunk in prop_oneof![Just(7_usize), Just(64), Just(200)],
        space in prop_oneof![Just(0_u64), Just(3), Just(400)],
        prefix_bytes in prop_oneof![Just(0_u64), Just(40_000), Just(1 << 30)],
    ) {
        let mut bench = bench_that_keeps(prefix_bytes, pages, chunk, 1 + (space << 16));
        let mut ids: Vec<SequenceId> = Vec::new();
        let mut running: Vec<Running> = Vec::new();
        let is_busy = |running: &[Running], id| running.iter().any(|one| one.id == id);
        for action in list {
            match action {
                Do::Start(who, new, most) => {
                    if who >= ids.len() {
                        ids.push(bench.engine.open().unwrap());
                    }
                    let id = ids[who.min(ids.len() - 1)];
                    let length = bench.engine.tokens(id).unwrap().len();
                    if !is_busy(&running, id) && length + new + (most as usize) < 500 {
                        running.push(bench.start(id, &prompt(new, who), most));
                    }
                }
                Do::Steps(steps) => {
                    for _ in 0..steps {
                        if !running.is_empty() {
                            bench.step();
                        }
                        running.retain(|one| match bench.ended(one) {
                            Some(completion) => {
                                one.check(&completion);
                                false
                            }
                            None => true,
                        });
                    }
                }
                Do::Cancel(who) => running.iter().skip(who).take(1).for_each(|one| one.ticket.cancel()),
                Do::Truncate(who, length) => {
                    let Some(&id) = ids.get(who).filter(|id| !is_busy(&running, **id)) else { continue };
                    let length = length.min(bench.engine.tokens(id).unwrap().len());
                    bench.engine.truncate(id, length).unwrap();
                }
                Do::Fork(who) => {
                    let Some(&id) = ids.get(who).filter(|id| !is_busy(&running, **id)) else { continue };
                    ids.push(bench.engine.fork(id).unwrap());
                }
                Do::Close(who) => {
                    if who < ids.len() {
                        let id = ids.remove(who);
                        running.retain(|one| one.id != id);
                        bench.engine.close(id);
                    }
                }
                Do::Evict(who) => {
                    let _ = ids.get(who).map(|id| bench.engine.evict(*id));
                }
                Do::Faults(full, unreadable, flipped) => {
                    bench.space.set_faults(Faults { full, unreadable, flipped, slow: false });
                }
            }
        }
        bench.space.set_faults(Faults::default());
        for one in &running {
            bench.finish(one);
        }
        bench.end();
    }
}
