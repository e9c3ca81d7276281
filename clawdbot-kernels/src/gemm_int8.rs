//! int8 x int8 -> int32 inside a group, f32 across groups.

use std::ops::Range;

use super::gemm_int4::{self, Int4Panels};
use super::group_scales::GroupScales;
use super::quantize::Int8Rows;
use super::scale_lines::{MinimaArgs, RowScales, ScaleLines, WidenArgs, for_scales, row_total};
use super::simd::LANES;
use super::target::{CHUNK_ROWS, GEMV_ROWS, Target, TileAt, row_chunk, tile_panels};
use super::unchecked::{array, item};
use super::{Kernel, Simd};

/// k-blocks of a prepared slice: 512 weights per column, 24 KiB for three panels.
pub(super) const SLICE_BLOCKS: usize = 128;
/// Groups of a slice at most.
const SLICE_GROUPS: usize = 32;
/// k-blocks between two tests for the end of a group, where the group has that many.
const UNROLL: usize = 4;
/// How far ahead of its reads the GEMV kernel asks for weights, in cache lines.
const PREFETCH_LINES: usize = 16;

/// One task. Panels are `[panel][k_blocks]`.
///
/// Invariant, established by `Operands::args` and its callers: no other task has one of the rows and one of the panels.
pub(super) struct Int8Args<'a> {
    pub(super) lhs: Int8Rows<'a>,
    pub(super) codes: &'a [[i8; 4 * LANES]],
    /// `[panel][line of scales]`, of a [`Panel`](crate::memory::Panel), and so aligned.
    pub(super) scales: &'a [[u16; LANES]],
    /// Of the scales. Nothing is subtracted from codes.
    pub(super) kind: GroupScales,
    /// For kernels of many rows, instead of `codes` and `scales`. A line holds two k-blocks.
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

    /// Asserts what the unchecked accesses of the kernels of many rows rest on: the left-hand side has the task's rows, and
    /// `tile_rows - 1` more that a last tile may read; the right-hand side has its panels.
    pub(super) fn check(&self, tile_rows: usize) {
        let Int8Rows { codes, stride, scales, starts } = self.lhs;
        assert!(self.group >= 4 && stride >= 4 * self.k_blocks, "rows of {stride} codes");
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

    /// Asserts that a tile of `rows` by `panels` is inside of the task.
    #[inline(always)]
    fn check_tile(&self, rows: Range<usize>, panels: Range<usize>) {
        assert!(rows.start >= self.rows.start && rows.end <= self.rows.end, "rows of a task");
        assert!(panels.start >= self.panels.start && panels.end <= self.panels.end, "panels of a task");
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
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            let panels = tile_panels::<S>(panel..args.panels.end);
            let mut row = args.rows.start;
            while row < args.rows.end {
                row += if args.kind == GroupScales::Bf16 {
                    gemv_rows::<S, false>(s, &args, row, panel, panels)
                } else {
                    gemv_rows::<S, true>(s, &args, row, panel, panels)
                };
            }
            panel += panels;
        }
    }
}

/// Some rows from `row` by one or two panels; returns how many rows. `STORED`: scales are not bf16.
#[inline(always)]
fn gemv_rows<S: Simd, const STORED: bool>(
    s: S,
    args: &Int8Args<'_>,
    row: usize,
    panel: usize,
    panels: usize,
) -> usize {
    if const { S::REGISTERS >= 32 } && panels == 2 {
        let count = (args.rows.end - row).min(GEMV_ROWS);
        match count {
            // More lines in one turn keep more reads of memory in flight.
            1 => gemv_tile::<S, STORED, 1, 2, 8>(s, args, row, panel),
            2 => gemv_tile::<S, STORED, 2, 2, 2>(s, args, row, panel),
            3 => gemv_tile::<S, STORED, 3, 2, 2>(s, args, row, panel),
            4 => gemv_tile::<S, STORED, 4, 2, 1>(s, args, row, panel),
            5 => gemv_tile::<S, STORED, 5, 2, 1>(s, args, row, panel),
            6 => gemv_tile::<S, STORED, 6, 2, 1>(s, args, row, panel),
            7 => gemv_tile::<S, STORED, 7, 2, 1>(s, args, row, panel),
            _ => gemv_tile::<S, STORED, 8, 2, 1>(s, args, row, panel),
        }
        return count;
    }
    // The second time, the panel comes from a cache.
    match args.rows.end - row {
        1 => {
            gemv_tile::<S, STORED, 1, 1, 4>(s, args, row, panel);
            1
        }
        2 | 3 => {
            gemv_tile::<S, STORED, 2, 1, 2>(s, args, row, panel);
            2
        }
        _ => {
            gemv_tile::<S, STORED, 4, 1, 1>(s, args, row, panel);
            4
        }
    }
}

