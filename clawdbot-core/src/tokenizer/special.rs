//! Special tokens by role, from `tokenizer_config.json` and `special_tokens_map.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The special tokens of a tokenizer's configuration by role. Serializes to the form that [`parse`](Self::parse) reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecialTokens {
    /// Beginning of sequence.
    #[serde(rename = "bos_token")]
    pub bos: Option<String>,
    /// End of sequence.
    #[serde(rename = "eos_token")]
    pub eos: Option<String>,
    /// Unknown token.
    #[serde(rename = "unk_token")]
    pub unk: Option<String>,
    /// Padding.
    #[serde(rename = "pad_token")]
    pub pad: Option<String>,
    /// Every other field whose name ends in `_token` and whose value is a token (`image_token`, `sep_token`, ...).
    #[serde(flatten)]
    pub others: Map<String, Value>,
    /// Whether the beginning-of-sequence token is put before a text; `None` if the file does not say.
    pub add_bos_token: Option<bool>,
    /// Whether the end-of-sequence token is put after a text; `None` if the file does not say.
    pub add_eos_token: Option<bool>,
}

impl SpecialTokens {
    /// Reads the object in `tokenizer_config.json` or `special_tokens_map.json`. Each token is a string, an object with
    /// the string `content`, or null. Other fields are ignored.
    ///
    /// # Errors
    /// `InvalidTokenizer` if `config` is not an object, or a token or flag has another type.
    pub fn parse(config: &Value) -> Result<Self> {
        let config = config
            .as_object()
            .ok_or_else(|| Error::invalid_tokenizer("tokenizer configuration: expected a JSON object"))?;
        let mut tokens = SpecialTokens::default();
        for (key, value) in config {
            match key.as_str() {
                "bos_token" => tokens.bos = content(key, value)?,
                "eos_token" => tokens.eos = content(key, value)?,
                "unk_token" => tokens.unk = content(key, value)?,
                "pad_token" => tokens.pad = content(key, value)?,
                "add_bos_token" => tokens.add_bos_token = flag(key, value)?,
                "add_eos_token" => tokens.add_eos_token = flag(key, value)?,
                _ if key.ends_with("_token") && !value.is_boolean() => {
                    if let Some(token) = content(key, value)? {
                        tokens.others.insert(key.clone(), Value::String(token));
                    }
                }
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// These tokens, with missing fields from `other`.
    #[must_use]
    pub fn or(mut self, other: SpecialTokens) -> Self {
        self.bos = self.bos.or(other.bos);
        self.eos = self.eos.or(other.eos);
        self.unk = self.unk.or(other.unk);
        self.pad = self.pad.or(other.pad);
        self.add_bos_token = self.add_bos_token.or(other.add_bos_token);
        self.add_eos_token = self.add_eos_token.or(other.add_eos_token);
        for (key, value) in other.others {
            self.others.entry(key).or_insert(value);
        }
        self
    }

    /// The tokens as variables of a chat template: `bos_token`, `eos_token`, ...; tokens that are not set are left out.
    pub fn to_variables(&self) -> Map<String, Value> {
        let named = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("unk_token", &self.unk),
            ("pad_token", &self.pad),
        ];
        let named =
            named.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token.as_deref()?.into())));
        named.chain(self.others.clone()).collect()
    }
}

fn content(key: &str, value: &Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(token) => Ok(Some(token.clone())),
        Value::Object(token) => match token.get("content") {
            Some(Value::String(token)) => Ok(Some(token.clone())),
            _ => Err(Error::invalid_tokenizer(format!(
                "{key}: expected an object with the string \"content\", found {value}"
            ))),
        },
        _ => Err(Error::invalid_tokenizer(format!(
            "{key}: expected a string, an object or null, found {value}"
        ))),
    }
}

fn flag(key: &str, value: &Value) -> Result<Option<bool>> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(*flag)),
        _ => Err(Error::invalid_tokenizer(format!("{key}: expected true, false or null, found {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_objects_and_nulls_are_read() {
        let tokens = SpecialTokens::parse(&json!({
            "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null,
            "image_token": "<image>", "add_bos_token": true, "model_max_length": 5, "additional_special_tokens": ["x"],
        }))
        .expect("well formed");
        assert_eq!((tokens.bos.as_deref(), tokens.eos.as_deref()), (Some("<s>"), Some("</s>")));
        assert_eq!((tokens.pad.clone(), tokens.add_bos_token), (None, Some(true)));
        assert_eq!(
            Value::Object(tokens.to_variables()),
            json!({"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"})
        );
        let text = serde_json::to_value(&tokens).expect("serialisable");
        assert_eq!(SpecialTokens::parse(&text).expect("own form"), tokens);
    }

    #[test]
    fn the_first_file_wins_field_by_field() {
        let first = SpecialTokens::parse(&json!({"bos_token": "a", "x_token": "1"})).expect("well formed");
        let second = SpecialTokens::parse(&json!({"bos_token": "b", "eos_token": "c", "y_token": "2"}))
            .expect("well formed");
        let both = first.or(second);
        assert_eq!(
            Value::Object(both.to_variables()),
            json!({"bos_token": "a", "eos_token": "c", "x_token": "1", "y_token": "2"})
        );
    }

    #[test]
    fn other_types_are_errors() {
        for config in [
            json!([]),
            json!({"bos_token": 1}),
            json!({"eos_token": {}}),
            json!({"add_bos_token": "yes"}),
            json!({"x_token": [1]}),
        ] {
            let error = SpecialTokens::parse(&config).expect_err("malformed");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidTokenizer, "{config}");
        }
    }
}
