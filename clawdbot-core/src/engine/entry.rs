//! What the scheduler knows: sequences with work, bounds of a pass, and memory, as numbers.

use super::queue::{GroupKey, Rank};
use super::risk::Work;
use super::room::{Future, peak};
use crate::cache::Pages;

/// Number of a sequence in its engine.
pub(crate) type SequenceId = u64;

/// Most rows of logits that scoring sequences get in one pass; each row has `vocab_size` floats.
pub(crate) const SCORE_ROWS: usize = 64;
/// Passes after which a sequence makes room for one that waits.
pub(crate) const TURN: u32 = 16;
/// Tokens that an open-ended request (one that may generate more than this) is expected to generate from now on.
pub(crate) const HORIZON: usize = 1024;
/// Tokens of a page: at the end of a page a sequence may have to wait for the next.
pub(super) const PAGE: usize = clawdbot_kernels::attention::PAGE_TOKENS;

/// Bounds of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most tokens.
    pub(crate) rows: usize,
    /// Most sequences.
    pub(crate) sequences: usize,
    /// Sequences are not split: one longer than `rows` gets a pass of its own.
    pub(crate) whole: bool,
    /// Most tokens of prompts in this pass, where they are split.
    pub(crate) prompts: usize,
}

/// What a sequence needs from a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Logits of its last token.
    Token,
    /// Logits of all tokens.
    Scores,
    /// Hidden states.
    States,
}

/// A sequence's place in the order of turns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Passes of its current turn; 0 while it waits for one.
    pub(crate) passes: u32,
    /// The pass since which it waits.
    pub(crate) since: u64,
    /// How many later requests were admitted before it because they needed less memory.
    pub(crate) overtaken: u32,
    /// Whether it has been admitted: it has taken part in a pass since it arrived, or since it lost its pages.
    pub(crate) admitted: bool,
}

impl Turn {
    /// It takes part in the pass that was planned.
    pub(crate) fn take_part(&mut self) {
        self.admitted = true;
        self.passes = self.passes.saturating_add(1);
    }

    /// It has work, but no part in the `pass`th pass.
    pub(crate) fn sit_out(&mut self, pass: u64) {
        if self.passes > 0 {
            (self.passes, self.since) = (0, pass);
        }
    }

    /// Where it stands among the sequences of its group that want to take part.
    pub(super) fn order(&self, rank: Rank) -> TurnOrder {
        match self.passes {
            0 => TurnOrder::Waiting { since: self.since, rank },
            passes if passes < TURN => TurnOrder::InTurn { rank },
            passes => TurnOrder::Over { passes, rank },
        }
    }
}

/// The order in which the sequences of a group get the places of a pass.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TurnOrder {
    InTurn { rank: Rank },
    Waiting { since: u64, rank: Rank },
    Over { passes: u32, rank: Rank },
}

/// A sequence with work, as the scheduler sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) id: SequenceId,
    pub(crate) rank: Rank,
    pub(crate) group: GroupKey,
    /// Tokens that its group has computed (`groups.rs`); set by the plan.
    pub(crate) served: u64,
    pub(crate) tokens: usize,
    /// Tokens in the cache or in the swap space, fewer than `tokens`.
    pub(crate) computed: usize,
    /// Most tokens that it can come to have in the cache.
    pub(crate) last: usize,
    /// Whether it is open-ended: it may generate so much that it probably ends earlier.
    pub(crate) open_ended: bool,
    /// Most rows that it has in a pass, should passes come to have more.
    pub(crate) most_rows: usize,
    pub(crate) want: Want,
    pub(crate) turn: Turn,
    /// Bytes of its pages; set only where memory is short. 0 until it is admitted: pages left from earlier requests may
    /// be taken by others.
    pub(crate) held: u64,
}

impl Entry {
    /// Tokens that are not computed yet.
    pub(super) fn left(&self) -> usize {
        self.tokens - self.computed
    }

    /// Most rows of one of its passes.
    pub(super) fn rows(&self, limits: &Limits) -> usize {
        if limits.whole { self.left() } else { self.left().min(limits.rows).min(self.most_rows) }
    }

    /// Most tokens that it is expected to have in the cache.
    fn expected(&self) -> usize {
        if self.open_ended { self.last.min(self.tokens.saturating_add(HORIZON)) } else { self.last }
    }

    pub(super) fn future(&self, limits: &Limits) -> Future {
        Future { tokens: self.tokens, last: self.expected(), rows: self.rows(limits) }
    }
}

/// A memory that may not hold everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory<'a, P: Pages> {
    /// Bytes available to all sequences with work together.
    pub(crate) capacity: u64,
    pub(crate) pages: &'a P,
    /// What was computed and what was lost so far.
    pub(crate) work: Work,
}

impl<P: Pages> Memory<'_, P> {
    /// Most bytes that a sequence may come to hold.
    pub(super) fn most(&self, entry: &Entry, limits: &Limits) -> u64 {
        self.pages.bytes(entry.last, entry.rows(limits)).min(self.capacity).max(entry.held)
    }

    /// Bytes that are missing for all sequences to have what they are expected to need at one time.
    pub(crate) fn lacking(&self, entries: &[Entry], limits: &Limits) -> u64 {
        let futures: Vec<Future> = entries.iter().map(|entry| entry.future(limits)).collect();
        peak(&futures, self.pages, u64::MAX).saturating_sub(self.capacity)
    }

    /// Whether all sequences fit when they have reached their ends. If so, nothing else about memory matters.
    pub(crate) fn is_ample(&self, entries: &[Entry], limits: &Limits) -> bool {
        let most = entries.iter().map(|entry| self.pages.bytes(entry.last, entry.rows(limits)));
        most.fold(0, u64::saturating_add) <= self.capacity
    }
}
