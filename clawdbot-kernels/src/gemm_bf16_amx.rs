//! bf16 products on tile registers (AMX-BF16).
//!
//! A block of 32 rows x 2 panels goes through k in steps of 32: two loads of activations, two of weights (16 k-blocks of a
//! panel are a tile), four tile products, whose f32 sums stay in the tiles for a slab of eight steps. See `bf16_dot.rs`
//! for the numerics: each product adds to what was there before, so slabs change nothing.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::bf16_dot::{Bf16Args, Bf16Rows, TILE_K};
use super::simd::LANES;
use super::target::{CHUNK_ROWS, TileAt, row_chunk};
use super::{Kernel, Simd};

/// Panels of a block.
pub(super) const PANELS: usize = 2;
/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Rows of a block: two tiles.
const BLOCK_ROWS: usize = 2 * TILE_ROWS;
/// k-blocks of a tile of weights.
const TILE_BLOCKS: usize = TILE_K / 2;
/// k-tiles of a slab: 16 KiB of weights.
const SLAB_TILES: usize = 8;
/// How far ahead of its reads the kernel asks for weights when there are few rows, in k-tiles.
const PREFETCH_TILES: usize = 2;

/// The f32 sums of a row of a block.
type Sums = [[f32; LANES]; PANELS];

/// Eight tiles: 0 to 3 are sums `[16][16]` of f32, two panels of the first 16 rows and two of the others; 4 and 5 are
/// activations `[16][32]` of bf16; 6 and 7 are weights `[16][16][2]` of bf16.
///
/// Invariant, established by [`configure`](Self::configure), which alone makes values: the CPU has the instructions, and the
/// tiles of this thread are configured so.
pub(super) trait Bf16Tiles {
    /// Configures the tiles. The first rows (tiles 0, 1 and 4) are `rows`, 1 to 16.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the thread no other value of such a type.
    unsafe fn configure(rows: usize) -> Self;

    /// Loads rows of sums into tile `T`, 0 to 3, from one panel of each.
    ///
    /// # Safety
    /// `sums` must be valid for reads of as many rows as the tile has; `panel` must be below [`PANELS`].
    unsafe fn load_sums<const T: usize>(&mut self, sums: *const Sums, panel: usize);

    /// Writes tile `T`, 0 to 3, to one panel of rows of sums.
    ///
    /// # Safety
    /// `sums` must be valid for writes of as many rows as the tile has; `panel` must be below [`PANELS`].
    unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize);

    /// Loads rows of 32 elements, `stride` elements apart, into tile `T`, 4 or 5.
    ///
    /// # Safety
    /// `rows` must be valid for reads of 32 elements at each multiple of `stride`, as many as the tile has rows.
    unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize);

    /// Loads 16 consecutive k-blocks of a panel into tile `T`, 6 or 7.
    ///
    /// # Safety
    /// `blocks` must be valid for reads of 16 blocks.
    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const [u16; 2 * LANES]);

    /// Tile `T`, 0 to 3, `+=` tile `A`, 4 or 5, times tile `W`, 6 or 7.
    fn multiply<const T: usize, const A: usize, const W: usize>(&mut self);
}

/// Products on tiles of kind `T`, of any number of rows. Used only in kernel sets whose `detected` in `isa.rs` asks for the
/// tiles, and after the system permitted them (and in tests, with a model of them that needs neither).
pub(super) struct Tiled<T>(PhantomData<T>);
impl<T: Bf16Tiles> Kernel for Tiled<T> {
    type Args<'a> = Bf16Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Bf16Args<'_>) {
        args.check();
        if args.rows.is_empty() {
            return;
        }
        // SAFETY: the CPU has the tiles, see `Tiled`, and this thread has no other value of `T`; `args.check` passed.
        unsafe { task::<S, T>(s, &args) };
    }
}

/// What a task keeps in the first-level cache.
#[repr(align(64))]
struct Stage {
    sums: MaybeUninit<[Sums; CHUNK_ROWS]>,
    /// The last k-tile of the two panels, where it is not a whole one, followed by zeros.
    padded: [[[u16; 2 * LANES]; TILE_BLOCKS]; PANELS],
}

