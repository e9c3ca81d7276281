//! What a sequence takes part in a pass with.

use super::entry::SequenceId;

/// A sequence's share of a pass: tokens `start .. start + rows`, the last `drafts` of which are guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) id: SequenceId,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) drafts: usize,
    /// Most drafts that it may have.
    pub(super) room: usize,
    /// Number of rows, counted from the end, whose logits are needed.
    pub(super) logits: usize,
    pub(super) states: StatePositions,
}

impl Share {
    /// Rows that are no guesses.
    pub(super) fn certain(&self) -> usize {
        self.rows - self.drafts
    }

    /// Whether it is a sequence's last token, from which the next one follows.
    pub(super) fn decodes(&self) -> bool {
        self.certain() == 1 && self.logits == self.rows
    }
}

/// Positions whose hidden states are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatePositions {
    pub(super) first: usize,
    pub(super) count: usize,
}
