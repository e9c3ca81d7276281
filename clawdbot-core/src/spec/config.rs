//! Typed access to untrusted settings: `config.json`, `generation_config.json`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json;
use crate::weights::model_files::ModelFiles;
use crate::weights::quoted;

/// Largest value of sizes without a limit below.
const MAX_SIZE: u64 = 1 << 31;
/// Largest values that a real model may have.
const LIMITS: &[(&str, u64)] = &[
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 22),
    ("num_hidden_layers", 4096),
    ("num_attention_heads", 1 << 16),
    ("num_key_value_heads", 1 << 16),
    ("head_dim", 1 << 16),
    ("global_head_dim", 1 << 16),
    ("num_global_key_value_heads", 1 << 16),
    // Checked early, as frequencies are allocated for it.
    ("qk_rope_head_dim", 1 << 16),
    ("max_window_layers", MAX_SIZE),
    ("num_experts", 1 << 16),
    ("num_local_experts", 1 << 16),
    ("n_routed_experts", 1 << 16),
    ("dim", 1 << 20),
    ("hidden_dim", 1 << 22),
    ("n_layers", 4096),
    ("n_embd", 1 << 20),
    ("n_inner", 1 << 22),
    ("n_layer", 4096),
    ("n_head", 1 << 16),
    ("n_heads", 1 << 16),
];

/// Most notes about a file.
const MAX_NOTES: usize = 20;

/// A JSON object of settings.
#[derive(Debug, Clone)]
pub(crate) struct ModelConfig {
    /// Path or name, for messages.
    file: String,
    /// Path of this object in the file, with a dot after each key; empty for the whole file.
    prefix: String,
    map: Map<String, Value>,
    journal: Rc<RefCell<Journal>>,
}

/// The keys requested of a file, and notes about it. All objects of the file share one.
#[derive(Debug, Default)]
struct Journal {
    /// Paths of keys.
    asked: BTreeSet<String>,
    notes: Vec<String>,
}

impl ModelConfig {
    /// Reads the file `name`.
    ///
    /// # Errors
    /// `NotFound` or `Io` if it cannot be read, `InvalidModel` if it is not a JSON object.
    pub(crate) fn open(files: &ModelFiles, name: &str) -> Result<Self> {
        Self::parse(&files.require(name)?, &files.path(name))
    }

    /// Parses `json`; `file` is its name in messages.
    ///
    /// # Errors
    /// `InvalidModel` if it is not a JSON object.
    pub(crate) fn parse(json: &[u8], file: &str) -> Result<Self> {
        let invalid = |message: String| Error::invalid_model(format!("{file}: {message}")).with("file", file);
        match json::value(json).map_err(invalid)? {
            Value::Object(map) => {
                Ok(ModelConfig { file: file.to_owned(), prefix: String::new(), map, journal: Rc::default() })
            }
            other => Err(invalid(format!("expected an object, found {}", short(&other)))),
        }
    }

