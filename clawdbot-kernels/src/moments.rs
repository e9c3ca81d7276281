//! Means and deviations of rows, and what is made of them: levels of residual streams, gates that few elements pass.

use super::simd::LANES;
use super::vector::for_each_vector;
use super::{Kernel, KernelSet, Simd};

/// See [`KernelSet::mean_square`].
pub(super) struct MeanSquare;
impl Kernel for MeanSquare {
    type Args<'a> = &'a [f32];
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(s: S, x: Self::Args<'_>) -> f32 {
        let mut squares = s.zero();
        for part in x.chunks(LANES) {
            let v = s.load_partial(part);
            squares = s.fma(v, v, squares);
        }
        s.reduce_add(squares) / x.len() as f32
    }
}

/// See [`KernelSet::cut_off`].
pub(super) struct CutOff;
impl Kernel for CutOff {
    type Args<'a> = (f32, &'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (deviations, x, out): Self::Args<'_>) {
        let mut sum = s.zero();
        for part in x.chunks(LANES) {
            sum = s.add(sum, s.load_partial(part));
        }
        let mean = s.reduce_add(sum) / x.len() as f32;
        let mut squares = s.zero();
        for part in x.chunks(LANES) {
            // Lanes beyond the end do not count.
            let d = s.select_below(part.len(), s.sub(s.load_partial(part), s.splat(mean)), s.zero());
            squares = s.fma(d, d, squares);
        }
        let deviation = (s.reduce_add(squares) / x.len() as f32).sqrt();
        let cutoff = s.splat(mean + deviations * deviation);
        // The operand order lets NaN through.
        for_each_vector!(s, out, [x = x] s.max(s.zero(), s.sub(x, cutoff)));
    }
}

/// See [`KernelSet::multiply`].
pub(super) struct Multiply;
impl Kernel for Multiply {
    type Args<'a> = (&'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (y, x): Self::Args<'_>) {
        assert_eq!(x.len(), y.len());
        for (x, y) in x.chunks_mut(LANES).zip(y.chunks(LANES)) {
            let product = s.mul(s.load_partial(x), s.load_partial(y));
            s.store_partial(product, x);
        }
    }
}

impl KernelSet {
    /// `mean(x^2)`, the sum as in [`KernelSet::rms_norm`].
    pub fn mean_square(&self, x: &[f32]) -> f32 {
        self.mean_square.call(x)
    }

    /// `out = max(x - (mean(x) + deviations * std(x)), 0)`, both of one length: of numbers that are distributed normally, the
    /// part above `deviations` standard deviations passes. Sums as in [`KernelSet::layer_norm`], the variance is divided by
    /// the length.
    pub fn cut_off(&self, deviations: f32, x: &[f32], out: &mut [f32]) {
        self.cut_off.call((deviations, x, out));
    }

    /// `x = x * y`, both of one length.
    pub fn multiply(&self, y: &[f32], x: &mut [f32]) {
        self.multiply.call((y, x));
    }
}

#[cfg(test)]
mod tests {
    use crate::available;

    /// Reproducible numbers in -5..5.
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        (0..len as u32).map(|i| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 1000.7 - 5.0).collect()
    }

    const LENGTHS: [usize; 5] = [1, 15, 16, 33, 160];

    #[test]
    fn results_are_those_of_the_formulas_with_equal_bits() {
        for len in LENGTHS {
            let (x, y) = (noise(len, 1), noise(len, 2));
            let mean =
                |of: &dyn Fn(f64) -> f64| x.iter().map(|&x| of(f64::from(x))).sum::<f64>() / len as f64;
            let center = mean(&|x| x);
            let deviation = mean(&|x| (x - center).powi(2)).sqrt();
            let mut first: Option<Vec<u32>> = None;
            for set in available() {
                let (mut cut, mut product) = (vec![f32::NAN; len], x.clone());
                set.cut_off(0.4, &x, &mut cut);
                set.multiply(&y, &mut product);
                let square = set.mean_square(&x);
                assert!((f64::from(square) - mean(&|x| x * x)).abs() < 1e-5 * (1.0 + f64::from(square)));
                for i in 0..len {
                    let expected = (f64::from(x[i]) - (center + 0.4 * deviation)).max(0.0);
                    assert!((f64::from(cut[i]) - expected).abs() < 1e-5, "{len}, {i}: {} {expected}", cut[i]);
                    assert_eq!(product[i], x[i] * y[i]);
                }
                let bits: Vec<u32> =
                    [square].iter().chain(&cut).chain(&product).map(|x| x.to_bits()).collect();
                assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{}: {len}", set.name);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_shows() {
        for set in available() {
            let mut out = [0.0; 2];
            set.cut_off(1.0, &[f32::NAN, 1.0], &mut out);
            assert!(out[0].is_nan() && out[1].is_nan());
        }
    }
}
