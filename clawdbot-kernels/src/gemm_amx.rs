//! int8 products on tile registers (AMX).
//!
//! A block of 32 rows x 2 panels goes through k in steps of two *k-tiles* of 16 k-blocks (64 codes): four loads of
//! activations, four of weights, eight tile products. The int32 sums of every group leave the tiles through the
//! first-level cache, and vector instructions add them to the f32 sums, as everywhere: `out = fma(f32(sum), sa * sw, out)`,
//! groups ascending. While the tiles work on one step, the vectors work on the step before it.
//!
//! The activations are read where they are, the weights too: 16 k-blocks of a panel are a tile of weights. Sums stay in
//! the first-level cache for a slab of eight k-tiles, and so do the slab's weights for all blocks of rows.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::gemm::{CHUNK_ROWS, row_chunk};
use super::gemm_int4::{self, Int4Panels};
use super::gemm_int8::{Gemm, Int8Args};
use super::quantize::Int8Rows;
use super::scale_lines::{MinimaArgs, WidenArgs};
use super::simd::LANES;
use super::tiles::{SumTile, TILE_BYTES, TILE_ROWS, Tiles};
use super::{Kernel, Simd};

/// Panels of a block.
pub(super) const PANELS: usize = 2;
/// Rows of a block: two tiles.
const BLOCK_ROWS: usize = 2 * TILE_ROWS;
/// Rows whose f32 sums of a block are in registers at a time.
const EPILOGUE_ROWS: usize = 8;
/// k-tiles of a slab.
const SLAB_TILES: usize = 8;

/// The f32 sums of a row of a block.
type Sums = [[f32; LANES]; PANELS];

/// Many rows on tiles of kind `T`. Groups other than 32, 64 and 128 go to the kernel without tiles.
pub(super) struct Tiled<T>(PhantomData<T>);
impl<T: Tiles> Kernel for Tiled<T> {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        // SAFETY: a kernel set with this kernel is used only where its tiles are, see `isa`.
        unsafe {
            match args.group {
                32 => task::<S, T, false>(s, &args, 8),
                64 => task::<S, T, false>(s, &args, 16),
                128 => task::<S, T, true>(s, &args, 16),
                _ => Gemm::<4, 3>::run(s, args),
            }
        }
    }
}

/// What a task keeps in the first-level cache.
#[repr(align(64))]
struct Stage {
    /// int32 sums of two steps in turn: `[step][block of 16 rows, k-tile][panel]`.
    tiles: [[[SumTile; PANELS]; 4]; 2],
    /// f32 sums of a chunk of rows.
    sums: [Sums; CHUNK_ROWS],
    /// Scales of the weights of two slabs in turn, widened: `[slab][group][panel]`.
    scales: [[[[f32; LANES]; PANELS]; SLAB_TILES]; 2],
    /// The last k-tile of the two panels, where it is not a whole one, and a tile of zeros.
    padded: [[i8; TILE_ROWS * TILE_BYTES]; PANELS + 1],
    /// A slab of weights that are not kept as int8.
    unpacked: [[i8; SLAB_TILES * TILE_ROWS * TILE_BYTES]; PANELS],
}

/// 1 to 32 rows x 2 panels x 2 k-tiles.
#[derive(Clone, Copy)]
struct Step {
    /// First row, first k-tile.
    activations: *const i8,
    /// Bytes from row to row.
    stride: usize,
    /// Bytes from the first to the second k-tile, 0 without a second one.
    second: usize,
    /// `[k-tile][panel]`.
    weights: [[*const i8; PANELS]; 2],
    rows: usize,
    /// Groups that end here: 1 or 2.
    groups: usize,
    /// Scale of the first row and group.
    scales: *const f32,
    /// Scales from row to row.
    scale_stride: usize,
    weight_scales: *const [[f32; LANES]; PANELS],
    sums: *mut Sums,
    /// Weights that are wanted soon, in each panel, and how many lines of them to ask for.
    ahead: [*const i8; PANELS],
    ahead_lines: usize,
}

