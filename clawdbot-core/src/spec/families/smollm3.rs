//! SmolLM3: Llama without rotation on every fourth layer.
//! Source: transformers 5, `models/smollm3/configuration_smollm3.py` and `modeling_smollm3.py`.

use super::llama::Keys;
use super::{Family, Window, architecture, switched_window, windows};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("SmolLM3ForCausalLM", "smollm3", parse)],
    gguf: &[GgufFamily {
        name: "smollm3",
        architecture: "SmolLM3ForCausalLM",
        pairs: true,
        ..GgufFamily::PLAIN
    }],
};

/// Default interval of layers without rotation, as in transformers.
const DEFAULT_INTERVAL: usize = 4;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::with_keys(config, &Keys { tied: true, ..Keys::LLAMA })?;
    let bias = config.bool_or("attention_bias", false)?;
    let rotated = rotated(config, plain.num_hidden_layers)?;
    let window = switched_window(config)?;
    let expected = "an integer, and use_sliding_window, as layer_types has windows";
    let layers =
        windows(config, plain.num_hidden_layers, Window { size: window, expected }, |i| !rotated[i])?;
    let rope = RopeDefaults { theta: 2e6, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: layers
            .into_iter()
            .zip(&rotated)
            .map(|(layer, &rotated)| LayerSpec { rope: rotated.then_some(0), ..layer })
            .collect(),
        ..plain
    })
}

/// Whether each layer is rotated: those with a 1 in `no_rope_layers`.
fn rotated(config: &ModelConfig, layers: usize) -> Result<Vec<bool>> {
    let Some(list) = config.opt_usizes("no_rope_layers")? else {
        let interval = config.opt_usize("no_rope_layer_interval")?.unwrap_or(DEFAULT_INTERVAL);
        if interval == 0 {
            return Err(config.invalid("no_rope_layer_interval", "a positive integer"));
        }
        return Ok((0..layers).map(|i| !(i + 1).is_multiple_of(interval)).collect());
    };
    if list.len() != layers || list.iter().any(|&entry| entry > 1) {
        return Err(
            config.invalid("no_rope_layers", &format!("{layers} entries, one per layer, each 0 or 1"))
        );
    }
    Ok(list.into_iter().map(|entry| entry == 1).collect())
}
