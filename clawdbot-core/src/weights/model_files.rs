//! The small files of a model, wherever they are: in a directory, in a packed file, or in memory.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use super::{PackedFile, is_there, read_small_file};
use crate::error::{Error, ErrorKind, Result};

/// The chat template, and the one for conversations with tools.
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
pub(crate) const TOOL_TEMPLATE: &str = "additional_chat_templates/tool_use.jinja";

/// Names of all files that may be part of a model, apart from its weights.
pub(crate) const MODEL_FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE,
    TOOL_TEMPLATE,
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
];

/// Most bytes of a file.
fn limit(name: &str) -> u64 {
    match name {
        "tokenizer.json" => 256 << 20,
        // Added tokens, and templates.
        "tokenizer_config.json" | TEMPLATE | TOOL_TEMPLATE => 64 << 20,
        _ => 16 << 20,
    }
}

/// Where the files are.
pub(crate) enum ModelFiles {
    Dir(PathBuf),
    Packed(Arc<PackedFile>),
    /// Of a model called by the first name.
    Memory(String, Vec<(&'static str, Cow<'static, [u8]>)>),
}

/// A tokenizer's tables as they are in a packed file.
pub(crate) struct TokenizerTables {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the `tokenizer.json` next to them.
    pub(crate) json_bytes: u64,
}

impl ModelFiles {
    /// What messages call the file `name`.
    pub(crate) fn path(&self, name: &str) -> String {
        match self {
            ModelFiles::Dir(dir) => dir.join(name).display().to_string(),
            ModelFiles::Packed(file) => format!("{}: {name}", file.name()),
            ModelFiles::Memory(model, _) => format!("{model}/{name}"),
        }
    }

    /// The file `name`, if the model has it.
    ///
    /// # Errors
    /// `Io` if it cannot be read, `InvalidModel` if it is too long.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            ModelFiles::Dir(dir) => {
                let path = dir.join(name);
                if !is_there(&path) {
                    return Ok(None);
                }
                read_small_file(&path, limit(name)).map(|bytes| Some(bytes.into()))
            }
            ModelFiles::Packed(file) => Ok(file.model_file(name, limit(name))?.map(Cow::Owned)),
            ModelFiles::Memory(_, files) => {
                Ok(files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.clone()))
            }
        }
    }

    /// The tables of the tokenizer, if the model is packed and has them.
    ///
    /// # Errors
    /// As [`PackedFile::tables`].
    pub(crate) fn tables(&self) -> Result<Option<TokenizerTables>> {
        let ModelFiles::Packed(file) = self else { return Ok(None) };
        // Without the file they were made of, they stand for nothing.
        let Some(json_bytes) = file.model_file_len("tokenizer.json") else { return Ok(None) };
        Ok(file.tables()?.map(|bytes| TokenizerTables { bytes, json_bytes }))
    }

    /// The file `name`.
    ///
    /// # Errors
    /// `NotFound` if the model does not have it, and as [`get`](Self::get).
    pub(crate) fn require(&self, name: &str) -> Result<Cow<'static, [u8]>> {
        self.get(name)?.ok_or_else(|| {
            let path = self.path(name);
            let expected = match name {
                "config.json" => {
                    "expected a model directory, which has config.json, tokenizer.json and *.safetensors"
                }
                _ => "expected a file",
            };
            Error::new(ErrorKind::NotFound, format!("{path}: {expected}; found none")).with("path", path)
        })
    }
}
