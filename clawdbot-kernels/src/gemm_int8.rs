//! int8 x int8 -> int32 inside a group, f32 across groups.

use std::ops::Range;

use super::gemm::{CHUNK_ROWS, GEMV_ROWS, Target, row_chunk};
use super::gemm_int4::{self, Int4Panels};
use super::int4::GroupScales;
use super::quantize::Int8Rows;
use super::scale_lines::{MinimaArgs, ScaleLines, WidenArgs, for_scales, row_total};
use super::simd::LANES;
use super::{Kernel, Simd};

/// k-blocks of a prepared slice: 512 weights per column, 24 KiB for three panels.
pub(super) const SLICE_BLOCKS: usize = 128;
/// Groups of a slice at most.
const SLICE_GROUPS: usize = 32;
/// k-blocks between two tests for the end of a group, where the group has that many.
const UNROLL: usize = 4;
/// How far ahead of its reads the narrow kernel asks for weights, in cache lines.
const PREFETCH_LINES: usize = 16;

/// One task. Panels are `[panel][k_blocks]`.
pub(super) struct Int8Args<'a> {
    pub(super) lhs: Int8Rows<'a>,
    pub(super) codes: &'a [[i8; 4 * LANES]],
    /// `[panel][line of scales]`
    pub(super) scales: &'a [[u16; LANES]],
    /// Of the scales. Nothing is subtracted from codes.
    pub(super) kind: GroupScales,
    /// For wide kernels, instead of `codes` and `scales`. There are two k-blocks to a line.
    pub(super) int4: Option<Int4Panels<'a>>,
    pub(super) k_blocks: usize,
    /// Weights per group: a multiple of 4.
    pub(super) group: usize,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) target: Target<'a>,
}

impl Int8Args<'_> {
    pub(super) fn group_blocks(&self) -> usize {
        self.group / 4
    }

    pub(super) fn groups(&self) -> usize {
        self.k_blocks.div_ceil(self.group_blocks())
    }

    /// The lines of scales and their kind.
    pub(super) fn scale_lines(&self) -> (&[[u16; LANES]], GroupScales) {
        self.int4.map_or((self.scales, self.kind), |int4| (int4.scales, int4.kind))
    }

    /// The checks on which the unchecked accesses of the kernels rest; tiles may read `tile_rows - 1` rows too many.
    pub(super) fn check(&self, tile_rows: usize) {
        let Int8Rows { codes, stride, scales, starts } = self.lhs;
        assert!(self.group >= 4 && stride >= 4 * self.k_blocks);
        let rows = self.rows.end + tile_rows - 1;
        assert!(codes.len() >= rows * stride);
        assert!(scales.len() >= rows * self.groups() && starts.len() >= rows * self.groups());
        let end = self.panels.end;
        if let Some(Int4Panels { codes, scales, kind }) = self.int4 {
            assert!(self.k_blocks.is_multiple_of(2) && self.group.is_multiple_of(8));
            assert!(codes.len() >= end * self.k_blocks / 2);
            assert!(scales.len() >= end * kind.lines(self.groups()));
        } else {
            assert!(self.codes.len() >= end * self.k_blocks);
            assert!(self.scales.len() >= end * self.kind.lines(self.groups()));
        }
    }
}

/// Few rows: every panel is read once, from front to back, and multiplied with up to [`GEMV_ROWS`] rows on the way.
/// Two panels at a time where the registers allow it: half the loads of activations, and two streams of weights.
pub(super) struct Gemv;
impl Kernel for Gemv {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        args.check(1);
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            let panels = tile_panels::<S>(panel..args.panels.end);
            let mut row = args.rows.start;
            while row < args.rows.end {
                // SAFETY: checked above; the rows and the panels are the task's.
                row += unsafe {
                    if args.kind == GroupScales::Bf16 {
                        narrow_rows::<S, false>(s, &args, row, panel, panels)
                    } else {
                        narrow_rows::<S, true>(s, &args, row, panel, panels)
                    }
                };
            }
            panel += panels;
        }
    }
}

/// Panels of the next tile: two where there are registers for them.
#[inline(always)]
pub(super) fn tile_panels<S: Simd>(panels: Range<usize>) -> usize {
    if S::REGISTERS >= 32 && panels.len() >= 2 { 2 } else { 1 }
}

