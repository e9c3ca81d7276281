//! int8 x int8 -> int32 inside a group, f32 across groups; products of many rows.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::gemm_narrow::{NarrowPanels, Width};
use super::group_scales::GroupScales;
use super::minima::{MinimaArgs, RowScales};
use super::quantize::Int8Rows;
use super::scale_lines::WidenArgs;
use super::simd::LANES;
use super::target::{Target, TileAt, row_chunk};
use super::tile_steps::{Codes, UNROLL, short_steps, tile_step, tile_steps};
use super::unchecked::item;
use super::{Kernel, Simd};

/// k-blocks of a slice: 512 weights per column, 24 KiB for three panels.
pub(super) const SLICE_BLOCKS: usize = 128;
/// Groups of a slice at most.
const SLICE_GROUPS: usize = 32;
/// Rows whose sums are kept at a time: 48 KiB for three panels. The more there are, the fewer times slices come from the
/// second-level cache.
const INT8_CHUNK_ROWS: usize = 256;

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
    /// For kernels of many rows, instead of `codes` and `scales`.
    pub(super) narrow: Option<NarrowPanels<'a>>,
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

    /// Whether [`short_steps`] multiplies the codes. (With six bits, sums of two k-blocks gain nothing over signed codes.)
    #[inline(always)]
    fn short_sums<S: Simd>(&self) -> bool {
        S::SHORT_SUMS && self.narrow.is_some_and(|narrow| narrow.width == Width::Four)
    }

    /// The lines of scales and their kind.
    pub(super) fn scale_lines(&self) -> (&[[u16; LANES]], GroupScales) {
        self.narrow.map_or((self.scales, self.kind), |narrow| (narrow.scales, narrow.kind))
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
        if let Some(NarrowPanels { codes, scales, kind, width }) = self.narrow {
            let blocks = width.k_blocks();
            assert!(self.k_blocks.is_multiple_of(blocks) && self.group.is_multiple_of(4 * blocks));
            assert!(codes.len() >= end * width.lines(self.k_blocks));
            assert!(scales.len() >= end * kind.lines(self.groups()));
        } else {
            assert!(self.codes.len() >= end * self.k_blocks);
            assert!(self.scales.len() >= end * self.kind.lines(self.groups()));
        }
    }

    /// Asserts that a tile of `rows` by `panels` is inside of the task.
    #[inline(always)]
    pub(super) fn check_tile(&self, rows: Range<usize>, panels: Range<usize>) {
        assert!(rows.start >= self.rows.start && rows.end <= self.rows.end, "rows of a task");
        assert!(panels.start >= self.panels.start && panels.end <= self.panels.end, "panels of a task");
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

/// What a task keeps in the caches.
#[repr(align(64))]
struct Stage<const NP: usize> {
    /// Of a chunk of rows. The last tile may have up to `MR - 1` rows too many: they are computed and dropped.
    sums: [Sums<NP>; INT8_CHUNK_ROWS],
    /// Scales of the weights of a slice, widened: `[group][panel]`.
    scales: [[[f32; LANES]; NP]; SLICE_GROUPS],
    /// The weights of a slice that are not read in place: `[panel][k-block]`.
    prepared: [[MaybeUninit<[i8; 4 * LANES]>; SLICE_BLOCKS]; NP],
}

/// f32 sums of a row, written by the first slice.
type Sums<const NP: usize> = MaybeUninit<[[f32; LANES]; NP]>;

/// A stretch of k: whole groups of `group_blocks`; the last group of a panel may be shorter.
#[derive(Clone, Copy)]
struct Slice {
    first_group: usize,
    groups: usize,
    group_blocks: usize,
    first_block: usize,
    blocks: usize,
}

impl Slice {
    /// The slice from `first_group` on.
    fn new(args: &Int8Args<'_>, first_group: usize) -> Self {
        let group_blocks = args.group_blocks();
        let groups = (SLICE_BLOCKS / group_blocks).min(SLICE_GROUPS).min(args.groups() - first_group);
        let first_block = first_group * group_blocks;
        let blocks = (groups * group_blocks).min(args.k_blocks - first_block);
        Slice { first_group, groups, group_blocks, first_block, blocks }
    }
}

/// All rows of the task by `NP` panels: one slice of the panels after another by all tiles of a chunk of rows. Meanwhile the
/// next slice comes from memory.
#[inline(always)]
fn rows_by_panels<S: Simd, const MR: usize, const NP: usize>(s: S, args: &Int8Args<'_>, panel: usize) {
    const { assert!(INT8_CHUNK_ROWS.is_multiple_of(MR) && MR.is_multiple_of(4)) };
    args.check_tile(args.rows.clone(), panel..panel + NP);
    let Int8Rows { scales, starts, .. } = args.lhs;
    let (groups, (lines, kind), kernels) = (args.groups(), args.scale_lines(), args.target.kernels);
    let panel_lines = kind.lines(groups);
    let mut stage = Stage::<NP> {
        sums: [const { MaybeUninit::uninit() }; INT8_CHUNK_ROWS],
        scales: [[[0.0; LANES]; NP]; SLICE_GROUPS],
        prepared: [const { [const { MaybeUninit::uninit() }; SLICE_BLOCKS] }; NP],
    };
    let chunk_rows = row_chunk(args.rows.len(), MR, INT8_CHUNK_ROWS);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk..args.rows.end.min(chunk + chunk_rows);
        let mut first_group = 0;
        if groups == 0 {
            stage.sums[..rows.len()].fill(Sums::new([[0.0; LANES]; NP]));
        }
        while first_group < groups {
            let slice = Slice::new(args, first_group);
            first_group += slice.groups;
            for p in 0..NP {
                let lines = &lines[(panel + p) * panel_lines..];
                let to = stage.scales.as_flattened_mut()[p..].as_mut_ptr();
                // SAFETY: the lines are of a `Panel`, and so aligned; `to` is panel `p` of group 0, and every `NP`th after it
                // is the panel of a further group; there are `SLICE_GROUPS >= slice.groups`.
                let scales = unsafe { WidenArgs::new(kind, lines, slice.first_group..first_group, to, NP) };
                kernels.scale_lines.call(scales);
            }
            let next = NextSlice::new(args, panel, NP, first_group % groups, rows.end);
            let work = SliceWork { args, rows: rows.clone(), slice, next, scales: &stage.scales };
            if S::FLIPPED || args.narrow.is_some() {
                let codes = prepare(s, args, panel, slice, &mut stage.prepared);
                if const { S::SHORT_SUMS } && args.short_sums::<S>() {
                    work.multiply::<S, MR, true, true>(s, codes, &mut stage.sums);
                } else {
                    work.multiply::<S, MR, true, false>(s, codes, &mut stage.sums);
                }
            } else {
                let blocks = &args.codes[panel * args.k_blocks + slice.first_block..];
                assert!((NP - 1) * args.k_blocks + slice.blocks <= blocks.len(), "{NP} panels from {panel}");
                let codes = Codes { first: blocks.as_ptr(), panel_blocks: args.k_blocks };
                work.multiply::<S, MR, false, false>(s, codes, &mut stage.sums);
            }
        }
        // SAFETY: the tiles of the first slice have written the sums of all rows; without a slice, they were written above.
        let sums = unsafe { stage.sums[..rows.len()].assume_init_mut() };
        if kind.minimum() {
            let lines = &lines[panel * panel_lines..];
            let lhs = RowScales { scales: &scales[chunk * groups..], starts: &starts[chunk * groups..] };
            // SAFETY: the lines are of a `Panel`, and so aligned.
            let args = unsafe { MinimaArgs::new(kind, lines, lhs, groups, sums, NP) };
            kernels.minima.call(args);
        }
        // SAFETY: the rows are `args.rows`, and `check_tile` asserted that the panels are the task's: by the invariant of
        // `Int8Args` no other's.
        unsafe { args.target.finish(TileAt { row: chunk, panel }, NP, sums) };
        chunk = rows.end;
    }
}

