//! `model.safetensors.index.json`: which shard has which tensor.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::fmt;
use std::path::{Component, Path};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::file::read_small_file;
use super::safetensors::{MAX_KEYS, quoted};
use crate::error::{Error, Result};
use crate::json;

/// File name of a model that is not split.
pub(super) const SINGLE_FILE: &str = "model.safetensors";
/// File name of the index of a model in shards.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";
/// Longest index in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// What `model.safetensors.index.json` says.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// File names.
    pub(super) shards: Vec<String>,
    /// Tensor name -> number of its shard.
    pub(super) tensors: BTreeMap<String, usize>,
}

pub(super) fn read_index(path: &Path) -> Result<Index> {
    let json = read_small_file(path, MAX_INDEX_BYTES)?;
    parse_index(&json).map_err(|error| error.context(path.display()))
}

/// What the index says.
///
/// # Errors
/// `InvalidModel` if it is malformed, or names a shard that is no plain file name.
pub(crate) fn parse_index(json: &[u8]) -> Result<Index> {
    #[derive(serde::Deserialize)]
    struct File {
        weight_map: Index,
    }
    let malformed =
        |error: &dyn fmt::Display| Error::invalid_model(format!("the index is malformed: {error}"));
    // Two for each tensor.
    let limits = json::Limits { values: 2 * MAX_KEYS + 1000, of_key: &|_, _| None };
    let json = json::checked(json, &limits).map_err(|error| malformed(&error))?;
    let File { weight_map } = serde_json::from_slice(&json).map_err(|error| malformed(&error))?;
    for (number, shard) in weight_map.shards.iter().enumerate() {
        let mut components = Path::new(shard).components();
        let plain = matches!(components.next(), Some(Component::Normal(part)) if part == shard.as_str());
        // Separators of other systems are refused too, so that a model means the same everywhere.
        if !plain || components.next().is_some() || shard.contains(['/', '\\', ':', '\0']) {
            let tensor = weight_map.tensors.iter().find(|(_, shard)| **shard == number);
            return Err(Error::invalid_model(format!(
                "weight_map of {}: expected a plain file name, found {}",
                quoted(tensor.map_or("", |(name, _)| name)),
                quoted(shard)
            )));
        }
    }
    Ok(weight_map)
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Index;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of shards by tensor")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Index, A::Error> {
                let mut index = Index::default();
                let mut numbers: HashMap<String, usize> = HashMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    let number = *numbers.entry(shard).or_insert_with_key(|shard| {
                        index.shards.push(shard.clone());
                        index.shards.len() - 1
                    });
                    match index.tensors.entry(tensor) {
                        btree_map::Entry::Vacant(place) => place.insert(number),
                        btree_map::Entry::Occupied(place) => {
                            let key = quoted(place.key());
                            return Err(A::Error::custom(format_args!("the key {key} occurs twice")));
                        }
                    };
                }
                Ok(index)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
