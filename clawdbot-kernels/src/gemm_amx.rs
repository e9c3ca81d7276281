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

use super::gemm_int8::{Gemm, Int8Args};
use super::minima::{MinimaArgs, RowScales};
use super::quantize::Int8Rows;
use super::scale_lines::WidenArgs;
use super::simd::LANES;
use super::target::{CHUNK_ROWS, TileAt, row_chunk};
use super::tiles::{SumTile, TILE_BYTES, TILE_ROWS, Tiles};
use super::unchecked::item;
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

/// Many rows on tiles of kind `T`. Groups other than 32, 64 and 128 go to the kernel without tiles. Used only in kernel sets
/// whose `detected` in `isa.rs` asks for the tiles, and after the system permitted them (and in tests, with a model of them
/// that needs neither).
pub(super) struct Tiled<T>(PhantomData<T>);
impl<T: Tiles> Kernel for Tiled<T> {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        match args.group {
            // SAFETY: the CPU has the tiles, see `Tiled`, and this thread has no other value of `T`.
            32 => unsafe { task::<S, T, false>(s, &args, 8) },
            // SAFETY: the CPU has the tiles, see `Tiled`, and this thread has no other value of `T`.
            64 => unsafe { task::<S, T, false>(s, &args, 16) },
            // SAFETY: the CPU has the tiles, see `Tiled`, and this thread has no other value of `T`.
            128 => unsafe { task::<S, T, true>(s, &args, 16) },
            _ => Gemm::<4, 3>::run(s, args),
        }
    }
}

/// int32 sums of a step: `[block of 16 rows, k-tile][panel]`.
type StepTiles = [[SumTile; PANELS]; 4];
/// Scales of the weights of a slab, widened: `[group][panel]`.
type SlabScales = [[[f32; LANES]; PANELS]; SLAB_TILES];
/// A tile of weights.
type WeightTile = [[i8; TILE_BYTES]; TILE_ROWS];

/// What a task keeps in the first-level cache.
#[repr(align(64))]
struct Stage {
    /// Of two steps in turn.
    tiles: MaybeUninit<[StepTiles; 2]>,
    /// f32 sums of a chunk of rows.
    sums: MaybeUninit<[Sums; CHUNK_ROWS]>,
    /// Of two slabs in turn.
    scales: MaybeUninit<[SlabScales; 2]>,
    /// The last k-tile of the two panels, where it is not a whole one, followed by zeros; and a tile of zeros.
    padded: [WeightTile; PANELS + 1],
    /// A slab of weights that are not kept as int8.
    unpacked: MaybeUninit<[[[i8; TILE_BYTES]; SLAB_TILES * TILE_ROWS]; PANELS]>,
}

