//! bf16 products with instructions that multiply pairs and add to a lane: `vdpbf16ps`, `bfdot`.
//!
//! Each output element is one chain over ascending pairs of k, however many rows there are. See `bf16_dot.rs`.

use std::marker::PhantomData;

use super::bf16_dot::{Bf16Args, Bf16Rows};
use super::gemm::{CHUNK_ROWS, GEMV_ROWS, row_chunk};
use super::simd::LANES;
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

    /// # Safety
    /// The CPU must have the instruction, here and below.
    unsafe fn load(sums: &[f32; LANES]) -> Self::Sum;
    /// # Safety
    /// See there.
    unsafe fn store(sums: Self::Sum, out: &mut [f32; LANES]);
    /// # Safety
    /// See there.
    unsafe fn weights(block: &[u16; 2 * LANES]) -> Self::Weights;
    /// # Safety
    /// See there.
    unsafe fn pair(pair: &[u16; 2]) -> Self::Pair;
    /// # Safety
    /// See there.
    unsafe fn dot(sums: Self::Sum, weights: Self::Weights, pair: Self::Pair) -> Self::Sum;
}

/// Products by `D`, in tiles of at most `MR` rows (4 or 8) by `NP` panels.
pub(super) struct Dot<D, const MR: usize, const NP: usize>(PhantomData<D>);
impl<D: PairDot, const MR: usize, const NP: usize> Kernel for Dot<D, MR, NP> {
    type Args<'a> = Bf16Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Bf16Args<'_>) {
        args.check();
        let mut panel = args.panels.start;
        // SAFETY: checked above; the panels are the task's. A kernel set with this kernel is used only where its
        // instruction is, see `isa`.
        unsafe {
            if args.rows.len() <= GEMV_ROWS {
                // Chains of their own for four panels hide the latency of the instruction.
                while args.rows.len() == 1 && panel + 4 <= args.panels.end {
                    rows_by_panels::<S, D, 1, 4, GEMV_ROWS>(s, &args, panel);
                    panel += 4;
                }
                while panel < args.panels.end {
                    rows_by_panels::<S, D, MR, 1, GEMV_ROWS>(s, &args, panel);
                    panel += 1;
                }
            } else {
                while panel + NP <= args.panels.end {
                    rows_by_panels::<S, D, MR, NP, CHUNK_ROWS>(s, &args, panel);
                    panel += NP;
                }
                while panel < args.panels.end {
                    rows_by_panels::<S, D, MR, 1, CHUNK_ROWS>(s, &args, panel);
                    panel += 1;
                }
            }
        }
    }
}

