//! int4 panels: layout, quantization of float rows, stored codes.
//!
//! ```text
//! K8N16   8 k x 16 columns = 64 bytes    k padded to 8
//! ```
//! Byte `4 * column + i` holds k `i` in its low and k `4 + i` in its high four bits: two k-blocks of an int8 panel in one.
//! A code is 0..=15; [`GroupScales`](super::GroupScales) says what it stands for. Groups are multiples of 8.

use super::quantize::{WeightRow, amax};
use super::simd::LANES;
use super::{Kernel, Result, Simd};
use crate::error::Error;

/// Checks the codes of a stored row.
///
/// # Errors
/// `InvalidWeights` for codes that four bits do not hold.
pub(super) fn check_codes(row: usize, codes: &[i8]) -> Result<()> {
    match codes.iter().find(|code| !(0..16).contains(*code)) {
        None => Ok(()),
        Some(code) => {
            let message = format!("row {row}: expected int4 codes in 0..=15, found {code}");
            Err(Error::invalid_row(row, message))
        }
    }
}

/// 16 rows of codes, each whole k-blocks, to a panel.
pub(super) fn interleave(rows: &[i8], panel: &mut [u8]) {
    let lines = rows.len() / LANES / 8;
    for (at, line) in panel.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for column in 0..LANES {
            let codes = &rows[(column * lines + at) * 8..][..8];
            for i in 0..4 {
                line[4 * column + i] = codes[i] as u8 | (codes[4 + i] as u8) << 4;
            }
        }
    }
}

/// One row of weights: codes 0..=15 and bf16 scales for `(code - 8) * scale`; whether all weights are finite.
///
/// Of the scales `+-amax / 7.0, 7.5, 8.0, 8.5`, rounded to bf16, the one whose codes `round(w * (1 / scale))`, in -8..=7,
/// have the least squared error; then, unless it is worse, the scale that fits these codes best, `sum w q / sum q q`.
pub(super) struct QuantizeInt4;
impl Kernel for QuantizeInt4 {
    type Args<'a> = WeightRow<'a>;
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(s: S, WeightRow { x, group, codes, scales }: WeightRow<'_>) -> bool {
        let mut finite = true;
        for ((x, codes), scale) in x.chunks(group).zip(codes.chunks_mut(group)).zip(scales) {
            let (amax, poison) = amax(s, x);
            finite &= poison == 0.0;
            // Its bf16 is a normal number with a finite reciprocal, and so are those of the other candidates.
            if poison != 0.0 || amax / 16.0 < f32::MIN_POSITIVE {
                *scale = 0;
                codes.fill(8);
                continue;
            }
            let mut best = Fit { scale: 0.0, error: f32::INFINITY, refit: 0.0 };
            let mut d = 7.0;
            while d < 9.0 {
                best = better(best, fit(s, x, to_bf16(amax / d), amax));
                best = better(best, fit(s, x, to_bf16(-amax / d), amax));
                d += 0.5;
            }
            let refit = to_bf16(best.scale * best.refit);
            if refit.abs() >= amax / 16.0 {
                best = better(best, fit(s, x, refit, amax));
            }
            *scale = (best.scale.to_bits() >> 16) as u16;
            write_codes(s, x, 1.0 / best.scale, codes);
        }
        finite
    }
}

/// How well a scale fits a group.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    /// Squared error of `w / amax`: relative, so that it neither overflows nor vanishes.
    error: f32,
    /// The factor by which another scale would fit the codes better.
    refit: f32,
}

#[inline(always)]
fn better(best: Fit, other: Fit) -> Fit {
    if other.error < best.error { other } else { best }
}

/// To nearest, ties to even; finite.
#[inline(always)]
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// `w / scale` of 16 weights, and the code as a float.
#[inline(always)]
fn code<S: Simd>(s: S, w: S::F32, inverse: f32) -> (S::F32, S::F32) {
    let ratio = s.mul(w, s.splat(inverse));
    let clamped = s.min(s.max(ratio, s.splat(-8.0)), s.splat(7.0));
    (ratio, s.i32_to_f32(s.round_to_i32(clamped)))
}

#[inline(always)]
fn fit<S: Simd>(s: S, x: &[f32], scale: f32, amax: f32) -> Fit {
    let inverse = 1.0 / scale;
    let (mut error, mut wq, mut qq) = (s.zero(), s.zero(), s.zero());
    let mut start = 0;
    while start < x.len() {
        // Lanes beyond the end are zero and add nothing.
        let w = s.load_partial(&x[start..(start + LANES).min(x.len())]);
        let (ratio, code) = code(s, w, inverse);
        let difference = s.sub(ratio, code);
        error = s.fma(difference, difference, error);
        wq = s.fma(ratio, code, wq);
        qq = s.fma(code, code, qq);
        start += LANES;
    }
    let relative = scale / amax;
    Fit {
        scale,
        error: s.reduce_add(error) * (relative * relative),
        refit: s.reduce_add(wq) / s.reduce_add(qq),
    }
}

#[inline(always)]
fn write_codes<S: Simd>(s: S, x: &[f32], inverse: f32, codes: &mut [i8]) {
    let mut start = 0;
    while start < x.len() {
        let end = (start + LANES).min(x.len());
        let (_, code) = code(s, s.load_partial(&x[start..end]), inverse);
        let mut lanes = [0; LANES];
        s.store_i8(s.add_i32(s.round_to_i32(code), s.splat_i32(8)), &mut lanes);
        codes[start..end].copy_from_slice(&lanes[..end - start]);
        start = end;
    }
}
