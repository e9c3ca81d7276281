//! Arguments as text without quotes: which parts a grammar has for them.

use serde_json::{Map, Value};

use crate::output::tools::{resolve, types};
use crate::output::writing::{Function, Part};

/// Keywords of an object's schema that the order of its arguments enforces, or that enforce nothing.
const OF_OBJECTS: [&str; 10] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "title",
    "description",
    "$schema",
    "$defs",
    "definitions",
    "strict",
];
/// Keywords of a text's schema that enforce nothing further.
const OF_TEXTS: [&str; 9] =
    ["type", "title", "description", "default", "examples", "example", "deprecated", "anyOf", "oneOf"];

/// What is part of marks, and would end a name or cut it.
const NOT_IN_NAMES: [char; 6] = ['<', '>', '"', '[', ']', '\n'];
/// Most arguments of a function, and most of them that may be left out where all may be.
const MAX_ARGUMENTS: usize = 128;
const MAX_LEFT_OUT: usize = 32;
/// Most values of a function's schema, counted once for each argument.
const MAX_VALUES: usize = 1 << 16;
/// Most parts where each of several arguments may be the first one.
const MAX_PARTS: usize = 1 << 14;

/// An argument of a function.
pub(super) struct Argument<'a> {
    pub(super) key: &'a str,
    pub(super) required: bool,
    pub(super) schema: &'a Value,
    root: &'a Value,
}

/// The arguments of a function in the order of its schema.
///
/// # Errors
/// For keywords that their order does not enforce.
pub(super) fn arguments(function: &Function) -> Result<Vec<Argument<'_>>, String> {
    let root = &function.parameters;
    let keys = root.as_object().into_iter().flat_map(Map::keys);
    if let Some(keyword) = keys.into_iter().find(|key| !OF_OBJECTS.contains(&key.as_str())) {
        return Err(format!("parameters: {keyword} is not enforced in this format"));
    }
    let count = root.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    if count > MAX_ARGUMENTS || count.saturating_mul(values(root)) > MAX_VALUES {
        let most = format!("at most {MAX_ARGUMENTS} arguments, and {MAX_VALUES} values times arguments");
        return Err(format!(
            "parameters: expected {most}, found {count} arguments of {} values",
            values(root)
        ));
    }
    let keys = root.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let marked = |key: &&String| key.is_empty() || key.trim() != key.as_str() || key.contains(NOT_IN_NAMES);
    if let Some(key) = keys.into_iter().find(marked) {
        return Err(format!("argument {key:?}: expected a name without marks and white space around it"));
    }
    let list = root.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let required = |key: &str| list.iter().any(|one| one.as_str() == Some(key));
    let properties = root.get("properties").and_then(Value::as_object);
    if let Some(missing) = list.iter().find(|one| {
        one.as_str().is_none_or(|key| !properties.is_some_and(|properties| properties.contains_key(key)))
    }) {
        return Err(format!("parameters: expected {missing:.40} of required in properties"));
    }
    let properties = properties.into_iter().flatten();
    Ok(properties.map(|(key, schema)| Argument { key, required: required(key), schema, root }).collect())
}

impl<'a> Argument<'a> {
    /// Whether it is written as text: a text, or a value of one of several types that is a text if it is no other.
    pub(super) fn is_text(&self) -> Result<bool, String> {
        let schema = self.resolved()?;
        Ok(match schema {
            Value::Object(_) => types(schema).is_none_or(|types| types.iter().any(|name| name == "string")),
            other => other == &Value::Bool(true),
        })
    }

