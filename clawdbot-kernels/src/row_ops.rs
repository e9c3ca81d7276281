//! Operations on rows that only some families use: other norms and activations, multipliers, soft caps.

use super::simd::LANES;
use super::vector::{exp, for_each_vector, tanh};
use super::{Activation, Kernel, KernelSet, Simd};

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// See [`KernelSet::sigmoid_mul`].
pub(super) struct SigmoidMul;
impl Kernel for SigmoidMul {
    type Args<'a> = (&'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (gate, x): Self::Args<'_>) {
        assert_eq!(gate.len(), x.len());
        for (x, gate) in x.chunks_mut(LANES).zip(gate.chunks(LANES)) {
            let product = s.mul(s.load_partial(x), sigmoid(s, s.load_partial(gate)));
            s.store_partial(product, x);
        }
    }
}

/// See [`KernelSet::activate`].
pub(super) struct Activate;
impl Kernel for Activate {
    type Args<'a> = (Activation, &'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (activation, gate, x): Self::Args<'_>) {
        assert_eq!(gate.len(), x.len());
        for (x, gate) in x.chunks_mut(LANES).zip(gate.chunks(LANES)) {
            let product = activation.gated(s, s.load_partial(gate), s.load_partial(x));
            s.store_partial(product, x);
        }
    }
}

/// See [`KernelSet::layer_norm`].
pub(super) struct LayerNorm;
impl Kernel for LayerNorm {
    type Args<'a> = (&'a [f32], &'a [f32], Option<&'a [f32]>, f32, &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (x, weight, bias, eps, out): Self::Args<'_>) {
        let mut sum = s.zero();
        for x in x.chunks(LANES) {
            sum = s.add(sum, s.load_partial(x));
        }
        let mean = s.splat(s.reduce_add(sum) / x.len() as f32);
        let mut squares = s.zero();
        for x in x.chunks(LANES) {
            // Lanes beyond the end do not count.
            let d = s.select_below(x.len(), s.sub(s.load_partial(x), mean), s.zero());
            squares = s.fma(d, d, squares);
        }
        let variance = s.reduce_add(squares) / x.len() as f32;
        let r = s.splat(1.0 / (variance + eps).sqrt());
        match bias {
            Some(bias) => for_each_vector!(s, out, [x = x, weight = weight, bias = bias]
                s.fma(s.mul(s.sub(x, mean), r), weight, bias)),
            None => {
                for_each_vector!(s, out, [x = x, weight = weight] s.mul(s.mul(s.sub(x, mean), r), weight));
            }
        }
    }
}

/// See [`KernelSet::activate_in_place`].
pub(super) struct ActivateInPlace;
impl Kernel for ActivateInPlace {
    type Args<'a> = (Activation, &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (activation, x): Self::Args<'_>) {
        let one = s.splat(1.0);
        for x in x.chunks_mut(LANES) {
            let y = activation.gated(s, s.load_partial(x), one);
            s.store_partial(y, x);
        }
    }
}

/// See [`KernelSet::add_scaled`].
pub(super) struct AddScaled;
impl Kernel for AddScaled {
    type Args<'a> = (&'a [f32], f32, &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (y, factor, x): Self::Args<'_>) {
        assert_eq!(x.len(), y.len());
        let factor = s.splat(factor);
        for (x, y) in x.chunks_mut(LANES).zip(y.chunks(LANES)) {
            let sum = s.add(s.load_partial(x), s.mul(s.load_partial(y), factor));
            s.store_partial(sum, x);
        }
    }
}

/// See [`KernelSet::scale_and_cap`].
pub(super) struct ScaleAndCap;
impl Kernel for ScaleAndCap {
    type Args<'a> = (f32, Option<f32>, &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (factor, cap, x): Self::Args<'_>) {
        let factor = s.splat(factor);
        for x in x.chunks_mut(LANES) {
            let mut y = s.mul(s.load_partial(x), factor);
            if let Some(cap) = cap {
                let cap = s.splat(cap);
                y = s.mul(tanh(s, s.div(y, cap)), cap);
            }
            s.store_partial(y, x);
        }
    }
}

impl KernelSet {
    /// `x = activation(gate) * x`, both of one length.
    pub fn activate(&self, activation: Activation, gate: &[f32], x: &mut [f32]) {
        self.activate.call((activation, gate, x));
    }

    /// `x = x * sigmoid(gate)`, both of one length.
    pub fn sigmoid_mul(&self, gate: &[f32], x: &mut [f32]) {
        self.sigmoid_mul.call((gate, x));
    }

