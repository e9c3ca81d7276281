//! The engine's scheduling with passes that compute nothing, to count what requests cost.

use super::entry::{Entry, HORIZON, Limits, Memory, PAGE, SequenceId, Turn, Want};
use super::groups::NO_GROUP;
use super::queue::Rank;
use super::risk::Work;
use super::scheduler::{Part, Plan, plan_step};
use crate::cache::Pages;

/// A request of a simulation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The pass before which it arrives.
    pub(super) at: u64,
    pub(super) prompt: usize,
    /// Tokens that it generates, and most tokens that it may generate.
    pub(super) output: usize,
    pub(super) most: usize,
}

impl Request {
    /// Rows of its passes if it ran alone.
    pub(super) fn alone(&self) -> usize {
        self.prompt + self.output - 1
    }
}

/// When requests end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    AsPlanned,
    /// At the next token after a loss of pages, which makes the loss weigh most.
    WithALoss,
}

/// Sizes of a cache with pages of 64 tokens: a group with full attention, optionally one with a sliding window, and a
/// recurrent state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fake {
    pub(super) window: Option<usize>,
    pub(super) state: u64,
}

impl Pages for Fake {
    fn bytes(&self, length: usize, rows: usize) -> u64 {
        let all = length.div_ceil(PAGE) as u64;
        let window = self.window.map_or(0, |window| all.min(((window + rows).div_ceil(PAGE) + 1) as u64));
        all + window + self.state
    }
}

/// An entry for tests.
pub(super) fn entry(id: SequenceId, tokens: usize, computed: usize, arrival: u64) -> Entry {
    let (want, turn) = (Want::Token, Turn::default());
    let rank = Rank::nth(arrival);
    let (last, most_rows) = (tokens, usize::MAX);
    let (group, served, open_ended, held) = (NO_GROUP, 0, false, 0);
    Entry { id, rank, group, served, tokens, computed, last, open_ended, most_rows, want, turn, held }
}

/// What a simulation counted.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) passes: u64,
    pub(super) rows: usize,
    pub(super) evictions: usize,
    /// Rows of the same requests, run one after another.
    pub(super) alone: usize,
    /// For each request, passes from arrival to end.
    pub(super) took: Vec<u64>,
}

/// Runs `requests` to their ends as the engine does, with `capacity` bytes of pages.
pub(super) fn simulate(requests: &[Request], limits: &Limits, pages: &Fake, capacity: u64) -> Outcome {
    simulate_with(requests, limits, pages, capacity, Ends::AsPlanned)
}

pub(super) fn simulate_with(
    requests: &[Request],
    limits: &Limits,
    pages: &Fake,
    capacity: u64,
    ends: Ends,
) -> Outcome {
    let outcome = Outcome { took: vec![0; requests.len()], ..Outcome::default() };
    let (running, work) = (Vec::new(), Work::default());
    let mut simulation = Simulation { limits, pages, capacity, ends, running, work, outcome };
    let bound: usize = requests.iter().map(|request| request.alone() * 3 + 64).sum();
    let bound = bound as u64 + requests.iter().map(|request| request.at).max().unwrap_or(0);
    let mut coming = (0..).zip(requests).peekable();
    loop {
        let passes = simulation.outcome.passes;
        while let Some((id, request)) =
            coming.next_if(|(_, request)| request.at <= passes || simulation.running.is_empty())
        {
            simulation.add(id, request);
        }
        if simulation.running.is_empty() {
            return simulation.outcome;
        }
        assert!(passes < bound, "no end");
        simulation.step();
    }
}

#[derive(Debug)]
struct Running {
    entry: Entry,
    request: Request,
}

impl Running {
    fn has_ended(&self) -> bool {
        self.entry.tokens == self.request.prompt + self.request.output
    }
}

struct Simulation<'a> {
    limits: &'a Limits,
    pages: &'a Fake,
    capacity: u64,
    ends: Ends,
    running: Vec<Running>,
    work: Work,
    outcome: Outcome,
}

impl Simulation<'_> {
    fn add(&mut self, id: SequenceId, request: &Request) {
        let (last, open_ended) = (request.prompt + request.most - 1, request.most > HORIZON);
        let entry = Entry { last, open_ended, ..entry(id, request.prompt, 0, id) };
        self.running.push(Running { entry, request: *request });
    }

    fn step(&mut self) {
        let entries: Vec<Entry> = self.running.iter().map(|running| running.entry).collect();
        let memory = Memory { capacity: self.capacity, pages: self.pages, work: self.work };
        let short = !memory.is_ample(&entries, self.limits);
        let plan = plan_step(entries, self.limits, short.then_some(memory));
        self.check(&plan);
        for running in &mut self.running {
            running.entry.turn.overtaken += u32::from(plan.overtaken.contains(&running.entry.id));
            if plan.evicted.contains(&running.entry.id) {
                self.work.lose(running.entry.computed);
                self.outcome.evictions += 1;
                running.evict(self.ends);
            }
        }
        let part = |id| plan.parts.iter().find(|part| part.id == id);
        for Running { entry, .. } in &mut self.running {
            let Some(part) = part(entry.id) else { continue };
            entry.held = entry.held.max(self.pages.bytes(entry.computed + part.rows, part.rows));
        }
        let held: u64 = self.running.iter().map(|running| running.entry.held).sum();
        assert!(held <= self.capacity, "more pages than there are");
        let rows = plan.parts.iter().map(|part| part.rows).sum();
        self.work.compute(rows);
        self.outcome.rows += rows;
        self.outcome.passes += 1;
        for Running { entry, .. } in &mut self.running {
            self.outcome.advance(entry, part(entry.id), self.pages);
        }
        let outcome = &mut self.outcome;
        for Running { entry, request } in self.running.extract_if(.., |running| running.has_ended()) {
            outcome.took[entry.id as usize] = outcome.passes - request.at.min(outcome.passes);
            outcome.alone += request.alone();
        }
    }

    fn check(&self, plan: &Plan) {
        assert!(plan.hopeless.is_empty());
        assert!(!plan.parts.is_empty(), "each step computes something");
        assert!(plan.parts.len() <= self.limits.sequences);
        let rows: usize = plan.parts.iter().map(|part| part.rows).sum();
        assert!(rows <= self.limits.rows || plan.parts.len() == 1 && self.limits.whole);
    }
}

impl Running {
    fn evict(&mut self, ends: Ends) {
        let Running { entry, request } = self;
        (entry.computed, entry.held, entry.turn.admitted) = (0, 0, false);
        if ends == Ends::WithALoss {
            request.output = request.output.min(entry.tokens + 1 - request.prompt);
        }
    }
}

impl Outcome {
    /// Updates `entry` after a pass, in which it had `part`.
    fn advance(&self, entry: &mut Entry, part: Option<&Part>, pages: &Fake) {
        let Some(part) = part else { return entry.turn.sit_out(self.passes) };
        entry.turn.take_part();
        entry.computed += part.rows;
        assert_eq!(part.logits, usize::from(entry.computed == entry.tokens));
        entry.tokens += part.logits;
        entry.held = entry.held.min(pages.bytes(entry.computed, 1));
    }
}
