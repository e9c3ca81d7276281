//! Functions that may be called, and the choice among them.

use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::keyed::{Keys, text};

/// Keys of tools that say nothing to a model.
const IDLE: &[&str] = &["cache_control", "eager_input_streaming", "input_examples", "defer_loading"];

/// The field `tools` as the core has it.
pub(super) fn functions(tools: &Value, keys: &mut Keys<'_>) -> Result<Value, Fault> {
    let list = tools.as_array().map(Vec::as_slice).unwrap_or_default();
    let functions = list.iter().enumerate().map(|(at, tool)| {
        let path = format!("tools[{at}]");
        let object = tool.as_object().ok_or_else(|| Fault::field(&path, "an object", tool))?;
        match object.get("type").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(kind) if kind == "custom" => {}
            other => {
                let expected = "custom (tools of Anthropic's own servers are not here)";
                return Err(Fault::field(&format!("{path}.type"), expected, other));
            }
        }
        let known = ["type", "name", "description", "input_schema", "strict"];
        let object = keys.of(&path, object, &known, IDLE)?;
        let mut function = json!({"name": text(&path, &object, "name")?});
        for (theirs, ours) in
            [("description", "description"), ("input_schema", "parameters"), ("strict", "strict")]
        {
            if let Some(value) = object.get(theirs) {
                function[ours] = value.clone();
            }
        }
        Ok(json!({"type": "function", "function": function}))
    });
    Ok(functions.collect::<Result<Vec<_>, Fault>>()?.into())
}

/// The core's word for a choice, and whether there may be one call at most.
pub(super) fn choice(choice: &Map<String, Value>, keys: &mut Keys<'_>) -> Result<(String, bool), Fault> {
    let known = ["type", "name", "disable_parallel_tool_use"];
    let choice = keys.of("tool_choice", choice, &known, &[])?;
    let kind = choice.get("type").unwrap_or(&Value::Null);
    let word = match kind.as_str() {
        Some("auto") => "auto",
        Some("any") => "required",
        Some("none") => "none",
        Some("tool") => text("tool_choice", &choice, "name")?,
        _ => return Err(Fault::field("tool_choice.type", "auto, any, tool or none", kind)),
    };
    let alone = match choice.get("disable_parallel_tool_use") {
        None => false,
        Some(Value::Bool(alone)) => *alone,
        Some(other) => {
            return Err(Fault::field("tool_choice.disable_parallel_tool_use", "true or false", other));
        }
    };
    Ok((word.to_owned(), alone))
}
