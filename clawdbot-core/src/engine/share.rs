//! What a sequence takes part in a pass with.

use super::entry::SequenceId;

/// A sequence's share of a pass: tokens `start .. start + rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) id: SequenceId,
    pub(super) start: usize,
    pub(super) rows: usize,
    /// Number of rows, counted from the end, whose logits are needed.
    pub(super) logits: usize,
    pub(super) states: StatePositions,
}

/// Positions whose hidden states are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatePositions {
    pub(super) first: usize,
    pub(super) count: usize,
}
