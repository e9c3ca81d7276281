//! bf16 or f32 weights, f32 activations and sums: each output element is one FMA chain over ascending k.

use std::ops::Range;

use super::simd::LANES;
use super::target::{CHUNK_ROWS, GEMV_ROWS, Target, TileAt, row_chunk};
use super::unchecked::{array, item};
use super::{Kernel, Simd};

/// k of a prepared slice: 12 KiB for three panels, which leaves room for eight rows that fall into the same cache sets.
const SLICE_K: usize = 64;
/// How far ahead of its reads the GEMV kernel asks for weights, in bytes.
const PREFETCH_BYTES: usize = 3072;

/// A weight type of float panels: a k-block is `BLOCK` consecutive k of 16 columns, 64 bytes.
pub(super) trait FloatWeight: Copy + Send + Sync + 'static {
    /// k of a k-block.
    const BLOCK: usize;
    /// The k-block at `at`: its first and (if `BLOCK` is 2) its second k.
    ///
    /// # Safety
    /// `data` must have `16 * BLOCK` elements from `at` on.
    unsafe fn load<S: Simd>(s: S, data: &[Self], at: usize) -> (S::F32, S::F32);
}

impl FloatWeight for u16 {
    const BLOCK: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, data: &[u16], at: usize) -> (S::F32, S::F32) {
        // SAFETY: the clause on `data`, with a `BLOCK` of 2.
        s.load_bf16_pairs(unsafe { array(data, at) })
    }
}

impl FloatWeight for f32 {
    const BLOCK: usize = 1;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, data: &[f32], at: usize) -> (S::F32, S::F32) {
        // SAFETY: the clause on `data`, with a `BLOCK` of 1.
        (s.load(unsafe { array(data, at) }), s.zero())
    }
}

/// One task. Panels are `[panel][k-block]`.
///
/// Invariant, established by `gemm_columns`: no other task has one of the rows and one of the panels.
pub(super) struct FloatArgs<'a, W> {
    /// `[m, k]`.
    pub(super) x: &'a [f32],
    pub(super) data: &'a [W],
    pub(super) k: usize,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) target: Target<'a>,
}

impl<W: FloatWeight> FloatArgs<'_, W> {
    /// Elements of a panel.
    fn panel_len(&self) -> usize {
        self.k.next_multiple_of(W::BLOCK) * LANES
    }

    /// Asserts that a tile of `rows` by `panels` is inside of the task.
    #[inline(always)]
    fn check_tile(&self, rows: Range<usize>, panels: Range<usize>) {
        assert!(rows.start >= self.rows.start && rows.end <= self.rows.end, "rows of a task");
        assert!(panels.start >= self.panels.start && panels.end <= self.panels.end, "panels of a task");
    }
}

/// Few rows: panels are read from front to back, once from memory. Each is multiplied with up to [`GEMV_ROWS`] rows, on CPUs
/// with few registers with four rows at a time; the second time, the panel comes from a cache.
pub(super) struct Gemv<W>(std::marker::PhantomData<W>);
impl<W: FloatWeight> Kernel for Gemv<W> {
    type Args<'a> = FloatArgs<'a, W>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FloatArgs<'_, W>) {
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            // Two panels at a time give the FMA units more independent chains. With few registers, the sums of one panel
            // and four rows are all that stay in them.
            let many = const { S::REGISTERS >= 32 };
            let two = panel + 2 <= args.panels.end && (many || args.rows.len() < 4);
            let mut row = args.rows.start;
            while row < args.rows.end {
                let count = match args.rows.end - row {
                    GEMV_ROWS.. if many => GEMV_ROWS,
                    4.. => 4,
                    _ => 1,
                };
                match (count, two) {
                    (GEMV_ROWS, true) => gemv_tile::<S, W, GEMV_ROWS, 2>(s, &args, row, panel),
                    (GEMV_ROWS, false) => gemv_tile::<S, W, GEMV_ROWS, 1>(s, &args, row, panel),
                    (4, true) => gemv_tile::<S, W, 4, 2>(s, &args, row, panel),
                    (4, false) => gemv_tile::<S, W, 4, 1>(s, &args, row, panel),
                    (_, true) => gemv_tile::<S, W, 1, 2>(s, &args, row, panel),
                    (_, false) => gemv_tile::<S, W, 1, 1>(s, &args, row, panel),
                }
                row += count;
            }
            panel += 1 + usize::from(two);
        }
    }
}

