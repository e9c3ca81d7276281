//! bf16 products with the bf16 instructions of a CPU: they have numerics of their own, and are used only when asked for by
//! name.
//!
//! Activations are rounded to bf16 and sums are f32; the instruction fixes the order of additions and their rounding. Its
//! definition is here, one output element at a time. Its kernels give the same bits, for any number of rows, tiles and
//! threads. `docs/numerics.md` compares the instructions.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS and TDPBF16PS; Arm
//! Architecture Reference Manual for A-profile, BFDOT.

use std::ops::Range;

use super::simd::LANES;
use super::target::Target;
use super::{KernelSet, Result};
use crate::error::Error;
use crate::memory::AlignedBuf;
use crate::memory::SharedMut;
use crate::threads::Region;

/// k of an instruction on tiles. Rows of activations are padded to a multiple with zeros.
pub(super) const TILE_K: usize = 32;
/// Rows beyond the last that kernels may read (and ignore).
pub(super) const SPARE_ROWS: usize = 15;
/// Elements of a row that one task rounds at least.
const TASK_ELEMENTS: usize = 16384;

/// How a [`KernelSet`] with numerics of its own multiplies bf16 weights.
#[derive(Clone, Copy)]
pub(super) struct Bf16Dot {
    /// Any number of rows.
    pub(super) product: for<'a> fn(Bf16Args<'a>),
    /// Panels that a task of many rows takes.
    pub(super) tile_panels: usize,
    /// The definition of a sum: a row of activations times the weights of an output column.
    pub(super) model: fn(&[u16], &[u16]) -> f32,
}

/// One task. Panels are `[panel][k-block]`, a k-block `[column][2]`.
///
/// Invariant, established by `gemm_columns`: no other task has one of the rows and one of the panels.
pub(super) struct Bf16Args<'a> {
    pub(super) lhs: Bf16Rows<'a>,
    pub(super) data: &'a [[u16; 2 * LANES]],
    /// k / 2, rounded up.
    pub(super) k_blocks: usize,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) target: Target<'a>,
}

impl Bf16Args<'_> {
    /// Asserts what the unchecked accesses of the kernels rest on: the left-hand side has the task's rows, padded to whole
    /// tiles, and [`SPARE_ROWS`] more that a last tile may read; the right-hand side has its panels.
    pub(super) fn check(&self) {
        let Bf16Rows { data, stride } = self.lhs;
        assert!(stride >= (2 * self.k_blocks).next_multiple_of(TILE_K), "rows are padded to whole tiles");
        assert!(data.len() >= (self.rows.end + SPARE_ROWS) * stride);
        assert!(self.data.len() >= self.panels.end * self.k_blocks);
    }
}

/// Activations `[m, k]` rounded to bf16, to nearest, ties to even. Scratch: grows, keeps its memory.
#[derive(Default)]
pub struct RoundedRows {
    m: usize,
    k: usize,
    /// `[m, stride]`, zeros beyond k.
    data: AlignedBuf<u16>,
}

/// What the kernels read of [`RoundedRows`].
#[derive(Clone, Copy)]
pub(super) struct Bf16Rows<'a> {
    pub(super) data: &'a [u16],
    /// Elements from row to row.
    pub(super) stride: usize,
}

impl RoundedRows {
    /// Rounds `x`, `[m, k]`.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    ///
    /// # Panics
    /// When `x` is not `m * k` long.
    pub fn round(
        &mut self,
        kernels: &KernelSet,
        region: &Region<'_>,
        x: &[f32],
        m: usize,
        k: usize,
    ) -> Result<()> {
        assert_eq!(x.len(), m * k, "x: [{m}, {k}]");
        let stride = Self::stride(k);
        let too_many = || Error::out_of_memory(format!("[{m}, {k}] activations do not fit into memory"));
        let elements = m.checked_add(SPARE_ROWS).and_then(|rows| rows.checked_mul(stride));
        // Empty until everything is there.
        self.m = 0;
        self.data.reserve(elements.ok_or_else(too_many)?)?;
        (self.m, self.k) = (m, k);
        if m * k == 0 {
            return Ok(());
        }
        let rows = (TASK_ELEMENTS / k).clamp(1, m.div_ceil(region.threads()));
        let data = SharedMut::new(&mut self.data);
        region.parallel(m.div_ceil(rows), |task| {
            for row in task * rows..((task + 1) * rows).min(m) {
                // SAFETY: each row belongs to one task, and `parallel` calls each task once.
                let out = unsafe { data.slice(row * stride, stride) };
                let (out, padding) = out.split_at_mut(k);
                kernels.to_bf16(&x[row * k..][..k], out);
                padding.fill(0);
            }
        });
        Ok(())
    }

    /// Elements from row to row: whole tiles, and an odd number of them, so that neighbouring rows fall into different
    /// sets of a cache.
    fn stride(k: usize) -> usize {
        (k.div_ceil(TILE_K) | 1) * TILE_K
    }

