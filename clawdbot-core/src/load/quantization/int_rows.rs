//! Rows of matrices that are stored as integers.

use std::ops::Range;

use clawdbot_kernels::{ComputeFormat, GroupScales, RowSource, StoredScale};

use super::ints::{AWQ_ORDER, IntTensor, Layout, ZeroTensor, word};
use super::scales::Scales;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::resize;

/// The rows of an integer matrix.
#[derive(Debug)]
pub(super) struct IntMatrix<'a> {
    pub(super) tensor: IntTensor<'a>,
    /// The words of layouts that are not row by row; empty of others.
    pub(super) codes: Vec<u8>,
    pub(super) scales: Scales,
    /// `[n, groups]`, or empty.
    pub(super) zeros: Vec<i16>,
    /// `[k]`
    pub(super) groups: Option<Vec<u32>>,
    pub(super) format: Option<ComputeFormat>,
}

impl<'a> IntMatrix<'a> {
    /// Reads scales, zero points and groups, and codes that are not row by row.
    ///
    /// # Errors
    /// As `TensorView::read`; `InvalidModel` for scales that are not finite and groups that do not exist.
    pub(super) fn read(tensor: IntTensor<'a>) -> Result<Self> {
        let format = tensor.compute_format();
        let scales = tensor.scales.read()?;
        let zeros = read_zeros(&tensor)?;
        let groups = read_groups(&tensor)?;
        let codes = match tensor.layout {
            Layout::Bytes | Layout::Rows => {
                tensor.codes.file.will_need(tensor.codes.range.clone());
                Vec::new()
            }
            Layout::Gptq | Layout::Awq => tensor.codes.read()?,
        };
        Ok(IntMatrix { tensor, codes, scales, zeros, groups, format })
    }
}

impl IntMatrix<'_> {
    /// The codes of row `row`, `[k]`.
    fn row_codes(&self, row: usize, stored: &[u8], out: &mut [i8]) {
        let (n, bits) = (self.tensor.n, self.tensor.bits);
        match (self.tensor.layout, bits) {
            (Layout::Bytes, _) => {
                for (out, &byte) in out.iter_mut().zip(stored) {
                    *out = byte as i8;
                }
            }
            (Layout::Rows, 4) => {
                for (pair, &byte) in out.chunks_mut(2).zip(stored) {
                    for (half, out) in pair.iter_mut().enumerate() {
                        *out = (byte >> (4 * half) & 15) as i8 - 8;
                    }
                }
            }
            (Layout::Rows, _) => {
                for (out, &byte) in out.iter_mut().zip(stored) {
                    *out = (byte ^ 0x80) as i8;
                }
            }
            (Layout::Gptq, 4) => {
                for (block, out) in out.chunks_mut(8).enumerate() {
                    let word = word(&self.codes, block * n + row);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = (word >> (4 * i) & 15) as i8 - 8;
                    }
                }
            }
            (Layout::Gptq, _) => {
                for (block, out) in out.chunks_mut(4).enumerate() {
                    let bytes = word(&self.codes, block * n + row).to_le_bytes();
                    for (out, byte) in out.iter_mut().zip(bytes) {
                        *out = (byte ^ 0x80) as i8;
                    }
                }
            }
            (Layout::Awq, _) => {
                let (words, shift) = (n.div_ceil(8), 4 * AWQ_ORDER[row % 8]);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = (word(&self.codes, i * words + row / 8) >> shift & 15) as i8 - 8;
                }
            }
        }
    }

    fn zero(&self, row: usize, group: usize) -> i16 {
        self.zeros.get(row * self.tensor.scales.groups + group).copied().unwrap_or(0)
    }

    fn value(&self, row: usize, group: usize, code: i8) -> f32 {
        f32::from(i16::from(code) - self.zero(row, group)) * self.scales.value(row, group)
    }

    /// The stored groups of a row that is computed in groups of `computed`.
    fn computed_groups(&self, row: usize, computed: usize) -> Result<impl Iterator<Item = StoredGroup>> {
        let IntTensor { k, symmetric, ref codes, ref scales, .. } = self.tensor;
        let refused = |what: &str| {
            let message = format!(
                "{what}, which the configuration does not say: load it with another weight type than stored"
            );
            Err(codes.error(ErrorKind::InvalidModel, message))
        };
        if self.groups.is_some() {
            return refused("the inputs are in groups in an order of their own");
        }
        let count = scales.groups;
        if symmetric && (0..count).any(|group| self.zero(row, group) != 0) {
            return refused("there is a zero point other than the middle");
        }
        let group = scales.block.columns.unwrap_or(usize::MAX);
        let zeros = (0..k).step_by(computed).map(move |start| {
            let group = start / group;
            StoredGroup { group, zero: self.zero(row, group) }
        });
        Ok(zeros)
    }

    /// The codes and scales of row `row` as `wanted`.
    fn stored_codes(
        &self,
        row: usize,
        stored: &[u8],
        wanted: StoredCodes,
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> Result<()> {
        let StoredCodes { group, scales: kind, least } = wanted;
        self.row_codes(row, stored, codes);
        codes.iter_mut().for_each(|code| *code -= least);
        for StoredGroup { group: from, zero } in self.computed_groups(row, group)? {
            scales.push(match kind {
                GroupScales::Bf16 | GroupScales::F16 => StoredScale::One(self.scales.bits(row, from)?),
                GroupScales::F32 => StoredScale::Float(self.scales.value(row, from)),
                GroupScales::F32Min => {
                    let scale = self.scales.value(row, from);
                    StoredScale::Floats([scale, f32::from(i16::from(least) - zero) * scale])
                }
                GroupScales::F16Min | GroupScales::Superblock | GroupScales::Superblock16 => {
                    return Err(Error::internal("integer matrices have no such scales"));
                }
            });
        }
        Ok(())
    }
}

