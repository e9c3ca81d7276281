//! Some rows of a matrix, rounded block by block.

use super::gram::columns;
use super::round::BlockArgs;
use super::{BLOCK, Drift, Factors, GROUP};
use crate::memory::AlignedBuf;
use crate::packing::{RowSource, for_each_part};
use crate::simd::LANES;
use crate::threads::Region;
use crate::{Epilogue, Error, KernelSet, Lhs, OutColumns, Result, gemm, gemm_columns};

/// Rows, with their columns in the order of rounding.
pub(super) struct Slab {
    rows: usize,
    /// `[rows, k]`
    weights: AlignedBuf<f32>,
    /// `[rows, k]`: what aim and errors of earlier blocks add
    corrections: AlignedBuf<f32>,
    /// `[rows, BLOCK]`, twice: a block's columns, and what becomes of them
    blocks: [AlignedBuf<f32>; 2],
}

/// Where the codes and scales of a slab go.
pub(super) struct Coded<'a> {
    /// `[rows, k]`, 0..=15
    pub(super) codes: &'a mut [i8],
    /// `[rows, groups]`, bf16
    pub(super) scales: &'a mut [u16],
}

impl Coded<'_> {
    /// Those of 16 rows each.
    fn tiles(&mut self, k: usize) -> impl Iterator<Item = Coded<'_>> {
        let codes = self.codes.chunks_mut(LANES * k);
        codes
            .zip(self.scales.chunks_mut(LANES * k.div_ceil(GROUP)))
            .map(|(codes, scales)| Coded { codes, scales })
    }
}

impl Slab {
    /// The rows `first..first + rows` of `source`.
    ///
    /// # Errors
    /// `InvalidWeights` for a weight that is not finite; `OutOfMemory` without memory.
    pub(super) fn read(
        region: &Region<'_>,
        factors: &Factors,
        source: &dyn RowSource,
        first: usize,
        rows: usize,
    ) -> Result<Self> {
        let k = factors.k();
        let mut weights = AlignedBuf::<f32>::zeroed(rows * k)?;
        for_each_part(region, weights.chunks_mut(LANES * k), |tile, weights| {
            let mut row = AlignedBuf::<f32>::zeroed(k)?;
            let (start, count) = (first + tile * LANES, weights.len() / k);
            let mut stored = Vec::new();
            source.fetch(start..start + count, &mut stored)?;
            let row_bytes = stored.len() / count;
            for (i, weights) in weights.chunks_exact_mut(k).enumerate() {
                source.read_row(start + i, &stored[i * row_bytes..][..row_bytes], &mut row);
                if !row.iter().all(|weight| weight.is_finite()) {
                    let message = format!("row {} has a weight that is not finite", start + i);
                    return Err(Error::invalid_row(start + i, message));
                }
                for (weight, &column) in weights.iter_mut().zip(&factors.order) {
                    *weight = row[column];
                }
            }
            Ok(())
        })?;
        let corrections = AlignedBuf::zeroed(rows * k)?;
        let blocks = [AlignedBuf::zeroed(rows * BLOCK)?, AlignedBuf::zeroed(rows * BLOCK)?];
        Ok(Slab { rows, weights, corrections, blocks })
    }

    /// Makes the weights ones whose outputs, if nothing were rounded, would be nearest to those with `drift`; its rows from
    /// `first` on.
    ///
    /// With `c` the sums of `t^T x`, these are `W + c H^-1`. `c = z U^T` is all that is solved for: rounding corrects what
    /// follows for `z / D` as for errors.
    ///
    /// # Errors
    /// `InvalidArgument` where such weights are not finite; `OutOfMemory` without memory.
    pub(super) fn aim(
        &mut self,
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        drift: &Drift,
        first: usize,
    ) -> Result<()> {
        let k = factors.k();
        let Some(scale) = factors.scale() else { return Ok(()) };
        let sums = &drift.sums[first * k..(first + self.rows) * k];
        let Slab { rows, corrections, blocks: [of_block, solved], .. } = self;
        region.parallel_chunks_mut(corrections, k, |row, values| {
            for (value, &column) in values.iter_mut().zip(&factors.order) {
                *value = sums[row * k + column] * scale;
            }
        });
        for b in (0..factors.blocks()).rev() {
            let Some(solving) = factors.solving(kernels, region, b)? else { return Ok(()) };
            let columns = columns(k, b);
            let width = columns.len();
            let (of_block, solved) = (&mut of_block[..*rows * width], &mut solved[..*rows * width]);
            for (to, row) in of_block.chunks_exact_mut(width).zip(corrections.chunks_exact(k)) {
                to.copy_from_slice(&row[columns.clone()]);
            }
            gemm(kernels, region, Lhs::F32(of_block), *rows, &solving.own, solved, Epilogue::default());
            for (row, solved) in corrections.chunks_exact_mut(k).zip(solved.chunks_exact(width)) {
                row[columns.clone()].copy_from_slice(solved);
            }
            if let Some(before) = &solving.before {
                let out = OutColumns { out: &mut *corrections, columns: 0..columns.start, stride: k };
                let epilogue = Epilogue { residual: true, ..Epilogue::default() };
                gemm_columns(kernels, region, Lhs::F32(solved), *rows, before, out, epilogue);
            }
        }
        for_each_part(region, corrections.chunks_mut(k), |_, row| {
            row.iter_mut().zip(&factors.importance).for_each(|(z, importance)| *z /= importance);
            match row.iter().all(|z| z.is_finite()) {
                true => Ok(()),
                false => Err(Error::InvalidArgument("outputs that no finite weights give".to_owned())),
            }
        })
    }

