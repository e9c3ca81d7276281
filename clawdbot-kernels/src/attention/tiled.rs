//! int8 pages with tile registers, for many rows: 16 rows x 16 keys x 64 dimensions at a time, and 16 rows x 16
//! dimensions x 64 keys. The integers are the same as in `int8.rs`, and so are the bits.

use std::marker::PhantomData;
use std::ops::Range;

use super::int8::{BLOCK, HeadParts, VALUE_BLOCKS};
use super::{AttendRange, Int8, Int8Head, Int8Page, KvKind, MAX_ROWS, RangeArgs, Tile, VECTORS, Work};
use super::{KEY_GROUP, PAGE_TOKENS};
use crate::Kernel;
use crate::simd::{LANES, Simd};
use crate::tiles::{SumTile, TILE_ROWS, Tiles};

/// Fewest rows that are worth a tile.
const MANY_ROWS: usize = 12;
/// k-blocks of both products: a group of dimensions, or a page of keys.
const K_BLOCKS: usize = VALUE_BLOCKS;
const _: () = assert!(K_BLOCKS * 4 == KEY_GROUP && VECTORS == 4);

/// [`AttendRange`] of int8 pages, many rows with tiles. Used only in kernel sets whose `detected` in `isa.rs` asks for the
/// tiles, and after the system permitted them (and in tests, with a model of them that needs neither).
pub(crate) struct AttendTiled<T>(PhantomData<T>);
impl<T: Tiles + Send + Sync + 'static> Kernel for AttendTiled<T> {
    type Args<'a> = RangeArgs<'a, Int8>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: RangeArgs<'_, Int8>) {
        let RangeArgs { tile, pages, first_page, work, state } = args;
        // The tiles are configured for whole groups.
        if tile.head_dim.is_multiple_of(KEY_GROUP) && tile.rows() >= MANY_ROWS {
            AttendRange::<Tiled<T>>::run(s, RangeArgs { tile, pages, first_page, work, state });
        } else {
            AttendRange::<Int8>::run(s, RangeArgs { tile, pages, first_page, work, state });
        }
    }
}

/// [`Int8`], with products on tiles. Used by [`AttendTiled`] alone.
struct Tiled<T>(PhantomData<T>);

