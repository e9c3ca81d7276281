//! Reads `tokenizer.json` in one pass. The tokenizers crate copies a model several times while it reads it, which takes
//! most of the time and a multiple of the file's size in memory. Here the fields are read into their final form, and
//! the model's type is checked at the end.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::pipeline::{self, Decoder, Limits, Normalizers, PreTokenizers};
use crate::json;

use super::tables::Blob;
use added::Added;
use fields::Fields;

mod added;
mod fields;
mod model;
mod write;

pub(super) use model::{Covers, Encoder};
pub(super) use write::tables;

/// Most values of a file apart from its model and added tokens. The largest published vocabulary has 2.1 million
/// values, merges included.
const LIMITS: json::Limits<'_> = json::Limits { values: 1 << 16, of_key: &values_of };

/// Most values of a part that has a limit of its own.
fn values_of(key: &str, _: &[u8]) -> Option<usize> {
    match key {
        "model" => Some(1 << 22),
        "added_tokens" => Some(1 << 21),
        _ => None,
    }
}

/// The parts of a file that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Version,
    AddedTokens,
    Normalizer,
    PreTokenizer,
    PostProcessor,
    Decoder,
    Model,
}

impl Part {
    const ALL: [(Part, &str); 7] = [
        (Part::Version, "version"),
        (Part::AddedTokens, "added_tokens"),
        (Part::Normalizer, "normalizer"),
        (Part::PreTokenizer, "pre_tokenizer"),
        (Part::PostProcessor, "post_processor"),
        (Part::Decoder, "decoder"),
        (Part::Model, "model"),
    ];

    /// The part with this key; `None` for what is not read.
    fn named(key: &str) -> Option<Self> {
        Part::ALL.iter().find(|(_, name)| *name == key).map(|(part, _)| *part)
    }
}

/// A tokenizer as described by its file.
pub(super) struct Read {
    pub(super) encoder: Encoder,
    pub(super) decoder: Option<Decoder>,
    pub(super) largest_id: Option<u32>,
    /// Warnings about the file.
    pub(super) notes: Vec<String>,
}

/// The tokenizer in `json`; with `tables`, vocabulary and merges are there.
///
/// # Errors
/// With the parser's message.
pub(super) fn read(json: &[u8], tables: Option<&Blob>) -> serde_json::Result<Read> {
    let json = json::checked(json, &LIMITS).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let read = Reader(tables).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(read)
}

/// Reads a tokenizer whose vocabulary and merges may be tables.
struct Reader<'a>(Option<&'a Blob>);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        struct ReadVisitor<'a>(Option<&'a Blob>);
        impl<'de> Visitor<'de> for ReadVisitor<'_> {
            type Value = Read;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tokenizer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
                let mut limits = Limits::default();
                let (mut normalizer, mut pre_tokenizer, mut post_processor) = (None, None, None);
                let (mut decoder, mut model, mut added) = (None, None::<Fields>, Vec::<Added>::new());
                let part = A::Error::custom::<String>;
                while let Some(key) = map.next_key::<String>()? {
                    match Part::named(&key) {
                        Some(Part::Version) => match map.next_value::<String>()?.as_str() {
                            "1.0" => {}
                            other => return Err(part(format!("expected version 1.0, found {other:.50?}"))),
                        },
                        Some(Part::AddedTokens) => added = map.next_value()?,
                        Some(Part::Normalizer) => {
                            let value = map.next_value()?;
                            normalizer = Normalizers::parse(value, &mut limits).map_err(part)?;
                        }
                        Some(Part::PreTokenizer) => {
                            let value = map.next_value()?;
                            pre_tokenizer = PreTokenizers::parse(value, &mut limits).map_err(part)?;
                        }
                        Some(Part::PostProcessor) => {
                            let value = map.next_value()?;
                            post_processor = pipeline::post_processor(value).map_err(part)?;
                        }
                        Some(Part::Decoder) => {
                            let value = map.next_value()?;
                            decoder = Decoder::parse(value, &mut limits).map_err(part)?;
                        }
                        Some(Part::Model) => model = Some(map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let model = model.ok_or_else(|| A::Error::missing_field("model"))?;
                // Once, however often the key is there: building takes time for every token.
                let model = match self.0 {
                    Some(tables) => model.build_with(tables),
                    None => model.build(),
                };
                let model = model.map_err(part)?;
                let largest_id = model.largest_id;
                let mut encoder = Encoder::new(model);
                encoder.with_pre_tokenizer(pre_tokenizer).with_post_processor(post_processor);
                encoder.with_normalizer(normalizer).map_err(A::Error::custom)?;
                let (others, notes) = added::add(&mut encoder, added).map_err(part)?;
                Ok(Read { encoder, decoder, largest_id: largest_id.max(others), notes })
            }
        }
        deserializer.deserialize_map(ReadVisitor(self.0))
    }
}

#[cfg(test)]
mod tests;
