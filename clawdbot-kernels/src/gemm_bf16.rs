//! bf16 products with instructions that multiply pairs and add to a lane: `vdpbf16ps`, `bfdot`.
//!
//! Each output element is one chain over ascending pairs of k, however many rows there are. See `bf16_dot.rs`.

use std::marker::PhantomData;

use super::bf16_dot::{Bf16Args, Bf16Rows};
use super::simd::LANES;
use super::target::{CHUNK_ROWS, GEMV_ROWS, TileAt, row_chunk};
use super::unchecked::array;
use super::{Kernel, Simd};

/// k-blocks that tile after tile of many rows takes from the first-level cache: 24 KiB of three panels.
const SLICE_BLOCKS: usize = 128;
/// How far ahead of its reads the kernel asks for weights when there are few rows, in k-blocks.
const PREFETCH_BLOCKS: usize = 24;

/// Sixteen lanes of such an instruction.
pub(super) trait PairDot: 'static {
    /// Sums of 16 columns.
    type Sum: Copy;
    /// A k-block: a pair for each of 16 columns.
    type Weights: Copy;
    /// A pair of activations, for all columns.
    type Pair: Copy;

    /// Sums from memory.
    ///
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn load(sums: &[f32; LANES]) -> Self::Sum;
    /// Sums to memory.
    ///
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn store(sums: Self::Sum, out: &mut [f32; LANES]);
    /// A k-block from memory.
    ///
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn weights(block: &[u16; 2 * LANES]) -> Self::Weights;
    /// A pair of activations from memory.
    ///
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn pair(pair: &[u16; 2]) -> Self::Pair;
    /// The sums, with the products of the pairs added.
    ///
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn dot(sums: Self::Sum, weights: Self::Weights, pair: Self::Pair) -> Self::Sum;
}

/// Products by `D`, in tiles of at most `MR` rows (4 or 8) by `NP` panels. Used only in kernel sets whose `detected` in
/// `isa.rs` asks for the instruction of `D` (and in tests, with models of it that need none).
pub(super) struct Dot<D, const MR: usize, const NP: usize>(PhantomData<D>);
impl<D: PairDot, const MR: usize, const NP: usize> Kernel for Dot<D, MR, NP> {
    type Args<'a> = Bf16Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Bf16Args<'_>) {
        args.check();
        let mut panel = args.panels.start;
        if args.rows.len() <= GEMV_ROWS {
            // Chains of their own for four panels hide the latency of the instruction.
            while args.rows.len() == 1 && panel + 4 <= args.panels.end {
                // SAFETY: the CPU has the instruction, see `Dot`; `args.check` passed; the panels are the task's.
                unsafe { rows_by_panels::<S, D, 1, 4, GEMV_ROWS>(s, &args, panel) };
                panel += 4;
            }
            while panel < args.panels.end {
                // SAFETY: the CPU has the instruction, see `Dot`; `args.check` passed; the panel is the task's.
                unsafe { rows_by_panels::<S, D, MR, 1, GEMV_ROWS>(s, &args, panel) };
                panel += 1;
            }
        } else {
            while panel + NP <= args.panels.end {
                // SAFETY: the CPU has the instruction, see `Dot`; `args.check` passed; the panels are the task's.
                unsafe { rows_by_panels::<S, D, MR, NP, CHUNK_ROWS>(s, &args, panel) };
                panel += NP;
            }
            while panel < args.panels.end {
                // SAFETY: the CPU has the instruction, see `Dot`; `args.check` passed; the panel is the task's.
                unsafe { rows_by_panels::<S, D, MR, 1, CHUNK_ROWS>(s, &args, panel) };
                panel += 1;
            }
        }
    }
}

