//! The scales and minima of int4 groups, and of int8 groups that are used as stored, by their [`GroupScales`].

use std::ops::Range;

use super::group_scales::{
    GroupScales, Superblock16Place, SuperblockPlace, superblock_place, superblock16_place,
};
use super::simd::{LANES, Scalar};
use super::unchecked::check;
use super::{Kernel, Simd};

/// A line of scales: 16 columns of u16.
type Line = [u16; LANES];

/// One kind of [`GroupScales`].
pub(super) trait ScaleLines {
    /// Whether there are minima.
    const MIN: bool;
    /// Subtracted from codes of four bits.
    const ZERO: i8;
    /// Scales and minima (or zeros) of group `g`.
    ///
    /// # Safety
    /// `lines` must have the lines of `g + 1` groups at least ([`GroupScales::lines`]), 32-byte aligned: lines of a
    /// [`Panel`](crate::memory::Panel).
    unsafe fn load<S: Simd>(s: S, lines: &[Line], g: usize) -> (S::F32, S::F32);
}

macro_rules! scale_lines {
    ($name:ident, $min:literal, $zero:literal, |$s:ident, $lines:ident, $g:ident| $body:expr) => {
        pub(super) struct $name;
        impl ScaleLines for $name {
            const MIN: bool = $min;
            const ZERO: i8 = $zero;
            #[inline(always)]
            unsafe fn load<S: Simd>($s: S, $lines: &[Line], $g: usize) -> (S::F32, S::F32) {
                $body
            }
        }
    };
}

/// Line `at`.
///
/// # Safety
/// `lines` must have it.
#[inline(always)]
unsafe fn line(lines: &[Line], at: usize) -> &Line {
    // SAFETY: the clause on `lines`. (With debug assertions, the standard library checks it.)
    unsafe { lines.get_unchecked(at) }
}

/// Lines `at` and `at + 1` as f32.
///
/// # Safety
/// `lines` must have them, aligned for f32.
#[inline(always)]
unsafe fn f32_lines(lines: &[Line], at: usize) -> &[f32; LANES] {
    check(at, 2, lines.len());
    // SAFETY: the clause on `lines`: the pointer stays inside them.
    let first = unsafe { lines.as_ptr().add(at) };
    // SAFETY: two lines are 64 bytes, as 16 f32 are; they are aligned by the clause, and every bit pattern is an f32.
    unsafe { &*first.cast() }
}

// SAFETY of the blocks below: the clause of `ScaleLines::load`, by which the lines of group `g` are there: those that
// `GroupScales::lines` counts for `g + 1` groups, less those it counts for `g`.
scale_lines!(Bf16Lines, false, 8, |s, lines, g| {
    // SAFETY: 1 line per group.
    (s.load_bf16(unsafe { line(lines, g) }), s.zero())
});
scale_lines!(F16Lines, false, 8, |s, lines, g| {
    // SAFETY: 1 line per group.
    (s.load_f16(unsafe { line(lines, g) }), s.zero())
});
scale_lines!(F32Lines, false, 8, |s, lines, g| {
    // SAFETY: 2 lines per group, aligned by the clause of `load`.
    (s.load(unsafe { f32_lines(lines, 2 * g) }), s.zero())
});
scale_lines!(F16MinLines, true, 0, |s, lines, g| {
    // SAFETY: 2 lines per group; this is the first.
    let scale = s.load_f16(unsafe { line(lines, 2 * g) });
    // SAFETY: 2 lines per group; this is the second.
    let min = s.load_f16(unsafe { line(lines, 2 * g + 1) });
    (scale, min)
});
scale_lines!(F32MinLines, true, 0, |s, lines, g| {
    // SAFETY: 4 lines per group, aligned by the clause of `load`; these are the first two.
    let scale = s.load(unsafe { f32_lines(lines, 4 * g) });
    // SAFETY: 4 lines per group, aligned by the clause of `load`; these are the last two.
    let min = s.load(unsafe { f32_lines(lines, 4 * g + 2) });
    (scale, min)
});
scale_lines!(SuperblockLines, true, 0, |s, lines, g| {
    let SuperblockPlace { own, shared } = superblock_place(g);
    // SAFETY: a superblock begins with two lines, which are there for its first group already.
    let d = s.load_f16(unsafe { line(lines, shared) });
    // SAFETY: as for `d`: the second of the two lines.
    let d_min = s.load_f16(unsafe { line(lines, shared + 1) });
    // SAFETY: each group has a line after the two, `superblock_place(g)`.
    let bytes = unsafe { line(lines, own) }.as_ptr().cast::<[[u8; LANES]; 2]>();
    // SAFETY: a line is 32 bytes, and bytes have no alignment.
    let [scale, min] = unsafe { &*bytes };
    let (scale, min) = (s.i32_to_f32(s.load_u8(scale)), s.i32_to_f32(s.load_u8(min)));
    (s.mul(d, scale), s.sub(s.zero(), s.mul(d_min, min)))
});

