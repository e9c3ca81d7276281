//! What a packed file keeps of a `tokenizer.json`: tables, and the rest of it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::LIMITS;
use super::added::Added;
use super::fields::Fields;
use crate::json;
use crate::tokenizer::tables;

/// The parts of a file.
#[derive(Default)]
struct File {
    rest: Map<String, Value>,
    added: Vec<Added>,
    model: Fields,
}

/// The tables of the tokenizer in `json`, which was read already. `None` if there are too many tokens, or texts that
/// are made to have the same hash.
///
/// # Errors
/// With what was expected and found.
pub(in crate::tokenizer) fn tables(json: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let checked = json::checked(json, &LIMITS)?;
    let file: File = serde_json::from_slice(&checked).map_err(|error| error.to_string())?;
    let (settings, parts) = file.model.split()?;
    let mut rest = file.rest;
    rest.insert("added_tokens".to_owned(), json!(file.added));
    rest.insert("model".to_owned(), settings);
    let rest = Value::Object(rest).to_string().into_bytes();
    let Some(bytes) = tables::blob(&parts, rest, json.len() as u64)? else { return Ok(None) };
    tables::check(bytes.clone(), &parts)?;
    Ok(Some(bytes))
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FileVisitor;
        impl<'de> Visitor<'de> for FileVisitor {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tokenizer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let mut file = File::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "added_tokens" => file.added = map.next_value()?,
                        "model" => file.model = map.next_value()?,
                        "version" | "normalizer" | "pre_tokenizer" | "post_processor" | "decoder" => {
                            let value = map.next_value()?;
                            file.rest.insert(key, value);
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(file)
            }
        }
        deserializer.deserialize_map(FileVisitor)
    }
}