impl<T: Tiles + Send + Sync + 'static> KvKind for Tiled<T> {
    type Page<'a> = Int8Page<'a>;
    type HeadMut<'a> = Int8Head<'a>;

    fn shorten<'s, 'l: 's>(page: Int8Page<'l>) -> Int8Page<'s> {
        page
    }

    #[inline(always)]
    fn queries<S: Simd>(s: S, tile: &Tile<'_>, work: &mut Work<'_>, scales: &mut [f32; MAX_ROWS]) {
        Int8::queries(s, tile, work, scales);
    }

    #[inline(always)]
    fn scores<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        rows: Range<usize>,
        _: usize,
        work: &mut Work<'_>,
    ) {
        let HeadParts { keys, key_scales, .. } = page.head(tile);
        let (stride, k_blocks) = (tile.stride(), tile.head_dim / 4);
        assert!(rows.end <= MAX_ROWS && work.scores.len() >= MAX_ROWS * PAGE_TOKENS);
        assert!(work.query_codes.len() >= (rows.end + TILE_ROWS - 1) * stride);
        // SAFETY: the CPU has the tiles, see `AttendTiled`; the value is dropped before `scores` or `values` makes another.
        let mut tiles = unsafe { T::configure(K_BLOCKS) };
        let mut sums = [[[0; LANES]; TILE_ROWS]; VECTORS];
        for group in 0..tile.head_dim / KEY_GROUP {
            let block = group * K_BLOCKS;
            let scales = &key_scales.as_chunks::<LANES>().0[group * VECTORS..][..VECTORS];
            let panel = |v: usize| &keys[(v * k_blocks + block) * BLOCK..][..K_BLOCKS * BLOCK];
            load_weights(&mut tiles, [0, 1, 2, 3].map(panel));
            for first in rows.clone().step_by(TILE_ROWS) {
                let codes = work.query_codes[first * stride + group * KEY_GROUP..].as_ptr();
                // SAFETY: the assert: there are 15 rows of codes after the last, so 16 from each row on, and the group is one of
                // `stride` elements.
                unsafe { tiles.load_activations(codes, stride) };
                multiply(&mut tiles, &mut sums);
                for row in first..rows.end.min(first + TILE_ROWS) {
                    let scores = &mut work.scores.as_chunks_mut::<LANES>().0[row * VECTORS..][..VECTORS];
                    for v in 0..VECTORS {
                        let dot = s.i32_to_f32(s.load_i32(&sums[v][row - first]));
                        let scale = s.load(&scales[v]);
                        let sum =
                            if group > 0 { s.fma(dot, scale, s.load(&scores[v])) } else { s.mul(dot, scale) };
                        s.store(sum, &mut scores[v]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        row: usize,
        visible: Range<usize>,
        p: [S::F32; VECTORS],
        work: &mut Work<'_>,
    ) {
        Int8::weights(s, tile, page, row, visible, p, work);
    }

    #[inline(always)]
    fn encode<S: Simd>(s: S, rows: Range<usize>, work: &mut Work<'_>) {
        Int8::encode(s, rows, work);
    }

    #[inline(always)]
    fn values<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        rows: Range<usize>,
        _: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
    ) {
        let values = page.head(tile).values;
        let stride = tile.stride();
        assert!(rows.end <= MAX_ROWS && work.weight_codes.len() >= (2 * MAX_ROWS + TILE_ROWS) * PAGE_TOKENS);
        // SAFETY: the CPU has the tiles, see `AttendTiled`; the value is dropped before `scores` or `values` makes another.
        let mut tiles = unsafe { T::configure(K_BLOCKS) };
        let mut sums = [[[[0; LANES]; TILE_ROWS]; VECTORS]; 2];
        for group in 0..tile.head_dim / KEY_GROUP {
            let panel =
                |v: usize| &values[(group * VECTORS + v) * VALUE_BLOCKS * BLOCK..][..VALUE_BLOCKS * BLOCK];
            load_weights(&mut tiles, [0, 1, 2, 3].map(panel));
            for first in rows.clone().step_by(TILE_ROWS) {
                for half in 0..2 {
                    let codes = work.weight_codes[(half * MAX_ROWS + first) * PAGE_TOKENS..].as_ptr();
                    // SAFETY: the assert: there are 16 rows of codes after those of both halves, so 16 from each row on.
                    unsafe { tiles.load_activations(codes, PAGE_TOKENS) };
                    multiply(&mut tiles, &mut sums[half]);
                }
                for row in first..rows.end.min(first + TILE_ROWS) {
                    let (factor, rescale) = (s.splat(work.factors[row]), s.splat(work.rescale[row]));
                    let at = (row * stride + group * KEY_GROUP) / LANES;
                    let out = &mut out.as_chunks_mut::<LANES>().0[at..][..VECTORS];
                    for v in 0..VECTORS {
                        let (high, low) = (&sums[0][v][row - first], &sums[1][v][row - first]);
                        let dot = s.add_i32(s.times_128_i32(s.load_i32(high)), s.load_i32(low));
                        let old = s.mul(s.load(&out[v]), rescale);
                        s.store(s.fma(s.i32_to_f32(dot), factor, old), &mut out[v]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn write<S: Simd>(s: S, head: &mut Int8Head<'_>, slot: usize, key: &[f32], value: &[f32]) {
        Int8::write(s, head, slot, key, value);
    }
}

/// Loads four panels of [`K_BLOCKS`] blocks.
///
/// # Panics
/// When one is shorter.
#[inline(always)]
fn load_weights<T: Tiles>(tiles: &mut T, panels: [&[i8]; VECTORS]) {
    assert!(panels.iter().all(|panel| panel.len() >= K_BLOCKS * BLOCK), "panels of {K_BLOCKS} blocks");
    // SAFETY: the assert: the panel has as many blocks as the tiles are configured for.
    unsafe { tiles.load_weights::<3>(panels[0].as_ptr()) };
    // SAFETY: the assert: the panel has as many blocks as the tiles are configured for.
    unsafe { tiles.load_weights::<4>(panels[1].as_ptr()) };
    // SAFETY: the assert: the panel has as many blocks as the tiles are configured for.
    unsafe { tiles.load_weights::<5>(panels[2].as_ptr()) };
    // SAFETY: the assert: the panel has as many blocks as the tiles are configured for.
    unsafe { tiles.load_weights::<6>(panels[3].as_ptr()) };
}

/// The products of the loaded activations and the four loaded panels.
#[inline(always)]
fn multiply<T: Tiles>(tiles: &mut T, sums: &mut [SumTile; VECTORS]) {
    tiles.zero::<0>();
    tiles.multiply::<0, 3>();
    tiles.zero::<1>();
    tiles.multiply::<1, 4>();
    tiles.zero::<2>();
    tiles.multiply::<2, 5>();
    tiles.store::<0>(&mut sums[0]);
    tiles.zero::<0>();
    tiles.multiply::<0, 6>();
    tiles.store::<1>(&mut sums[1]);
    tiles.store::<2>(&mut sums[2]);
    tiles.store::<0>(&mut sums[3]);
}
