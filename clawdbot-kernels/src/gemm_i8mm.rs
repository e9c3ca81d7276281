//! int8 products of many rows with `smmla` (i8mm), which multiplies 2 rows x 8 codes by 8 codes x 2 columns.
//!
//! Two k-blocks of a panel, zipped by columns, are eight such operands, each two columns of 8 codes: slices are zipped when
//! they are copied to the first-level cache. A block without a partner is zipped with zeros. The sums are exact, and
//! what is done with them is what `gemm_int8.rs` does.

use std::arch::aarch64::*;
use std::arch::asm;

use super::gemm::{CHUNK_ROWS, row_chunk};
use super::gemm_int4::{self, Int4Panels};
use super::gemm_int8::{Int8Args, SLICE_BLOCKS};
use super::quantize::Int8Rows;
use super::scale_lines::{MinimaArgs, WidenArgs};
use super::simd::LANES;
use super::{Kernel, Simd};

/// Rows of a tile: its sums take half of the registers.
const TILE_ROWS: usize = 4;
/// Pairs of k-blocks of a prepared slice.
const SLICE_PAIRS: usize = SLICE_BLOCKS / 2;
/// Groups of a slice at most.
const SLICE_GROUPS: usize = 32;
/// Operands of a pair of k-blocks: two columns each.
const OPERANDS: usize = LANES / 2;

/// Two k-blocks.
type Pair = [[i8; 4 * LANES]; 2];

/// Many rows, panel after panel.
pub(super) struct Gemm;
impl Kernel for Gemm {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        args.check(TILE_ROWS);
        assert!(args.group_blocks() <= SLICE_BLOCKS, "a group of {} is too long for a slice", args.group);
        for panel in args.panels.clone() {
            // SAFETY: checked above; the panel is the task's. A kernel set with this kernel is used only where its
            // instruction is, see `isa`.
            unsafe { rows_by_panel(s, &args, panel) };
        }
    }
}

/// What the kernel keeps in the first-level cache.
#[repr(align(64))]
struct Slice {
    /// Zipped. Every group begins with a pair of its own.
    codes: [Pair; SLICE_PAIRS],
    /// Widened.
    scales: [[f32; LANES]; SLICE_GROUPS],
}

