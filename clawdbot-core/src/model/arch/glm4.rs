//! GLM-4: norms on both sides, a joined MLP projection, and half of each head rotated, neighbours in pairs.
//! Source: transformers 5, `models/glm4/configuration_glm4.py` and `modeling_glm4.py`.

use super::llama::Keys;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::names::{self, MlpModules, Names};
use crate::model::rope_scaling::{RopeDefaults, RopeSpec};
use crate::model::spec::DecoderSpec;

const NAMES: Names = Names {
    attention_out_norm: Some("post_self_attn_layernorm"),
    mlp_out_norm: Some("post_mlp_layernorm"),
    mlp: MlpModules { gate_up: &["mlp.gate_up_proj"], down: "mlp.down_proj" },
    ..names::LLAMA
};

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let rope = RopeDefaults { partial: Some(0.5), ..RopeDefaults::LLAMA };
    let rope = RopeSpec::parse(config, plain.head_dim, rope)?;
    Ok(DecoderSpec {
        qkv_bias: config.bool_or("attention_bias", true)?,
        ropes: vec![RopeSpec { interleaved: true, ..rope }],
        names: NAMES,
        ..plain
    })
}
