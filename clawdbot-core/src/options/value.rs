//! Values of options: read from JSON, and checked against what the option takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::spec::{NumberRange, OptionSpec, OptionType};
use crate::error::Result;

/// A type that fields of options have.
pub(crate) trait OptionValue: DeserializeOwned {
    /// What its values may be, unless the option says less.
    const TYPE: OptionType;

    /// What `values` do not allow, as an error shows it; `None` if all is allowed.
    fn excess(&self, _values: &OptionType) -> Option<String> {
        None
    }
}

/// Types that hold nothing else than what their option takes.
macro_rules! plain {
    ($($type:ty: $values:expr;)+) => {
        $(impl OptionValue for $type {
            const TYPE: OptionType = $values;
        })+
    };
}

plain! {
    bool: OptionType::Bool;
    PathBuf: OptionType::Path;
}

/// Texts, which may be some names only.
impl OptionValue for String {
    const TYPE: OptionType = OptionType::Text;

    fn excess(&self, values: &OptionType) -> Option<String> {
        match values {
            OptionType::Choice(names) if !names.contains(&self.as_str()) => {
                Some(shown(&Value::from(self.as_str())))
            }
            _ => None,
        }
    }
}

/// Whole numbers, which may be of a smaller range than their type's.
macro_rules! whole {
    ($($type:ty)+) => {
        $(impl OptionValue for $type {
            const TYPE: OptionType = OptionType::Whole { least: 0, most: <$type>::MAX as u64 };

            fn excess(&self, values: &OptionType) -> Option<String> {
                match values {
                    OptionType::Whole { least, most } if !(least..=most).contains(&&u64::from(*self)) => {
                        Some(self.to_string())
                    }
                    _ => None,
                }
            }
        })+
    };
}

whole!(u32 u64);

impl OptionValue for f32 {
    const TYPE: OptionType = OptionType::Number(NumberRange::Finite);

    fn excess(&self, values: &OptionType) -> Option<String> {
        match values {
            OptionType::Number(range) if !range.contains(*self) => Some(self.to_string()),
            _ => None,
        }
    }
}

impl<T: OptionValue> OptionValue for Option<T> {
    const TYPE: OptionType = T::TYPE;

    fn excess(&self, values: &OptionType) -> Option<String> {
        self.as_ref().and_then(|value| value.excess(values))
    }
}

impl<T: OptionValue> OptionValue for Vec<T> {
    const TYPE: OptionType = OptionType::List { of: &T::TYPE, most: usize::MAX };

    fn excess(&self, values: &OptionType) -> Option<String> {
        match values {
            OptionType::List { most, .. } if self.len() > *most => Some(format!("a list of {}", self.len())),
            OptionType::List { of, .. } => self.iter().find_map(|item| item.excess(of)),
            _ => None,
        }
    }
}

impl OptionValue for BTreeMap<u32, f32> {
    const TYPE: OptionType = OptionType::TokenMap(NumberRange::Finite);

    fn excess(&self, values: &OptionType) -> Option<String> {
        match values {
            OptionType::TokenMap(range) => {
                self.values().find(|&&bias| !range.contains(bias)).map(f32::to_string)
            }
            _ => None,
        }
    }
}

impl OptionSpec {
    /// The option's value from JSON.
    ///
    /// # Errors
    /// `InvalidArgument` for another type. (Ranges are checked by [`OptionSpec::check`].)
    pub(crate) fn read<T: OptionValue>(&self, value: &Value) -> Result<T> {
        serde_json::from_value(value.clone()).map_err(|_| self.error(shown(value)))
    }

    /// Checks a value of the right type.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is out of range.
    pub(crate) fn check<T: OptionValue>(&self, value: &T) -> Result<()> {
        value.excess(&self.values).map_or(Ok(()), |found| Err(self.error(found)))
    }
}

/// Most characters of a value that an error shows.
const SHOWN: usize = 80;

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
