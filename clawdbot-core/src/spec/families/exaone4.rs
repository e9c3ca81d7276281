//! EXAONE 4: norms after attention and MLP instead of before them, and on heads. If three of four layers have a window,
//! the others are not rotated.
//! Source: transformers 5, `models/exaone4/configuration_exaone4.py` and `modeling_exaone4.py`.

use super::{Family, Window, architecture, sliding_window, windows, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, Names};
use crate::spec::{DecoderSpec, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Exaone4ForCausalLM", "exaone4", parse)],
    gguf: &[GgufFamily {
        name: "exaone4",
        architecture: "Exaone4ForCausalLM",
        windowed: Some("Exaone4ForCausalLM"),
        names: gguf::SANDWICH,
        keys: &[gguf::PATTERN],
        fields: |keys, config| {
            gguf::pattern(keys, config, 4)?;
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    input_norm: None,
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: None,
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::plain(config)?;
    let window = sliding_window(config)?;
    let count = plain.num_hidden_layers;
    let layers = match config.opt_strings("layer_types")? {
        // Whatever the pattern.
        None if window.is_none() => vec![LayerSpec::default(); count],
        None => windows_by_pattern(config, count, 4)?,
        Some(_) => {
            // Published models also have the pattern in letters; the list is equivalent.
            config.has("sliding_window_pattern");
            windows(
                config,
                count,
                Window { size: window, expected: "an integer, as layer_types has windows" },
                |_| false,
            )?
        }
    };
    let rotates = |layer: &LayerSpec| window.is_none() || layer.window.is_some();
    let rotated = |layer: LayerSpec| LayerSpec { rope: rotates(&layer).then_some(0), ..layer };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        layers: layers.into_iter().map(rotated).collect(),
        names: NAMES,
        ..plain
    })
}