/// `R` rows by `P` panels.
#[inline(always)]
fn gemv_tile<S: Simd, W: FloatWeight, const R: usize, const P: usize>(
    s: S,
    args: &FloatArgs<'_, W>,
    row: usize,
    panel: usize,
) {
    args.check_tile(row..row + R, panel..panel + P);
    let (k, panel_len) = (args.k, args.panel_len());
    // What the unchecked accesses below rest on: slices of exactly these rows and panels.
    let x = &args.x[row * k..][..R * k];
    let weights = &args.data[panel * panel_len..][..P * panel_len];
    let mut sums = [[s.zero(); P]; R];
    let mut at = 0;
    while at + W::BLOCK <= k {
        let ahead = at * LANES + PREFETCH_BYTES / size_of::<W>();
        // What comes after the end of a panel is the panel after those that are being read.
        let ahead = if ahead < panel_len { ahead } else { ahead + (P - 1) * panel_len };
        for p in 0..P {
            s.prefetch(weights.as_ptr().wrapping_add(p * panel_len + ahead).cast());
            // SAFETY: `p < P` and `at + BLOCK <= k`; `weights` was sliced to `P` panels of k padded to `BLOCK` times 16.
            let (first, second) = unsafe { W::load(s, weights, p * panel_len + at * LANES) };
            for r in 0..R {
                // SAFETY: `r < R` and `at < k`; `x` was sliced to `R * k`.
                let a = s.splat(unsafe { item(x, r * k + at) });
                sums[r][p] = s.fma(first, a, sums[r][p]);
                if W::BLOCK == 2 {
                    // SAFETY: `r < R` and `at + BLOCK <= k`; `x` was sliced to `R * k`.
                    let a = s.splat(unsafe { item(x, r * k + at + 1) });
                    sums[r][p] = s.fma(second, a, sums[r][p]);
                }
            }
        }
        at += W::BLOCK;
    }
    if at < k {
        for p in 0..P {
            // SAFETY: `p < P` and `at < k`; `weights` was sliced to `P` panels of k padded to `BLOCK` times 16.
            let (first, _) = unsafe { W::load(s, weights, p * panel_len + at * LANES) };
            for r in 0..R {
                // SAFETY: `r < R` and `at < k`; `x` was sliced to `R * k`.
                let a = s.splat(unsafe { item(x, r * k + at) });
                sums[r][p] = s.fma(first, a, sums[r][p]);
            }
        }
    }
    // SAFETY: `check_tile` asserted that rows and panels are the task's, and by the invariant of `FloatArgs` no other's.
    unsafe { args.target.finish_tile(s, TileAt { row, panel }, sums) };
}

/// Many rows: tiles of `MR` rows by `NP` panels; `MR` must be even.
pub(super) struct Gemm<W, const MR: usize, const NP: usize>(std::marker::PhantomData<W>);
impl<W: FloatWeight, const MR: usize, const NP: usize> Kernel for Gemm<W, MR, NP> {
    type Args<'a> = FloatArgs<'a, W>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FloatArgs<'_, W>) {
        let mut panel = args.panels.start;
        while panel + NP <= args.panels.end {
            rows_by_panels::<S, W, MR, NP>(s, &args, panel);
            panel += NP;
        }
        while panel < args.panels.end {
            rows_by_panels::<S, W, MR, 1>(s, &args, panel);
            panel += 1;
        }
    }
}

