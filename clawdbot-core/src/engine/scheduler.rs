//! Who takes part in the next forward pass, and with how many tokens: pure functions over numbers.
//!
//! *Turns.* A pass has room for so many sequences. When more wait, those that have taken part in [`TURN`] passes make room,
//! and come again after those that waited longer. So a short request gets in soon, however long the others are, and each
//! pass is as full as before.
//!
//! *Memory.* A sequence begins when what all that have begun will hold at the same time fits, each growing to its end;
//! *open* ones, which may generate more than [`HORIZON`] tokens, are expected to take so many more. It takes pages only as
//! long as what would be lost if all others took all that they may stays within bounds (`risk.rs`): nothing as long as no
//! open ones are involved. Else it waits and keeps what it has. Where all wait for each other, the last that came loses its
//! pages.

use super::SequenceId;
use super::grants::grants;
use super::risk::Work;
use super::room::Future;
use crate::cache::Pages;

/// Most rows of logits that scoring sequences get in one pass: each is a whole vocabulary of floats.
pub(crate) const SCORE_ROWS: usize = 64;
/// Passes after which a sequence makes room for one that waits.
pub(crate) const TURN: u32 = 16;
/// Tokens that a request is expected to generate further, when it may generate more than so many in all.
pub(crate) const HORIZON: usize = 1024;
/// Positions at the end of which sequences may wait for pages.
pub(super) const PAGE: usize = clawdbot_kernels::attention::PAGE_TOKENS;

/// Bounds of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most tokens.
    pub(crate) rows: usize,
    /// Most sequences.
    pub(crate) sequences: usize,
    /// Sequences are not cut: one that is longer than `rows` has a pass of its own.
    pub(crate) whole: bool,
}

/// What is wanted of the tokens that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Logits of the last.
    Token,
    /// Logits of all.
    Scores,
    /// States.
    States,
}

/// When a sequence takes part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Passes of its present turn; `None` while it waits for one.
    pub(crate) passes: Option<u32>,
    /// Since which pass it waits.
    pub(crate) since: u64,
    /// How often a later request began first, because it needed less memory.
    pub(crate) passed: u32,
    /// Whether it has taken part since it came, or since it lost its pages.
    pub(crate) begun: bool,
}

impl Turn {
    /// After a planned pass, number `now`.
    pub(crate) fn after(&mut self, took_part: bool, now: u64) {
        self.begun |= took_part;
        match (took_part, self.passes) {
            (true, passes) => self.passes = Some(passes.unwrap_or(0).saturating_add(1)),
            (false, Some(_)) => (self.passes, self.since) = (None, now),
            (false, None) => {}
        }
    }

    /// Sorts by who comes first: those in their turn, those that wait, those whose turn is over.
    fn key(&self, arrival: u64) -> (u8, u64, u64) {
        match self.passes {
            Some(passes) if passes < TURN => (0, arrival, 0),
            None => (1, self.since, arrival),
            Some(passes) => (2, passes.into(), arrival),
        }
    }
}

/// A sequence with work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) id: SequenceId,
    /// When its request came.
    pub(crate) arrival: u64,
    pub(crate) tokens: usize,
    /// Tokens in the cache, fewer than `tokens`.
    pub(crate) computed: usize,
    /// Most tokens that it may come to have in the cache.
    pub(crate) last: usize,
    /// Whether its end is so far away that it probably comes earlier.
    pub(crate) open: bool,
    pub(crate) want: Want,
    pub(crate) turn: Turn,
    /// Bytes of its pages, if it has begun; needed only where memory is short. What it has from earlier requests others may
    /// take until it begins.
    pub(crate) held: u64,
}

impl Entry {
    fn left(&self) -> usize {
        self.tokens - self.computed
    }

    /// Most rows of its passes.
    pub(super) fn rows(&self, limits: &Limits) -> usize {
        if limits.whole { self.left() } else { self.left().min(limits.rows) }
    }

    /// Most tokens that it is expected to come to have in the cache.
    fn expected(&self) -> usize {
        if self.open { self.last.min(self.tokens.saturating_add(HORIZON)) } else { self.last }
    }

    pub(super) fn future(&self, limits: &Limits) -> Future {
        Future { tokens: self.tokens, last: self.expected(), rows: self.rows(limits) }
    }
}

/// A sequence's part of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: SequenceId,
    pub(crate) rows: usize,
    /// Number of last rows whose logits are wanted.
    pub(crate) logits: usize,
}

/// Memory that is short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory<'a, P: Pages> {
    /// Bytes that the sequences with work can have together.
    pub(crate) capacity: u64,
    pub(crate) pages: &'a P,
    /// What was computed, and lost.
    pub(crate) work: Work,
}