/// The rows of the task by its panels.
///
/// # Safety
/// The CPU must have the tiles, and the thread no other value of `T`; `args.check` must have passed.
#[inline(always)]
unsafe fn task<S: Simd, T: Bf16Tiles>(s: S, args: &Bf16Args<'_>) {
    let (Bf16Rows { data, stride }, k_blocks) = (args.lhs, args.k_blocks);
    let k_tiles = k_blocks.div_ceil(TILE_BLOCKS);
    let few = args.rows.len() <= TILE_ROWS;
    let slab_tiles = if few { k_tiles.max(1) } else { SLAB_TILES };
    let chunk_rows = row_chunk(args.rows.len(), BLOCK_ROWS, CHUNK_ROWS);
    let mut stage = Stage { sums: MaybeUninit::uninit(), padded: [[[0; 2 * LANES]; TILE_BLOCKS]; PANELS] };
    // Rows of sums. Those of a chunk are zeroed before they are read.
    let stage_sums: *mut Sums = stage.sums.as_mut_ptr().cast();
    // SAFETY: the clause on the tiles.
    let mut tiles = unsafe { T::configure(args.rows.len().min(TILE_ROWS)) };
    let mut panel = args.panels.start;
    while panel < args.panels.end {
        let count = PANELS.min(args.panels.end - panel);
        // An odd last panel goes twice, and its double is dropped.
        let panels = [
            &args.data[panel * k_blocks..][..k_blocks],
            &args.data[(panel + count - 1) * k_blocks..][..k_blocks],
        ];
        let tail = k_blocks % TILE_BLOCKS;
        for p in 0..PANELS {
            stage.padded[p][..tail].copy_from_slice(&panels[p][k_blocks - tail..]);
        }
        let mut chunk = args.rows.start;
        while chunk < args.rows.end {
            let rows = chunk_rows.min(args.rows.end - chunk);
            // Tiles are whole, and so are blocks.
            let block_rows = rows.next_multiple_of(BLOCK_ROWS);
            assert!(block_rows <= CHUNK_ROWS, "{rows} rows of a chunk");
            // SAFETY: `stage_sums` has `CHUNK_ROWS` rows, which is as many or more, as asserted.
            unsafe { stage_sums.write_bytes(0, block_rows) };
            for first in (0..k_tiles).step_by(slab_tiles) {
                let end = k_tiles.min(first + slab_tiles);
                for row in (0..rows).step_by(BLOCK_ROWS) {
                    let sums = stage_sums.wrapping_add(row);
                    let lower = stage_sums.wrapping_add(row + TILE_ROWS);
                    let x = data.as_ptr().wrapping_add((chunk + row) * stride);
                    let two = rows - row > TILE_ROWS;
                    // SAFETY: the 16 rows from `row` on are among the `block_rows`, which are initialised.
                    unsafe { tiles.load_sums::<0>(sums, 0) };
                    // SAFETY: as for tile 0: its rows, the other panel.
                    unsafe { tiles.load_sums::<1>(sums, 1) };
                    if two {
                        // SAFETY: the 16 rows from `row + 16` on are among the `block_rows`, which are initialised.
                        unsafe { tiles.load_sums::<2>(lower, 0) };
                        // SAFETY: as for tile 2: its rows, the other panel.
                        unsafe { tiles.load_sums::<3>(lower, 1) };
                    }
                    for at in first..end {
                        let mut weights = [stage.padded[0].as_ptr(); PANELS];
                        for p in 0..PANELS {
                            weights[p] = if (at + 1) * TILE_BLOCKS <= k_blocks {
                                panels[p].as_ptr().wrapping_add(at * TILE_BLOCKS)
                            } else {
                                stage.padded[p].as_ptr()
                            };
                            if few {
                                prefetch(s, weights[p], at + PREFETCH_TILES < k_tiles, k_blocks);
                            }
                        }
                        let x = x.wrapping_add(at * TILE_K);
                        // SAFETY: the tile's 16 blocks end inside of the panel, or are those of `padded`.
                        unsafe { tiles.load_weights::<6>(weights[0]) };
                        // SAFETY: `check`: there are 15 rows after the last, so 16 from each row on, and each is padded to whole
                        // tiles.
                        unsafe { tiles.load_activations::<4>(x, stride) };
                        tiles.multiply::<0, 4, 6>();
                        // SAFETY: the tile's 16 blocks end inside of the panel, or are those of `padded`.
                        unsafe { tiles.load_weights::<7>(weights[1]) };
                        tiles.multiply::<1, 4, 7>();
                        if two {
                            let x = x.wrapping_add(TILE_ROWS * stride);
                            // SAFETY: as for tile 4: with more than 16 rows left, row `row + 16` is one of the task's.
                            unsafe { tiles.load_activations::<5>(x, stride) };
                            tiles.multiply::<2, 5, 6>();
                            tiles.multiply::<3, 5, 7>();
                        }
                    }
                    // SAFETY: the 16 rows from `row` on are among the `block_rows`, and this task's alone.
                    unsafe { tiles.store_sums::<0>(sums, 0) };
                    // SAFETY: as for tile 0: its rows, the other panel.
                    unsafe { tiles.store_sums::<1>(sums, 1) };
                    if two {
                        // SAFETY: the 16 rows from `row + 16` on are among the `block_rows`, and this task's alone.
                        unsafe { tiles.store_sums::<2>(lower, 0) };
                        // SAFETY: as for tile 2: its rows, the other panel.
                        unsafe { tiles.store_sums::<3>(lower, 1) };
                    }
                }
            }
            // SAFETY: `rows <= block_rows` rows are initialised, and no one writes them while the slice is used.
            let sums = unsafe { std::slice::from_raw_parts(stage_sums, rows) };
            // SAFETY: rows and panels are those of `args`: by the invariant of `Bf16Args` no other task's.
            unsafe { args.target.finish(TileAt { row: chunk, panel }, count, sums) };
            chunk += chunk_rows;
        }
        panel += PANELS;
    }
}