/// Copies a slice in the form of [`Simd::prepare_w8`].
#[inline(always)]
fn prepare<S: Simd, const NP: usize>(
    s: S,
    args: &Int8Args<'_>,
    panel: usize,
    slice: Slice,
    to: &mut [[MaybeUninit<[i8; 4 * LANES]>; SLICE_BLOCKS]; NP],
) -> Codes {
    for (panel, to) in (panel..).zip(to.iter_mut()) {
        let first = panel * args.k_blocks + slice.first_block;
        if let Some(narrow) = args.narrow {
            // Short sums have the unsigned codes themselves.
            let zero = if args.short_sums::<S>() { 0 } else { s.prepared_zero(narrow.zero()) };
            // SAFETY: `to` has `SLICE_BLOCKS` blocks, which is `slice.blocks` or more.
            unsafe { narrow.fill(s, zero, first, slice.blocks, to.as_mut_ptr().cast()) };
        } else {
            for (from, to) in args.codes[first..][..slice.blocks].iter().zip(to) {
                s.prepare_w8(from, to.write([0; 4 * LANES]));
            }
        }
    }
    Codes { first: to.as_ptr().cast(), panel_blocks: SLICE_BLOCKS }
}

/// The weights that are needed next: a part of them is asked for with each tile of rows.
#[derive(Clone, Copy)]
struct NextSlice {
    /// Line 0 of the first panel.
    first: *const [u8; 64],
    /// Lines from panel to panel.
    panel_lines: usize,
    /// Lines of each panel.
    lines: usize,
}