/// All rows of the task by a panel.
///
/// # Safety
/// The CPU must have i8mm; `args.check(TILE_ROWS)`; the panel must be the task's.
#[inline(always)]
unsafe fn rows_by_panel<S: Simd>(s: S, args: &Int8Args<'_>, panel: usize) {
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let group_pairs = group_blocks.div_ceil(2);
    let mut slice = Slice { codes: [[[0; 4 * LANES]; 2]; SLICE_PAIRS], scales: [[0.0; LANES]; SLICE_GROUPS] };
    // The last tile may have rows too many: they are computed and dropped.
    let mut sums = [[[0.0; LANES]; 1]; CHUNK_ROWS];
    let chunk_rows = row_chunk(args.rows.len(), TILE_ROWS);
    let slice_groups = (SLICE_PAIRS / group_pairs).min(SLICE_GROUPS);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows.next_multiple_of(TILE_ROWS)] {
            *sums = [[0.0; LANES]];
        }
        for first_group in (0..groups).step_by(slice_groups) {
            let count = slice_groups.min(groups - first_group);
            // SAFETY: `check`: the panel has `k_blocks` blocks and `groups` groups. The slice has room, because
            // `count * group_pairs <= SLICE_PAIRS` and `count <= SLICE_GROUPS`. The left-hand side has
            // `TILE_ROWS - 1` rows beyond the last; its rows are zeros up to a multiple of 8 codes.
            unsafe {
                for g in 0..count {
                    let blocks =
                        (first_group + g) * group_blocks..k_blocks.min((first_group + g + 1) * group_blocks);
                    fill(s, args, panel, blocks, slice.codes.as_mut_ptr().add(g * group_pairs));
                }
                let from = lines.as_ptr().add(panel * kind.lines(groups));
                let to = (slice.scales.as_mut_ptr(), 1);
                kernels.scale_lines.call(WidenArgs::new(kind, from, (first_group, count), to));
                for row in (0..rows).step_by(TILE_ROWS) {
                    let codes = codes.as_ptr().add((chunk + row) * stride + 4 * first_group * group_blocks);
                    let scales = scales.as_ptr().add((chunk + row) * groups + first_group);
                    for g in 0..count {
                        let blocks = group_blocks.min(k_blocks - (first_group + g) * group_blocks);
                        let pairs = slice.codes.as_ptr().add(g * group_pairs);
                        let mut dots = [[0; LANES]; TILE_ROWS];
                        multiply(
                            codes.add(4 * g * group_blocks),
                            stride,
                            pairs,
                            blocks.div_ceil(2),
                            &mut dots,
                        );
                        let weight_scale = s.load(slice.scales.get_unchecked(g));
                        for r in 0..TILE_ROWS {
                            let sum = &mut sums.get_unchecked_mut(row + r)[0];
                            let scale = s.mul(s.splat(*scales.add(r * groups + g)), weight_scale);
                            let dot = s.i32_to_f32(s.load_i32(&dots[r]));
                            s.store(s.fma(dot, scale, s.load(sum)), sum);
                        }
                    }
                }
            }
        }
        if kind.minimum() {
            // SAFETY: `check`, as above.
            unsafe {
                let lines = lines.as_ptr().add(panel * kind.lines(groups));
                let row_scales = (scales.as_ptr().add(chunk * groups), starts.as_ptr().add(chunk * groups));
                kernels.minima.call(MinimaArgs::new(kind, lines, row_scales, groups, &mut sums[..rows], 1));
            }
        }
        // SAFETY: rows and the panel of the task.
        unsafe { args.target.finish((chunk, panel), 1, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// Copies the k-blocks `blocks` of a panel and zips them in pairs.
///
/// # Safety
/// `args.check`; the panel must have the blocks, and `to` room for them.
#[inline(always)]
unsafe fn fill<S: Simd>(
    s: S,
    args: &Int8Args<'_>,
    panel: usize,
    blocks: std::ops::Range<usize>,
    to: *mut Pair,
) {
    // SAFETY: the caller's promises. int4 has an even number of blocks in every group, two to a line.
    unsafe {
        if let Some(Int4Panels { codes, kind, .. }) = args.int4 {
            let from = codes.as_ptr().add((panel * args.k_blocks + blocks.start) / 2);
            gemm_int4::fill(s, kind.zero(), from, blocks.len() / 2, to.cast(), 1);
            for pair in 0..blocks.len() / 2 {
                let pair = &mut *to.add(pair);
                let [first, second] = *pair;
                zip(&first, &second, pair);
            }
            return;
        }
        let from = args.codes.as_ptr().add(panel * args.k_blocks);
        for (pair, block) in blocks.clone().step_by(2).enumerate() {
            let second = if block + 1 < blocks.end { *from.add(block + 1) } else { [0; 4 * LANES] };
            zip(&*from.add(block), &second, &mut *to.add(pair));
        }
    }
}

/// Column after column: four codes of `first`, four of `second`.
///
/// # Safety
/// The CPU must have NEON.
#[inline(always)]
unsafe fn zip(first: &[i8; 4 * LANES], second: &[i8; 4 * LANES], out: &mut Pair) {
    // SAFETY: the offsets are inside of the arrays: four times 16 bytes, and twice as many.
    unsafe {
        for quarter in 0..4 {
            let a = vreinterpretq_s32_s8(vld1q_s8(first.as_ptr().add(16 * quarter)));
            let b = vreinterpretq_s32_s8(vld1q_s8(second.as_ptr().add(16 * quarter)));
            let out = out.as_mut_ptr().cast::<i8>().add(32 * quarter);
            vst1q_s8(out, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
            vst1q_s8(out.add(16), vreinterpretq_s8_s32(vzip2q_s32(a, b)));
        }
    }
}

/// `dots = ` four rows of codes, `stride` bytes apart, times `count` pairs of blocks.
///
/// # Safety
/// The CPU must have i8mm; the rows must have `8 * count` codes.
#[inline(always)]
unsafe fn multiply(
    codes: *const i8,
    stride: usize,
    pairs: *const Pair,
    count: usize,
    dots: &mut [[i32; LANES]; TILE_ROWS],
) {
    // SAFETY: the caller's promises; a pair is eight operands of 16 bytes.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); OPERANDS]; TILE_ROWS / 2];
        for pair in 0..count {
            let weights = pairs.add(pair).cast::<i8>();
            let mut a = [vdupq_n_s8(0); TILE_ROWS / 2];
            for r in 0..TILE_ROWS / 2 {
                let at = codes.add(2 * r * stride + 8 * pair);
                a[r] = vcombine_s8(vld1_s8(at), vld1_s8(at.add(stride)));
            }
            for c in 0..OPERANDS {
                let w = vld1q_s8(weights.add(16 * c));
                for r in 0..TILE_ROWS / 2 {
                    sums[r][c] = smmla(sums[r][c], a[r], w);
                }
            }
        }
        for r in 0..TILE_ROWS / 2 {
            for c in 0..OPERANDS {
                // Two columns of one row, then of the next.
                vst1_s32(dots[2 * r].as_mut_ptr().add(2 * c), vget_low_s32(sums[r][c]));
                vst1_s32(dots[2 * r + 1].as_mut_ptr().add(2 * c), vget_high_s32(sums[r][c]));
            }
        }
    }
}

/// `acc[2 i + j] + sum of a[8 i + k] * w[8 j + k]`. The intrinsic, `vmmlaq_s32`, is not stable yet.
///
/// # Safety
/// The CPU must have i8mm.
#[inline]
#[target_feature(enable = "neon", enable = "i8mm")]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers; the caller promises that the CPU has the instruction.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {w:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
