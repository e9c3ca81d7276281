//! What matrices are packed as.

use clawdbot_kernels::{ComputeFormat, GroupScales};

use crate::options::WeightType;
use crate::spec::DecoderSpec;
use crate::spec::packing::Joined;

/// Weights along k that share a scale in int8. `docs/numerics.md` has the measurements.
const INT8_GROUP: usize = 128;

/// Weights along k that share a scale in int4. `docs/numerics.md` has the measurements.
const INT4_GROUP: usize = 32;

/// The compute format of a weight type, where codes are not used as stored; of mixed weights, that of most matrices.
pub(crate) fn format(weights: WeightType) -> ComputeFormat {
    match weights {
        WeightType::Int8 | WeightType::Stored => ComputeFormat::Int8 { group: INT8_GROUP, rotated: true },
        WeightType::Int4 | WeightType::Int4Mixed => {
            ComputeFormat::Int4 { group: INT4_GROUP, scales: GroupScales::Bf16, rotated: false }
        }
        WeightType::Bf16 => ComputeFormat::Bf16,
        WeightType::F32 => ComputeFormat::F32,
    }
}

/// Weights in all matrices.
pub(crate) fn weights_in(spec: &DecoderSpec) -> u64 {
    spec.tensors().packed_matrices().iter().map(Joined::weights).sum()
}

/// Matrices that are packed as one, and as what.
pub(crate) struct Segment<'a> {
    pub(crate) names: Joined<'a>,
    pub(crate) format: ComputeFormat,
}