impl NextSlice {
    /// After a slice of `panels` panels from `panel` on, for rows up to `end`: the slice from `group` on, or that from group 0
    /// on of these panels and the next rows, or of the next panels.
    fn new(args: &Int8Args<'_>, panel: usize, panels: usize, group: usize, end: usize) -> Self {
        let slice = Slice::new(args, group);
        let panel = if group == 0 && end == args.rows.end { panel + panels } else { panel };
        let codes: *const [u8; 64] =
            args.narrow.map_or(args.codes.as_ptr().cast(), |narrow| narrow.codes.as_ptr());
        let lines = |blocks| args.narrow.map_or(blocks, |narrow| narrow.width.lines(blocks));
        NextSlice {
            first: codes.wrapping_add(lines(panel * args.k_blocks + slice.first_block)),
            panel_lines: lines(args.k_blocks),
            lines: lines(slice.blocks),
        }
    }

    /// Asks for part `part` of `parts`. They may be past the last panel: such addresses are not read.
    #[inline(always)]
    fn prefetch<S: Simd, const NP: usize>(&self, s: S, part: usize, parts: usize) {
        let each = (NP * self.lines).div_ceil(parts);
        for line in part * each..((part + 1) * each).min(NP * self.lines) {
            s.prefetch(self.first.wrapping_add(line % NP * self.panel_lines + line / NP).cast());
        }
    }
}

/// A slice of `NP` panels and the rows that it is multiplied by.
struct SliceWork<'a, const NP: usize> {
    args: &'a Int8Args<'a>,
    rows: Range<usize>,
    slice: Slice,
    next: NextSlice,
    scales: &'a [[[f32; LANES]; NP]; SLICE_GROUPS],
}

impl<const NP: usize> SliceWork<'_, NP> {
    /// Adds the products to `sums`, which the first slice begins. `PREPARED`: codes have the form of [`Simd::prepare_w8`].
    /// `SHORT`: they are unsigned, for [`short_steps`].
    #[inline(always)]
    fn multiply<S: Simd, const MR: usize, const PREPARED: bool, const SHORT: bool>(
        self,
        s: S,
        weights: Codes,
        sums: &mut [Sums<NP>; INT8_CHUNK_ROWS],
    ) {
        let SliceWork { args, rows, slice, next, scales: weight_scales } = self;
        let (Int8Rows { codes, stride, scales, starts }, groups) = (args.lhs, args.groups());
        let tiles = rows.len().div_ceil(MR);
        for (tile, sums) in sums.chunks_exact_mut(MR).take(tiles).enumerate() {
            next.prefetch::<S, NP>(s, tile, tiles);
            let row = rows.start + tile * MR;
            let (from, group) = (row * stride + 4 * slice.first_block, row * groups + slice.first_group);
            let lhs = TileRows {
                codes: &codes[from..],
                stride,
                scales: &scales[group..],
                starts: &starts[group..],
                groups,
            };
            let zero = args.narrow.map_or(0, |narrow| narrow.zero());
            let rhs = TileWeights { codes: weights, scales: weight_scales, slice, zero: i32::from(zero) };
            match rows.end - row {
                1 | 2 => multiply_tile::<S, 2, NP, PREPARED, SHORT>(s, lhs, rhs, sums),
                3 | 4 => multiply_tile::<S, 4, NP, PREPARED, SHORT>(s, lhs, rhs, sums),
                _ => multiply_tile::<S, MR, NP, PREPARED, SHORT>(s, lhs, rhs, sums),
            }
        }
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

/// The right-hand side of a tile.
#[derive(Clone, Copy)]
struct TileWeights<'a, const NP: usize> {
    codes: Codes,
    scales: &'a [[[f32; LANES]; NP]; SLICE_GROUPS],
    slice: Slice,
    /// Subtracted from narrow codes.
    zero: i32,
}

