//! Values in formats that write JSON.

use serde_json::{Deserializer, Map, Value};

use super::call::{Calls, RawCall};

/// Keys under which the name of a function is.
const NAMES: [&str; 2] = ["name", "tool_name"];
/// Keys under which its arguments are.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// Keys under which the id of a call is.
const IDS: [&str; 2] = ["id", "tool_call_id"];
/// Keys that an object may have apart from the name, if there are no arguments.
const OTHERS: [&str; 4] = ["id", "tool_call_id", "type", "index"];

/// The arguments of a call: a JSON object, a text with one, or nothing.
pub(super) fn arguments(value: &Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map.clone()),
        Value::Null => Ok(Map::new()),
        Value::String(text) => object(text),
        other => Err(format!("expected arguments in a JSON object, found {}", start_of(&other.to_string()))),
    }
}

/// A text that is a JSON object, or empty.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Map::new());
    }
    let wrong =
        |reason: String| format!("expected arguments in a JSON object, found {}{reason}", start_of(text));
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong(String::new())),
        Err(error) => Err(wrong(format!(" ({error})"))),
    }
}

/// A call written as an object: `{"name", "arguments"}`, with `parameters` for `arguments` or within `function`.
pub(super) fn call(value: &Value) -> Result<RawCall, String> {
    let expected =
        || format!("expected an object with name and arguments, found {}", start_of(&value.to_string()));
    let outer = value.as_object().ok_or_else(expected)?;
    let (name, inner) = match outer.get("function") {
        Some(Value::Object(inner)) => (None, inner),
        Some(Value::String(name)) => (Some(name.as_str()), outer),
        _ => (None, outer),
    };
    let get = |map: &'_ Map<String, Value>, keys: &[&str]| keys.iter().find_map(|key| map.get(*key)).cloned();
    let written = get(inner, &NAMES);
    let name = name.or_else(|| written.as_ref().and_then(Value::as_str)).ok_or_else(expected)?;
    let given = match get(inner, &ARGUMENTS) {
        Some(given) => arguments(&given)?,
        None if inner.keys().all(|key| NAMES.contains(&key.as_str()) || OTHERS.contains(&key.as_str())) => {
            Map::new()
        }
        None => return Err(expected()),
    };
    let id = get(outer, &IDS);
    Ok(RawCall::new(name, given)?.with_id(id.as_ref().and_then(Value::as_str)))
}

/// JSON values one after the other, each a call or a list of calls, with commas or semicolons between them, and perhaps as a
/// code block.
pub(super) fn calls(text: &str) -> Calls {
    calls_with(text, call)
}

/// As [`calls`], with objects that `read` understands.
pub(super) fn calls_with(text: &str, read: fn(&Value) -> Result<RawCall, String>) -> Calls {
    let mut rest = without_fence(text);
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
        if rest.is_empty() {
            return Ok(found);
        }
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Array(list))) => {
                for value in &list {
                    found.push(read(value)?);
                }
            }
            Some(Ok(value)) => found.push(read(&value)?),
            Some(Err(error)) => return Err(format!("expected JSON, found {} ({error})", start_of(rest))),
            None => return Ok(found),
        }
        rest = &rest[values.byte_offset()..];
    }
}

/// A text without the marks of a code block around it.
pub(super) fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```") else { return text };
    let inner = inner.strip_suffix("```").unwrap_or(inner);
    // The language is on the first line.
    let inner = inner.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_');
    inner.trim()
}

/// The beginning of a text, for a message.
pub(super) fn start_of(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?} ...", &text[..end]),
        None => format!("{text:?}"),
    }
}
