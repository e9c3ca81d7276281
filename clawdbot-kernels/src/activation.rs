//! Activation functions of gated MLPs: what is applied to a gate before it is multiplied by up.

use super::Simd;
use super::vector::{exp, tanh};

/// A function of a gate and up. All but [`Activation::Gelu`], [`Activation::Relu`],
/// [`Activation::SquaredRelu`], [`Activation::Tanh`] and [`Activation::Xielu`] are `g / (1 + exp(-t)) * u`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `g = t = gate`, `u = up`.
    Silu,
    /// The tanh form of GELU (Hendrycks, Gimpel 2016, <https://arxiv.org/abs/1606.08415>): `g = gate`,
    /// `t = 2 sqrt(2/pi) (gate + 0.044715 gate^3)`, `u = up`.
    GeluTanh,
    /// GELU itself: `gate (1 + erf(gate / sqrt(2))) / 2 * up`, see `gelu`.
    Gelu,
    /// As gpt-oss has it: `g = min(gate, limit)`, `t = alpha g`, `u = 1 + clamp(up, -limit, limit)`.
    ClampedSwiglu {
        /// Factor of the gate inside the sigmoid.
        alpha: f32,
        /// Bound of gate and up.
        limit: f32,
    },
    /// `max(gate, 0) * up`.
    Relu,
    /// `max(0, gate)^2 * up`.
    SquaredRelu,
    /// `tanh(gate) * up`.
    Tanh,
    /// xIELU (<https://arxiv.org/abs/2411.13010>), times up: `alpha_p gate^2 + beta gate` above zero, below it `alpha_n (exp(gate) - 1
    /// - gate) + beta gate`. Transformers has `exp(eps)` with an eps of -1e-6 instead of the exponential between eps and
    /// zero, which differs by less than `alpha_n |eps|`.
    Xielu {
        /// Factor of the square of positive gates.
        alpha_p: f32,
        /// Factor of the exponential of negative gates.
        alpha_n: f32,
        /// Factor of the gate itself.
        beta: f32,
    },
}

impl Activation {
    /// The activation of a gate, times up.
    #[inline(always)]
    pub(super) fn gated<S: Simd>(self, s: S, gate: S::F32, up: S::F32) -> S::F32 {
        let one = s.splat(1.0);
        let (g, t, u) = match self {
            Activation::Silu => (gate, gate, up),
            Activation::GeluTanh => {
                let cubic = s.fma(s.mul(gate, gate), s.splat(0.044_715), one);
                (gate, s.mul(s.mul(gate, cubic), s.splat(1.595_769)), up)
            }
            Activation::ClampedSwiglu { alpha, limit } => {
                // The operand order lets NaN through.
                let g = s.min(s.splat(limit), gate);
                let u = s.max(s.splat(-limit), s.min(s.splat(limit), up));
                (g, s.mul(g, s.splat(alpha)), s.add(u, one))
            }
            Activation::Gelu => return s.mul(gelu(s, gate), up),
            Activation::Relu => return s.mul(s.max(s.zero(), gate), up),
            Activation::SquaredRelu => {
                let above = s.max(s.zero(), gate);
                return s.mul(s.mul(above, above), up);
            }
            Activation::Tanh => return s.mul(tanh(s, gate), up),
            Activation::Xielu { alpha_p, alpha_n, beta } => {
                // The operand orders let NaN through. One of the two is zero, and so is what it contributes.
                let (above, below) = (s.max(s.zero(), gate), s.min(s.zero(), gate));
                let square = s.mul(s.splat(alpha_p), s.mul(above, above));
                let curve = s.sub(s.sub(exp(s, below), one), below);
                let curved = s.fma(s.splat(alpha_n), curve, square);
                return s.mul(s.fma(s.splat(beta), gate, curved), up);
            }
        };
        let e = exp(s, s.sub(s.zero(), t));
        s.mul(s.div(g, s.add(one, e)), u)
    }
}

