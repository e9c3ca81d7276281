//! Matrices of integer codes of 4 or 8 bits: `weight[row][i] = (code - zero) * scale`, zero and scale per row and group.
//!
//! Codes and zero points are signed here: what is stored unsigned is less `2^(bits - 1)`, as everywhere. Products of scales
//! of 16 bits are exact in f32, those of f32 scales are rounded once.

use clawdbot_kernels::{ComputeFormat, GroupScales};

use super::scales::{Block, ScaleTensor};
use crate::error::Result;
use crate::weights::{Dtype, FloatType, MatrixSize, TensorView, WeightSource};

/// Weights that share a scale when they are computed with, where they are more as stored: the activations are quantized in
/// the same groups.
const COMPUTED_GROUP: usize = 128;
/// Where in a word AWQ has each of eight outputs.
pub(super) const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Integer weights of compressed-tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntArgs {
    /// 4 or 8.
    pub(super) bits: u32,
    /// In words; otherwise in bytes.
    pub(super) packed: bool,
    /// Whether all zero points are 0.
    pub(super) symmetric: bool,
    pub(super) block: Block,
}

/// Weights of GPTQ.
#[derive(Debug, Clone, Copy)]
pub(super) struct GptqArgs {
    /// 4 or 8.
    pub(super) bits: u32,
    /// Inputs that share a scale; none: all.
    pub(super) group: Option<usize>,
    /// Whether all zero points are said to be 0.
    pub(super) symmetric: bool,
    /// Whether inputs are in groups in the order of `g_idx` (`desc_act`).
    pub(super) ordered: bool,
    /// Whether zero points are stored less one, as in the first version of the format.
    pub(super) stored_less_one: bool,
}

/// The zero points as they are stored.
#[derive(Debug)]
pub(super) enum ZeroTensor<'a> {
    /// `[blocks of n, groups]`, I8.
    Bytes(TensorView<'a>),
    /// `[n b / 32, groups]` words.
    AlongOutputs(TensorView<'a>),
    /// `[groups, n b / 32]` words; what is added to each word.
    Gptq(TensorView<'a>, u32),
    /// `[groups, n / 8]` words.
    Awq(TensorView<'a>),
}

/// The order of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[n, k]` bytes.
    Bytes,
    /// `[n, k b / 32]` words.
    Rows,
    /// `[k b / 32, n]` words.
    Gptq,
    /// `[k, n / 8]` words.
    Awq,
}

/// The tensors of an integer matrix.
#[derive(Debug)]
pub(super) struct IntTensor<'a> {
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) bits: u32,
    pub(super) layout: Layout,
    pub(super) codes: TensorView<'a>,
    pub(super) scales: ScaleTensor<'a>,
    pub(super) zeros: Option<ZeroTensor<'a>>,
    /// The group of each input: `[k]`, I32.
    pub(super) g_idx: Option<TensorView<'a>>,
    /// Whether `g_idx` may say something else than the order of inputs.
    pub(super) ordered: bool,
    /// Whether the zero points are said to be 0.
    pub(super) symmetric: bool,
}

/// `name`, of `shape` and dtype I32.
fn words<'a>(files: &'a WeightSource, name: &str, shape: &[usize]) -> Result<TensorView<'a>> {
    files.typed(name, shape, &[Dtype::I32])
}

impl<'a> IntTensor<'a> {
    /// The tensors of compressed-tensors.
    ///
    /// # Errors
    /// `InvalidModel` for missing tensors and other shapes, `UnsupportedModel` for other types.
    pub(super) fn compressed(
        files: &'a WeightSource,
        module: &str,
        size: MatrixSize,
        args: IntArgs,
    ) -> Result<Self> {
        let IntArgs { bits, packed, symmetric, block } = args;
        let MatrixSize { n, k } = size;
        let per_word = (32 / bits) as usize;
        let codes = match packed {
            true => words(files, &format!("{module}.weight_packed"), &[n, k.div_ceil(per_word)])?,
            false => files.typed(&format!("{module}.weight"), &[n, k], &[Dtype::I8])?,
        };
        let scales = ScaleTensor::open(files, &format!("{module}.weight_scale"), size, block)?;
        let zero = format!("{module}.weight_zero_point");
        let zeros = match (symmetric, packed) {
            (true, _) => None,
            (_, true) => {
                Some(ZeroTensor::AlongOutputs(words(files, &zero, &[n.div_ceil(per_word), scales.groups])?))
            }
            // Of the same shape as the scales.
            (_, false) => Some(ZeroTensor::Bytes(files.typed(&zero, scales.tensor.shape, &[Dtype::I8])?)),
        };
        let g_idx = format!("{module}.weight_g_idx");
        let g_idx = files.tensor(&g_idx).map(|_| words(files, &g_idx, &[k])).transpose()?;
        let (layout, ordered) = (if packed { Layout::Rows } else { Layout::Bytes }, g_idx.is_some());
        Ok(IntTensor { n, k, bits, layout, codes, scales, zeros, g_idx, ordered, symmetric })
    }

