//! The end of a row: the results of its ranges are merged, and divided by the sum of their weights.

use std::ops::Range;

use super::{State, Tile};
use crate::Kernel;
use crate::memory::SharedMut;
use crate::simd::{LANES, Simd};
use crate::vector::exp2_below;

/// Arguments of [`Merge`].
pub struct MergeArgs<'a> {
    pub(super) tile: Tile<'a>,
    /// The keys of the range whose result is `part`.
    pub(super) keys: Range<usize>,
    pub(super) part: &'a State<'a>,
    pub(super) total: State<'a>,
}

/// Adds the result of a range to that of the ranges before it.
pub struct Merge;
impl Kernel for Merge {
    type Args<'a> = MergeArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: MergeArgs<'_>) {
        let MergeArgs { tile, keys, part, mut total } = args;
        let total = &mut total;
        let stride = tile.stride();
        let tokens = tile.seeing(keys.start, keys.len());
        for row in tokens.start * tile.heads..tokens.end * tile.heads {
            let (ours, theirs) = (total.max[row], part.max[row]);
            let max = if ours > theirs { ours } else { theirs };
            total.max[row] = max;
            let ours = exp2_below(s, s.sub(s.splat(ours), s.splat(max)));
            let theirs = exp2_below(s, s.sub(s.splat(theirs), s.splat(max)));
            let sums = (&mut total.sums[row * LANES..][..LANES], &part.sums[row * LANES..][..LANES]);
            let outs = (&mut total.out[row * stride..][..stride], &part.out[row * stride..][..stride]);
            for (total, part) in [sums, outs] {
                for (total, part) in
                    total.as_chunks_mut::<LANES>().0.iter_mut().zip(part.as_chunks::<LANES>().0)
                {
                    s.store(s.fma(s.load(part), theirs, s.mul(s.load(total), ours)), total);
                }
            }
        }
    }
}

/// Arguments of [`Finish`].
///
/// Invariant, established by `run::attend`, which alone makes them: no other tile has one of the tokens and one of the heads.
pub struct FinishArgs<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) state: &'a State<'a>,
    pub(super) out: &'a SharedMut<'a, f32>,
    /// Where the tile's first row starts in `out`.
    pub(super) start: usize,
    /// From token to token.
    pub(super) out_stride: usize,
}

/// Divides by the sums, and writes the results to `out`.
pub struct Finish;
impl Kernel for Finish {
    type Args<'a> = FinishArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FinishArgs<'_>) {
        let FinishArgs { tile, state, out, start, out_stride } = args;
        for row in 0..tile.rows() {
            let at = start + row / tile.heads * out_stride + row % tile.heads * tile.head_dim;
            // SAFETY: the invariant of `FinishArgs`: the row belongs to this tile alone, and rows do not overlap.
            let out = unsafe { out.slice(at, tile.head_dim) };
            let mut sum = s.splat(s.reduce_add(s.load(&state.sums.as_chunks::<LANES>().0[row])));
            let values = &state.out[row * tile.stride()..][..tile.stride()];
            if let Some(sinks) = tile.sinks {
                // The sink takes part in the sum, and maybe in the maximum, but has no value.
                let (max, sink) = (state.max[row], sinks[row % tile.heads] * std::f32::consts::LOG2_E);
                let top = if max > sink { max } else { sink };
                let ours = exp2_below(s, s.splat(max - top));
                sum = s.fma(sum, ours, exp2_below(s, s.splat(sink - top)));
                sum = s.div(sum, ours);
            }
            for (out, row) in out.chunks_mut(LANES).zip(values.as_chunks::<LANES>().0) {
                s.store_partial(s.div(s.load(row), sum), out);
            }
        }
    }
}
