//! Qwen3.5 and 3.6, dense and with experts: Qwen3-Next with the projections of its delta nets stored apart. Positions of
//! text are the same in all three parts of their rotation.
//! Source: transformers 5, `models/qwen3_5/` and `models/qwen3_5_moe/`.

use super::llama::Keys;
use super::qwen3_next::{with_delta_nets, with_shared_expert};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::{DecoderSpec, DeltaStorage};

pub(crate) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    with_delta_nets(config, &Keys::LLAMA, DeltaStorage::Apart)
}

pub(crate) fn parse_moe(config: &ModelConfig) -> Result<DecoderSpec> {
    // There are no dense layers.
    let keys = Keys { intermediate_size: &["moe_intermediate_size"], ..Keys::LLAMA };
    with_shared_expert(config, with_delta_nets(config, &keys, DeltaStorage::Apart)?)
}
