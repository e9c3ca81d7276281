//! Functions between a gate projection and the product with up.

use super::Simd;
use super::vector::exp;

/// Function of a gate, and what becomes of up. All are `g / (1 + exp(-t)) * u`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Activation {
    /// `g = t = gate`, `u = up`.
    Silu,
    /// The tanh form of GELU (Hendrycks, Gimpel 2016, <https://arxiv.org/abs/1606.08415>): `g = gate`,
    /// `t = 2 sqrt(2/pi) (gate + 0.044715 gate^3)`, `u = up`.
    GeluTanh,
    /// As gpt-oss has it: `g = min(gate, limit)`, `t = alpha g`, `u = 1 + clamp(up, -limit, limit)`.
    ClampedSwiglu { alpha: f32, limit: f32 },
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
        };
        let e = exp(s, s.sub(s.zero(), t));
        s.mul(s.div(g, s.add(one, e)), u)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{LANES, Scalar};

    const ALL: [Activation; 3] =
        [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwiglu { alpha: 1.702, limit: 3.0 }];

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
    fn what_is_not_a_number_shows() {
        for activation in ALL {
            for (gate, up) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
                assert!(activation.gated(Scalar, [gate; LANES], [up; LANES])[0].is_nan(), "{activation:?}");
            }
        }
    }
}
