//! Whole matrices to codes and scales.

use super::slab::{Coded, Slab};
use super::{BLOCK, Drift, Factors, GROUP};
use crate::memory::zeros;
use crate::packing::RowSource;
use crate::simd::LANES;
use crate::threads::Region;
use crate::{ComputeFormat, Error, GroupScales, KernelSet, Result, StoredScale};

/// Bytes of the weights that are rounded at a time, with a block of them; what is added to them takes as many.
const SLAB_BYTES: usize = 32 << 20;

/// What the outputs of rounded weights should be.
#[derive(Clone, Copy)]
pub enum Aim<'a> {
    /// Those of the weights
    Same,
    /// Those of the weights, and besides them as much of this as the inputs explain
    Besides(&'a Drift),
}

/// Rows of int4 codes in groups of 32, to be packed as they are.
pub struct CodedRows {
    n: usize,
    k: usize,
    /// `[n, k]`, 0..=15
    codes: Vec<i8>,
    /// `[n, groups]`, bf16
    scales: Vec<u16>,
}

/// Rows that are being rounded, some at a time, so that the caller can say between regions how far it is.
pub struct Rounding<'a> {
    factors: &'a Factors,
    aim: Aim<'a>,
    source: &'a dyn RowSource,
    /// [`Factors::within`] of each block
    within: Vec<Vec<f32>>,
    rows: CodedRows,
    /// How many rows are rounded
    done: usize,
}

/// Rows of `k` weights that are rounded at a time.
fn slab_rows(k: usize) -> usize {
    (SLAB_BYTES / 4 / (k + BLOCK) / LANES * LANES).max(LANES)
}

impl CodedRows {
    /// Bytes that the rows take, and what it takes to make them; none on overflow.
    pub fn bytes(n: usize, k: usize) -> Option<u64> {
        // Weights of a slab and what is added to them, a block of both, and the factors of a block.
        let slab = (slab_rows(k).min(n) as u64).checked_mul(8 * (k as u64).checked_add(BLOCK as u64)?)?;
        let (n, k) = (n as u64, k as u64);
        let rows = n.checked_mul(k.checked_add(k.div_ceil(GROUP as u64).checked_mul(2)?)?)?;
        rows.checked_add(slab)?.checked_add(k.checked_mul(8 * BLOCK as u64)?)
    }

    /// Begins to round the rows of `source` with `factors` for the outputs of `aim`.
    ///
    /// # Errors
    /// `InvalidWeights` where factors or aim are of another size; `OutOfMemory` without memory.
    pub fn round<'a>(factors: &'a Factors, aim: Aim<'a>, source: &'a dyn RowSource) -> Result<Rounding<'a>> {
        let (n, k) = (source.rows(), source.cols());
        let sizes = match aim {
            Aim::Same => (n, factors.k()),
            Aim::Besides(drift) => (drift.n, drift.k),
        };
        if k != factors.k() || sizes != (n, k) {
            let message = format!("expected rows of {} weights, found {k}", factors.k());
            return Err(Error::invalid_weights(message));
        }
        let memory =
            || Error::out_of_memory(format!("the codes of {n} x {k} weights do not fit into memory"));
        let codes = n.checked_mul(k).and_then(zeros::<i8>).ok_or_else(memory)?;
        let scales = zeros::<u16>(n * k.div_ceil(GROUP)).ok_or_else(memory)?;
        let within = (0..factors.blocks()).map(|b| factors.within(b)).collect();
        // Rows without weights are rounded.
        let done = if k == 0 { n } else { 0 };
        Ok(Rounding { factors, aim, source, within, rows: CodedRows { n, k, codes, scales }, done })
    }
}

