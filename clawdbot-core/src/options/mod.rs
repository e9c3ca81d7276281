//! Options of every kind, declared once: the same names in Rust, Python, C, the command line and JSON.
//!
//! [`options!`] makes a struct whose fields can be set from a JSON object; an unknown name, a wrong type or a value
//! out of range is an error that names the option, what was expected and what was found.

mod defaults;
mod embed;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod load;
mod unknown;
mod value;

pub(crate) use defaults::{GenerationDefaults, MAX_BAD_WORDS, MAX_LISTED_IDS};
pub use embed::{EmbedOptions, Pooling, RerankOptions};
pub use generate::GenerateOptions;
pub(crate) use generate::MAX_STOPS;
pub(crate) use generate::{ResolveContext, Resolved};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
pub use load::{Cache, KvType, ModelOptions, PackOptions, RuntimeOptions, WeightType};
pub use unknown::check_option_names;
pub(crate) use unknown::{check_names, unknown};
pub(crate) use value::shown;

use value::{Expected, value};

use crate::error::{Error, Result};

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Every value.
            pub const ALL: [$type; [$($name),+].len()] = [$($type::$variant),+];

            /// The name used in options and reports.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)+ }
            }
        }
        impl $crate::options::Expected for $type {
            fn expected() -> String {
                format!("one of {}", Self::ALL.map(Self::name).join(", "))
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
        impl std::str::FromStr for $type {
            type Err = crate::Error;
            fn from_str(text: &str) -> crate::Result<Self> {
                let known = Self::ALL.into_iter().find(|value| value.name() == text);
                known.ok_or_else(|| {
                    let names = Self::ALL.map(Self::name).join(", ");
                    crate::Error::invalid_argument(format!("expected one of {names}, found {text:?}"))
                })
            }
        }
    };
}

macro_rules! options {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)+ }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)+ }
            }
        }

        impl $name {
            /// Names of all options, as they are written in every language.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field),)+];

            $(#[doc = concat!("Sets `", stringify!($field), "`.")]
            #[doc = ""]
            $(#[doc = $doc])+
            #[must_use]
            pub fn $field(mut self, value: impl Into<$type>) -> Self {
                self.$field = value.into();
                self
            })+

            /// Options from a JSON object; what it does not name keeps its default.
            ///
            /// # Errors
            /// `UnknownOption` for a name that does not exist, `InvalidArgument` for a value that does not fit.
            pub fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> $crate::Result<Self> {
                let mut options = Self::default();
                for (name, value) in object {
                    match name.as_str() {
                        $(stringify!($field) => options.$field = $crate::options::value(name, value)?,)+
                        _ => return Err($crate::options::unknown(name, &[Self::NAMES], &[], "")),
                    }
                }
                options.validate()?;
                Ok(options)
            }

            /// The options as a JSON object.
            pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
                let mut object = serde_json::Map::new();
                $(object.insert(stringify!($field).into(), serde_json::json!(&self.$field));)+
                object
            }
        }
    };
}
pub(crate) use {names, options};

/// Options that are whole numbers of a smaller range than their type's: least and most.
const RANGES: &[(&str, u32, u32)] = &[
    ("dimensions", 1, u32::MAX),
    ("logprobs", 0, 64),
    ("max_batch", 1, 4096),
    ("max_context", 1, u32::MAX),
    ("max_tokens", 1, u32::MAX),
    ("prefill_chunk", 1, 65_536),
    ("threads", 1, 1024),
];

/// The range of option `name`, and in words.
fn whole(name: &str) -> Option<(std::ops::RangeInclusive<u32>, String)> {
    let (_, least, most) = RANGES.iter().find(|(known, ..)| *known == name)?;
    Some((*least..=*most, format!("a whole number from {least} to {most}")))
}

fn check_whole(name: &str, found: impl Into<Option<u32>>) -> Result<()> {
    match (found.into(), whole(name)) {
        (Some(found), Some((range, expected))) if !range.contains(&found) => {
            Err(out_of_range(name, &expected, found))
        }
        _ => Ok(()),
    }
}

/// An `InvalidArgument` for option `name`.
fn out_of_range(name: &str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("option {name}: expected {expected}, found {found}"))
        .with("option", name)
        .with("expected", expected)
        .with("found", found.to_string())
}

fn check_range(name: &str, found: Option<f32>, expected: &str, holds: impl Fn(f32) -> bool) -> Result<()> {
    match found {
        Some(x) if !(x.is_finite() && holds(x)) => Err(out_of_range(name, expected, x)),
        _ => Ok(()),
    }
}
