//! How many tokens memory allows each sequence in the next pass.

use super::SequenceId;
use super::risk::{Demand, Standing};
use super::room::{Future, peak};
use super::scheduler::{Entry, Limits, Memory, PAGE};
use crate::cache::Pages;

/// How often later requests that fit may begin before one that does not.
const MOST_PASSED: u32 = 8;
/// Requests that do not fit, after which no others are asked.
const MOST_BLOCKED: usize = 3;

/// How many rows each of `entries` may have, in the order in which they came. `passed`: those that others, which came
/// later, begin before.
pub(super) fn grants<P: Pages>(
    memory: &Memory<'_, P>,
    entries: &[Entry],
    limits: &Limits,
    passed: &mut Vec<SequenceId>,
) -> Vec<usize> {
    let begun = entries.iter().filter(|entry| entry.turn.begun);
    let mut ledger = Ledger::new(memory, limits, begun);
    let mut grants = vec![0; entries.len()];
    let begun = entries.iter().zip(&mut grants).filter(|(entry, _)| entry.turn.begun);
    for (index, (entry, grant)) in begun.enumerate() {
        *grant = ledger.go_on(index, entry);
        if *grant == 0 && ledger.standing.leads_all(index, ledger.demands.len()) {
            // What its guests compute now they would lose.
            return vec![0; entries.len()];
        }
    }
    // Nobody begins while one that has begun waits for pages.
    if ledger.waits {
        return grants;
    }
    let mut blocked: Vec<&Entry> = Vec::new();
    for (entry, grant) in entries.iter().zip(&mut grants).filter(|(entry, _)| !entry.turn.begun) {
        if blocked.iter().any(|entry| entry.turn.passed >= MOST_PASSED) || blocked.len() > MOST_BLOCKED {
            break;
        }
        *grant = ledger.begin(entry);
        match *grant {
            0 => blocked.push(entry),
            _ => passed.extend(blocked.iter().map(|entry| entry.id)),
        }
    }
    grants
}

/// What is promised.
struct Ledger<'a, P: Pages> {
    memory: &'a Memory<'a, P>,
    limits: &'a Limits,
    demands: Vec<Demand>,
    futures: Vec<Future>,
    standing: Standing,
    /// Bytes that nobody holds.
    free: u64,
    /// Most bytes of all. While they fit, all is safe.
    total: u64,
    /// Whether one that has begun waits for pages.
    waits: bool,
    /// Whether one waits because too much would be at risk.
    frozen: bool,
}

impl<'a, P: Pages> Ledger<'a, P> {
    fn new<'e>(
        memory: &'a Memory<'a, P>,
        limits: &'a Limits,
        begun: impl Iterator<Item = &'e Entry>,
    ) -> Self {
        let standing = Standing::default();
        let (demands, futures, free, total) = (Vec::new(), Vec::new(), memory.capacity, 0);
        let mut ledger =
            Ledger { memory, limits, demands, futures, standing, free, total, waits: false, frozen: false };
        begun.for_each(|entry| ledger.push(entry, entry.held, 0));
        ledger.standing = ledger.stand();
        ledger
    }

    fn push(&mut self, entry: &Entry, held: u64, granted: usize) {
        let demand = Demand {
            arrival: entry.arrival,
            held,
            most: self.memory.most(entry, self.limits).max(held),
            computed: entry.computed,
            granted,
            last: entry.last,
            rows: entry.rows(self.limits),
            open: entry.open,
        };
        self.free = self.free.saturating_sub(held);
        self.total = self.total.saturating_add(demand.most);
        self.demands.push(demand);
        self.futures.push(entry.future(self.limits));
    }

    fn pop(&mut self) {
        self.futures.pop();
        if let Some(demand) = self.demands.pop() {
            self.free += demand.held;
            self.total -= demand.most;
        }
    }

    fn stand(&self) -> Standing {
        let Memory { capacity, pages, work } = *self.memory;
        match self.total <= capacity {
            true => Standing::default(),
            false => Standing::new(&self.demands, capacity, pages, &work),
        }
    }

    /// The rows of one that has begun.
    fn go_on(&mut self, index: usize, entry: &Entry) -> usize {
        let rows = entry.rows(self.limits);
        let held = self.demands[index].held;
        let wanted = self.memory.pages.bytes(entry.computed + rows, rows);
        let guest = self.standing.is_guest(index);
        if wanted > held {
            if self.take(index, wanted - held, rows) {
                return rows;
            }
            let waits = !guest || wanted - held > self.free;
            (self.waits, self.frozen) = (self.waits || waits, self.frozen || !waits);
        }
        // What it has room for in the pages that it has.
        let rest = rows.min(PAGE - entry.computed % PAGE);
        let fits = |rows: usize| self.memory.pages.bytes(entry.computed + rows, rows) <= held;
        let fit = if wanted <= held {
            rows
        } else if !self.limits.whole && fits(rest) {
            rest
        } else {
            0
        };
        if !guest {
            return fit;
        }
        let granted = self.standing.risk(fit);
        self.demands[index].granted = granted;
        self.frozen |= granted < fit;
        granted
    }

    /// Takes `more` bytes for `rows` tokens, if that risks no more than may be.
    fn take(&mut self, index: usize, more: u64, rows: usize) -> bool {
        if more > self.free {
            return false;
        }
        let before = self.demands[index];
        (self.demands[index].held, self.demands[index].granted) = (before.held + more, rows);
        let standing = self.stand();
        // One that takes nothing from anybody is never held up.
        if standing.is_sound() || standing.has(&self.standing) && !standing.is_guest(index) {
            self.free -= more;
            self.standing = standing;
            return true;
        }
        self.demands[index] = before;
        false
    }

    /// The rows of one that has not begun; 0: it does not begin.
    fn begin(&mut self, entry: &Entry) -> usize {
        let rows = entry.rows(self.limits);
        let held = self.memory.pages.bytes(entry.computed + rows, rows);
        if held > self.free {
            return 0;
        }
        // If it is a guest, then not one that stops before its prompt's end.
        self.push(entry, held, entry.tokens - entry.computed);
        let standing = self.stand();
        let fits = self.total <= self.memory.capacity
            || standing.is_sound()
                && (!self.frozen || standing.at_risk <= self.standing.at_risk)
                && peak(&self.futures, self.memory.pages, self.memory.capacity) <= self.memory.capacity;
        if !fits {
            self.pop();
            return 0;
        }
        self.standing = standing;
        rows
    }
}
