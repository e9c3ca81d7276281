//! Compute kernels for language models on CPUs, the choice between instruction sets, and the memory and threads that kernels
//! use. This crate knows no models, tokens or files.
//!
//! A kernel is a generic function over [`Simd`] (one source for all ISAs); it becomes callable through a slot
//! of a [`KernelSet`]. The set of the best ISA that the CPU has is selected once, at run time. To add a kernel: a type that
//! implements [`Kernel`], a field in [`KernelSet`], a line in `kernel_set!`.
//!
//! int8 arithmetic: weights are symmetric int8 per group of k, activations likewise per row and group, quantized at run
//! time. Sums inside a group are exact int32; then `out = fma(f32(sum), sa * sw, out)`, groups ascending from 0.0; then
//! the bias and the residual are added, one addition each. bf16 and f32 weights: one FMA chain over ascending k. So an
//! output element depends on its row and its column alone: neither on the number of rows, nor on tiles or threads.
#![allow(unsafe_code, reason = "intrinsics and calls of functions compiled for a detected instruction set")]
#![warn(clippy::multiple_unsafe_ops_per_block)]
#![allow(
    clippy::needless_range_loop,
    reason = "tiles are indexed by row and panel in several arrays at once"
)]

mod activation;
pub mod attention;
mod bf16_dot;
mod codes;
mod dispatch;
mod error;
mod feedback;
mod few_rows;
mod format;
mod gemm;
#[cfg(any(target_arch = "x86_64", test))]
mod gemm_amx;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
mod gemm_bf16;
#[cfg(any(target_arch = "x86_64", test))]
mod gemm_bf16_amx;
mod gemm_float;
mod gemm_gated;
#[cfg(target_arch = "aarch64")]
mod gemm_i8mm;
mod gemm_int8;
mod gemm_narrow;
mod gemv_int8;
mod group_scales;
mod hadamard;
mod int4;
mod int6;
mod isa;
mod limits;
mod matrix;
pub mod memory;
mod minima;
mod moments;
pub mod numa;
mod packing;
mod panels;
mod parts;
mod quantize;
mod recurrent;
mod rope;
mod row_ops;
mod scale_lines;
mod self_test;
pub mod simd;
#[cfg(test)]
#[path = "../../clawdbot-core/tests/support/skipped.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a module of several test crates"
)]
mod skipped;
mod split;
mod target;
#[cfg(test)]
mod tests;
pub mod threads;
mod tile_steps;
#[cfg(any(target_arch = "x86_64", test))]
mod tiles;
mod unchecked;
mod vector;

pub use activation::Activation;
pub use bf16_dot::RoundedRows;
pub use dispatch::{RefusedSet, available, named, refused, select};
pub use error::{Error, Result};
pub use feedback::{Aim, CodedRows, Drift, Factors, Gram, MeanSquares, Rounding};
pub use format::ComputeFormat;
pub use gemm::{Lhs, OutColumns, gemm, gemm_columns};
pub use gemm_gated::{GatedProduct, gemm_gated, takes_gated};
pub use group_scales::{GroupScales, StoredScale};
pub use packing::RowSource;
pub use panels::PackedMatrix;
pub use parts::{PanelElement, PanelPart, PanelSource};
pub use quantize::{ActivationFormat, QuantizedRows, ROTATED_GROUPS};
pub use recurrent::{ConvArgs, DeltaArgs};
pub use rope::{HeadNorms, RotaryPairs, RotateArgs};
pub use simd::Simd;
#[cfg(any(test, feature = "bench-support"))]
pub use split::Shares;
pub use target::{Added, Epilogue};

/// A function that is compiled once per ISA. `run` must be `#[inline(always)]`.
pub trait Kernel {
    /// Its arguments, by value.
    type Args<'a>;
    /// Its result.
    type Output;
    /// The one source for all ISAs.
    fn run<S: Simd>(simd: S, args: Self::Args<'_>) -> Self::Output;
}

/// A [`Kernel`] (or another with the same arguments) compiled for the ISA of its [`KernelSet`].
pub struct Slot<K: Kernel>(for<'a> fn(K::Args<'a>) -> K::Output);

impl<K: Kernel> Clone for Slot<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Kernel> Copy for Slot<K> {}

impl<K: Kernel> Slot<K> {
    /// Runs the kernel.
    #[inline]
    pub fn call(&self, args: K::Args<'_>) -> K::Output {
        (self.0)(args)
    }
}