/// The rows of the task by its panels. `JOINED`: a group has two k-tiles, not one.
///
/// # Safety
/// The thread may use `T`; rows and panels must be the task's.
#[inline(always)]
unsafe fn task<S: Simd, T: Tiles, const JOINED: bool>(s: S, args: &Int8Args<'_>, tile_blocks: usize) {
    args.check(TILE_ROWS);
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, groups) = (args.k_blocks, args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let k_tiles = k_blocks.div_ceil(tile_blocks);
    let tile_groups = |tiles: usize| if JOINED { tiles.div_ceil(2) } else { tiles };
    assert!(stride >= k_tiles * 4 * tile_blocks, "rows are padded to whole tiles");
    let mut stage = MaybeUninit::<Stage>::uninit();
    let stage = stage.as_mut_ptr();
    let slab_bytes = SLAB_TILES * tile_blocks * TILE_BYTES;
    // SAFETY: the caller's promise. Every pointer below stays inside its array: `check` has compared the arrays with the
    // rows (15 more may be read), the panels, `k_blocks` and `groups`; tiles of weights that would end beyond their
    // panel are read from `padded`; rows have `stride` codes. Every part of the stage is written before it is read.
    unsafe {
        let mut pipeline = Pipeline {
            tiles: T::configure(tile_blocks),
            buffers: (&raw mut (*stage).tiles).cast(),
            turn: 0,
            pending: None,
        };
        let padded: *mut [i8; TILE_ROWS * TILE_BYTES] = (&raw mut (*stage).padded).cast();
        padded.write_bytes(0, PANELS + 1);
        let sums: *mut Sums = (&raw mut (*stage).sums).cast();
        let unpacked: *mut [i8; SLAB_TILES * TILE_ROWS * TILE_BYTES] = (&raw mut (*stage).unpacked).cast();
        let slab_scales: *mut [[[f32; LANES]; PANELS]; SLAB_TILES] = (&raw mut (*stage).scales).cast();
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            let count = PANELS.min(args.panels.end - panel);
            // An odd last panel goes twice, and its double is dropped.
            let panels = [panel, panel + count - 1];
            let tail = k_blocks % tile_blocks;
            if tail > 0 && args.int4.is_none() {
                for p in 0..PANELS {
                    let from = args.codes.as_ptr().add(panels[p] * k_blocks + k_blocks - tail).cast::<i8>();
                    let to = padded.add(p).cast::<i8>();
                    to.copy_from_nonoverlapping(from, tail * TILE_BYTES);
                }
            }
            // Where a panel is: of int4, a line of codes is two k-blocks.
            let (codes_start, panel_bytes): (*const i8, usize) = match args.int4 {
                Some(Int4Panels { codes, .. }) => (codes.as_ptr().cast(), k_blocks / 2 * TILE_BYTES),
                None => (args.codes.as_ptr().cast(), k_blocks * TILE_BYTES),
            };
            let slab_bytes = if args.int4.is_some() { slab_bytes / 2 } else { slab_bytes };
            let base = [codes_start.add(panels[0] * panel_bytes), codes_start.add(panels[1] * panel_bytes)];
            let chunk_rows = row_chunk(args.rows.len(), BLOCK_ROWS);
            let mut chunk = args.rows.start;
            while chunk < args.rows.end {
                let rows = chunk_rows.min(args.rows.end - chunk);
                for row in 0..rows.next_multiple_of(EPILOGUE_ROWS) {
                    *sums.add(row) = [[0.0; LANES]; PANELS];
                }
                let mut previous: Option<Step> = None;
                for first_tile in (0..k_tiles).step_by(SLAB_TILES) {
                    let slab_tiles = SLAB_TILES.min(k_tiles - first_tile);
                    let first_group = tile_groups(first_tile);
                    // The step before this slab still uses the scales of its own slab.
                    let weight_scales =
                        slab_scales.add(first_tile / SLAB_TILES % 2).cast::<[[f32; LANES]; PANELS]>();
                    for p in 0..PANELS {
                        let lines = lines.as_ptr().add(panels[p] * kind.lines(groups));
                        let to = (weight_scales.cast::<[f32; LANES]>().add(p), PANELS);
                        let range = (first_group, tile_groups(slab_tiles));
                        kernels.scale_lines.call(WidenArgs::new(kind, lines, range, to));
                        if args.int4.is_some() {
                            let blocks = (slab_tiles * tile_blocks).min(k_blocks - first_tile * tile_blocks);
                            let from = base[p].add(first_tile * tile_blocks / 2 * TILE_BYTES).cast();
                            let to = unpacked.add(p).cast::<[i8; TILE_BYTES]>();
                            gemm_int4::fill(s, kind.zero(), from, blocks / 2, to, 1);
                            to.add(blocks).write_bytes(0, slab_tiles * tile_blocks - blocks);
                        }
                    }
                    let steps = slab_tiles.div_ceil(2) * rows.div_ceil(BLOCK_ROWS);
                    // The next slab's weights: of these panels, or of the next ones.
                    let ahead = if first_tile + SLAB_TILES < k_tiles {
                        [
                            base[0].wrapping_add((first_tile / SLAB_TILES + 1) * slab_bytes),
                            base[1].wrapping_add((first_tile / SLAB_TILES + 1) * slab_bytes),
                        ]
                    } else if chunk + chunk_rows >= args.rows.end {
                        [base[1].wrapping_add(panel_bytes), base[1].wrapping_add(2 * panel_bytes)]
                    } else {
                        base
                    };
                    let ahead_lines = (slab_bytes / TILE_BYTES).div_ceil(steps);
                    let mut asked = 0;
                    let mut row = 0;
                    while row < rows {
                        let mut tile = 0;
                        while tile < slab_tiles {
                            let at = first_tile + tile;
                            let mut weights = [[padded.add(PANELS).cast::<i8>().cast_const(); PANELS]; 2];
                            for (half, weights) in weights.iter_mut().enumerate() {
                                for p in 0..PANELS {
                                    if args.int4.is_some() {
                                        if at + half < k_tiles {
                                            let tile = (tile + half) * tile_blocks * TILE_BYTES;
                                            weights[p] = unpacked.add(p).cast::<i8>().add(tile);
                                        }
                                    } else if (at + half + 1) * tile_blocks <= k_blocks {
                                        weights[p] = base[p].add((at + half) * tile_blocks * TILE_BYTES);
                                    } else if (at + half) * tile_blocks < k_blocks {
                                        weights[p] = padded.add(p).cast();
                                    }
                                }
                            }
                            let two = at + 1 < k_tiles;
                            let group = tile_groups(tile);
                            let step = Step {
                                activations: codes
                                    .as_ptr()
                                    .add((chunk + row) * stride + at * 4 * tile_blocks),
                                stride,
                                second: if two { 4 * tile_blocks } else { 0 },
                                weights,
                                rows: BLOCK_ROWS.min(rows - row),
                                groups: if JOINED || !two { 1 } else { 2 },
                                scales: scales.as_ptr().add((chunk + row) * groups + first_group + group),
                                scale_stride: groups,
                                weight_scales: weight_scales.add(group),
                                sums: sums.add(row),
                                ahead: [ahead[0].wrapping_add(asked), ahead[1].wrapping_add(asked)],
                                ahead_lines,
                            };
                            asked += ahead_lines * TILE_BYTES;
                            pipeline.advance::<S, JOINED>(s, &step, previous.as_ref());
                            previous = Some(step);
                            tile += 2;
                        }
                        row += BLOCK_ROWS;
                    }
                }
                if let Some(last) = previous {
                    pipeline.drain(s, &last);
                }
                let sums = std::slice::from_raw_parts_mut(sums, rows);
                if kind.minimum() {
                    let lines = lines.as_ptr().add(panel * kind.lines(groups));
                    let row_scales =
                        (scales.as_ptr().add(chunk * groups), starts.as_ptr().add(chunk * groups));
                    kernels.minima.call(MinimaArgs::new(kind, lines, row_scales, groups, sums, count));
                }
                args.target.finish((chunk, panel), count, sums);
                chunk += chunk_rows;
            }
            panel += PANELS;
        }
    }
}