    /// # Panics
    /// When the rows are not `[m, k]`.
    pub(super) fn rows(&self, m: usize, k: usize) -> Bf16Rows<'_> {
        assert!(
            self.m >= m && self.k == k,
            "rounded rows: expected [{m}, {k}], found [{}, {}]",
            self.m,
            self.k
        );
        Bf16Rows { data: &self.data, stride: Self::stride(k) }
    }
}

fn widen(bf16: u16) -> f32 {
    f32::from_bits(u32::from(bf16) << 16)
}

/// Zero of the same sign for a subnormal.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// `a * b + c`, rounded to nearest even, with subnormal inputs and results flushed. Whether a result is subnormal is
/// decided by its rounding with an unbounded exponent, as x86 does.
#[cfg(any(target_arch = "x86_64", test))]
fn fma_flushing(a: f32, b: f32, c: f32) -> f32 {
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let sum = a.mul_add(b, c);
    if sum.abs() == f32::MIN_POSITIVE {
        // Rounded up from a value that 24 bits hold below the smallest normal number?
        let exact = f64::from(a).mul_add(f64::from(b), f64::from(c));
        if exact.abs() < f64::from(f32::MIN_POSITIVE) * (1.0 - 0.5_f64.powi(25)) {
            return 0.0_f32.copysign(sum);
        }
    }
    flush(sum)
}

/// One lane of VDPBF16PS: the second product of the pair, then the first, one FMA each.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) fn vdpbf16(sum: f32, x: [u16; 2], w: [u16; 2]) -> f32 {
    let second = fma_flushing(widen(x[1]), widen(w[1]), sum);
    fma_flushing(widen(x[0]), widen(w[0]), second)
}

/// An output element of VDPBF16PS: pairs in ascending order.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) fn vdpbf16_model(x: &[u16], w: &[u16]) -> f32 {
    pairs(x, w).fold(0.0, |sum, (x, w)| vdpbf16(sum, x, w))
}

/// One element of TDPBF16PS: at most 32 k, FMA chains over the first and over the second elements of the pairs, from zero;
/// their sum is added to the sum before.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) fn tdpbf16(sum: f32, x: &[u16], w: &[u16]) -> f32 {
    let (mut first, mut second) = (0.0, 0.0);
    for (x, w) in pairs(x, w) {
        first = fma_flushing(widen(x[0]), widen(w[0]), first);
        second = fma_flushing(widen(x[1]), widen(w[1]), second);
    }
    flush(flush(sum) + flush(first + second))
}

/// An output element of TDPBF16PS: k-tiles in ascending order.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) fn tdpbf16_model(x: &[u16], w: &[u16]) -> f32 {
    x.chunks(TILE_K).zip(w.chunks(TILE_K)).fold(0.0, |sum, (x, w)| tdpbf16(sum, x, w))
}

/// One lane of BFDOT: the products (exact) and their sum, and that and the sum before, each addition rounded to odd.
#[cfg(any(target_arch = "aarch64", test))]
pub(super) fn bfdot(sum: f32, x: [u16; 2], w: [u16; 2]) -> f32 {
    let product = |i: usize| flush(flush(widen(x[i])) * flush(widen(w[i])));
    add_to_odd(flush(sum), add_to_odd(product(0), product(1)))
}

/// An output element of BFDOT: pairs in ascending order.
#[cfg(any(target_arch = "aarch64", test))]
pub(super) fn bfdot_model(x: &[u16], w: &[u16]) -> f32 {
    pairs(x, w).fold(0.0, |sum, (x, w)| bfdot(sum, x, w))
}

/// `a + b`: of the two nearest numbers, where it is none, the one with an odd last bit. Subnormal sums are flushed.
#[cfg(any(target_arch = "aarch64", test))]
pub(super) fn add_to_odd(a: f32, b: f32) -> f32 {
    let sum = a + b;
    if sum.is_infinite() && (f64::from(a) + f64::from(b)).abs() < 2.0_f64.powi(128) {
        // The largest number is odd.
        return f32::MAX.copysign(sum);
    }
    if sum.is_finite() && sum != 0.0 {
        // What rounding to nearest has added (exact; Knuth's TwoSum).
        let back = sum - a;
        let error = (a - (sum - back)) + (b - back);
        if error != 0.0 && sum.to_bits() & 1 == 0 {
            let towards_zero = (error > 0.0) != (sum > 0.0);
            return f32::from_bits(if towards_zero { sum.to_bits() - 1 } else { sum.to_bits() + 1 });
        }
    }
    flush(sum)
}

/// Pairs of consecutive elements, the last filled up with zero.
fn pairs<'a>(x: &'a [u16], w: &'a [u16]) -> impl Iterator<Item = ([u16; 2], [u16; 2])> + 'a {
    let pair = |pair: &[u16]| [pair[0], pair.get(1).copied().unwrap_or(0)];
    x.chunks(2).zip(w.chunks(2)).map(move |(x, w)| (pair(x), pair(w)))
}