scale_lines!(Superblock16Lines, false, 8, |s, lines, g| {
    let Superblock16Place { own, half, shared } = superblock16_place(g);
    // SAFETY: a superblock begins with a line, which is there for its first group already.
    let d = s.load_f16(unsafe { line(lines, shared) });
    // SAFETY: each two groups have a line after that one, `superblock16_place(g)`.
    let bytes = unsafe { line(lines, own) }.as_ptr().cast::<[[u8; LANES]; 2]>();
    // SAFETY: a line is 32 bytes, and bytes have no alignment.
    let scales = unsafe { &*bytes };
    let scale = s.i32_to_f32(s.sub_i32(s.load_u8(&scales[half & 1]), s.splat_i32(128)));
    (s.mul(d, scale), s.zero())
});

/// `$body` with `$k` as the [`ScaleLines`] of `$kind`.
macro_rules! for_scales {
    ($kind:expr, $k:ident => $body:expr) => {
        match $kind {
            $crate::group_scales::GroupScales::Bf16 => {
                type $k = $crate::scale_lines::Bf16Lines;
                $body
            }
            $crate::group_scales::GroupScales::F16 => {
                type $k = $crate::scale_lines::F16Lines;
                $body
            }
            $crate::group_scales::GroupScales::F32 => {
                type $k = $crate::scale_lines::F32Lines;
                $body
            }
            $crate::group_scales::GroupScales::F16Min => {
                type $k = $crate::scale_lines::F16MinLines;
                $body
            }
            $crate::group_scales::GroupScales::F32Min => {
                type $k = $crate::scale_lines::F32MinLines;
                $body
            }
            $crate::group_scales::GroupScales::Superblock => {
                type $k = $crate::scale_lines::SuperblockLines;
                $body
            }
            $crate::group_scales::GroupScales::Superblock16 => {
                type $k = $crate::scale_lines::Superblock16Lines;
                $body
            }
        }
    };
}
pub(super) use for_scales;

/// Scale and minimum of a group of a column.
pub(super) fn read_scale(kind: GroupScales, lines: &[[u16; LANES]], g: usize, column: usize) -> (f32, f32) {
    assert!(kind.lines(g + 1) <= lines.len(), "group {g} of {} lines", lines.len());
    assert!((lines.as_ptr() as usize).is_multiple_of(align_of::<f32>()), "lines of a panel are aligned");
    let (scale, min) = for_scales!(kind, K => {
        // SAFETY: the asserts: the lines of the groups up to this one, aligned.
        unsafe { K::load(Scalar, lines, g) }
    });
    (scale[column], min[column])
}

/// `f32(sum of code_x) * scale_x` of a group of a row; `start` is `-128 * sum of code_x`, which its sum starts at.
#[inline(always)]
pub(super) fn row_total(scale: f32, start: i32) -> f32 {
    (-(start >> 7)) as f32 * scale
}

/// Widens the scales of some groups of a panel.
pub(super) struct Widen;

/// Arguments of [`Widen`].
///
/// Invariant, established by [`new`](Self::new): what its `# Safety` asks for.
pub(super) struct WidenArgs<'a> {
    kind: GroupScales,
    lines: &'a [Line],
    groups: Range<usize>,
    out: *mut [f32; LANES],
    step: usize,
}

impl<'a> WidenArgs<'a> {
    /// The scales of `groups`, whose panel has `lines`, go to every `step`th vector from `out`.
    ///
    /// # Panics
    /// When the panel does not have the groups.
    ///
    /// # Safety
    /// `lines` must be 32-byte aligned. `out` must be valid for writes of `(groups.len() - 1) * step + 1` vectors, which
    /// nothing else uses meanwhile.
    #[inline(always)]
    pub(super) unsafe fn new(
        kind: GroupScales,
        lines: &'a [Line],
        groups: Range<usize>,
        out: *mut [f32; LANES],
        step: usize,
    ) -> Self {
        assert!(kind.lines(groups.end) <= lines.len(), "group {} of {} lines", groups.end, lines.len());
        WidenArgs { kind, lines, groups, out, step }
    }
}

impl Kernel for Widen {
    type Args<'a> = WidenArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: WidenArgs<'_>) {
        let WidenArgs { kind, lines, groups, out, step } = args;
        for_scales!(kind, K => for (i, g) in groups.enumerate() {
            // SAFETY: `WidenArgs::new` asserted that `lines` has the groups, and asks for their alignment.
            let (scale, _) = unsafe { K::load(s, lines, g) };
            // SAFETY: the clause of `WidenArgs::new` on `out`: vector `i * step` may be written, and is no one else's.
            let out = unsafe { &mut *out.wrapping_add(i * step) };
            s.store(scale, out);
        });
    }
}
