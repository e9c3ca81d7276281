//! Apertus: norms of query and key heads, and an MLP without a gate whose activation each layer learns (xIELU).
//! Source: transformers 5, `models/apertus/configuration_apertus.py` and `modeling_apertus.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, only, only_str};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("ApertusForCausalLM", "apertus", parse)],
    gguf: &[GgufFamily {
        name: "apertus",
        architecture: "ApertusForCausalLM",
        names: &[("attention_layernorm", "attn_norm"), ("feedforward_layernorm", "ffn_norm")],
        fields: |keys, config| {
            gguf::extend(config, json!({"hidden_act": "xielu"}));
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    input_norm: Some("attention_layernorm"),
    mlp_norm: Some("feedforward_layernorm"),
    mlp: MlpModules { gate_up: &["mlp.up_proj"], down: "mlp.down_proj" },
    ..names::LLAMA
};
/// Base of the rotation if the configuration has none, as in transformers.
const DEFAULT_THETA: f64 = 12_000_000.0;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    only_str(config, "hidden_act", "xielu")?;
    // Of the published code, whose other kinds no model has.
    only(config, "qk_norm", true)?;
    only(config, "post_norm", false)?;
    only(config, "mlp_bias", false)?;
    // Where both are missing transformers scales the rotation.
    const ROPE: &str = "rope_parameters";
    if config.object(ROPE)?.is_none() && config.object("rope_scaling")?.is_none() {
        return Err(config.invalid(ROPE, "an object"));
    }
    let plain = DecoderSpec::with_keys(config, &Keys { activation: None, ..Keys::LLAMA })?;
    let bias = config.bool_or("attention_bias", false)?;
    let rope = RopeDefaults { theta: DEFAULT_THETA, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        qkv_bias: bias,
        o_bias: bias,
        mlp_gate: false,
        xielu: true,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        names: NAMES,
        ..plain
    })
}
