//! bf16 or f32 weights, f32 activations and sums: each output element is one FMA chain over ascending k.

use std::ops::Range;

use super::gemm::{CHUNK_ROWS, GEMV_ROWS, Target, row_chunk};
use super::simd::LANES;
use super::{Kernel, Simd};

/// k of a prepared slice: 12 KiB for three panels, which leaves room for eight rows that fall into the same cache sets.
const SLICE_K: usize = 64;
/// How far ahead of its reads the narrow kernel asks for weights, in bytes.
const PREFETCH_BYTES: usize = 3072;

/// A weight type of float panels: a k-block is `BLOCK` consecutive k of 16 columns, 64 bytes.
pub(super) trait FloatWeight: Copy + Send + Sync + 'static {
    /// k of a k-block.
    const BLOCK: usize;
    /// The k-block at `block`: its first and (if `BLOCK` is 2) its second k.
    ///
    /// # Safety
    /// `block` must point to `16 * BLOCK` elements.
    unsafe fn load<S: Simd>(s: S, block: *const Self) -> (S::F32, S::F32);
}

impl FloatWeight for u16 {
    const BLOCK: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, block: *const u16) -> (S::F32, S::F32) {
        // SAFETY: the caller's promise.
        s.load_bf16_pairs(unsafe { &*block.cast() })
    }
}

impl FloatWeight for f32 {
    const BLOCK: usize = 1;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, block: *const f32) -> (S::F32, S::F32) {
        // SAFETY: the caller's promise.
        (s.load(unsafe { &*block.cast() }), s.zero())
    }
}

/// One task. Panels are `[panel][k-block]`.
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

    /// The checks on which the unchecked accesses of the kernels rest.
    fn check(&self) {
        assert!(
            self.x.len() >= self.rows.end * self.k && self.data.len() >= self.panels.end * self.panel_len()
        );
    }
}

/// Few rows: panels are read once, from front to back, and multiplied with up to [`GEMV_ROWS`] rows on the way.
pub(super) struct Gemv<W>(std::marker::PhantomData<W>);
impl<W: FloatWeight> Kernel for Gemv<W> {
    type Args<'a> = FloatArgs<'a, W>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FloatArgs<'_, W>) {
        args.check();
        let mut panel = args.panels.start;
        while panel < args.panels.end {
            // Two panels at a time give the FMA units more independent chains.
            let two = panel + 2 <= args.panels.end;
            let mut row = args.rows.start;
            while row < args.rows.end {
                let count = (args.rows.end - row).min(GEMV_ROWS);
                let count = if count >= 4 { count & !3 } else { 1 };
                // SAFETY: checked above; rows and panels are the task's.
                unsafe {
                    match (count, two) {
                        (8, true) => narrow_tile::<S, W, 8, 2>(s, &args, row, panel),
                        (8, false) => narrow_tile::<S, W, 8, 1>(s, &args, row, panel),
                        (4, true) => narrow_tile::<S, W, 4, 2>(s, &args, row, panel),
                        (4, false) => narrow_tile::<S, W, 4, 1>(s, &args, row, panel),
                        (_, true) => narrow_tile::<S, W, 1, 2>(s, &args, row, panel),
                        (_, false) => narrow_tile::<S, W, 1, 1>(s, &args, row, panel),
                    }
                }
                row += count;
            }
            panel += 1 + usize::from(two);
        }
    }
}

/// `R` rows by `P` panels.
///
/// # Safety
/// `args.check`; rows `row..row + R` and panels `panel..panel + P` must be the task's.
#[inline(always)]
unsafe fn narrow_tile<S: Simd, W: FloatWeight, const R: usize, const P: usize>(
    s: S,
    args: &FloatArgs<'_, W>,
    row: usize,
    panel: usize,
) {
    let (k, panel_len) = (args.k, args.panel_len());
    // SAFETY: `check`: rows have `k` elements, panels `panel_len`. Prefetches may go beyond.
    unsafe {
        let x = args.x.as_ptr().add(row * k);
        let weights = args.data.as_ptr().add(panel * panel_len);
        let mut sums = [[s.zero(); P]; R];
        let mut at = 0;
        while at + W::BLOCK <= k {
            let ahead = at * LANES + PREFETCH_BYTES / size_of::<W>();
            // What comes after the end of a panel is the panel after those that are being read.
            let ahead = if ahead < panel_len { ahead } else { ahead + (P - 1) * panel_len };
            for p in 0..P {
                let block = weights.add(p * panel_len + at * LANES);
                s.prefetch(weights.wrapping_add(p * panel_len + ahead).cast());
                let (first, second) = W::load(s, block);
                for r in 0..R {
                    sums[r][p] = s.fma(first, s.splat(*x.add(r * k + at)), sums[r][p]);
                    if W::BLOCK == 2 {
                        sums[r][p] = s.fma(second, s.splat(*x.add(r * k + at + 1)), sums[r][p]);
                    }
                }
            }
            at += W::BLOCK;
        }
        if at < k {
            for p in 0..P {
                let (first, _) = W::load(s, weights.add(p * panel_len + at * LANES));
                for r in 0..R {
                    sums[r][p] = s.fma(first, s.splat(*x.add(r * k + at)), sums[r][p]);
                }
            }
        }
        args.target.finish_tile(s, (row, panel), args.rows.end, sums);
    }
}