/// 1 to 32 rows x 2 panels x 2 k-tiles.
///
/// Invariant, established by [`task`], which alone makes them, and kept until the step after it has been computed:
/// - `activations` is valid for reads of a k-tile at each multiple of `stride`, 16 times (32 times with more than 16 rows), and
///   of another one `second` bytes on;
/// - each of `weights` is valid for reads of a tile;
/// - `scales` has the scales of `groups` groups from 0 on for each of `rows` rows, rounded up to a multiple of 8;
/// - `weight_scales` points to those of `groups` groups, initialised;
/// - `sums` points to `rows` rows, rounded up to a multiple of 8, initialised, which nothing else uses.
#[derive(Clone, Copy)]
struct Step<'a> {
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
    /// From the first row and group on.
    scales: &'a [f32],
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
/// The CPU must have the tiles, and the thread no other value of `T`.
#[inline(always)]
unsafe fn task<S: Simd, T: Tiles, const JOINED: bool>(s: S, args: &Int8Args<'_>, tile_blocks: usize) {
    args.check(TILE_ROWS);
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (k_blocks, groups) = (args.k_blocks, args.groups());
    let ((lines, kind), kernels) = (args.scale_lines(), args.target.kernels);
    let panel_lines = kind.lines(groups);
    let k_tiles = k_blocks.div_ceil(tile_blocks);
    let tile_groups = |tiles: usize| if JOINED { tiles.div_ceil(2) } else { tiles };
    assert!(stride >= k_tiles * 4 * tile_blocks, "rows are padded to whole tiles");
    let mut stage = Stage {
        tiles: MaybeUninit::uninit(),
        sums: MaybeUninit::uninit(),
        scales: MaybeUninit::uninit(),
        padded: [[[0; TILE_BYTES]; TILE_ROWS]; PANELS + 1],
        unpacked: MaybeUninit::uninit(),
    };
    let mut pipeline = Pipeline {
        // SAFETY: the clause on the tiles.
        tiles: unsafe { T::configure(tile_blocks) },
        buffers: stage.tiles.as_mut_ptr().cast(),
        turn: 0,
        pending: None,
    };
    // Everything is written before it is read: sums when a chunk begins, scales and unpacked weights when a slab begins.
    let stage_sums: *mut Sums = stage.sums.as_mut_ptr().cast();
    let stage_scales: *mut SlabScales = stage.scales.as_mut_ptr().cast();
    let unpacked: *mut [[i8; TILE_BYTES]; SLAB_TILES * TILE_ROWS] = stage.unpacked.as_mut_ptr().cast();
    let mut panel = args.panels.start;
    while panel < args.panels.end {
        let count = PANELS.min(args.panels.end - panel);
        // An odd last panel goes twice, and its double is dropped.
        let panels = [panel, panel + count - 1];
        let tail = k_blocks % tile_blocks;
        if args.narrow.is_none() {
            for p in 0..PANELS {
                let panel = &args.codes[panels[p] * k_blocks..][..k_blocks];
                stage.padded[p][..tail].copy_from_slice(&panel[k_blocks - tail..]);
            }
        }
        // Where a panel is.
        let codes_start: *const i8 =
            args.narrow.map_or(args.codes.as_ptr().cast(), |narrow| narrow.codes.as_ptr().cast());
        let bytes = |blocks| args.narrow.map_or(blocks, |narrow| narrow.width.lines(blocks)) * TILE_BYTES;
        let (panel_bytes, slab_bytes) = (bytes(k_blocks), bytes(SLAB_TILES * tile_blocks));
        let base = panels.map(|panel| codes_start.wrapping_add(panel * panel_bytes));
        let chunk_rows = row_chunk(args.rows.len(), BLOCK_ROWS, CHUNK_ROWS);
        let mut chunk = args.rows.start;
        while chunk < args.rows.end {
            let rows = chunk_rows.min(args.rows.end - chunk);
            let sum_rows = rows.next_multiple_of(EPILOGUE_ROWS);
            assert!(sum_rows <= CHUNK_ROWS, "{rows} rows of a chunk");
            // SAFETY: `stage_sums` has `CHUNK_ROWS` rows, which is as many or more, as asserted.
            unsafe { stage_sums.write_bytes(0, sum_rows) };
            let mut previous: Option<Step<'_>> = None;
            for first_tile in (0..k_tiles).step_by(SLAB_TILES) {
                let slab_tiles = SLAB_TILES.min(k_tiles - first_tile);
                let first_group = tile_groups(first_tile);
                // The step before this slab still uses the scales of its own slab.
                let weight_scales: *mut [[f32; LANES]; PANELS] =
                    stage_scales.wrapping_add(first_tile / SLAB_TILES % 2).cast();
                for p in 0..PANELS {
                    let lines = &lines[panels[p] * panel_lines..];
                    let of_slab = first_group..first_group + tile_groups(slab_tiles);
                    let to = weight_scales.cast::<[f32; LANES]>().wrapping_add(p);
                    // SAFETY: the lines are of a `Panel`, and so aligned. `to` is panel `p` of the slab's first group; the slab
                    // has room for `SLAB_TILES` groups, and the steps that read these scales have been computed.
                    let args_of_slab = unsafe { WidenArgs::new(kind, lines, of_slab, to, PANELS) };
                    kernels.scale_lines.call(args_of_slab);
                    if let Some(narrow) = args.narrow {
                        let first_block = first_tile * tile_blocks;
                        let blocks = (slab_tiles * tile_blocks).min(k_blocks - first_block);
                        let first_block = panels[p] * k_blocks + first_block;
                        let to = unpacked.wrapping_add(p).cast::<[i8; TILE_BYTES]>();
                        // SAFETY: `to` is room for `SLAB_TILES * TILE_ROWS` blocks, and `blocks` is at most `slab_tiles *
                        // tile_blocks`.
                        unsafe { narrow.fill(s, narrow.zero(), first_block, blocks, to) };
                        // SAFETY: `blocks` and these blocks are `slab_tiles * tile_blocks`, for which `to` is room.
                        unsafe { to.wrapping_add(blocks).write_bytes(0, slab_tiles * tile_blocks - blocks) };
                    }
                }
                let steps = slab_tiles.div_ceil(2) * rows.div_ceil(BLOCK_ROWS);
                // The next slab's weights: of these panels, or of the next ones.
                let ahead = if first_tile + SLAB_TILES < k_tiles {
                    base.map(|base| base.wrapping_add((first_tile / SLAB_TILES + 1) * slab_bytes))
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
                        let zeros: *const i8 = stage.padded[PANELS].as_flattened().as_ptr();
                        let mut weights = [[zeros; PANELS]; 2];
                        for (half, weights) in weights.iter_mut().enumerate() {
                            for p in 0..PANELS {
                                if args.narrow.is_some() {
                                    if at + half < k_tiles {
                                        let tile = (tile + half) * tile_blocks * TILE_BYTES;
                                        weights[p] = unpacked.wrapping_add(p).cast::<i8>().wrapping_add(tile);
                                    }
                                } else if (at + half + 1) * tile_blocks <= k_blocks {
                                    weights[p] = base[p].wrapping_add((at + half) * tile_blocks * TILE_BYTES);
                                } else if (at + half) * tile_blocks < k_blocks {
                                    weights[p] = stage.padded[p].as_flattened().as_ptr();
                                }
                            }
                        }
                        let two = at + 1 < k_tiles;
                        let group = tile_groups(tile);
                        // The invariant of `Step`: by `args.check` there are 15 rows after the last, so 16 from each row on,
                        // and rows are padded to whole tiles, as asserted; tiles of weights that would end after their panel
                        // are those of `padded`; the scales are those of the slab, the sums those of the chunk.
                        let step = Step {
                            activations: codes[(chunk + row) * stride + at * 4 * tile_blocks..].as_ptr(),
                            stride,
                            second: if two { 4 * tile_blocks } else { 0 },
                            weights,
                            rows: BLOCK_ROWS.min(rows - row),
                            groups: if JOINED || !two { 1 } else { 2 },
                            scales: &scales[(chunk + row) * groups + first_group + group..],
                            scale_stride: groups,
                            weight_scales: weight_scales.wrapping_add(group),
                            sums: stage_sums.wrapping_add(row),
                            ahead: ahead.map(|ahead| ahead.wrapping_add(asked)),
                            ahead_lines,
                        };
                        asked += ahead_lines * TILE_BYTES;
                        // SAFETY: `previous` is the step of the last call of this chunk, and none is pending when it begins:
                        // `drain` has ended the chunk before.
                        unsafe { pipeline.advance::<S, JOINED>(s, &step, previous.as_ref()) };
                        previous = Some(step);
                        tile += 2;
                    }
                    row += BLOCK_ROWS;
                }
            }
            if let Some(last) = previous {
                // SAFETY: `last` is the step of the last call of `advance`.
                unsafe { pipeline.drain(s, &last) };
            }
            // SAFETY: `rows <= sum_rows` rows are initialised, and no step that writes them is left.
            let sums = unsafe { std::slice::from_raw_parts_mut(stage_sums, rows) };
            if kind.minimum() {
                let lhs = RowScales { scales: &scales[chunk * groups..], starts: &starts[chunk * groups..] };
                let lines = &lines[panel * panel_lines..];
                // SAFETY: the lines are of a `Panel`, and so aligned.
                let args = unsafe { MinimaArgs::new(kind, lines, lhs, groups, sums, count) };
                kernels.minima.call(args);
            }
            // SAFETY: rows and panels are those of `args`: by the invariant of `Int8Args` no other task's.
            unsafe { args.target.finish(TileAt { row: chunk, panel }, count, sums) };
            chunk += chunk_rows;
        }
        panel += PANELS;
    }
}

