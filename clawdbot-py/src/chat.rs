//! Conversations from Python.

use clawdbot_core::Chat;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::error::{invalid_argument, wrong_type};
use crate::json;

/// A conversation; what its messages must be is the core's to say. `named`: variables that were given by their names.
///
/// # Errors
/// As [`json::from_py`], [`variables()`].
pub(crate) fn chat(
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    mapping: Option<&Bound<'_, PyAny>>,
    named: Option<&Bound<'_, PyDict>>,
) -> PyResult<Chat> {
    let tools = tools.map(|tools| json::from_py(tools, "tools")).transpose()?;
    let messages = json::from_py(messages, "messages")?;
    Ok(Chat::new(messages).tools(tools).variables(variables(mapping, named)?))
}

/// Variables of a template: those of a mapping, and those that were given by their names.
///
/// # Errors
/// `TypeError` for what is no mapping, `InvalidArgument` for a variable that is given twice; those of the conversion.
pub(crate) fn variables(
    mapping: Option<&Bound<'_, PyAny>>,
    named: Option<&Bound<'_, PyDict>>,
) -> PyResult<Map<String, Value>> {
    let mut all = match mapping {
        None => Map::new(),
        Some(mapping) => match json::from_py(mapping, "variables")? {
            Value::Object(map) => map,
            _ => {
                return Err(wrong_type("variables", "a mapping such as {'enable_thinking': False}", mapping));
            }
        },
    };
    for (name, value) in json::map_from_py(named)? {
        if all.contains_key(&name) {
            return Err(invalid_argument(format!("{name}: given by its name, and in `variables`")));
        }
        all.insert(name, value);
    }
    Ok(all)
}
