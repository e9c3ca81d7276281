//! int4 x int8 -> int32 inside a group, f32 across groups.
//!
//! As int8, with `code - zero` for the weight. Formats with a minimum keep a second sum and add it in the end:
//! ```text
//! dot[g]  = sum over k of (code_w - zero) * code_x                    exact, int32
//! sum     = fma(f32(dot[g]), scale_x[g] * scale_w[g], sum)            groups ascending, from 0.0
//! low     = fma(f32(sum of code_x) * scale_x[g], min_w[g], low)       likewise; out = sum + low
//! ```
//! Few rows go through a kernel of their own. For many, [`fill`] unpacks slices to int8, and the int8 tiles do the rest.

use std::ops::Range;

use super::gemm::Target;
use super::gemm_int8::tile_panels;
use super::int4::GroupScales;
use super::quantize::Int8Rows;
use super::scale_lines::{ScaleLines, for_scales, row_total};
use super::simd::LANES;
use super::{Kernel, Simd};

/// How far ahead of its reads the narrow kernel asks for weights, in cache lines.
const PREFETCH_LINES: usize = 24;

/// Panels of int4 weights.
#[derive(Clone, Copy)]
pub(super) struct Int4Panels<'a> {
    /// `[panel][line]`
    pub(super) codes: &'a [[u8; 4 * LANES]],
    /// `[panel][line of scales]`
    pub(super) scales: &'a [[u16; LANES]],
    pub(super) kind: GroupScales,
}

/// One task of few rows.
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

    /// The checks on which the unchecked accesses of the kernel rest.
    fn check(&self) {
        let Int8Rows { codes, stride, scales, starts } = self.lhs;
        let (rows, groups) = (self.rows.end, self.groups());
        assert!(self.group >= 8 && self.group.is_multiple_of(8) && stride >= 8 * self.lines);
        assert!(
            codes.len() >= rows * stride && scales.len() >= rows * groups && starts.len() >= rows * groups
        );
        assert!(self.rhs.codes.len() >= self.panels.end * self.lines);
        assert!(self.rhs.scales.len() >= self.panels.end * self.rhs.kind.lines(groups));
    }
}

/// Few rows: every panel is read once from memory, from front to back, and multiplied with up to four rows on the way.
pub(super) struct Gemv;
impl Kernel for Gemv {
    type Args<'a> = Int4Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int4Args<'_>) {
        args.check();
        for_scales!(args.rhs.kind, K => {
            let mut panel = args.panels.start;
            while panel < args.panels.end {
                let panels = tile_panels::<S>(panel..args.panels.end);
                let mut row = args.rows.start;
                while row < args.rows.end {
                    // SAFETY: checked above; the rows and the panels are the task's.
                    row += unsafe { narrow_rows::<S, K>(s, &args, row, panel, panels) };
                }
                panel += panels;
            }
        });
    }
}

/// Up to four rows from `row` by one or two panels; how many rows.
///
/// # Safety
/// As for [`narrow_tile`].
#[inline(always)]
unsafe fn narrow_rows<S: Simd, K: ScaleLines>(
    s: S,
    args: &Int4Args<'_>,
    row: usize,
    panel: usize,
    panels: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        if const { S::REGISTERS >= 32 } && panels == 2 {
            let count = (args.rows.end - row).min(4);
            match count {
                1 => narrow_tile::<S, K, 1, 2>(s, args, row, panel),
                2 => narrow_tile::<S, K, 2, 2>(s, args, row, panel),
                3 => narrow_tile::<S, K, 3, 2>(s, args, row, panel),
                _ => narrow_tile::<S, K, 4, 2>(s, args, row, panel),
            }
            return count;
        }
        // The second time, the panel comes from a cache.
        match args.rows.end - row {
            1 => {
                narrow_tile::<S, K, 1, 1>(s, args, row, panel);
                1
            }
            2 | 3 => {
                narrow_tile::<S, K, 2, 1>(s, args, row, panel);
                2
            }
            _ => {
                narrow_tile::<S, K, 4, 1>(s, args, row, panel);
                4
            }
        }
    }
}

