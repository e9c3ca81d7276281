//! What the products of all formats have in common: the sizes of their tiles, what is added to sums, and where these go.

use super::simd::LANES;
use super::{Activation, Kernel, KernelSet, Simd};
use crate::memory::SharedMut;

/// Rows of the largest GEMV tile, where there are 32 registers; rows up to which bf16 and f32 products take GEMV.
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

impl<'a> Added<'a> {
    /// Whether there are numbers for all sums of a product `[m, n]`.
    pub(super) fn fits(&self, m: usize, n: usize) -> bool {
        self.first.checked_add(n).is_some_and(|end| end <= self.stride)
            && m.checked_mul(self.stride) == Some(self.values.len())
    }

    /// The terms of `count` columns of a row.
    #[inline(always)]
    fn row(&self, row: usize, column: usize, count: usize) -> &'a [f32] {
        &self.values[row * self.stride + self.first + column..][..count]
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
        match args.target.epilogue.gate {
            None => args.add(s),
            Some(activation) => args.multiply_gates(s, activation),
        }
    }
}

impl FinishArgs<'_> {
    /// A product without a gate.
    #[inline(always)]
    fn add<S: Simd>(&self, s: S) {
        let Epilogue { bias, added, residual, .. } = self.target.epilogue;
        let (columns, column) = (self.panels * LANES, self.panel * LANES);
        for (row, sums) in self.rows() {
            // SAFETY: the columns of this task's panels; there is one slice of them at a time.
            let out = unsafe { self.out(row, column, columns) };
            let bias = bias.map(|bias| &bias[column..][..out.len()]);
            let added = added.map(|added| added.row(row, column, out.len()));
            for (p, (sum, out)) in sums.iter().zip(out.chunks_mut(LANES)).enumerate() {
                let mut sum = s.load(sum);
                if let Some(bias) = bias {
                    sum = s.add(sum, load(s, &bias[p * LANES..], out.len()));
                }
                if let Some(added) = added {
                    sum = s.add(sum, load(s, &added[p * LANES..], out.len()));
                }
                if residual {
                    sum = s.add(sum, load(s, out, out.len()));
                }
                store(s, sum, out);
            }
        }
    }

    /// A gated product: panels of a gate and of its up in turn. Where a tile ends between the two, the gate waits in the place
    /// of the product. All rows of one pair come before the next pair: what a row stores and what it loads again are far apart,
    /// and the exponentials and divisions of several rows overlap.
    #[inline(always)]
    fn multiply_gates<S: Simd>(&self, s: S, activation: Activation) {
        let end = self.panel + self.panels;
        let mut panel = self.panel;
        while panel < end {
            let (column, at) = (panel / 2 * LANES, panel - self.panel);
            let pair = panel.is_multiple_of(2) && panel + 1 < end;
            for (row, sums) in self.rows() {
                // SAFETY: a gate and its up, which share these columns, belong to one task; there is one slice of them at a time.
                let out = unsafe { self.out(row, column, LANES) };
                let first = self.complete(s, row, panel, out.len(), s.load(&sums[at]));
                let value = if pair {
                    let up = self.complete(s, row, panel + 1, out.len(), s.load(&sums[at + 1]));
                    activation.gated(s, first, up)
                } else if panel.is_multiple_of(2) {
                    first
                } else {
                    activation.gated(s, load(s, out, out.len()), first)
                };
                store(s, value, out);
            }
            panel += if pair { 2 } else { 1 };
        }
    }

    /// The rows, and the sums of each.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = (usize, &[[f32; LANES]])> {
        let rows = self.sums.chunks_exact(self.sums_stride);
        (self.row..).zip(rows.map(|sums| &sums[..self.panels]))
    }

    /// Where `count` columns of the product from `column` on go, or as many as there are.
    ///
    /// # Safety
    /// The columns must be those of the panels, and no other slice of them may be in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the contract makes the parts disjoint")]
    unsafe fn out(&self, row: usize, column: usize, count: usize) -> &mut [f32] {
        let Target { out, n, origin_row, origin_column, first, stride, .. } = self.target;
        assert!(column < n, "column {column} of {n}");
        let start = (row - origin_row) * stride + first + column - origin_column;
        // SAFETY: the invariant of `FinishArgs`: no other task has this row and panel; this one has no other slice of them, by
        // the clause above.
        unsafe { out.slice(start, count.min(n - column)) }
    }

    /// A sum of a gated product, with bias and further terms: its first `count` lanes.
    #[inline(always)]
    fn complete<S: Simd>(&self, s: S, row: usize, panel: usize, count: usize, mut sum: S::F32) -> S::F32 {
        let Epilogue { bias, added, .. } = self.target.epilogue;
        if let Some(bias) = bias {
            sum = s.add(sum, load(s, &bias[panel * LANES..], count));
        }
        if let Some(added) = added {
            sum = s.add(sum, load(s, added.row(row, panel * LANES, count), count));
        }
        sum
    }
}

/// The first `count` of at most 16 numbers; whole vectors without a mask.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32], count: usize) -> S::F32 {
    match x.first_chunk() {
        Some(whole) if count == LANES => s.load(whole),
        _ => s.load_partial(&x[..count]),
    }
}

/// As [`load`], to memory.
#[inline(always)]
fn store<S: Simd>(s: S, v: S::F32, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(whole) => s.store(v, whole),
        None => s.store_partial(v, out),
    }
}

/// `rows` in chunks of at most `most`, of nearly equal size, multiples of `mr` except for the last.
#[inline(always)]
pub(super) fn row_chunk(rows: usize, mr: usize, most: usize) -> usize {
    let chunks = rows.div_ceil(most / mr * mr).max(1);
    rows.div_ceil(chunks).next_multiple_of(mr)
}
