//! [`Simd`] on AVX2 with FMA, with or without AVX-VNNI: two 256-bit registers per vector.

use std::arch::x86_64::*;

use super::avx2_lanes::{butterfly, join, maddubs_dot, narrow};
use super::{LANES, Simd};
use crate::memory::Pod;

/// Proof of AVX2 and FMA and, if `VNNI`, of AVX-VNNI.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>(());

/// With `vpdpbusd` on 256 bits: client CPUs since Alder Lake, which have no AVX-512.
pub type AvxVnni = Avx2<true>;
/// With `vpmaddubsw`.
pub type Avx2Maddubs = Avx2<false>;

impl<const VNNI: bool> Avx2<VNNI> {
    /// # Safety
    /// The CPU must have the features that `isa.rs` lists for this type.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Avx2(())
    }
}

/// Calls an intrinsic, or runs a block of them in a function that is compiled with the features of the token.
macro_rules! isa {
    (|$($x:ident: $type:ty),+| -> $out:ty $body:block) => {{
        #[inline]
        #[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
        fn body($($x: $type),+) -> $out $body
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has these features.
        unsafe { body($($x),+) }
    }};
    ($call:expr) => {
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has the instruction. A pointer is
        // that of an array as long as what the instruction reads or writes, without alignment.
        unsafe { $call }
    };
}

/// Lanes 0..8 and 8..16.
type Pair<T> = [T; 2];

/// Calls an intrinsic on both halves of its arguments.
macro_rules! both {
    ($function:ident $(::<$const:literal>)? ($($arg:expr),+)) => {
        [isa!($function $(::<$const>)? ($($arg[0]),+)), isa!($function $(::<$const>)? ($($arg[1]),+))]
    };
}

