//! Mistral: Llama with a sliding window on every layer.
//! Source: transformers 5, `models/mistral/configuration_mistral.py` and `modeling_mistral.py`.

use super::{Family, architecture, sliding_window};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::{DecoderSpec, LayerSpec};

pub(super) const FAMILY: Family =
    Family { architectures: &[architecture("MistralForCausalLM", "mistral", parse)], gguf: &[] };

pub(super) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let window = sliding_window(config)?;
    // Mistral has one kind of layer; other lists belong to other architectures.
    let kind = if window.is_some() { "sliding_attention" } else { "full_attention" };
    if config.opt_strings("layer_types")?.is_some_and(|types| types.iter().any(|found| *found != kind)) {
        return Err(config.unsupported("layer_types", &format!("only {kind}, as sliding_window has it")));
    }
    let plain = DecoderSpec::plain(config)?;
    Ok(DecoderSpec {
        layers: vec![LayerSpec { window, ..LayerSpec::default() }; plain.num_hidden_layers],
        ..plain
    })
}
