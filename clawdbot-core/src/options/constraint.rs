//! What a request's output is constrained to: the values of these options, and that there is one at most.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::generate::GenerateOptions;
use super::spec::OptionType;
use super::value::OptionValue;
use crate::error::{Error, Result};
use crate::json;

/// Most choices.
pub(crate) const MAX_CHOICES: usize = 4096;

/// A JSON Schema, given as a value or as JSON text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JsonSchema(Value);

impl JsonSchema {
    /// The schema: an object, true or false.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl From<Value> for JsonSchema {
    fn from(schema: Value) -> Self {
        JsonSchema(schema)
    }
}

impl<'de> Deserialize<'de> for JsonSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error as _;
        let schema = match Value::deserialize(deserializer)? {
            Value::String(text) => json::value(text.as_bytes()).map_err(D::Error::custom)?,
            schema => schema,
        };
        match schema {
            Value::Object(_) | Value::Bool(_) => Ok(JsonSchema(schema)),
            _ => Err(D::Error::custom("expected an object, true or false")),
        }
    }
}

impl OptionValue for JsonSchema {
    const TYPE: OptionType = OptionType::JsonSchema;
}

/// Refuses more than one constraint.
///
/// # Errors
/// `InvalidArgument` that names two.
pub(super) fn at_most_one(options: &GenerateOptions) -> Result<()> {
    let given = [
        ("json_schema", options.json_schema.is_some()),
        ("json_object", options.json_object),
        ("regex", options.regex.is_some()),
        ("grammar", options.grammar.is_some()),
        ("choices", options.choices.is_some()),
    ];
    let mut given = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    match (given.next(), given.next()) {
        (Some(one), Some(other)) => {
            let message = format!("option {other}: expected no other constraint, found {one} too");
            Err(Error::invalid_argument(message).with("option", other).with("found", one))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    fn parse(value: &Value) -> Result<GenerateOptions> {
        GenerateOptions::from_json(value.as_object().expect("an object"))
    }

    #[test]
    fn schemas_are_values_or_text() {
        let schema = json!({"type": "object"});
        for given in [schema.clone(), schema.to_string().into()] {
            let options = parse(&json!({ "json_schema": given })).expect("a schema");
            assert_eq!(options.json_schema.as_ref().map(JsonSchema::value), Some(&schema));
            assert_eq!(parse(&Value::Object(options.to_json())).expect("its own JSON"), options);
        }
        for bad in [json!([]), json!(1), json!("{"), json!("3")] {
            let error = parse(&json!({ "json_schema": bad })).expect_err("no schema");
            assert!(error.message().starts_with("option json_schema: expected a JSON Schema"), "{error}");
        }
    }

    #[test]
    fn there_is_one_at_most() {
        let error = parse(&json!({"json_object": true, "regex": "a"})).expect_err("two");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.message(), "option regex: expected no other constraint, found json_object too");
        assert!(parse(&json!({"json_object": false, "choices": ["a"]})).is_ok());
        for bad in [json!([]), json!([""]), json!("a")] {
            assert!(parse(&json!({ "choices": bad })).is_err(), "{bad}");
        }
    }
}
