//! The scales and minima of int4 groups, and of int8 groups that are used as stored, by their [`GroupScales`].

use super::int4::{GroupScales, super_lines};
use super::simd::LANES;
use super::{Kernel, Simd};

/// One kind of [`GroupScales`].
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
scale_lines!(SuperblockLines, true, 0, |s, lines, g| {
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
            $crate::int4::GroupScales::Bf16 => {
                type $k = $crate::scale_lines::Bf16Lines;
                $body
            }
            $crate::int4::GroupScales::F16 => {
                type $k = $crate::scale_lines::F16Lines;
                $body
            }
            $crate::int4::GroupScales::F32 => {
                type $k = $crate::scale_lines::F32Lines;
                $body
            }
            $crate::int4::GroupScales::F16Min => {
                type $k = $crate::scale_lines::F16MinLines;
                $body
            }
            $crate::int4::GroupScales::F32Min => {
                type $k = $crate::scale_lines::F32MinLines;
                $body
            }
            $crate::int4::GroupScales::Superblock => {
                type $k = $crate::scale_lines::SuperblockLines;
                $body
            }
        }
    };
}
pub(super) use for_scales;

/// `f32(sum of code_x) * scale_x` of a group of a row, from what its sum starts at: `-128 * sum of code_x`.
#[inline(always)]
pub(super) fn row_total(scale: f32, start: i32) -> f32 {
    (-(start >> 7)) as f32 * scale
}

/// Widens the scales of some groups of a panel.
pub(super) struct Widen;

/// Arguments of [`Widen`].
pub(super) struct WidenArgs {
    kind: GroupScales,
    lines: *const [u16; LANES],
    first: usize,
    count: usize,
    out: *mut [f32; LANES],
    step: usize,
}

impl WidenArgs {
    /// Groups `first..first + count` of the panel at `lines` go to every `step`th vector from `out`.
    ///
    /// # Safety
    /// The panel must have the groups, and `out` room for `(count - 1) * step + 1` vectors that nobody else uses.
    #[inline(always)]
    pub(super) unsafe fn new(
        kind: GroupScales,
        lines: *const [u16; LANES],
        (first, count): (usize, usize),
        (out, step): (*mut [f32; LANES], usize),
    ) -> Self {
        WidenArgs { kind, lines, first, count, out, step }
    }
}

impl Kernel for Widen {
    type Args<'a> = WidenArgs;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: WidenArgs) {
        let WidenArgs { kind, lines, first, count, out, step } = args;
        for_scales!(kind, K => for g in 0..count {
            // SAFETY: the promise of `WidenArgs::new`.
            unsafe {
                let (scale, _) = K::load(s, lines, first + g);
                s.store(scale, &mut *out.add(g * step));
            }
        });
    }
}

/// Adds what the minima contribute to finished sums.
pub(super) struct AddMinima;

/// Arguments of [`AddMinima`].
pub(super) struct MinimaArgs<'a> {
    kind: GroupScales,
    lines: *const [u16; LANES],
    rows: (*const f32, *const i32),
    groups: usize,
    sums: &'a mut [[f32; LANES]],
    stride: usize,
    panels: usize,
}

impl<'a> MinimaArgs<'a> {
    /// `lines`: of the first panel. `rows`: scales and starts of the first row of `sums`, whose first `panels` of `P`
    /// panels count. Adds nothing where the kind has no minima.
    ///
    /// # Safety
    /// There must be lines of `groups` groups for each panel, and `groups` scales and starts for each row of `sums`.
    #[inline(always)]
    pub(super) unsafe fn new<const P: usize>(
        kind: GroupScales,
        lines: *const [u16; LANES],
        rows: (*const f32, *const i32),
        groups: usize,
        sums: &'a mut [[[f32; LANES]; P]],
        panels: usize,
    ) -> Self {
        MinimaArgs { kind, lines, rows, groups, sums: sums.as_flattened_mut(), stride: P, panels }
    }
}

impl Kernel for AddMinima {
    type Args<'a> = MinimaArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: MinimaArgs<'_>) {
        let MinimaArgs { kind, lines, rows: (scales, starts), groups, sums, stride, panels } = args;
        for_scales!(kind, K => {
            if K::MIN {
                for (r, sums) in sums.chunks_exact_mut(stride).enumerate() {
                    for (p, sum) in sums[..panels].iter_mut().enumerate() {
                        let mut low = s.zero();
                        for g in 0..groups {
                            // SAFETY: the promise of `MinimaArgs::new`.
                            unsafe {
                                let total = row_total(*scales.add(r * groups + g), *starts.add(r * groups + g));
                                let (_, min) = K::load(s, lines.add(p * kind.lines(groups)), g);
                                low = s.fma(s.splat(total), min, low);
                            }
                        }
                        s.store(s.add(s.load(sum), low), sum);
                    }
                }
            }
        });
    }
}
