//! LoRA adapters in memory, and what they add to the products of a forward pass.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::{Added, Epilogue, PackedMatrix, QuantizedRows};

use super::decoder::{Linear, Ops};
use crate::error::Result;
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

/// The buffers of adapters; each adapter has them in its reservation.
#[derive(Debug, Default)]
pub(crate) struct AdapterScratch {
    /// `[rows of an adapter, ranks]`
    hidden: AlignedBuf<f32>,
    /// `[rows, n]`
    added: AlignedBuf<f32>,
}

impl AdapterScratch {
    /// Makes room for a batch of `rows` rows with these adapters.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn reserve(&mut self, rows: usize, adapters: &[AdapterRows<'_>]) -> Result<()> {
        let most =
            |of: fn(&Adapter) -> usize| adapters.iter().map(|rows| of(rows.adapter)).max().unwrap_or(0);
        self.hidden.reserve(rows * most(|adapter| adapter.rank))?;
        Ok(self.added.reserve(rows * most(|adapter| adapter.columns))?)
    }
}

/// The adapters of a batch's rows.
pub(crate) struct BatchAdapters<'a> {
    rows: &'a [AdapterRows<'a>],
    /// Used by the thread that leads the pass, and by it alone.
    scratch: &'a Mutex<AdapterScratch>,
}

impl<'a> BatchAdapters<'a> {
    /// `None` if no row has one. `scratch` has room for them.
    pub(crate) fn new(rows: &'a [AdapterRows<'a>], scratch: &'a Mutex<AdapterScratch>) -> Option<Self> {
        (!rows.is_empty()).then_some(BatchAdapters { rows, scratch })
    }
}

impl Ops<'_> {
    /// Whether an adapter of the batch's rows changes a projection.
    pub(crate) fn is_adapted(&self, linear: &Linear) -> bool {
        let changes = |rows: &AdapterRows<'_>| rows.adapter.sites.contains_key(&linear.name);
        self.adapters.is_some_and(|adapters| adapters.rows.iter().any(changes))
    }

    /// `out = x * weight + bias` with `epilogue`, and what the adapters of the batch's rows add before it: `x` and `out` have
    /// all rows of the batch, or those of an expert, which no adapter changes.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn adapted(
        &self,
        x: &[f32],
        rows: usize,
        linear: &Linear,
        out: &mut [f32],
        epilogue: Epilogue<'_>,
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let epilogue = Epilogue { bias: linear.bias.as_deref(), ..epilogue };
        let Some(adapters) = self.adapters.filter(|_| self.is_adapted(linear)) else {
            return self.matmul(x, rows, &linear.weight, out, epilogue, quantized);
        };
        let (n, k) = (linear.weight.n(), linear.weight.k());
        let mut scratch = adapters.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let AdapterScratch { hidden, added } = &mut *scratch;
        let added = &mut added[..rows * n];
        let mut end = 0;
        for AdapterRows { rows: range, adapter } in adapters.rows {
            let Some(site) = adapter.sites.get(&linear.name) else { continue };
            let (count, ranks) = (range.len(), site.scales.len());
            let hidden = &mut hidden[..count * ranks];
            let x = &x[range.start * k..range.end * k];
            self.matmul(x, count, &site.a, hidden, Epilogue::default(), quantized)?;
            self.by_rows(hidden, ranks, |_, row| {
                row.iter_mut().zip(&site.scales).for_each(|(h, scale)| *h *= scale);
            });
            // Added to any number it leaves that as it is.
            added[end * n..range.start * n].fill(-0.0);
            end = range.end;
            let added = &mut added[range.start * n..end * n];
            self.matmul(hidden, count, &site.b, added, Epilogue::default(), quantized)?;
        }
        added[end * n..].fill(-0.0);
        let added = Some(Added { values: added, stride: n, first: 0 });
        self.matmul(x, rows, &linear.weight, out, Epilogue { added, ..epilogue }, quantized)
    }
}