/// Asks for the weights of a later step. What comes after the end of a panel is the panel after the two.
#[inline(always)]
fn prefetch<S: Simd>(s: S, weights: *const [u16; 2 * LANES], inside: bool, k_blocks: usize) {
    let beyond = if inside { 0 } else { (PANELS - 1) * k_blocks };
    for line in 0..TILE_BLOCKS {
        s.prefetch(weights.wrapping_add(PREFETCH_TILES * TILE_BLOCKS + beyond + line).cast());
    }
}

/// The instructions themselves. No compiler-generated code touches tile registers, so their contents last from one
/// statement to the next, although each declares those it writes as clobbered.
#[cfg(target_arch = "x86_64")]
pub(super) struct AmxBf16(());

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    use super::*;
    use crate::tiles::Configuration;

    /// Bytes from row to row of sums.
    const SUMS_STRIDE: usize = size_of::<Sums>();

    impl Bf16Tiles for AmxBf16 {
        #[inline(always)]
        unsafe fn configure(rows: usize) -> Self {
            assert!((1..=TILE_ROWS).contains(&rows), "1 to 16 rows, found {rows}");
            let mut configuration = Configuration::default();
            for tile in 0..8 {
                let first = matches!(tile, 0 | 1 | 4);
                configuration.rows[tile] = if first { rows } else { TILE_ROWS } as u8;
                configuration.row_bytes[tile] = 64;
            }
            // SAFETY: the CPU has the instruction by the clause of `configure`; the operand is 64 bytes in palette 1 with at most
            // 16 rows of 64 bytes, as asserted, which is a valid configuration.
            unsafe {
                asm!(
                    "ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags, readonly),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                );
            }
            AmxBf16(())
        }

        #[inline(always)]
        unsafe fn load_sums<const T: usize>(&mut self, sums: *const Sums, panel: usize) {
            const { assert!(T <= 3) };
            let sums = sums.cast::<[f32; LANES]>().wrapping_add(panel);
            // SAFETY: the invariant of `Bf16Tiles`: tile `T` is configured, with rows of 64 bytes, which may be read by the clause
            // on `sums`.
            unsafe {
                asm!(
                    "tileloadd tmm{t}, [{sums} + {stride}*1]",
                    t = const T, sums = in(reg) sums, stride = in(reg) SUMS_STRIDE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize) {
            const { assert!(T <= 3) };
            let sums = sums.cast::<[f32; LANES]>().wrapping_add(panel);
            // SAFETY: the invariant of `Bf16Tiles`: tile `T` is configured, with rows of 64 bytes, which may be written by the
            // clause on `sums`.
            unsafe {
                asm!(
                    "tilestored [{sums} + {stride}*1], tmm{t}",
                    t = const T, sums = in(reg) sums, stride = in(reg) SUMS_STRIDE,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize) {
            const { assert!(T == 4 || T == 5) };
            // SAFETY: the invariant of `Bf16Tiles`: tile `T` is configured, with rows of 64 bytes, which may be read by the clause
            // on `rows`.
            unsafe {
                asm!(
                    "tileloadd tmm{t}, [{rows} + {stride}*1]",
                    t = const T, rows = in(reg) rows, stride = in(reg) 2 * stride,
                    out("tmm4") _, out("tmm5") _, options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        unsafe fn load_weights<const T: usize>(&mut self, blocks: *const [u16; 2 * LANES]) {
            const { assert!(T == 6 || T == 7) };
            // SAFETY: the invariant of `Bf16Tiles`: tile `T` is configured, with 16 rows of 64 bytes, which may be read by the
            // clause on `blocks`.
            unsafe {
                asm!(
                    "tileloadd tmm{t}, [{blocks} + {stride}*1]",
                    t = const T, blocks = in(reg) blocks, stride = in(reg) 64_usize,
                    out("tmm6") _, out("tmm7") _, options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        fn multiply<const T: usize, const A: usize, const W: usize>(&mut self) {
            const { assert!(T <= 3 && (A == 4 || A == 5) && (W == 6 || W == 7)) };
            // SAFETY: the invariant of `Bf16Tiles`: the tiles are configured. `task` multiplies tiles 0 and 1 by 4 and tiles 2 and
            // 3 by 5, which have the same rows; others would fault, not access memory.
            unsafe {
                asm!(
                    "tdpbf16ps tmm{t}, tmm{a}, tmm{w}", t = const T, a = const A, w = const W,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, preserves_flags, nomem),
                );
            }
        }
    }

    impl Drop for AmxBf16 {
        #[inline(always)]
        fn drop(&mut self) {
            // In their initial state, tiles cost context switches nothing.
            // SAFETY: the invariant of `Bf16Tiles`: the CPU has the instruction, and no other value uses this thread's tiles.
            unsafe {
                asm!(
                    "tilerelease", options(nostack, preserves_flags, nomem),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                );
            }
        }
    }

    impl AmxBf16 {
        /// Whether the CPU has bf16 tiles and the operating system can hand them out.
        pub(crate) fn detected() -> bool {
            /// AMX-BF16 in EDX of leaf 7.
            const AMX_BF16: u32 = 1 << 22;
            crate::tiles::usable(AMX_BF16)
        }
    }
}

/// Tiles in plain Rust.
#[cfg(test)]
pub(super) struct Model {
    rows: usize,
    sums: [[[f32; LANES]; TILE_ROWS]; 4],
    activations: [[[u16; TILE_K]; TILE_ROWS]; 2],
    weights: [[[u16; 2 * LANES]; TILE_BLOCKS]; 2],
}

#[cfg(test)]
impl Model {
    /// Rows of tile `T`.
    fn rows(&self, tile: usize) -> usize {
        if matches!(tile, 0 | 1 | 4) { self.rows } else { TILE_ROWS }
    }
}

#[cfg(test)]
impl Bf16Tiles for Model {
    unsafe fn configure(rows: usize) -> Self {
        assert!((1..=TILE_ROWS).contains(&rows));
        // Not zeros: whatever is not loaded must not matter.
        Model {
            rows,
            sums: [[[f32::NAN; LANES]; TILE_ROWS]; 4],
            activations: [[[0x7fc0; TILE_K]; TILE_ROWS]; 2],
            weights: [[[0x7fc0; 2 * LANES]; TILE_BLOCKS]; 2],
        }
    }

    unsafe fn load_sums<const T: usize>(&mut self, sums: *const Sums, panel: usize) {
        for row in 0..self.rows(T) {
            // SAFETY: the clause on `sums`: `row` is below the rows of the tile.
            self.sums[T][row] = unsafe { &*sums.wrapping_add(row) }[panel];
        }
    }

    unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize) {
        for row in 0..self.rows(T) {
            // SAFETY: the clause on `sums`: `row` is below the rows of the tile.
            let sums = unsafe { &mut *sums.wrapping_add(row) };
            sums[panel] = self.sums[T][row];
        }
    }

    unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize) {
        for row in 0..self.rows(T) {
            let at = rows.wrapping_add(row * stride).cast::<[u16; TILE_K]>();
            // SAFETY: the clause on `rows`: `row` is below the rows of the tile.
            self.activations[T - 4][row] = unsafe { at.read() };
        }
    }

    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const [u16; 2 * LANES]) {
        // SAFETY: the clause on `blocks`: 16 of them.
        self.weights[T - 6] = unsafe { blocks.cast::<[[u16; 2 * LANES]; TILE_BLOCKS]>().read() };
    }

    fn multiply<const T: usize, const A: usize, const W: usize>(&mut self) {
        for row in 0..self.rows(T) {
            for (column, sum) in self.sums[T][row].iter_mut().enumerate() {
                let weights: Vec<u16> = self.weights[W - 6]
                    .iter()
                    .flat_map(|block| [block[2 * column], block[2 * column + 1]])
                    .collect();
                *sum = super::bf16_dot::tdpbf16(*sum, &self.activations[A - 4][row], &weights);
            }
        }
    }
}
