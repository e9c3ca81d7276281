//! The macros that declare options and the names of their values.

use super::spec::OptionType;

/// The names of an enum's values, in every language.
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
        impl $crate::options::OptionValue for $type {
            const TYPE: $crate::options::OptionType = $crate::options::OptionType::Choice(&[$($name),+]);
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

/// Declares options. One is a doc comment and a line:
///
/// ```text
/// /// What it does, in Plain English and at most 200 characters.
/// name: Type [what it takes, if that is less than the type has] = default, "the default in words, unless it is the value";
/// ```
///
/// What cannot be written as a value, such as a function, stands apart under `without a value`: no JSON has it, and no list of
/// options.
macro_rules! options {
    (@default $default:expr) => { stringify!($default) };
    (@default $default:expr, $words:literal) => { $words };
    (@type $type:ty) => { <$type as $crate::options::OptionValue>::TYPE };
    (@type $type:ty, $values:expr) => { $values };
    (@spec $field:ident, [$($doc:literal)+], [$($type:tt)+], [$($default:tt)+]) => {
        $crate::options::OptionSpec {
            name: stringify!($field),
            values: $crate::options::options!(@type $($type)+),
            default: $crate::options::options!(@default $($default)+),
            doc: &[$($doc),+],
        }
    };
    ($(#[doc = $about:literal])+ pub struct $name:ident for $purpose:literal $(, checked by $check:ident)? {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty $([$values:expr])? = $default:expr $(, $words:literal)?;)+
    } $(without a value {
        $($(#[doc = $other_doc:literal])+ $other:ident: $other_type:ty = $other_default:expr;)+
    })?) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[doc = $doc])+
            ///
            #[doc = concat!("Default: ", $crate::options::options!(@default $default $(, $words)?), ".")]
            pub $field: $type,)+
            $($($(#[doc = $other_doc])+
            pub $other: $other_type,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)+ $($($other: $other_default,)+)? }
            }
        }

        impl $name {
            /// Names of all options, as they are written in every language.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            $(#[doc = concat!("Sets `", stringify!($field), "`.")]
            ///
            $(#[doc = $doc])+
            #[must_use]
            pub fn $field(mut self, value: impl Into<$type>) -> Self {
                self.$field = value.into();
                self
            })+

            $($(#[doc = concat!("Sets `", stringify!($other), "`.")]
            ///
            $(#[doc = $other_doc])+
            #[must_use]
            pub fn $other(mut self, value: impl Into<$other_type>) -> Self {
                self.$other = value.into();
                self
            })+)?

            /// Options from a JSON object; what it does not name keeps its default.
            ///
            /// # Errors
            /// `UnknownOption` for a name that does not exist, `InvalidArgument` for a value that the option does not take.
            pub fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> $crate::Result<Self> {
                let mut options = Self::default();
                for (name, value) in object {
                    match name.as_str() {
                        $(stringify!($field) => {
                            const SPEC: &$crate::options::OptionSpec = &$crate::options::options!(
                                @spec $field, [$($doc)+], [$type $(, $values)?], [$default $(, $words)?]
                            );
                            options.$field = SPEC.read(value)?;
                        })+
                        _ => return Err($crate::options::unknown(name, &[Self::NAMES], &[], "")),
                    }
                }
                options.validate()?;
                Ok(options)
            }

            /// Checks every value that can be checked without a model.
            pub(crate) fn validate(&self) -> $crate::Result<()> {
                $({
                    const SPEC: &$crate::options::OptionSpec = &$crate::options::options!(
                        @spec $field, [$($doc)+], [$type $(, $values)?], [$default $(, $words)?]
                    );
                    SPEC.check(&self.$field)?;
                })+
                $($check(self)?;)?
                Ok(())
            }

            /// The options as a JSON object.
            pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
                let mut object = serde_json::Map::new();
                $(object.insert(stringify!($field).into(), serde_json::json!(&self.$field));)+
                object
            }
        }

        impl $crate::options::OptionSet for $name {
            const GROUP: $crate::options::OptionGroup = $crate::options::OptionGroup {
                name: stringify!($name),
                purpose: $purpose,
                options: &[$($crate::options::options!(
                    @spec $field, [$($doc)+], [$type $(, $values)?], [$default $(, $words)?]
                )),+],
                doc: &[$($about),+],
            };

            fn from_json(object: &serde_json::Map<String, serde_json::Value>) -> $crate::Result<Self> {
                $name::from_json(object)
            }
        }
    };
}
pub(crate) use {names, options};

/// Whole numbers from `least` to `most`.
pub(super) const fn whole(least: u32, most: u32) -> OptionType {
    OptionType::Whole { least: least as u64, most: most as u64 }
}
