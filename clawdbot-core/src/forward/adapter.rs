//! LoRA adapters in memory, and the rows of a batch that they belong to.

use std::collections::HashMap;
use std::ops::Range;

use clawdbot_kernels::PackedMatrix;

use crate::runtime::Reservation;

/// An adapter in memory.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// Unique, also among adapters that are loaded one after another under the same name
    pub(crate) id: u64,
    /// By the name of the first projection, see `Linear::name`
    pub(crate) sites: HashMap<String, Site>,
    /// Largest rank of a site
    pub(crate) rank: usize,
    /// Largest number of columns of a site
    pub(crate) columns: usize,
    /// Rows of the buffers that are reserved with it.
    pub(crate) rows: u64,
    pub(crate) reservation: Reservation,
}

/// An adapter's matrices for projections that are computed as one: `x A B` is added.
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
