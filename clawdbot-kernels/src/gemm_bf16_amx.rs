//! bf16 products on tile registers (AMX-BF16).
//!
//! A block of 32 rows x 2 panels goes through k in steps of 32: two loads of activations, two of weights (16 k-blocks of a
//! panel are a tile), four tile products, whose f32 sums stay in the tiles for a slab of eight steps. See `bf16_dot.rs`
//! for the numerics: each product adds to what was there before, so slabs change nothing.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::bf16_dot::{Bf16Args, Bf16Rows, TILE_K};
use super::gemm::{CHUNK_ROWS, row_chunk};
use super::simd::LANES;
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
/// activations `[16][32]` of bf16; 6 and 7 are weights `[16][16][2]` of bf16. A value is a configuration in force on this
/// thread.
pub(super) trait Bf16Tiles {
    /// Configures the tiles. The first rows (tiles 0, 1 and 4) are `rows`, 1 to 16.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the thread no other value of this type.
    unsafe fn configure(rows: usize) -> Self;

    /// Loads rows of sums into tile `T`, 0 to 3, from one panel of each.
    ///
    /// # Safety
    /// As many rows as the tile has must be readable.
    unsafe fn load_sums<const T: usize>(&mut self, sums: *const Sums, panel: usize);

    /// Writes tile `T`, 0 to 3, to one panel of rows of sums.
    ///
    /// # Safety
    /// As many rows as the tile has must be writable.
    unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize);

    /// Loads rows of 32 elements, `stride` elements apart, into tile `T`, 4 or 5.
    ///
    /// # Safety
    /// As many rows as the tile has must be readable.
    unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize);

    /// Loads 16 consecutive k-blocks of a panel into tile `T`, 6 or 7.
    ///
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const [u16; 2 * LANES]);

    /// Tile `T`, 0 to 3, `+=` tile `A`, 4 or 5, times tile `W`, 6 or 7.
    fn multiply<const T: usize, const A: usize, const W: usize>(&mut self);
}

/// Products on tiles of kind `T`, of any number of rows.
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
        // SAFETY: checked above; rows and panels are the task's. A kernel set with this kernel is used only where its
        // tiles are, see `isa`.
        unsafe { task::<S, T>(s, &args) };
    }
}

/// What a task keeps in the first-level cache.
#[repr(align(64))]
struct Stage {
    sums: [Sums; CHUNK_ROWS],
    /// The last k-tile of the two panels, where it is not a whole one.
    padded: [[[u16; 2 * LANES]; TILE_BLOCKS]; PANELS],
}

