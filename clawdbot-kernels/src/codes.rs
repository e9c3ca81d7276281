//! Panels of codes of eight, six and four bits: what they have in common, and where they differ ([`CodeLayout`]).

use super::format::Coding;
use super::group_scales::GroupScales;
use super::int4::{self, QuantizeInt4};
use super::int6;
use super::panels::{CodePanels, Panels, interleave};
use super::quantize::{QuantizeWeights, WeightRow, groups};
use super::scale_lines::read_scale;
use super::simd::LANES;
use super::{KernelSet, Result, Slot};
use crate::memory::Pod;

/// How codes of some width are packed.
pub(super) trait CodeLayout {
    /// A byte of a panel.
    type Byte: Pod;
    /// k of a k-block.
    const BLOCK: usize;
    /// Lines of 64 bytes of a k-block.
    const LINES: usize = 1;

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
    fn code(block: &[[Self::Byte; 4 * LANES]], column: usize, i: usize, scales: GroupScales) -> i8;
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
    fn code(block: &[[i8; 4 * LANES]], column: usize, i: usize, _: GroupScales) -> i8 {
        block[0][4 * column + i]
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
    fn code(block: &[[u8; 4 * LANES]], column: usize, i: usize, scales: GroupScales) -> i8 {
        (block[0][4 * column + i % 4] >> (i / 4 * 4) & 15) as i8 - scales.zero()
    }
    fn panels(panels: CodePanels<u8>) -> Panels {
        Panels::Int4(panels)
    }
}

/// Codes of six bits: see `int6.rs`.
pub(super) struct Int6Codes;
impl CodeLayout for Int6Codes {
    type Byte = u8;
    const BLOCK: usize = int6::BLOCK;
    const LINES: usize = int6::LINES;

    fn quantize(_: &KernelSet, _: WeightRow<'_>) -> bool {
        // Such codes are only stored: their scales are never bf16, which quantizing needs.
        false
    }
    fn check(row: usize, codes: &[i8]) -> Result<()> {
        int6::check_codes(row, codes)
    }
    fn interleave(rows: &[i8], panel: &mut [u8]) {
        int6::interleave(rows, panel);
    }
    fn code(block: &[[u8; 4 * LANES]], column: usize, i: usize, scales: GroupScales) -> i8 {
        int6::code(block, column, i) - int6::zero(scales)
    }
    fn panels(panels: CodePanels<u8>) -> Panels {
        Panels::Int6(panels)
    }
}

/// Row `row` of a matrix (an output column), dequantized but not rotated back.
pub(super) fn read_row<L: CodeLayout>(panels: &CodePanels<L::Byte>, row: usize, out: &mut [f32]) {
    let Coding { group, scales: kind, .. } = panels.coding;
    let (k, panel, column) = (out.len(), row / LANES, row % LANES);
    let blocks = &panels.blocks()[panel * k.div_ceil(L::BLOCK) * L::LINES..];
    let lines = kind.lines(groups(k, group));
    let scales = &panels.scale_lines()[panel * lines..][..lines];
    for (g, out) in out.chunks_mut(group).enumerate() {
        let (scale, min) = read_scale(kind, scales, g, column);
        for (out, block) in
            out.chunks_mut(L::BLOCK).zip(blocks[g * group / L::BLOCK * L::LINES..].chunks(L::LINES))
        {
            for (i, out) in out.iter_mut().enumerate() {
                let code = f32::from(L::code(block, column, i, kind));
                *out = if kind.minimum() { code.mul_add(scale, min) } else { code * scale };
            }
        }
    }
}
