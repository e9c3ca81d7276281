//! Qwen2 and Qwen2.5: Llama with biases on q, k and v, and (rarely) sliding windows on the upper layers.
//! Source: transformers 5, `models/qwen2/configuration_qwen2.py` and `modeling_qwen2.py`.

use super::{Family, Window, architecture, switched_window, windows};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::{DecoderSpec, LayerSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Qwen2ForCausalLM", "qwen2", parse)],
    gguf: &[GgufFamily { name: "qwen2", architecture: "Qwen2ForCausalLM", ..GgufFamily::PLAIN }],
};

/// Default of `max_window_layers`, as in transformers.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

pub(super) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::plain(config)?;
    Ok(DecoderSpec { qkv_bias: true, layers: layers(config, plain.num_hidden_layers)?, ..plain })
}

/// Windows of Qwen2 and Qwen3: on layers in `layer_types`, or on those from `max_window_layers` on; none unless
/// `use_sliding_window`.
pub(super) fn layers(config: &ModelConfig, num_hidden_layers: usize) -> Result<Vec<LayerSpec>> {
    let window = switched_window(config)?;
    let first = config.opt_usize("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    let expected = "an integer, and use_sliding_window, as layer_types has windows";
    windows(config, num_hidden_layers, Window { size: window, expected }, |i| i >= first)
}
