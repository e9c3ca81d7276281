//! Codes of four and six bits x int8 -> int32 inside a group, f32 across groups.
//!
//! Few rows have a kernel of their own. For many rows, [`NarrowPanels::fill`] unpacks slices to int8, and the int8 tiles do
//! the rest.

use std::marker::PhantomData;
use std::ops::Range;

use super::few_rows::{self, Ahead, FewRows, Line, Reads};
use super::group_scales::GroupScales;
use super::int6;
use super::quantize::Int8Rows;
use super::scale_lines::{ScaleLines, Superblock16Lines, SuperblockLines, for_scales, row_total};
use super::simd::LANES;
use super::target::{Target, TileAt};
use super::unchecked::{array, item};
use super::{Kernel, Simd};

/// Panels of weights in less than eight bits.
#[derive(Clone, Copy)]
pub(super) struct NarrowPanels<'a> {
    /// `[panel][line]`
    pub(super) codes: &'a [Line],
    /// `[panel][line of scales]`, of a [`Panel`](crate::memory::Panel), and so aligned.
    pub(super) scales: &'a [[u16; LANES]],
    pub(super) kind: GroupScales,
    pub(super) width: Width,
}

/// Bits of a code.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Width {
    /// See `int4.rs`.
    Four,
    /// See `int6.rs`.
    Six,
}

impl Width {
    /// k-blocks of int8 panels (four k) that are packed together.
    pub(super) fn k_blocks(self) -> usize {
        match self {
            Width::Four => 2,
            Width::Six => int6::BLOCK / 4,
        }
    }

    /// Lines of as many k-blocks, a multiple of [`k_blocks`](Self::k_blocks).
    pub(super) fn lines(self, k_blocks: usize) -> usize {
        match self {
            Width::Four => k_blocks / 2,
            Width::Six => k_blocks / (int6::BLOCK / 4) * int6::LINES,
        }
    }
}

impl NarrowPanels<'_> {
    /// What is subtracted from a code before it is multiplied.
    pub(super) fn zero(&self) -> i8 {
        match self.width {
            Width::Four => self.kind.zero(),
            Width::Six => int6::zero(self.kind),
        }
    }

    /// Unpacks `blocks` k-blocks from block `first` of all panels on, less `zero` (wrapping), to int8 k-blocks. Both numbers
    /// are multiples of [`Width::k_blocks`].
    ///
    /// # Panics
    /// When the panels do not have them.
    ///
    /// # Safety
    /// `to` must be valid for writes of as many blocks, which nothing else uses meanwhile.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(
        &self,
        s: S,
        zero: i8,
        first: usize,
        blocks: usize,
        to: *mut [i8; 4 * LANES],
    ) {
        let from = &self.codes[self.width.lines(first)..][..self.width.lines(blocks)];
        match self.width {
            Width::Four => {
                for (at, line) in from.iter().enumerate() {
                    // SAFETY: the clause on `to`: block `2 * at` is one of `blocks`.
                    let low = unsafe { written(to.wrapping_add(2 * at)) };
                    // SAFETY: the clause on `to`: block `2 * at + 1` is one of `blocks`, and not that of `low`.
                    let high = unsafe { written(to.wrapping_add(2 * at + 1)) };
                    s.unpack_u4(line, zero, low, high);
                }
            }
            Width::Six => {
                for (at, lines) in from.as_chunks::<{ int6::LINES }>().0.iter().enumerate() {
                    let to = to.wrapping_add(4 * at);
                    // SAFETY: the clause on `to`: block `4 * at` is one of `blocks`.
                    let first = unsafe { written(to) };
                    // SAFETY: the clause on `to`: the block after that one is one of `blocks` too.
                    let second = unsafe { written(to.wrapping_add(1)) };
                    // SAFETY: the clause on `to`: and the block after that one.
                    let third = unsafe { written(to.wrapping_add(2)) };
                    // SAFETY: the clause on `to`: and the block after that one.
                    let fourth = unsafe { written(to.wrapping_add(3)) };
                    s.unpack_u6(lines, zero, [first, second, third, fourth]);
                }
            }
        }
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

/// One task of few rows.
///
/// Invariant, established where `gemm` makes them of `Int8Args`: no other task has one of the rows and one of the panels.
pub(super) struct NarrowArgs<'a> {
    pub(super) lhs: Int8Rows<'a>,
    pub(super) rhs: NarrowPanels<'a>,
    /// k / 4, rounded up to a multiple of [`Width::k_blocks`].
    pub(super) k_blocks: usize,
    /// Weights per group: a multiple of 4 times that.
    pub(super) group: usize,
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) target: Target<'a>,
}

