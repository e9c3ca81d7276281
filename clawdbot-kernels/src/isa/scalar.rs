//! Kernels for any CPU.

use crate::simd::Scalar;
use crate::{Kernel, KernelSet, kernel_set, slot};

/// # Safety
/// None: this is unsafe to be called as the entries of other instruction sets are.
unsafe fn entry<K: Kernel>(args: K::Args<'_>) -> K::Output {
    K::run(Scalar, args)
}

pub(crate) const SET: KernelSet = kernel_set!("scalar", "any", entry, int8: 4 x 1, gemv: 8 / 8, float: 2 x 1);
pub(crate) static KERNELS: KernelSet = SET;

pub(crate) fn detected() -> bool {
    true
}
