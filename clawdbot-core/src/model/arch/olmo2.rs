//! OLMo 2: norms behind attention and MLP instead of before them, and over all query or key heads at once.
//! Source: transformers 5, `models/olmo2/configuration_olmo2.py` and `modeling_olmo2.py`.

use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::names::{self, Names};
use crate::model::spec::{DecoderSpec, NormSpec};

const NAMES: Names = Names {
    input_norm: None,
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: None,
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..names::LLAMA
};

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::plain(config)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { eps: plain.rms_norm_eps, whole: true }),
        qkv_bias: bias,
        o_bias: bias,
        names: NAMES,
        ..plain
    })
}