impl NarrowArgs<'_> {
    fn groups(&self) -> usize {
        self.k_blocks.div_ceil(self.group / 4)
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
    type Args<'a> = NarrowArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: NarrowArgs<'_>) {
        match (args.rhs.width, args.rhs.kind) {
            (Width::Four, kind) => {
                for_scales!(kind, K => few_rows::multiply(s, &Task(&args, PhantomData::<(K, Four)>)));
            }
            (Width::Six, GroupScales::Superblock) => {
                few_rows::multiply(s, &Task(&args, PhantomData::<(SuperblockLines, Six)>));
            }
            // There is no other: `Sizes::of`.
            (Width::Six, _) => {
                few_rows::multiply(s, &Task(&args, PhantomData::<(Superblock16Lines, Six)>));
            }
        }
    }
}

/// A [`Width`]: codes that are packed together, a *unit*.
trait Unit {
    /// Lines.
    const LINES: usize;
    /// k.
    const K: usize;
    /// What is subtracted from a code, where four bits have [`ScaleLines::ZERO`] subtracted.
    const ZERO_FACTOR: i32;
    /// The codes in registers.
    type Codes<S: Simd>: Copy;

    /// [`Ahead::prefetch`] of the unit's lines.
    fn prefetch<S: Simd, const P: usize>(s: S, ahead: Ahead<P>, line: usize);
    /// Unpacks the unit that begins with line `line`.
    ///
    /// # Safety
    /// `lines` must have [`LINES`](Self::LINES) from there on.
    unsafe fn load<S: Simd>(s: S, lines: &[Line], line: usize) -> Self::Codes<S>;
    /// Adds the products with activation codes `at..` to two sums.
    ///
    /// # Safety
    /// `codes` must have [`K`](Self::K) from there on.
    unsafe fn dot<S: Simd>(
        s: S,
        sums: [S::I32; 2],
        weights: Self::Codes<S>,
        codes: &[i8],
        at: usize,
    ) -> [S::I32; 2];
}

struct Four;
impl Unit for Four {
    const LINES: usize = 1;
    const K: usize = 8;
    const ZERO_FACTOR: i32 = 1;
    type Codes<S: Simd> = (S::W8, S::W8);

    #[inline(always)]
    fn prefetch<S: Simd, const P: usize>(s: S, ahead: Ahead<P>, line: usize) {
        ahead.prefetch::<S, 1>(s, line);
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, lines: &[Line], line: usize) -> Self::Codes<S> {
        // SAFETY: the clause on `lines`.
        s.load_u4(unsafe { lines.get_unchecked(line) })
    }
    #[inline(always)]
    unsafe fn dot<S: Simd>(
        s: S,
        sums: [S::I32; 2],
        weights: Self::Codes<S>,
        codes: &[i8],
        at: usize,
    ) -> [S::I32; 2] {
        // SAFETY: the clause on `codes`.
        let a: &[i8; 8] = unsafe { array(codes, at) };
        let [low, high] = a.as_chunks::<4>().0 else { unreachable!("two times four codes") };
        [s.dot4_u4(sums[0], weights.0, s.splat_a4(low)), s.dot4_u4(sums[1], weights.1, s.splat_a4(high))]
    }
}

