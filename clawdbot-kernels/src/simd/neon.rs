//! [`Simd`] on NEON: four 128-bit registers per vector.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon_asm::{sdot, sdot_lane, widen_f16};
use super::{LANES, Simd};

/// Proof of NEON and, if `DOT`, of the dot product extension.
#[derive(Clone, Copy)]
pub struct Neon<const DOT: bool>(());

/// With `sdot`.
pub type NeonDotprod = Neon<true>;
/// With widening multiplies, for CPUs before Armv8.2 (Cortex-A72: Raspberry Pi 4).
pub type NeonWidening = Neon<false>;

impl<const DOT: bool> Neon<DOT> {
    /// # Safety
    /// The CPU must have the features that `isa.rs` lists for this type.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Neon(())
    }
}

/// Calls an intrinsic, or runs a block of them in a function that is compiled with NEON.
macro_rules! isa {
    (|$($x:ident: $type:ty),+| -> $out:ty $body:block) => {{
        #[inline]
        #[target_feature(enable = "neon")]
        fn body($($x: $type),+) -> $out $body
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has NEON.
        unsafe { body($($x),+) }
    }};
    ($call:expr) => {
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has the instruction.
        unsafe { $call }
    };
}

/// Lanes 0..4, 4..8, 8..12 and 12..16.
type Quad<T> = [T; 4];

/// Calls an intrinsic on each quarter of its arguments.
macro_rules! each {
    ($function:ident $(::<$const:tt>)? ($($arg:expr),+)) => {
        [
            isa!($function $(::<$const>)? ($($arg[0]),+)),
            isa!($function $(::<$const>)? ($($arg[1]),+)),
            isa!($function $(::<$const>)? ($($arg[2]),+)),
            isa!($function $(::<$const>)? ($($arg[3]),+)),
        ]
    };
}

/// The quarters of an array. (A slice of four, whose length the compiler knows.)
#[inline(always)]
fn quarters<T, const N: usize>(x: &[T]) -> Quad<&[T; N]> {
    let quarters = x.as_chunks::<N>().0;
    [&quarters[0], &quarters[1], &quarters[2], &quarters[3]]
}

/// Loads and stores of 16 (or 8) bytes from and to arrays of that size, without alignment.
macro_rules! memory {
    ($($load:ident, $store:ident: $type:ty = $vector:ty, $load_intrinsic:ident, $store_intrinsic:ident;)+) => {
        $(
            #[inline]
            #[target_feature(enable = "neon")]
            fn $load(x: &$type) -> $vector {
                const { assert!(size_of::<$type>() == size_of::<$vector>()) };
                // SAFETY: `x` is as long as the vector, as asserted; the instruction does not ask for alignment.
                unsafe { $load_intrinsic(x.as_ptr()) }
            }

            #[inline]
            #[target_feature(enable = "neon")]
            fn $store(v: $vector, out: &mut $type) {
                const { assert!(size_of::<$type>() == size_of::<$vector>()) };
                // SAFETY: `out` is as long as the vector, as asserted; the instruction does not ask for alignment.
                unsafe { $store_intrinsic(out.as_mut_ptr(), v) }
            }
        )+
    };
}

