//! The functions that a conversation offers, for formats that write values without their types.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Names of functions, and what their arguments may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    /// `properties` of the parameters' schema, by function.
    functions: HashMap<String, Map<String, Value>>,
}

impl Tools {
    /// Of a list of `{"type": "function", "function": {"name", "parameters"}}`, or of what is inside of those. What has no
    /// name is left out: the template decides what it takes.
    pub(crate) fn new(tools: Option<&Value>) -> Self {
        let list = tools.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let functions = list.iter().filter_map(|tool| {
            let tool = tool.get("function").unwrap_or(tool);
            let schema = tool.get("parameters").unwrap_or(&Value::Null);
            let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            let properties = properties
                .map(|(key, property)| (key.clone(), resolve(property, schema).unwrap_or(property).clone()))
                .collect();
            Some((tool.get("name")?.as_str()?.to_owned(), properties))
        });
        Tools { functions: functions.collect() }
    }

    /// Whether `name` may be called: if no functions are known, any may be.
    pub(super) fn may_call(&self, name: &str) -> bool {
        self.functions.is_empty() || self.functions.contains_key(name)
    }

    /// Whether argument `key` of `function` is written as JSON: its types are known, and none is a text.
    pub(super) fn is_json(&self, function: &str, key: &str) -> bool {
        let types = self.types(function, key).unwrap_or_default();
        !types.is_empty() && types.iter().all(|name| OF_JSON.contains(&name.as_str()))
    }

    fn types(&self, function: &str, key: &str) -> Option<Vec<String>> {
        types(self.functions.get(function)?.get(key)?)
    }

    /// The value that `text` stands for as argument `key` of `function`. An argument that may be a text and nothing else is
    /// the text. Otherwise it is the JSON value, if it is one of a type that the schema has; or else the text.
    pub(super) fn value(&self, function: &str, key: &str, text: &str) -> Value {
        let types = self.types(function, key).unwrap_or_default();
        if !types.is_empty() && types.iter().all(|name| name == "string") {
            return Value::from(text);
        }
        let trimmed = text.trim();
        // Python's words for JSON's.
        let word = match trimmed {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            _ => None,
        };
        let value = word.or_else(|| serde_json::from_str(trimmed).ok());
        let fits = |value: &Value| match types.is_empty() {
            // A quoted text is a text with quotes, if nothing is known.
            true => !value.is_string(),
            false => types.iter().any(|name| is_of(value, name)),
        };
        value.filter(fits).unwrap_or_else(|| Value::from(text))
    }
}

/// What `schema` refers to, if it refers to something in `root`.
pub(super) fn resolve<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    const MAX_REFERENCES: usize = 16;
    let mut schema = schema;
    for _ in 0..MAX_REFERENCES {
        match schema.get("$ref") {
            None => return Some(schema),
            Some(reference) => schema = root.pointer(reference.as_str()?.strip_prefix('#')?)?,
        }
    }
    None
}

/// The types that a schema allows, by its `type`, the alternatives of `anyOf` or `oneOf`, or its values; `None` if it does not
/// say.
pub(super) fn types(schema: &Value) -> Option<Vec<String>> {
    match schema.get("type") {
        Some(Value::String(name)) => return Some(vec![name.to_lowercase()]),
        Some(Value::Array(names)) => {
            return names.iter().map(|name| name.as_str().map(str::to_lowercase)).collect();
        }
        _ => {}
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(alternatives) = schema.get(key).and_then(Value::as_array) {
            let each = alternatives.iter().map(types).collect::<Option<Vec<_>>>()?;
            return Some(each.concat());
        }
    }
    let values = schema.get("enum").and_then(Value::as_array).map(Vec::as_slice);
    let values = values.or_else(|| schema.get("const").map(std::slice::from_ref))?;
    Some(values.iter().map(|value| type_of(value).to_owned()).collect())
}

/// The type of a value.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The types that are written as JSON, and the words that Python has for them.
const OF_JSON: [&str; 11] =
    ["integer", "int", "number", "float", "boolean", "bool", "object", "dict", "array", "list", "null"];

/// Whether `value` is of the JSON Schema type `name`, or of the word that Python has for it.
fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "string" | "str" => value.is_string(),
        "integer" | "int" => value.is_i64() || value.is_u64(),
        "number" | "float" => value.is_number(),
        "boolean" | "bool" => value.is_boolean(),
        "object" | "dict" => value.is_object(),
        "array" | "list" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_become_what_the_schema_says() {
        let properties = json!({
            "s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"}, "o": {"type": "object"},
            "n": {"anyOf": [{"type": "number"}, {"type": "null"}]}, "m": {"type": ["string", "integer"]},
            "e": {"enum": ["1", "2"]}, "c": {"const": 3}, "x": {"anyOf": [{"type": "null"}, {}]}, "q": {},
        });
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}]);
        let tools = Tools::new(Some(&tools));
        for (key, text, expected) in [
            ("s", "5", json!("5")),
            ("s", " a\n", json!(" a\n")),
            ("i", "5", json!(5)),
            ("i", "5.5", json!("5.5")),
            ("b", "True", json!(true)),
            ("b", " false ", json!(false)),
            ("o", "{\"a\": [1]}", json!({"a": [1]})),
            ("o", "{\"a\"", json!("{\"a\"")),
            ("n", "None", json!(null)),
            ("n", "1e3", json!(1000.0)),
            ("m", "7", json!(7)),
            ("m", "seven", json!("seven")),
            ("e", "1", json!("1")),
            ("c", "3", json!(3)),
            ("x", "{}", json!({})),
            ("q", "1", json!(1)),
            ("unknown", "\"a\"", json!("\"a\"")),
            ("unknown", "[1]", json!([1])),
        ] {
            assert_eq!(tools.value("f", key, text), expected, "{key} {text}");
        }
        for (key, json) in
            [("i", true), ("o", true), ("n", true), ("c", true), ("s", false), ("m", false), ("x", false)]
        {
            assert_eq!(tools.is_json("f", key), json, "{key}");
        }
        assert!(!tools.is_json("g", "i"));
        assert!(tools.may_call("f") && !tools.may_call("g") && Tools::default().may_call("g"));
    }
}