/// Panels of a tile of many rows.
#[derive(Clone, Copy)]
struct TilePanels {
    int8: usize,
    /// bf16 and f32.
    float: usize,
}

/// Rows up to which products take the kernels for few rows: GEMV.
#[derive(Clone, Copy)]
struct GemvRows {
    int8: usize,
    /// And codes of six bits.
    int4: usize,
}

impl GemvRows {
    fn of(self, weights: &PackedMatrix) -> usize {
        match weights.panels {
            panels::Panels::Int4(_) | panels::Panels::Int6(_) => self.int4,
            _ => self.int8,
        }
    }
}

/// The kernels of one ISA.
#[derive(Clone, Copy)]
pub struct KernelSet {
    /// As accepted by `CLAWDBOT_ISA`.
    pub name: &'static str,
    /// Called before its first use: why the set cannot be used after all. Its kernels then run on others with the same bits.
    pub refusal: fn() -> Option<&'static str>,
    /// The int8 tile of many rows, as `architecture-types-variant`.
    pub int8_gemm_name: &'static str,
    /// The bf16 and f32 tile of many rows.
    pub float_gemm_name: &'static str,
    tile_panels: TilePanels,
    gemv_rows: GemvRows,
    /// The epilogue of all products.
    finish: Slot<target::Finish>,
    scale_lines: Slot<scale_lines::Widen>,
    minima: Slot<minima::AddMinima>,
    int8_gemm: Slot<gemv_int8::Gemv>,
    int8_gemv: Slot<gemv_int8::Gemv>,
    bf16_gemm: Slot<gemm_float::Gemv<u16>>,
    bf16_gemv: Slot<gemm_float::Gemv<u16>>,
    /// Replaces `bf16_gemm` and `bf16_gemv` in a set with numerics of its own.
    bf16_dot: Option<bf16_dot::Bf16Dot>,
    f32_gemm: Slot<gemm_float::Gemv<f32>>,
    f32_gemv: Slot<gemm_float::Gemv<f32>>,
    narrow_gemv: Slot<gemm_narrow::Gemv>,
    quantize_row: Slot<quantize::QuantizeRow>,
    quantize_weights: Slot<quantize::QuantizeWeights>,
    hadamard: Slot<hadamard::Hadamard>,
    quantize_int4: Slot<int4::QuantizeInt4>,
    round_block: Slot<feedback::RoundBlock>,
    rms_norm: Slot<vector::RmsNorm>,
    #[cfg(any(test, feature = "bench-support"))]
    silu_mul: Slot<vector::SiluMul>,
    to_bf16: Slot<vector::ToBf16>,
    activate: Slot<row_ops::Activate>,
    sigmoid_mul: Slot<row_ops::SigmoidMul>,
    layer_norm: Slot<row_ops::LayerNorm>,
    activate_in_place: Slot<row_ops::ActivateInPlace>,
    add_scaled: Slot<row_ops::AddScaled>,
    scale_and_cap: Slot<row_ops::ScaleAndCap>,
    mean_square: Slot<moments::MeanSquare>,
    cut_off: Slot<moments::CutOff>,
    multiply: Slot<moments::Multiply>,
    causal_conv: Slot<recurrent::CausalConv>,
    l2_norm: Slot<recurrent::L2Norm>,
    delta_rule: Slot<recurrent::DeltaRule>,
    #[cfg(any(test, feature = "bench-support"))]
    exp: Slot<vector::Exp>,
    rotate_heads: Slot<rope::RotateHeads>,
    attend_f32: Slot<attention::AttendF32>,
    attend_bf16: Slot<attention::AttendBf16>,
    attend_int8: Slot<attention::AttendInt8>,
    merge_attention: Slot<attention::Merge>,
    finish_attention: Slot<attention::Finish>,
    write_f32: Slot<attention::WriteF32>,
    write_bf16: Slot<attention::WriteBf16>,
    write_int8: Slot<attention::WriteInt8>,
    read: Slot<limits::Read>,
    dots: Slot<limits::Dots>,
    fmas: Slot<limits::Fmas>,
}

impl KernelSet {
    /// Whether activations that are multiplied by weights of `format` are rounded to bf16 first: [`Lhs::Bf16`].
    pub fn rounds(&self, format: ComputeFormat) -> bool {
        self.bf16_dot.is_some() && format == ComputeFormat::Bf16
    }
}

