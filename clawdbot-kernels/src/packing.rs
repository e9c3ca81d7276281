//! Packs rows of sources into panels: quantized, converted, or as they are stored.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::codes::CodeLayout;
use super::format::{Coding, ComputeFormat, Sizes};
use super::group_scales::{GroupScales, ScalesPlace, StoredScale, put_scales};
use super::panels::{CodePanels, Panels, interleave};
use super::quantize::{WeightRow, groups};
use super::simd::LANES;
use super::{KernelSet, Result};
use crate::error::Error;
use crate::memory::{AlignedBuf, Pod};
use crate::threads::Region;

/// Where rows of weights come from.
pub trait RowSource: Send + Sync {
    /// Rows: output columns of the product.
    fn rows(&self) -> usize;
    /// Weights per row: k.
    fn cols(&self) -> usize;
    /// Reads rows `rows` as they are stored, each of the same number of bytes, to `buffer`, whose contents are replaced. A
    /// source that computes its rows leaves the buffer empty.
    ///
    /// # Errors
    /// When they cannot be read.
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> Result<()> {
        let _ = rows;
        buffer.clear();
        Ok(())
    }
    /// Writes row `row` to `out`, `[cols]`. `stored` are its bytes from [`fetch`](Self::fetch).
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]);
    /// The format in which the codes and scales of the source are computed with as they are stored; none where it has no
    /// codes, or they must be converted.
    fn own_format(&self) -> Option<ComputeFormat> {
        None
    }
    /// Writes the codes, `[cols]` (of int4 in 0..=15), and appends the scales, one for each group, of a source with a format
    /// of its own.
    ///
    /// # Errors
    /// `InvalidWeights` for codes or scales that the format does not allow.
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> Result<()> {
        let _ = (stored, codes, scales);
        Err(Error::Internal(format!("row {row} is not stored as codes")))
    }
}

/// The rows of several sources, numbered consecutively.
pub(super) struct Rows<'a> {
    pub(super) sources: &'a [&'a dyn RowSource],
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) order: PanelOrder,
}

/// Which panel comes after which.
#[derive(Clone, Copy)]
pub(super) enum PanelOrder {
    /// The sources one after another.
    Sources,
    /// Two sources, a gate and an up projection, whose panels alternate.
    Gated,
}

