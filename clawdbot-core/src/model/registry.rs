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
    /// The text model is one of several: its configuration is `text_config`. What this may lack, as JSON.
    pub(crate) text_defaults: Option<&'static str>,
    /// Quantizations that `parse` understands, as in `quant_method`.
    quantizations: &'static [&'static str],
}

const fn architecture(
    name: &'static str,
    model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
) -> Architecture {
    Architecture { name, model_type, parse, text_defaults: None, quantizations: &[] }
}

/// An architecture of which only the text model is read.
const fn text_of(
    name: &'static str,
    model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
) -> Architecture {
    Architecture { text_defaults: Some("{}"), ..architecture(name, model_type, parse) }
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
    architecture("Qwen3_5ForCausalLM", "qwen3_5_text", arch::qwen3_5::parse),
    text_of("Qwen3_5ForConditionalGeneration", "qwen3_5", arch::qwen3_5::parse),
    architecture("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", arch::qwen3_5::parse_moe),
    text_of("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", arch::qwen3_5::parse_moe),
    architecture("Ministral3ForCausalLM", "ministral3", arch::ministral3::parse),
    text_of("Mistral3ForConditionalGeneration", "mistral3", arch::ministral3::parse_text),
    architecture("GemmaForCausalLM", "gemma", arch::gemma::parse),
    architecture("Gemma2ForCausalLM", "gemma2", arch::gemma::parse_gemma2),
    architecture("Gemma3ForCausalLM", "gemma3_text", arch::gemma::parse_gemma3),
    Architecture {
        text_defaults: Some(arch::gemma::GEMMA3_DEFAULTS),
        ..architecture("Gemma3ForConditionalGeneration", "gemma3", arch::gemma::parse_gemma3)
    },
    architecture("Gemma4ForCausalLM", "gemma4_text", arch::gemma4::parse),
    text_of("Gemma4ForConditionalGeneration", "gemma4", arch::gemma4::parse),
    Architecture {
        // Gemma 4 without per-layer inputs, whose images are embedded otherwise.
        text_defaults: Some(r#"{"hidden_size_per_layer_input": 0}"#),
        ..architecture("Gemma4UnifiedForConditionalGeneration", "gemma4_unified", arch::gemma4::parse)
    },
    architecture("Phi3ForCausalLM", "phi3", arch::phi3::parse),
    architecture("SmolLM3ForCausalLM", "smollm3", arch::smollm3::parse),
    architecture("GraniteForCausalLM", "granite", arch::granite::parse),
    architecture("Olmo2ForCausalLM", "olmo2", arch::olmo2::parse),
    architecture("Olmo3ForCausalLM", "olmo3", arch::olmo2::parse_olmo3),
    architecture("GraniteMoeHybridForCausalLM", "granitemoehybrid", arch::granite::parse_hybrid),
    architecture("Cohere2ForCausalLM", "cohere2", arch::cohere2::parse),
    architecture("Glm4ForCausalLM", "glm4", arch::glm4::parse),
    architecture("DeepseekV2ForCausalLM", "deepseek_v2", arch::deepseek_v3::parse_v2),
    architecture("DeepseekV3ForCausalLM", "deepseek_v3", arch::deepseek_v3::parse),
    architecture("Lfm2ForCausalLM", "lfm2", arch::lfm2::parse),
    architecture("Qwen3Model", "qwen3", arch::qwen3::parse_headless),
    architecture("Qwen3ForSequenceClassification", "qwen3", arch::qwen3::parse_classifier),
    architecture("Gemma3TextModel", "gemma3_text", arch::gemma::parse_gemma3_headless),
    architecture("BertModel", "bert", arch::bert::parse),
    architecture("BertForMaskedLM", "bert", arch::bert::parse),
    architecture("BertForSequenceClassification", "bert", arch::bert::parse_classifier),
    architecture("RobertaModel", "roberta", arch::bert::parse_roberta),
    architecture("RobertaForMaskedLM", "roberta", arch::bert::parse_roberta),
    architecture("RobertaForSequenceClassification", "roberta", arch::bert::parse_roberta_classifier),
    architecture("XLMRobertaModel", "xlm-roberta", arch::bert::parse_roberta),
    architecture("XLMRobertaForMaskedLM", "xlm-roberta", arch::bert::parse_roberta),
    architecture("XLMRobertaForSequenceClassification", "xlm-roberta", arch::bert::parse_roberta_classifier),
    architecture("CamembertModel", "camembert", arch::bert::parse_roberta),
    architecture("CamembertForMaskedLM", "camembert", arch::bert::parse_roberta),
    architecture("DistilBertModel", "distilbert", arch::bert::parse_distilbert),
    architecture("DistilBertForMaskedLM", "distilbert", arch::bert::parse_distilbert),
    architecture(
        "DistilBertForSequenceClassification",
        "distilbert",
        arch::bert::parse_distilbert_classifier,
    ),
    architecture("ModernBertModel", "modernbert", arch::modernbert::parse),
    architecture("ModernBertForMaskedLM", "modernbert", arch::modernbert::parse),
    architecture("ModernBertForSequenceClassification", "modernbert", arch::modernbert::parse_classifier),
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
    config.refuse_foreign()?;
    let text = architecture.text_defaults.map(|defaults| config.text(defaults)).transpose()?;
    let config = text.as_ref().unwrap_or(config);
    config.refuse_foreign()?;
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
    let architecture = find(config)?;
    let text = architecture.text_defaults.map(|defaults| config.text(defaults)).transpose()?;
    Quantization::parse(text.as_ref().unwrap_or(config), architecture.quantizations)
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