/// The stored group that a group is part of.
struct StoredGroup {
    group: usize,
    /// What is added to a code.
    zero: i16,
}

/// How codes and scales are computed with.
struct StoredCodes {
    /// Codes that share a scale.
    group: usize,
    scales: GroupScales,
    /// The smallest code, which counts as 0.
    least: i8,
}

/// `[n, groups]`; empty where all are 0.
fn read_zeros(matrix: &IntTensor<'_>) -> Result<Vec<i16>> {
    let Some(zeros) = &matrix.zeros else { return Ok(Vec::new()) };
    let (n, groups, bits) = (matrix.n, matrix.scales.groups, matrix.bits);
    let (per_word, middle, mask) = ((32 / bits) as usize, 1 << (bits - 1), (1_u32 << bits) - 1);
    let field = |word: u32, at: u32| (word >> (bits * at) & mask) as i16 - middle;
    let bytes = match zeros {
        ZeroTensor::Bytes(tensor)
        | ZeroTensor::AlongOutputs(tensor)
        | ZeroTensor::Gptq(tensor, _)
        | ZeroTensor::Awq(tensor) => tensor.read()?,
    };
    let mut out = Vec::new();
    // No overflow: there are as many codes, and scales.
    out.try_reserve_exact(n * groups).map_err(|_| {
        Error::new(ErrorKind::OutOfBudget, format!("there is no memory for {n} x {groups} zero points"))
    })?;
    for row in 0..n {
        for group in 0..groups {
            out.push(match zeros {
                ZeroTensor::Bytes(_) => {
                    i16::from(bytes[row / matrix.scales.block.rows * groups + group] as i8)
                }
                ZeroTensor::AlongOutputs(_) => {
                    field(word(&bytes, row / per_word * groups + group), (row % per_word) as u32)
                }
                ZeroTensor::Gptq(_, ones) => {
                    let word = word(&bytes, group * n.div_ceil(per_word) + row / per_word);
                    field(word.wrapping_add(*ones), (row % per_word) as u32)
                }
                ZeroTensor::Awq(_) => {
                    field(word(&bytes, group * n.div_ceil(8) + row / 8), AWQ_ORDER[row % 8])
                }
            });
        }
    }
    Ok(out)
}

/// The group of each input, where that is not its place.
fn read_groups(matrix: &IntTensor<'_>) -> Result<Option<Vec<u32>>> {
    let Some(tensor) = &matrix.g_idx else { return Ok(None) };
    let bytes = tensor.read()?;
    let mut groups: Vec<i32> =
        bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    let group = matrix.scales.block.columns.unwrap_or(usize::MAX);
    // So compressed-tensors writes that there is no order.
    if groups.iter().all(|&group| group == -1) {
        groups.clear();
    }
    if groups.iter().enumerate().all(|(i, &found)| usize::try_from(found) == Ok(i / group)) {
        return Ok(None);
    }
    let count = matrix.scales.groups;
    let invalid = |&&group: &&i32| usize::try_from(group).is_ok_and(|group| group < count);
    match groups.iter().find(|group| !invalid(group)) {
        None => Ok(Some(groups.into_iter().map(|group| group as u32).collect())),
        Some(group) => {
            let message = format!("expected groups from 0 to {}, found {group}", count.saturating_sub(1));
            Err(tensor.error(ErrorKind::InvalidModel, message))
        }
    }
}

impl RowSource for IntMatrix<'_> {
    fn rows(&self) -> usize {
        self.tensor.n
    }

    fn cols(&self) -> usize {
        self.tensor.k
    }

    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        let IntTensor { n, k, bits, layout, ref codes, .. } = self.tensor;
        assert!(rows.start <= rows.end && rows.end <= n, "rows {rows:?} of {n}");
        let row = match layout {
            Layout::Bytes => k,
            // No overflow: the tensor has that shape.
            Layout::Rows => k.div_ceil((32 / bits) as usize) * 4,
            Layout::Gptq | Layout::Awq => 0,
        };
        resize(buffer, rows.len() * row)?;
        Ok(codes.file.read_at(codes.range.start + rows.start * row, buffer)?)
    }

    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        let mut codes = vec![0; out.len()];
        self.row_codes(row, stored, &mut codes);
        match &self.groups {
            Some(groups) => {
                for ((out, &code), &group) in out.iter_mut().zip(&codes).zip(groups) {
                    *out = self.value(row, group as usize, code);
                }
            }
            None => {
                let group = self.tensor.scales.block.columns.unwrap_or(usize::MAX).min(out.len().max(1));
                for (g, (out, codes)) in out.chunks_mut(group).zip(codes.chunks(group)).enumerate() {
                    let (scale, zero) = (self.scales.value(row, g), self.zero(row, g));
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = f32::from(i16::from(code) - zero) * scale;
                    }
                }
            }
        }
    }

    fn own_format(&self) -> Option<ComputeFormat> {
        self.format
    }

    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        let wanted = match self.format {
            Some(ComputeFormat::Int8 { group, .. }) => {
                StoredCodes { group, scales: GroupScales::Bf16, least: 0 }
            }
            Some(ComputeFormat::Stored8 { group, scales }) => StoredCodes { group, scales, least: 0 },
            Some(ComputeFormat::Int4 { group, scales, .. }) => StoredCodes { group, scales, least: -8 },
            _ => return Err(Error::internal("the matrix has no codes that are computed with").into()),
        };
        Ok(self.stored_codes(row, stored, wanted, codes, scales)?)
    }
}