    /// `out = (x - mean) / sqrt(var + eps) * weight`, and `+ bias` (one FMA) where there is one, all of one length; sums
    /// as in [`KernelSet::rms_norm`].
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        self.layer_norm.call((x, weight, bias, eps, out));
    }

    /// `x = activation(x)`, see [`Activation`].
    pub fn activate_in_place(&self, activation: Activation, x: &mut [f32]) {
        self.activate_in_place.call((activation, x));
    }

    /// `x = x + y * factor`, both of one length.
    pub fn add_scaled(&self, y: &[f32], factor: f32, x: &mut [f32]) {
        self.add_scaled.call((y, factor, x));
    }

    /// `x = cap * tanh(x * factor / cap)`, or `x * factor` without a cap.
    pub fn scale_and_cap(&self, factor: f32, cap: Option<f32>, x: &mut [f32]) {
        self.scale_and_cap.call((factor, cap, x));
    }
}

#[cfg(test)]
mod tests {
    use crate::available;

    use super::*;

    /// Reproducible numbers in -5..5.
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        (0..len as u32).map(|i| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 1000.7 - 5.0).collect()
    }

    /// Runs `f` on every set, checks that all give the same bits, and returns them.
    fn everywhere(len: usize, f: impl Fn(&KernelSet, &mut [f32])) -> Vec<f32> {
        let results: Vec<Vec<f32>> = available()
            .into_iter()
            .map(|set| {
                let mut out = vec![f32::NAN; len];
                f(set, &mut out);
                out
            })
            .collect();
        for (result, set) in results.iter().zip(available()) {
            assert!(result.iter().zip(&results[0]).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", set.name);
        }
        results[0].clone()
    }

    fn close(found: &[f32], expected: impl Fn(usize) -> f64, tolerance: f64) {
        for (i, &found) in found.iter().enumerate() {
            let expected = expected(i);
            assert!(
                (f64::from(found) - expected).abs() < tolerance * (1.0 + expected.abs()),
                "{i}: {found} {expected}"
            );
        }
    }

    const LENGTHS: [usize; 5] = [1, 15, 16, 33, 160];

    #[test]
    fn gates_are_those_of_the_formula() {
        for len in LENGTHS {
            let (a, b) = (noise(len, 1), noise(len, 2));
            let at = |v: &[f32], i: usize| f64::from(v[i]);
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let gated = everywhere(len, |set, out| {
                out.copy_from_slice(&b);
                set.sigmoid_mul(&a, out);
            });
            close(&gated, |i| at(&b, i) * sigmoid(at(&a, i)), 1e-6);
            let activated = everywhere(len, |set, out| {
                out.copy_from_slice(&b);
                set.activate(Activation::Silu, &a, out);
            });
            close(&activated, |i| at(&a, i) * sigmoid(at(&a, i)) * at(&b, i), 1e-6);
        }
    }

    #[test]
    fn norms_and_multipliers_are_those_of_the_formulas() {
        for len in LENGTHS {
            let (a, b) = (noise(len, 3), noise(len, 4));
            let mean = a.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
            let var = a.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / len as f64;
            let formula = |i: usize| (f64::from(a[i]) - mean) / (var + 1e-5).sqrt() * f64::from(b[i]);
            let normed = everywhere(len, |set, out| set.layer_norm(&a, &b, None, 1e-5, out));
            close(&normed, formula, 1e-5);
            let biased = everywhere(len, |set, out| set.layer_norm(&a, &b, Some(&a), 1e-5, out));
            close(&biased, |i| formula(i) + f64::from(a[i]), 1e-5);
            let active = everywhere(len, |set, out| {
                out.copy_from_slice(&a);
                set.activate_in_place(Activation::Gelu, out);
            });
            close(
                &active,
                |i| f64::from(a[i]) * (1.0 + libm::erf(f64::from(a[i]) / 2_f64.sqrt())) / 2.0,
                3e-7,
            );
            let added = everywhere(len, |set, out| {
                out.copy_from_slice(&a);
                set.add_scaled(&b, 0.6, out);
            });
            close(&added, |i| f64::from(a[i]) + f64::from(b[i]) * f64::from(0.6_f32), 1e-6);
            for cap in [None, Some(2.0_f32)] {
                let scaled = everywhere(len, |set, out| {
                    out.copy_from_slice(&a);
                    set.scale_and_cap(3.0, cap, out);
                });
                let expected = |i: usize| {
                    let x = f64::from(a[i]) * 3.0;
                    cap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh())
                };
                close(&scaled, expected, 1e-6);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_shows() {
        for set in available() {
            let mut out = [f32::NAN];
            set.scale_and_cap(1.0, Some(2.0), &mut out);
            assert!(out[0].is_nan());
        }
    }
}
