//! Lists from the hub, read within bounds: unused values are skipped without being built.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most files of a repository.
pub(crate) const MAX_FILES: usize = 100_000;
/// Most files in an index of safetensors.
const MAX_SHARDS: usize = 10_000;
/// Most tensors whose names are compared.
const MAX_TENSORS: usize = 1_000_000;

/// A list of at most [`MAX_FILES`] entries.
#[derive(Debug)]
pub(crate) struct Files<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Files<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Files<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of files")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Files<T>, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = entries.next_element()? {
                    if files.len() == MAX_FILES {
                        return Err(A::Error::custom(format_args!(
                            "expected at most {MAX_FILES} files, found more"
                        )));
                    }
                    files.push(file);
                }
                Ok(Files(files))
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// The index of a sharded safetensors model: its distinct files.
#[derive(Debug, Deserialize)]
pub(crate) struct Distinct {
    #[serde(rename = "weight_map", deserialize_with = "values")]
    pub(crate) files: BTreeSet<String>,
}

fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    struct Values;

    impl<'de> Visitor<'de> for Values {
        type Value = BTreeSet<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from tensors to files")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut files = BTreeSet::new();
            while let Some((IgnoredAny, Text(file))) = entries.next_entry()? {
                if files.contains(&*file) {
                    continue;
                }
                if files.len() == MAX_SHARDS {
                    return Err(A::Error::custom(format_args!(
                        "expected at most {MAX_SHARDS} files, found more"
                    )));
                }
                files.insert(file.into_owned());
            }
            Ok(files)
        }
    }

    deserializer.deserialize_map(Values)
}

/// The index of a sharded safetensors model: its tensors.
#[derive(Debug, Deserialize)]
pub(crate) struct Indexed {
    #[serde(rename = "weight_map")]
    pub(crate) tensors: Keys,
}

/// The distinct keys of a map.
#[derive(Debug)]
pub(crate) struct Keys(pub(crate) BTreeSet<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Keys, A::Error> {
                let mut keys = BTreeSet::new();
                while let Some((Text(key), IgnoredAny)) = entries.next_entry()? {
                    if keys.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!(
                            "expected at most {MAX_TENSORS} tensors, found more"
                        )));
                    }
                    keys.insert(key.into_owned());
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

/// A string, borrowed if possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded() {
        let list = |n: usize| format!("[{}1]", "1,".repeat(n - 1));
        assert_eq!(serde_json::from_str::<Files<u8>>(&list(MAX_FILES)).unwrap().0.len(), MAX_FILES);
        let error = serde_json::from_str::<Files<u8>>(&list(MAX_FILES + 1)).unwrap_err();
        assert!(error.to_string().contains("at most 100000 files"), "{error}");
    }

    #[test]
    fn tensors_are_bounded() {
        let map = |n: usize| {
            let entries: Vec<String> = (0..n).map(|i| format!("\"{i}\":{{\"x\":[1]}}")).collect();
            serde_json::from_str::<Keys>(&format!("{{{}}}", entries.join(",")))
        };
        assert_eq!(map(3).unwrap().0, ["0", "1", "2"].map(str::to_owned).into());
        assert!(map(MAX_TENSORS + 1).unwrap_err().to_string().contains("at most 1000000 tensors"));
    }

    #[test]
    fn indexes_are_bounded() {
        let entries: Vec<String> = (0..=MAX_SHARDS).map(|i| format!("\"t{i}\":\"{i}\"")).collect();
        let index = |entries: &[String]| {
            serde_json::from_str::<Distinct>(&format!("{{\"weight_map\":{{{}}}}}", entries.join(",")))
        };
        assert_eq!(index(&entries[1..]).unwrap().files.len(), MAX_SHARDS);
        assert!(index(&entries).unwrap_err().to_string().contains("at most 10000 files"));
        let same: Vec<String> = (0..50_000).map(|i| format!("\"t{i}\":\"\\u0061\"")).collect();
        assert_eq!(index(&same).unwrap().files, BTreeSet::from(["a".to_owned()]));
        assert!(serde_json::from_str::<Distinct>("{}").is_err());
    }
}