/// Tiles and vectors at work on two steps at a time.
///
/// Invariant, established by [`task`], which alone makes one: `buffers` points to two buffers, which nothing else uses; `turn`
/// is 0 or 1; `pending` points into one of the buffers.
struct Pipeline<T> {
    tiles: T,
    /// Two buffers.
    buffers: *mut StepTiles,
    /// The buffer that the next step fills.
    turn: usize,
    /// Where the sums go that are still in the tiles.
    pending: Option<*mut [SumTile; PANELS]>,
}

/// Sums that [`Pipeline::products`] replaces in the tiles, or keeps and adds to.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Store,
    Keep,
}

impl<T: Tiles> Pipeline<T> {
    /// The four tile products of 16 rows and one k-tile with two panels, weights in tiles `W0` and `W1`: stores the sums of
    /// the products before, unless they are kept, and leaves its own, which go `to` a buffer, in the tiles. Without
    /// `weights` those that are loaded are used again.
    ///
    /// # Safety
    /// `activations` must be valid for reads of a k-tile at each of the 16 multiples of `stride`, and `weights` of a tile;
    /// `to` must point into the buffers.
    #[inline(always)]
    unsafe fn products<const W0: usize, const W1: usize>(
        &mut self,
        activations: *const i8,
        stride: usize,
        weights: Option<[*const i8; PANELS]>,
        before: Before,
        to: *mut [SumTile; PANELS],
    ) {
        let pending =
            self.pending.filter(|_| before == Before::Store).map(|pending| pending.cast::<SumTile>());
        if let Some(pending) = pending {
            // SAFETY: the invariant of `Pipeline`: the sums of the first panel, in a buffer.
            self.tiles.store::<0>(unsafe { &mut *pending });
        }
        // SAFETY: the clause on `activations`.
        unsafe { self.tiles.load_activations(activations, stride) };
        if let Some(weights) = weights {
            // SAFETY: the clause on `weights`.
            unsafe { self.tiles.load_weights::<W0>(weights[0]) };
        }
        if before == Before::Store {
            self.tiles.zero::<0>();
        }
        self.tiles.multiply::<0, W0>();
        if let Some(pending) = pending {
            // SAFETY: the invariant of `Pipeline`: the sums of the second panel, in a buffer.
            self.tiles.store::<1>(unsafe { &mut *pending.wrapping_add(1) });
        }
        if let Some(weights) = weights {
            // SAFETY: the clause on `weights`.
            unsafe { self.tiles.load_weights::<W1>(weights[1]) };
        }
        if before == Before::Store {
            self.tiles.zero::<1>();
        }
        self.tiles.multiply::<1, W1>();
        self.pending = Some(to);
    }

