//! int8 products of many rows with `smmla` (i8mm), which multiplies 2 rows x 8 codes by 8 codes x 2 columns.
//!
//! Two k-blocks of a panel, zipped by columns, are eight such operands, each two columns of 8 codes: slices are zipped when
//! they are copied to the first-level cache. A last block without a partner is zipped with zeros. The sums are exact, and are
//! scaled and added as in `gemm_int8.rs`.

use std::arch::aarch64::*;
use std::arch::asm;

use super::gemm_int8::{Int8Args, SLICE_BLOCKS};
use super::minima::{MinimaArgs, RowScales};
use super::quantize::Int8Rows;
use super::scale_lines::WidenArgs;
use super::simd::LANES;
use super::target::{CHUNK_ROWS, TileAt, row_chunk};
use super::unchecked::{array, item};
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

/// Many rows, panel after panel. Used only in kernel sets whose `detected` in `isa.rs` asks for i8mm.
pub(super) struct Gemm;
impl Kernel for Gemm {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        args.check(TILE_ROWS);
        assert!(args.group_blocks() <= SLICE_BLOCKS, "a group of {} is too long for a slice", args.group);
        for panel in args.panels.clone() {
            // SAFETY: the CPU has i8mm, see `Gemm`; `args.check` passed; the panel is the task's.
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
/// The CPU must have i8mm; `args.check(TILE_ROWS)` must have passed; the panel must be the task's.
#[inline(always)]
unsafe fn rows_by_panel<S: Simd>(s: S, args: &Int8Args<'_>, panel: usize) {
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let lines = &lines[panel * kind.lines(groups)..];
    let group_pairs = group_blocks.div_ceil(2);
    let mut slice = Slice { codes: [[[0; 4 * LANES]; 2]; SLICE_PAIRS], scales: [[0.0; LANES]; SLICE_GROUPS] };
    // The last tile may have rows too many: they are computed and dropped.
    let mut sums = [[[0.0; LANES]; 1]; CHUNK_ROWS];
    let chunk_rows = row_chunk(args.rows.len(), TILE_ROWS, CHUNK_ROWS);
    let slice_groups = (SLICE_PAIRS / group_pairs).min(SLICE_GROUPS);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows.next_multiple_of(TILE_ROWS)] {
            *sums = [[0.0; LANES]];
        }
        for first_group in (0..groups).step_by(slice_groups) {
            let count = slice_groups.min(groups - first_group);
            for g in 0..count {
                let first = (first_group + g) * group_blocks;
                // SAFETY: the clause on the CPU.
                unsafe {
                    fill(
                        s,
                        args,
                        panel,
                        first..k_blocks.min(first + group_blocks),
                        &mut slice.codes[g * group_pairs..],
                    );
                }
            }
            let (of_slice, to) = (first_group..first_group + count, slice.scales.as_mut_ptr());
            // SAFETY: the lines are of a `Panel`, and so aligned; there is room for `SLICE_GROUPS >= count` groups.
            let widen = unsafe { WidenArgs::new(kind, lines, of_slice, to, 1) };
            kernels.scale_lines.call(widen);
            let first_block = first_group * group_blocks;
            let slice_blocks = (count * group_blocks).min(k_blocks - first_block);
            let weight_scales = &slice.scales[..count];
            for row in (0..rows).step_by(TILE_ROWS) {
                // What the unchecked reads below rest on. The last pair of a group may be half of the next group, which is
                // multiplied by zeros.
                let codes = &codes[(chunk + row) * stride + 4 * first_block..]
                    [..(TILE_ROWS - 1) * stride + 4 * slice_blocks + 4];
                let scales =
                    &scales[(chunk + row) * groups + first_group..][..(TILE_ROWS - 1) * groups + count];
                let sums = sums[row..].first_chunk_mut::<TILE_ROWS>().expect("sums of whole tiles");
                for (g, weight_scale) in weight_scales.iter().enumerate() {
                    let blocks = group_blocks.min(slice_blocks - g * group_blocks);
                    let pairs = &slice.codes[g * group_pairs..][..blocks.div_ceil(2)];
                    let mut dots = [[0; LANES]; TILE_ROWS];
                    // SAFETY: the clause on the CPU. The group's blocks end in the slice, and `codes` was sliced to
                    // `TILE_ROWS` rows of one block more than the slice has.
                    unsafe { multiply(codes, 4 * g * group_blocks, stride, pairs, &mut dots) };
                    let weight_scale = s.load(weight_scale);
                    for r in 0..TILE_ROWS {
                        let sum = &mut sums[r][0];
                        // SAFETY: `r < TILE_ROWS` and `g < count`; `scales` was sliced to `(TILE_ROWS - 1) * groups + count`.
                        let scale = s.mul(s.splat(unsafe { item(scales, r * groups + g) }), weight_scale);
                        let dot = s.i32_to_f32(s.load_i32(&dots[r]));
                        s.store(s.fma(dot, scale, s.load(sum)), sum);
                    }
                }
            }
        }
        if kind.minimum() {
            let lhs = RowScales { scales: &scales[chunk * groups..], starts: &starts[chunk * groups..] };
            // SAFETY: the lines are of a `Panel`, and so aligned.
            let minima = unsafe { MinimaArgs::new(kind, lines, lhs, groups, &mut sums[..rows], 1) };
            kernels.minima.call(minima);
        }
        // SAFETY: the rows are `args.rows` and, by the clause above, the panel is the task's: by the invariant of `Int8Args` no
        // other's.
        unsafe { args.target.finish(TileAt { row: chunk, panel }, 1, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// Copies the k-blocks `blocks` of a panel and zips them in pairs.
///
/// # Panics
/// When the panel does not have the blocks, or `to` no room for them.
///
/// # Safety
/// The CPU must have i8mm.
#[inline(always)]
unsafe fn fill<S: Simd>(
    s: S,
    args: &Int8Args<'_>,
    panel: usize,
    blocks: std::ops::Range<usize>,
    to: &mut [Pair],
) {
    // Narrow codes have an even number of blocks in every group.
    if let Some(narrow) = args.narrow {
        let to = &mut to[..blocks.len() / 2];
        let first = panel * args.k_blocks + blocks.start;
        // SAFETY: `to` was sliced to as many pairs of blocks.
        unsafe { narrow.fill(s, narrow.zero(), first, blocks.len(), to.as_mut_ptr().cast()) };
        for pair in to {
            let [first, second] = *pair;
            // SAFETY: the clause on the CPU.
            unsafe { zip(&first, &second, pair) };
        }
        return;
    }
    let from = &args.codes[panel * args.k_blocks + blocks.start..][..blocks.len()];
    let (pairs, last) = from.as_chunks::<2>();
    for ([first, second], to) in pairs.iter().zip(&mut *to) {
        // SAFETY: the clause on the CPU.
        unsafe { zip(first, second, to) };
    }
    if let [last] = last {
        // SAFETY: the clause on the CPU.
        unsafe { zip(last, &[0; 4 * LANES], &mut to[pairs.len()]) };
    }
}

/// Column after column: four codes of `first`, four of `second`.
#[inline]
#[target_feature(enable = "neon", enable = "i8mm")]
fn zip(first: &[i8; 4 * LANES], second: &[i8; 4 * LANES], out: &mut Pair) {
    let (first, second) = (first.as_chunks::<16>().0, second.as_chunks::<16>().0);
    let out = out.as_flattened_mut().as_chunks_mut::<16>().0;
    for quarter in 0..4 {
        // SAFETY: a quarter is 16 bytes, read without alignment.
        let a = vreinterpretq_s32_s8(unsafe { vld1q_s8(first[quarter].as_ptr()) });
        // SAFETY: a quarter is 16 bytes, read without alignment.
        let b = vreinterpretq_s32_s8(unsafe { vld1q_s8(second[quarter].as_ptr()) });
        let (low, high) = (vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b)));
        // SAFETY: an eighth of the pair is 16 bytes, written without alignment.
        unsafe { vst1q_s8(out[2 * quarter].as_mut_ptr(), low) };
        // SAFETY: an eighth of the pair is 16 bytes, written without alignment.
        unsafe { vst1q_s8(out[2 * quarter + 1].as_mut_ptr(), high) };
    }
}

/// `dots = ` four rows of codes, from code `first` on and `stride` apart, times pairs of blocks.
///
/// # Safety
/// `codes` must have `(TILE_ROWS - 1) * stride + first + 8 * pairs.len()` elements.
#[inline]
#[target_feature(enable = "neon", enable = "i8mm")]
unsafe fn multiply(
    codes: &[i8],
    first: usize,
    stride: usize,
    pairs: &[Pair],
    dots: &mut [[i32; LANES]; TILE_ROWS],
) {
    let mut sums = [[vdupq_n_s32(0); OPERANDS]; TILE_ROWS / 2];
    for (index, pair) in pairs.iter().enumerate() {
        let mut a = [vdupq_n_s8(0); TILE_ROWS / 2];
        for r in 0..TILE_ROWS / 2 {
            let at = first + 8 * index;
            // SAFETY: the clause on `codes`: `2 * r < TILE_ROWS` and `index < pairs.len()`.
            let even: &[i8; 8] = unsafe { array(codes, 2 * r * stride + at) };
            // SAFETY: the clause on `codes`: `2 * r + 1 < TILE_ROWS` and `index < pairs.len()`.
            let odd: &[i8; 8] = unsafe { array(codes, (2 * r + 1) * stride + at) };
            // SAFETY: 8 bytes, read without alignment.
            let even = unsafe { vld1_s8(even.as_ptr()) };
            // SAFETY: 8 bytes, read without alignment.
            let odd = unsafe { vld1_s8(odd.as_ptr()) };
            a[r] = vcombine_s8(even, odd);
        }
        for (c, operand) in pair.as_flattened().as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: an operand is 16 bytes, read without alignment.
            let w = unsafe { vld1q_s8(operand.as_ptr()) };
            for r in 0..TILE_ROWS / 2 {
                sums[r][c] = smmla(sums[r][c], a[r], w);
            }
        }
    }
    for r in 0..TILE_ROWS / 2 {
        for c in 0..OPERANDS {
            // Two columns of one row, then of the next.
            let [even, odd] = [vget_low_s32(sums[r][c]), vget_high_s32(sums[r][c])];
            // SAFETY: columns `2 * c` and `2 * c + 1` of 16: 8 bytes, written without alignment.
            unsafe { vst1_s32(dots[2 * r].as_chunks_mut::<2>().0[c].as_mut_ptr(), even) };
            // SAFETY: columns `2 * c` and `2 * c + 1` of 16: 8 bytes, written without alignment.
            unsafe { vst1_s32(dots[2 * r + 1].as_chunks_mut::<2>().0[c].as_mut_ptr(), odd) };
        }
    }
}

/// `acc[2 i + j] + sum of a[8 i + k] * w[8 j + k]`. The intrinsic, `vmmlaq_s32`, is not stable yet.
#[inline]
#[target_feature(enable = "neon", enable = "i8mm")]
fn smmla(mut acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers alone; the CPU has the instruction, a feature of this function.
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
