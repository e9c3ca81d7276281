//! The states of a recurrent layer, for each sequence of a batch.

use crate::cache::{KvCache, PageData, PageId, State};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;

/// A recurrent layer's state of one sequence of a batch.
pub(super) struct SequenceState<'a> {
    /// First row in the batch.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// `[floats]`: the state, to be updated from before the rows to after them.
    pub(crate) live: &'a mut [f32],
    /// In the order of the rows.
    pub(crate) snapshots: Vec<Snapshot<'a>>,
}

/// A copy of a state that a pass is to take.
pub(super) struct Snapshot<'a> {
    /// After how many of the sequence's rows.
    pub(crate) after: usize,
    /// Where it goes.
    pub(crate) copy: &'a mut [f32],
}

/// A page to be found.
struct Wanted {
    page: PageId,
    /// Index of its sequence.
    sequence: usize,
    /// After how many of its rows it is written, if it is a snapshot.
    after: Option<usize>,
}

/// The states of `layer`, one for each sequence of `batch` that has rows.
///
/// # Errors
/// `Internal` when one is missing, or is not where the rows start.
pub(super) fn sequence_states<'a>(
    cache: &'a mut KvCache,
    layer: usize,
    batch: &Batch<'_>,
    floats: usize,
) -> Result<Vec<SequenceState<'a>>> {
    let missing = || Error::internal("a state of the cache is missing");
    let group = cache.group_of(layer);
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    let mut row = 0;
    for sequence in batch.sequences.iter().filter(|sequence| sequence.rows > 0) {
        let start = batch.positions[row];
        let table = sequence.tables.states(group).ok_or_else(missing)?;
        let live = table.live().ok_or_else(missing)?;
        if live.tokens != start {
            let tokens = live.tokens;
            return Err(Error::internal(format!("a state after {tokens} tokens for a pass from {start} on")));
        }
        let of_pass = start..start + sequence.rows;
        let snapshots = table.snapshots().filter(|snapshot| of_pass.contains(&snapshot.tokens));
        let index = places.len();
        wanted.push(Wanted { page: live.page, sequence: index, after: None });
        let of_snapshot =
            |State { tokens, page }| Wanted { page, sequence: index, after: Some(tokens - start) };
        wanted.extend(snapshots.map(of_snapshot));
        places.push((row, sequence.rows));
        row += sequence.rows;
    }
    wanted.sort_unstable_by_key(|wanted| wanted.page);
    let ids: Vec<PageId> = wanted.iter().map(|wanted| wanted.page).collect();
    let index = cache.index_of(layer);
    let pages = cache.pool_mut(layer).pages_mut(&ids);
    let mut found: Vec<(Option<&mut [f32]>, Vec<Snapshot<'_>>)> =
        places.iter().map(|_| (None, Vec::new())).collect();
    for (page, &Wanted { sequence, after, .. }) in pages.into_iter().zip(&wanted) {
        let PageData::F32(data) = page else { return Err(missing()) };
        let data = data.get_mut(index * floats..(index + 1) * floats);
        match (after, data) {
            (None, data) => found[sequence].0 = data,
            (Some(after), Some(copy)) => found[sequence].1.push(Snapshot { after, copy }),
            (Some(_), None) => return Err(missing()),
        }
    }
    let states = places.into_iter().zip(found).map(|((row, rows), (live, mut snapshots))| {
        snapshots.sort_unstable_by_key(|snapshot| snapshot.after);
        Some(SequenceState { row, rows, live: live?, snapshots })
    });
    states.collect::<Option<_>>().ok_or_else(missing)
}

/// Inputs of a convolution: the last ones of earlier passes, then those of this pass.
#[derive(Clone, Copy)]
pub(crate) struct History<'a> {
    /// `[kernel_size - 1, width]`, the oldest first
    pub(crate) earlier: &'a [f32],
    /// From the sequence's first row on
    pub(crate) rows: &'a [f32],
    /// From row to row
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

impl<'a> History<'a> {
    /// The `kernel_size` inputs of row `row`: the oldest first, its own last.
    pub(crate) fn seen_by(&self, row: usize, kernel_size: usize) -> Vec<&'a [f32]> {
        (row + 1..row + 1 + kernel_size).map(|index| self.input(index - 1, kernel_size)).collect()
    }

    /// Input `index`, counted from the first of `earlier`.
    fn input(&self, index: usize, kernel_size: usize) -> &'a [f32] {
        match index.checked_sub(kernel_size - 1) {
            None => &self.earlier[index * self.width..][..self.width],
            Some(row) => &self.rows[row * self.stride..][..self.width],
        }
    }

    /// The value of `earlier` after `rows` rows.
    pub(crate) fn after(&self, rows: usize, kernel_size: usize) -> Vec<f32> {
        (rows..rows + kernel_size - 1).flat_map(|index| self.input(index, kernel_size)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_goes_on_over_passes() {
        // Inputs 1, 2, ... of one channel, and something besides.
        let rows = [3.0, -1.0, 4.0, -1.0, 5.0, -1.0];
        let history = History { earlier: &[1.0, 2.0], rows: &rows, stride: 2, width: 1 };
        let seen = |row| history.seen_by(row, 3).concat();
        assert_eq!([seen(0), seen(1), seen(2)], [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]);
        let after = [0, 1, 3].map(|rows| history.after(rows, 3));
        assert_eq!(after, [[1.0, 2.0], [2.0, 3.0], [4.0, 5.0]]);
        assert_eq!(history.after(2, 1), [0.0; 0]);
    }
}
