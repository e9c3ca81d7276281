//! How many tokens of each sequence memory allows in the next pass, and how many drafts after them.

use super::entry::{Entry, Limits, Memory, PAGE, SequenceId};
use super::risk::{Demand, Standing};
use super::room::{Future, peak};
use crate::cache::Pages;

/// How many later requests may be admitted before one that does not fit yet.
const MAX_OVERTAKEN: u32 = 8;
/// Number of requests that do not fit after which no further ones are tried.
const MAX_BLOCKED: usize = 3;

/// What memory allows a sequence in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Grant {
    pub(super) rows: usize,
    /// Most drafts after these rows.
    pub(super) drafts: usize,
}

impl Grant {
    /// Memory is no matter.
    pub(super) const ALL: Grant = Grant { rows: usize::MAX, drafts: usize::MAX };

    fn of(rows: usize) -> Self {
        Grant { rows, drafts: 0 }
    }
}

/// What is granted to each of `entries`, which are in order of rank. Requests that a later one overtakes are added to
/// `overtaken`.
pub(super) fn grants<P: Pages>(
    memory: &Memory<'_, P>,
    entries: &[Entry],
    limits: &Limits,
    overtaken: &mut Vec<SequenceId>,
) -> Vec<Grant> {
    let admitted = entries.iter().filter(|entry| entry.turn.admitted);
    let mut ledger = Ledger::new(memory, limits, admitted);
    let mut grants = vec![Grant::default(); entries.len()];
    let admitted = entries.iter().zip(&mut grants).filter(|(entry, _)| entry.turn.admitted);
    for (index, (entry, grant)) in admitted.enumerate() {
        *grant = ledger.continue_admitted(index, entry);
        if grant.rows == 0 && ledger.standing.leads_all(index, ledger.demands.len()) {
            // The guests would lose whatever they computed now.
            return vec![Grant::default(); entries.len()];
        }
    }
    // Nothing is admitted while an admitted sequence waits for pages.
    if ledger.waits {
        return grants;
    }
    let mut blocked: Vec<&Entry> = Vec::new();
    for (entry, grant) in entries.iter().zip(&mut grants).filter(|(entry, _)| !entry.turn.admitted) {
        if blocked.iter().any(|entry| entry.turn.overtaken >= MAX_OVERTAKEN) || blocked.len() > MAX_BLOCKED {
            break;
        }
        *grant = Grant::of(ledger.admit(entry));
        match grant.rows {
            0 => blocked.push(entry),
            _ => overtaken.extend(blocked.iter().map(|entry| entry.id)),
        }
    }
    grants
}

/// Bytes promised to admitted sequences.
struct Ledger<'a, P: Pages> {
    memory: &'a Memory<'a, P>,
    limits: &'a Limits,
    demands: Vec<Demand>,
    futures: Vec<Future>,
    standing: Standing,
    /// Bytes that nobody holds.
    free: u64,
    /// Sum of the most bytes of each. While that fits, everything is safe.
    total: u64,
    /// Whether an admitted sequence waits for pages.
    waits: bool,
    /// Whether one waits because too much would be at risk.
    frozen: bool,
}

impl<'a, P: Pages> Ledger<'a, P> {
    fn new<'e>(
        memory: &'a Memory<'a, P>,
        limits: &'a Limits,
        admitted: impl Iterator<Item = &'e Entry>,
    ) -> Self {
        let standing = Standing::default();
        let (demands, futures, free, total) = (Vec::new(), Vec::new(), memory.capacity, 0);
        let mut ledger =
            Ledger { memory, limits, demands, futures, standing, free, total, waits: false, frozen: false };
        admitted.for_each(|entry| ledger.push(entry, entry.held, 0));
        ledger.standing = ledger.stand();
        ledger
    }

    fn push(&mut self, entry: &Entry, held: u64, granted: usize) {
        let demand = Demand {
            rank: entry.rank,
            held,
            most: self.memory.most(entry, self.limits).max(held),
            computed: entry.computed,
            granted,
            last: entry.last,
            rows: entry.rows(self.limits),
            open_ended: entry.open_ended,
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

    /// What is granted to an admitted sequence. Drafts get no page for themselves; a guest, whose work may be lost, gets none.
    fn continue_admitted(&mut self, index: usize, entry: &Entry) -> Grant {
        let rows = self.continue_rows(index, entry);
        let end = entry.computed + rows;
        let in_page = end.next_multiple_of(PAGE) - end;
        let drafts = if rows == 0 || self.standing.is_guest(index) { 0 } else { in_page };
        Grant { rows, drafts }
    }

    /// Rows granted to an admitted sequence.
    fn continue_rows(&mut self, index: usize, entry: &Entry) -> usize {
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
        // Rows that fit into the pages it already has.
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

    /// Takes `more` bytes for `rows` tokens, unless that puts too much at risk.
    fn take(&mut self, index: usize, more: u64, rows: usize) -> bool {
        if more > self.free {
            return false;
        }
        let before = self.demands[index];
        (self.demands[index].held, self.demands[index].granted) = (before.held + more, rows);
        let standing = self.stand();
        // A sequence that takes nothing from others is never held up.
        if standing.is_sound() || standing.has(&self.standing) && !standing.is_guest(index) {
            self.free -= more;
            self.standing = standing;
            return true;
        }
        self.demands[index] = before;
        false
    }

    /// Rows granted to a sequence that is not admitted yet; 0 if it stays out.
    fn admit(&mut self, entry: &Entry) -> usize {
        let rows = entry.rows(self.limits);
        let held = self.memory.pages.bytes(entry.computed + rows, rows);
        if held > self.free {
            return 0;
        }
        // It counts as a guest with its whole prompt, so that it is not stopped in the middle of it.
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