    /// Rounds block `b`, and corrects the blocks after it. `within` is [`Factors::within`].
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub(super) fn round(
        &mut self,
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        (b, within): (usize, &[f32]),
        mut to: Coded<'_>,
    ) -> Result<()> {
        let (k, columns) = (factors.k(), columns(factors.k(), b));
        let width = columns.len();
        let errors = &mut self.blocks[0][..self.rows * width];
        let (weights, corrections) = (&self.weights, &self.corrections);
        let parts = to.tiles(k).zip(errors.chunks_mut(LANES * width));
        for_each_part(region, parts, |tile, (to, errors)| {
            let rows = errors.len() / width;
            let at = tile * LANES * k + columns.start;
            let mut own = Tile::new(width);
            turn(&weights[at..], k, rows, &mut own.weights);
            turn(&corrections[at..], k, rows, &mut own.corrections);
            kernels.round_block.call(BlockArgs {
                weights: &own.weights,
                corrections: &own.corrections,
                factors: within,
                importance: &factors.importance[columns.clone()],
                codes: &mut own.codes,
                errors: &mut own.errors,
                scales: &mut own.scales,
            });
            let place = Place { factors, start: columns.start };
            place.put_codes(&own.codes, &own.scales, to);
            turn_back(&own.errors, errors, width, rows);
            Ok(())
        })?;
        if let Some(after) = factors.after(kernels, region, b)? {
            let out = OutColumns { out: &mut self.corrections, columns: columns.end..k, stride: k };
            let epilogue = Epilogue { residual: true, ..Epilogue::default() };
            gemm_columns(kernels, region, Lhs::F32(errors), self.rows, &after, out, epilogue);
        }
        Ok(())
    }
}

/// A block's first place, and what the places are.
struct Place<'a> {
    factors: &'a Factors,
    start: usize,
}

impl Place<'_> {
    /// Writes a block of up to 16 rows.
    fn put_codes(&self, codes: &[[i8; LANES]], scales: &[[u16; LANES]], to: Coded<'_>) {
        let (k, order) = (self.factors.k(), &self.factors.order[self.start..]);
        let groups = k.div_ceil(GROUP);
        for (row, (to_codes, to_scales)) in
            to.codes.chunks_exact_mut(k).zip(to.scales.chunks_exact_mut(groups)).enumerate()
        {
            for (codes, &column) in codes.iter().zip(order) {
                to_codes[column] = codes[row];
            }
            for (scales, &column) in scales.iter().zip(order.iter().step_by(GROUP)) {
                to_scales[column / GROUP] = scales[row];
            }
        }
    }
}

/// The columns of a block of 16 rows, see [`BlockArgs`].
struct Tile {
    weights: Vec<[f32; LANES]>,
    corrections: Vec<[f32; LANES]>,
    codes: Vec<[i8; LANES]>,
    errors: Vec<[f32; LANES]>,
    scales: Vec<[u16; LANES]>,
}

impl Tile {
    fn new(width: usize) -> Self {
        Tile {
            weights: vec![[0.0; LANES]; width],
            corrections: vec![[0.0; LANES]; width],
            codes: vec![[0; LANES]; width],
            errors: vec![[0.0; LANES]; width],
            scales: vec![[0; LANES]; width.div_ceil(GROUP)],
        }
    }
}

/// Up to 16 rows, `stride` apart, to columns.
fn turn(rows: &[f32], stride: usize, count: usize, columns: &mut [[f32; LANES]]) {
    for row in 0..count {
        for (column, &x) in columns.iter_mut().zip(&rows[row * stride..]) {
            column[row] = x;
        }
    }
}

/// The reverse of [`turn`].
fn turn_back(columns: &[[f32; LANES]], rows: &mut [f32], stride: usize, count: usize) {
    for row in 0..count {
        for (column, x) in columns.iter().zip(&mut rows[row * stride..]) {
            *x = column[row];
        }
    }
}
