//! LoRA adapters in memory, and the rows of a batch that they belong to.

use std::collections::HashMap;
use std::ops::Range;

use clawdbot_kernels::PackedMatrix;

use crate::runtime::Reservation;

/// An adapter in memory.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// Tells adapters apart, those of one name loaded one after another too.
    pub(crate) id: u64,
    /// By the name of the first of the projections.
    pub(crate) sites: HashMap<String, Site>,
    /// Most ranks, and most columns, of a site.
    pub(crate) rank: usize,
    pub(crate) columns: usize,
    pub(crate) _reservation: Reservation,
}

/// What an adapter adds to projections that are computed as one.
pub(crate) struct Site {
    /// k -> ranks
    pub(crate) a: PackedMatrix,
    /// ranks -> n
    pub(crate) b: PackedMatrix,
    /// `[ranks]`
    pub(crate) scales: Vec<f32>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("ranks", &self.scales.len()).finish_non_exhaustive()
    }
}

/// Consecutive rows of a batch whose sequences have an adapter.
#[derive(Debug)]
pub(crate) struct AdapterRows<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) adapter: &'a Adapter,
}
