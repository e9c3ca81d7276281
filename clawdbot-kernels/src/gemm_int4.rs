//! int4 x int8 -> int32 inside a group, f32 across groups.
//!
//! As int8, with `code - zero` for the weight. Formats with a minimum keep a second sum and add it at the end:
//! ```text
//! dot[g]  = sum over k of (code_w - zero) * code_x                    exact, int32
//! sum     = fma(f32(dot[g]), scale_x[g] * scale_w[g], sum)            groups ascending, from 0.0
//! low     = fma(f32(sum of code_x) * scale_x[g], min_w[g], low)       likewise; out = sum + low
//! ```
//! Few rows have a kernel of their own. For many rows, [`fill`] unpacks slices to int8, and the int8 tiles do the rest.

use std::marker::PhantomData;
use std::ops::Range;

use super::few_rows::{self, Ahead, FewRows, Line, Reads};
use super::group_scales::GroupScales;
use super::quantize::Int8Rows;
use super::scale_lines::{ScaleLines, for_scales, row_total};
use super::simd::LANES;
use super::target::{Target, TileAt};
use super::unchecked::{array, item};
use super::{Kernel, Simd};

/// Panels of int4 weights.
#[derive(Clone, Copy)]
pub(super) struct Int4Panels<'a> {
    /// `[panel][line]`
    pub(super) codes: &'a [[u8; 4 * LANES]],
    /// `[panel][line of scales]`, of a [`Panel`](crate::memory::Panel), and so aligned.
    pub(super) scales: &'a [[u16; LANES]],
    pub(super) kind: GroupScales,
}

/// One task of few rows.
///
/// Invariant, established where `gemm` makes them of `Int8Args`: no other task has one of the rows and one of the panels.
pub(super) struct Int4Args<'a> {
    pub(super) lhs: Int8Rows<'a>,
    pub(super) rhs: Int4Panels<'a>,
    /// Lines of a panel: k / 8, rounded up.
    pub(super) lines: usize,
    /// Weights per group: a multiple of 8.
    pub(super) group: usize,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) target: Target<'a>,
}

impl Int4Args<'_> {
    fn groups(&self) -> usize {
        self.lines.div_ceil(self.group / 8)
    }

    /// Asserts that a tile of `rows` by `panels` is inside of the task.
    #[inline(always)]
    fn check_tile(&self, rows: Range<usize>, panels: Range<usize>) {
        assert!(rows.start >= self.rows.start && rows.end <= self.rows.end, "rows of a task");
        assert!(panels.start >= self.panels.start && panels.end <= self.panels.end, "panels of a task");
    }
}

/// Few rows.
pub(super) struct Gemv;
impl Kernel for Gemv {
    type Args<'a> = Int4Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int4Args<'_>) {
        for_scales!(args.rhs.kind, K => few_rows::multiply(s, &Task(&args, PhantomData::<K>)));
    }
}

struct Task<'a, K>(&'a Int4Args<'a>, PhantomData<K>);

impl<S: Simd, K: ScaleLines> FewRows<S> for Task<'_, K> {
    const PAIRS: bool = false;
    #[inline(always)]
    fn reads(&self) -> Reads {
        // Unpacking is a part of the work: several rows are faster by one panel.
        if self.0.rows.len() > 1 { Reads::OnePanel } else { Reads::of_this_cpu() }
    }
    #[inline(always)]
    fn rows(&self) -> Range<usize> {
        self.0.rows.clone()
    }
    #[inline(always)]
    fn panels(&self) -> Range<usize> {
        self.0.panels.clone()
    }
    #[inline(always)]
    fn panel(&self, panel: usize) -> *const Line {
        self.0.rhs.codes.as_ptr().wrapping_add(panel * self.0.lines)
    }
    #[inline(always)]
    fn lines(&self) -> usize {
        self.0.lines
    }
    #[inline(always)]
    fn multiply<const R: usize, const P: usize, const U: usize>(&self, s: S, at: TileAt, ahead: Ahead<P>) {
        multiply::<S, K, R, P>(s, self.0, at, ahead);
    }
}