/// Many rows: tiles of `MR` rows by `NP` panels; `MR` must be even.
pub(super) struct Gemm<W, const MR: usize, const NP: usize>(std::marker::PhantomData<W>);
impl<W: FloatWeight, const MR: usize, const NP: usize> Kernel for Gemm<W, MR, NP> {
    type Args<'a> = FloatArgs<'a, W>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FloatArgs<'_, W>) {
        args.check();
        let mut panel = args.panels.start;
        // SAFETY: checked above; the panels are the task's.
        unsafe {
            while panel + NP <= args.panels.end {
                wide_panels::<S, W, MR, NP>(s, &args, panel);
                panel += NP;
            }
            while panel < args.panels.end {
                wide_panels::<S, W, MR, 1>(s, &args, panel);
                panel += 1;
            }
        }
    }
}

/// `[k][panel]`, widened.
#[repr(align(64))]
struct Slice<const NP: usize>([[[f32; LANES]; NP]; SLICE_K]);

/// All rows of the task by `NP` panels.
///
/// # Safety
/// `args.check`; the panels must be the task's.
#[inline(always)]
unsafe fn wide_panels<S: Simd, W: FloatWeight, const MR: usize, const NP: usize>(
    s: S,
    args: &FloatArgs<'_, W>,
    panel: usize,
) {
    let (k, panel_len) = (args.k, args.panel_len());
    let mut slice = Slice([[[0.0; LANES]; NP]; SLICE_K]);
    let mut sums = [[[0.0; LANES]; NP]; CHUNK_ROWS];
    let chunk_rows = row_chunk(args.rows.len(), MR);
    let mut chunk = args.rows.start;
    while chunk < args.rows.end {
        let rows = chunk_rows.min(args.rows.end - chunk);
        for sums in &mut sums[..rows] {
            *sums = [[0.0; LANES]; NP];
        }
        for first in (0..k).step_by(SLICE_K) {
            let count = SLICE_K.min(k - first);
            // SAFETY: `check`: the panels have k padded to `W::BLOCK`, and so does the slice.
            unsafe {
                for p in 0..NP {
                    let from = args.data.as_ptr().add((panel + p) * panel_len + first * LANES);
                    for at in (0..count).step_by(W::BLOCK) {
                        let (even, odd) = W::load(s, from.add(at * LANES));
                        s.store(even, &mut slice.0.get_unchecked_mut(at)[p]);
                        if W::BLOCK == 2 {
                            s.store(odd, &mut slice.0.get_unchecked_mut(at + 1)[p]);
                        }
                    }
                }
            }
            let mut row = 0;
            while row < rows {
                // SAFETY: `check`: the rows have k elements; the tile's rows are below `rows`.
                unsafe {
                    let x = args.x.as_ptr().add((chunk + row) * k + first);
                    let sums = sums.as_mut_ptr().add(row);
                    if row + MR <= rows {
                        wide_tile::<S, MR, NP>(s, &slice, count, x, k, &mut *sums.cast());
                        row += MR;
                    } else if row + 2 <= rows {
                        wide_tile::<S, 2, NP>(s, &slice, count, x, k, &mut *sums.cast());
                        row += 2;
                    } else {
                        wide_tile::<S, 1, NP>(s, &slice, count, x, k, &mut *sums.cast());
                        row += 1;
                    }
                }
            }
        }
        // SAFETY: rows and panels of the task.
        unsafe { args.target.finish((chunk, panel), NP, &sums[..rows]) };
        chunk += chunk_rows;
    }
}

/// `MR` rows by `NP` panels by `count` of k: `sums += `.
///
/// # Safety
/// `x` must point to `MR` rows, `stride` elements apart, of `count` elements; `count` is at most [`SLICE_K`].
#[inline(always)]
unsafe fn wide_tile<S: Simd, const MR: usize, const NP: usize>(
    s: S,
    slice: &Slice<NP>,
    count: usize,
    x: *const f32,
    stride: usize,
    sums: &mut [[[f32; LANES]; NP]; MR],
) {
    // SAFETY: the caller's promises bound every access.
    unsafe {
        let mut totals = [[s.zero(); NP]; MR];
        for r in 0..MR {
            for p in 0..NP {
                totals[r][p] = s.load(&sums[r][p]);
            }
        }
        for at in 0..count {
            let weights = slice.0.get_unchecked(at);
            let mut w = [s.zero(); NP];
            for p in 0..NP {
                w[p] = s.load(&weights[p]);
            }
            for r in 0..MR {
                let a = s.splat(*x.add(r * stride + at));
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
}
