//! Ministral 3: Mistral with a stretched rotation and queries that grow with their position; and the text models of
//! checkpoints with a vision tower, which are that or Mistral.
//! Source: transformers 5, `models/ministral3/` and `models/mistral3/`.

use super::llama::Keys;
use super::{Family, architecture, mistral, text_of};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::rope_scaling::{Extras, RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Ministral3ForCausalLM", "ministral3", parse),
        text_of("Mistral3ForConditionalGeneration", "mistral3", parse_text),
    ],
    gguf: &[GgufFamily {
        name: "mistral3",
        architecture: "MistralForCausalLM",
        windowed: Some("MistralForCausalLM"),
        pairs: true,
        keys: &["attention.temperature_scale", "rope.scaling.yarn_log_multiplier"],
        fields: gguf::mistral3,
        ..GgufFamily::PLAIN
    }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Without them transformers assumes those of one model.
    if config.object("rope_parameters")?.is_none() {
        return Err(config.invalid("rope_parameters", "an object"));
    }
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    // A missing window is none here.
    let window = config.opt_usize("sliding_window")?;
    let extras = Extras { growth: true, ..Extras::NONE };
    let rope = RopeSpec::parse(config, plain.head_dim, RopeDefaults { extras, ..RopeDefaults::LLAMA })?;
    if rope.growth.is_none() {
        return Err(config.invalid("rope_parameters", "llama_4_scaling_beta in it"));
    }
    Ok(DecoderSpec {
        ropes: vec![rope],
        layers: vec![LayerSpec { window, ..LayerSpec::default() }; plain.num_hidden_layers],
        ..plain
    })
}

fn parse_text(config: &ModelConfig) -> Result<DecoderSpec> {
    match config.opt_str("model_type")? {
        Some("ministral3") => parse(config),
        None | Some("mistral") => mistral::parse(config),
        Some(_) => Err(config.unsupported("model_type", "mistral or ministral3")),
    }
}
