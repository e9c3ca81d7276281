//! Values in a notation with marks around texts, as Gemma's: which parts a grammar has for them.

use serde_json::{Map, Value, json};

use super::bare;
use crate::output::tools::resolve;
use crate::output::writing::{Function, Part, Parts};

/// How deep values may be in each other.
const MAX_DEPTH: usize = 16;
/// Most items of a list whose number is bounded.
const MAX_ITEMS: usize = 64;
/// Most parts of a list with a bounded number of items.
const MAX_PARTS: usize = 1 << 14;
/// Keywords that enforce nothing.
const ANNOTATIONS: [&str; 8] =
    ["title", "description", "default", "examples", "example", "deprecated", "$schema", "$defs"];
/// What would end a key.
const NOT_IN_KEYS: [char; 4] = [':', '{', '}', ','];
/// The types of values without a type: lists and objects would need schemas of their own.
const SIMPLE: [&str; 4] = ["string", "number", "boolean", "null"];

/// `{key:value,...}`, with the arguments of `function`; those that are required come first. `quote` is around texts.
///
/// # Errors
/// What is not enforced, by its argument.
pub(super) fn object(function: &Function, quote: &'static str) -> Parts {
    nested(&function.parameters, &function.parameters, quote, 0)
}

fn nested(schema: &Value, root: &Value, quote: &'static str, depth: usize) -> Parts {
    let function = Function { name: String::new(), parameters: schema.clone() };
    let arguments = bare::arguments(&function)?;
    let written = bare::listed(arguments, ",", |argument| {
        let key = argument.key;
        if key.contains(NOT_IN_KEYS) {
            return Err(format!("argument {key:?}: expected a name without marks"));
        }
        let value = value(argument.schema, root, quote, depth + 1);
        let value = value.map_err(|reason| format!("argument {key:?}: {reason}"))?;
        Ok([vec![Part::text(format!("{key}:"))], value].concat())
    })?;
    Ok([vec![Part::text("{")], written, vec![Part::text("}")]].concat())
}

/// A value of `schema`.
fn value(schema: &Value, root: &Value, quote: &'static str, depth: usize) -> Parts {
    if depth > MAX_DEPTH {
        return Err(format!("expected values at most {MAX_DEPTH} deep, found deeper ones"));
    }
    let schema = resolve(schema, root).ok_or("expected a reference to a place in the schema")?;
    let empty = Map::new();
    let object = match schema {
        Value::Bool(true) => &empty,
        Value::Object(object) => object,
        other => return Err(format!("expected a schema that some value satisfies, found {other:.40}")),
    };
    let constants = object.get("enum").and_then(Value::as_array).map(Vec::as_slice);
    if let Some(values) = constants.or_else(|| object.get("const").map(std::slice::from_ref)) {
        only(object, &["enum", "const", "type"])?;
        let ways = values.iter().map(|value| Ok(vec![Part::text(constant(value, quote)?)]));
        return Ok(vec![Part::One(ways.collect::<Result<_, String>>()?)]);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(alternatives) = object.get(key).and_then(Value::as_array) {
            only(object, &[key])?;
            return one(alternatives.iter().map(|one| value(one, root, quote, depth + 1)));
        }
    }
    let types: Vec<&str> = match object.get("type") {
        None => SIMPLE.to_vec(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(name) => name.as_str().into_iter().collect(),
    };
    if object.get("type").is_none() {
        only(object, &[])?;
    }
    one(types.iter().map(|name| match *name {
        "string" => {
            only(object, &["type"])?;
            Ok(vec![Part::text(quote), Part::Until { never: vec![quote], end: quote }])
        }
        "array" => {
            only(object, &["type", "items", "minItems", "maxItems"])?;
            let item = value(object.get("items").unwrap_or(&Value::Bool(true)), root, quote, depth + 1)?;
            list(object, &item)
        }
        "object" => nested(schema, root, quote, depth),
        simple => {
            let mut schema = object.clone();
            schema.insert("type".to_owned(), json!(simple));
            Ok(vec![Part::Json(schema.into())])
        }
    }))
}

/// One of several ways.
fn one(ways: impl Iterator<Item = Parts>) -> Parts {
    let mut ways = ways.collect::<Result<Vec<_>, _>>()?;
    match ways.len() {
        0 => Err("expected a type, found none".to_owned()),
        1 => Ok(ways.remove(0)),
        _ => Ok(vec![Part::One(ways)]),
    }
}

/// `[item,...]`, with as many as `object` says.
fn list(object: &Map<String, Value>, item: &[Part]) -> Parts {
    let count = |key: &str| object.get(key).and_then(Value::as_u64).map(|count| count as usize);
    let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
    let counted = most.unwrap_or(0).max(least);
    if counted > MAX_ITEMS || counted * bare::size(item) > MAX_PARTS {
        return Err(format!(
            "expected at most {MAX_ITEMS} items and {MAX_PARTS} parts, found {counted} items"
        ));
    }
    let item_at = |at: usize| {
        let comma = (at > 0).then(|| Part::text(","));
        comma.into_iter().chain(item.iter().cloned()).collect::<Vec<_>>()
    };
    let mut parts: Vec<Part> = (0..least.max(1) - 1).flat_map(item_at).collect();
    let rest = match most {
        Some(most) if most < least => {
            return Err(format!("expected maxItems of at least {least}, found {most}"));
        }
        // The last ones are inside of those before.
        Some(most) => {
            (least..most).rev().fold(Vec::new(), |rest, at| vec![Part::Maybe([item_at(at), rest].concat())])
        }
        None => vec![Part::Many { item: item.to_vec(), between: "," }],
    };
    match (most, least) {
        (Some(_), 0) | (None, 1) => parts.extend(rest),
        (None, 0) => parts.push(Part::Maybe(rest)),
        (Some(_), _) => parts.extend(item_at(least - 1).into_iter().chain(rest)),
        (None, _) => parts.extend([Part::text(",")].into_iter().chain(rest)),
    }
    Ok([vec![Part::text("[")], parts, vec![Part::text("]")]].concat())
}

/// `value` in this notation.
fn constant(value: &Value, quote: &str) -> Result<String, String> {
    let joined = |values: Vec<String>, open: &str, close: &str| format!("{open}{}{close}", values.join(","));
    match value {
        Value::String(text) if text.contains(quote) => Err(format!("expected a text without {quote}")),
        Value::String(text) => Ok(format!("{quote}{text}{quote}")),
        Value::Array(list) => {
            let list = list.iter().map(|value| constant(value, quote)).collect::<Result<_, _>>()?;
            Ok(joined(list, "[", "]"))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                let bare = key.trim() == key && !key.is_empty() && !key.contains(NOT_IN_KEYS);
                match bare && !key.contains(['<', '>', '"']) {
                    true => Ok(format!("{key}:{}", constant(value, quote)?)),
                    false => Err(format!("expected a key without marks, found {key:?}")),
                }
            };
            Ok(joined(map.iter().map(entry).collect::<Result<_, _>>()?, "{", "}"))
        }
        simple => Ok(simple.to_string()),
    }
}

/// Refuses keywords but `keys`.
fn only(object: &Map<String, Value>, keys: &[&str]) -> Result<(), String> {
    let known = |key: &str| keys.contains(&key) || ANNOTATIONS.contains(&key) || key == "definitions";
    match object.keys().find(|key| !known(key)) {
        Some(key) => Err(format!("{key} is not enforced in this format")),
        None => Ok(()),
    }
}
