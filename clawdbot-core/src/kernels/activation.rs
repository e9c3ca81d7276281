//! Functions between a gate projection and the product with up.

use super::Simd;
use super::vector::silu;

/// Function of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
}

impl Activation {
    #[inline(always)]
    pub(super) fn apply<S: Simd>(self, s: S, x: S::F32) -> S::F32 {
        match self {
            Activation::Silu => silu(s, x),
        }
    }
}