/// `R` rows by `P` panels. Low and high codes have sums of their own (the order of an int32 sum does not matter).
#[inline(always)]
fn multiply<S: Simd, K: ScaleLines, const R: usize, const P: usize>(
    s: S,
    args: &Int4Args<'_>,
    at: TileAt,
    ahead: Ahead<P>,
) {
    let TileAt { row, panel } = at;
    args.check_tile(row..row + R, panel..panel + P);
    let (lines, group_lines, groups) = (args.lines, args.group / 8, args.groups());
    let scale_lines = args.rhs.kind.lines(groups);
    // What the unchecked accesses below rest on: slices of exactly these rows and panels.
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    assert!(stride >= 8 * lines, "rows of {stride} codes");
    let codes = &codes[row * stride..][..R * stride];
    let scales = &scales[row * groups..][..R * groups];
    let starts = &starts[row * groups..][..R * groups];
    let weights = &args.rhs.codes[panel * lines..][..P * lines];
    let mut weight_scales = [&args.rhs.scales[panel * scale_lines..][..P * scale_lines]; P];
    for p in 1..P {
        weight_scales[p] = &weight_scales[0][p * scale_lines..];
    }
    let mut sums = [[s.zero(); P]; R];
    let mut lows = [[s.zero(); P]; R];
    for g in 0..groups {
        let mut dots = [[[s.splat_i32(0); 2]; P]; R];
        if !K::MIN {
            for r in 0..R {
                // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                let start = unsafe { item(starts, r * groups + g) };
                // -128 * sum(code_x) / 128 * ZERO.
                let start = s.splat_i32((start >> 7) * i32::from(K::ZERO));
                for p in 0..P {
                    dots[r][p][0] = start;
                }
            }
        }
        for line in g * group_lines..lines.min((g + 1) * group_lines) {
            ahead.prefetch::<S, 1>(s, line);
            for p in 0..P {
                // SAFETY: `p < P` and `line < lines`; `weights` was sliced to `P * lines`.
                let w = s.load_u4(unsafe { weights.get_unchecked(p * lines + line) });
                for r in 0..R {
                    // SAFETY: `r < R` and `8 * line + 8 <= stride`, as asserted; `codes` was sliced to `R * stride`.
                    let a: &[i8; 8] = unsafe { array(codes, r * stride + 8 * line) };
                    let [low, high] = a.as_chunks::<4>().0 else { unreachable!("two times four codes") };
                    dots[r][p][0] = s.dot4_u4(dots[r][p][0], w.0, s.splat_a4(low));
                    dots[r][p][1] = s.dot4_u4(dots[r][p][1], w.1, s.splat_a4(high));
                }
            }
        }
        for p in 0..P {
            // SAFETY: `g < groups`; `weight_scales[p]` was sliced to the lines of `groups` groups, of a `Panel` and so aligned.
            let (weight_scale, min) = unsafe { K::load(s, weight_scales[p], g) };
            for r in 0..R {
                // SAFETY: `r < R` and `g < groups`; `scales` was sliced to `R * groups`.
                let scale = unsafe { item(scales, r * groups + g) };
                let dot = s.add_i32(dots[r][p][0], dots[r][p][1]);
                sums[r][p] = s.fma(s.i32_to_f32(dot), s.mul(s.splat(scale), weight_scale), sums[r][p]);
                if K::MIN {
                    // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                    let total = row_total(scale, unsafe { item(starts, r * groups + g) });
                    lows[r][p] = s.fma(s.splat(total), min, lows[r][p]);
                }
            }
        }
    }
    if K::MIN {
        for r in 0..R {
            for p in 0..P {
                sums[r][p] = s.add(sums[r][p], lows[r][p]);
            }
        }
    }
    // SAFETY: `check_tile` asserted that rows and panels are the task's, and by the invariant of `Int4Args` no other's.
    unsafe { args.target.finish_tile(s, at, sums) };
}

/// Unpacks lines of panel codes, less `zero` (wrapping), to int8 k-blocks, every `step` blocks.
///
/// # Safety
/// `to` must be valid for writes of `(2 * from.len() - 1) * step + 1` blocks that nothing else uses meanwhile; `step` must
/// not be 0.
#[inline(always)]
pub(super) unsafe fn fill<S: Simd>(
    s: S,
    zero: i8,
    from: &[[u8; 4 * LANES]],
    to: *mut [i8; 4 * LANES],
    step: usize,
) {
    for (at, line) in from.iter().enumerate() {
        // SAFETY: the clause on `to`: block `2 * at * step` is among those that may be written.
        let low = unsafe { written(to.wrapping_add(2 * at * step)) };
        // SAFETY: as for `low`; it is another block, because `step` is not 0.
        let high = unsafe { written(to.wrapping_add((2 * at + 1) * step)) };
        s.unpack_u4(line, zero, low, high);
    }
}

/// A block that may not have been initialised. (Compilers drop these zeros, which are written again at once.)
///
/// # Safety
/// `block` must be valid for writes, and nothing else may use it while the result lives.
#[inline(always)]
unsafe fn written<'a>(block: *mut [i8; 4 * LANES]) -> &'a mut [i8; 4 * LANES] {
    // SAFETY: the clause on `block`.
    unsafe { block.write([0; 4 * LANES]) };
    // SAFETY: the clause on `block`, which is initialised now.
    unsafe { &mut *block }
}
