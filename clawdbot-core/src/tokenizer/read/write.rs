//! What a packed file keeps of a `tokenizer.json`: tables, and the rest of it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::added::Added;
use super::fields::Fields;
use super::{LIMITS, Part};
use crate::json;
use crate::tokenizer::tables::{self, Blob, NoTables};

/// The parts of a file.
#[derive(Default)]
struct File {
    rest: Map<String, Value>,
    added: Vec<Added>,
    model: Fields,
}

/// The tables of the tokenizer in `json`, which was read already, or why it has none.
///
/// # Errors
/// With what was expected and found.
pub(in crate::tokenizer) fn tables(json: &[u8]) -> Result<Result<Blob, NoTables>, String> {
    let checked = json::checked(json, &LIMITS)?;
    let file: File = serde_json::from_slice(&checked).map_err(|error| error.to_string())?;
    let (settings, parts) = file.model.split()?;
    let mut rest = file.rest;
    rest.insert("added_tokens".to_owned(), json!(file.added));
    rest.insert("model".to_owned(), settings);
    let rest = Value::Object(rest).to_string().into_bytes();
    let bytes = match tables::bytes(&parts, rest, json.len() as u64)? {
        Ok(bytes) => bytes,
        Err(none) => return Ok(Err(none)),
    };
    let blob = Blob::open(bytes)?;
    tables::check(&blob, &parts)?;
    Ok(Ok(blob))
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
                    match Part::named(&key) {
                        Some(Part::AddedTokens) => file.added = map.next_value()?,
                        Some(Part::Model) => file.model = map.next_value()?,
                        Some(_) => {
                            let value = map.next_value()?;
                            file.rest.insert(key, value);
                        }
                        None => {
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
