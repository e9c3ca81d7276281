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
use super::int4::{Int4Scales, super_lines};
use super::quantize::Int8Rows;
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
    pub(super) kind: Int4Scales,
}

/// One kind of [`Int4Scales`].
pub(super) trait ScaleLines {
    /// Whether there are minima.
    const MIN: bool;
    /// Subtracted from codes.
    const ZERO: i8;
    /// Scales and minima (or zeros) of group `g`.
    ///
    /// # Safety
    /// `lines` must point to the lines of at least `g + 1` groups.
    unsafe fn load<S: Simd>(s: S, lines: *const [u16; LANES], g: usize) -> (S::F32, S::F32);
}

macro_rules! scale_lines {
    ($name:ident, $min:literal, $zero:literal, |$s:ident, $lines:ident, $g:ident| $body:expr) => {
        pub(super) struct $name;
        impl ScaleLines for $name {
            const MIN: bool = $min;
            const ZERO: i8 = $zero;
            #[inline(always)]
            unsafe fn load<S: Simd>($s: S, $lines: *const [u16; LANES], $g: usize) -> (S::F32, S::F32) {
                // SAFETY: the caller's promise; all lines are in one allocation of 64-byte alignment.
                unsafe { $body }
            }
        }
    };
}

scale_lines!(Bf16Lines, false, 8, |s, lines, g| (s.load_bf16(&*lines.add(g)), s.zero()));
scale_lines!(F16Lines, false, 8, |s, lines, g| (s.load_f16(&*lines.add(g)), s.zero()));
scale_lines!(F32Lines, false, 8, |s, lines, g| (s.load(&*lines.add(2 * g).cast()), s.zero()));
scale_lines!(F16MinLines, true, 0, |s, lines, g| {
    (s.load_f16(&*lines.add(2 * g)), s.load_f16(&*lines.add(2 * g + 1)))
});
scale_lines!(F32MinLines, true, 0, |s, lines, g| {
    (s.load(&*lines.add(4 * g).cast()), s.load(&*lines.add(4 * g + 2).cast()))
});
scale_lines!(SuperLines, true, 0, |s, lines, g| {
    let (line, first) = super_lines(g);
    let bytes = lines.add(line).cast::<[u8; LANES]>();
    let (d, d_min) = (s.load_f16(&*lines.add(first)), s.load_f16(&*lines.add(first + 1)));
    let (scale, min) = (s.i32_to_f32(s.load_u8(&*bytes)), s.i32_to_f32(s.load_u8(&*bytes.add(1))));
    (s.mul(d, scale), s.sub(s.zero(), s.mul(d_min, min)))
});

/// `$body` with `$k` as the [`ScaleLines`] of `$kind`.
macro_rules! for_scales {
    ($kind:expr, $k:ident => $body:expr) => {
        match $kind {
            $crate::kernels::int4::Int4Scales::Bf16 => {
                type $k = $crate::kernels::gemm_int4::Bf16Lines;
                $body
            }
            $crate::kernels::int4::Int4Scales::F16 => {
                type $k = $crate::kernels::gemm_int4::F16Lines;
                $body
            }
            $crate::kernels::int4::Int4Scales::F32 => {
                type $k = $crate::kernels::gemm_int4::F32Lines;
                $body
            }
            $crate::kernels::int4::Int4Scales::F16Min => {
                type $k = $crate::kernels::gemm_int4::F16MinLines;
                $body
            }
            $crate::kernels::int4::Int4Scales::F32Min => {
                type $k = $crate::kernels::gemm_int4::F32MinLines;
                $body
            }
            $crate::kernels::int4::Int4Scales::Super => {
                type $k = $crate::kernels::gemm_int4::SuperLines;
                $body
            }
        }
    };
}
pub(super) use for_scales;

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
pub(super) struct Narrow;
impl Kernel for Narrow {
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

/// `f32(sum of code_x) * scale_x` of a group of a row, from what its sum starts at: `-128 * sum of code_x`.
#[inline(always)]
pub(super) fn row_total(scale: f32, start: i32) -> f32 {
    (-(start >> 7)) as f32 * scale
}

/// Unpacks `count` lines of panel codes to int8 k-blocks, prepared for [`Simd::load_prepared`], every `step` blocks.
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
            s.prepare_u4(&*from.add(line), zero, &mut *low, &mut *high);
        }
    }
}

/// Adds what the minima contribute to finished sums of `rows` rows by `NP` panels.
///
/// # Safety
/// `scales` must point to the lines of the panels; `row_scales` and `starts` to `rows` rows of `groups`.
#[inline(always)]
pub(super) unsafe fn add_minima<S: Simd, const NP: usize>(
    s: S,
    kind: Int4Scales,
    scales: *const [u16; LANES],
    (row_scales, starts): (*const f32, *const i32),
    groups: usize,
    sums: &mut [[[f32; LANES]; NP]],
) {
    for_scales!(kind, K => {
        if K::MIN {
            for (r, sums) in sums.iter_mut().enumerate() {
                let mut lows = [s.zero(); NP];
                for g in 0..groups {
                    // SAFETY: the caller's promises.
                    unsafe {
                        let total = row_total(*row_scales.add(r * groups + g), *starts.add(r * groups + g));
                        for p in 0..NP {
                            let (_, min) = K::load(s, scales.add(p * kind.lines(groups)), g);
                            lows[p] = s.fma(s.splat(total), min, lows[p]);
                        }
                    }
                }
                for p in 0..NP {
                    let sum = s.add(s.load(&sums[p]), lows[p]);
                    s.store(sum, &mut sums[p]);
                }
            }
        }
    });
}
