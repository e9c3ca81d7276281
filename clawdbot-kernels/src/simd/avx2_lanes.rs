//! Steps of [`Simd`](super::Simd) on AVX2 inside of one register.

use std::arch::x86_64::*;

/// `acc + sum of u[i] * s[i]` per four bytes of unsigned `u` and signed `s`, whose products must fit 16 bits in pairs.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
pub(super) fn maddubs_dot(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)))
}

/// `Simd::butterfly` inside of 8 lanes: `STRIDE` is 1, 2 or 4.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
pub(super) fn butterfly<const STRIDE: usize>(v: __m256) -> __m256 {
    let swapped = match STRIDE {
        1 => _mm256_permute_ps::<0b10_11_00_01>(v),
        2 => _mm256_permute_ps::<0b01_00_11_10>(v),
        _ => _mm256_permute2f128_ps::<1>(v, v),
    };
    let (sum, difference) = (_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v));
    match STRIDE {
        1 => _mm256_blend_ps::<0b1010_1010>(sum, difference),
        2 => _mm256_blend_ps::<0b1100_1100>(sum, difference),
        _ => _mm256_blend_ps::<0b1111_0000>(sum, difference),
    }
}

/// `Simd::store_bf16` of 8 lanes, each to the lower half of a lane.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
pub(super) fn narrow(v: __m256) -> __m256i {
    let bits = _mm256_castps_si256(v);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
    _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
}

/// Codes of six bits: the low four of a byte of `low`, and the next two of one of `upper`.
#[inline]
#[target_feature(enable = "avx2", enable = "fma", enable = "f16c")]
pub(super) fn join(low: __m256i, upper: __m256i) -> __m256i {
    let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    _mm256_or_si256(low, _mm256_and_si256(upper, _mm256_set1_epi8(48)))
}