/// Some rows from `row` by one or two panels; how many rows. `STORED`: scales are not bf16.
///
/// # Safety
/// As for [`narrow_tile`].
#[inline(always)]
unsafe fn narrow_rows<S: Simd, const STORED: bool>(
    s: S,
    args: &Int8Args<'_>,
    row: usize,
    panel: usize,
    panels: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        if const { S::REGISTERS >= 32 } && panels == 2 {
            let count = (args.rows.end - row).min(GEMV_ROWS);
            match count {
                // More lines in one turn keep more reads of memory in flight.
                1 => narrow_tile::<S, STORED, 1, 2, 8>(s, args, row, panel),
                2 => narrow_tile::<S, STORED, 2, 2, 2>(s, args, row, panel),
                3 => narrow_tile::<S, STORED, 3, 2, 2>(s, args, row, panel),
                4 => narrow_tile::<S, STORED, 4, 2, 1>(s, args, row, panel),
                5 => narrow_tile::<S, STORED, 5, 2, 1>(s, args, row, panel),
                6 => narrow_tile::<S, STORED, 6, 2, 1>(s, args, row, panel),
                7 => narrow_tile::<S, STORED, 7, 2, 1>(s, args, row, panel),
                _ => narrow_tile::<S, STORED, 8, 2, 1>(s, args, row, panel),
            }
            return count;
        }
        // The second time, the panel comes from a cache.
        match args.rows.end - row {
            1 => {
                narrow_tile::<S, STORED, 1, 1, 4>(s, args, row, panel);
                1
            }
            2 | 3 => {
                narrow_tile::<S, STORED, 2, 1, 2>(s, args, row, panel);
                2
            }
            _ => {
                narrow_tile::<S, STORED, 4, 1, 1>(s, args, row, panel);
                4
            }
        }
    }
}

/// `R` rows by `P` panels, in `U` independent int32 sums (their order does not matter, see above).
///
/// # Safety
/// `args.check`; rows `row..row + R` and panels `panel..panel + P` must be the task's.
#[inline(always)]
unsafe fn narrow_tile<S: Simd, const STORED: bool, const R: usize, const P: usize, const U: usize>(
    s: S,
    args: &Int8Args<'_>,
    row: usize,
    panel: usize,
) {
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    // SAFETY: `check`: a panel has `k_blocks` blocks and `groups` groups, each row `stride >= 4 * k_blocks` codes and
    // `groups` scales. Prefetches may go beyond.
    unsafe {
        let weights = args.codes.as_ptr().add(panel * k_blocks);
        let scale_lines = if STORED { args.kind.lines(groups) } else { groups };
        let weight_scales = args.scales.as_ptr().add(panel * scale_lines);
        let codes = codes.as_ptr().add(row * stride);
        let (scales, starts) = (scales.as_ptr().add(row * groups), starts.as_ptr().add(row * groups));
        let mut sums = [[s.zero(); P]; R];
        let mut lows = [[s.zero(); P]; R];
        for g in 0..groups {
            let (mut block, end) = (g * group_blocks, k_blocks.min((g + 1) * group_blocks));
            let mut dots = [[[s.splat_i32(0); U]; P]; R];
            if S::FLIPPED {
                for r in 0..R {
                    for p in 0..P {
                        dots[r][p][0] = s.splat_i32(*starts.add(r * groups + g));
                    }
                }
            }
            while block + U <= end {
                // What comes after the end of a panel is the panel after those that are being read.
                let beyond = if block + PREFETCH_LINES < k_blocks { 0 } else { (P - 1) * k_blocks };
                for u in 0..U {
                    for p in 0..P {
                        let w = weights.add(p * k_blocks + block + u);
                        s.prefetch(w.wrapping_add(PREFETCH_LINES + beyond).cast());
                        let w = s.load_w8(&*w);
                        for r in 0..R {
                            let a = s.splat_a4(&*codes.add(r * stride + 4 * (block + u)).cast());
                            dots[r][p][u] = s.dot4(dots[r][p][u], w, a);
                        }
                    }
                }
                block += U;
            }
            while block < end {
                for p in 0..P {
                    let w = s.load_w8(&*weights.add(p * k_blocks + block));
                    for r in 0..R {
                        let a = s.splat_a4(&*codes.add(r * stride + 4 * block).cast());
                        dots[r][p][0] = s.dot4(dots[r][p][0], w, a);
                    }
                }
                block += 1;
            }
            for p in 0..P {
                let lines = weight_scales.add(p * scale_lines);
                let (weight_scale, min) = if STORED {
                    // The same branch for every group: a kernel for each kind would save little.
                    for_scales!(args.kind, K => K::load(s, lines, g))
                } else {
                    s.prefetch(lines.wrapping_add(P * scale_lines + g).cast());
                    (s.load_bf16(&*lines.add(g)), s.zero())
                };
                for r in 0..R {
                    let mut dot = dots[r][p][0];
                    for u in 1..U {
                        dot = s.add_i32(dot, dots[r][p][u]);
                    }
                    let scale = s.mul(s.splat(*scales.add(r * groups + g)), weight_scale);
                    sums[r][p] = s.fma(s.i32_to_f32(dot), scale, sums[r][p]);
                    if STORED && args.kind.minimum() {
                        let total = row_total(*scales.add(r * groups + g), *starts.add(r * groups + g));
                        lows[r][p] = s.fma(s.splat(total), min, lows[r][p]);
                    }
                }
            }
        }
        if STORED && args.kind.minimum() {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = s.add(sums[r][p], lows[r][p]);
                }
            }
        }
        args.target.finish_tile(s, (row, panel), args.rows.end, sums);
    }
}

