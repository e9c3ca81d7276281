//! The metadata of packed model files.

use std::collections::BTreeMap;

use super::safetensors::quoted;
use crate::error::{Error, Result};

/// Value of `format` in the metadata.
pub(super) const FORMAT: &str = "clawdbot-packed";
/// Version of the layout that `packed.rs` describes, and of the panels; other versions are refused.
pub(crate) const FORMAT_VERSION: &str = "2";
/// What a file without a tokenizer says in `tokenizer`.
pub(super) const NO_TOKENIZER: &str = "none";

/// The metadata of a packed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedInfo {
    /// Name of the weight type.
    pub(crate) weights: String,
    /// Weights that share a scale, for types that have scales.
    pub(crate) group_size: Option<usize>,
    /// Whether int8 or int4 weights are rotated along k, see `docs/numerics.md`.
    pub(crate) rotated: bool,
    /// What it was packed from, for people.
    pub(crate) source: String,
    /// SHA-256 of the source's file names, sizes, safetensors headers and small files.
    pub(crate) source_sha256: String,
    /// Size of the source's tensors as stored.
    pub(crate) stored_bytes: u64,
    /// With the weights `stored`: name of a matrix -> name of its format. Empty with others.
    pub(crate) formats: BTreeMap<String, String>,
    /// Tokens of the text that its weights were calibrated on, if they were.
    pub(crate) calibrated_tokens: Option<u64>,
    /// Whether the model has a tokenizer.
    pub(crate) has_tokenizer: bool,
    /// Version of clawdbot that wrote it.
    pub(crate) written_by: String,
    /// SHA-256 of everything after the header.
    pub(crate) data_sha256: String,
}

impl PackedInfo {
    /// The metadata of a file.
    pub(super) fn to_metadata(&self) -> BTreeMap<String, String> {
        let tokenizer = if self.has_tokenizer { "tokenizer.json" } else { NO_TOKENIZER };
        let pairs = [
            ("format", FORMAT.to_owned()),
            ("format_version", FORMAT_VERSION.to_owned()),
            ("weights", self.weights.clone()),
            ("source", self.source.clone()),
            ("source_sha256", self.source_sha256.clone()),
            ("stored_bytes", self.stored_bytes.to_string()),
            ("tokenizer", tokenizer.to_owned()),
            ("written_by", self.written_by.clone()),
            ("data_sha256", self.data_sha256.clone()),
        ];
        let group = self.group_size.map(|group| ("group_size", group.to_string()));
        let calibrated = self.calibrated_tokens.map(|tokens| ("calibrated_tokens", tokens.to_string()));
        let rotated = self.rotated.then(|| ("rotated", "true".to_owned()));
        let formats =
            (!self.formats.is_empty()).then(|| ("formats", serde_json::json!(self.formats).to_string()));
        pairs
            .into_iter()
            .chain(group)
            .chain(rotated)
            .chain(calibrated)
            .chain(formats)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    pub(super) fn parse(mut metadata: BTreeMap<String, String>) -> Result<Self> {
        let mut take = |key: &str| {
            let missing = || Error::invalid_model(format!("metadata: expected {key}, found none"));
            metadata.remove(key).ok_or_else(missing)
        };
        take("format")?;
        let version = take("format_version")?;
        if version != FORMAT_VERSION {
            return Err(Error::unsupported_model(format!(
                "metadata format_version: expected {FORMAT_VERSION}, found {}; pack the model again",
                quoted(&version)
            )));
        }
        let number = |key: &str, text: &str| {
            text.parse::<u64>().map_err(|_| {
                Error::invalid_model(format!("metadata {key}: expected a number, found {}", quoted(text)))
            })
        };
        let sha256 = |key: &str, text: String| match text.len() == 64
            && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            true => Ok(text),
            false => {
                let found = quoted(&text);
                Err(Error::invalid_model(format!("metadata {key}: expected 64 hex digits, found {found}")))
            }
        };
        let info = PackedInfo {
            weights: take("weights")?,
            source: take("source")?,
            source_sha256: sha256("source_sha256", take("source_sha256")?)?,
            stored_bytes: number("stored_bytes", &take("stored_bytes")?)?,
            has_tokenizer: match take("tokenizer")?.as_str() {
                "tokenizer.json" => true,
                NO_TOKENIZER => false,
                other => {
                    let message = format!(
                        "metadata tokenizer: expected tokenizer.json or none, found {}",
                        quoted(other)
                    );
                    return Err(Error::invalid_model(message));
                }
            },
            written_by: take("written_by")?,
            data_sha256: sha256("data_sha256", take("data_sha256")?)?,
            rotated: match metadata.remove("rotated").as_deref() {
                Some("true") => true,
                None => false,
                Some(other) => {
                    let message =
                        format!("metadata rotated: expected true or nothing, found {}", quoted(other));
                    return Err(Error::invalid_model(message));
                }
            },
            formats: match metadata.remove("formats") {
                Some(text) => serde_json::from_str(&text)
                    .map_err(|error| Error::invalid_model(format!("metadata formats: {error}")))?,
                None => BTreeMap::new(),
            },
            calibrated_tokens: match metadata.remove("calibrated_tokens") {
                Some(text) => Some(number("calibrated_tokens", &text)?),
                None => None,
            },
            group_size: match metadata.remove("group_size") {
                Some(text) => Some(number("group_size", &text)? as usize),
                None => None,
            },
        };
        match metadata.keys().next() {
            Some(key) => Err(Error::invalid_model(format!("metadata: {} is not known", quoted(key)))),
            None => Ok(info),
        }
    }
}
