//! The scales of groups of codes, int4 and int8: what they stand for, and how those of stored rows get into panels.

use super::Result;
use super::simd::LANES;
use crate::error::Error;

/// How the scales of int4 groups, and of int8 groups that are used as stored, are kept: per panel, in lines of 16 u16, one for
/// each column. So all formats that weights are published in are used without rounding. Read `code` for `code - 8` where codes
/// have eight bits, which are signed, and `code - 32` where they have six.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupScales {
    /// `(code - 8) * scale`, bf16: what float weights are quantized to. 1 line per group.
    Bf16,
    /// `(code - 8) * scale`, f16: GGUF Q4_0, and GPTQ and AWQ where they are symmetric. 1 line per group.
    F16,
    /// `(code - 8) * scale`, f32: GGUF IQ4_XS, whose scale is a product. 2 lines per group.
    F32,
    /// `code * scale + min`, both f16: GGUF Q4_1. 2 lines per group.
    F16Min,
    /// `code * scale + min`, both f32: GPTQ and AWQ, whose `min = -scale * zero` f32 holds exactly. 4 lines per group.
    F32Min,
    /// `code * (d * s) + (0 - dmin * m)`: GGUF Q4_K. For eight groups: a line of f16 `d`, one of f16 `dmin`, and for each
    /// group a line with 16 bytes of `s` and 16 of `m`, both below 64. The products are exact in f32.
    Superblock,
    /// `(code - 8) * (d * s)`: GGUF Q6_K and Q3_K. For sixteen groups: a line of f16 `d`, and for every two groups a line with
    /// 16 bytes `s + 128` of the one and 16 of the other. The products are exact in f32.
    Superblock16,
}

impl GroupScales {
    /// What is subtracted from a code of four bits before it is multiplied.
    pub(super) const fn zero(self) -> i8 {
        match self {
            GroupScales::Bf16 | GroupScales::F16 | GroupScales::F32 | GroupScales::Superblock16 => 8,
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
            GroupScales::Superblock16 => Some(groups.div_ceil(16) + groups.div_ceil(2)),
        }
    }

    /// As [`checked_lines`](Self::checked_lines) for a matrix that exists.
    pub(super) fn lines(self, groups: usize) -> usize {
        self.checked_lines(groups).expect("a packed matrix has been counted")
    }
}

/// The lines of a group under [`GroupScales::Superblock`].
pub(super) struct SuperblockPlace {
    /// That of its `s` and `m`.
    pub(super) own: usize,
    /// The first of the two lines of `d` and `dmin`.
    pub(super) shared: usize,
}

/// Where the scales of group `group` are.
pub(super) fn superblock_place(group: usize) -> SuperblockPlace {
    let shared = group / 8 * 10;
    SuperblockPlace { own: shared + 2 + group % 8, shared }
}

/// The lines of a group under [`GroupScales::Superblock16`].
pub(super) struct Superblock16Place {
    /// That of its `s` and its neighbour's.
    pub(super) own: usize,
    /// Which half of that line is its own.
    pub(super) half: usize,
    /// The line of `d`.
    pub(super) shared: usize,
}

/// Where the scales of group `group` are.
pub(super) fn superblock16_place(group: usize) -> Superblock16Place {
    let shared = group / 16 * 9;
    Superblock16Place { own: shared + 1 + group % 16 / 2, half: group % 2, shared }
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
    /// Bits of f16: `d`, the same for the sixteen groups that share it; `s`.
    Superblock16(u16, i8),
}

/// Where the scales of a stored row come from, and where they go.
pub(super) struct ScalesPlace {
    /// Row of the source, for messages.
    pub(super) row: usize,
    /// Column of the panel.
    pub(super) column: usize,
    /// Groups of the row.
    pub(super) groups: usize,
}

/// Puts the scales of a row of a source into a column of the lines of a panel.
///
/// # Errors
/// `InvalidWeights` for another number of scales than `groups`; as [`put_scale`].
pub(super) fn put_scales(
    kind: GroupScales,
    lines: &mut [[u16; LANES]],
    place: ScalesPlace,
    scales: &[StoredScale],
) -> Result<()> {
    let ScalesPlace { row, column, groups } = place;
    if scales.len() != groups {
        let message = format!("row {row}: expected {groups} scales, found {}", scales.len());
        return Err(Error::invalid_row(row, message));
    }
    let mut scales = scales.iter().enumerate();
    scales.try_for_each(|(g, scale)| put_scale(kind, lines, g, column, *scale))
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
            let SuperblockPlace { own, shared } = superblock_place(g);
            for i in 0..2 {
                lines[shared + i][column] = d[i];
                put_byte(&mut lines[own], i, column, s[i]);
            }
        }
        (GroupScales::Superblock16, StoredScale::Superblock16(d, s)) => {
            let Superblock16Place { own, half, shared } = superblock16_place(g);
            lines[shared][column] = d;
            put_byte(&mut lines[own], half, column, (i16::from(s) + 128) as u8);
        }
        (kind, scale) => {
            return Err(Error::Internal(format!("rows with {kind:?} scales gave {scale:?}")));
        }
    }
    Ok(())
}

/// A byte in half `half` of a line.
fn put_byte(line: &mut [u16; LANES], half: usize, column: usize, byte: u8) {
    let (at, shift) = (LANES / 2 * half + column / 2, column % 2 * 8);
    line[at] = line[at] & !(0xff << shift) | u16::from(byte) << shift;
}

/// An f32 in two lines.
fn put_float(lines: &mut [[u16; LANES]], column: usize, value: f32) {
    let (lines, bits) = (lines.as_flattened_mut(), value.to_bits());
    // Little-endian whatever the machine, like all panels.
    (lines[2 * column], lines[2 * column + 1]) = (bits as u16, (bits >> 16) as u16);
}