/// Many rows: tiles of `MR` rows (a multiple of 4) by `NP` panels.
pub(super) struct Gemm<const MR: usize, const NP: usize>;
impl<const MR: usize, const NP: usize> Kernel for Gemm<MR, NP> {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        args.check(MR);
        assert!(args.group_blocks() <= SLICE_BLOCKS, "a group of {} is too long for a slice", args.group);
        let mut panel = args.panels.start;
        // SAFETY: checked above; the panels are the task's.
        unsafe {
            // Twice two panels are better than three and one.
            while panel + NP <= args.panels.end && !(NP > 2 && panel + NP + 1 == args.panels.end) {
                wide_panels::<S, MR, NP>(s, &args, panel);
                panel += NP;
            }
            while NP > 2 && panel + 2 <= args.panels.end {
                wide_panels::<S, MR, 2>(s, &args, panel);
                panel += 2;
            }
            while panel < args.panels.end {
                wide_panels::<S, MR, 1>(s, &args, panel);
                panel += 1;
            }
        }
    }
}

/// What a wide kernel keeps in the first-level cache.
#[repr(align(64))]
struct Slice<const NP: usize> {
    /// `[k_block][panel]`.
    codes: [[[i8; 4 * LANES]; NP]; SLICE_BLOCKS],
    /// `[group][panel]`, widened.
    scales: [[[f32; LANES]; NP]; SLICE_GROUPS],
}

