//! Compute kernels and the choice between instruction sets. [unsafe corner]
//!
//! A kernel is a generic function over [`Simd`] (one source for all ISAs, see there); it becomes callable through a slot
//! of a [`KernelSet`], and the set of the best ISA that the CPU has is selected once, at run time. To add a kernel:
//! a type implementing [`Kernel`], a field in [`KernelSet`], a line in [`kernel_set!`].
//!
//! int8 arithmetic: weights are symmetric int8 per group of k, activations likewise per row and group, quantized at run
//! time. Sums inside a group are exact int32; then `out = fma(f32(sum), sa * sw, out)`, groups ascending from 0.0; then
//! the bias and the residual are added, one addition each. bf16 and f32 weights: one FMA chain over ascending k. So an
//! output element depends on its row and its column alone: neither on the number of rows, nor on tiles or threads.
#![allow(unsafe_code, reason = "intrinsics and calls of functions compiled for a detected instruction set")]

pub(crate) mod attention;
mod dispatch;
mod gemm;
mod isa;
mod matrix;
mod quantize;
pub(crate) mod simd;
mod vector;

pub(crate) use dispatch::{available, select};
pub(crate) use gemm::{Epilogue, Lhs, gemm};
pub(crate) use matrix::{ComputeFormat, Int8Row, PackedMatrix, RowSource};
pub(crate) use quantize::QuantizedRows;
pub(crate) use simd::Simd;
pub(crate) use vector::{exp, silu};

use crate::error::Result;

/// A function that is compiled once per ISA. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it takes, by value.
    type Args<'a>;
    /// What it returns.
    type Output;
    /// The one source for all ISAs.
    fn run<S: Simd>(simd: S, args: Self::Args<'_>) -> Self::Output;
}

/// A [`Kernel`] (or another one with the same arguments) compiled for the ISA of the [`KernelSet`] it belongs to.
pub(crate) struct Slot<K: Kernel>(for<'a> unsafe fn(K::Args<'a>) -> K::Output);

impl<K: Kernel> Slot<K> {
    /// Runs the kernel.
    #[inline]
    pub(crate) fn call(&self, args: K::Args<'_>) -> K::Output {
        // SAFETY: a `KernelSet` is reachable only through `dispatch`, which checked that the CPU has its ISA.
        unsafe { (self.0)(args) }
    }
}

/// The kernels of one ISA.
pub(crate) struct KernelSet {
    /// As accepted by `CLAWDBOT_ISA`.
    pub(crate) name: &'static str,
    /// The int8 tile of many rows, as `architecture-types-variant`.
    pub(crate) int8_gemm_name: &'static str,
    gemm: gemm::GemmSlots,
    quantize_row: Slot<quantize::QuantizeRow>,
    rms_norm: Slot<vector::RmsNorm>,
    silu_mul: Slot<vector::SiluMul>,
    add: Slot<vector::Add>,
    to_bf16: Slot<vector::ToBf16>,
    exp: Slot<vector::Exp>,
    attention_f32: Slot<attention::Attention<f32>>,
    attention_bf16: Slot<attention::Attention<u16>>,
}

/// The table of an ISA: `$entry::<K>` is kernel `K` compiled for it.
macro_rules! kernel_set {
    ($name:literal, $arch:literal, $entry:ident, $tiles:ident) => {
        $crate::kernels::KernelSet {
            name: $name,
            int8_gemm_name: concat!($arch, "-int8-", $name),
            gemm: $crate::kernels::gemm::gemm_slots!($entry),
            quantize_row: $crate::kernels::Slot($entry::<$crate::kernels::quantize::QuantizeRow>),
            rms_norm: $crate::kernels::Slot($entry::<$crate::kernels::vector::RmsNorm>),
            silu_mul: $crate::kernels::Slot($entry::<$crate::kernels::vector::SiluMul>),
            add: $crate::kernels::Slot($entry::<$crate::kernels::vector::Add>),
            to_bf16: $crate::kernels::Slot($entry::<$crate::kernels::vector::ToBf16>),
            exp: $crate::kernels::Slot($entry::<$crate::kernels::vector::Exp>),
            attention_f32: $crate::kernels::Slot($entry::<$crate::kernels::attention::Attention<f32>>),
            attention_bf16: $crate::kernels::Slot($entry::<$crate::kernels::attention::Attention<u16>>),
        }
    };
}
use kernel_set;
