//! Who takes part in the next forward pass, and with how many tokens: pure functions over numbers.
//!
//! *Turns.* A pass has room for so many sequences. When more wait, those that have taken part in [`TURN`] passes make room,
//! and come again after those that waited longer. So a short request gets in soon, however long the others are, and each
//! pass is as full as before.
//!
//! *Memory.* A sequence begins when what all that have begun will hold at the same time fits, each growing to its end. It
//! takes pages only as long as all can still come to their ends one after another; else it waits and keeps what it has. So
//! nothing that was computed is thrown away, as long as lengths are known. Requests without a near end are expected to
//! take [`HORIZON`] more tokens; where that was too few and all wait for each other, the last that came loses its pages.
//! When more than a fifth of the work was lost in this way, only what fits to its very end begins.

use super::SequenceId;
use super::room::{Demand, Future, Pages, is_safe, peak};

/// Most rows of logits that scoring sequences get in one pass: each is a whole vocabulary of floats.
pub(crate) const SCORE_ROWS: usize = 64;
/// Passes after which a sequence makes room for one that waits.
pub(crate) const TURN: u32 = 16;
/// Tokens that a sequence is expected to grow by at most, when it may grow by more.
pub(crate) const HORIZON: usize = 1024;
/// How often later requests that fit may begin before one that does not.
const MOST_PASSED: u32 = 8;
/// Positions at the end of which sequences may wait for pages.
const PAGE: usize = crate::cache::PAGE_TOKENS;

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
    fn rows(&self, limits: &Limits) -> usize {
        if limits.whole { self.left() } else { self.left().min(limits.rows) }
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
pub(crate) struct Memory<'a, P: Pages> {
    /// Bytes that the sequences with work can have together.
    pub(crate) capacity: u64,
    pub(crate) pages: &'a P,
    /// Whether sequences may begin whose end does not fit, but is more than [`HORIZON`] away.
    pub(crate) open: bool,
}

/// Whether sequences may begin whose end may not fit: not when of `rows` that were computed, all in all, more than a fifth
/// was or would be for what was lost, `again` so far, and `biggest` with the next.
pub(crate) fn may_lose(rows: u64, again: u64, biggest: usize) -> bool {
    again == 0 || (again + biggest as u64).saturating_mul(5) <= rows
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

impl<P: Pages> Memory<'_, P> {
    /// Most bytes that a sequence is expected to hold.
    fn most(&self, entry: &Entry, limits: &Limits) -> u64 {
        self.pages.bytes(self.last(entry), entry.rows(limits)).min(self.capacity).max(entry.held)
    }

    fn last(&self, entry: &Entry) -> usize {
        let last = entry.last.max(entry.tokens);
        if self.open { last.min(entry.tokens + HORIZON) } else { last }
    }

    fn future(&self, entry: &Entry, limits: &Limits) -> Future {
        Future { tokens: entry.tokens, last: self.last(entry), rows: entry.rows(limits) }
    }

    /// Whether there is room for all to their ends, so that nobody needs to be asked what it holds.
    pub(crate) fn is_ample(&self, entries: &[Entry], limits: &Limits) -> bool {
        let most = entries.iter().map(|entry| self.pages.bytes(self.last(entry), entry.rows(limits)));
        most.fold(0, u64::saturating_add) <= self.capacity
    }

    /// How many rows memory allows each of `entries`, in the order in which they came.
    fn grants(&self, entries: &[Entry], limits: &Limits, plan: &mut Plan) -> Vec<usize> {
        let mut demands: Vec<Demand> = Vec::new();
        let mut futures: Vec<Future> = Vec::new();
        let mut free = self.capacity;
        for entry in entries.iter().filter(|entry| entry.turn.begun) {
            free = free.saturating_sub(entry.held);
            demands.push(Demand { held: entry.held, most: self.most(entry, limits) });
            futures.push(self.future(entry, limits));
        }
        let mut grants = vec![0; entries.len()];
        // While this fits, all is safe.
        let mut total: u64 = demands.iter().map(|demand| demand.most).fold(0, u64::saturating_add);
        // Those that have begun.
        let mut waits = false;
        let begun = entries.iter().zip(&mut grants).filter(|(entry, _)| entry.turn.begun);
        for (index, (entry, grant)) in begun.enumerate() {
            let rows = entry.rows(limits);
            let wanted = self.pages.bytes(entry.computed + rows, rows).max(entry.held);
            let more = wanted - entry.held;
            if more == 0 {
                *grant = rows;
                continue;
            }
            if more <= free {
                demands[index].held += more;
                if total <= self.capacity || is_safe(free - more, &demands) {
                    free -= more;
                    *grant = rows;
                    continue;
                }
                demands[index].held -= more;
            }
            waits = true;
            // The rest of the page that it has.
            let rest = rows.min(PAGE - entry.computed % PAGE);
            let fits = !limits.whole && self.pages.bytes(entry.computed + rest, rest) <= entry.held;
            *grant = if fits { rest } else { 0 };
        }
        // Nobody begins while one that has begun waits.
        if waits {
            return grants;
        }
        let mut blocked: Vec<&Entry> = Vec::new();
        for (entry, grant) in entries.iter().zip(&mut grants).filter(|(entry, _)| !entry.turn.begun) {
            if blocked.iter().any(|entry| entry.turn.passed >= MOST_PASSED) || blocked.len() > 3 {
                break;
            }
            let rows = entry.rows(limits);
            let held = self.pages.bytes(entry.computed + rows, rows);
            let most = self.most(entry, limits).max(held);
            futures.push(self.future(entry, limits));
            demands.push(Demand { held, most });
            let fits = held <= free
                && (total.saturating_add(most) <= self.capacity
                    || peak(&futures, self.pages, self.capacity) <= self.capacity
                        && is_safe(free - held, &demands));
            if fits {
                free -= held;
                total = total.saturating_add(most);
                *grant = rows;
                plan.passed.extend(blocked.iter().map(|entry| entry.id));
            } else {
                futures.pop();
                demands.pop();
                blocked.push(entry);
            }
        }
        grants
    }
}

/// Plans a step for `entries`; `memory` is given where it may be short. One token for each sequence that is decoding comes
/// first, so that nobody's stream stalls while a long prompt is computed; then prompts, in chunks that fill what is left.
pub(crate) fn plan_step<P: Pages>(
    mut entries: Vec<Entry>,
    limits: &Limits,
    memory: Option<&Memory<'_, P>>,
) -> Plan {
    let mut plan = Plan::default();
    entries.sort_unstable_by_key(|entry| entry.arrival);
    let Some(memory) = memory else {
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
        let grants = memory.grants(&entries, limits, &mut plan);
        plan.parts = share_out(&entries, &grants, limits);
        if !plan.parts.is_empty() {
            break;
        }
        // All wait for each other.
        let begun = entries.iter().filter(|entry| entry.turn.begun).count();
        let last = entries.iter_mut().rfind(|entry| entry.turn.begun);
        match last.filter(|_| memory.open && begun > 1) {
            Some(last) => {
                plan.evicted.push(last.id);
                (last.held, last.computed, last.turn.begun) = (0, 0, false);
            }
            // The first goes on alone, and takes from the others what it cannot do without.
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
            // Prompts behind it wait with it.
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
