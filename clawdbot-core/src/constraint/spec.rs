//! What a text is constrained to.

use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};

use super::schema;
use crate::error::{Error, Result};
use crate::options::{GenerateOptions, check_option_names};

/// Most bytes of a regular expression, a grammar, or of all choices.
const MAX_TEXT: usize = 1 << 20;
/// Most choices.
const MAX_CHOICES: usize = 4096;
/// White space between the parts of JSON: at most one space, or one new line with at most 32 spaces.
const WHITE_SPACE: &str = r"\x20|\n\x20{0,32}";
/// What may follow a backslash in strings. Without `u`, a text has one way to be written, so the name of a property
/// cannot be written as one that the schema does not know.
const ESCAPES: &str = "nrbtf\\\"";
/// Parts of grammars that are not enforced here, with what to do.
const REFUSED: [(&str, &str); 2] =
    [("%json", "use the option json_schema"), ("%llguidance", "leave the settings at their defaults")];

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum ConstraintSpec {
    /// JSON that is an instance of this JSON Schema.
    JsonSchema(Value),
    /// A JSON object.
    JsonObject,
    /// A text that the regular expression matches as a whole, in the syntax of Rust's crate `regex`.
    Regex(String),
    /// A text of the language of this grammar, in the syntax of Lark as `llguidance` has it.
    Grammar(String),
    /// One of these texts.
    Choices(Vec<String>),
}

impl ConstraintSpec {
    /// Names of the options that set one.
    pub const OPTIONS: &[&str] = &["json_schema", "json_object", "regex", "grammar", "choices"];

    /// The constraint that `options` has, by the names and with the values of [`GenerateOptions`].
    ///
    /// # Errors
    /// `UnknownOption` for other names, `InvalidArgument` for values of other types, and for none or more than one.
    pub fn from_json(options: &Map<String, Value>) -> Result<Self> {
        check_option_names(options.keys().map(String::as_str), &[Self::OPTIONS], &[])?;
        Self::of(&GenerateOptions::from_json(options)?).ok_or_else(|| {
            let names = Self::OPTIONS.join(", ");
            let message = format!("expected a constraint, one of the options {names}; found none");
            Error::invalid_argument(message).with("expected", Self::OPTIONS)
        })
    }

    /// The constraint that `options` ask for.
    pub fn of(options: &GenerateOptions) -> Option<Self> {
        if let Some(schema) = &options.json_schema {
            return Some(ConstraintSpec::JsonSchema(schema.value().clone()));
        }
        if options.json_object {
            return Some(ConstraintSpec::JsonObject);
        }
        let regex = options.regex.clone().map(ConstraintSpec::Regex);
        let grammar = || options.grammar.clone().map(ConstraintSpec::Grammar);
        let choices = || options.choices.clone().map(ConstraintSpec::Choices);
        regex.or_else(grammar).or_else(choices)
    }

    /// Name of the option that sets it.
    pub fn option(&self) -> &'static str {
        match self {
            ConstraintSpec::JsonSchema(_) => "json_schema",
            ConstraintSpec::JsonObject => "json_object",
            ConstraintSpec::Regex(_) => "regex",
            ConstraintSpec::Grammar(_) => "grammar",
            ConstraintSpec::Choices(_) => "choices",
        }
    }

    /// Refuses what is malformed or not enforced, as far as it is known without a vocabulary.
    ///
    /// # Errors
    /// `InvalidConstraint`.
    pub(crate) fn check(&self) -> Result<()> {
        self.read().map(|_| ())
    }

    /// The constraint for the parser's crate.
    ///
    /// # Errors
    /// `InvalidConstraint` for what is malformed, not enforced or too large.
    pub(super) fn read(&self) -> Result<TopLevelGrammar> {
        match self {
            ConstraintSpec::JsonSchema(schema) => Ok(json_grammar(schema::read(schema)?)),
            ConstraintSpec::JsonObject => Ok(json_grammar(json!({"type": "object"}))),
            ConstraintSpec::Regex(regex) => {
                within("regex", regex.len())?;
                Ok(TopLevelGrammar::from_regex(unanchored(regex)))
            }
            ConstraintSpec::Grammar(grammar) => {
                within("grammar", grammar.len())?;
                if let Some((part, instead)) = REFUSED.iter().find(|(part, _)| grammar.contains(part)) {
                    let message = format!("option grammar: expected no {part:?}, found it; {instead}");
                    return Err(Error::invalid_constraint(message).with("option", "grammar"));
                }
                Ok(TopLevelGrammar::from_lark(grammar.clone()))
            }
            ConstraintSpec::Choices(choices) => {
                within("choices", choices.iter().map(String::len).sum())?;
                if choices.is_empty() || choices.len() > MAX_CHOICES || choices.iter().any(String::is_empty) {
                    let message = format!(
                        "option choices: expected 1 to {MAX_CHOICES} texts that are not empty, found {}",
                        if choices.iter().any(String::is_empty) {
                            "an empty one".into()
                        } else {
                            choices.len().to_string()
                        }
                    );
                    return Err(Error::invalid_constraint(message).with("option", "choices"));
                }
                let choices: Vec<String> = choices.iter().map(|choice| literal(choice)).collect();
                Ok(TopLevelGrammar::from_lark(format!("start: /{}/", choices.join("|"))))
            }
        }
    }
}