    /// Its value and `end`, in a text that none of `never` may be in.
    ///
    /// # Errors
    /// For texts with keywords that are not enforced.
    pub(super) fn value(&self, never: &[&'static str], end: &'static str) -> Result<Vec<Part>, String> {
        let schema = self.resolved()?;
        if !self.is_text()? {
            return Ok(vec![self.json(), Part::text(end)]);
        }
        let empty = Map::new();
        let object = schema.as_object().unwrap_or(&empty);
        let refused =
            |what: &str| format!("argument {:?}: {what} of a text is not enforced in this format", self.key);
        if let Some(values) = object.get("enum").and_then(Value::as_array) {
            let other = object.keys().find(|key| *key != "enum" && !OF_TEXTS.contains(&key.as_str()));
            if let Some(other) = other {
                return Err(refused(other));
            }
            let text = |value: &Value| {
                let text = value.as_str().filter(|text| !never.iter().any(|mark| text.contains(mark)));
                text.map(|text| vec![Part::text(format!("{text}{end}"))])
                    .ok_or_else(|| refused(&format!("{value:.40}")))
            };
            return Ok(vec![Part::One(values.iter().map(text).collect::<Result<_, _>>()?)]);
        }
        let plain = |schema: &Value| {
            let keys = schema.as_object().into_iter().flat_map(Map::keys);
            keys.into_iter().find(|key| !OF_TEXTS.contains(&key.as_str())).cloned()
        };
        let alternatives = ["anyOf", "oneOf"].iter().filter_map(|key| object.get(*key)?.as_array()).flatten();
        if let Some(keyword) = alternatives.chain([schema]).find_map(plain) {
            return Err(refused(&keyword));
        }
        Ok(vec![Part::Until { never: never.to_vec(), end }])
    }

    /// Its value as JSON.
    pub(super) fn json(&self) -> Part {
        let mut schema = self.schema.clone();
        if let Value::Object(schema) = &mut schema {
            // What it refers to.
            for key in ["$defs", "definitions", "$schema"] {
                if let Some(definitions) = self.root.get(key) {
                    schema.insert(key.to_owned(), definitions.clone());
                }
            }
        }
        Part::Json(schema)
    }

    fn resolved(&self) -> Result<&'a Value, String> {
        resolve(self.schema, self.root)
            .ok_or_else(|| format!("argument {:?}: expected a reference to a place in the schema", self.key))
    }
}

/// How many parts there are.
pub(super) fn size(parts: &[Part]) -> usize {
    let of = |part: &Part| match part {
        Part::Text(_) | Part::Json(_) | Part::Pattern(_) | Part::Until { .. } => 1,
        Part::One(ways) => 1 + ways.iter().map(|way| size(way)).sum::<usize>(),
        Part::Maybe(parts) | Part::Many { item: parts, .. } => 1 + size(parts),
    };
    parts.iter().map(of).sum()
}

/// How many values there are in a schema.
fn values(schema: &Value) -> usize {
    let inner: usize = match schema {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(object) => object.values().map(values).sum(),
        _ => 0,
    };
    1 + inner
}

/// Arguments one after the other, those that are not required or nothing in their place. `write` gives the parts of one.
pub(super) fn in_order<'a>(
    arguments: &[Argument<'a>],
    write: impl Fn(&Argument<'a>) -> Result<Vec<Part>, String>,
) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for argument in arguments {
        let written = write(argument)?;
        match argument.required {
            true => parts.extend(written),
            false => parts.push(Part::Maybe(written)),
        }
    }
    Ok(parts)
}

/// As [`in_order`] with `between` between arguments: those that are required come first.
pub(super) fn listed<'a>(
    arguments: Vec<Argument<'a>>,
    between: &'static str,
    write: impl Fn(&Argument<'a>) -> Result<Vec<Part>, String>,
) -> Result<Vec<Part>, String> {
    let (first, others): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument.required);
    let mut parts = Vec::new();
    for argument in &first {
        if !parts.is_empty() {
            parts.push(Part::text(between));
        }
        parts.extend(write(argument)?);
    }
    let others = others.iter().map(write).collect::<Result<Vec<_>, _>>()?;
    let follow = |written: &Vec<Part>| Part::Maybe([vec![Part::text(between)], written.clone()].concat());
    if !parts.is_empty() {
        parts.extend(others.iter().map(follow));
        return Ok(parts);
    }
    if others.len() > MAX_LEFT_OUT {
        let found = others.len();
        return Err(format!(
            "parameters: expected a required argument, or at most {MAX_LEFT_OUT}, found {found}"
        ));
    }
    let found: usize = others.iter().map(|written| size(written)).sum();
    if found * others.len() > MAX_PARTS {
        let found = found * others.len();
        return Err(format!("parameters: expected at most {MAX_PARTS} parts of a grammar, found {found}"));
    }
    // The first of them has nothing before it.
    let begun = others.iter().enumerate().map(|(at, written)| {
        let rest = others[at + 1..].iter().map(follow);
        written.iter().cloned().chain(rest).collect()
    });
    let begun: Vec<Vec<Part>> = begun.collect();
    Ok(if begun.is_empty() { Vec::new() } else { vec![Part::Maybe(vec![Part::One(begun)])] })
}