    /// Computes the tile products of `step` and, in between, the f32 sums of the step before it.
    ///
    /// # Safety
    /// `previous` must be the step of the last call, or none when nothing is pending.
    #[inline(always)]
    unsafe fn advance<S: Simd, const JOINED: bool>(
        &mut self,
        s: S,
        step: &Step<'_>,
        previous: Option<&Step<'_>>,
    ) {
        let buffer = self.buffers.wrapping_add(self.turn);
        let done = self.buffers.wrapping_add(1 - self.turn);
        self.turn = 1 - self.turn;
        let at = |index: usize| buffer.cast::<[SumTile; PANELS]>().wrapping_add(index);
        // Where a group has two k-tiles, the products of the second are added to those of the first.
        let (second, next) = if JOINED { (Before::Keep, 0) } else { (Before::Store, 1) };
        let (rows, stride) = (step.activations, step.stride);
        let (first_weights, second_weights) = (Some(step.weights[0]), Some(step.weights[1]));
        // SAFETY: the invariant of `Step`: its first k-tile; tile 0 of four of the buffer.
        unsafe { self.products::<3, 4>(rows, stride, first_weights, Before::Store, at(0)) };
        prefetch(s, step, 0);
        // SAFETY: the sums of `previous` are in `done`: its last ones were stored by the products above.
        unsafe { epilogue(s, done, previous, 0) };
        // SAFETY: the invariant of `Step`: its second k-tile; tile 0 or 1 of four of the buffer.
        unsafe {
            self.products::<5, 6>(rows.wrapping_add(step.second), stride, second_weights, second, at(next));
        };
        prefetch(s, step, 1);
        // SAFETY: the sums of `previous` are in `done`, see part 0.
        unsafe { epilogue(s, done, previous, 1) };
        if step.rows > TILE_ROWS {
            let rows = rows.wrapping_add(TILE_ROWS * stride);
            // SAFETY: the invariant of `Step` with more than 16 rows: its first k-tile; tile 2 of four of the buffer.
            unsafe { self.products::<3, 4>(rows, stride, None, Before::Store, at(2)) };
            prefetch(s, step, 2);
            // SAFETY: the sums of `previous` are in `done`, see part 0.
            unsafe { epilogue(s, done, previous, 2) };
            // SAFETY: the invariant of `Step` with more than 16 rows: its second k-tile; tile 2 or 3 of four of the buffer.
            unsafe {
                self.products::<5, 6>(rows.wrapping_add(step.second), stride, None, second, at(2 + next));
            };
        } else {
            prefetch(s, step, 2);
            // SAFETY: the sums of `previous` are in `done`, see part 0.
            unsafe { epilogue(s, done, previous, 2) };
        }
        prefetch(s, step, 3);
        // SAFETY: the sums of `previous` are in `done`, see part 0.
        unsafe { epilogue(s, done, previous, 3) };
    }