/// `[k][panel]`, widened.
#[repr(align(64))]
struct Slice<const NP: usize>([[[f32; LANES]; NP]; SLICE_K]);

/// All rows of the task by `NP` panels.
#[inline(always)]
fn rows_by_panels<S: Simd, W: FloatWeight, const MR: usize, const NP: usize>(
    s: S,
    args: &FloatArgs<'_, W>,
    panel: usize,
) {
    args.check_tile(args.rows.clone(), panel..panel + NP);
    let (k, panel_len) = (args.k, args.panel_len());
    let mut slice = Slice([[[0.0; LANES]; NP]; SLICE_K]);
    let mut sums = [[[0.0; LANES]; NP]; CHUNK_ROWS];
    let chunk_rows = row_chunk(args.rows.len(), MR, CHUNK_ROWS);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows] {
            *sums = [[0.0; LANES]; NP];
        }
        for first in (0..k).step_by(SLICE_K) {
            let count = SLICE_K.min(k - first);
            let padded = count.next_multiple_of(W::BLOCK);
            for p in 0..NP {
                let from = &args.data[(panel + p) * panel_len + first * LANES..][..padded * LANES];
                for at in (0..count).step_by(W::BLOCK) {
                    // SAFETY: `at + BLOCK <= padded`; `from` was sliced to `padded * 16`.
                    let (even, odd) = unsafe { W::load(s, from, at * LANES) };
                    s.store(even, &mut slice.0[at][p]);
                    if W::BLOCK == 2 {
                        s.store(odd, &mut slice.0[at + 1][p]);
                    }
                }
            }
            let mut row = 0;
            while row < rows {
                let (x, sums) = (&args.x[(chunk + row) * k + first..], &mut sums[row..]);
                if row + MR <= rows {
                    tile::<S, MR, NP>(s, &slice, count, x, k, sums);
                    row += MR;
                } else if row + 2 <= rows {
                    tile::<S, 2, NP>(s, &slice, count, x, k, sums);
                    row += 2;
                } else {
                    tile::<S, 1, NP>(s, &slice, count, x, k, sums);
                    row += 1;
                }
            }
        }
        // SAFETY: the rows are `args.rows`, and `check_tile` asserted that the panels are the task's: by the invariant of
        // `FloatArgs` no other's.
        unsafe { args.target.finish(TileAt { row: chunk, panel }, NP, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// `MR` rows by `NP` panels by `count` of k: `sums += `. `x`: from the first row's first element on, rows `stride` apart.
///
/// # Panics
/// When `x` or `sums` does not have `MR` rows, or `count` is above [`SLICE_K`].
#[inline(always)]
fn tile<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    count: usize,
    x: &[f32],
    stride: usize,
    sums: &mut [[[f32; LANES]; NP]],
) {
    // What the unchecked accesses below rest on.
    let (weights, x) = (&slice.0[..count], &x[..(MR - 1) * stride + count]);
    let sums = sums.first_chunk_mut::<MR>().expect("sums of all rows");
    let mut totals = [[s.zero(); NP]; MR];
    for r in 0..MR {
        for p in 0..NP {
            totals[r][p] = s.load(&sums[r][p]);
        }
    }
    for (at, weights) in weights.iter().enumerate() {
        let mut w = [s.zero(); NP];
        for p in 0..NP {
            w[p] = s.load(&weights[p]);
        }
        for r in 0..MR {
            // SAFETY: `r < MR` and `at < count`; `x` was sliced to `(MR - 1) * stride + count`.
            let a = s.splat(unsafe { item(x, r * stride + at) });
            for p in 0..NP {
                totals[r][p] = s.fma(w[p], a, totals[r][p]);
            }
        }
    }
    for r in 0..MR {
        for p in 0..NP {
            s.store(totals[r][p], &mut sums[r][p]);
        }
    }
}
