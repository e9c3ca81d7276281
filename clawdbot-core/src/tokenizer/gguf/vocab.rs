//! Tokens, their types and roles.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::{Array, Metadata, Value as MetadataValue, quoted};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
/// The character that stands for a space.
pub(super) const SPACE: &str = "\u{2581}";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Control tokens that end a text or a turn, for files that name only one of them.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|return|>",
    "<|call|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// Type of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    /// A marker, such as the end of a turn.
    Control,
    /// Matched in texts before anything else.
    UserDefined,
    Unused,
    /// A byte, `<0xNN>`.
    Byte,
}

/// A vocabulary: every id has a token, and no token has two ids.
pub(super) struct Vocab<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) kinds: Vec<TokenKind>,
    pub(super) ids: HashMap<&'a str, u32>,
    /// Tokens that are added around texts, and the unknown token.
    around: Vec<u32>,
}

/// Roles without which any text can be tokenized.
const UNNEEDED: [&str; 2] = ["padding", "mask"];

impl<'a> Vocab<'a> {
    pub(super) fn read(metadata: &'a Metadata) -> Result<Self> {
        let tokens = metadata.opt_array(TOKENS)?.and_then(Array::strings);
        let tokens: Vec<&str> =
            tokens.ok_or_else(|| invalid(metadata, TOKENS, "an array of strings"))?.collect();
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            let id = u32::try_from(id).map_err(|_| invalid(metadata, TOKENS, "less than 2^32 tokens"))?;
            if let Some(other) = ids.insert(*token, id) {
                let expected = format!("distinct tokens, but {} is both {other} and {id}", quoted(token));
                return Err(invalid(metadata, TOKENS, &expected));
            }
        }
        let kinds = match metadata.opt_array(TYPES)? {
            None => vec![TokenKind::Normal; tokens.len()],
            Some(types) => kinds(metadata, types, tokens.len())?,
        };
        let mut vocab = Vocab { tokens, kinds, ids, around: Vec::new() };
        for role in ["bos", "eos", "seperator", "unknown"] {
            vocab.around.extend(vocab.id(metadata, role)?);
        }
        Ok(vocab)
    }

    /// The id of the token with a role: `tokenizer.ggml.ROLE_token_id`.
    pub(super) fn id(&self, metadata: &Metadata, role: &str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = metadata.opt_u64(&key)? else { return Ok(None) };
        match u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens.len()) {
            Some(id) => Ok(Some(id)),
            None => {
                let expected = format!("an id below {}, the number of tokens", self.tokens.len());
                Err(invalid(metadata, &key, &expected))
            }
        }
    }

    /// As [`id`](Self::id), but `None` for an unneeded role whose id has no token.
    pub(super) fn optional_id(&self, metadata: &Metadata, role: &str) -> Result<Option<u32>> {
        match self.id(metadata, role) {
            Err(_) if UNNEEDED.contains(&role) && self.beyond(metadata, role)?.is_some() => Ok(None),
            found => found,
        }
    }

    /// The id of `role`, if no token has it.
    fn beyond(&self, metadata: &Metadata, role: &str) -> Result<Option<u64>> {
        let id = metadata.opt_u64(&format!("tokenizer.ggml.{role}_token_id"))?;
        Ok(id.filter(|&id| id >= self.tokens.len() as u64))
    }

    /// Notes on the ids that [`optional_id`](Self::optional_id) ignores.
    pub(super) fn notes(&self, metadata: &Metadata) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for role in UNNEEDED {
            if let Some(id) = self.beyond(metadata, role)? {
                let count = self.tokens.len();
                notes.push(format!(
                    "tokenizer.ggml.{role}_token_id: {id} ignored, as there are only {count} tokens"
                ));
            }
        }
        Ok(notes)
    }

    /// Every token that ends a text or a turn.
    pub(super) fn ends(&self, metadata: &Metadata) -> Result<Vec<u32>> {
        let mut ends = Vec::new();
        for role in ["eos", "eot", "eom"] {
            ends.extend(self.id(metadata, role)?);
        }
        let marker = |id: &u32| self.kinds[*id as usize] == TokenKind::Control;
        let named: BTreeSet<u32> =
            ENDS.iter().filter_map(|name| self.ids.get(name).copied()).filter(marker).collect();
        for id in named {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        ends.dedup();
        Ok(ends)
    }

    /// `added_tokens` of `tokenizer.json`.
    pub(super) fn added(&self, unknown: Option<u32>) -> Vec<Value> {
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            let special = *kind == TokenKind::Control || unknown == Some(id as u32);
            if (special || *kind == TokenKind::UserDefined) && !token.is_empty() {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special,
                }));
            }
        }
        added
    }

    /// `post_processor` of `tokenizer.json`: the tokens added around a text; `defaults` where the file does not say.
    pub(super) fn post_processor(&self, metadata: &Metadata, defaults: AddedTokens) -> Result<Value> {
        let around = |role: &str, default: bool| -> Result<Option<Marker>> {
            let key = format!("tokenizer.ggml.add_{role}_token");
            let add = metadata.opt_bool(&key)?;
            match self.id(metadata, role)? {
                Some(id) if add.unwrap_or(default) => Ok(Some(self.marker(id))),
                None if add == Some(true) => {
                    let role_key = format!("tokenizer.ggml.{role}_token_id");
                    Err(invalid(metadata, &role_key, &format!("an id, as {key} is true")))
                }
                _ => Ok(None),
            }
        };
        let (before, after) = (around("bos", defaults.bos)?, around("eos", defaults.eos)?);
        // As in RoBERTa's pairs: a separator in place of the second text's first token.
        let separator = self.id(metadata, "seperator")?.map(|id| self.marker(id));
        let second = separator.or_else(|| before.clone());
        Ok(Markers { before, second, after }.post_processor())
    }

    fn marker(&self, id: u32) -> Marker {
        Marker { id, token: self.tokens[id as usize].to_owned() }
    }

    /// The id of the unknown token: the one with that role, else the first of that type.
    pub(super) fn unknown(&self, metadata: &Metadata) -> Result<u32> {
        let of_type = || self.kinds.iter().position(|kind| *kind == TokenKind::Unknown).map(|id| id as u32);
        let found = self.id(metadata, "unknown")?.or_else(of_type);
        found.ok_or_else(|| invalid(metadata, TOKENS, "an unknown token"))
    }

    /// One score for each token.
    pub(super) fn scores(&self, metadata: &Metadata) -> Result<Vec<f64>> {
        let score = |value| match value {
            MetadataValue::Float(score) if score.is_finite() => Some(score),
            _ => None,
        };
        let count = self.tokens.len();
        let scores = metadata.opt_array(SCORES)?.and_then(Array::scalars);
        let scores: Option<Vec<f64>> = scores.and_then(|scores| scores.map(score).collect());
        let expected = || invalid(metadata, SCORES, &format!("{count} finite numbers, one for each token"));
        scores.filter(|scores| scores.len() == count).ok_or_else(expected)
    }

    /// Unused tokens that no merge makes or needs: placeholder names with which a vocabulary is padded. No text
    /// contains them, and as in llama.cpp they decode to nothing, so they are left out and never generated.
    fn padding(&self, merges: &[(&str, &str)]) -> HashSet<&'a str> {
        let unused = self.tokens.iter().zip(&self.kinds).filter(|(_, kind)| **kind == TokenKind::Unused);
        let mut padding: HashSet<&str> = unused.map(|(token, _)| *token).collect();
        padding.retain(|token| !self.around.contains(&self.ids[token]));
        if !padding.is_empty() {
            for &(left, right) in merges {
                padding.remove(left);
                padding.remove(right);
                padding.remove([left, right].concat().as_str());
            }
        }
        padding
    }

    /// The complete file, with a BPE model.
    ///
    /// # Errors
    /// `Internal` if a string cannot be written, which does not happen.
    pub(super) fn bpe_json<'m>(
        &self,
        mut head: Value,
        mut model: Value,
        merges: &[(&'m str, &'m str)],
    ) -> Result<Vec<u8>> {
        let padding = self.padding(merges);
        // The large parts are written directly, without building JSON values first.
        head["version"] = "1.0".into();
        let mut out = head.to_string().into_bytes();
        out.pop();
        // After the type, which the reader needs first.
        out.extend_from_slice(br#","model":{"type":"BPE""#);
        model["dropout"] = Value::Null;
        let model = model.to_string();
        out.push(b',');
        out.extend_from_slice(&model.as_bytes()[1..model.len() - 1]);
        out.extend_from_slice(br#","vocab":{"#);
        for (id, token) in self.tokens.iter().enumerate().filter(|(_, token)| !padding.contains(*token)) {
            write_text(&mut out, token)?;
            out.extend_from_slice(format!(":{id},").as_bytes());
        }
        close(&mut out, b"}");
        out.extend_from_slice(br#","merges":["#);
        for &(left, right) in merges {
            out.push(b'[');
            write_text(&mut out, left)?;
            out.push(b',');
            write_text(&mut out, right)?;
            out.extend_from_slice(b"],");
        }
        close(&mut out, b"]}}");
        Ok(out)
    }
}

/// Whether tokens are added around a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddedTokens {
    /// The beginning-of-sequence token, before it.
    pub(super) bos: bool,
    /// The end-of-sequence token, after it.
    pub(super) eos: bool,
}

/// A token that is added around texts.
#[derive(Debug, Clone)]
pub(super) struct Marker {
    pub(super) id: u32,
    pub(super) token: String,
}

/// Tokens that are added around a text or a pair of texts.
#[derive(Debug, Clone)]
pub(super) struct Markers {
    pub(super) before: Option<Marker>,
    /// Before the second text of a pair.
    pub(super) second: Option<Marker>,
    /// After each text.
    pub(super) after: Option<Marker>,
}

impl Markers {
    /// The `post_processor` of `tokenizer.json` that adds them.
    pub(super) fn post_processor(&self) -> Value {
        let Markers { before, second, after } = self;
        if before.is_none() && after.is_none() {
            return Value::Null;
        }
        let marker = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
        let text = |name: &str, kind: u32| {
            let mut parts = Vec::new();
            let first = if kind == 0 { before } else { second };
            parts.extend(first.as_ref().map(|first| marker(&first.token, kind)));
            parts.push(json!({"Sequence": {"id": name, "type_id": kind}}));
            parts.extend(after.as_ref().map(|after| marker(&after.token, kind)));
            parts
        };
        let single = text("A", 0);
        let pair: Vec<Value> = single.iter().cloned().chain(text("B", 1)).collect();
        let mut special = json!({});
        for Marker { id, token } in before.iter().chain(second).chain(after) {
            special[token.as_str()] = json!({"id": token, "ids": [id], "tokens": [token]});
        }
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
    }
}

/// Replaces the comma after the last element by `end`.
fn close(out: &mut Vec<u8>, end: &[u8]) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(end);
}

