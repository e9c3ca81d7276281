//! The sixteen-lane vector that every kernel is written in: one generic source per kernel, one implementation of [`Simd`]
//! per ISA. So all ISAs give the same bits by construction. [`Scalar`] is the specification.
//!
//! Every method is a sequence of correctly rounded IEEE operations or exact integer operations, in an order that the
//! documentation fixes. (Which NaN a NaN is remains open: its sign and payload differ between instruction sets.)

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_lanes;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_asm;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2Maddubs, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::{NeonDotprod, NeonWidening};
pub use scalar::Scalar;

/// Lanes of a vector, columns of a panel.
pub const LANES: usize = 16;

/// Sixteen lanes of f32 and i32 on one instruction set. A value of the type is the proof that the CPU has it.
///
/// Methods are `#[inline(always)]`, and so must be every function between them and the `#[target_feature]` entry
/// (`isa.rs`): otherwise vectors travel through memory. What the methods call is compiled with the features of the ISA, like
/// the intrinsics themselves.
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 x f32.
    type F32: Copy;
    /// 16 x i32.
    type I32: Copy;
    /// One k-block of a `K4N16` panel: 16 columns x 4 consecutive k, prepared for [`Simd::dot4`].
    type W8: Copy;
    /// Four consecutive activation codes, the same for all 16 columns.
    type A4: Copy;

    /// Whether [`Simd::dot4`] sees each weight as `w + 128`. Accumulators then start at `-128 * sum(activations)`.
    const FLIPPED: bool;
    /// Vectors that the registers hold.
    const REGISTERS: usize;
    /// Whether [`Simd::dot4_short`] is faster than [`Simd::dot4`].
    const SHORT_SUMS: bool = false;

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// 16 numbers from memory.
    fn load(self, x: &[f32; LANES]) -> Self::F32;
    /// 16 numbers to memory.
    fn store(self, v: Self::F32, out: &mut [f32; LANES]);
    /// The first `x.len()` lanes (at most 16) from `x`, the others zero.
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }
    /// The first `out.len()` lanes (at most 16) to `out`.
    #[inline(always)]
    fn store_partial(self, v: Self::F32, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }
    /// Lane i of `a` where `i < count`, of `b` elsewhere.
    fn select_below(self, count: usize, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`: a NaN in either gives `b`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: a NaN in either gives `b`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Whether `a > b` in any lane; never for a NaN.
    fn any_above(self, a: Self::F32, b: Self::F32) -> bool;

    /// Sum of the lanes: lanes i and i + 8, then i + 4, i + 2, i + 1.
    fn reduce_add(self, v: Self::F32) -> f32;
    /// Maximum of the lanes, in the order of [`Simd::reduce_add`], with the NaN rule of [`Simd::max`].
    fn reduce_max(self, v: Self::F32) -> f32;

    /// One step of a Walsh-Hadamard transform: lanes `i` and `i + STRIDE` (`i & STRIDE == 0`) become their sum and their
    /// difference. `STRIDE` is 1, 2, 4 or 8.
    fn butterfly<const STRIDE: usize>(self, v: Self::F32) -> Self::F32;

    /// To the nearest integer, ties to even. Outside of the i32 range (and for NaN) the result is unspecified.
    fn round_to_i32(self, v: Self::F32) -> Self::I32;
    /// To the nearest f32, ties to even.
    fn i32_to_f32(self, v: Self::I32) -> Self::F32;
    /// `2^n` for n in -126..=127, 0 for -127; anything outside is unspecified.
    fn pow2(self, n: Self::I32) -> Self::F32;

    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// 16 integers from memory.
    fn load_i32(self, x: &[i32; LANES]) -> Self::I32;
    /// 16 integers to memory.
    fn store_i32(self, v: Self::I32, out: &mut [i32; LANES]);
    /// Wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Arithmetic shift right by one: rounds towards minus infinity.
    fn half_i32(self, v: Self::I32) -> Self::I32;
    /// `v * 128`, wrapping.
    fn times_128_i32(self, v: Self::I32) -> Self::I32;
    /// Sum of the lanes, wrapping.
    fn reduce_add_i32(self, v: Self::I32) -> i32;

    /// bf16 widened exactly.
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F32;
    /// Sixteen pairs of bf16, widened exactly: first elements of the pairs, second elements of the pairs.
    fn load_bf16_pairs(self, x: &[u16; 2 * LANES]) -> (Self::F32, Self::F32);
    /// f16 widened exactly.
    fn load_f16(self, x: &[u16; LANES]) -> Self::F32;
    /// Bytes as numbers.
    fn load_u8(self, x: &[u8; LANES]) -> Self::I32;
    /// bf16, to nearest, ties to even; a NaN stays a (quiet) NaN.
    fn store_bf16(self, v: Self::F32, out: &mut [u16; LANES]);
    /// Lanes of 0..=16383 as two bytes each: `v / 128` and `v % 128`. Other values give unspecified bytes.
    fn store_u14(self, v: [Self::I32; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]);
    /// The lanes, which must be in -128..=127, as bytes.
    fn store_i8(self, v: Self::I32, out: &mut [i8; LANES]);

    /// One k-block of an int8 panel: column c, k i at byte `4 * c + i`. Weights are in -128..=127.
    fn load_w8(self, x: &[i8; 4 * LANES]) -> Self::W8;
    /// What [`Simd::unpack_u4`] and [`Simd::unpack_u6`] are to subtract so that codes less `zero` have the form of [`Simd::prepare_w8`].
    #[inline(always)]
    fn prepared_zero(self, zero: i8) -> i8 {
        if Self::FLIPPED { zero.wrapping_sub(-128) } else { zero }
    }
    /// Copies a k-block into the form that [`Simd::load_prepared`] loads with the least work.
    fn prepare_w8(self, x: &[i8; 4 * LANES], out: &mut [i8; 4 * LANES]);
    /// As [`Simd::load_w8`], from a prepared copy.
    fn load_prepared(self, x: &[i8; 4 * LANES]) -> Self::W8;
    /// Activation codes in -127..=127.
    fn splat_a4(self, x: &[i8; 4]) -> Self::A4;
    /// `acc + sum of a[i] * w[i]` per column, exactly; see [`Simd::FLIPPED`].
    fn dot4(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32;
    /// As [`Simd::dot4`], with codes `4 * I..4 * I + 4` of sixteen.
    #[inline(always)]
    fn dot4_of<const I: usize>(self, acc: Self::I32, w: Self::W8, a: &[i8; 16]) -> Self::I32 {
        self.dot4(acc, w, self.splat_a4(&a.as_chunks::<4>().0[I]))
    }

    /// As [`Simd::load_w8`], for [`Simd::dot4_positive`].
    fn load_signed_w8(self, x: &[i8; 4 * LANES]) -> Self::W8;
    /// `acc + sum of a[i] * w[i]` per column, exactly, for activation codes in 0..=127: no accumulator is flipped.
    fn dot4_positive(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32;
    /// One line of an int4 panel: its low and its high codes, 0..=15, each as a k-block for [`Simd::dot4_u4`].
    fn load_u4(self, x: &[u8; 4 * LANES]) -> (Self::W8, Self::W8);
    /// The codes of a k-block of six bits (`int6.rs`), 0..=63, each four k as a k-block for [`Simd::dot4_u4`].
    fn load_u6(self, x: &[[u8; 4 * LANES]; 3]) -> [Self::W8; 4];
    /// `acc + sum of a[i] * w[i]` per column, exactly, for weights in 0..=63 (which are not flipped).
    fn dot4_u4(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32;
    /// `acc + sum of a[i] * w[i]` per column, exactly, for weights in 0..=15 (which are not flipped), from zero on up to eight
    /// times. A lane may hold two sums of 16 bits: see [`Simd::add_short`].
    #[inline(always)]
    fn dot4_short(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32 {
        self.dot4_u4(acc, w, a)
    }
    /// `acc + sums`, which come from [`Simd::dot4_short`].
    #[inline(always)]
    fn add_short(self, acc: Self::I32, sums: Self::I32) -> Self::I32 {
        self.add_i32(acc, sums)
    }
    /// The low and the high codes of a line of an int4 panel, less `zero` (wrapping), as k-blocks of an int8 panel.
    fn unpack_u4(self, x: &[u8; 4 * LANES], zero: i8, low: &mut [i8; 4 * LANES], high: &mut [i8; 4 * LANES]);
    /// As [`Simd::unpack_u4`], of a k-block of six bits.
    fn unpack_u6(self, x: &[[u8; 4 * LANES]; 3], zero: i8, out: [&mut [i8; 4 * LANES]; 4]);

    /// Asks for the cache line at `p`, which need not be valid memory.
    fn prefetch(self, p: *const u8);
}
