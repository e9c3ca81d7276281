//! GLM-4: norms before and after attention and MLP, a joined gate and up projection, and half of each head rotated in
//! interleaved pairs.
//! Source: transformers 5, `models/glm4/configuration_glm4.py` and `modeling_glm4.py`.

use super::llama::Keys;
use super::{Family, architecture};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Glm4ForCausalLM", "glm4", parse)],
    gguf: &[GgufFamily { name: "glm4", architecture: "Glm4ForCausalLM", partial: true, ..GgufFamily::PLAIN }],
};

const NAMES: Names = Names {
    attention_out_norm: Some("post_self_attn_layernorm"),
    mlp_out_norm: Some("post_mlp_layernorm"),
    mlp: MlpModules { gate_up: &["mlp.gate_up_proj"], down: "mlp.down_proj" },
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
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
