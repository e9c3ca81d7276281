//! A model's tokenizer and chat templates.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::tokenizer::{ChatTemplates, Containing, SETTINGS_WITHOUT_EFFECT, SpecialTokens, Tokenizer};
use crate::weights::model_files::{ModelFiles, TEMPLATE, TOOL_TEMPLATE, TokenizerTables};

/// What turns text into tokens and back.
pub(crate) struct Text {
    pub(crate) tokenizer: Tokenizer,
    /// Tokens that have texts in them.
    pub(crate) containing: Containing,
    /// Those of the model's files may be no templates: that matters to who wants to render a conversation.
    pub(crate) templates: Result<Option<ChatTemplates>>,
    pub(super) special: SpecialTokens,
    /// Most tokens of a text that is embedded.
    pub(super) max_tokens: Option<usize>,
    /// What there is to say of its files.
    pub(super) notes: Vec<String>,
}

pub(crate) fn no_tokenizer() -> Error {
    Error::invalid_tokenizer("this model has no tokenizer: use token ids")
}

const SETTINGS: &str = "tokenizer_config.json";

/// The tokenizer and the chat template.
///
/// # Errors
/// `NotFound`, `InvalidTokenizer`.
pub(crate) fn open_text(files: &ModelFiles) -> Result<Text> {
    let (tokenizer, mut notes) = open_tokenizer(files)?;
    let object = |file: &str| -> Result<Option<serde_json::Value>> {
        files.get(file)?.map(|bytes| json_object(&bytes, &files.path(file))).transpose()
    };
    let settings = object(SETTINGS)?.unwrap_or_else(|| serde_json::json!({}));
    const SPLIT: &str = "split_special_tokens";
    if settings.get(SPLIT).is_some_and(|split| *split != false) {
        let file = files.path(SETTINGS);
        let message = format!("{file}: {SPLIT}: expected false, as special tokens in a text are tokens here");
        return Err(Error::new(ErrorKind::UnsupportedModel, message).with("file", file).with("key", SPLIT));
    }
    let mut special = SpecialTokens::parse(&settings)?;
    if let Some(map) = object("special_tokens_map.json")? {
        special = special.or(SpecialTokens::parse(&map)?);
    }
    let file = files.path(SETTINGS);
    let without = tokenizer.settings_without_effect(&settings, &special);
    notes.extend(without.into_iter().map(|note| format!("{file}: {note}")));
    let mut named = Vec::new();
    for (name, file) in [("default", TEMPLATE), ("tool_use", TOOL_TEMPLATE)] {
        named.extend(files.get(file)?.map(|bytes| TemplateFile { name, file, bytes }));
    }
    let templates = own_templates(files, &named, settings.get("chat_template"), &special).map_err(|error| {
        error.context("the model cannot chat without the option chat_template, as its own template is wrong")
    });
    // Tokenizers that know no limit have a huge number there.
    let max_tokens = settings.get("model_max_length").and_then(serde_json::Value::as_u64);
    let max_tokens = max_tokens.and_then(|most| usize::try_from(most).ok()).filter(|&most| most > 0);
    Ok(Text { tokenizer, containing: Containing::default(), templates, special, max_tokens, notes })
}

/// The tokenizer, and what there is to say of it. The tables of a packed file are used if this build knows their
/// version, and `tokenizer.json` otherwise.
fn open_tokenizer(files: &ModelFiles) -> Result<(Tokenizer, Vec<String>)> {
    let file = files.path("tokenizer.json");
    let mut notes = Vec::new();
    let tables = files.tables()?.filter(|tables| match Tokenizer::unknown_tables(&tables.bytes) {
        Some(version) => {
            notes.push(format!(
                "{file}: read instead of the tokenizer's tables, whose version {version} is of another build: opening \
                 takes longer; pack the model again"
            ));
            false
        }
        None => true,
    });
    let tokenizer = match tables {
        Some(TokenizerTables { bytes, json_bytes }) => Tokenizer::from_tables(bytes, json_bytes),
        None => Tokenizer::from_bytes(&files.require("tokenizer.json")?),
    };
    let tokenizer = tokenizer.map_err(|error| error.context(&file))?;
    notes.extend(tokenizer.notes().iter().map(|note| format!("{file}: {note}")));
    Ok((tokenizer, notes))
}

impl Text {
    /// Puts a chat template in the place of the model's own.
    ///
    /// # Errors
    /// `InvalidTemplate`.
    pub(crate) fn set_template(&mut self, source: &str) -> Result<()> {
        let templates = templates(Some(&source.into()), &self.special).map_err(|error| {
            let rest = error.message().strip_prefix("chat template");
            let message = rest.map(|rest| format!("option chat_template{rest}"));
            let error = match message {
                Some(message) => error.with_message(message),
                None => error.context("option chat_template"),
            };
            error.with("option", "chat_template")
        })?;
        self.templates = Ok(templates);
        Ok(())
    }
}

/// A file with a chat template.
struct TemplateFile {
    /// What the template is called among several.
    name: &'static str,
    file: &'static str,
    bytes: Cow<'static, [u8]>,
}

/// The templates of the files `named`, or else those that are configured.
fn own_templates(
    files: &ModelFiles,
    named: &[TemplateFile],
    configured: Option<&serde_json::Value>,
    special: &SpecialTokens,
) -> Result<Option<ChatTemplates>> {
    let Some(first) = named.first() else {
        return templates(configured, special).map_err(|error| error.context(files.path(SETTINGS)));
    };
    let mut list = Vec::new();
    for TemplateFile { name, file, bytes } in named {
        let source = std::str::from_utf8(bytes).map_err(|error| {
            let path = files.path(file);
            Error::new(ErrorKind::InvalidUtf8, format!("{path}: expected UTF-8: {error}"))
        })?;
        list.push(serde_json::json!({"name": name, "template": source}));
    }
    // As in transformers, such files stand in place of what the configuration has, all of it.
    templates(Some(&list.into()), special).map_err(|error| error.context(files.path(first.file)))
}

fn templates(template: Option<&serde_json::Value>, special: &SpecialTokens) -> Result<Option<ChatTemplates>> {
    template.map_or(Ok(None), |template| ChatTemplates::from_config(template, special))
}

/// What is read of `tokenizer_config.json` and `special_tokens_map.json`.
fn is_read(key: &str) -> bool {
    const KEYS: [&str; 3] = ["chat_template", "model_max_length", "split_special_tokens"];
    key.ends_with("_token") || KEYS.contains(&key) || SETTINGS_WITHOUT_EFFECT.contains(&key)
}

fn json_object(bytes: &[u8], file: &str) -> Result<serde_json::Value> {
    let object = json::object(bytes, is_read);
    let object = object
        .map_err(|message| Error::invalid_tokenizer(format!("{file}: {message}")).with("file", file))?;
    Ok(object.into())
}
