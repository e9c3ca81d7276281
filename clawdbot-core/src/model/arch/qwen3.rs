//! Qwen3 dense decoders: Llama with RMSNorm on each q and k head, and Qwen2's windows.
//! Source: transformers 5, `models/qwen3/configuration_qwen3.py` and `modeling_qwen3.py`.

use super::qwen2;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::spec::{DecoderSpec, NormSpec};

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Not derived from hidden_size here, so a missing one must not be guessed.
    config.usize("head_dim")?;
    let plain = DecoderSpec::plain(config)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { eps: plain.rms_norm_eps, whole: false }),
        qkv_bias: bias,
        o_bias: bias,
        layers: qwen2::layers(config, plain.num_hidden_layers)?,
        ..plain
    })
}
