//! The architectures: the only list.

use super::arch;
use super::config::ModelConfig;
use super::quantization::Quantization;
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
    /// Quantizations that `parse` understands, as in `quant_method`.
    quantizations: &'static [&'static str],
}

const fn architecture(
    name: &'static str,
    model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
) -> Architecture {
    Architecture { name, model_type, parse, quantizations: &[] }
}

/// Every supported architecture.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    architecture("LlamaForCausalLM", "llama", arch::llama::parse),
    architecture("MistralForCausalLM", "mistral", arch::mistral::parse),
    architecture("MixtralForCausalLM", "mixtral", arch::mixtral::parse),
    architecture("Qwen2ForCausalLM", "qwen2", arch::qwen2::parse),
    architecture("Qwen2MoeForCausalLM", "qwen2_moe", arch::qwen2_moe::parse_qwen2),
    architecture("Qwen3ForCausalLM", "qwen3", arch::qwen3::parse),
    architecture("Qwen3MoeForCausalLM", "qwen3_moe", arch::qwen2_moe::parse_qwen3),
    architecture("Qwen3NextForCausalLM", "qwen3_next", arch::qwen3_next::parse),
    architecture("GemmaForCausalLM", "gemma", arch::gemma::parse),
    architecture("Gemma2ForCausalLM", "gemma2", arch::gemma::parse_gemma2),
    architecture("Gemma3ForCausalLM", "gemma3_text", arch::gemma::parse_gemma3),
    architecture("Phi3ForCausalLM", "phi3", arch::phi3::parse),
    architecture("SmolLM3ForCausalLM", "smollm3", arch::smollm3::parse),
    architecture("GraniteForCausalLM", "granite", arch::granite::parse),
    architecture("Olmo2ForCausalLM", "olmo2", arch::olmo2::parse),
    architecture("Cohere2ForCausalLM", "cohere2", arch::cohere2::parse),
    architecture("Glm4ForCausalLM", "glm4", arch::glm4::parse),
    architecture("DeepseekV3ForCausalLM", "deepseek_v3", arch::deepseek_v3::parse),
    architecture("Lfm2ForCausalLM", "lfm2", arch::lfm2::parse),
    Architecture {
        quantizations: &["mxfp4"],
        ..architecture("GptOssForCausalLM", "gpt_oss", arch::gpt_oss::parse)
    },
];

/// Reads a model's configuration.
///
/// # Errors
/// `UnsupportedModel` for an architecture or feature that is not supported; `InvalidModel` for values that are
/// missing, malformed or contradictory.
pub(crate) fn parse_spec(config: &ModelConfig) -> Result<DecoderSpec> {
    let architecture = find(config)?;
    // Weights in a foreign quantization would be misread.
    Quantization::parse(config, architecture.quantizations)?;
    let spec = DecoderSpec { architecture: architecture.name, ..(architecture.parse)(config)? };
    spec.check().map_err(|error| error.context(config.file()))?;
    Ok(spec)
}

/// How the configuration says the matrices are quantized; `None` if not, or in a way that is part of the architecture.
///
/// # Errors
/// As [`parse_spec`].
pub(crate) fn parse_quantization(config: &ModelConfig) -> Result<Option<Quantization>> {
    Quantization::parse(config, find(config)?.quantizations)
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
