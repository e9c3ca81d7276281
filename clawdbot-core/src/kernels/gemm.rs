//! Matrix products `out[m, n] = lhs[m, k] * rhs[n, k]^T`: checks, and the split into tasks.

use super::matrix::Panels;
use super::quantize::{Int8Rows, QuantizedRows, SharedMut, groups};
use super::simd::LANES;
use super::{ComputeFormat, Kernel, KernelSet, PackedMatrix, Simd, Slot};
use crate::threads::Region;

/// The left-hand side of [`gemm`].
#[derive(Clone, Copy)]
pub(crate) enum Lhs<'a> {
    /// `[m, k]`, for bf16 and f32 weights.
    F32(&'a [f32]),
    /// For int8 weights of the same group.
    Int8(&'a QuantizedRows),
}

/// What happens to a finished sum.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// `[n]`, added first.
    pub(crate) bias: Option<&'a [f32]>,
    /// Whether the previous contents of `out` are added then.
    pub(crate) residual: bool,
}

/// `out = lhs * rhs^T`, then the epilogue. `out` is `[m, n]`. Every element has the same bits whatever m, the number of
/// threads and the ISA.
///
/// # Panics
/// When a shape does not fit, or the left-hand side is not of the kind that the format of `rhs` wants.
pub(crate) fn gemm(
    kernels: &KernelSet,
    region: &Region<'_>,
    lhs: Lhs<'_>,
    m: usize,
    rhs: &PackedMatrix,
    out: &mut [f32],
    epilogue: Epilogue<'_>,
) {
    let (n, k) = (rhs.n(), rhs.k());
    assert_eq!(out.len(), m * n, "out: [{m}, {n}]");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n), "bias: [{n}]");
    todo!()
}
