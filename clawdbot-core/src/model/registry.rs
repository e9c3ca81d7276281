//! The architectures: the only list.

use super::arch;
use super::config::ModelConfig;
use super::spec::DecoderSpec;
use crate::error::{Error, Result};
use crate::weights::quoted;

/// How to read one architecture's configuration.
pub(crate) struct Architecture {
    /// As in `architectures`.
    pub(crate) name: &'static str,
    /// As in `model_type`, which decides where `architectures` is missing.
    pub(crate) model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
}

/// Every supported architecture.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "LlamaForCausalLM", model_type: "llama", parse: arch::llama::parse },
    Architecture { name: "MistralForCausalLM", model_type: "mistral", parse: arch::mistral::parse },
    Architecture { name: "Qwen2ForCausalLM", model_type: "qwen2", parse: arch::qwen2::parse },
    Architecture { name: "Qwen3ForCausalLM", model_type: "qwen3", parse: arch::qwen3::parse },
];

/// Reads a model's configuration.
///
/// # Errors
/// `UnsupportedModel` for an architecture or feature that is not supported; `InvalidModel` for values that are
/// missing, malformed or contradictory.
pub(crate) fn parse_spec(config: &ModelConfig) -> Result<DecoderSpec> {
    let architecture = find(config)?;
    // Weights in a foreign quantization would be misread.
    for key in ["quantization_config", "compression_config"] {
        if config.get(key).is_some() {
            return Err(config.unsupported(key, "weights that are not quantized"));
        }
    }
    let spec = DecoderSpec { architecture: architecture.name, ..(architecture.parse)(config)? };
    spec.check().map_err(|error| error.context(config.file()))?;
    Ok(spec)
}

fn find(config: &ModelConfig) -> Result<&'static Architecture> {
    let names = config.architectures()?;
    let (key, found) = match names.as_slice() {
        [] => ("model_type", config.str("model_type")?),
        [name] => ("architectures", *name),
        _ => return Err(config.unsupported("architectures", "one name")),
    };
    let matches = |a: &&Architecture| found == if key == "model_type" { a.model_type } else { a.name };
    ARCHITECTURES.iter().find(matches).ok_or_else(|| {
        let supported: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        let (file, found, supported) = (config.file(), quoted(found), supported.join(", "));
        Error::unsupported_model(format!("{file}: {key}: {found} is not supported; supported: {supported}"))
            .with("architecture", found)
    })
}