memory! {
    load_f32, store_f32: [f32; 4] = float32x4_t, vld1q_f32, vst1q_f32;
    load_i32, store_i32: [i32; 4] = int32x4_t, vld1q_s32, vst1q_s32;
    load_i8, store_i8: [i8; 16] = int8x16_t, vld1q_s8, vst1q_s8;
    load_u16x4, store_u16x4: [u16; 4] = uint16x4_t, vld1_u16, vst1_u16;
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
fn load_u8(x: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `x` is 16 bytes; the instruction does not ask for alignment.
    unsafe { vld1q_u8(x.as_ptr()) }
}

/// Eight bf16, by their bits.
#[inline]
#[target_feature(enable = "neon")]
fn load_u16x8(x: &[u16; 8]) -> uint16x8_t {
    // SAFETY: `x` is 16 bytes; the instruction does not ask for alignment.
    unsafe { vld1q_u16(x.as_ptr()) }
}

/// `if a > b { a } else { b }`; `fmax` has other rules for NaN and zeros.
#[inline]
#[target_feature(enable = "neon")]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

/// `if a < b { a } else { b }`.
#[inline]
#[target_feature(enable = "neon")]
fn less(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

/// As `sdot`: 16-bit products (at most 128 * 127, so that two of them still fit), their sums in pairs, the sums of
/// those.
#[inline]
#[target_feature(enable = "neon")]
fn widening_dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    let high = vmull_high_s8(w, a);
    vpadalq_s16(acc, vpaddq_s16(low, high))
}

/// [`Simd::butterfly`] inside of 4 lanes: `STRIDE` is 1 or 2.
#[inline]
#[target_feature(enable = "neon")]
fn butterfly<const STRIDE: usize>(v: float32x4_t) -> float32x4_t {
    let swapped = if STRIDE == 2 { vextq_f32::<2>(v, v) } else { vrev64q_f32(v) };
    let (sum, difference) = (vaddq_f32(v, swapped), vsubq_f32(swapped, v));
    // Sums in the lower half of each pair (of pairs), differences in the upper.
    if STRIDE == 2 {
        vcombine_f32(vget_low_f32(sum), vget_high_f32(difference))
    } else {
        vtrn1q_f32(sum, vrev64q_f32(difference))
    }
}

/// [`Simd::store_bf16`] of 4 lanes.
#[inline]
#[target_feature(enable = "neon")]
fn narrow(v: float32x4_t) -> uint16x4_t {
    let bits = vreinterpretq_u32_f32(v);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
    // A NaN is not equal to itself.
    vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
}

/// Codes of six bits: the low four of a byte of `low`, and the next two of one of `upper`.
#[inline]
#[target_feature(enable = "neon")]
fn join(low: uint8x16_t, upper: uint8x16_t) -> int8x16_t {
    let low = vandq_u8(low, vdupq_n_u8(15));
    vreinterpretq_s8_u8(vorrq_u8(low, vandq_u8(upper, vdupq_n_u8(48))))
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type F32 = Quad<float32x4_t>;
    type I32 = Quad<int32x4_t>;
    type W8 = Quad<int8x16_t>;
    type A4 = int8x16_t;

    const FLIPPED: bool = false;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [isa!(vdupq_n_f32(x)); 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F32 {
        let x = quarters::<f32, 4>(x);
        each!(load_f32(x))
    }
    #[inline(always)]
    fn store(self, v: Self::F32, out: &mut [f32; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            isa!(store_f32(v, out));
        }
    }
    #[inline(always)]
    fn select_below(self, count: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        let count = self.splat_i32(count.min(LANES) as i32);
        let index = self.load_i32(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let below = each!(vcltq_s32(index, count));
        each!(vbslq_f32(below, a, b))
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(greater(a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(less(a, b))
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        each!(vabsq_f32(a))
    }

    #[inline(always)]
    fn any_above(self, a: Self::F32, b: Self::F32) -> bool {
        let above = each!(vcgtq_f32(a, b));
        isa!(|above: Quad<uint32x4_t>| -> bool {
            vmaxvq_u32(vorrq_u32(vorrq_u32(above[0], above[1]), vorrq_u32(above[2], above[3]))) != 0
        })
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        isa!(|v: Quad<float32x4_t>| -> f32 {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        isa!(|v: Quad<float32x4_t>| -> f32 {
            let v = greater(greater(v[0], v[2]), greater(v[1], v[3]));
            let v = greater(v, vextq_f32::<2>(v, v));
            vgetq_lane_f32::<0>(greater(v, vextq_f32::<1>(v, v)))
        })
    }

    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, v: Self::F32) -> Self::F32 {
        let [a, b, c, d] = v;
        match STRIDE {
            8 => [isa!(vaddq_f32(a, c)), isa!(vaddq_f32(b, d)), isa!(vsubq_f32(a, c)), isa!(vsubq_f32(b, d))],
            4 => [isa!(vaddq_f32(a, b)), isa!(vsubq_f32(a, b)), isa!(vaddq_f32(c, d)), isa!(vsubq_f32(c, d))],
            _ => [
                isa!(butterfly::<STRIDE>(a)),
                isa!(butterfly::<STRIDE>(b)),
                isa!(butterfly::<STRIDE>(c)),
                isa!(butterfly::<STRIDE>(d)),
            ],
        }
    }

    #[inline(always)]
    fn round_to_i32(self, v: Self::F32) -> Self::I32 {
        each!(vcvtnq_s32_f32(v))
    }
    #[inline(always)]
    fn i32_to_f32(self, v: Self::I32) -> Self::F32 {
        // With the rounding of FPCR, which Rust requires to be nearest-even.
        each!(vcvtq_f32_s32(v))
    }
    #[inline(always)]
    fn pow2(self, n: Self::I32) -> Self::F32 {
        let biased = self.add_i32(n, self.splat_i32(127));
        let bits = each!(vshlq_n_s32::<23>(biased));
        each!(vreinterpretq_f32_s32(bits))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [isa!(vdupq_n_s32(x)); 4]
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I32 {
        let x = quarters::<i32, 4>(x);
        each!(load_i32(x))
    }
    #[inline(always)]
    fn store_i32(self, v: Self::I32, out: &mut [i32; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            isa!(store_i32(v, out));
        }
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vaddq_s32(a, b))
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vsubq_s32(a, b))
    }
    #[inline(always)]
    fn half_i32(self, v: Self::I32) -> Self::I32 {
        each!(vshrq_n_s32::<1>(v))
    }
    #[inline(always)]
    fn times_128_i32(self, v: Self::I32) -> Self::I32 {
        each!(vshlq_n_s32::<7>(v))
    }
    #[inline(always)]
    fn reduce_add_i32(self, v: Self::I32) -> i32 {
        isa!(|v: Quad<int32x4_t>| -> i32 {
            vaddvq_s32(vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3])))
        })
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F32 {
        isa!(|x: &[u16; LANES]| -> Quad<float32x4_t> {
            let x = x.as_chunks::<8>().0;
            let (low, high) = (load_u16x8(&x[0]), load_u16x8(&x[1]));
            // A zero below each bf16 is the f32.
            let zero = vdupq_n_u16(0);
            [
                vreinterpretq_f32_u16(vzip1q_u16(zero, low)),
                vreinterpretq_f32_u16(vzip2q_u16(zero, low)),
                vreinterpretq_f32_u16(vzip1q_u16(zero, high)),
                vreinterpretq_f32_u16(vzip2q_u16(zero, high)),
            ]
        })
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u16; 2 * LANES]) -> (Self::F32, Self::F32) {
        let x = quarters::<u16, 8>(x);
        let pairs = each!(load_u16x8(x));
        let pairs = each!(vreinterpretq_s32_u16(pairs));
        let upper = self.splat_i32(0xffff_0000_u32 as i32);
        let (even, odd) = (each!(vshlq_n_s32::<16>(pairs)), each!(vandq_s32(pairs, upper)));
        (each!(vreinterpretq_f32_s32(even)), each!(vreinterpretq_f32_s32(odd)))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F32 {
        let x = quarters::<u16, 4>(x);
        let x = each!(load_u16x4(x));
        each!(widen_f16(x))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I32 {
        let wide = isa!(|x: &[u8; LANES]| -> Quad<uint32x4_t> {
            let bytes = load_u8(x);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ]
        });
        each!(vreinterpretq_s32_u32(wide))
    }
    #[inline(always)]
    fn store_bf16(self, v: Self::F32, out: &mut [u16; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            let v = isa!(narrow(v));
            isa!(store_u16x4(v, out));
        }
    }
    #[inline(always)]
    fn store_u14(self, v: [Self::I32; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]) {
        let (mask, seven) = (self.splat_i32(127), self.splat_i32(-7));
        for i in 0..4 {
            let x = v[i];
            // A shift by a negative count is one to the right.
            self.store_i8(each!(vshlq_s32(x, seven)), &mut high.as_chunks_mut().0[i]);
            self.store_i8(each!(vandq_s32(x, mask)), &mut low.as_chunks_mut().0[i]);
        }
    }
    #[inline(always)]
    fn store_i8(self, v: Self::I32, out: &mut [i8; LANES]) {
        isa!(|v: Quad<int32x4_t>, out: &mut [i8; LANES]| -> () {
            let low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
            let high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
            store_i8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)), out);
        });
    }

    #[inline(always)]
    fn load_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        let x = quarters::<i8, 16>(x);
        each!(load_i8(x))
    }
    #[inline(always)]
    fn prepare_w8(self, x: &[i8; 4 * LANES], out: &mut [i8; 4 * LANES]) {
        *out = *x;
    }
    #[inline(always)]
    fn load_prepared(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        self.load_w8(x)
    }
    #[inline(always)]
    fn splat_a4(self, x: &[i8; 4]) -> int8x16_t {
        let all = isa!(vdupq_n_s32(i32::from_ne_bytes(x.map(|code| code as u8))));
        isa!(vreinterpretq_s8_s32(all))
    }
    #[inline(always)]
    fn dot4(self, acc: Self::I32, w: Self::W8, a: int8x16_t) -> Self::I32 {
        let a = [a; 4];
        if DOT { each!(sdot(acc, w, a)) } else { each!(widening_dot(acc, w, a)) }
    }
    /// One load for four k-blocks: `sdot` takes a lane of it. A broadcast from memory would take a vector instruction.
    #[inline(always)]
    fn dot4_of<const I: usize>(self, acc: Self::I32, w: Self::W8, a: &[i8; 16]) -> Self::I32 {
        if !DOT {
            return self.dot4(acc, w, self.splat_a4(&a.as_chunks::<4>().0[I]));
        }
        let a = [isa!(load_i8(a)); 4];
        each!(sdot_lane::<I>(acc, w, a))
    }

    #[inline(always)]
    fn load_signed_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        self.load_w8(x)
    }
    #[inline(always)]
    fn dot4_positive(self, acc: Self::I32, w: Self::W8, a: int8x16_t) -> Self::I32 {
        self.dot4(acc, w, a)
    }
    #[inline(always)]
    fn load_u4(self, x: &[u8; 4 * LANES]) -> (Self::W8, Self::W8) {
        let x = quarters::<u8, 16>(x);
        let both = each!(load_u8(x));
        let mask = [isa!(vdupq_n_u8(15)); 4];
        let (low, high) = (each!(vandq_u8(both, mask)), each!(vshrq_n_u8::<4>(both)));
        (each!(vreinterpretq_s8_u8(low)), each!(vreinterpretq_s8_u8(high)))
    }
    #[inline(always)]
    fn load_u6(self, x: &[[u8; 4 * LANES]; 3]) -> [Self::W8; 4] {
        let [first, second, upper] =
            [quarters::<u8, 16>(&x[0]), quarters::<u8, 16>(&x[1]), quarters::<u8, 16>(&x[2])];
        let (first, second, upper) = (each!(load_u8(first)), each!(load_u8(second)), each!(load_u8(upper)));
        let (first_high, second_high) = (each!(vshrq_n_u8::<4>(first)), each!(vshrq_n_u8::<4>(second)));
        let (a, b, d) =
            (each!(vshlq_n_u8::<4>(upper)), each!(vshlq_n_u8::<2>(upper)), each!(vshrq_n_u8::<2>(upper)));
        [
            each!(join(first, a)),
            each!(join(first_high, b)),
            each!(join(second, upper)),
            each!(join(second_high, d)),
        ]
    }
    #[inline(always)]
    fn dot4_u4(self, acc: Self::I32, w: Self::W8, a: int8x16_t) -> Self::I32 {
        self.dot4(acc, w, a)
    }
    #[inline(always)]
    fn unpack_u4(self, x: &[u8; 4 * LANES], zero: i8, low: &mut [i8; 4 * LANES], high: &mut [i8; 4 * LANES]) {
        let (a, b) = self.load_u4(x);
        let zero = [isa!(vdupq_n_s8(zero)); 4];
        let (a, b) = (each!(vsubq_s8(a, zero)), each!(vsubq_s8(b, zero)));
        for (v, out) in a.into_iter().zip(low.as_chunks_mut::<16>().0) {
            isa!(store_i8(v, out));
        }
        for (v, out) in b.into_iter().zip(high.as_chunks_mut::<16>().0) {
            isa!(store_i8(v, out));
        }
    }
    #[inline(always)]
    fn unpack_u6(self, x: &[[u8; 4 * LANES]; 3], zero: i8, out: [&mut [i8; 4 * LANES]; 4]) {
        let zero = [isa!(vdupq_n_s8(zero)); 4];
        for (codes, out) in self.load_u6(x).into_iter().zip(out) {
            let codes = each!(vsubq_s8(codes, zero));
            for (v, out) in codes.into_iter().zip(out.as_chunks_mut::<16>().0) {
                isa!(store_i8(v, out));
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint: it accesses no memory that the program sees, and no address makes it fault. (The intrinsic is not stable
        // yet.)
        unsafe {
            asm!("prfm pldl1keep, [{}]", in(reg) p.addr(), options(nomem, nostack, preserves_flags));
        }
    }
}
