//! The merges of a BPE model.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

/// Pairs of tokens, by rank.
pub(super) struct Merges(pub(super) Vec<(String, String)>);

/// A merge: its tokens in a list, or, in older files, in a string with a space between them.
enum Merge {
    Pair(String, String),
    Text(String, String),
    /// A line with the version.
    Comment,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergesVisitor;
        impl<'de> Visitor<'de> for MergesVisitor {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                let mut kinds = [false; 2];
                while let Some(merge) = seq.next_element::<Merge>()? {
                    let (kind, pair) = match merge {
                        Merge::Pair(a, b) => (0, Some((a, b))),
                        Merge::Text(a, b) => (1, Some((a, b))),
                        Merge::Comment => (1, None),
                    };
                    kinds[kind] = true;
                    merges.extend(pair);
                }
                if kinds == [true; 2] {
                    return Err(A::Error::custom(
                        "merges: expected all as lists or all as strings, found both",
                    ));
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(MergesVisitor)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens: a list, or a string with one space")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                if text.starts_with("#version") {
                    return Ok(Merge::Comment);
                }
                match text.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge::Text(a.to_owned(), b.to_owned())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let short = |len: usize| A::Error::invalid_length(len, &"two tokens");
                let a = seq.next_element()?.ok_or_else(|| short(0))?;
                let b = seq.next_element()?.ok_or_else(|| short(1))?;
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(short(3)),
                    None => Ok(Merge::Pair(a, b)),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}
