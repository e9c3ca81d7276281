//! Qwen2 and Qwen2.5: Llama with biases on q, k and v, and (rarely) sliding windows on the upper layers.
//! Source: transformers 5, `models/qwen2/configuration_qwen2.py` and `modeling_qwen2.py`.

use super::sliding_window;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::spec::{DecoderSpec, LayerSpec};

/// `max_window_layers` where the configuration has none, as in transformers.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::plain(config)?;
    Ok(DecoderSpec { qkv_bias: true, layers: layers(config, plain.num_hidden_layers)?, ..plain })
}

/// Windows of Qwen2 and Qwen3: where `layer_types` says so, else on the layers from `max_window_layers` on; none
/// unless `use_sliding_window`.
pub(super) fn layers(config: &ModelConfig, num_hidden_layers: usize) -> Result<Vec<LayerSpec>> {
    let window = match config.bool_or("use_sliding_window", false)? {
        true => sliding_window(config)?,
        false => None,
    };
    let Some(types) = config.opt_strings("layer_types")? else {
        let first = config.opt_usize("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
        let layer = |i| LayerSpec { window: window.filter(|_| i >= first) };
        return Ok((0..num_hidden_layers).map(layer).collect());
    };
    if types.len() != num_hidden_layers {
        let expected = format!("{num_hidden_layers} entries, one per layer, not {}", types.len());
        return Err(config.invalid("layer_types", &expected));
    }
    let layer = |kind: &str| match (kind, window) {
        ("full_attention", _) => Ok(LayerSpec { window: None }),
        ("sliding_attention", Some(_)) => Ok(LayerSpec { window }),
        ("sliding_attention", None) => Err(config
            .invalid("sliding_window", "an integer, and use_sliding_window, as layer_types has windows")),
        _ => Err(config.unsupported("layer_types", "only full_attention and sliding_attention")),
    };
    types.into_iter().map(layer).collect()
}
