//! int4 panels: layout, quantization of float rows, stored rows; and the scales of groups, which int8 codes have too.
//!
//! ```text
//! K8N16   8 k x 16 columns = 64 bytes    k padded to 8
//! ```
//! Byte `4 * column + i` holds k `i` in its low and k `4 + i` in its high four bits: two k-blocks of an int8 panel in one.
//! A code is 0..=15; [`GroupScales`] says what it stands for. Groups are multiples of 8.

use super::codes::WeightRow;
use super::quantize::amax;
use super::scale_lines::{ScaleLines, for_scales};
use super::simd::{LANES, Scalar};
use super::{Kernel, Result, Simd};
use crate::error::Error;

/// How the scales of int4 groups, and of int8 groups that are used as stored, are kept: per panel, in lines of 16 u16, one for
/// each column. So all formats that weights are published in are used without rounding. int8 codes are signed: read `code` for
/// `code - 8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupScales {
    /// `(code - 8) * scale`, bf16: what float weights are quantized to. 1 line per group.
    Bf16,
    /// `(code - 8) * scale`, f16: GGUF Q4_0, and GPTQ and AWQ where they are symmetric. 1 line per group.
    F16,
    /// `(code - 8) * scale`, f32: GGUF Q6_K, whose scale is a product. 2 lines per group.
    F32,
    /// `code * scale + min`, both f16: GGUF Q4_1. 2 lines per group.
    F16Min,
    /// `code * scale + min`, both f32: GPTQ and AWQ, whose `min = -scale * zero` f32 holds exactly. 4 lines per group.
    F32Min,
    /// `code * (d * s) + (0 - dmin * m)`: GGUF Q4_K. For eight groups: a line of f16 `d`, one of f16 `dmin`, and for each
    /// group a line with 16 bytes of `s` and 16 of `m`, both below 64. The products are exact in f32.
    Superblock,
}

impl GroupScales {
    /// What is subtracted from a code before it is multiplied.
    pub(super) fn zero(self) -> i8 {
        match self {
            GroupScales::Bf16 | GroupScales::F16 | GroupScales::F32 => 8,
            GroupScales::F16Min | GroupScales::F32Min | GroupScales::Superblock => 0,
        }
    }

    /// Whether there are minima.
    pub(super) fn minimum(self) -> bool {
        matches!(self, GroupScales::F16Min | GroupScales::F32Min | GroupScales::Superblock)
    }

    /// Lines of `groups` groups of a panel; none on overflow.
    pub(super) fn checked_lines(self, groups: usize) -> Option<usize> {
        match self {
            GroupScales::Bf16 | GroupScales::F16 => Some(groups),
            GroupScales::F32 | GroupScales::F16Min => groups.checked_mul(2),
            GroupScales::F32Min => groups.checked_mul(4),
            GroupScales::Superblock => groups.div_ceil(8).checked_mul(2)?.checked_add(groups),
        }
    }

    /// As [`checked_lines`](Self::checked_lines) for a matrix that exists.
    pub(super) fn lines(self, groups: usize) -> usize {
        self.checked_lines(groups).expect("a packed matrix has been counted")
    }
}

/// The line of a group under [`GroupScales::Superblock`], and the first of the two lines of its `d` and `dmin`.
pub(super) fn superblock_lines(group: usize) -> (usize, usize) {
    let first = group / 8 * 10;
    (first + 2 + group % 8, first)
}

/// The scales of a stored group in one row, as they are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoredScale {
    /// Bits of bf16 or f16.
    One(u16),
    /// Scale.
    Float(f32),
    /// Bits of f16: scale, minimum.
    Two([u16; 2]),
    /// Scale, minimum.
    Floats([f32; 2]),
    /// Bits of f16: `d` and `dmin`, the same for the eight groups that share them; `s` and `m`.
    Superblock([u16; 2], [u8; 2]),
}

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

/// Puts the scales of row `row` of a source into `column` of the lines of a panel.
///
/// # Errors
/// `InvalidWeights` for another number of scales than `groups`; as [`put_scale`].
pub(super) fn put_scales(
    kind: GroupScales,
    lines: &mut [[u16; LANES]],
    (row, column, groups): (usize, usize, usize),
    scales: &[StoredScale],
) -> Result<()> {
    if scales.len() != groups {
        let message = format!("row {row}: expected {groups} scales, found {}", scales.len());
        return Err(Error::invalid_row(row, message));
    }
    let mut scales = scales.iter().enumerate();
    scales.try_for_each(|(g, scale)| put_scale(kind, lines, g, column, *scale))
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

/// # Errors
/// `Internal` when the source gives another kind of scale than its format has.
fn put_scale(
    kind: GroupScales,
    lines: &mut [[u16; LANES]],
    g: usize,
    column: usize,
    scale: StoredScale,
) -> Result<()> {
    match (kind, scale) {
        (GroupScales::Bf16 | GroupScales::F16, StoredScale::One(bits)) => lines[g][column] = bits,
        (GroupScales::F32, StoredScale::Float(value)) => {
            put_float(&mut lines[2 * g..][..2], column, value);
        }
        (GroupScales::F16Min, StoredScale::Two(bits)) => {
            lines[2 * g][column] = bits[0];
            lines[2 * g + 1][column] = bits[1];
        }
        (GroupScales::F32Min, StoredScale::Floats(values)) => {
            for (i, value) in values.into_iter().enumerate() {
                put_float(&mut lines[4 * g + 2 * i..][..2], column, value);
            }
        }
        (GroupScales::Superblock, StoredScale::Superblock(d, s)) => {
            let (line, first) = superblock_lines(g);
            for i in 0..2 {
                lines[first + i][column] = d[i];
                let half = &mut lines[line][8 * i..][..8];
                let shift = column % 2 * 8;
                half[column / 2] = half[column / 2] & !(0xff << shift) | u16::from(s[i]) << shift;
            }
        }
        (kind, scale) => {
            return Err(Error::Internal(format!("rows with {kind:?} scales gave {scale:?}")));
        }
    }
    Ok(())
}

/// An f32 in two lines.
fn put_float(lines: &mut [[u16; LANES]], column: usize, value: f32) {
    let (lines, bits) = (lines.as_flattened_mut(), value.to_bits());
    // Little-endian whatever the machine, like all panels.
    (lines[2 * column], lines[2 * column + 1]) = (bits as u16, (bits >> 16) as u16);
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