/// The 32 bytes of `N` integers.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
fn load_32<T: Pod, const N: usize>(x: &[T; N]) -> __m256i {
    const { assert!(size_of::<[T; N]>() == 32) };
    // SAFETY: `x` is 32 bytes, as asserted, read without alignment; `T: Pod` has no padding.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// 32 bytes to `N` integers.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
fn store_32<T: Pod, const N: usize>(v: __m256i, out: &mut [T; N]) {
    const { assert!(size_of::<[T; N]>() == 32) };
    // SAFETY: `out` is 32 bytes, as asserted, written without alignment; `T: Pod` has every bit pattern.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
}

/// The 16 bytes of `N` integers.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
fn load_16<T: Pod, const N: usize>(x: &[T; N]) -> __m128i {
    const { assert!(size_of::<[T; N]>() == 16) };
    // SAFETY: `x` is 16 bytes, as asserted, read without alignment; `T: Pod` has no padding.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

#[inline(always)]
fn store_bytes<const VNNI: bool>(token: Avx2<VNNI>, v: Pair<__m256i>, out: &mut [i8; 4 * LANES]) {
    let _ = token;
    let [low, high] = halves_mut::<i8, 32>(out);
    isa!(store_32(v[0], low));
    isa!(store_32(v[1], high));
}

/// The bytes of a line of codes.
#[inline(always)]
fn load_line<const VNNI: bool>(token: Avx2<VNNI>, x: &[u8; 4 * LANES]) -> Pair<__m256i> {
    let _ = token;
    let x = halves::<u8, 32>(x);
    both!(load_32(x))
}

/// The two halves of an array. (A slice of two, whose length the compiler knows.)
#[inline(always)]
fn halves<T, const N: usize>(x: &[T]) -> [&[T; N]; 2] {
    let halves = x.as_chunks::<N>().0;
    [&halves[0], &halves[1]]
}

/// As [`halves`], to be written.
#[inline(always)]
fn halves_mut<T, const N: usize>(x: &mut [T]) -> [&mut [T; N]; 2] {
    match x.as_chunks_mut::<N>().0 {
        [low, high] => [low, high],
        _ => unreachable!("an array of two halves"),
    }
}

/// [`Simd::store_u14`] of 32 lanes.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
fn split_u14([a, b]: [Pair<__m256i>; 2], high: &mut [i8; 32], low: &mut [i8; 32]) {
    // The packs interleave 128-bit halves; 32-bit lane i of their result belongs at i / 4 + i % 4 * 2.
    let (a, b) = (_mm256_packs_epi32(a[0], a[1]), _mm256_packs_epi32(b[0], b[1]));
    let upper = _mm256_packus_epi16(_mm256_srli_epi16::<7>(a), _mm256_srli_epi16::<7>(b));
    let mask = _mm256_set1_epi16(127);
    let lower = _mm256_packus_epi16(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_32(_mm256_permutevar8x32_epi32(upper, order), high);
    store_32(_mm256_permutevar8x32_epi32(lower, order), low);
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F32 = Pair<__m256>;
    type I32 = Pair<__m256i>;
    type W8 = Pair<__m256i>;
    type A4 = __m256i;

    /// Both instructions multiply unsigned by signed bytes. `vpdpbusd` has the weights on the unsigned side. `vpmaddubsw`
    /// sums two products to 16 bits, into which two of `|w| * sign(a, w)`, at most 128 * 127, fit; no activation is -128,
    /// which could not be negated.
    const FLIPPED: bool = VNNI;
    const REGISTERS: usize = 8;
    /// Without `vpdpbusd`, products are 16 bits wide before they are summed to 32.
    const SHORT_SUMS: bool = !VNNI;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [isa!(_mm256_set1_ps(x)); 2]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F32 {
        let [low, high] = halves::<f32, 8>(x);
        // 32 bytes each, read without alignment.
        [isa!(_mm256_loadu_ps(low.as_ptr())), isa!(_mm256_loadu_ps(high.as_ptr()))]
    }
    #[inline(always)]
    fn store(self, v: Self::F32, out: &mut [f32; LANES]) {
        let [low, high] = halves_mut::<f32, 8>(out);
        // 32 bytes each, written without alignment.
        isa!(_mm256_storeu_ps(low.as_mut_ptr(), v[0]));
        isa!(_mm256_storeu_ps(high.as_mut_ptr(), v[1]));
    }
    #[inline(always)]
    fn select_below(self, count: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        let count = count.min(LANES) as i32;
        isa!(|count: i32, a: Pair<__m256>, b: Pair<__m256>| -> Pair<__m256> {
            let count = _mm256_set1_epi32(count);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
            let (low, high) = (_mm256_cmpgt_epi32(count, low), _mm256_cmpgt_epi32(count, high));
            [
                _mm256_blendv_ps(b[0], a[0], _mm256_castsi256_ps(low)),
                _mm256_blendv_ps(b[1], a[1], _mm256_castsi256_ps(high)),
            ]
        })
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        both!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        let sign = self.splat(-0.0);
        both!(_mm256_andnot_ps(sign, a))
    }
    #[inline(always)]
    fn any_above(self, a: Self::F32, b: Self::F32) -> bool {
        isa!(|a: Pair<__m256>, b: Pair<__m256>| -> bool {
            let (low, high) =
                (_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]));
            _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0
        })
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        isa!(|v: Pair<__m256>| -> f32 {
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        isa!(|v: Pair<__m256>| -> f32 {
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, v: Self::F32) -> Self::F32 {
        if STRIDE == 8 {
            return [self.add(v, [v[1], v[0]])[0], self.sub(v, [v[1], v[0]])[0]];
        }
        [isa!(butterfly::<STRIDE>(v[0])), isa!(butterfly::<STRIDE>(v[1]))]
    }

    #[inline(always)]
    fn round_to_i32(self, v: Self::F32) -> Self::I32 {
        // With the rounding of MXCSR, which Rust requires to be nearest-even.
        both!(_mm256_cvtps_epi32(v))
    }
    #[inline(always)]
    fn i32_to_f32(self, v: Self::I32) -> Self::F32 {
        both!(_mm256_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn pow2(self, n: Self::I32) -> Self::F32 {
        let biased = self.add_i32(n, self.splat_i32(127));
        let bits = both!(_mm256_slli_epi32::<23>(biased));
        both!(_mm256_castsi256_ps(bits))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [isa!(_mm256_set1_epi32(x)); 2]
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I32 {
        let x = halves::<i32, 8>(x);
        both!(load_32(x))
    }
    #[inline(always)]
    fn store_i32(self, v: Self::I32, out: &mut [i32; LANES]) {
        let [low, high] = halves_mut::<i32, 8>(out);
        isa!(store_32(v[0], low));
        isa!(store_32(v[1], high));
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn half_i32(self, v: Self::I32) -> Self::I32 {
        both!(_mm256_srai_epi32::<1>(v))
    }
    #[inline(always)]
    fn times_128_i32(self, v: Self::I32) -> Self::I32 {
        both!(_mm256_slli_epi32::<7>(v))
    }
    #[inline(always)]
    fn reduce_add_i32(self, v: Self::I32) -> i32 {
        let mut lanes = [0; LANES];
        self.store_i32(v, &mut lanes);
        lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F32 {
        isa!(|x: &[u16; LANES]| -> Pair<__m256> {
            let [low, high] = halves::<u16, 8>(x);
            let (low, high) = (_mm256_cvtepu16_epi32(load_16(low)), _mm256_cvtepu16_epi32(load_16(high)));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        })
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u16; 2 * LANES]) -> (Self::F32, Self::F32) {
        let x = halves::<u16, 16>(x);
        let pairs: Self::I32 = both!(load_32(x));
        let upper = self.splat_i32(0xffff_0000_u32 as i32);
        let (even, odd) = (both!(_mm256_slli_epi32::<16>(pairs)), both!(_mm256_and_si256(pairs, upper)));
        (both!(_mm256_castsi256_ps(even)), both!(_mm256_castsi256_ps(odd)))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F32 {
        isa!(|x: &[u16; LANES]| -> Pair<__m256> {
            let [low, high] = halves::<u16, 8>(x);
            [_mm256_cvtph_ps(load_16(low)), _mm256_cvtph_ps(load_16(high))]
        })
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I32 {
        isa!(|x: &[u8; LANES]| -> Pair<__m256i> {
            let [low, high] = halves::<u8, 8>(x);
            // SAFETY: 8 bytes, read without alignment.
            let low = unsafe { _mm_loadl_epi64(low.as_ptr().cast()) };
            // SAFETY: 8 bytes, read without alignment.
            let high = unsafe { _mm_loadl_epi64(high.as_ptr().cast()) };
            [_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(high)]
        })
    }
    #[inline(always)]
    fn store_bf16(self, v: Self::F32, out: &mut [u16; LANES]) {
        isa!(|v: Pair<__m256>, out: &mut [u16; LANES]| -> () {
            // The pack interleaves 128-bit halves.
            let packed = _mm256_packus_epi32(narrow(v[0]), narrow(v[1]));
            store_32(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed), out);
        });
    }
    #[inline(always)]
    fn store_u14(self, v: [Self::I32; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]) {
        let ([first, second], [high_first, high_second]) =
            (halves_mut::<i8, 32>(low), halves_mut::<i8, 32>(high));
        isa!(split_u14([v[0], v[1]], high_first, first));
        isa!(split_u14([v[2], v[3]], high_second, second));
    }
    #[inline(always)]
    fn store_i8(self, v: Self::I32, out: &mut [i8; LANES]) {
        isa!(|v: Pair<__m256i>, out: &mut [i8; LANES]| -> () {
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            // SAFETY: `out` is 16 bytes, written without alignment.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
        });
    }

    #[inline(always)]
    fn load_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        let w = self.load_signed_w8(x);
        if VNNI {
            let flip = [isa!(_mm256_set1_epi8(-128)); 2];
            both!(_mm256_xor_si256(w, flip))
        } else {
            w
        }
    }
    #[inline(always)]
    fn prepare_w8(self, x: &[i8; 4 * LANES], out: &mut [i8; 4 * LANES]) {
        store_bytes(self, self.load_w8(x), out);
    }
    #[inline(always)]
    fn load_prepared(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        self.load_signed_w8(x)
    }
    #[inline(always)]
    fn splat_a4(self, x: &[i8; 4]) -> __m256i {
        // SAFETY: `x` is 4 bytes, read without alignment; every bit pattern is an i32.
        let codes = unsafe { x.as_ptr().cast::<i32>().read_unaligned() };
        isa!(_mm256_set1_epi32(codes))
    }
    #[inline(always)]
    fn dot4(self, acc: Self::I32, w: Self::W8, a: __m256i) -> Self::I32 {
        let a = [a; 2];
        if VNNI {
            return both!(_mm256_dpbusd_avx_epi32(acc, w, a));
        }
        // |w| does not depend on the activations: once for all rows of a tile.
        let (w, a) = (both!(_mm256_abs_epi8(w)), both!(_mm256_sign_epi8(a, w)));
        both!(maddubs_dot(acc, w, a))
    }

    #[inline(always)]
    fn load_signed_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        let x = halves::<i8, 32>(x);
        both!(load_32(x))
    }
    #[inline(always)]
    fn dot4_positive(self, acc: Self::I32, w: Self::W8, a: __m256i) -> Self::I32 {
        // The activations are the unsigned side.
        let a = [a; 2];
        if VNNI { both!(_mm256_dpbusd_avx_epi32(acc, a, w)) } else { both!(maddubs_dot(acc, a, w)) }
    }
    #[inline(always)]
    fn load_u4(self, x: &[u8; 4 * LANES]) -> (Self::W8, Self::W8) {
        isa!(|x: &[u8; 4 * LANES]| -> (Pair<__m256i>, Pair<__m256i>) {
            let mask = _mm256_set1_epi8(15);
            let [first, second] = halves::<u8, 32>(x);
            let (first, second) = (load_32(first), load_32(second));
            (
                [_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)],
                [
                    _mm256_and_si256(_mm256_srli_epi32::<4>(first), mask),
                    _mm256_and_si256(_mm256_srli_epi32::<4>(second), mask),
                ],
            )
        })
    }
    #[inline(always)]
    fn load_u6(self, x: &[[u8; 4 * LANES]; 3]) -> [Self::W8; 4] {
        let [first, second, upper] = [load_line(self, &x[0]), load_line(self, &x[1]), load_line(self, &x[2])];
        let (first_high, second_high) =
            (both!(_mm256_srli_epi32::<4>(first)), both!(_mm256_srli_epi32::<4>(second)));
        let (a, b) = (both!(_mm256_slli_epi32::<4>(upper)), both!(_mm256_slli_epi32::<2>(upper)));
        let d = both!(_mm256_srli_epi32::<2>(upper));
        [
            both!(join(first, a)),
            both!(join(first_high, b)),
            both!(join(second, upper)),
            both!(join(second_high, d)),
        ]
    }
    #[inline(always)]
    fn dot4_u4(self, acc: Self::I32, w: Self::W8, a: __m256i) -> Self::I32 {
        if VNNI {
            return self.dot4(acc, w, a);
        }
        // Two products of at most 63 * 127 fit 16 bits; the weights are the unsigned side.
        let a = [a; 2];
        both!(maddubs_dot(acc, w, a))
    }
    #[inline(always)]
    fn dot4_short(self, acc: Self::I32, w: Self::W8, a: __m256i) -> Self::I32 {
        // 16 bits hold eight times two products of at most 15 * 127.
        let a = [a; 2];
        let products = both!(_mm256_maddubs_epi16(w, a));
        both!(_mm256_add_epi16(acc, products))
    }
    #[inline(always)]
    fn add_short(self, acc: Self::I32, sums: Self::I32) -> Self::I32 {
        let ones = [isa!(_mm256_set1_epi16(1)); 2];
        let sums = both!(_mm256_madd_epi16(sums, ones));
        self.add_i32(acc, sums)
    }
    #[inline(always)]
    fn unpack_u4(self, x: &[u8; 4 * LANES], zero: i8, low: &mut [i8; 4 * LANES], high: &mut [i8; 4 * LANES]) {
        let (a, b) = self.load_u4(x);
        let zero = [isa!(_mm256_set1_epi8(zero)); 2];
        store_bytes(self, both!(_mm256_sub_epi8(a, zero)), low);
        store_bytes(self, both!(_mm256_sub_epi8(b, zero)), high);
    }
    #[inline(always)]
    fn unpack_u6(self, x: &[[u8; 4 * LANES]; 3], zero: i8, out: [&mut [i8; 4 * LANES]; 4]) {
        let zero = [isa!(_mm256_set1_epi8(zero)); 2];
        for (codes, out) in self.load_u6(x).into_iter().zip(out) {
            store_bytes(self, both!(_mm256_sub_epi8(codes, zero)), out);
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        isa!(_mm_prefetch::<_MM_HINT_T0>(p.cast()));
    }
}