/// All rows of the task by `NP` panels.
///
/// # Safety
/// `args.check(MR)`; the panels must be the task's.
#[inline(always)]
unsafe fn wide_panels<S: Simd, const MR: usize, const NP: usize>(s: S, args: &Int8Args<'_>, panel: usize) {
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let mut slice =
        Slice { codes: [[[0; 4 * LANES]; NP]; SLICE_BLOCKS], scales: [[[0.0; LANES]; NP]; SLICE_GROUPS] };
    // The last tile of a chunk may have up to MR - 1 rows too many: they are computed and dropped.
    let mut sums = [[[0.0; LANES]; NP]; CHUNK_ROWS];
    let chunk_rows = row_chunk(args.rows.len(), MR);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows.next_multiple_of(MR)] {
            *sums = [[0.0; LANES]; NP];
        }
        let slice_groups = (SLICE_BLOCKS / group_blocks).min(SLICE_GROUPS);
        for first_group in (0..groups).step_by(slice_groups) {
            let count = slice_groups.min(groups - first_group);
            let first_block = first_group * group_blocks;
            let blocks = (count * group_blocks).min(k_blocks - first_block);
            // SAFETY: `check`: the panels have `k_blocks` blocks and `groups` groups, and the slice has room because
            // `count * group_blocks <= SLICE_BLOCKS` and `count <= SLICE_GROUPS`.
            unsafe {
                for p in 0..NP {
                    if let Some(Int4Panels { codes, kind, .. }) = args.int4 {
                        let from = codes.as_ptr().add((panel + p) * k_blocks / 2 + first_block / 2);
                        let to = (&raw mut slice.codes).cast::<[i8; 4 * LANES]>().add(p);
                        gemm_int4::fill(s, s.prepared_zero(kind.zero()), from, blocks / 2, to, NP);
                    } else {
                        let from = args.codes.as_ptr().add((panel + p) * k_blocks + first_block);
                        for block in 0..blocks {
                            s.prepare_w8(&*from.add(block), &mut slice.codes.get_unchecked_mut(block)[p]);
                        }
                    }
                    let to = ((&raw mut slice.scales).cast::<[f32; LANES]>().add(p), NP);
                    let from = lines.as_ptr().add((panel + p) * kind.lines(groups));
                    kernels.scale_lines.call(WidenArgs::new(kind, from, (first_group, count), to));
                }
            }
            let mut row = 0;
            while row < rows {
                let row_group = (chunk + row) * groups + first_group;
                // SAFETY: `check`: the left-hand side has `MR - 1` rows beyond the last, so the tile's rows exist;
                // `sums` has a multiple of MR rows.
                unsafe {
                    let lhs = TileRows {
                        codes: codes.as_ptr().add((chunk + row) * stride + 4 * first_block),
                        stride,
                        scales: scales.as_ptr().add(row_group),
                        starts: starts.as_ptr().add(row_group),
                        groups,
                    };
                    let extent = (count, group_blocks, blocks);
                    let sums = sums.as_mut_ptr().add(row);
                    match rows - row {
                        1 | 2 => wide_tile::<S, 2, NP>(s, &slice, lhs, extent, &mut *sums.cast()),
                        3 | 4 => wide_tile::<S, 4, NP>(s, &slice, lhs, extent, &mut *sums.cast()),
                        _ => wide_tile::<S, MR, NP>(s, &slice, lhs, extent, &mut *sums.cast()),
                    }
                }
                row += MR;
            }
        }
        if kind.minimum() {
            // SAFETY: `check`, as above.
            unsafe {
                let lines = lines.as_ptr().add(panel * kind.lines(groups));
                let row_scales = (scales.as_ptr().add(chunk * groups), starts.as_ptr().add(chunk * groups));
                kernels.minima.call(MinimaArgs::new(kind, lines, row_scales, groups, &mut sums[..rows], NP));
            }
        }
        // SAFETY: rows and panels of the task.
        unsafe { args.target.finish((chunk, panel), NP, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// The left-hand side of a tile: pointers to its first row at the slice's first block and group.
#[derive(Clone, Copy)]
struct TileRows {
    codes: *const i8,
    /// Codes from row to row.
    stride: usize,
    scales: *const f32,
    starts: *const i32,
    /// Scales and starts from row to row.
    groups: usize,
}

/// `MR` rows by `NP` panels by a slice: `sums += `. int32 and f32 sums stay in registers:
/// larger tiles whose f32 sums do not fit were no faster but for groups above 128.
///
/// # Safety
/// `lhs` must have `MR` rows of `4 * blocks` codes and of `count` scales and starts; the slice must hold `blocks` blocks in
/// `count` groups of `group_blocks` (the last may be shorter).
#[inline(always)]
unsafe fn wide_tile<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    lhs: TileRows,
    (count, group_blocks, blocks): (usize, usize, usize),
    sums: &mut [[[f32; LANES]; NP]; MR],
) {
    let TileRows { codes, stride, scales, starts, groups } = lhs;
    // SAFETY: the caller's promises bound every access.
    unsafe {
        let mut totals = [[s.zero(); NP]; MR];
        for r in 0..MR {
            for p in 0..NP {
                totals[r][p] = s.load(&sums[r][p]);
            }
        }
        for g in 0..count {
            let mut dots = [[s.splat_i32(0); NP]; MR];
            if S::FLIPPED {
                for r in 0..MR {
                    dots[r] = [s.splat_i32(*starts.add(r * groups + g)); NP];
                }
            }
            let (mut block, end) = (g * group_blocks, ((g + 1) * group_blocks).min(blocks));
            while block + UNROLL <= end {
                for at in block..block + UNROLL {
                    dots = tile_step(s, slice, codes.add(4 * at), stride, at, dots);
                }
                block += UNROLL;
            }
            while block < end {
                dots = tile_step(s, slice, codes.add(4 * block), stride, block, dots);
                block += 1;
            }
            let weight_scales = slice.scales.get_unchecked(g);
            for r in 0..MR {
                let scale = s.splat(*scales.add(r * groups + g));
                for p in 0..NP {
                    let scale = s.mul(scale, s.load(&weight_scales[p]));
                    totals[r][p] = s.fma(s.i32_to_f32(dots[r][p]), scale, totals[r][p]);
                }
            }
        }
        for r in 0..MR {
            for p in 0..NP {
                s.store(totals[r][p], &mut sums[r][p]);
            }
        }
    }
}

/// One k-block of a tile.
///
/// # Safety
/// `codes` must point to the block's codes of the first row; the slice must hold the block.
#[inline(always)]
unsafe fn tile_step<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    codes: *const i8,
    stride: usize,
    block: usize,
    mut dots: [[S::I32; NP]; MR],
) -> [[S::I32; NP]; MR] {
    // SAFETY: the caller's promises bound every access.
    unsafe {
        let weights = slice.codes.get_unchecked(block);
        let mut w = [s.load_prepared(&weights[0]); NP];
        for p in 1..NP {
            w[p] = s.load_prepared(&weights[p]);
        }
        for r in 0..MR {
            let a = s.splat_a4(&*codes.add(r * stride).cast());
            for p in 0..NP {
                dots[r][p] = s.dot4(dots[r][p], w[p], a);
            }
        }
    }
    dots
}
