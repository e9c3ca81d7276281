//! What a family's file says about GGUF.

use serde_json::{Map, Value};

use super::fields;
use super::keys::Keys;
use crate::error::Result;

/// How an architecture is stored in GGUF files.
pub(crate) struct GgufFamily {
    /// `general.architecture`.
    pub(crate) name: &'static str,
    /// Its name in `config.json`.
    pub(crate) architecture: &'static str,
    /// Its name in `config.json` if it has a sliding window.
    pub(crate) windowed: Option<&'static str>,
    /// Whether the rows of queries and keys are permuted into pairs.
    pub(crate) pairs: bool,
    /// Whether only part of each head may be rotated.
    pub(crate) partial: bool,
    /// Whether tokens see later tokens.
    pub(crate) bidirectional: bool,
    /// Whether the MLPs of layers may differ in size.
    pub(crate) uneven: bool,
    /// Key of the norms' epsilon, and its key in `config.json`.
    pub(crate) eps: (&'static str, &'static str),
    /// Modules whose names differ from those of most families.
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// Modules with an older name, used if it is present.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// Keys that no other family has.
    pub(crate) keys: &'static [&'static str],
    /// Adds or changes keys of `config.json` for this family.
    pub(crate) fields: fn(&Keys<'_>, &mut Map<String, Value>) -> Result<()>,
}

impl GgufFamily {
    pub(crate) const LLAMA: GgufFamily = GgufFamily {
        name: "llama",
        architecture: "LlamaForCausalLM",
        windowed: Some("MistralForCausalLM"),
        pairs: true,
        partial: false,
        bidirectional: false,
        uneven: false,
        eps: ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        names: &[],
        renamed: &[],
        keys: &[],
        fields: fields::llama,
    };

    /// Most families: no pairs, no windows.
    pub(crate) const PLAIN: GgufFamily =
        GgufFamily { windowed: None, pairs: false, fields: fields::dense, ..Self::LLAMA };
}