/// `R` rows by `P` panels. Low and high codes have sums of their own (the order of an int32 sum does not matter).
///
/// # Safety
/// `args.check`; rows `row..row + R` and panels `panel..panel + P` must be the task's.
#[inline(always)]
unsafe fn narrow_tile<S: Simd, K: ScaleLines, const R: usize, const P: usize>(
    s: S,
    args: &Int4Args<'_>,
    row: usize,
    panel: usize,
) {
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    let (lines, group_lines, groups) = (args.lines, args.group / 8, args.groups());
    let scale_lines = args.rhs.kind.lines(groups);
    // SAFETY: `check`: a panel has `lines` lines and those of `groups` scales, each row `stride >= 8 * lines` codes and
    // `groups` scales. Prefetches may go beyond.
    unsafe {
        let weights = args.rhs.codes.as_ptr().add(panel * lines);
        let weight_scales = args.rhs.scales.as_ptr().add(panel * scale_lines);
        let codes = codes.as_ptr().add(row * stride);
        let (scales, starts) = (scales.as_ptr().add(row * groups), starts.as_ptr().add(row * groups));
        let mut sums = [[s.zero(); P]; R];
        let mut lows = [[s.zero(); P]; R];
        for g in 0..groups {
            let mut dots = [[[s.splat_i32(0); 2]; P]; R];
            if !K::MIN {
                for r in 0..R {
                    // -128 * sum(code_x) / 128 * ZERO.
                    let start = s.splat_i32((*starts.add(r * groups + g) >> 7) * i32::from(K::ZERO));
                    for p in 0..P {
                        dots[r][p][0] = start;
                    }
                }
            }
            for line in g * group_lines..lines.min((g + 1) * group_lines) {
                for p in 0..P {
                    let w = weights.add(p * lines + line);
                    s.prefetch(w.wrapping_add(PREFETCH_LINES).cast());
                    let w = s.load_u4(&*w);
                    for r in 0..R {
                        let a = codes.add(r * stride + 8 * line);
                        dots[r][p][0] = s.dot4_u4(dots[r][p][0], w.0, s.splat_a4(&*a.cast()));
                        dots[r][p][1] = s.dot4_u4(dots[r][p][1], w.1, s.splat_a4(&*a.add(4).cast()));
                    }
                }
            }
            for p in 0..P {
                let (weight_scale, min) = K::load(s, weight_scales.add(p * scale_lines), g);
                for r in 0..R {
                    let scale = *scales.add(r * groups + g);
                    let dot = s.add_i32(dots[r][p][0], dots[r][p][1]);
                    sums[r][p] = s.fma(s.i32_to_f32(dot), s.mul(s.splat(scale), weight_scale), sums[r][p]);
                    if K::MIN {
                        let total = row_total(scale, *starts.add(r * groups + g));
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
        args.target.finish_tile(s, (row, panel), args.rows.end, sums);
    }
}

/// Unpacks `count` lines of panel codes, less `zero` (wrapping), to int8 k-blocks, every `step` blocks.
///
/// # Safety
/// `from` must point to `count` lines and `to` to `(2 * count - 1) * step + 1` blocks that nobody else uses.
#[inline(always)]
pub(super) unsafe fn fill<S: Simd>(
    s: S,
    zero: i8,
    from: *const [u8; 4 * LANES],
    count: usize,
    to: *mut [i8; 4 * LANES],
    step: usize,
) {
    for line in 0..count {
        // SAFETY: the caller's promises; the two blocks differ.
        unsafe {
            let (low, high) = (to.add(2 * line * step), to.add((2 * line + 1) * step));
            s.unpack_u4(&*from.add(line), zero, &mut *low, &mut *high);
        }
    }
}