    /// Path or name of the file.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Whether there are no keys.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The value of `key`, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.ask(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is present, even as null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.ask(key);
        self.map.contains_key(key)
    }

    fn ask(&self, key: &str) {
        self.journal.borrow_mut().asked.insert(format!("{}{key}", self.prefix));
    }

    /// The paths of all requested keys, present or not.
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        self.journal.borrow().asked.clone()
    }

    /// Records a note about `key` for whoever loads the model.
    pub(crate) fn note(&self, key: &str, what: &str) {
        let note = format!("{}: {}{key}: {what}", self.file, self.prefix);
        let notes = &mut self.journal.borrow_mut().notes;
        if notes.len() < MAX_NOTES && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The notes recorded.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.journal.borrow().notes.clone()
    }

    /// `InvalidModel` with the file, `key`, what was expected and what was found.
    pub(crate) fn invalid(&self, key: &str, expected: &str) -> Error {
        self.describe(Error::invalid_model, key, expected)
    }

    /// As [`ModelConfig::invalid`], with kind `UnsupportedModel`.
    pub(crate) fn unsupported(&self, key: &str, expected: &str) -> Error {
        self.describe(Error::unsupported_model, key, expected)
    }

    fn describe(&self, kind: fn(String) -> Error, key: &str, expected: &str) -> Error {
        let found = self.map.get(key).map_or_else(|| "nothing".to_owned(), short);
        let key = format!("{}{key}", self.prefix);
        kind(format!("{}: {key}: expected {expected}, found {found}", self.file))
            .with("file", self.file.clone())
            .with("key", key)
    }

    fn required<T>(&self, key: &str, expected: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.invalid(key, expected))
    }

    /// The object under `key`, unless it is absent or null.
    pub(crate) fn object(&self, key: &str) -> Result<Option<ModelConfig>> {
        match self.get(key) {
            None => Ok(None),
            Some(value @ Value::Object(map)) if json::python_number(value).is_none() => {
                let (file, prefix) = (self.file.clone(), format!("{}{key}.", self.prefix));
                Ok(Some(ModelConfig { file, prefix, map: map.clone(), journal: Rc::clone(&self.journal) }))
            }
            Some(_) => Err(self.invalid(key, "an object or null")),
        }
    }

    /// The configuration of the text model in a multimodal one: `text_config`, with `defaults` (a JSON object) for
    /// missing keys, and with certain keys from outside it.
    ///
    /// # Errors
    /// `InvalidModel` if there is none.
    pub(crate) fn text(&self, defaults: &str) -> Result<ModelConfig> {
        const BESIDE: &[&str] = &[
            "bos_token_id",
            "eos_token_id",
            "dtype",
            "torch_dtype",
            "quantization_config",
            "compression_config",
        ];
        let key = "text_config";
        let mut text = self.object(key)?.ok_or_else(|| self.invalid(key, "an object"))?;
        for &key in BESIDE {
            if let (None, Some(value)) = (text.get(key), self.get(key)) {
                text.map.insert(key.to_owned(), value.clone());
            }
        }
        // Tied embeddings are a setting of the whole model.
        let tied = "tie_word_embeddings";
        if let Some(value) = self.get(tied) {
            text.map.insert(tied.to_owned(), value.clone());
        }
        for (key, value) in Self::parse(defaults.as_bytes(), "defaults")?.map {
            if text.get(&key).is_none() {
                text.map.insert(key, value);
            }
        }
        Ok(text)
    }

    /// Refuses keys other than `known`, unless they are null.
    ///
    /// # Errors
    /// `UnsupportedModel` naming the first other key.
    pub(crate) fn only_keys(&self, known: &[&str]) -> Result<()> {
        let other = self.map.iter().find(|(key, value)| !value.is_null() && !known.contains(&key.as_str()));
        match other {
            None => Ok(()),
            Some((key, _)) => Err(self.unsupported(key, &format!("no keys but {}", known.join(", ")))),
        }
    }

    /// A size: an integer from 0 to the limit for `key`; `None` if absent or null.
    pub(crate) fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let limit = LIMITS.iter().find(|(name, _)| *name == key).map_or(MAX_SIZE, |&(_, limit)| limit);
        let number = value.as_u64().filter(|&number| number <= limit);
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key, &format!("an integer from 0 to {limit}"))),
        }
    }

    /// As [`ModelConfig::opt_usize`], for a required key.
    pub(crate) fn usize(&self, key: &str) -> Result<usize> {
        let value = self.opt_usize(key)?;
        self.required(key, "an integer", value)
    }

    /// A finite number; `None` if absent or null.
    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match json::number(value).filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key, "a finite number")),
        }
    }

    /// A number that is finite as f32; `None` if absent or null.
    pub(crate) fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        let Some(number) = self.opt_f64(key)? else { return Ok(None) };
        let rounded = number as f32;
        if rounded.is_finite() {
            Ok(Some(rounded))
        } else {
            Err(self.invalid(key, "a number in the range of f32"))
        }
    }

    /// As [`ModelConfig::opt_f32`], for a required key.
    pub(crate) fn f32(&self, key: &str) -> Result<f32> {
        let value = self.opt_f32(key)?;
        self.required(key, "a number", value)
    }

    /// A boolean; `None` if absent or null.
    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.invalid(key, "true or false")),
        }
    }

    /// A boolean; `default` if absent or null.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.opt_bool(key)?.unwrap_or(default))
    }

    /// A string; `None` if absent or null.
    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(key, "a string")),
        }
    }

    /// As [`ModelConfig::opt_str`], for a required key.
    pub(crate) fn str(&self, key: &str) -> Result<&str> {
        let value = self.opt_str(key)?;
        self.required(key, "a string", value)
    }

    /// A list of strings; `None` if absent or null.
    pub(crate) fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        self.required(key, "a list of strings", strings).map(Some)
    }

    /// A list of sizes; `None` if absent or null.
    pub(crate) fn opt_usizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let sizes = value.as_array().and_then(|list| list.iter().map(size).collect());
        self.required(key, "a list of integers", sizes).map(Some)
    }

    /// A list of finite numbers; `None` if absent or null.
    pub(crate) fn opt_f64s(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
        let numbers = value.as_array().and_then(|list| list.iter().map(number).collect());
        self.required(key, "a list of numbers", numbers).map(Some)
    }

    /// Token ids: a single one, a list, or none (absent or null).
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        self.required(key, "a token id, a list of them, or null", ids)
    }

    /// At most one token id, in any notation of [`ModelConfig::token_ids`].
    pub(crate) fn opt_token_id(&self, key: &str) -> Result<Option<u32>> {
        match self.token_ids(key)?.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            _ => Err(self.invalid(key, "at most one token id")),
        }
    }

    /// PyTorch's name of the dtype that the model was saved in: `dtype`, formerly `torch_dtype`.
    pub(crate) fn dtype(&self) -> Result<Option<&str>> {
        match (self.opt_str("dtype")?, self.opt_str("torch_dtype")?) {
            (Some(new), Some(old)) if new != old => {
                Err(self.invalid("torch_dtype", &format!("{}, the value of dtype", quoted(new))))
            }
            (new, old) => Ok(new.or(old)),
        }
    }

    /// Names in `architectures`; empty if absent.
    pub(crate) fn architectures(&self) -> Result<Vec<&str>> {
        Ok(self.opt_strings("architectures")?.unwrap_or_default())
    }
}

/// A value as JSON (or in Python's notation where JSON has none), shortened for messages.
pub(crate) fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = json::python_number(value).map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
