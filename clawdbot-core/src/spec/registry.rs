//! The supported architectures, and how the architecture of a configuration is found.

use super::DecoderSpec;
use super::architecture::Architecture;
use super::config::ModelConfig;
use super::families::FAMILIES;
use crate::error::{Error, Result};
use crate::weights::quoted;

/// All supported architectures.
pub(crate) fn architectures() -> impl Iterator<Item = &'static Architecture> {
    FAMILIES.iter().flat_map(|family| family.architectures)
}

/// Reads a model's configuration, except for the quantization of its weights.
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

/// The configuration of the text model if it is only a part, and the quantizations that belong to the architecture
/// itself.
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
    architectures().find(matches).ok_or_else(|| {
        let supported: Vec<&str> = architectures().map(|architecture| architecture.name).collect();
        let (file, found, supported) = (config.file(), quoted(found), supported.join(", "));
        Error::unsupported_model(format!("{file}: {key}: {found} is not supported; supported: {supported}"))
            .with("architecture", found)
    })
}