/// All rows of the task by `P` panels, `CHUNK` rows at a time: [`GEMV_ROWS`] where that is all there are, and weights
/// come from memory.
///
/// # Safety
/// The CPU must have the instruction; `args.check`; the panels must be the task's.
#[inline(always)]
unsafe fn rows_by_panels<S: Simd, D: PairDot, const MR: usize, const P: usize, const CHUNK: usize>(
    s: S,
    args: &Bf16Args<'_>,
    panel: usize,
) {
    let (Bf16Rows { data, stride }, k_blocks) = (args.lhs, args.k_blocks);
    let slice_blocks = if CHUNK == GEMV_ROWS { k_blocks.max(1) } else { SLICE_BLOCKS };
    let chunk_rows = row_chunk(args.rows.len(), MR).min(CHUNK);
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
                // SAFETY: `check`: there are 15 rows beyond the last, each of `2 * k_blocks` elements; `sums` has a
                // multiple of MR rows.
                unsafe {
                    let slice = Slice {
                        x: data.as_ptr().add((chunk + row) * stride + 2 * first),
                        stride,
                        weights: args.data.as_ptr().add(panel * k_blocks + first),
                        panel: k_blocks,
                        count,
                    };
                    let sums = sums.as_mut_ptr().add(row);
                    row += match rows - row {
                        1 => tile::<S, D, 1, P, CHUNK>(s, slice, &mut *sums.cast()),
                        2 => tile::<S, D, 2, P, CHUNK>(s, slice, &mut *sums.cast()),
                        3 | 4 => tile::<S, D, 4, P, CHUNK>(s, slice, &mut *sums.cast()),
                        _ => tile::<S, D, MR, P, CHUNK>(s, slice, &mut *sums.cast()),
                    };
                }
            }
        }
        // SAFETY: rows and panels of the task.
        unsafe { args.target.finish((chunk, panel), P, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// `count` k-blocks of some rows and panels.
#[derive(Clone, Copy)]
struct Slice {
    /// First row.
    x: *const u16,
    /// Elements from row to row.
    stride: usize,
    /// First panel.
    weights: *const [u16; 2 * LANES],
    /// k-blocks from panel to panel.
    panel: usize,
    count: usize,
}

/// `R` rows by `P` panels by a slice: `sums += `. Returns `R`.
///
/// # Safety
/// The CPU must have the instruction; the slice must have `R` rows and `P` panels.
#[inline(always)]
unsafe fn tile<S: Simd, D: PairDot, const R: usize, const P: usize, const CHUNK: usize>(
    s: S,
    slice: Slice,
    sums: &mut [[[f32; LANES]; P]; R],
) -> usize {
    let Slice { x, stride, weights, panel, count } = slice;
    // SAFETY: the caller's promises bound every access. Prefetches may go beyond.
    unsafe {
        let mut totals = [[D::load(&sums[0][0]); P]; R];
        for r in 0..R {
            for p in 0..P {
                totals[r][p] = D::load(&sums[r][p]);
            }
        }
        for block in 0..count {
            // What comes after the end of a panel is the panel after those that are being read.
            let beyond = if block + PREFETCH_BLOCKS < panel { 0 } else { (P - 1) * panel };
            let mut w = [D::weights(&*weights.add(block)); P];
            for p in 0..P {
                let at = weights.add(p * panel + block);
                if CHUNK == GEMV_ROWS {
                    s.prefetch(at.wrapping_add(PREFETCH_BLOCKS + beyond).cast());
                }
                w[p] = D::weights(&*at);
            }
            for r in 0..R {
                let pair = D::pair(&*x.add(r * stride + 2 * block).cast());
                for p in 0..P {
                    totals[r][p] = D::dot(totals[r][p], w[p], pair);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                D::store(totals[r][p], &mut sums[r][p]);
            }
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
            // SAFETY: the caller promises the instructions; 64 bytes.
            unsafe { _mm512_loadu_ps(sums.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store(sums: __m512, out: &mut [f32; LANES]) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) }
        }
        #[inline(always)]
        unsafe fn weights(block: &[u16; 2 * LANES]) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
        }
        #[inline(always)]
        unsafe fn pair(pair: &[u16; 2]) -> __m512i {
            // SAFETY: as above; 4 bytes.
            unsafe { _mm512_set1_epi32(pair.as_ptr().cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m512, weights: __m512i, pair: __m512i) -> __m512 {
            // SAFETY: as above; both types are 512 bits.
            unsafe {
                _mm512_dpbf16_ps(
                    sums,
                    transmute::<__m512i, __m512bh>(weights),
                    transmute::<__m512i, __m512bh>(pair),
                )
            }
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
            let x = sums.as_ptr();
            // SAFETY: the caller promises the instructions; four times 16 bytes.
            unsafe { [vld1q_f32(x), vld1q_f32(x.add(4)), vld1q_f32(x.add(8)), vld1q_f32(x.add(12))] }
        }
        #[inline(always)]
        unsafe fn store(sums: Self::Sum, out: &mut [f32; LANES]) {
            for i in 0..4 {
                // SAFETY: as above.
                unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), sums[i]) };
            }
        }
        #[inline(always)]
        unsafe fn weights(block: &[u16; 2 * LANES]) -> Self::Weights {
            let x = block.as_ptr();
            // SAFETY: as above.
            unsafe { [vld1q_u16(x), vld1q_u16(x.add(8)), vld1q_u16(x.add(16)), vld1q_u16(x.add(24))] }
        }
        #[inline(always)]
        unsafe fn pair(pair: &[u16; 2]) -> uint16x8_t {
            // SAFETY: as above; 4 bytes.
            unsafe { vreinterpretq_u16_u32(vdupq_n_u32(pair.as_ptr().cast::<u32>().read_unaligned())) }
        }
        #[inline(always)]
        unsafe fn dot(sums: Self::Sum, weights: Self::Weights, pair: uint16x8_t) -> Self::Sum {
            let mut out = sums;
            for i in 0..4 {
                // SAFETY: as above.
                out[i] = unsafe { bfdot(sums[i], weights[i], pair) };
            }
            out
        }
    }

    /// There is no intrinsic yet.
    ///
    /// # Safety
    /// The CPU must have BF16.
    #[inline]
    #[target_feature(enable = "neon", enable = "bf16")]
    unsafe fn bfdot(mut sums: float32x4_t, weights: uint16x8_t, pair: uint16x8_t) -> float32x4_t {
        // SAFETY: arithmetic on registers; the caller promises that the CPU has the instruction.
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
