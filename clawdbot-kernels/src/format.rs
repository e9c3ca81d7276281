//! What weights are computed as: [`ComputeFormat`], how its codes are made, and how large panels of it are.

use super::Result;
use super::group_scales::GroupScales;
use super::int6;
use super::quantize::{ActivationFormat, ROTATED_GROUPS, groups};
use super::simd::LANES;
use crate::error::Error;

/// Largest int8 group: sums of products of codes stay within i32.
pub(crate) const MAX_GROUP: usize = 1 << 16;

/// What the weights of a [`PackedMatrix`](super::PackedMatrix) are, and how they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComputeFormat {
    /// Symmetric int8 per group of `group` weights along k; activations quantized to int8 in the same way.
    Int8 {
        /// A multiple of 4, at most `MAX_GROUP`; of rotated weights, one of [`ROTATED_GROUPS`].
        group: usize,
        /// Whether weights and activations are rotated before they are quantized: see `hadamard.rs`.
        rotated: bool,
    },
    /// int8 codes and scales as a file has them; activations quantized to int8 in groups of the same size.
    Stored8 {
        /// A multiple of 4, at most `MAX_GROUP`.
        group: usize,
        /// What the codes stand for.
        scales: GroupScales,
    },
    /// Codes of six bits and scales as a file has them; activations quantized to int8 in groups of the same size.
    Stored6 {
        /// A multiple of 16, at most `MAX_GROUP`.
        group: usize,
        /// What the codes stand for: one of the two kinds of superblocks.
        scales: GroupScales,
    },
    /// int4 per group of `group` weights along k; activations quantized to int8 in groups of the same size.
    Int4 {
        /// A multiple of 8, at most `MAX_GROUP`.
        group: usize,
        /// What the codes stand for.
        scales: GroupScales,
        /// As [`Int8`](Self::Int8); only with [`GroupScales::Bf16`].
        rotated: bool,
    },
    /// bf16 weights, f32 activations and sums.
    Bf16,
    /// f32 throughout.
    F32,
}

impl ComputeFormat {
    /// How activations are quantized to int8; none where they stay f32.
    pub fn activations(self) -> Option<ActivationFormat> {
        self.coding().map(|Coding { group, rotated, .. }| ActivationFormat { group, rotated })
    }
}

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
            ComputeFormat::Stored8 { group, scales } | ComputeFormat::Stored6 { group, scales } => {
                Some(Coding { group, scales, rotated: false })
            }
            ComputeFormat::Int4 { group, scales, rotated } => Some(Coding { group, scales, rotated }),
            ComputeFormat::Bf16 | ComputeFormat::F32 => None,
        }
    }
}

/// Elements of the data and of the scales of a packed matrix.
pub(super) struct Sizes {
    pub(super) data: usize,
    pub(super) scales: usize,
}

impl Sizes {
    pub(super) fn of(format: ComputeFormat, n: usize, k: usize) -> Result<Self> {
        if let Some(ActivationFormat { group, rotated: true }) = format.activations()
            && !ROTATED_GROUPS.contains(&group)
        {
            return Err(Error::InvalidArgument(format!(
                "group of rotated weights: expected one of {ROTATED_GROUPS:?}, found {group}"
            )));
        }
        if let ComputeFormat::Int8 { group, .. } | ComputeFormat::Stored8 { group, .. } = format
            && (group == 0 || !group.is_multiple_of(4) || group > MAX_GROUP)
        {
            return Err(Error::InvalidArgument(format!(
                "int8 group: expected a multiple of 4 in 4..={MAX_GROUP}, found {group}"
            )));
        }
        if let ComputeFormat::Int4 { group, .. } = format
            && (group == 0 || !group.is_multiple_of(8) || group > MAX_GROUP)
        {
            return Err(Error::InvalidArgument(format!(
                "int4 group: expected a multiple of 8 in 8..={MAX_GROUP}, found {group}"
            )));
        }
        if let ComputeFormat::Stored6 { group, scales } = format {
            if group == 0 || !group.is_multiple_of(int6::BLOCK) || group > MAX_GROUP {
                return Err(Error::InvalidArgument(format!(
                    "int6 group: expected a multiple of 16 in 16..={MAX_GROUP}, found {group}"
                )));
            }
            if !matches!(scales, GroupScales::Superblock | GroupScales::Superblock16) {
                return Err(Error::InvalidArgument(format!(
                    "int6 scales: expected Superblock or Superblock16, found {scales:?}"
                )));
            }
        }
        let sizes = || {
            let columns = n.checked_next_multiple_of(LANES)?;
            let lines = match format.coding() {
                Some(coding) => coding.scales.checked_lines(groups(k, coding.group))?,
                None => 0,
            };
            let k_padded = match format {
                ComputeFormat::Int8 { .. } | ComputeFormat::Stored8 { .. } => {
                    k.checked_next_multiple_of(4)?
                }
                // Three lines for 16 weights.
                ComputeFormat::Stored6 { .. } => k.checked_next_multiple_of(16)? / 16 * 12,
                // A byte for two weights.
                ComputeFormat::Int4 { .. } => k.checked_next_multiple_of(8)? / 2,
                ComputeFormat::Bf16 => k.checked_next_multiple_of(2)?,
                ComputeFormat::F32 => k,
            };
            let scales = columns.checked_mul(lines)?;
            // In bytes it must fit as well.
            columns.checked_mul(k_padded)?.checked_mul(4).map(|bytes| Sizes { data: bytes / 4, scales })
        };
        sizes().ok_or_else(|| {
            Error::out_of_memory(format!("a matrix of {n} x {k} weights does not fit into memory"))
        })
    }
}
