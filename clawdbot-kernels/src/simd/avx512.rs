//! [`Simd`] on AVX-512 with VNNI: one 512-bit register per vector.

use std::arch::x86_64::*;

use super::{LANES, Simd};
use crate::memory::Pod;

/// Proof of the features that `isa.rs` lists for it.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU must have the features that `isa.rs` lists for this type.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Avx512(())
    }
}

/// Calls an intrinsic, or runs a block of them in a function that is compiled with the features of the token.
macro_rules! isa {
    (|$($x:ident: $type:ty),+| -> $out:ty $body:block) => {{
        #[inline]
        #[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
        #[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
        fn body($($x: $type),+) -> $out $body
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has these features.
        unsafe { body($($x),+) }
    }};
    ($call:expr) => {
        // SAFETY: the methods of `Simd` take the token, whose constructor promises that the CPU has the instruction. A pointer is
        // that of an array as long as what the instruction reads or writes, without alignment; of a slice, where a mask
        // leaves out the lanes after its end.
        unsafe { $call }
    };
}

/// The 64 bytes of `N` integers.
#[inline]
#[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
#[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
fn load_64<T: Pod, const N: usize>(x: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == 64) };
    // SAFETY: `x` is 64 bytes, as asserted, read without alignment; `T: Pod` has no padding.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// 64 bytes to `N` integers.
