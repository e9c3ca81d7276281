//! An architecture: the name in `config.json` that decides how the rest is read.

use super::DecoderSpec;
use super::config::ModelConfig;
use crate::error::Result;

/// How the configuration of an architecture is read.
pub(crate) struct Architecture {
    /// Name in `architectures`.
    pub(crate) name: &'static str,
    /// Name in `model_type`, used if `architectures` is missing.
    pub(crate) model_type: &'static str,
    pub(super) parse: fn(&ModelConfig) -> Result<DecoderSpec>,
    /// For multimodal models, whose text model is configured by `text_config`: JSON with defaults for its keys.
    pub(crate) text_defaults: Option<&'static str>,
    /// Values of `quant_method` that `parse` understands.
    pub(super) quantizations: &'static [&'static str],
}

pub(super) const fn architecture(
    name: &'static str,
    model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
) -> Architecture {
    Architecture { name, model_type, parse, text_defaults: None, quantizations: &[] }
}

/// A multimodal architecture. Only its text model is read.
pub(super) const fn text_of(
    name: &'static str,
    model_type: &'static str,
    parse: fn(&ModelConfig) -> Result<DecoderSpec>,
) -> Architecture {
    Architecture { text_defaults: Some("{}"), ..architecture(name, model_type, parse) }
}