/// The rows of the task by its panels.
///
/// # Safety
/// The thread may use `T`; `args.check`; rows and panels must be the task's.
#[inline(always)]
unsafe fn task<S: Simd, T: Bf16Tiles>(s: S, args: &Bf16Args<'_>) {
    let (Bf16Rows { data, stride }, k_blocks) = (args.lhs, args.k_blocks);
    let k_tiles = k_blocks.div_ceil(TILE_BLOCKS);
    let few = args.rows.len() <= TILE_ROWS;
    let slab_tiles = if few { k_tiles.max(1) } else { SLAB_TILES };
    let chunk_rows = row_chunk(args.rows.len(), BLOCK_ROWS);
    let mut stage = MaybeUninit::<Stage>::uninit();
    let stage = stage.as_mut_ptr();
    // SAFETY: the caller's promise. Every pointer below stays inside its array: `check` has compared the arrays with the
    // rows (15 more may be read), the panels and `k_blocks`; tiles of weights that would end beyond their panel are read
    // from `padded`; rows have whole tiles. Every part of the stage is written before it is read.
    unsafe {
        let mut tiles = T::configure(args.rows.len().min(TILE_ROWS));
        let sums: *mut Sums = (&raw mut (*stage).sums).cast();
        let padded: *mut [[u16; 2 * LANES]; TILE_BLOCKS] = (&raw mut (*stage).padded).cast();
        padded.write_bytes(0, PANELS);
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            let count = PANELS.min(args.panels.end - panel);
            // An odd last panel goes twice, and its double is dropped.
            let base = [
                args.data.as_ptr().add(panel * k_blocks),
                args.data.as_ptr().add((panel + count - 1) * k_blocks),
            ];
            let tail = k_blocks % TILE_BLOCKS;
            if tail > 0 {
                for p in 0..PANELS {
                    let to = padded.add(p).cast::<[u16; 2 * LANES]>();
                    to.copy_from_nonoverlapping(base[p].add(k_blocks - tail), tail);
                }
            }
            let mut chunk = args.rows.start;
            while chunk < args.rows.end {
                let rows = chunk_rows.min(args.rows.end - chunk);
                for row in 0..rows.next_multiple_of(BLOCK_ROWS) {
                    *sums.add(row) = [[0.0; LANES]; PANELS];
                }
                for first in (0..k_tiles).step_by(slab_tiles) {
                    let end = k_tiles.min(first + slab_tiles);
                    for row in (0..rows).step_by(BLOCK_ROWS) {
                        let sums = sums.add(row);
                        let x = data.as_ptr().add((chunk + row) * stride);
                        let two = rows - row > TILE_ROWS;
                        tiles.load_sums::<0>(sums, 0);
                        tiles.load_sums::<1>(sums, 1);
                        if two {
                            tiles.load_sums::<2>(sums.add(TILE_ROWS), 0);
                            tiles.load_sums::<3>(sums.add(TILE_ROWS), 1);
                        }
                        for at in first..end {
                            let mut weights = [padded.cast::<[u16; 2 * LANES]>().cast_const(); PANELS];
                            for p in 0..PANELS {
                                weights[p] = if (at + 1) * TILE_BLOCKS <= k_blocks {
                                    base[p].add(at * TILE_BLOCKS)
                                } else {
                                    padded.add(p).cast()
                                };
                                if few {
                                    prefetch(s, weights[p], at + PREFETCH_TILES < k_tiles, k_blocks);
                                }
                            }
                            let x = x.add(at * TILE_K);
                            tiles.load_weights::<6>(weights[0]);
                            tiles.load_activations::<4>(x, stride);
                            tiles.multiply::<0, 4, 6>();
                            tiles.load_weights::<7>(weights[1]);
                            tiles.multiply::<1, 4, 7>();
                            if two {
                                tiles.load_activations::<5>(x.add(TILE_ROWS * stride), stride);
                                tiles.multiply::<2, 5, 6>();
                                tiles.multiply::<3, 5, 7>();
                            }
                        }
                        tiles.store_sums::<0>(sums, 0);
                        tiles.store_sums::<1>(sums, 1);
                        if two {
                            tiles.store_sums::<2>(sums.add(TILE_ROWS), 0);
                            tiles.store_sums::<3>(sums.add(TILE_ROWS), 1);
                        }
                    }
                }
                args.target.finish((chunk, panel), count, std::slice::from_raw_parts(sums, rows));
                chunk += chunk_rows;
            }
            panel += PANELS;
        }
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
            // SAFETY: the caller promises the instruction; the operand is 64 bytes of a valid configuration.
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
            // SAFETY: configured; the rows are readable by the caller's promise.
            unsafe {
                asm!(
                    "tileloadd tmm{t}, [{sums} + {stride}*1]",
                    t = const T, sums = in(reg) sums.cast::<[f32; LANES]>().add(panel), stride = in(reg) SUMS_STRIDE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize) {
            const { assert!(T <= 3) };
            // SAFETY: configured; the rows are writable by the caller's promise.
            unsafe {
                asm!(
                    "tilestored [{sums} + {stride}*1], tmm{t}",
                    t = const T, sums = in(reg) sums.cast::<[f32; LANES]>().add(panel), stride = in(reg) SUMS_STRIDE,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize) {
            const { assert!(T == 4 || T == 5) };
            // SAFETY: configured; the rows are readable by the caller's promise.
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
            // SAFETY: configured; the blocks are readable by the caller's promise.
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
            // SAFETY: configured; rows and columns of the three tiles fit where T and A are of the same rows, as here.
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
            // SAFETY: configured; the initial state costs context switches nothing.
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
            // SAFETY: the rows are readable by the caller's promise.
            self.sums[T][row] = unsafe { (&*sums.add(row))[panel] };
        }
    }

    unsafe fn store_sums<const T: usize>(&self, sums: *mut Sums, panel: usize) {
        for row in 0..self.rows(T) {
            // SAFETY: the rows are writable by the caller's promise.
            unsafe { (&mut *sums.add(row))[panel] = self.sums[T][row] };
        }
    }

    unsafe fn load_activations<const T: usize>(&mut self, rows: *const u16, stride: usize) {
        for row in 0..self.rows(T) {
            // SAFETY: the rows are readable by the caller's promise.
            self.activations[T - 4][row] = unsafe { rows.add(row * stride).cast::<[u16; TILE_K]>().read() };
        }
    }

    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const [u16; 2 * LANES]) {
        // SAFETY: the blocks are readable by the caller's promise.
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
