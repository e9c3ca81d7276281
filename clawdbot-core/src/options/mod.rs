//! Options of every kind, declared once: the same names in Rust, Python, C, the command line and JSON.
//!
//! [`options!`] makes a struct whose fields can be set from a JSON object; an unknown name, a wrong type or a value
//! out of range is an error that names the option, what was expected and what was found.

mod embed;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod load;
mod value;

pub use embed::{EmbedOptions, Pooling, RerankOptions};
pub use generate::GenerateOptions;
pub(crate) use generate::MAX_STOPS;
pub(crate) use generate::{ResolveContext, Resolved};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
pub use load::{Cache, KvType, ModelOptions, PackOptions, RuntimeOptions, WeightType};
pub(crate) use value::shown;

use value::{Expected, value};

use crate::error::{Error, ErrorKind, Result};
use crate::suggest::{closest, hint};

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
                        _ => return Err($crate::options::unknown(name, Self::NAMES)),
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

/// What other programs of the field call our options.
const ELSEWHERE: &[(&str, &str)] = &[
    ("do_sample", "temperature"),
    ("dtype", "weights"),
    ("eos_token_id", "stop_token_ids"),
    ("max_new_tokens", "max_tokens"),
    ("max_completion_tokens", "max_tokens"),
    ("n_ctx", "max_context"),
    ("n_predict", "max_tokens"),
    ("n_threads", "threads"),
    ("num_threads", "threads"),
    ("repeat_penalty", "repetition_penalty"),
    ("stop_strings", "stop"),
    ("torch_dtype", "weights"),
    ("top_logprobs", "logprobs"),
];

fn unknown(name: &str, known: &[&str]) -> Error {
    let elsewhere = ELSEWHERE.iter().find(|(theirs, ours)| *theirs == name && known.contains(ours));
    let meant = elsewhere.map(|(_, ours)| *ours).or_else(|| closest(name, known.iter().copied()));
    let message = format!("there is no option {name:?}{}", hint(meant));
    let message = match message.ends_with('?') {
        true => format!("{message} Known: {}", known.join(", ")),
        false => format!("{message}; known: {}", known.join(", ")),
    };
    let error = Error::new(ErrorKind::UnknownOption, message).with("option", name);
    match meant {
        Some(meant) => error.with("suggestion", meant),
        None => error,
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
