//! Quantized activations of layers that are computed one at a time.

use clawdbot_kernels::QuantizedRows;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Budget, Reservation};

/// Sizes of quantized activations: `m` rows of `k`, in groups of `group`.
#[derive(Clone, Copy)]
pub(crate) struct RowSizes {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) group: usize,
}

/// Rows that all layers of a runtime quantize to. They grow, and are freed with the last of the layers.
#[derive(Default)]
pub(crate) struct SharedRows {
    rows: QuantizedRows,
    bytes: u64,
    reservation: Option<Reservation>,
}

impl SharedRows {
    /// Room for rows of these sizes, within the budget.
    ///
    /// # Errors
    /// `OutOfBudget`.
    pub(crate) fn room(&mut self, budget: &Budget, sizes: RowSizes) -> Result<&mut QuantizedRows> {
        let RowSizes { m, k, group } = sizes;
        let bytes = QuantizedRows::bytes(m, k, group).ok_or_else(|| {
            Error::new(ErrorKind::OutOfBudget, format!("[{m}, {k}] activations do not fit into memory"))
        })?;
        if bytes > self.bytes {
            // Given back first, so that the peak is one of them.
            *self = SharedRows::default();
            self.reservation = Some(budget.reserve(bytes, "quantized activations")?);
            self.bytes = bytes;
        }
        Ok(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_grow_within_the_budget_and_give_it_back() {
        let budget = Budget::new(Some(100_000));
        let mut rows = SharedRows::default();
        let sizes = |m| RowSizes { m, k: 256, group: 128 };
        rows.room(&budget, sizes(1)).unwrap();
        let small = budget.used();
        assert_eq!(Some(small), QuantizedRows::bytes(1, 256, 128));
        rows.room(&budget, sizes(40)).unwrap();
        let large = budget.used();
        assert!(large > small);
        rows.room(&budget, sizes(2)).unwrap();
        assert_eq!(budget.used(), large);
        let error = rows.room(&budget, sizes(1000)).err().unwrap();
        assert_eq!((error.kind(), budget.used()), (ErrorKind::OutOfBudget, 0));
        assert!(rows.room(&budget, sizes(usize::MAX)).is_err());
        rows.room(&budget, sizes(1)).unwrap();
        drop(rows);
        assert_eq!(budget.used(), 0);
    }
}
