//! Instructions whose intrinsics are not stable yet.

use std::arch::aarch64::*;
use std::arch::asm;

/// `acc[i] + sum of w[4 i + j] * a[4 i + j]`. The intrinsic, `vdotq_s32`, is not stable yet.
#[inline]
#[target_feature(enable = "neon", enable = "dotprod")]
pub(super) fn sdot(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers alone; the CPU has the instruction, a feature of this function.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// As [`sdot`], with lane `I` of `a` for each.
#[inline]
#[target_feature(enable = "neon", enable = "dotprod")]
pub(super) fn sdot_lane<const I: usize>(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers alone; the CPU has the instruction, a feature of this function.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            lane = const I,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// f16 to f32. The intrinsic, `vcvt_f32_f16`, is not stable yet.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_f16(x: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: arithmetic on registers alone; the instruction is part of NEON, a feature of this function.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {x:v}.4h",
            wide = lateout(vreg) wide,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}