/// Kernel `$kernel` compiled for an ISA by its `$entry`. (A closure, because it takes arguments of any lifetime.)
macro_rules! slot {
    ($entry:ident, $($kernel:tt)+) => {
        // SAFETY: `dispatch` hands out the set of `$entry` only after the `detected` of its module, which asks for the features
        // that `$entry` is compiled with (one list in `isa.rs` feeds both).
        $crate::Slot(|args| unsafe { $entry::<$crate::$($kernel)+>(args) })
    };
}
use slot;

/// The table of an ISA: `$entry::<K>` is kernel `K` compiled for it. Tiles are `rows x panels`, as large as the registers
/// allow; a panel has 16 columns. `gemv`: rows up to which int8 and int4 products take GEMV.
macro_rules! kernel_set {
    ($name:literal, $arch:literal, $entry:ident, int8: $mr:literal x $np:literal, gemv: $gemv_int8:literal / $gemv_int4:literal, float: $fmr:literal x $fnp:literal) => {
        $crate::KernelSet {
            name: $name,
            refusal: || None,
            int8_gemm_name: concat!($arch, "-int8-", $name, "-", $mr, "x", $np, "x16"),
            float_gemm_name: concat!($arch, "-f32-", $name, "-", $fmr, "x", $fnp, "x16"),
            tile_panels: $crate::TilePanels { int8: $np, float: $fnp },
            gemv_rows: $crate::GemvRows { int8: $gemv_int8, int4: $gemv_int4 },
            finish: slot!($entry, target::Finish),
            scale_lines: slot!($entry, scale_lines::Widen),
            minima: slot!($entry, minima::AddMinima),
            int8_gemm: slot!($entry, gemm_int8::Gemm<$mr, $np>),
            int8_gemv: slot!($entry, gemv_int8::Gemv),
            bf16_gemm: slot!($entry, gemm_float::Gemm<u16, $fmr, $fnp>),
            bf16_gemv: slot!($entry, gemm_float::Gemv<u16>),
            bf16_dot: None,
            f32_gemm: slot!($entry, gemm_float::Gemm<f32, $fmr, $fnp>),
            f32_gemv: slot!($entry, gemm_float::Gemv<f32>),
            narrow_gemv: slot!($entry, gemm_narrow::Gemv),
            quantize_row: slot!($entry, quantize::QuantizeRow),
            quantize_weights: slot!($entry, quantize::QuantizeWeights),
            hadamard: slot!($entry, hadamard::Hadamard),
            quantize_int4: slot!($entry, int4::QuantizeInt4),
            round_block: slot!($entry, feedback::RoundBlock),
            rms_norm: slot!($entry, vector::RmsNorm),
            #[cfg(any(test, feature = "bench-support"))]
            silu_mul: slot!($entry, vector::SiluMul),
            to_bf16: slot!($entry, vector::ToBf16),
            activate: slot!($entry, row_ops::Activate),
            sigmoid_mul: slot!($entry, row_ops::SigmoidMul),
            layer_norm: slot!($entry, row_ops::LayerNorm),
            activate_in_place: slot!($entry, row_ops::ActivateInPlace),
            add_scaled: slot!($entry, row_ops::AddScaled),
            scale_and_cap: slot!($entry, row_ops::ScaleAndCap),
            mean_square: slot!($entry, moments::MeanSquare),
            cut_off: slot!($entry, moments::CutOff),
            multiply: slot!($entry, moments::Multiply),
            causal_conv: slot!($entry, recurrent::CausalConv),
            l2_norm: slot!($entry, recurrent::L2Norm),
            delta_rule: slot!($entry, recurrent::DeltaRule),
            #[cfg(any(test, feature = "bench-support"))]
            exp: slot!($entry, vector::Exp),
            rotate_heads: slot!($entry, rope::RotateHeads),
            attend_f32: slot!($entry, attention::AttendF32),
            attend_bf16: slot!($entry, attention::AttendBf16),
            attend_int8: slot!($entry, attention::AttendInt8),
            merge_attention: slot!($entry, attention::Merge),
            finish_attention: slot!($entry, attention::Finish),
            write_f32: slot!($entry, attention::WriteF32),
            write_bf16: slot!($entry, attention::WriteBf16),
            write_int8: slot!($entry, attention::WriteInt8),
            read: slot!($entry, limits::Read),
            dots: slot!($entry, limits::Dots),
            fmas: slot!($entry, limits::Fmas),
        }
    };
}
use kernel_set;
