//! What the products of all formats have in common: the sizes of their tiles, what is added to sums, and where these go.

use std::ops::Range;

use super::simd::LANES;
use super::{Activation, Kernel, KernelSet, Simd};
use crate::memory::SharedMut;

/// Rows up to which the GEMV kernels are used, and rows of their largest tile where there are 32 registers.
pub(super) const GEMV_ROWS: usize = 8;
/// Rows whose sums a GEMM kernel keeps at a time: 24 KiB for three panels.
pub(super) const CHUNK_ROWS: usize = 128;

/// Further terms of the sums: rows with a stride of their own.
#[derive(Clone, Copy)]
pub struct Added<'a> {
    /// `[m, stride]`
    pub values: &'a [f32],
    /// Elements from row to row.
    pub stride: usize,
    /// The column that belongs to the first column of the product (of gated products, to the first of their panels).
    pub first: usize,
}

impl Added<'_> {
    /// Whether there are numbers for all sums of a product `[m, n]`.
    pub(super) fn fits(&self, m: usize, n: usize) -> bool {
        self.first.checked_add(n).is_some_and(|end| end <= self.stride)
            && m.checked_mul(self.stride) == Some(self.values.len())
    }
}

/// What is added to finished sums, or applied to them.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added first.
    pub bias: Option<&'a [f32]>,
    /// Added second.
    pub added: Option<Added<'a>>,
    /// Whether the previous contents of `out` are added last.
    pub residual: bool,
    /// For a matrix of [`PackedMatrix::pack_gated`](super::PackedMatrix::pack_gated): `out` is `activation(gate) * up` of
    /// the sums, after bias and terms, without a residual.
    pub gate: Option<Activation>,
}

/// Where sums go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) out: &'a SharedMut<'a, f32>,
    /// Columns of the whole product, after its gate.
    pub(super) n: usize,
    /// Row of the product that goes to the first row of `out`.
    pub(super) origin_row: usize,
    /// Column of the product that goes to column `first` of `out`.
    pub(super) origin_column: usize,
    /// Column of `out` that `origin_column` goes to.
    pub(super) first: usize,
    /// Columns of `out`.
    pub(super) stride: usize,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) kernels: &'a KernelSet,
}

/// The first row and the first panel of a tile.
#[derive(Clone, Copy)]
pub(super) struct TileAt {
    pub(super) row: usize,
    pub(super) panel: usize,
}

impl Target<'_> {
    /// Adds bias and residual, or applies the gate, and writes the sums to `out`: the first `panels` panels of each row of
    /// `sums`.
    ///
    /// # Panics
    /// When `out` has no place for them.
    ///
    /// # Safety
    /// No other task may have one of the rows and one of the panels.
    #[inline(always)]
    pub(super) unsafe fn finish<const P: usize>(
        &self,
        at: TileAt,
        panels: usize,
        sums: &[[[f32; LANES]; P]],
    ) {
        let TileAt { row, panel } = at;
        self.kernels.finish.call(FinishArgs {
            target: *self,
            row,
            panel,
            panels,
            sums: sums.as_flattened(),
            sums_stride: P,
        });
    }

    /// As [`finish`](Self::finish), with sums in registers.
    ///
    /// # Safety
    /// As [`finish`](Self::finish), for `R` rows and `P` panels from `at` on.
    #[inline(always)]
    pub(super) unsafe fn finish_tile<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        at: TileAt,
        sums: [[S::F32; P]; R],
    ) {
        let mut stored = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            for p in 0..P {
                s.store(sums[r][p], &mut stored[r][p]);
            }
        }
        // SAFETY: the clause above is that of `finish`, for the same rows and panels.
        unsafe { self.finish(at, P, &stored) };
    }
}

/// The epilogue of all products. A kernel of its own, because otherwise every tile of every format would have a copy of it.
pub(super) struct Finish;

/// Arguments of [`Finish`].
///
/// Invariant, established by [`Target::finish`], which alone makes them: no other task has one of the rows and one of the
/// panels.
pub(super) struct FinishArgs<'a> {
    target: Target<'a>,
    row: usize,
    panel: usize,
    panels: usize,
    /// `[rows][sums_stride]`
    sums: &'a [[f32; LANES]],
    sums_stride: usize,
}

impl Kernel for Finish {
    type Args<'a> = FinishArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FinishArgs<'_>) {
        let Target { out, n, origin_row, origin_column, first, stride, epilogue, .. } = args.target;
        let Epilogue { bias, added, residual, gate } = epilogue;
        for (row, sums) in (args.row..).zip(args.sums.chunks_exact(args.sums_stride)) {
            for (panel, sum) in (args.panel..).zip(&sums[..args.panels]) {
                // Of a gated product, the gate's panel comes before up's.
                let column = if gate.is_some() { panel / 2 } else { panel } * LANES;
                assert!(column < n, "panel {panel} of {n} columns");
                let count = LANES.min(n - column);
                let start = (row - origin_row) * stride + first + column - origin_column;
                // SAFETY: the invariant of `FinishArgs`: no other task has this row and panel, and a gate and its up, which
                // share a place in `out`, belong to one task and come one after the other.
                let out = unsafe { out.slice(start, count) };
                let mut sum = s.load(sum);
                if let Some(bias) = bias {
                    sum = s.add(sum, s.load_partial(&bias[panel * LANES..][..count]));
                }
                if let Some(Added { values, stride, first }) = added {
                    let start = row * stride + first + panel * LANES;
                    sum = s.add(sum, s.load_partial(&values[start..start + count]));
                }
                if residual {
                    sum = s.add(sum, s.load_partial(out));
                }
                // The sum of the gate is where the product goes.
                if let Some(activation) = gate
                    && panel % 2 == 1
                {
                    sum = activation.gated(s, s.load_partial(out), sum);
                }
                s.store_partial(sum, out);
            }
        }
    }
}

/// `rows` in chunks of at most [`CHUNK_ROWS`], of nearly equal size, multiples of `mr` except for the last.
#[inline(always)]
pub(super) fn row_chunk(rows: usize, mr: usize) -> usize {
    let chunks = rows.div_ceil(CHUNK_ROWS / mr * mr).max(1);
    rows.div_ceil(chunks).next_multiple_of(mr)
}

/// Panels of the next tile: two where there are registers for them.
#[inline(always)]
pub(super) fn tile_panels<S: Simd>(panels: Range<usize>) -> usize {
    if S::REGISTERS >= 32 && panels.len() >= 2 { 2 } else { 1 }
}
