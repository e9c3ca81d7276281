//! Whole matrices to codes and scales.

use super::gram::columns;
use super::round::BlockArgs;
use super::{BLOCK, Factors, GROUP};
use crate::memory::{AlignedBuf, zeros};
use crate::packing::{RowSource, for_each_part};
use crate::simd::LANES;
use crate::threads::Region;
use crate::{
    ComputeFormat, Epilogue, Error, GroupScales, KernelSet, Lhs, OutColumns, Result, StoredScale,
    gemm_columns,
};

/// Bytes of the weights that are rounded at a time; their corrections take as many.
const SLAB_BYTES: usize = 32 << 20;

/// Rows of int4 codes in groups of 32, to be packed as they are.
pub struct CodedRows {
    n: usize,
    k: usize,
    /// `[n, k]`, 0..=15
    codes: Vec<i8>,
    /// `[n, groups]`, bf16
    scales: Vec<u16>,
}

impl CodedRows {
    /// Bytes that the rows take, and what it takes to make them; none on overflow.
    pub fn bytes(n: usize, k: usize) -> Option<u64> {
        let (n, k) = (n as u64, k as u64);
        let rows = n.checked_mul(k.checked_add(k.div_ceil(GROUP as u64).checked_mul(2)?)?)?;
        rows.checked_add((2 * SLAB_BYTES as u64).max(k.checked_mul(8 * LANES as u64)?))?
            .checked_add(k.checked_mul(4 * BLOCK as u64)?)
    }

    /// The rows of `source`, rounded with `factors`; none if `go_on`, which is asked now and then, says to stop.
    ///
    /// # Errors
    /// `InvalidWeights` for a weight that is not finite, or where the factors are of another k; `OutOfMemory` without memory.
    pub fn round(
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        source: &dyn RowSource,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<Self>> {
        let (n, k) = (source.rows(), source.cols());
        if k != factors.k() {
            let message = format!("expected rows of {} weights, found {k}", factors.k());
            return Err(Error::invalid_weights(message));
        }
        let groups = k.div_ceil(GROUP);
        let memory =
            || Error::out_of_memory(format!("the codes of {n} x {k} weights do not fit into memory"));
        let mut codes = n.checked_mul(k).and_then(zeros::<i8>).ok_or_else(memory)?;
        let mut scales = zeros::<u16>(n * groups).ok_or_else(memory)?;
        let rows = (SLAB_BYTES / 4 / k.max(1) / LANES * LANES).max(LANES);
        let within: Vec<Vec<f32>> = (0..factors.blocks()).map(|b| factors.within(b)).collect();
        let slabs = codes.chunks_mut((rows * k).max(1)).zip(scales.chunks_mut((rows * groups).max(1)));
        for (slab, (codes, scales)) in slabs.enumerate() {
            if !go_on() {
                return Ok(None);
            }
            let mut slab = Slab::read(region, factors, source, slab * rows, codes.len() / k)?;
            for (b, within) in within.iter().enumerate() {
                slab.round(kernels, region, factors, b, within, codes, scales)?;
            }
        }
        Ok(Some(CodedRows { n, k, codes, scales }))
    }
}

impl RowSource for CodedRows {
    fn rows(&self) -> usize {
        self.n
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        let scales = &self.scales[row * self.k.div_ceil(GROUP)..];
        let codes = self.codes[row * self.k..][..self.k].chunks(GROUP);
        for ((out, codes), &scale) in out.chunks_mut(GROUP).zip(codes).zip(scales) {
            let scale = f32::from_bits(u32::from(scale) << 16);
            out.iter_mut().zip(codes).for_each(|(out, &code)| *out = f32::from(code - 8) * scale);
        }
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        Some(ComputeFormat::Int4 { group: GROUP, scales: GroupScales::Bf16, rotated: false })
    }
    fn read_codes(
        &self,
        row: usize,
        _: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> Result<()> {
        let groups = self.k.div_ceil(GROUP);
        codes.copy_from_slice(&self.codes[row * self.k..][..self.k]);
        scales.extend(self.scales[row * groups..][..groups].iter().map(|&bits| StoredScale::One(bits)));
        Ok(())
    }
}

/// Some rows, with their columns in the order of rounding.
struct Slab {
    rows: usize,
    /// `[rows, k]`
    weights: AlignedBuf<f32>,
    /// `[rows, k]`: what the errors of earlier blocks add
    corrections: AlignedBuf<f32>,
    /// `[rows, BLOCK]`: of the block that was rounded last
    errors: AlignedBuf<f32>,
}

impl Slab {
    fn read(
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
        Ok(Slab { rows, weights, corrections, errors: AlignedBuf::zeroed(rows * BLOCK)? })
    }

