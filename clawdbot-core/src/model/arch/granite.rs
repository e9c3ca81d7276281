//! Granite: Llama with multipliers on the embedding, on attention, on what is added to the stream, and on logits.
//! Source: transformers 5, `models/granite/configuration_granite.py` and `modeling_granite.py`.

use super::llama;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::spec::{AttentionSpec, DecoderSpec};

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = llama::parse(config)?;
    let factor = |key: &str| match config.opt_f32(key)? {
        None => Ok(1.0),
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(_) => Err(config.invalid(key, "a number > 0")),
    };
    Ok(DecoderSpec {
        attention: AttentionSpec { divisor: 1.0 / factor("attention_multiplier")?, ..plain.attention },
        embedding_multiplier: factor("embedding_multiplier")?,
        residual_multiplier: factor("residual_multiplier")?,
        logit_scale: 1.0 / factor("logits_scaling")?,
        ..plain
    })
}