/// Tiles and vectors at work on two steps at a time.
struct Pipeline<T> {
    tiles: T,
    /// Two buffers.
    buffers: *mut [[SumTile; PANELS]; 4],
    /// The buffer that the next step fills.
    turn: usize,
    /// Where the sums go that are still in the tiles.
    pending: Option<*mut [SumTile; PANELS]>,
}

/// The four tile products of 16 rows and one k-tile with two panels: stores the sums of the products before, unless
/// `$keep`, and leaves its own in the tiles.
macro_rules! products {
    ($self:ident, $activations:expr, $step:ident, [$w0:literal, $w1:literal], load: $weights:expr, keep: $keep:expr, to: $to:expr) => {{
        let weights: Option<[*const i8; PANELS]> = $weights;
        let before = $self.pending.filter(|_| !$keep);
        if let Some(before) = before {
            $self.tiles.store::<0>(&mut (&mut *before)[0]);
        }
        $self.tiles.load_activations($activations, $step.stride);
        if let Some(weights) = weights {
            $self.tiles.load_weights::<$w0>(weights[0]);
        }
        if !$keep {
            $self.tiles.zero::<0>();
        }
        $self.tiles.multiply::<0, $w0>();
        if let Some(before) = before {
            $self.tiles.store::<1>(&mut (&mut *before)[1]);
        }
        if let Some(weights) = weights {
            $self.tiles.load_weights::<$w1>(weights[1]);
        }
        if !$keep {
            $self.tiles.zero::<1>();
        }
        $self.tiles.multiply::<1, $w1>();
        $self.pending = Some($to);
    }};
}

