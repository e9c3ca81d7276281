//! What a request's output is constrained to: the values of these options, and that there is one at most.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

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

/// Refuses more than one of the options `given`, which are those that are set.
///
/// # Errors
/// `InvalidArgument` that names two.
pub(super) fn at_most_one(mut given: impl Iterator<Item = &'static str>) -> Result<()> {
    match (given.next(), given.next()) {
        (Some(one), Some(other)) => {
            let message = format!("option {other}: expected no other constraint, found {one} too");
            Err(Error::invalid_argument(message).with("option", other).with("found", one))
        }
        _ => Ok(()),
    }
}