impl Rows<'_> {
    /// Calls `f(column, source, row of the source, its bytes as stored)` for the rows of the panel that begins with row
    /// `first`. Returns how many there are: 16, or fewer at the end.
    fn each_row(
        &self,
        first: usize,
        stored: &mut Vec<u8>,
        mut f: impl FnMut(usize, &dyn RowSource, usize, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let panel = first / LANES;
        let (sources, first, n) = match self.order {
            PanelOrder::Gated => {
                let source = &self.sources[panel % 2..=panel % 2];
                (source, panel / 2 * LANES, source[0].rows())
            }
            PanelOrder::Sources => (self.sources, first, self.n),
        };
        let columns = LANES.min(n - first);
        let mut column = 0;
        let mut source_start = 0;
        for source in sources {
            let source_end = source_start + source.rows();
            let rows = (first + column).max(source_start)..(first + columns).min(source_end);
            if !rows.is_empty() {
                let rows = rows.start - source_start..rows.end - source_start;
                source.fetch(rows.clone(), stored)?;
                let row_bytes = stored.len() / rows.len();
                for (i, row) in rows.enumerate() {
                    f(column, *source, row, &stored[i * row_bytes..][..row_bytes])?;
                    column += 1;
                }
            }
            source_start = source_end;
        }
        Ok(columns)
    }

    /// Panels of `format`, which has codes: those of sources that are stored so, as they are; other sources are quantized,
    /// which only bf16 scales allow.
    pub(super) fn pack_codes<L: CodeLayout>(
        &self,
        kernels: &KernelSet,
        region: &Region<'_>,
        format: ComputeFormat,
        sizes: &Sizes,
    ) -> Result<Panels> {
        let coding = format.coding().expect("a format of codes");
        let Coding { group, scales: kind, rotated } = coding;
        let (blocks, groups) = (self.k.div_ceil(L::BLOCK), groups(self.k, group));
        let (row_len, lines) = (blocks * L::BLOCK, kind.lines(groups));
        let panel_bytes = blocks * L::LINES * 4 * LANES;
        let mut codes = region.zeroed::<L::Byte>(sizes.data)?;
        let mut scales = region.zeroed::<u16>(sizes.scales)?;
        let per_task = self.panels_per_task(region);
        let parts = codes
            .chunks_mut((per_task * panel_bytes).max(1))
            .zip(scales.chunks_mut((per_task * lines * LANES).max(1)));
        for_each_part(region, parts, |task, (codes, scales)| {
            let mut row = AlignedBuf::<f32>::zeroed(self.k)?;
            // Rows of codes of one panel, k padded with zeros.
            let mut panel_codes = AlignedBuf::<i8>::zeroed(LANES * row_len)?;
            let mut row_scales = AlignedBuf::<u16>::zeroed(groups)?;
            let (mut stored, mut stored_scales) = (Vec::new(), Vec::new());
            let panels = codes.chunks_mut(panel_bytes).zip(scales.chunks_mut(lines * LANES));
            for (panel, (codes, scales)) in panels.enumerate() {
                let scales = scales.as_chunks_mut::<LANES>().0;
                let first = (task * per_task + panel) * LANES;
                let columns = self.each_row(first, &mut stored, |column, source, index, stored| {
                    let row_codes = &mut panel_codes[column * row_len..][..self.k];
                    if source.own_format() == Some(format) {
                        stored_scales.clear();
                        source.read_codes(index, stored, row_codes, &mut stored_scales)?;
                        L::check(index, row_codes)?;
                        let place = ScalesPlace { row: index, column, groups };
                        return put_scales(kind, scales, place, &stored_scales);
                    }
                    check_quantizable(kind, index)?;
                    source.read_row(index, stored, &mut row);
                    if rotated {
                        kernels.hadamard(&mut row);
                    }
                    let weights = WeightRow { x: &row, group, codes: row_codes, scales: &mut row_scales };
                    if !L::quantize(kernels, weights) {
                        let message = format!("row {index} has a weight that is not finite");
                        return Err(Error::invalid_row(index, message));
                    }
                    for (line, scale) in scales.iter_mut().zip(row_scales.iter()) {
                        line[column] = *scale;
                    }
                    Ok(())
                })?;
                panel_codes[columns * row_len..].fill(0);
                L::interleave(&panel_codes, codes);
            }
            Ok(())
        })?;
        Ok(L::panels(CodePanels { codes: codes.into(), scales: scales.into(), coding }))
    }

    /// Panels of floats, in k-blocks of `KB`: `convert` writes a row of them.
    pub(super) fn pack_float<T: Pod + Default, const KB: usize>(
        &self,
        region: &Region<'_>,
        data: &mut [T],
        convert: impl Fn(&[f32], &mut [T]) + Sync,
    ) -> Result<()> {
        let k_padded = self.k.next_multiple_of(KB);
        let per_task = self.panels_per_task(region);
        for_each_part(region, data.chunks_mut((per_task * k_padded * LANES).max(1)), |task, data| {
            let mut row = AlignedBuf::<f32>::zeroed(self.k)?;
            let mut panel_rows = AlignedBuf::<T>::zeroed(LANES * k_padded)?;
            let mut stored = Vec::new();
            for (panel, data) in data.chunks_mut(k_padded * LANES).enumerate() {
                let first = (task * per_task + panel) * LANES;
                let columns = self.each_row(first, &mut stored, |column, source, index, stored| {
                    source.read_row(index, stored, &mut row);
                    convert(&row, &mut panel_rows[column * k_padded..][..self.k]);
                    Ok(())
                })?;
                if columns < LANES {
                    panel_rows[columns * k_padded..].fill(T::default());
                }
                interleave::<T, KB>(&panel_rows, data);
            }
            Ok(())
        })
    }

    /// Several tasks for each thread.
    fn panels_per_task(&self, region: &Region<'_>) -> usize {
        self.n.div_ceil(LANES).div_ceil(region.threads() * 8).max(1)
    }
}

/// # Errors
/// `Internal` where weights would have to be quantized to a format that only stored codes have.
fn check_quantizable(kind: GroupScales, row: usize) -> Result<()> {
    match kind {
        GroupScales::Bf16 => Ok(()),
        _ => Err(Error::Internal(format!("row {row}: expected stored codes with {kind:?} scales"))),
    }
}

/// Calls `f(index, part)` for each part in parallel; the first error, if any.
pub(super) fn for_each_part<P: Send>(
    region: &Region<'_>,
    parts: impl Iterator<Item = P>,
    f: impl Fn(usize, P) -> Result<()> + Sync,
) -> Result<()> {
    let parts: Vec<_> = parts.map(|part| Mutex::new(Some(part))).collect();
    let first_error = Mutex::new(None);
    region.parallel(parts.len(), |index| {
        let part = parts[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = part.map(|part| f(index, part)) {
            first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    });
    first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