/// `MR` rows by `NP` panels by a slice: `sums += `, or `sums =` for the first slice. int32 and f32 sums stay in registers:
/// larger tiles whose f32 sums do not fit were no faster but for groups above 128.
///
/// # Panics
/// When `lhs` does not have `MR` rows of a slice's codes and of its groups' scales and starts, or `sums` `MR` rows.
#[inline(always)]
fn multiply_tile<S: Simd, const MR: usize, const NP: usize, const PREPARED: bool, const SHORT: bool>(
    s: S,
    lhs: TileRows<'_>,
    rhs: TileWeights<'_, NP>,
    sums: &mut [Sums<NP>],
) {
    let TileRows { codes, stride, scales, starts, groups } = lhs;
    let TileWeights { codes: weights, scales: weight_scales, slice, zero } = rhs;
    let Slice { groups: count, group_blocks, blocks, first_group, .. } = slice;
    // What the unchecked accesses below rest on.
    assert!(count <= SLICE_GROUPS, "{count} groups");
    let codes = &codes[..(MR - 1) * stride + 4 * blocks];
    let (scales, starts) = (&scales[..(MR - 1) * groups + count], &starts[..(MR - 1) * groups + count]);
    let sums = sums.first_chunk_mut::<MR>().expect("sums of whole tiles");
    let mut totals = [[s.zero(); NP]; MR];
    if first_group > 0 {
        for r in 0..MR {
            // SAFETY: the first slice has written the sums of the same tiles.
            let sums = unsafe { sums[r].assume_init_ref() };
            for p in 0..NP {
                totals[r][p] = s.load(&sums[p]);
            }
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
        if SHORT && zero != 0 {
            for r in 0..MR {
                // SAFETY: `r < MR` and `g < count`; `starts` was sliced to `(MR - 1) * groups + count`.
                let start = unsafe { item(starts, r * groups + g) };
                // -128 * sum(code_x) / 128 * what is subtracted.
                dots[r] = [s.splat_i32((start >> 7) * zero); NP];
            }
        }
        let (mut block, end) = (g * group_blocks, ((g + 1) * group_blocks).min(blocks));
        if SHORT {
            // SAFETY: `end <= blocks`; `codes` was sliced to `(MR - 1) * stride + 4 * blocks`.
            dots = unsafe { short_steps::<S, MR, NP, PREPARED>(s, weights, codes, stride, block..end, dots) };
            block = end;
        }
        while block + UNROLL <= end {
            // SAFETY: `block + UNROLL <= end <= blocks`; `codes` was sliced to `(MR - 1) * stride + 4 * blocks`.
            dots = unsafe { tile_steps::<S, MR, NP, PREPARED>(s, weights, codes, stride, block, dots) };
            block += UNROLL;
        }
        while block < end {
            // SAFETY: `block < end <= blocks`; `codes` was sliced to `(MR - 1) * stride + 4 * blocks`.
            dots = unsafe { tile_step::<S, MR, NP, PREPARED, false>(s, weights, codes, stride, block, dots) };
            block += 1;
        }
        // SAFETY: `g < count <= SLICE_GROUPS`, as asserted.
        let weight_scales = unsafe { weight_scales.get_unchecked(g) };
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
        let mut row = [[0.0; LANES]; NP];
        for p in 0..NP {
            s.store(totals[r][p], &mut row[p]);
        }
        sums[r].write(row);
    }
}