    /// The f32 sums of the last step.
    ///
    /// # Safety
    /// `last` must be the step of the last call of [`advance`](Self::advance).
    #[inline(always)]
    unsafe fn drain<S: Simd>(&mut self, s: S, last: &Step<'_>) {
        if let Some(pending) = self.pending.take() {
            let pending = pending.cast::<SumTile>();
            // SAFETY: the invariant of `Pipeline`: the sums of the first panel, in a buffer.
            self.tiles.store::<0>(unsafe { &mut *pending });
            // SAFETY: the invariant of `Pipeline`: the sums of the second panel, in a buffer.
            self.tiles.store::<1>(unsafe { &mut *pending.wrapping_add(1) });
        }
        let done = self.buffers.wrapping_add(1 - self.turn);
        for part in 0..BLOCK_ROWS / EPILOGUE_ROWS {
            // SAFETY: the sums of `last` are in `done`: its last ones were stored above.
            unsafe { epilogue(s, done, Some(last), part) };
        }
    }
}

/// Asks for a quarter of the lines that the step wants ahead.
#[inline(always)]
fn prefetch<S: Simd>(s: S, step: &Step<'_>, part: usize) {
    for ahead in step.ahead {
        for line in (part..step.ahead_lines).step_by(4) {
            s.prefetch(ahead.wrapping_add(line * TILE_BYTES).cast());
        }
    }
}

/// Adds the groups of 8 rows of a step, if it has them, to their f32 sums.
///
/// # Safety
/// `tiles` must point to the sums of the step's rows; `part` must be below 4.
#[inline(always)]
unsafe fn epilogue<S: Simd>(s: S, tiles: *const StepTiles, step: Option<&Step<'_>>, part: usize) {
    let Some(step) = step.filter(|step| part * EPILOGUE_ROWS < step.rows) else {
        return;
    };
    match step.groups {
        // SAFETY: the clauses above; the step has rows of this part, as filtered, and one group.
        1 => unsafe { add_groups::<S, 1>(s, tiles, step, part) },
        // SAFETY: the clauses above; the step has rows of this part, as filtered, and two groups.
        _ => unsafe { add_groups::<S, 2>(s, tiles, step, part) },
    }
}

/// See [`epilogue`].
///
/// # Safety
/// As for [`epilogue`]; the step must have more than `8 * part` rows, and `GROUPS` groups.
#[inline(always)]
unsafe fn add_groups<S: Simd, const GROUPS: usize>(
    s: S,
    tiles: *const StepTiles,
    step: &Step<'_>,
    part: usize,
) {
    let first = part * EPILOGUE_ROWS;
    let sums = step.sums.wrapping_add(first).cast::<[Sums; EPILOGUE_ROWS]>();
    // SAFETY: the invariant of `Step`: 8 rows of sums from row `8 * part` on, initialised, which nothing else uses.
    let sums = unsafe { &mut *sums };
    let mut totals = [[s.zero(); PANELS]; EPILOGUE_ROWS];
    for r in 0..EPILOGUE_ROWS {
        for p in 0..PANELS {
            totals[r][p] = s.load(&sums[r][p]);
        }
    }
    for g in 0..GROUPS {
        let tile = tiles.cast::<[SumTile; PANELS]>().wrapping_add(2 * (part / 2) + g);
        // SAFETY: the clause on `tiles`: of the part's block of 16 rows, the tile of group `g`.
        let tile = unsafe { &*tile };
        // SAFETY: the invariant of `Step`: the scales of `GROUPS` groups.
        let weight_scales = unsafe { &*step.weight_scales.wrapping_add(g) };
        let w = [s.load(&weight_scales[0]), s.load(&weight_scales[1])];
        for r in 0..EPILOGUE_ROWS {
            // SAFETY: the invariant of `Step`: `GROUPS` scales for each of 8 rows from row `8 * part` on.
            let scale = s.splat(unsafe { item(step.scales, (first + r) * step.scale_stride + g) });
            for p in 0..PANELS {
                let dot = s.i32_to_f32(s.load_i32(&tile[p][part % 2 * EPILOGUE_ROWS + r]));
                totals[r][p] = s.fma(dot, s.mul(scale, w[p]), totals[r][p]);
            }
        }
    }
    for r in 0..EPILOGUE_ROWS {
        for p in 0..PANELS {
            s.store(totals[r][p], &mut sums[r][p]);
        }
    }
}
