//! The inner loops of int8 tiles of many rows: k-blocks of a slice of weights by some rows of activations.

use std::ops::Range;

use super::Simd;
use super::simd::LANES;
use super::unchecked::array;

/// k-blocks between two tests for the end of a group, where the group has that many.
pub(super) const UNROLL: usize = 4;
/// k-blocks whose products [`Simd::dot4_short`] sums.
const SHORT_BLOCKS: usize = 8;

/// Where the codes of a slice are: k-block `b` of panel `p` is `p * panel_blocks + b` blocks from `first`.
///
/// Invariant, established where they are made: as long as the slice is multiplied, this is valid memory for all its panels and
/// blocks.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub(super) first: *const [i8; 4 * LANES],
    pub(super) panel_blocks: usize,
}

impl Codes {
    /// A k-block of each of `NP` panels. `PREPARED`: codes have the form of [`Simd::prepare_w8`].
    ///
    /// # Safety
    /// The slice must have the block and the panels.
    #[inline(always)]
    unsafe fn blocks<S: Simd, const NP: usize, const PREPARED: bool>(
        self,
        s: S,
        block: usize,
    ) -> [S::W8; NP] {
        // SAFETY: the clause above, for panel 0.
        let mut w = [unsafe { self.block::<S, PREPARED>(s, 0, block) }; NP];
        for p in 1..NP {
            // SAFETY: the clause above, and `p < NP`.
            w[p] = unsafe { self.block::<S, PREPARED>(s, p, block) };
        }
        w
    }

    /// As [`blocks`](Self::blocks), of one panel.
    ///
    /// # Safety
    /// The slice must have the block and the panel.
    #[inline(always)]
    unsafe fn block<S: Simd, const PREPARED: bool>(self, s: S, panel: usize, block: usize) -> S::W8 {
        // SAFETY: the invariant of `Codes`, and the clause above.
        let block = unsafe { &*self.first.wrapping_add(panel * self.panel_blocks + block) };
        if PREPARED { s.load_prepared(block) } else { s.load_w8(block) }
    }
}

/// [`UNROLL`] k-blocks of a tile. `codes`: from those of the slice's first block of the first row on.
///
/// # Safety
/// `block` and the following ones must be of the slice, and `codes` must have `(MR - 1) * stride + 4 * (block + UNROLL)`
/// elements.
#[inline(always)]
pub(super) unsafe fn tile_steps<S: Simd, const MR: usize, const NP: usize, const PREPARED: bool>(
    s: S,
    weights: Codes,
    codes: &[i8],
    stride: usize,
    block: usize,
    mut dots: [[S::I32; NP]; MR],
) -> [[S::I32; NP]; MR] {
    macro_rules! steps {
        ($($i:literal)*) => { $({
            // SAFETY: the clause on `block`.
            let w = unsafe { weights.blocks::<S, NP, PREPARED>(s, block + $i) };
            for r in 0..MR {
                // SAFETY: `r < MR`, and the clause on `codes`.
                let a = unsafe { array(codes, r * stride + 4 * block) };
                for p in 0..NP {
                    dots[r][p] = s.dot4_of::<$i>(dots[r][p], w[p], a);
                }
            }
        })* };
    }
    steps!(0 1 2 3);
    dots
}

/// One k-block of a tile, multiplied by [`Simd::dot4_short`] if `SHORT`. `codes`: from those of the slice's first block of the
/// first row on.
///
/// # Safety
/// `block` must be one of the slice, and `codes` must have `(MR - 1) * stride + 4 * block + 4` elements.
#[inline(always)]
pub(super) unsafe fn tile_step<
    S: Simd,
    const MR: usize,
    const NP: usize,
    const PREPARED: bool,
    const SHORT: bool,
>(
    s: S,
    weights: Codes,
    codes: &[i8],
    stride: usize,
    block: usize,
    mut dots: [[S::I32; NP]; MR],
) -> [[S::I32; NP]; MR] {
    // SAFETY: the clause on `block`.
    let w = unsafe { weights.blocks::<S, NP, PREPARED>(s, block) };
    for r in 0..MR {
        // SAFETY: `r < MR`, and the clause on `codes`.
        let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * block) });
        for p in 0..NP {
            let dot = dots[r][p];
            dots[r][p] = if SHORT { s.dot4_short(dot, w[p], a) } else { s.dot4(dot, w[p], a) };
        }
    }
    dots
}

/// k-blocks `blocks` of a tile, whose codes are unsigned and of four bits, multiplied by [`Simd::dot4_short`]. `codes`: from
/// those of the slice's first block of the first row on.
///
/// # Safety
/// The blocks must be of the slice, and `codes` must have `(MR - 1) * stride + 4 * blocks.end` elements.
#[inline(always)]
pub(super) unsafe fn short_steps<S: Simd, const MR: usize, const NP: usize, const PREPARED: bool>(
    s: S,
    weights: Codes,
    codes: &[i8],
    stride: usize,
    blocks: Range<usize>,
    mut dots: [[S::I32; NP]; MR],
) -> [[S::I32; NP]; MR] {
    let mut block = blocks.start;
    while block < blocks.end {
        let mut shorts = [[s.splat_i32(0); NP]; MR];
        if block + SHORT_BLOCKS <= blocks.end {
            for at in block..block + SHORT_BLOCKS {
                // SAFETY: the clauses above: `at` is one of the blocks.
                shorts =
                    unsafe { tile_step::<S, MR, NP, PREPARED, true>(s, weights, codes, stride, at, shorts) };
            }
        } else {
            for at in block..blocks.end {
                // SAFETY: the clauses above: `at` is one of the blocks.
                shorts =
                    unsafe { tile_step::<S, MR, NP, PREPARED, true>(s, weights, codes, stride, at, shorts) };
            }
        }
        block += SHORT_BLOCKS;
        for r in 0..MR {
            for p in 0..NP {
                dots[r][p] = s.add_short(dots[r][p], shorts[r][p]);
            }
        }
    }
    dots
}
