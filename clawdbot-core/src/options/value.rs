//! Values of options from JSON, with errors in words that every language shares.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{out_of_range, whole};
use crate::error::Result;

/// What may be the value of an option, in plain words.
pub(crate) trait Expected {
    /// For a sentence such as "expected a number".
    fn expected() -> String;
    /// The same of several, such as "numbers".
    fn several() -> String {
        Self::expected()
    }
}

macro_rules! expected {
    ($($type:ty: $one:expr, $many:expr;)+) => {
        $(impl Expected for $type {
            fn expected() -> String {
                $one.to_owned()
            }
            fn several() -> String {
                $many.to_owned()
            }
        })+
    };
}

expected! {
    bool: "true or false", "true or false";
    u32: "a whole number from 0 to 4294967295", "whole numbers from 0 to 4294967295";
    u64: "a whole number from 0 to 18446744073709551615", "whole numbers from 0 to 18446744073709551615";
    f32: "a number", "numbers";
    String: "a text", "texts";
    PathBuf: "a path", "paths";
}

impl<T: Expected> Expected for Option<T> {
    fn expected() -> String {
        T::expected()
    }
}

impl<T: Expected> Expected for Vec<T> {
    fn expected() -> String {
        format!("a list of {}", T::several())
    }
}

impl<V: Expected> Expected for BTreeMap<u32, V> {
    fn expected() -> String {
        format!("a mapping of token ids to {}", V::several())
    }
}

/// Most characters of a value that an error shows.
const SHOWN: usize = 80;

/// The value of the option `name`.
///
/// # Errors
/// `InvalidArgument` that says what was expected and what was found.
pub(crate) fn value<T: DeserializeOwned + Expected>(name: &str, value: &Value) -> Result<T> {
    let expected = || whole(name).map_or_else(T::expected, |(_, expected)| expected);
    serde_json::from_value(value.clone()).map_err(|_| out_of_range(name, &expected(), shown(value)))
}

/// A value for an error message, cut when it is long.
pub(crate) fn shown(value: &Value) -> String {
    let mut text = match value {
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}