    /// Rounds block `b`, and corrects the blocks after it. `codes` is `[rows, k]`, `scales` `[rows, groups]`.
    #[expect(clippy::too_many_arguments, reason = "the block, its factors, and where its codes go")]
    fn round(
        &mut self,
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        b: usize,
        within: &[f32],
        codes: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        let (k, columns) = (factors.k(), columns(factors.k(), b));
        let (width, groups) = (columns.len(), k.div_ceil(GROUP));
        let errors = &mut self.errors[..self.rows * width];
        let parts = codes.chunks_mut(LANES * k).zip(scales.chunks_mut(LANES * groups));
        let parts = parts.zip(errors.chunks_mut(LANES * width));
        let (weights, corrections) = (&self.weights, &self.corrections);
        for_each_part(region, parts, |tile, ((codes, scales), errors)| {
            let mut own = Tile::new(width);
            let at = tile * LANES * k + columns.start;
            turn(&weights[at..], k, codes.len() / k, &mut own.weights);
            turn(&corrections[at..], k, codes.len() / k, &mut own.corrections);
            kernels.round_block.call(BlockArgs {
                weights: &own.weights,
                corrections: &own.corrections,
                factors: within,
                importance: &factors.importance[columns.clone()],
                codes: &mut own.codes,
                errors: &mut own.errors,
                scales: &mut own.scales,
            });
            for (row, codes) in codes.chunks_exact_mut(k).enumerate() {
                for (place, lanes) in own.codes.iter().enumerate() {
                    codes[factors.order[columns.start + place]] = lanes[row];
                }
                for (g, lanes) in own.scales.iter().enumerate() {
                    scales[row * groups + factors.order[columns.start + g * GROUP] / GROUP] = lanes[row];
                }
                for (error, lanes) in errors[row * width..][..width].iter_mut().zip(&own.errors) {
                    *error = lanes[row];
                }
            }
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

#[cfg(test)]
mod tests {
    use super::super::{Gram, MeanSquares};
    use super::*;
    use crate::dispatch::{available, select};
    use crate::threads::ThreadPool;
    use crate::{PackedMatrix, Result};

    /// Some numbers, roughly normal.
    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
    }

    /// Correlated inputs, some columns larger.
    fn inputs(tokens: usize, k: usize) -> Vec<f32> {
        let (own, common) = (noise(tokens * k, 1), noise(tokens * 8, 2));
        let mut x = own;
        for (t, x) in x.chunks_exact_mut(k).enumerate() {
            for (j, x) in x.iter_mut().enumerate() {
                let size = if j % 37 == 5 { 6.0 } else { 1.0 };
                *x = size * (*x * 0.5 + common[t * 8 + j % 8] + common[t * 8 + j / 3 % 8]);
            }
        }
        x
    }

    struct Floats(Vec<f32>, usize);
    impl RowSource for Floats {
        fn rows(&self) -> usize {
            self.0.len() / self.1
        }
        fn cols(&self) -> usize {
            self.1
        }
        fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
            out.copy_from_slice(&self.0[row * self.1..][..self.1]);
        }
    }

    fn coded(
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        weights: &Floats,
    ) -> Result<CodedRows> {
        Ok(CodedRows::round(kernels, region, factors, weights, || true)?.unwrap())
    }

    fn rounded(kernels: &KernelSet, threads: usize, x: &[f32], weights: &Floats) -> CodedRows {
        let round = |region: &Region<'_>| -> Result<CodedRows> {
            let mut gram = Gram::new(weights.1)?;
            for x in x.chunks(256 * weights.1) {
                gram.add(kernels, region, x)?;
            }
            coded(kernels, region, &Factors::new(kernels, region, &gram, 0.01)?, weights)
        };
        ThreadPool::new(threads).region(round).unwrap().unwrap()
    }

    /// The sum of squared errors of the outputs.
    fn cost(x: &[f32], weights: &Floats, row: impl Fn(usize, &mut [f32])) -> f64 {
        let k = weights.1;
        let mut out = vec![0.0; k];
        let mut sum = 0.0;
        for (r, weights) in weights.0.chunks_exact(k).enumerate() {
            row(r, &mut out);
            let errors: Vec<f32> = weights.iter().zip(&out).map(|(w, out)| w - out).collect();
            for x in x.chunks_exact(k) {
                let error: f32 = x.iter().zip(&errors).map(|(x, error)| x * error).sum();
                sum += f64::from(error).powi(2);
            }
        }
        sum
    }

    #[test]
    fn outputs_err_less_than_of_weights_rounded_to_nearest() {
        let kernels = select(None).unwrap();
        for (n, k) in [(40, 320), (16, 32), (17, 100), (1, 200)] {
            let (x, weights) = (inputs(512, k), Floats(noise(n * k, 3), k));
            let found = rounded(kernels, 2, &x, &weights);
            let format = found.own_format().unwrap();
            let nearest = ThreadPool::new(2)
                .region(|region| PackedMatrix::pack(kernels, region, format, &[&weights]))
                .unwrap()
                .unwrap();
            let of_nearest = cost(&x, &weights, |row, out| nearest.read_row(kernels, row, out));
            let of_feedback = cost(&x, &weights, |row, out| found.read_row(row, &[], out));
            assert!(of_feedback < 0.6 * of_nearest, "{n} x {k}: {of_feedback} {of_nearest}");
            let means = x.chunks_exact(k).fold(MeanSquares::new(k), |mut means, x| {
                means.add(x);
                means
            });
            let round =
                |region: &Region<'_>| coded(kernels, region, &Factors::diagonal(means.relative()), &weights);
            let weighted = ThreadPool::new(1).region(round).unwrap().unwrap();
            let of_weighted = cost(&x, &weights, |row, out| weighted.read_row(row, &[], out));
            assert!(of_weighted < 1.02 * of_nearest, "{n} x {k}: {of_weighted} {of_nearest}");
        }
    }

    #[test]
    fn without_correlations_it_is_weighted_rounding() {
        let (n, k) = (20, 96);
        // One value in each input, smaller from column to column: nothing to make up for, and columns keep their order.
        let mut x = vec![0.0; 192 * k];
        (0..192).for_each(|t| x[t * k + t / 2] = 2.0 - (t / 2) as f32 / 64.0);
        let kernels = select(None).unwrap();
        let weights = Floats(noise(n * k, 5), k);
        ThreadPool::new(1)
            .region(|region| {
                let mut gram = Gram::new(k).unwrap();
                gram.add(kernels, region, &x).unwrap();
                let factors = Factors::new(kernels, region, &gram, 0.0).unwrap();
                let plain = Factors::diagonal(factors.importance.clone());
                let found = coded(kernels, region, &factors, &weights).unwrap();
                let expected = coded(kernels, region, &plain, &weights).unwrap();
                assert!(found.codes == expected.codes && found.scales == expected.scales);
                for (importance, mean) in factors.importance.iter().zip(gram.mean_squares()) {
                    let first = factors.importance[0] / gram.mean_squares()[0];
                    assert!((importance / mean - first).abs() < 1e-4 * first);
                }
            })
            .unwrap();
    }

    #[test]
    fn every_set_and_number_of_threads_gives_the_same_codes() {
        let (n, k) = (35, 300);
        let (x, weights) = (inputs(300, k), Floats(noise(n * k, 7), k));
        let expected = rounded(select(Some("scalar")).unwrap(), 1, &x, &weights);
        for kernels in available() {
            for threads in [1, 2, 3] {
                let found = rounded(kernels, threads, &x, &weights);
                assert!(found.codes == expected.codes, "{}, {threads}", kernels.name);
                assert!(found.scales == expected.scales, "{}, {threads}", kernels.name);
            }
        }
    }

    #[test]
    fn weights_that_cannot_be_rounded() {
        let kernels = select(None).unwrap();
        ThreadPool::new(1)
            .region(|region| {
                let factors = Factors::diagonal(vec![1.0; 40]);
                let mut values = vec![0.0; 80];
                let zeros = coded(kernels, region, &factors, &Floats(values.clone(), 40)).unwrap();
                assert!(zeros.codes.iter().all(|&code| code == 8) && zeros.scales.iter().all(|&s| s == 0));
                let source = Floats(values.clone(), 40);
                assert!(CodedRows::round(kernels, region, &factors, &source, || false).unwrap().is_none());
                values[41] = f32::INFINITY;
                let error = coded(kernels, region, &factors, &Floats(values, 40)).err().unwrap();
                assert!(error.to_string().contains("row 1"), "{error}");
                let factors = Factors::diagonal(vec![1.0; 32]);
                assert!(coded(kernels, region, &factors, &Floats(vec![0.0; 40], 40)).is_err());
            })
            .unwrap();
    }
}