/// A grammar for JSON of `schema`, which has no settings of its own.
pub(super) fn json_grammar(schema: Value) -> TopLevelGrammar {
    let mut object = match schema {
        Value::Object(object) => object,
        _ => serde_json::Map::new(),
    };
    let settings = json!({
        "whitespace_flexible": false,
        "whitespace_pattern": WHITE_SPACE,
        "json_allowed_escapes": ESCAPES,
    });
    object.insert("x-guidance".to_owned(), settings);
    TopLevelGrammar::from_json_schema(Value::Object(object))
}

fn within(option: &str, bytes: usize) -> Result<()> {
    if bytes <= MAX_TEXT {
        return Ok(());
    }
    let message = format!("option {option}: expected at most {MAX_TEXT} bytes, found {bytes}");
    Err(Error::invalid_constraint(message).with("option", option))
}

/// `regex` without the anchors around it: it matches whole texts anyway.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        // An escaped dollar sign is a character.
        Some(rest) if rest.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// A regular expression for `text` itself, for a grammar.
pub(super) fn literal(text: &str) -> String {
    let mut regex = String::new();
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => regex.push(c),
            _ => regex.push_str(&format!("\\x{{{:x}}}", u32::from(c))),
        }
    }
    regex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn anchors_are_dropped_and_characters_stay() {
        for (regex, expected) in
            [("^a$", "a"), ("a", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\"), ("$", ""), ("^", "")]
        {
            assert_eq!(unanchored(regex), expected);
        }
        assert_eq!(literal("a/b\n"), r"a\x{2f}b\x{a}");
    }

    #[test]
    fn what_is_too_large_or_not_enforced_is_refused() {
        let refused = |spec: ConstraintSpec| {
            let error = spec.read().expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidConstraint);
            assert!(error.message().starts_with(&format!("option {}: expected ", spec.option())), "{error}");
        };
        refused(ConstraintSpec::Regex("a".repeat(MAX_TEXT + 1)));
        refused(ConstraintSpec::Grammar("a".repeat(MAX_TEXT + 1)));
        refused(ConstraintSpec::Grammar("start: %json {}".into()));
        refused(ConstraintSpec::Grammar("%llguidance {}\nstart: \"a\"".into()));
        refused(ConstraintSpec::Choices(vec![]));
        refused(ConstraintSpec::Choices(vec!["a".into(), String::new()]));
        refused(ConstraintSpec::Choices(vec!["a".into(); MAX_CHOICES + 1]));
    }

    #[test]
    fn options_have_one_constraint() {
        let read = |options: Value| ConstraintSpec::from_json(options.as_object().unwrap());
        let schema = ConstraintSpec::JsonSchema(json!({"type": "null"}));
        assert_eq!(read(json!({"json_schema": {"type": "null"}})).unwrap(), schema);
        assert_eq!(read(json!({"json_schema": "{\"type\": \"null\"}", "regex": null})).unwrap(), schema);
        assert_eq!(read(json!({"json_object": true})).unwrap(), ConstraintSpec::JsonObject);
        assert_eq!(
            read(json!({"json_object": false, "regex": "a"})).unwrap(),
            ConstraintSpec::Regex("a".into())
        );
        for name in ConstraintSpec::OPTIONS {
            assert!(GenerateOptions::NAMES.contains(name), "{name}");
        }
        for (options, kind, message) in [
            (
                json!({}),
                ErrorKind::InvalidArgument,
                "json_schema, json_object, regex, grammar, choices; found none",
            ),
            (json!({"json_object": false}), ErrorKind::InvalidArgument, "found none"),
            (json!({"regex": "a", "json_object": true}), ErrorKind::InvalidArgument, "found json_object too"),
            (json!({"regex": 1}), ErrorKind::InvalidArgument, "regex"),
            (json!({"choices": []}), ErrorKind::InvalidArgument, "choices"),
            (json!({"regexp": "a"}), ErrorKind::UnknownOption, "did you mean \"regex\"?"),
            (json!({"regex": "a", "max_tokens": 1}), ErrorKind::UnknownOption, "\"max_tokens\" here"),
        ] {
            let error = read(options).expect_err("refused");
            assert!(error.kind() == kind && error.message().contains(message), "{error}");
        }
    }
}