#[inline]
#[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
#[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
fn store_64<T: Pod, const N: usize>(v: __m512i, out: &mut [T; N]) {
    const { assert!(size_of::<[T; N]>() == 64) };
    // SAFETY: `out` is 64 bytes, as asserted, written without alignment; `T: Pod` has every bit pattern.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}

/// Sixteen bf16 or f16, by their bits.
#[inline]
#[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
#[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
fn load_32(x: &[u16; LANES]) -> __m256i {
    // SAFETY: `x` is 32 bytes, read without alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// The mask of the first `count` lanes.
#[inline(always)]
fn below(count: usize) -> __mmask16 {
    ((1_u32 << count.min(LANES)) - 1) as __mmask16
}

/// See [`Simd::butterfly`].
#[inline]
#[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
#[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
fn butterfly<const STRIDE: usize>(v: __m512) -> __m512 {
    let (swapped, differences) = match STRIDE {
        1 => (_mm512_permute_ps::<0b10_11_00_01>(v), 0xaaaa),
        2 => (_mm512_permute_ps::<0b01_00_11_10>(v), 0xcccc),
        4 => (_mm512_shuffle_f32x4::<0b10_11_00_01>(v, v), 0xf0f0),
        _ => (_mm512_shuffle_f32x4::<0b01_00_11_10>(v, v), 0xff00),
    };
    _mm512_mask_sub_ps(_mm512_add_ps(v, swapped), differences, swapped, v)
}

/// Codes of six bits: the low four of a byte of `low`, and the next two of one of `upper`.
#[inline]
#[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
#[target_feature(enable = "avx512vnni", enable = "avx2", enable = "fma", enable = "f16c")]
fn join(low: __m512i, upper: __m512i) -> __m512i {
    let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
    _mm512_or_si512(low, _mm512_and_si512(upper, _mm512_set1_epi8(48)))
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type W8 = __m512i;
    type A4 = __m512i;

    /// `vpdpbusd` multiplies unsigned by signed bytes: weights take the unsigned side.
    const FLIPPED: bool = true;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        isa!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // 64 bytes, read without alignment.
        isa!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // 64 bytes, written without alignment.
        isa!(_mm512_storeu_ps(out.as_mut_ptr(), v));
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m512 {
        // Lanes from `x.len()` on are masked off: they are not accessed.
        isa!(_mm512_maskz_loadu_ps(below(x.len()), x.as_ptr()))
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, out: &mut [f32]) {
        // Lanes from `out.len()` on are masked off: they are not accessed.
        isa!(_mm512_mask_storeu_ps(out.as_mut_ptr(), below(out.len()), v));
    }
    #[inline(always)]
    fn select_below(self, count: usize, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_mask_blend_ps(below(count), b, a))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        isa!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        isa!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        isa!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn any_above(self, a: __m512, b: __m512) -> bool {
        isa!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b)) != 0
    }
    #[inline(always)]
    fn reduce_add(self, v: __m512) -> f32 {
        isa!(|v: __m512| -> f32 {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        isa!(|v: __m512| -> f32 {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, v: __m512) -> __m512 {
        isa!(butterfly::<STRIDE>(v))
    }

    #[inline(always)]
    fn round_to_i32(self, v: __m512) -> __m512i {
        // With the rounding of MXCSR, which Rust requires to be nearest-even.
        isa!(_mm512_cvtps_epi32(v))
    }
    #[inline(always)]
    fn i32_to_f32(self, v: __m512i) -> __m512 {
        isa!(_mm512_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn pow2(self, n: __m512i) -> __m512 {
        isa!(|n: __m512i| -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127))))
        })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        isa!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> __m512i {
        isa!(load_64(x))
    }
    #[inline(always)]
    fn store_i32(self, v: __m512i, out: &mut [i32; LANES]) {
        isa!(store_64(v, out));
    }
    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        isa!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        isa!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn half_i32(self, v: __m512i) -> __m512i {
        isa!(_mm512_srai_epi32::<1>(v))
    }
    #[inline(always)]
    fn times_128_i32(self, v: __m512i) -> __m512i {
        isa!(_mm512_slli_epi32::<7>(v))
    }
    #[inline(always)]
    fn reduce_add_i32(self, v: __m512i) -> i32 {
        isa!(_mm512_reduce_add_epi32(v))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        isa!(|x: &[u16; LANES]| -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_32(x))))
        })
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u16; 2 * LANES]) -> (__m512, __m512) {
        isa!(|x: &[u16; 2 * LANES]| -> (__m512, __m512) {
            let pairs = load_64(x);
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd))
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        isa!(|x: &[u16; LANES]| -> __m512 { _mm512_cvtph_ps(load_32(x)) })
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512i {
        isa!(|x: &[u8; LANES]| -> __m512i {
            // SAFETY: `x` is 16 bytes, read without alignment.
            _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
        })
    }
    #[inline(always)]
    fn store_bf16(self, v: __m512, out: &mut [u16; LANES]) {
        isa!(|v: __m512, out: &mut [u16; LANES]| -> () {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_set1_epi32(0x40_0000);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, quiet);
            let narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            // SAFETY: `out` is 32 bytes, written without alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), narrow) };
        });
    }
    #[inline(always)]
    fn store_u14(self, v: [__m512i; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]) {
        isa!(|v: [__m512i; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]| -> () {
            // The packs interleave 128-bit quarters; 32-bit lane i of their result belongs at i / 4 + i % 4 * 4.
            let (a, b) = (_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
            let upper = _mm512_packus_epi16(_mm512_srli_epi16::<7>(a), _mm512_srli_epi16::<7>(b));
            let mask = _mm512_set1_epi16(127);
            let lower = _mm512_packus_epi16(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            store_64(_mm512_permutexvar_epi32(order, upper), high);
            store_64(_mm512_permutexvar_epi32(order, lower), low);
        });
    }
    #[inline(always)]
    fn store_i8(self, v: __m512i, out: &mut [i8; LANES]) {
        let bytes = isa!(_mm512_cvtepi32_epi8(v));
        // 16 bytes, written without alignment.
        isa!(_mm_storeu_si128(out.as_mut_ptr().cast(), bytes));
    }

    #[inline(always)]
    fn load_w8(self, x: &[i8; 4 * LANES]) -> __m512i {
        isa!(|x: &[i8; 4 * LANES]| -> __m512i { _mm512_xor_si512(load_64(x), _mm512_set1_epi8(-128)) })
    }
    #[inline(always)]
    fn prepare_w8(self, x: &[i8; 4 * LANES], out: &mut [i8; 4 * LANES]) {
        isa!(store_64(self.load_w8(x), out));
    }
    #[inline(always)]
    fn load_prepared(self, x: &[i8; 4 * LANES]) -> __m512i {
        isa!(load_64(x))
    }
    #[inline(always)]
    fn splat_a4(self, x: &[i8; 4]) -> __m512i {
        // SAFETY: `x` is 4 bytes, read without alignment; every bit pattern is an i32.
        let codes = unsafe { x.as_ptr().cast::<i32>().read_unaligned() };
        isa!(_mm512_set1_epi32(codes))
    }
    #[inline(always)]
    fn dot4(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        isa!(_mm512_dpbusd_epi32(acc, w, a))
    }

    #[inline(always)]
    fn load_signed_w8(self, x: &[i8; 4 * LANES]) -> __m512i {
        isa!(load_64(x))
    }
    #[inline(always)]
    fn dot4_positive(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        // The activations are the unsigned side.
        isa!(_mm512_dpbusd_epi32(acc, a, w))
    }
    #[inline(always)]
    fn load_u4(self, x: &[u8; 4 * LANES]) -> (__m512i, __m512i) {
        isa!(|x: &[u8; 4 * LANES]| -> (__m512i, __m512i) {
            let (both, mask) = (load_64(x), _mm512_set1_epi8(15));
            (_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi32::<4>(both), mask))
        })
    }
    #[inline(always)]
    fn load_u6(self, x: &[[u8; 4 * LANES]; 3]) -> [__m512i; 4] {
        isa!(|x: &[[u8; 4 * LANES]; 3]| -> [__m512i; 4] {
            let (first, second, upper) = (load_64(&x[0]), load_64(&x[1]), load_64(&x[2]));
            [
                join(first, _mm512_slli_epi32::<4>(upper)),
                join(_mm512_srli_epi32::<4>(first), _mm512_slli_epi32::<2>(upper)),
                join(second, upper),
                join(_mm512_srli_epi32::<4>(second), _mm512_srli_epi32::<2>(upper)),
            ]
        })
    }
    #[inline(always)]
    fn dot4_u4(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        self.dot4(acc, w, a)
    }
    #[inline(always)]
    fn unpack_u4(self, x: &[u8; 4 * LANES], zero: i8, low: &mut [i8; 4 * LANES], high: &mut [i8; 4 * LANES]) {
        let (a, b) = self.load_u4(x);
        let zero = isa!(_mm512_set1_epi8(zero));
        let (a, b) = (isa!(_mm512_sub_epi8(a, zero)), isa!(_mm512_sub_epi8(b, zero)));
        isa!(store_64(a, low));
        isa!(store_64(b, high));
    }
    #[inline(always)]
    fn unpack_u6(self, x: &[[u8; 4 * LANES]; 3], zero: i8, out: [&mut [i8; 4 * LANES]; 4]) {
        let zero = isa!(_mm512_set1_epi8(zero));
        for (codes, out) in self.load_u6(x).into_iter().zip(out) {
            let codes = isa!(_mm512_sub_epi8(codes, zero));
            isa!(store_64(codes, out));
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        isa!(_mm_prefetch::<_MM_HINT_T0>(p.cast()));
    }
}
