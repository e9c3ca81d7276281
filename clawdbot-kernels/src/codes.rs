//! Panels of codes, int8 and int4: what the two have in common, and where they differ ([`CodeLayout`]).

use super::int4::{self, GroupScales, QuantizeInt4};
use super::matrix::{ComputeFormat, Panels};
use super::packing::interleave;
use super::quantize::{QuantizeWeights, groups};
use super::simd::LANES;
use super::{KernelSet, Result, Slot};
use crate::memory::{Panel, Pod};

/// How rows are kept as codes.
#[derive(Clone, Copy)]
pub(super) struct Coding {
    /// Weights along k that share a scale.
    pub(super) group: usize,
    /// What the codes stand for.
    pub(super) scales: GroupScales,
    /// Whether rows are rotated before they are quantized: see `hadamard.rs`.
    pub(super) rotated: bool,
}

impl ComputeFormat {
    /// How codes are made; none for formats without codes.
    pub(super) fn coding(self) -> Option<Coding> {
        match self {
            ComputeFormat::Int8 { group, rotated } => {
                Some(Coding { group, scales: GroupScales::Bf16, rotated })
            }
            ComputeFormat::Stored8 { group, scales } => Some(Coding { group, scales, rotated: false }),
            ComputeFormat::Int4 { group, scales, rotated } => Some(Coding { group, scales, rotated }),
            ComputeFormat::Bf16 | ComputeFormat::F32 => None,
        }
    }
}

/// Codes and their scales, in panels.
pub(super) struct CodePanels<T: Pod> {
    /// `[panel][k-block][64]`
    pub(super) codes: Panel<T>,
    /// `[panel][line of scales][16]`
    pub(super) scales: Panel<u16>,
    pub(super) coding: Coding,
}

impl<T: Pod> CodePanels<T> {
    /// All k-blocks, 64 bytes each.
    pub(super) fn blocks(&self) -> &[[T; 4 * LANES]] {
        const { assert!(size_of::<T>() == 1) };
        self.codes.as_chunks().0
    }

    /// All lines of scales.
    pub(super) fn scale_lines(&self) -> &[[u16; LANES]] {
        self.scales.as_chunks().0
    }
}

/// One row of weights to quantize.
pub(super) struct WeightRow<'a> {
    /// `[k]`
    pub(super) x: &'a [f32],
    pub(super) group: usize,
    /// `[k]`
    pub(super) codes: &'a mut [i8],
    /// For each group, bits of bf16.
    pub(super) scales: &'a mut [u16],
}

/// How codes of some width are packed.
pub(super) trait CodeLayout {
    /// A byte of a panel.
    type Byte: Pod;
    /// k of a k-block, which is 64 bytes.
    const BLOCK: usize;

    /// Quantizes a row; whether all of its weights are finite.
    fn quantize(kernels: &KernelSet, row: WeightRow<'_>) -> bool;
    /// Checks the codes of row `row` of a source.
    ///
    /// # Errors
    /// `InvalidWeights` for codes that the width does not hold.
    fn check(row: usize, codes: &[i8]) -> Result<()>;
    /// 16 rows of codes, one after another, whole blocks each, to a panel.
    fn interleave(rows: &[i8], panel: &mut [Self::Byte]);
    /// Code `i` of a column of a k-block, less what `scales` have subtracted.
    fn code(block: &[Self::Byte; 4 * LANES], column: usize, i: usize, scales: GroupScales) -> i8;
    /// The panels of a matrix.
    fn panels(panels: CodePanels<Self::Byte>) -> Panels;
}

/// int8: byte `4 * column + i` of a k-block.
pub(super) struct Int8Codes;
impl CodeLayout for Int8Codes {
    type Byte = i8;
    const BLOCK: usize = 4;

    fn quantize(kernels: &KernelSet, row: WeightRow<'_>) -> bool {
        let slot: &Slot<QuantizeWeights> = &kernels.quantize_weights;
        slot.call(row)
    }
    fn check(_: usize, _: &[i8]) -> Result<()> {
        Ok(())
    }
    fn interleave(rows: &[i8], panel: &mut [i8]) {
        interleave::<i8, 4>(rows, panel);
    }
    fn code(block: &[i8; 4 * LANES], column: usize, i: usize, _: GroupScales) -> i8 {
        block[4 * column + i]
    }
    fn panels(panels: CodePanels<i8>) -> Panels {
        Panels::Int8(panels)
    }
}

/// int4: see `int4.rs`.
pub(super) struct Int4Codes;
impl CodeLayout for Int4Codes {
    type Byte = u8;
    const BLOCK: usize = 8;

    fn quantize(kernels: &KernelSet, row: WeightRow<'_>) -> bool {
        let slot: &Slot<QuantizeInt4> = &kernels.quantize_int4;
        slot.call(row)
    }
    fn check(row: usize, codes: &[i8]) -> Result<()> {
        int4::check_codes(row, codes)
    }
    fn interleave(rows: &[i8], panel: &mut [u8]) {
        int4::interleave(rows, panel);
    }
    fn code(block: &[u8; 4 * LANES], column: usize, i: usize, scales: GroupScales) -> i8 {
        (block[4 * column + i % 4] >> (i / 4 * 4) & 15) as i8 - scales.zero()
    }
    fn panels(panels: CodePanels<u8>) -> Panels {
        Panels::Int4(panels)
    }
}

/// Row `row` of a matrix (an output column), dequantized but not rotated back.
pub(super) fn read_row<L: CodeLayout>(panels: &CodePanels<L::Byte>, row: usize, out: &mut [f32]) {
    let Coding { group, scales: kind, .. } = panels.coding;
    let (k, panel, column) = (out.len(), row / LANES, row % LANES);
    let blocks = &panels.blocks()[panel * k.div_ceil(L::BLOCK)..];
    let lines = kind.lines(groups(k, group));
    let scales = &panels.scale_lines()[panel * lines..][..lines];
    for (g, out) in out.chunks_mut(group).enumerate() {
        let (scale, min) = int4::read_scale(kind, scales, g, column);
        for (out, block) in out.chunks_mut(L::BLOCK).zip(&blocks[g * group / L::BLOCK..]) {
            for (i, out) in out.iter_mut().enumerate() {
                let code = f32::from(L::code(block, column, i, kind));
                *out = if kind.minimum() { code.mul_add(scale, min) } else { code * scale };
            }
        }
    }
}
