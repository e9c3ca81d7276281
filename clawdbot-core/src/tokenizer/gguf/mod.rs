//! Converts a vocabulary in the metadata of a GGUF file to `tokenizer.json` and `tokenizer_config.json`, which are then
//! read as for any model.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>. `tokenizer.ggml.model` names the kind
//! of tokenizer: `gpt2` is byte-level BPE (`bpe.rs`), `llama` and `gemma4` are SentencePiece's BPE (`spm.rs`), `bert`
//! is WordPiece (`wpm.rs`), `t5` is SentencePiece's unigram model (`ugm.rs`).

mod bpe;
mod pre;
mod spm;
#[cfg(test)]
mod tests;
mod ugm;
mod vocab;
mod wpm;

use std::path::Path;

use serde_json::{Value, json};

pub(super) use self::pre::GPT2;
use self::vocab::{MODEL, Vocab};
use super::Tokenizer;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{DataFile, GgufHeader, Metadata};

/// The files that a Hugging Face directory would have.
pub(crate) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub(crate) tokenizer: Vec<u8>,
    /// `tokenizer_config.json`.
    pub(crate) config: Vec<u8>,
    /// The token that begins a text.
    pub(crate) bos: Option<u32>,
    /// Tokens that end a text or a turn.
    pub(crate) eos: Vec<u32>,
    pub(crate) pad: Option<u32>,
    /// Warnings about the metadata, for the log.
    pub(crate) notes: Vec<String>,
}

/// The tokenizer in the metadata; `None` if there is none.
///
/// # Errors
/// `UnsupportedModel` for unknown kinds of tokenizers and unknown pre-tokenizers, `InvalidTokenizer` for missing or
/// contradictory metadata.
pub(crate) fn tokenizer_files(metadata: &Metadata) -> Result<Option<TokenizerFiles>> {
    let json = match metadata.opt_str(MODEL)? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some("gpt2") => bpe::tokenizer_json,
        Some("llama" | spm::GEMMA4) => spm::tokenizer_json,
        Some("bert") => wpm::tokenizer_json,
        Some("t5") => ugm::tokenizer_json,
        Some(_) => return Err(metadata.unsupported(MODEL, "gpt2, llama, gemma4, bert or t5")),
    };
    let vocab = Vocab::read(metadata)?;
    let tokenizer = json(metadata, &vocab)?;
    Ok(Some(TokenizerFiles {
        tokenizer,
        config: config(metadata, &vocab)?.to_string().into_bytes(),
        bos: vocab.id(metadata, "bos")?,
        eos: vocab.ends(metadata)?,
        pad: vocab.optional_id(metadata, "padding")?,
        notes: vocab.notes(metadata)?,
    }))
}

/// Special tokens by role, and the chat templates.
fn config(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Value> {
    let mut config = json!({});
    for (key, role) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
        ("sep_token", "seperator"),
        ("cls_token", "cls"),
        ("mask_token", "mask"),
    ] {
        if let Some(id) = vocab.optional_id(metadata, role)? {
            config[key] = vocab.tokens[id as usize].into();
        }
    }
    for role in ["bos", "eos"] {
        if let Some(add) = metadata.opt_bool(&format!("tokenizer.ggml.add_{role}_token"))? {
            config[format!("add_{role}_token")] = add.into();
        }
    }
    const TEMPLATE: &str = "tokenizer.chat_template";
    let default = metadata.opt_str(TEMPLATE)?;
    let prefix = format!("{TEMPLATE}.");
    let mut named = Vec::new();
    for key in metadata.keys().filter(|key| key.starts_with(&prefix)) {
        named.push(json!({"name": &key[prefix.len()..], "template": metadata.str(key)?}));
    }
    match (default, named.is_empty()) {
        (Some(template), true) => config["chat_template"] = template.into(),
        (None, true) => {}
        (default, false) => {
            named.extend(default.map(|template| json!({"name": "default", "template": template})));
            config["chat_template"] = named.into();
        }
    }
    Ok(config)
}

impl Tokenizer {
    /// The tokenizer in the metadata of the GGUF file at `path`.
    ///
    /// # Errors
    /// `InvalidTokenizer` if it has none; as [`tokenizer_files`], `GgufHeader::read` and `from_bytes`.
    pub(super) fn from_gguf(path: &Path) -> Result<Self> {
        let header = GgufHeader::read(&DataFile::open(path)?)?;
        let files = tokenizer_files(&header.metadata)?.ok_or_else(|| {
            let message = format!("{}: expected a vocabulary, found none", path.display());
            Error::new(ErrorKind::InvalidTokenizer, message).with("path", path.display().to_string())
        })?;
        Self::from_bytes(&files.tokenizer).map_err(|error| error.context(path.display()))
    }
}