impl<T: Tiles> Pipeline<T> {
    /// Computes the tile products of `step` and, in between, the f32 sums of the step before it.
    ///
    /// # Safety
    /// The pointers of both steps must be valid for what [`Step`] says they are; `previous` must be the step of the last
    /// call, or none when nothing is pending.
    #[inline(always)]
    unsafe fn advance<S: Simd, const JOINED: bool>(&mut self, s: S, step: &Step, previous: Option<&Step>) {
        // SAFETY: the caller's promises; `turn` is 0 or 1.
        unsafe {
            let buffer = self.buffers.add(self.turn);
            let done = self.buffers.add(1 - self.turn);
            self.turn = 1 - self.turn;
            let at = |index: usize| buffer.cast::<[SumTile; PANELS]>().add(index);
            let rows = step.activations;
            products!(self, rows, step, [3, 4], load: Some(step.weights[0]), keep: false, to: at(0));
            prefetch(s, step, 0);
            epilogue(s, done, previous, 0);
            let to = at(usize::from(!JOINED));
            products!(self, rows.add(step.second), step, [5, 6], load: Some(step.weights[1]), keep: JOINED, to: to);
            prefetch(s, step, 1);
            epilogue(s, done, previous, 1);
            if step.rows > TILE_ROWS {
                let rows = rows.add(TILE_ROWS * step.stride);
                products!(self, rows, step, [3, 4], load: None, keep: false, to: at(2));
                prefetch(s, step, 2);
                epilogue(s, done, previous, 2);
                let to = at(2 + usize::from(!JOINED));
                products!(self, rows.add(step.second), step, [5, 6], load: None, keep: JOINED, to: to);
                prefetch(s, step, 3);
                epilogue(s, done, previous, 3);
            } else {
                prefetch(s, step, 2);
                epilogue(s, done, previous, 2);
                prefetch(s, step, 3);
                epilogue(s, done, previous, 3);
            }
        }
    }

    /// The f32 sums of the last step.
    ///
    /// # Safety
    /// As [`Pipeline::advance`].
    #[inline(always)]
    unsafe fn drain<S: Simd>(&mut self, s: S, last: &Step) {
        // SAFETY: the caller's promises.
        unsafe {
            if let Some(pending) = self.pending.take() {
                self.tiles.store::<0>(&mut (&mut *pending)[0]);
                self.tiles.store::<1>(&mut (&mut *pending)[1]);
            }
            let done = self.buffers.add(1 - self.turn);
            for part in 0..BLOCK_ROWS / EPILOGUE_ROWS {
                epilogue(s, done, Some(last), part);
            }
        }
    }
}

/// Asks for a quarter of the lines that the step wants ahead.
///
/// # Safety
/// None: prefetches may go anywhere.
#[inline(always)]
unsafe fn prefetch<S: Simd>(s: S, step: &Step, part: usize) {
    for ahead in step.ahead {
        for line in (part..step.ahead_lines).step_by(4) {
            s.prefetch(ahead.wrapping_add(line * TILE_BYTES).cast());
        }
    }
}

/// Adds the groups of 8 rows to their f32 sums.
///
/// # Safety
/// As [`Pipeline::advance`]; `part` is below 4.
#[inline(always)]
unsafe fn epilogue<S: Simd>(s: S, tiles: *const [[SumTile; PANELS]; 4], step: Option<&Step>, part: usize) {
    let Some(step) = step.filter(|step| part * EPILOGUE_ROWS < step.rows) else {
        return;
    };
    // SAFETY: the caller's promises.
    unsafe {
        match step.groups {
            1 => add_groups::<S, 1>(s, tiles, step, part),
            _ => add_groups::<S, 2>(s, tiles, step, part),
        }
    }
}

/// See [`epilogue`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn add_groups<S: Simd, const GROUPS: usize>(
    s: S,
    tiles: *const [[SumTile; PANELS]; 4],
    step: &Step,
    part: usize,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let first = part * EPILOGUE_ROWS;
        let sums = step.sums.add(first);
        let scales = step.scales.add(first * step.scale_stride);
        let mut totals = [[s.zero(); PANELS]; EPILOGUE_ROWS];
        for r in 0..EPILOGUE_ROWS {
            for p in 0..PANELS {
                totals[r][p] = s.load(&(&*sums.add(r))[p]);
            }
        }
        for g in 0..GROUPS {
            let tile = &(&*tiles)[2 * (part / 2) + g];
            let weight_scales = &*step.weight_scales.add(g);
            let w = [s.load(&weight_scales[0]), s.load(&weight_scales[1])];
            for r in 0..EPILOGUE_ROWS {
                let scale = s.splat(*scales.add(r * step.scale_stride + g));
                for p in 0..PANELS {
                    let dot = s.i32_to_f32(s.load_i32(&tile[p][part % 2 * EPILOGUE_ROWS + r]));
                    totals[r][p] = s.fma(dot, s.mul(scale, w[p]), totals[r][p]);
                }
            }
        }
        for r in 0..EPILOGUE_ROWS {
            for p in 0..PANELS {
                s.store(totals[r][p], &mut (&mut *sums.add(r))[p]);
            }
        }
    }
}