fn write_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    serde_json::to_writer(out, text).map_err(|error| Error::internal(format!("{text:?} as JSON: {error}")))
}

fn kinds(metadata: &Metadata, types: &Array, count: usize) -> Result<Vec<TokenKind>> {
    let kind = |value: MetadataValue| match value {
        MetadataValue::Signed(1) | MetadataValue::Unsigned(1) => Some(TokenKind::Normal),
        MetadataValue::Signed(2) | MetadataValue::Unsigned(2) => Some(TokenKind::Unknown),
        MetadataValue::Signed(3) | MetadataValue::Unsigned(3) => Some(TokenKind::Control),
        MetadataValue::Signed(4) | MetadataValue::Unsigned(4) => Some(TokenKind::UserDefined),
        MetadataValue::Signed(5) | MetadataValue::Unsigned(5) => Some(TokenKind::Unused),
        MetadataValue::Signed(6) | MetadataValue::Unsigned(6) => Some(TokenKind::Byte),
        _ => None,
    };
    let kinds: Option<Vec<TokenKind>> = types.scalars().and_then(|types| types.map(kind).collect());
    kinds
        .filter(|kinds| kinds.len() == count)
        .ok_or_else(|| invalid(metadata, TYPES, &format!("{count} integers from 1 to 6, one for each token")))
}

/// `InvalidTokenizer` with the file, `key`, what was expected and what was found.
pub(super) fn invalid(metadata: &Metadata, key: &str, expected: &str) -> Error {
    let found = metadata.invalid(key, expected);
    Error::new(ErrorKind::InvalidTokenizer, found.message()).with("file", metadata.file()).with("key", key)
}