struct Six;
impl Unit for Six {
    const LINES: usize = int6::LINES;
    const K: usize = int6::BLOCK;
    const ZERO_FACTOR: i32 = 4;
    type Codes<S: Simd> = [S::W8; 4];

    #[inline(always)]
    fn prefetch<S: Simd, const P: usize>(s: S, ahead: Ahead<P>, line: usize) {
        ahead.prefetch::<S, { int6::LINES }>(s, line);
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, lines: &[Line], line: usize) -> Self::Codes<S> {
        // SAFETY: the clause on `lines`.
        s.load_u6(unsafe { array(lines, line) })
    }
    #[inline(always)]
    unsafe fn dot<S: Simd>(
        s: S,
        mut sums: [S::I32; 2],
        weights: Self::Codes<S>,
        codes: &[i8],
        at: usize,
    ) -> [S::I32; 2] {
        // SAFETY: the clause on `codes`.
        let a: &[i8; 16] = unsafe { array(codes, at) };
        let a = a.as_chunks::<4>().0;
        for quarter in 0..4 {
            sums[quarter % 2] = s.dot4_u4(sums[quarter % 2], weights[quarter], s.splat_a4(&a[quarter]));
        }
        sums
    }
}

/// `W`: scales and unit.
struct Task<'a, W>(&'a NarrowArgs<'a>, PhantomData<W>);

impl<S: Simd, K: ScaleLines, U: Unit> FewRows<S> for Task<'_, (K, U)> {
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
        self.0.rhs.codes.as_ptr().wrapping_add(panel * FewRows::<S>::lines(self))
    }
    #[inline(always)]
    fn lines(&self) -> usize {
        self.0.rhs.width.lines(self.0.k_blocks)
    }
    #[inline(always)]
    fn multiply<const R: usize, const P: usize, const STEP: usize>(&self, s: S, at: TileAt, ahead: Ahead<P>) {
        multiply::<S, K, U, R, P>(s, self.0, at, ahead);
    }
}

/// `R` rows by `P` panels. There are two sums, of the even and of the odd k-blocks (the order of an int32 sum does not
/// matter).
#[inline(always)]
fn multiply<S: Simd, K: ScaleLines, U: Unit, const R: usize, const P: usize>(
    s: S,
    args: &NarrowArgs<'_>,
    at: TileAt,
    ahead: Ahead<P>,
) {
    let TileAt { row, panel } = at;
    args.check_tile(row..row + R, panel..panel + P);
    let (units, group_units, groups) = (4 * args.k_blocks / U::K, args.group / U::K, args.groups());
    let (lines, scale_lines) = (units * U::LINES, args.rhs.kind.lines(groups));
    // What the unchecked accesses below rest on: slices of exactly these rows and panels.
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    assert!(stride >= U::K * units, "rows of {stride} codes");
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
                // -128 * sum(code_x) / 128 * what is subtracted.
                let start = s.splat_i32((start >> 7) * i32::from(K::ZERO) * U::ZERO_FACTOR);
                for p in 0..P {
                    dots[r][p][0] = start;
                }
            }
        }
        for unit in g * group_units..units.min((g + 1) * group_units) {
            U::prefetch(s, ahead, unit * U::LINES);
            for p in 0..P {
                // SAFETY: `p < P` and `unit < units`; `weights` was sliced to `P * lines`, with `U::LINES` for each unit.
                let w = unsafe { U::load(s, weights, p * lines + unit * U::LINES) };
                for r in 0..R {
                    // SAFETY: `r < R` and `U::K * (unit + 1) <= stride`, as asserted; `codes` was sliced to `R * stride`.
                    dots[r][p] = unsafe { U::dot(s, dots[r][p], w, codes, r * stride + U::K * unit) };
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
    // SAFETY: `check_tile` asserted that rows and panels are the task's, and by the invariant of `NarrowArgs` no other's.
    unsafe { args.target.finish_tile(s, at, sums) };
}