/// `R` rows by `P` panels, in `U` independent int32 sums (their order does not matter, see above).
#[inline(always)]
fn gemv_tile<S: Simd, const STORED: bool, const R: usize, const P: usize, const U: usize>(
    s: S,
    args: &Int8Args<'_>,
    row: usize,
    panel: usize,
) {
    args.check_tile(row..row + R, panel..panel + P);
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let scale_lines = if STORED { args.kind.lines(groups) } else { groups };
    // What the unchecked accesses below rest on: slices of exactly these rows and panels.
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    assert!(stride >= 4 * k_blocks, "rows of {stride} codes");
    let codes = &codes[row * stride..][..R * stride];
    let scales = &scales[row * groups..][..R * groups];
    let starts = &starts[row * groups..][..R * groups];
    let weights = &args.codes[panel * k_blocks..][..P * k_blocks];
    let mut weight_scales = [&args.scales[panel * scale_lines..][..P * scale_lines]; P];
    for p in 1..P {
        weight_scales[p] = &weight_scales[0][p * scale_lines..];
    }
    let mut sums = [[s.zero(); P]; R];
    let mut lows = [[s.zero(); P]; R];
    for g in 0..groups {
        let (mut block, end) = (g * group_blocks, k_blocks.min((g + 1) * group_blocks));
        let mut dots = [[[s.splat_i32(0); U]; P]; R];
        if S::FLIPPED {
            for r in 0..R {
                for p in 0..P {
                    // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                    dots[r][p][0] = s.splat_i32(unsafe { item(starts, r * groups + g) });
                }
            }
        }
        while block + U <= end {
            // What comes after the end of a panel is the panel after those that are being read.
            let beyond = if block + PREFETCH_LINES < k_blocks { 0 } else { (P - 1) * k_blocks };
            for u in 0..U {
                for p in 0..P {
                    let at = p * k_blocks + block + u;
                    s.prefetch(weights.as_ptr().wrapping_add(at + PREFETCH_LINES + beyond).cast());
                    // SAFETY: `p < P` and `block + u < end <= k_blocks`; `weights` was sliced to `P * k_blocks`.
                    let w = s.load_w8(unsafe { weights.get_unchecked(at) });
                    for r in 0..R {
                        // SAFETY: `r < R` and `4 * (block + u) + 4 <= stride`, as asserted; `codes` was sliced to
                        // `R * stride`.
                        let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * (block + u)) });
                        dots[r][p][u] = s.dot4(dots[r][p][u], w, a);
                    }
                }
            }
            block += U;
        }
        while block < end {
            for p in 0..P {
                // SAFETY: `p < P` and `block < end <= k_blocks`; `weights` was sliced to `P * k_blocks`.
                let w = s.load_w8(unsafe { weights.get_unchecked(p * k_blocks + block) });
                for r in 0..R {
                    // SAFETY: `r < R` and `4 * block + 4 <= stride`, as asserted; `codes` was sliced to `R * stride`.
                    let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * block) });
                    dots[r][p][0] = s.dot4(dots[r][p][0], w, a);
                }
            }
            block += 1;
        }
        for p in 0..P {
            let lines = weight_scales[p];
            let (weight_scale, min) = if STORED {
                // The same branch for every group: a kernel for each kind would save little.
                for_scales!(args.kind, K => {
                    // SAFETY: `g < groups`; `lines` was sliced to the lines of `groups` groups, of a `Panel` and so aligned.
                    unsafe { K::load(s, lines, g) }
                })
            } else {
                s.prefetch(lines.as_ptr().wrapping_add(P * scale_lines + g).cast());
                // SAFETY: `g < groups`; `lines` was sliced to one line for each group.
                (s.load_bf16(unsafe { lines.get_unchecked(g) }), s.zero())
            };
            for r in 0..R {
                let mut dot = dots[r][p][0];
                for u in 1..U {
                    dot = s.add_i32(dot, dots[r][p][u]);
                }
                // SAFETY: `r < R` and `g < groups`; `scales` was sliced to `R * groups`.
                let scale = unsafe { item(scales, r * groups + g) };
                sums[r][p] = s.fma(s.i32_to_f32(dot), s.mul(s.splat(scale), weight_scale), sums[r][p]);
                if STORED && args.kind.minimum() {
                    // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                    let total = row_total(scale, unsafe { item(starts, r * groups + g) });
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
    // SAFETY: `check_tile` asserted that rows and panels are the task's, and by the invariant of `Int8Args` no other's.
    unsafe { args.target.finish_tile(s, TileAt { row, panel }, sums) };
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
        // Twice two panels are better than three and one.
        while panel + NP <= args.panels.end && !(NP > 2 && panel + NP + 1 == args.panels.end) {
            rows_by_panels::<S, MR, NP>(s, &args, panel);
            panel += NP;
        }
        while NP > 2 && panel + 2 <= args.panels.end {
            rows_by_panels::<S, MR, 2>(s, &args, panel);
            panel += 2;
        }
        while panel < args.panels.end {
            rows_by_panels::<S, MR, 1>(s, &args, panel);
            panel += 1;
        }
    }
}

/// What a kernel of many rows keeps in the first-level cache.
#[repr(align(64))]
struct Slice<const NP: usize> {
    /// `[k_block][panel]`.
    codes: [[[i8; 4 * LANES]; NP]; SLICE_BLOCKS],
    /// `[group][panel]`, widened.
    scales: [[[f32; LANES]; NP]; SLICE_GROUPS],
}

/// All rows of the task by `NP` panels.
#[inline(always)]
fn rows_by_panels<S: Simd, const MR: usize, const NP: usize>(s: S, args: &Int8Args<'_>, panel: usize) {
    args.check_tile(args.rows.clone(), panel..panel + NP);
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let panel_lines = kind.lines(groups);
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
            for p in 0..NP {
                if let Some(Int4Panels { codes, kind, .. }) = args.int4 {
                    let from = &codes[((panel + p) * k_blocks + first_block) / 2..][..blocks / 2];
                    let to = slice.codes.as_flattened_mut()[p..].as_mut_ptr();
                    // SAFETY: `to` is panel `p` of block 0, and every `NP`th after it is the panel of a further block, of
                    // which there are `SLICE_BLOCKS >= count * group_blocks >= blocks`; `NP` is not 0.
                    unsafe { gemm_int4::fill(s, s.prepared_zero(kind.zero()), from, to, NP) };
                } else {
                    let from = &args.codes[(panel + p) * k_blocks + first_block..][..blocks];
                    for (from, to) in from.iter().zip(&mut slice.codes) {
                        s.prepare_w8(from, &mut to[p]);
                    }
                }
                let of_slice = first_group..first_group + count;
                let (lines, to) = (&lines[(panel + p) * panel_lines..], slice.scales.as_flattened_mut());
                // SAFETY: the lines are of a `Panel`, and so aligned; `to` is panel `p` of group 0, and every `NP`th after it
                // is the panel of a further group; there are `SLICE_GROUPS >= count`.
                let args = unsafe { WidenArgs::new(kind, lines, of_slice, to[p..].as_mut_ptr(), NP) };
                kernels.scale_lines.call(args);
            }
            let mut row = 0;
            while row < rows {
                let (from, group) =
                    ((chunk + row) * stride + 4 * first_block, (chunk + row) * groups + first_group);
                let lhs = TileRows {
                    codes: &codes[from..],
                    stride,
                    scales: &scales[group..],
                    starts: &starts[group..],
                    groups,
                };
                let extent = Extent { groups: count, group_blocks, blocks };
                let sums = &mut sums[row..];
                match rows - row {
                    1 | 2 => tile::<S, 2, NP>(s, &slice, lhs, extent, sums),
                    3 | 4 => tile::<S, 4, NP>(s, &slice, lhs, extent, sums),
                    _ => tile::<S, MR, NP>(s, &slice, lhs, extent, sums),
                }
                row += MR;
            }
        }
        if kind.minimum() {
            let lines = &lines[panel * panel_lines..];
            let lhs = RowScales { scales: &scales[chunk * groups..], starts: &starts[chunk * groups..] };
            // SAFETY: the lines are of a `Panel`, and so aligned.
            let args = unsafe { MinimaArgs::new(kind, lines, lhs, groups, &mut sums[..rows], NP) };
            kernels.minima.call(args);
        }
        // SAFETY: the rows are `args.rows`, and `check_tile` asserted that the panels are the task's: by the invariant of
        // `Int8Args` no other's.
        unsafe { args.target.finish(TileAt { row: chunk, panel }, NP, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// The left-hand side of a tile, from its first row at the slice's first block and group on.
#[derive(Clone, Copy)]
struct TileRows<'a> {
    codes: &'a [i8],
    /// Codes from row to row.
    stride: usize,
    scales: &'a [f32],
    starts: &'a [i32],
    /// Scales and starts from row to row.
    groups: usize,
}

/// How much of a slice is filled: groups of `group_blocks`; the last may be shorter.
#[derive(Clone, Copy)]
struct Extent {
    groups: usize,
    group_blocks: usize,
    blocks: usize,
}

/// `MR` rows by `NP` panels by a slice: `sums += `. int32 and f32 sums stay in registers:
/// larger tiles whose f32 sums do not fit were no faster but for groups above 128.
///
/// # Panics
/// When `lhs` does not have `MR` rows of `4 * blocks` codes and of `groups` scales and starts, or `sums` `MR` rows.
#[inline(always)]
fn tile<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    lhs: TileRows<'_>,
    extent: Extent,
    sums: &mut [[[f32; LANES]; NP]],
) {
    let TileRows { codes, stride, scales, starts, groups } = lhs;
    let Extent { groups: count, group_blocks, blocks } = extent;
    // What the unchecked accesses below rest on.
    assert!(count <= SLICE_GROUPS && blocks <= SLICE_BLOCKS, "{blocks} blocks in {count} groups");
    let codes = &codes[..(MR - 1) * stride + 4 * blocks];
    let (scales, starts) = (&scales[..(MR - 1) * groups + count], &starts[..(MR - 1) * groups + count]);
    let sums = sums.first_chunk_mut::<MR>().expect("sums of whole tiles");
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
                // SAFETY: `r < MR` and `g < count`; `starts` was sliced to `(MR - 1) * groups + count`.
                dots[r] = [s.splat_i32(unsafe { item(starts, r * groups + g) }); NP];
            }
        }
        let (mut block, end) = (g * group_blocks, ((g + 1) * group_blocks).min(blocks));
        while block + UNROLL <= end {
            for at in block..block + UNROLL {
                // SAFETY: `at < end <= blocks <= SLICE_BLOCKS`, as asserted; `codes` was sliced to `(MR - 1) * stride + 4 *
                // blocks`.
                dots = unsafe { tile_step(s, slice, codes, stride, at, dots) };
            }
            block += UNROLL;
        }
        while block < end {
            // SAFETY: `block < end <= blocks <= SLICE_BLOCKS`, as asserted; `codes` was sliced to `(MR - 1) * stride + 4 *
            // blocks`.
            dots = unsafe { tile_step(s, slice, codes, stride, block, dots) };
            block += 1;
        }
        // SAFETY: `g < count <= SLICE_GROUPS`, as asserted.
        let weight_scales = unsafe { slice.scales.get_unchecked(g) };
        for r in 0..MR {
            // SAFETY: `r < MR` and `g < count`; `scales` was sliced to `(MR - 1) * groups + count`.
            let scale = s.splat(unsafe { item(scales, r * groups + g) });
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

/// One k-block of a tile. `codes`: from those of the slice's first block of the first row on.
///
/// # Safety
/// `block` must be below [`SLICE_BLOCKS`], and `codes` must have `(MR - 1) * stride + 4 * block + 4` elements.
#[inline(always)]
unsafe fn tile_step<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    codes: &[i8],
    stride: usize,
    block: usize,
    mut dots: [[S::I32; NP]; MR],
) -> [[S::I32; NP]; MR] {
    // SAFETY: the clause on `block`.
    let weights = unsafe { slice.codes.get_unchecked(block) };
    let mut w = [s.load_prepared(&weights[0]); NP];
    for p in 1..NP {
        w[p] = s.load_prepared(&weights[p]);
    }
    for r in 0..MR {
        // SAFETY: `r < MR`, and the clause on `codes`.
        let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * block) });
        for p in 0..NP {
            dots[r][p] = s.dot4(dots[r][p], w[p], a);
        }
    }
    dots
}