/// All rows of the task by `P` panels, `CHUNK` rows at a time: [`GEMV_ROWS`] where that is all there are, and weights
/// come from memory.
///
/// # Safety
/// The CPU must have the instruction; `args.check` must have passed; the panels must be the task's.
#[inline(always)]
unsafe fn rows_by_panels<S: Simd, D: PairDot, const MR: usize, const P: usize, const CHUNK: usize>(
    s: S,
    args: &Bf16Args<'_>,
    panel: usize,
) {
    let (Bf16Rows { data, stride }, k_blocks) = (args.lhs, args.k_blocks);
    let slice_blocks = if CHUNK == GEMV_ROWS { k_blocks.max(1) } else { SLICE_BLOCKS };
    let chunk_rows = row_chunk(args.rows.len(), MR, CHUNK_ROWS).min(CHUNK);
    // The last tile of a chunk may have rows too many: they are computed and dropped.
    let mut sums = [[[0.0; LANES]; P]; CHUNK];
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows.next_multiple_of(MR)] {
            *sums = [[0.0; LANES]; P];
        }
        for first in (0..k_blocks).step_by(slice_blocks) {
            let count = slice_blocks.min(k_blocks - first);
            let mut row = 0;
            while row < rows {
                let slice = Slice {
                    x: &data[(chunk + row) * stride + 2 * first..],
                    stride,
                    weights: &args.data[panel * k_blocks + first..],
                    panel: k_blocks,
                    count,
                };
                let sums = &mut sums[row..];
                row += match rows - row {
                    // SAFETY: the clause on the CPU.
                    1 => unsafe { tile::<S, D, 1, P, CHUNK>(s, slice, sums) },
                    // SAFETY: the clause on the CPU.
                    2 => unsafe { tile::<S, D, 2, P, CHUNK>(s, slice, sums) },
                    // SAFETY: the clause on the CPU.
                    3 | 4 => unsafe { tile::<S, D, 4, P, CHUNK>(s, slice, sums) },
                    // SAFETY: the clause on the CPU.
                    _ => unsafe { tile::<S, D, MR, P, CHUNK>(s, slice, sums) },
                };
            }
        }
        // SAFETY: the rows are `args.rows` and, by the clause above, the panels are the task's: by the invariant of
        // `Bf16Args` no other's.
        unsafe { args.target.finish(TileAt { row: chunk, panel }, P, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// `count` k-blocks of some rows and panels.
#[derive(Clone, Copy)]
struct Slice<'a> {
    /// From the first row's first element on.
    x: &'a [u16],
    /// Elements from row to row.
    stride: usize,
    /// From the first panel's first k-block on.
    weights: &'a [[u16; 2 * LANES]],
    /// k-blocks from panel to panel.
    panel: usize,
    count: usize,
}

/// `R` rows by `P` panels by a slice: `sums += `. Returns `R`.
///
/// # Panics
/// When the slice does not have `P` panels and `R` rows, or `sums` does not have `R` rows.
///
/// # Safety
/// The CPU must have the instruction.
#[inline(always)]
unsafe fn tile<S: Simd, D: PairDot, const R: usize, const P: usize, const CHUNK: usize>(
    s: S,
    slice: Slice<'_>,
    sums: &mut [[[f32; LANES]; P]],
) -> usize {
    let Slice { x, stride, weights, panel, count } = slice;
    // What the unchecked accesses below rest on.
    let (x, weights) = (&x[..(R - 1) * stride + 2 * count], &weights[..(P - 1) * panel + count]);
    let sums = sums.first_chunk_mut::<R>().expect("sums of all rows");
    // SAFETY: the clause on the CPU.
    let mut totals = [[unsafe { D::load(&sums[0][0]) }; P]; R];
    for r in 0..R {
        for p in 0..P {
            // SAFETY: the clause on the CPU.
            totals[r][p] = unsafe { D::load(&sums[r][p]) };
        }
    }
    for block in 0..count {
        // What comes after the end of a panel is the panel after those that are being read.
        let beyond = if block + PREFETCH_BLOCKS < panel { 0 } else { (P - 1) * panel };
        // SAFETY: `block < count <= weights.len()`, as sliced.
        let first = unsafe { weights.get_unchecked(block) };
        // SAFETY: the clause on the CPU.
        let mut w = [unsafe { D::weights(first) }; P];
        for p in 0..P {
            let at = p * panel + block;
            if CHUNK == GEMV_ROWS {
                s.prefetch(weights.as_ptr().wrapping_add(at + PREFETCH_BLOCKS + beyond).cast());
            }
            // SAFETY: `p < P` and `block < count`; `weights` was sliced to `(P - 1) * panel + count`.
            let weights = unsafe { weights.get_unchecked(at) };
            // SAFETY: the clause on the CPU.
            w[p] = unsafe { D::weights(weights) };
        }
        for r in 0..R {
            // SAFETY: `r < R` and `block < count`; `x` was sliced to `(R - 1) * stride + 2 * count`.
            let pair = unsafe { array(x, r * stride + 2 * block) };
            // SAFETY: the clause on the CPU.
            let pair = unsafe { D::pair(pair) };
            for p in 0..P {
                // SAFETY: the clause on the CPU.
                totals[r][p] = unsafe { D::dot(totals[r][p], w[p], pair) };
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            // SAFETY: the clause on the CPU.
            unsafe { D::store(totals[r][p], &mut sums[r][p]) };
        }
    }
    R
}

/// `vdpbf16ps` (AVX512-BF16).
#[cfg(target_arch = "x86_64")]
pub(super) struct Vdpbf16;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::*;

    impl PairDot for Vdpbf16 {
        type Sum = __m512;
        type Weights = __m512i;
        type Pair = __m512i;

        #[inline(always)]
        unsafe fn load(sums: &[f32; LANES]) -> __m512 {
            // SAFETY: `sums` is 64 bytes, read without alignment; AVX-512 is there by the clause of `PairDot::load`.
            unsafe { _mm512_loadu_ps(sums.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store(sums: __m512, out: &mut [f32; LANES]) {
            // SAFETY: `out` is 64 bytes, written without alignment; AVX-512 is there by the clause of `PairDot::store`.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) }
        }
        #[inline(always)]
        unsafe fn weights(block: &[u16; 2 * LANES]) -> __m512i {
            // SAFETY: `block` is 64 bytes, read without alignment; AVX-512 is there by the clause of `PairDot::weights`.
            unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
        }
        #[inline(always)]
        unsafe fn pair(pair: &[u16; 2]) -> __m512i {
            // SAFETY: `pair` is 4 bytes, read without alignment.
            let pair = unsafe { pair.as_ptr().cast::<i32>().read_unaligned() };
            // SAFETY: AVX-512 is there by the clause of `PairDot::pair`.
            unsafe { _mm512_set1_epi32(pair) }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m512, weights: __m512i, pair: __m512i) -> __m512 {
            // SAFETY: both types are 512 bits, and every bit pattern is a value of either.
            let weights = unsafe { transmute::<__m512i, __m512bh>(weights) };
            // SAFETY: both types are 512 bits, and every bit pattern is a value of either.
            let pair = unsafe { transmute::<__m512i, __m512bh>(pair) };
            // SAFETY: AVX512-BF16 is there by the clause of `PairDot::dot`.
            unsafe { _mm512_dpbf16_ps(sums, weights, pair) }
        }
    }
}

/// `bfdot` (Armv8.6 BF16, optional since Armv8.2).
#[cfg(target_arch = "aarch64")]
pub(super) struct Bfdot;

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::*;

    impl PairDot for Bfdot {
        type Sum = [float32x4_t; 4];
        type Weights = [uint16x8_t; 4];
        type Pair = uint16x8_t;

        #[inline(always)]
        unsafe fn load(sums: &[f32; LANES]) -> Self::Sum {
            // SAFETY: NEON is there by the clause of `PairDot::load`.
            let mut out = [unsafe { vdupq_n_f32(0.0) }; 4];
            for (out, sums) in out.iter_mut().zip(sums.as_chunks::<4>().0) {
                // SAFETY: a quarter is 16 bytes, read without alignment; NEON is there by the clause of `PairDot::load`.
                *out = unsafe { vld1q_f32(sums.as_ptr()) };
            }
            out
        }
        #[inline(always)]
        unsafe fn store(sums: Self::Sum, out: &mut [f32; LANES]) {
            for (sums, out) in sums.into_iter().zip(out.as_chunks_mut::<4>().0) {
                // SAFETY: a quarter is 16 bytes, written without alignment; NEON is there by the clause of `PairDot::store`.
                unsafe { vst1q_f32(out.as_mut_ptr(), sums) };
            }
        }
        #[inline(always)]
        unsafe fn weights(block: &[u16; 2 * LANES]) -> Self::Weights {
            // SAFETY: NEON is there by the clause of `PairDot::weights`.
            let mut out = [unsafe { vdupq_n_u16(0) }; 4];
            for (out, block) in out.iter_mut().zip(block.as_chunks::<8>().0) {
                // SAFETY: a quarter is 16 bytes, read without alignment; NEON is there by the clause of `PairDot::weights`.
                *out = unsafe { vld1q_u16(block.as_ptr()) };
            }
            out
        }
        #[inline(always)]
        unsafe fn pair(pair: &[u16; 2]) -> uint16x8_t {
            // SAFETY: `pair` is 4 bytes, read without alignment.
            let pair = unsafe { pair.as_ptr().cast::<u32>().read_unaligned() };
            // SAFETY: NEON is there by the clause of `PairDot::pair`.
            let pair = unsafe { vdupq_n_u32(pair) };
            // SAFETY: NEON is there by the clause of `PairDot::pair`.
            unsafe { vreinterpretq_u16_u32(pair) }
        }
        #[inline(always)]
        unsafe fn dot(sums: Self::Sum, weights: Self::Weights, pair: uint16x8_t) -> Self::Sum {
            let mut out = sums;
            for i in 0..4 {
                // SAFETY: BF16 is there by the clause of `PairDot::dot`.
                out[i] = unsafe { bfdot(sums[i], weights[i], pair) };
            }
            out
        }
    }

    /// `bfdot`, for which there is no stable intrinsic yet.
    #[inline]
    #[target_feature(enable = "neon", enable = "bf16")]
    fn bfdot(mut sums: float32x4_t, weights: uint16x8_t, pair: uint16x8_t) -> float32x4_t {
        // SAFETY: arithmetic on registers alone; the CPU has the instruction, a feature of this function.
        unsafe {
            asm!(
                "bfdot {sums:v}.4s, {weights:v}.8h, {pair:v}.8h",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                pair = in(vreg) pair,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}