/// `x Phi(x)`, Phi the normal distribution: off by at most 3e-7 times the larger of 1 and |x|, and relatively by 6e-7 from -3 up;
/// NaN for NaN.
///
/// `Phi(-t) = exp(-t^2 / 2) R(t)` for t >= 0, and R, which falls slowly from 1/2, is a polynomial of degree 9 without a
/// constant in `1 / (1 + 0.35 t)`, fitted to a relative error of 3.2e-8 up to t = 14, where nothing is left of the
/// product. Then `x Phi(x) = max(x, 0) - t Phi(-t)` with `t = |x|`: nothing cancels on the side where it is small.
#[inline(always)]
pub(super) fn gelu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The operand orders let NaN through.
    let t = s.min(s.splat(14.0), s.abs(x));
    let one = s.splat(1.0);
    let u = s.div(one, s.fma(s.splat(0.35), t, one));
    let p = s.splat(-0.029_145_94);
    let p = s.fma(p, u, s.splat(0.143_971_74));
    let p = s.fma(p, u, s.splat(-0.255_714_33));
    let p = s.fma(p, u, s.splat(0.159_174_25));
    let p = s.fma(p, u, s.splat(-0.023_109_896));
    let p = s.fma(p, u, s.splat(0.105_508_03));
    let p = s.fma(p, u, s.splat(0.119_832_86));
    let p = s.fma(p, u, s.splat(0.139_861_87));
    let p = s.fma(p, u, s.splat(0.139_621_4));
    let bell = exp(s, s.mul(s.mul(t, t), s.splat(-0.5)));
    let below = s.mul(s.mul(t, s.mul(p, u)), bell);
    s.sub(s.max(s.zero(), x), below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{LANES, Scalar};

    const ALL: [Activation; 8] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::ClampedSwiglu { alpha: 1.702, limit: 3.0 },
        Activation::Gelu,
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::Tanh,
        Activation::Xielu { alpha_p: 0.7, alpha_n: 1.3, beta: 0.5 },
    ];

    #[test]
    fn activations_are_those_of_the_formulas() {
        for i in -100..100 {
            let (gate, up) = (f64::from(i) / 11.0, f64::from(i * 37 % 101) / 9.0);
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            let clamped = gate.min(3.0);
            let expected = [
                gate * sigmoid(gate) * up,
                gate / 2.0 * (1.0 + inner.tanh()) * up,
                (up.clamp(-3.0, 3.0) + 1.0) * clamped * sigmoid(1.702 * clamped),
                gate / 2.0 * libm::erfc(-gate / 2_f64.sqrt()) * up,
                gate.max(0.0) * up,
                gate.max(0.0).powi(2) * up,
                gate.tanh() * up,
                (0.5 * gate + 0.7 * gate.max(0.0).powi(2) + 1.3 * (gate.min(0.0).exp_m1() - gate.min(0.0)))
                    * up,
            ];
            for (activation, expected) in ALL.into_iter().zip(expected) {
                let found = activation.gated(Scalar, [gate as f32; LANES], [up as f32; LANES])[0];
                let error = (f64::from(found) - expected).abs();
                assert!(
                    error < 2e-6 * (1.0 + expected.abs()),
                    "{activation:?} of {gate}, {up}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn gelu_is_close_everywhere() {
        let at = |x: f32| gelu(Scalar, [x; LANES])[0];
        for i in -60_000..60_000 {
            let x = i as f32 / 4096.0;
            let (found, wide) = (f64::from(at(x)), f64::from(x));
            let expected = wide / 2.0 * libm::erfc(-wide / 2_f64.sqrt());
            let error = (found - expected).abs();
            assert!(error < 3e-7 * wide.abs().max(1.0), "gelu({x}): {found} {expected}");
            if x > -3.0 {
                assert!(error <= 6e-7 * expected.abs(), "gelu({x}): {found} {expected}");
            }
        }
        assert_eq!(at(f32::INFINITY), f32::INFINITY);
        assert!(at(f32::NEG_INFINITY).abs() < 1e-40);
    }

    #[test]
    fn nan_propagates() {
        for activation in ALL {
            for (gate, up) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
                assert!(activation.gated(Scalar, [gate; LANES], [up; LANES])[0].is_nan(), "{activation:?}");
            }
        }
    }
}
