//! What describes an option: what it is called, what it may be, what it does.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What the value of an option may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionType {
    /// True or false.
    Bool,
    /// A whole number from `least` to `most`.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// A number of bytes.
    Bytes,
    /// A number, kept as f32.
    Number(NumberRange),
    /// A token id.
    TokenId,
    /// What something is called.
    Name,
    /// Text for the model or its template.
    Text,
    /// A JSON Schema: a JSON object, true or false, or JSON text of it.
    JsonSchema,
    /// A path.
    Path,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// True, false, or the path of a directory.
    SwitchOrDir,
    /// Values of one type.
    List {
        /// The type.
        of: &'static OptionType,
        /// How many at most.
        most: usize,
    },
    /// A number for each of some token ids.
    TokenMap(NumberRange),
}

/// Which numbers an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberRange {
    /// All but infinities and NaN.
    Finite,
    /// Finite, 0 or more.
    NonNegative,
    /// Finite, more than 0.
    Positive,
    /// Finite, 1 or more.
    AtLeastOne,
    /// 0 to 1.
    Unit,
    /// More than 0, at most 1.
    PositiveUnit,
}

impl NumberRange {
    /// Whether `x` is in the range.
    pub(super) fn contains(self, x: f32) -> bool {
        x.is_finite()
            && match self {
                NumberRange::Finite => true,
                NumberRange::NonNegative => x >= 0.0,
                NumberRange::Positive => x > 0.0,
                NumberRange::AtLeastOne => x >= 1.0,
                NumberRange::Unit => (0.0..=1.0).contains(&x),
                NumberRange::PositiveUnit => x > 0.0 && x <= 1.0,
            }
    }

    fn words(self) -> &'static str {
        match self {
            NumberRange::Finite => "a finite number",
            NumberRange::NonNegative => "a finite number, 0 or more",
            NumberRange::Positive => "a finite number above 0",
            NumberRange::AtLeastOne => "a finite number, 1 or more",
            NumberRange::Unit => "a number from 0 to 1",
            NumberRange::PositiveUnit => "a number above 0, at most 1",
        }
    }
}

impl OptionType {
    /// In words, for errors and documentation: "a whole number from 1 to 64".
    pub fn expected(&self) -> String {
        match self {
            OptionType::Bool => "true or false".to_owned(),
            OptionType::Whole { least, most } => format!("a whole number from {least} to {most}"),
            OptionType::Bytes => "a number of bytes below 2^64".to_owned(),
            OptionType::Number(range) => range.words().to_owned(),
            OptionType::TokenId => "a token id".to_owned(),
            OptionType::Name => "a name".to_owned(),
            OptionType::Text => "a text".to_owned(),
            OptionType::JsonSchema => "a JSON Schema (an object, or its text)".to_owned(),
            OptionType::Path => "a path".to_owned(),
            OptionType::Choice(names) => format!("one of {}", names.join(", ")),
            OptionType::SwitchOrDir => {
                "true, false or a directory ('./true' for a directory of that name)".to_owned()
            }
            OptionType::List { of, most: usize::MAX } => format!("a list of {}", of.several()),
            OptionType::List { of, most } => format!("a list of at most {most} {}", of.several()),
            OptionType::TokenMap(range) => {
                let numbers = range.words().trim_start_matches("a ").replace("number", "numbers");
                format!("a mapping of token ids to {numbers}")
            }
        }
    }

    /// The items of a list in words.
    fn several(&self) -> String {
        match self {
            OptionType::List { of, .. } => format!("lists of {}", of.several()),
            OptionType::Choice(names) => format!("names, each one of {}", names.join(", ")),
            // "a text" -> "texts"; lists of other types do not occur.
            one => format!("{}s", one.expected().trim_start_matches("a ")),
        }
    }
}

/// An option.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionSpec {
    /// Its name in every language; on the command line, with `-` for `_`.
    pub name: &'static str,
    /// What its value may be.
    pub values: OptionType,
    /// What holds when it is not given, in words.
    pub default: &'static str,
    pub(super) doc: &'static [&'static str],
}

impl OptionSpec {
    /// What the option does: sentences in Markdown, on one line.
    pub fn documentation(&self) -> String {
        joined(self.doc)
    }

    /// The error about a value that the option does not take.
    pub fn error(&self, found: impl Display) -> Error {
        out_of_range(self.name, &self.values.expected(), found)
    }
}

/// The lines of a doc comment as one.
fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// An `InvalidArgument` for option `name`.
pub(super) fn out_of_range(name: &str, expected: &str, found: impl Display) -> Error {
    Error::invalid_argument(format!("option {name}: expected {expected}, found {found}"))
        .with("option", name)
        .with("expected", expected)
        .with("found", found.to_string())
}

/// A struct of options that is declared in the table.
pub trait OptionSet: Default {
    /// Its options.
    const GROUP: OptionGroup;

    /// Options from a JSON object; what it does not name keeps its default.
    ///
    /// # Errors
    /// `UnknownOption` for a name that does not exist, `InvalidArgument` for a value that the option does not take.
    fn from_json(object: &Map<String, Value>) -> Result<Self>;
}

/// The options of a struct.
#[derive(Debug, Clone, Copy)]
pub struct OptionGroup {
    /// The struct: `GenerateOptions`.
    pub name: &'static str,
    /// What takes these options, as in "an option of generating".
    pub purpose: &'static str,
    /// In the order of the struct.
    pub options: &'static [OptionSpec],
    pub(super) doc: &'static [&'static str],
}

impl OptionGroup {
    /// What the options are for: sentences in Markdown, on one line.
    pub fn documentation(&self) -> String {
        joined(self.doc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_words() {
        static TEXT: OptionType = OptionType::Text;
        static IDS: OptionType = OptionType::List { of: &OptionType::TokenId, most: usize::MAX };
        static CHOICE: OptionType = OptionType::Choice(&["a", "b"]);
        for (values, words) in [
            (OptionType::Whole { least: 1, most: 64 }, "a whole number from 1 to 64"),
            (OptionType::List { of: &TEXT, most: 64 }, "a list of at most 64 texts"),
            (OptionType::List { of: &IDS, most: usize::MAX }, "a list of lists of token ids"),
            (OptionType::TokenMap(NumberRange::Finite), "a mapping of token ids to finite numbers"),
            (OptionType::Choice(&["a", "b"]), "one of a, b"),
            (OptionType::List { of: &CHOICE, most: usize::MAX }, "a list of names, each one of a, b"),
        ] {
            assert_eq!(values.expected(), words);
        }
    }

    #[test]
    fn ranges_hold_their_ends() {
        use NumberRange::{AtLeastOne, Finite, NonNegative, Positive, PositiveUnit, Unit};
        let tiny = f32::from_bits(1);
        for (range, inside, outside) in [
            (Finite, &[f32::MIN, f32::MAX][..], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..]),
            (NonNegative, &[0.0, f32::MAX], &[-tiny, f32::NAN, f32::INFINITY]),
            (Positive, &[tiny, f32::MAX], &[0.0, f32::INFINITY]),
            (AtLeastOne, &[1.0, f32::MAX], &[1.0 - f32::EPSILON, f32::INFINITY, f32::NAN]),
            (Unit, &[0.0, 1.0], &[-tiny, 1.0 + f32::EPSILON, f32::NAN]),
            (PositiveUnit, &[tiny, 1.0], &[0.0, 1.0 + f32::EPSILON]),
        ] {
            assert!(inside.iter().all(|&x| range.contains(x)), "{range:?}");
            assert!(!outside.iter().any(|&x| range.contains(x)), "{range:?}");
        }
    }
}
