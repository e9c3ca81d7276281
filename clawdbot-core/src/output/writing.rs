//! How models write calls, as data for the grammars that enforce them.

use serde_json::{Map, Value, json};

/// A function that may be called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The JSON Schema of its arguments, which are an object.
    pub(crate) parameters: Value,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// This text. Marks in it are written as special tokens, where the tokenizer has them.
    Text(String),
    /// JSON that is an instance of a schema.
    Json(Value),
    /// What a regular expression matches.
    Pattern(&'static str),
    /// Any text without one of `never`, then `end`.
    Until { never: Vec<&'static str>, end: &'static str },
    /// One of these. None of them is empty.
    One(Vec<Vec<Part>>),
    /// These or nothing.
    Maybe(Vec<Part>),
    /// `item` once or more, with `between` between them.
    Many { item: Vec<Part>, between: &'static str },
}

impl Part {
    pub(super) fn text(text: impl Into<String>) -> Part {
        Part::Text(text.into())
    }
}

/// The parts of a call, or why it cannot be enforced.
pub(super) type Parts = Result<Vec<Part>, String>;

/// How a format's calls are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    /// What comes before the first call.
    pub(super) open: &'static str,
    /// The mark that begins calls in a free text: the beginning of `open`, or of the first call if that is shorter. Empty if
    /// free text and calls are messages.
    pub(super) mark: &'static str,
    /// What may come before an answer or calls, any number of times.
    pub(super) before: fn() -> Vec<Part>,
    pub(super) call: fn(&Function) -> Parts,
    /// What comes between calls; `None` if there is one call at most.
    pub(super) between: Option<&'static str>,
    /// What comes after the last call.
    pub(super) close: &'static str,
}

/// `{"name": ..., KEY: arguments}`.
fn object(function: &Function, before: &str, key: &str) -> Parts {
    let name = Value::from(function.name.as_str());
    Ok(vec![
        Part::text(format!("{{{before}: {name}, \"{key}\": ")),
        Part::Json(function.parameters.clone()),
        Part::text("}"),
    ])
}

/// `{"name", "arguments"}`.
pub(super) fn with_arguments(function: &Function) -> Parts {
    object(function, "\"name\"", "arguments")
}

/// `{"name", "parameters"}`.
pub(super) fn with_parameters(function: &Function) -> Parts {
    object(function, "\"name\"", "parameters")
}

/// `{"tool_name", "parameters"}`.
pub(super) fn with_tool_name(function: &Function) -> Parts {
    object(function, "\"tool_name\"", "parameters")
}

impl Writing {
    /// Calls between marks, `between` them what ends one and begins the next.
    pub(super) const fn blocks(
        [open, between, close]: [&'static str; 3],
        mark: &'static str,
        call: fn(&Function) -> Parts,
    ) -> Option<Self> {
        Some(Writing { open, mark, before: Vec::new, call, between: Some(between), close })
    }

    /// One call at most.
    pub(super) const fn single(
        open: &'static str,
        close: &'static str,
        mark: &'static str,
        call: fn(&Function) -> Parts,
    ) -> Option<Self> {
        Some(Writing { open, mark, before: Vec::new, call, between: None, close })
    }
}

/// Keys of a function where calls are enforced.
const KEYS: [&str; 8] =
    ["type", "name", "description", "parameters", "strict", "return", "returns", "response"];

/// The functions of a conversation's `tools`, with whether they are `strict`.
///
/// # Errors
/// What is expected, for one without a name or with parameters that are no schema of an object.
pub(crate) fn functions(tools: &Value) -> Result<Vec<(Function, bool)>, String> {
    let list = tools.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |(at, tool): (usize, &Value)| {
        let outer = tool;
        let tool = tool.get("function").unwrap_or(tool);
        let name = tool.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("tools: expected a name of function {at}, found none"))?;
        let parameters = match tool.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object", "additionalProperties": false}),
            Some(Value::Object(schema)) => Value::Object(of_objects(name, schema)?),
            Some(other) => {
                return Err(format!(
                    "tools: function {name:?}: expected parameters in an object, found {other:.40}"
                ));
            }
        };
        let unknown = |(key, _): &(&String, &Value)| !KEYS.contains(&key.as_str());
        if let Some((key, _)) = tool.as_object().into_iter().flatten().find(unknown) {
            return Err(format!(
                "tools: function {name:?}: expected keys {}; found {key:?}",
                KEYS.join(", ")
            ));
        }
        let strict = match tool.get("strict").or_else(|| outer.get("strict")) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(strict)) => *strict,
            Some(other) => {
                return Err(format!(
                    "tools: function {name:?}: expected strict to be true or false, found {other:.40}"
                ));
            }
        };
        Ok((Function { name: name.to_owned(), parameters }, strict))
    };
    list.iter().enumerate().map(read).collect()
}

/// `schema` for objects alone.
fn of_objects(name: &str, schema: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut schema = schema.clone();
    match schema.get("type") {
        None => {
            schema.insert("type".to_owned(), json!("object"));
        }
        Some(Value::String(kind)) if kind == "object" => {}
        Some(other) => {
            return Err(format!(
                "tools: function {name:?}: expected parameters of type object, found {other:.40}"
            ));
        }
    }
    Ok(schema)
}