impl Rounding<'_> {
    /// Whether all rows are rounded.
    pub fn is_done(&self) -> bool {
        self.done == self.rows.n
    }

    /// Rounds some more rows.
    ///
    /// # Errors
    /// `InvalidWeights` for a weight that is not finite; `InvalidArgument` for an aim that cannot be reached with finite
    /// weights; `OutOfMemory` without memory.
    pub fn step(&mut self, kernels: &KernelSet, region: &Region<'_>) -> Result<()> {
        let CodedRows { n, k, codes, scales } = &mut self.rows;
        let (first, groups) = (self.done, k.div_ceil(GROUP));
        let rows = slab_rows(*k).min(*n - first);
        let codes = &mut codes[first * *k..][..rows * *k];
        let scales = &mut scales[first * groups..][..rows * groups];
        let mut slab = Slab::read(region, self.factors, self.source, first, rows)?;
        if let Aim::Besides(drift) = self.aim {
            slab.aim(kernels, region, self.factors, drift, first)?;
        }
        for (b, within) in self.within.iter().enumerate() {
            slab.round(kernels, region, self.factors, (b, within), Coded { codes, scales })?;
        }
        self.done += rows;
        Ok(())
    }

    /// The rows; those that are not rounded yet are zeros.
    pub fn finish(self) -> CodedRows {
        self.rows
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

    fn all(kernels: &KernelSet, region: &Region<'_>, mut rounding: Rounding<'_>) -> Result<CodedRows> {
        while !rounding.is_done() {
            rounding.step(kernels, region)?;
        }
        Ok(rounding.finish())
    }

    fn coded(
        kernels: &KernelSet,
        region: &Region<'_>,
        factors: &Factors,
        weights: &Floats,
    ) -> Result<CodedRows> {
        all(kernels, region, CodedRows::round(factors, Aim::Same, weights)?)
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
    fn outputs_are_those_that_are_aimed_at() {
        let kernels = select(None).unwrap();
        for (n, k) in [(40, 320), (17, 100)] {
            let (x, weights) = (inputs(512, k), Floats(noise(n * k, 3), k));
            let change: Vec<f32> = noise(n * k, 9).iter().map(|x| 0.2 * x).collect();
            let mut t = vec![0.0; 512 * n];
            for (t, x) in t.chunks_exact_mut(n).zip(x.chunks_exact(k)) {
                for (t, change) in t.iter_mut().zip(change.chunks_exact(k)) {
                    *t = x.iter().zip(change).map(|(x, change)| x * change).sum();
                }
            }
            let sums: Vec<f32> = weights.0.iter().zip(&change).map(|(w, change)| w + change).collect();
            let wanted = Floats(sums, k);
            let round = |region: &Region<'_>| {
                let (mut gram, mut drift) = (Gram::new(k)?, Drift::new(n, k)?);
                for (x, t) in x.chunks(256 * k).zip(t.chunks(256 * n)) {
                    gram.add(kernels, region, x)?;
                    drift.add(kernels, region, t, x)?;
                }
                let factors = Factors::new(kernels, region, &gram, 0.01)?;
                let aim = Aim::Besides(&drift);
                let aimed = all(kernels, region, CodedRows::round(&factors, aim, &weights)?)?;
                let few = Drift::new(n, k - 1)?;
                assert!(CodedRows::round(&factors, Aim::Besides(&few), &weights).is_err());
                drift.sums.iter_mut().for_each(|sum| *sum *= 1e37);
                let far = CodedRows::round(&factors, Aim::Besides(&drift), &weights)?;
                let error = all(kernels, region, far).err().unwrap();
                assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
                Ok((
                    aimed,
                    coded(kernels, region, &factors, &wanted)?,
                    coded(kernels, region, &factors, &weights)?,
                ))
            };
            let found: Result<_> = ThreadPool::new(2).region(round).unwrap();
            let (aimed, known, unaware) = found.unwrap();
            let of = |rows: &CodedRows| cost(&x, &wanted, |row, out| rows.read_row(row, &[], out));
            let (aimed, known, unaware) = (of(&aimed), of(&known), of(&unaware));
            assert!(aimed < 1.2 * known && aimed < 0.5 * unaware, "{n} x {k}: {aimed} {known} {unaware}");
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
                let means = gram.mean_squares();
                let factors = Factors::new(kernels, region, &gram, 0.0).unwrap();
                let plain = Factors::diagonal(factors.importance.clone());
                let found = coded(kernels, region, &factors, &weights).unwrap();
                let expected = coded(kernels, region, &plain, &weights).unwrap();
                assert!(found.codes == expected.codes && found.scales == expected.scales);
                for (importance, mean) in factors.importance.iter().zip(&means) {
                    let first = factors.importance[0] / means[0];
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
                values[41] = f32::INFINITY;
                let error = coded(kernels, region, &factors, &Floats(values, 40)).err().unwrap();
                assert!(error.to_string().contains("row 1"), "{error}");
                let factors = Factors::diagonal(vec![1.0; 32]);
                assert!(coded(kernels, region, &factors, &Floats(vec![0.0; 40], 40)).is_err());
            })
            .unwrap();
    }
}
