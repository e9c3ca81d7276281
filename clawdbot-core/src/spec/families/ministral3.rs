//! Ministral 3: Mistral with an extended rotation and queries that grow with their position; and the text models of
//! multimodal checkpoints, which are Ministral 3 or Mistral.
//! Source: transformers 5, `models/ministral3/` and `models/mistral3/`.

use serde_json::json;

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
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // transformers' defaults are those of one model, so they must be given.
    if config.object("rope_parameters")?.is_none() {
        return Err(config.invalid("rope_parameters", "an object"));
    }
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    // Without the key there is no window in this family.
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

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    let rope = &mut config["rope_parameters"];
    if let Some(multiplier) = keys.opt_f64("rope.scaling.yarn_log_multiplier")?.filter(|&x| x != 0.0)
        && rope["rope_type"] == "yarn"
    {
        rope["mscale"] = 1.0.into();
        rope["mscale_all_dim"] = multiplier.into();
    }
    if let Some(beta) = keys.opt_f64("attention.temperature_scale")?.filter(|&beta| beta != 0.0) {
        rope["llama_4_scaling_beta"] = beta.into();
        rope["original_max_position_embeddings"] = keys.u64("rope.scaling.original_context_length")?.into();
        config.insert("architectures".to_owned(), json!(["Ministral3ForCausalLM"]));
    }
    gguf::dense(keys, config)
}
