//! LoRA adapters: what they add to the products of a pass.

use std::cell::RefCell;

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::{Added, Epilogue, QuantizedRows};

use super::Cpu;
use super::products::matmul;
use crate::error::Result;
use crate::forward::adapter::{Adapter, AdapterRows};
use crate::forward::linear::Linear;

/// The buffers of adapters, counted in each adapter's reservation.
#[derive(Debug, Default)]
pub(crate) struct AdapterScratch {
    /// `[rows of an adapter, ranks]`
    hidden: AlignedBuf<f32>,
    /// `[rows, n]`
    added: AlignedBuf<f32>,
}

impl AdapterScratch {
    /// Makes room for a batch of `rows` rows with these adapters.
    fn reserve(&mut self, rows: usize, adapters: &[AdapterRows<'_>]) -> Result<()> {
        let most =
            |of: fn(&Adapter) -> usize| adapters.iter().map(|rows| of(rows.adapter)).max().unwrap_or(0);
        self.hidden.reserve(rows * most(|adapter| adapter.rank))?;
        Ok(self.added.reserve(rows * most(|adapter| adapter.columns))?)
    }
}

/// The adapters of a batch's rows.
pub(crate) struct BatchAdapters<'a> {
    rows: &'a [AdapterRows<'a>],
    scratch: RefCell<&'a mut AdapterScratch>,
}

impl<'a> BatchAdapters<'a> {
    /// The adapters of a batch of `rows` rows; `None` if no row has one.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn new(
        rows: usize,
        adapters: &'a [AdapterRows<'a>],
        scratch: &'a mut AdapterScratch,
    ) -> Result<Option<Self>> {
        scratch.reserve(rows, adapters)?;
        Ok((!adapters.is_empty()).then(|| BatchAdapters { rows: adapters, scratch: RefCell::new(scratch) }))
    }
}

impl Cpu<'_> {
    /// Whether an adapter of the batch's rows changes a projection.
    pub(super) fn is_adapted(&self, linear: &Linear) -> bool {
        let changes = |rows: &AdapterRows<'_>| rows.adapter.sites.contains_key(&linear.name);
        self.adapters.as_ref().is_some_and(|adapters| adapters.rows.iter().any(changes))
    }

    /// `out = x * weight + bias`, plus what the adapters of the batch's rows add, then `epilogue`. `x` and `out` have all rows
    /// of the batch, or the rows of an expert, which no adapter changes.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(super) fn adapted(
        &self,
        x: &[f32],
        rows: usize,
        linear: &Linear,
        out: &mut [f32],
        epilogue: Epilogue<'_>,
        codes: &mut QuantizedRows,
    ) -> Result<()> {
        let epilogue = Epilogue { bias: linear.bias.as_deref(), ..epilogue };
        let Some(adapters) = self.adapters.as_ref().filter(|_| self.is_adapted(linear)) else {
            return matmul(self, x, rows, &linear.weight, out, epilogue, codes);
        };
        let (n, k) = (linear.weight.n(), linear.weight.k());
        let mut scratch = adapters.scratch.borrow_mut();
        let AdapterScratch { hidden, added } = &mut **scratch;
        let added = &mut added[..rows * n];
        let mut end = 0;
        for AdapterRows { rows: range, adapter } in adapters.rows {
            let Some(site) = adapter.sites.get(&linear.name) else { continue };
            let (count, ranks) = (range.len(), site.scales.len());
            let hidden = &mut hidden[..count * ranks];
            let x = &x[range.start * k..range.end * k];
            matmul(self, x, count, &site.a, hidden, Epilogue::default(), codes)?;
            self.by_rows(hidden, ranks, |_, row| {
                row.iter_mut().zip(&site.scales).for_each(|(h, scale)| *h *= scale);
            });
            // -0.0 leaves any number unchanged when it is added.
            added[end * n..range.start * n].fill(-0.0);
            end = range.end;
            let added = &mut added[range.start * n..end * n];
            matmul(self, hidden, count, &site.b, added, Epilogue::default(), codes)?;
        }
        added[end * n..].fill(-0.0);
        let added = Some(Added { values: added, stride: n, first: 0 });
        matmul(self, x, rows, &linear.weight, out, Epilogue { added, ..epilogue }, codes)
    }
}
