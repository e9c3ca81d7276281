//! The architectures: the only list.

use super::config::ModelConfig;
use super::{DecoderSpec, families};
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
    architecture("LlamaForCausalLM", "llama", families::llama::parse),
    architecture("MistralForCausalLM", "mistral", families::mistral::parse),
    architecture("MixtralForCausalLM", "mixtral", families::mixtral::parse),
    architecture("Qwen2ForCausalLM", "qwen2", families::qwen2::parse),
    architecture("Qwen2MoeForCausalLM", "qwen2_moe", families::qwen2_moe::parse_qwen2),
    architecture("Qwen3ForCausalLM", "qwen3", families::qwen3::parse),
    architecture("Qwen3MoeForCausalLM", "qwen3_moe", families::qwen2_moe::parse_qwen3),
    architecture("Qwen3NextForCausalLM", "qwen3_next", families::qwen3_next::parse),
    architecture("Qwen3_5ForCausalLM", "qwen3_5_text", families::qwen3_5::parse),
    text_of("Qwen3_5ForConditionalGeneration", "qwen3_5", families::qwen3_5::parse),
    architecture("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", families::qwen3_5::parse_moe),
    text_of("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", families::qwen3_5::parse_moe),
    architecture("Ministral3ForCausalLM", "ministral3", families::ministral3::parse),
    text_of("Mistral3ForConditionalGeneration", "mistral3", families::ministral3::parse_text),
    architecture("GemmaForCausalLM", "gemma", families::gemma::parse),
    architecture("Gemma2ForCausalLM", "gemma2", families::gemma::parse_gemma2),
    architecture("Gemma3ForCausalLM", "gemma3_text", families::gemma::parse_gemma3),
    Architecture {
        text_defaults: Some(families::gemma::GEMMA3_DEFAULTS),
        ..architecture("Gemma3ForConditionalGeneration", "gemma3", families::gemma::parse_gemma3)
    },
    architecture("Gemma4ForCausalLM", "gemma4_text", families::gemma4::parse),
    text_of("Gemma4ForConditionalGeneration", "gemma4", families::gemma4::parse),
    Architecture {
        // Gemma 4 without per-layer inputs, whose images are embedded otherwise.
        text_defaults: Some(r#"{"hidden_size_per_layer_input": 0}"#),
        ..architecture("Gemma4UnifiedForConditionalGeneration", "gemma4_unified", families::gemma4::parse)
    },
    architecture("Phi3ForCausalLM", "phi3", families::phi3::parse),
    architecture("SmolLM3ForCausalLM", "smollm3", families::smollm3::parse),
    architecture("GraniteForCausalLM", "granite", families::granite::parse),
    architecture("Olmo2ForCausalLM", "olmo2", families::olmo2::parse),
    architecture("Olmo3ForCausalLM", "olmo3", families::olmo2::parse_olmo3),
    architecture("GraniteMoeHybridForCausalLM", "granitemoehybrid", families::granite::parse_hybrid),
    architecture("Cohere2ForCausalLM", "cohere2", families::cohere2::parse),
    architecture("Glm4ForCausalLM", "glm4", families::glm4::parse),
    architecture("DeepseekV2ForCausalLM", "deepseek_v2", families::deepseek_v3::parse_v2),
    architecture("DeepseekV3ForCausalLM", "deepseek_v3", families::deepseek_v3::parse),
    architecture("Lfm2ForCausalLM", "lfm2", families::lfm2::parse),
    architecture("Qwen3Model", "qwen3", families::qwen3::parse_headless),
    architecture("Qwen3ForSequenceClassification", "qwen3", families::qwen3::parse_classifier),
    architecture("Gemma3TextModel", "gemma3_text", families::gemma::parse_gemma3_headless),
    architecture("BertModel", "bert", families::bert::parse),
    architecture("BertForMaskedLM", "bert", families::bert::parse),
    architecture("BertForSequenceClassification", "bert", families::bert::parse_classifier),
    architecture("RobertaModel", "roberta", families::bert::parse_roberta),
    architecture("RobertaForMaskedLM", "roberta", families::bert::parse_roberta),
    architecture("RobertaForSequenceClassification", "roberta", families::bert::parse_roberta_classifier),
    architecture("XLMRobertaModel", "xlm-roberta", families::bert::parse_roberta),
    architecture("XLMRobertaForMaskedLM", "xlm-roberta", families::bert::parse_roberta),
    architecture(
        "XLMRobertaForSequenceClassification",
        "xlm-roberta",
        families::bert::parse_roberta_classifier,
    ),
    architecture("CamembertModel", "camembert", families::bert::parse_roberta),
    architecture("CamembertForMaskedLM", "camembert", families::bert::parse_roberta),
    architecture("DistilBertModel", "distilbert", families::bert::parse_distilbert),
    architecture("DistilBertForMaskedLM", "distilbert", families::bert::parse_distilbert),
    architecture(
        "DistilBertForSequenceClassification",
        "distilbert",
        families::bert::parse_distilbert_classifier,
    ),
    architecture("ModernBertModel", "modernbert", families::modernbert::parse),
    architecture("ModernBertForMaskedLM", "modernbert", families::modernbert::parse),
    architecture("ModernBertForSequenceClassification", "modernbert", families::modernbert::parse_classifier),
    Architecture {
        quantizations: &["mxfp4"],
        ..architecture("GptOssForCausalLM", "gpt_oss", families::gpt_oss::parse)
    },
];

/// Reads a model's configuration, but for how its weights are quantized.
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
    let spec = DecoderSpec { architecture: architecture.name, ..(architecture.parse)(config)? };
    spec.check().map_err(|error| error.context(config.file()))?;
    Ok(spec)
}

/// The configuration of the part that generates text, if that is a part, and the quantizations that belong to the
/// architecture itself.
///
/// # Errors
/// As [`parse_spec`].
pub(crate) fn text_config(config: &ModelConfig) -> Result<(Option<ModelConfig>, &'static [&'static str])> {
    let architecture = find(config)?;
    let text = architecture.text_defaults.map(|defaults| config.text(defaults)).transpose()?;
    Ok((text, architecture.quantizations))
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
