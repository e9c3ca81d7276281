//! Qwen3 dense decoders: Llama with RMSNorm on each q and k head, and Qwen2's windows. Also without an output head
//! (Qwen3-Embedding), or with a score instead (Qwen3-Reranker, converted).
//! Source: transformers 5, `models/qwen3/configuration_qwen3.py` and `modeling_qwen3.py`.

use super::{Family, architecture, labels, qwen2};
use crate::error::Result;
use crate::options::Pooling;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::{DecoderSpec, DenseSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Qwen3ForCausalLM", "qwen3", parse),
        architecture("Qwen3Model", "qwen3", parse_headless),
        architecture("Qwen3ForSequenceClassification", "qwen3", parse_classifier),
    ],
    gguf: &[GgufFamily { name: "qwen3", architecture: "Qwen3ForCausalLM", ..GgufFamily::PLAIN }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Not derived from hidden_size in this family, so it must be given.
    config.usize("head_dim")?;
    parse_derived(config)
}

/// As [`parse`], but `head_dim` may be missing and is then derived from `hidden_size`.
pub(super) fn parse_derived(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::plain(config)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        qkv_bias: bias,
        o_bias: bias,
        layers: qwen2::layers(config, plain.num_hidden_layers)?,
        ..plain
    })
}

/// The model without an output head.
fn parse_headless(config: &ModelConfig) -> Result<DecoderSpec> {
    Ok(DecoderSpec { headless: true, ..parse(config)? })
}

/// The model with a score computed from the last token's state.
fn parse_classifier(config: &ModelConfig) -> Result<DecoderSpec> {
    labels(config)?;
    let spec = parse_headless(config)?;
    let score = DenseSpec {
        module: "score".to_owned(),
        inputs: spec.hidden_size,
        outputs: 1,
        bias: false,
        activation: None,
        norm: None,
    };
    Ok(DecoderSpec { dense_head: vec![score], scores: Some(Pooling::Last), ..spec })
}