    /// The tensors of GPTQ.
    ///
    /// # Errors
    /// As [`compressed`](Self::compressed).
    pub(super) fn gptq(
        files: &'a WeightSource,
        module: &str,
        size: MatrixSize,
        args: GptqArgs,
    ) -> Result<Self> {
        let MatrixSize { n, k } = size;
        let GptqArgs { bits, group, symmetric, ordered, stored_less_one } = args;
        let per_word = (32 / bits) as usize;
        let codes = words(files, &format!("{module}.qweight"), &[k.div_ceil(per_word), n])?;
        let scales = ScaleTensor::open_by_group(files, &format!("{module}.scales"), size, group)?;
        let zeros = words(files, &format!("{module}.qzeros"), &[scales.groups, n.div_ceil(per_word)])?;
        // One in each field of a word: a carry takes back the borrow of the subtraction before.
        let ones = if bits == 4 { 0x1111_1111 } else { 0x0101_0101 };
        let zeros = Some(ZeroTensor::Gptq(zeros, if stored_less_one { ones } else { 0 }));
        let g_idx = format!("{module}.g_idx");
        let g_idx = match files.tensor(&g_idx) {
            None if ordered => Some(words(files, &g_idx, &[k])?),
            found => found.map(|_| words(files, &g_idx, &[k])).transpose()?,
        };
        let layout = Layout::Gptq;
        Ok(IntTensor { n, k, bits, layout, codes, scales, zeros, g_idx, ordered, symmetric })
    }

    /// The tensors of AWQ.
    ///
    /// # Errors
    /// As [`compressed`](Self::compressed).
    pub(super) fn awq(
        files: &'a WeightSource,
        module: &str,
        size: MatrixSize,
        group: Option<usize>,
    ) -> Result<Self> {
        let MatrixSize { n, k } = size;
        let codes = words(files, &format!("{module}.qweight"), &[k, n.div_ceil(8)])?;
        let scales = ScaleTensor::open_by_group(files, &format!("{module}.scales"), size, group)?;
        let zeros = words(files, &format!("{module}.qzeros"), &[scales.groups, n.div_ceil(8)])?;
        let (layout, zeros) = (Layout::Awq, Some(ZeroTensor::Awq(zeros)));
        let (g_idx, ordered, symmetric, bits) = (None, false, false, 4);
        Ok(IntTensor { n, k, bits, layout, codes, scales, zeros, g_idx, ordered, symmetric })
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> Vec<&'a str> {
        let zeros = self.zeros.as_ref().map(|zeros| match zeros {
            ZeroTensor::Bytes(tensor)
            | ZeroTensor::AlongOutputs(tensor)
            | ZeroTensor::Gptq(tensor, _)
            | ZeroTensor::Awq(tensor) => tensor.name,
        });
        let others = zeros.into_iter().chain(self.g_idx.as_ref().map(|tensor| tensor.name));
        [self.codes.name, self.scales.tensor.name].into_iter().chain(others).collect()
    }

    /// Such as `GPTQ int4/128`; zero points and an order of inputs are named too.
    pub(super) fn format_name(&self) -> String {
        let method = match self.layout {
            Layout::Bytes | Layout::Rows => "",
            Layout::Gptq => "GPTQ ",
            Layout::Awq => "AWQ ",
        };
        let zeros = if self.symmetric { "" } else { " with zero points" };
        let ordered = if self.is_ordered() { ", ordered inputs" } else { "" };
        format!("{method}int{}/{}{zeros}{ordered}", self.bits, self.scales.block.name())
    }

    fn is_ordered(&self) -> bool {
        self.ordered && self.scales.groups > 1
    }

    /// The format in which the codes are computed with.
    pub(super) fn compute_format(&self) -> Option<ComputeFormat> {
        if self.is_ordered() {
            return None;
        }
        let group = match self.scales.block.columns {
            None => COMPUTED_GROUP,
            Some(group) if group > COMPUTED_GROUP && group.is_multiple_of(COMPUTED_GROUP) => COMPUTED_GROUP,
            Some(group) => group,
        };
        let multiple = if self.bits == 4 { 8 } else { 4 };
        if !group.is_multiple_of(multiple) || group > COMPUTED_GROUP {
            return None;
        }
        let scales = match (self.symmetric, self.scales.dtype) {
            (true, FloatType::BF16) => GroupScales::Bf16,
            (true, FloatType::F16) => GroupScales::F16,
            (true, FloatType::F32) => GroupScales::F32,
            (false, FloatType::BF16 | FloatType::F16) => GroupScales::F32Min,
            // The product of zero point and scale would be rounded apart from that of the code.
            (false, FloatType::F32) => return None,
        };
        Some(match (self.bits, scales) {
            (4, _) => ComputeFormat::Int4 { group, scales, rotated: false },
            (_, GroupScales::Bf16) => ComputeFormat::Int8 { group, rotated: false },
            _ => ComputeFormat::Stored8 { group, scales },
        })
    }
}

/// The word `index` of little-endian words.
pub(super) fn word(bytes: &[u8], index: usize) -> u32 {
    bytes.as_chunks::<4>().0.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