impl<P: Pages> Memory<'_, P> {
    /// Most bytes that a sequence may come to hold.
    pub(super) fn most(&self, entry: &Entry, limits: &Limits) -> u64 {
        self.pages.bytes(entry.last, entry.rows(limits)).min(self.capacity).max(entry.held)
    }

    /// Whether there is room for all to their ends, so that nobody needs to be asked what it holds.
    pub(crate) fn is_ample(&self, entries: &[Entry], limits: &Limits) -> bool {
        let most = entries.iter().map(|entry| self.pages.bytes(entry.last, entry.rows(limits)));
        most.fold(0, u64::saturating_add) <= self.capacity
    }
}

/// What to do next.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// Those that lose their pages first.
    pub(crate) evicted: Vec<SequenceId>,
    /// Those whose tokens do not fit into the memory, even alone.
    pub(crate) hopeless: Vec<SequenceId>,
    /// Those that later requests were let in before.
    pub(crate) passed: Vec<SequenceId>,
}

/// Plans a step for `entries`; `memory` is given where it may be short. One token for each sequence that is decoding comes
/// first, so that nobody's stream stalls while a long prompt is computed; then prompts, in chunks that fill what is left.
pub(crate) fn plan_step<P: Pages>(
    mut entries: Vec<Entry>,
    limits: &Limits,
    memory: Option<Memory<'_, P>>,
) -> Plan {
    let mut plan = Plan::default();
    entries.sort_unstable_by_key(|entry| entry.arrival);
    let Some(mut memory) = memory else {
        let grants = vec![usize::MAX; entries.len()];
        plan.parts = share_out(&entries, &grants, limits);
        return plan;
    };
    entries.retain(|entry| {
        let fits = memory.pages.bytes(entry.tokens, entry.rows(limits)) <= memory.capacity;
        if !fits {
            plan.hopeless.push(entry.id);
        }
        fits
    });
    while !entries.is_empty() {
        plan.passed.clear();
        let grants = grants(&memory, &entries, limits, &mut plan.passed);
        plan.parts = share_out(&entries, &grants, limits);
        if !plan.parts.is_empty() {
            break;
        }
        // All wait for each other.
        let begun = entries.iter().filter(|entry| entry.turn.begun).count();
        let last = entries.iter_mut().rfind(|entry| entry.turn.begun);
        match last.filter(|_| begun > 1) {
            Some(last) => {
                plan.evicted.push(last.id);
                memory.work.lose(last.computed);
                (last.held, last.computed, last.turn.begun) = (0, 0, false);
            }
            // It goes on alone, and has all that there is.
            None => {
                let first = entries.iter().find(|entry| entry.turn.begun).or(entries.first());
                let first: Vec<Entry> = first.copied().into_iter().collect();
                plan.parts = share_out(&first, &[usize::MAX], limits);
                break;
            }
        }
    }
    plan
}

/// Gives the rows of a pass to those of `entries` whose turn it is, each at most as many as granted.
fn share_out(entries: &[Entry], grants: &[usize], limits: &Limits) -> Vec<Part> {
    let mut order: Vec<(&Entry, usize)> = entries.iter().zip(grants.iter().copied()).collect();
    order.retain(|&(_, grant)| grant > 0);
    order.sort_by_key(|(entry, _)| entry.turn.key(entry.arrival));
    let decodes = |entry: &Entry| entry.left() == 1;
    let mut places = if limits.whole { limits.sequences } else { limits.sequences.min(limits.rows) };
    let decoding = order.iter().filter(|(entry, _)| decodes(entry)).count().min(places);
    // Every sequence that is decoding may have a row.
    let mut rows_left = limits.rows.saturating_sub(decoding).max(1);
    // What the plan of the model has room for.
    let mut logits_left = SCORE_ROWS.max(limits.sequences);
    let (mut tokens, mut prompts) = (Vec::new(), Vec::new());
    let mut full = false;
    for (entry, grant) in order {
        if places == 0 {
            break;
        }
        let mut most = grant.min(rows_left);
        if entry.want == Want::Scores {
            most = most.min(SCORE_ROWS).min(logits_left);
        }
        let rows = match limits.whole {
            _ if decodes(entry) => 1,
            _ if full => 0,
            true if (prompts.is_empty() && tokens.is_empty()) || entry.left() <= most => entry.left(),
            true => 0,
            false => entry.left().min(most),
        };
        let logits = match entry.want {
            Want::States => 0,
            Want::Scores => rows,
            Want::Token => usize::from(rows == entry.left()),
        };
        if rows == 0 || logits > logits_left {
            // Prompts after it wait with it.
            full = true;
            continue;
        }
        places -= 1;
        logits_left -= logits;
        let part = Part { id: entry.id, rows, logits };
        if decodes(entry) {
            tokens.push(part);
        } else {
            rows_left = rows_left.saturating_sub(rows);
            full |= rows_left == 0;
            prompts.push(part);
        }
    }
    tokens.append(&mut prompts);
    tokens
}

#[cfg(test)]
#[path = "tests_scheduler.rs"]
mod tests;
