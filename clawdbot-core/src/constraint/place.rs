//! Where in a schema the parser's crate refuses something: its errors do not say.

use llguidance::api::GrammarInit;
use serde_json::Value;

use super::limits::limits;
use super::schema;
use super::spec::json_grammar;
use crate::error::Error;

/// Most parts of a schema that are compiled in the search.
const MAX_TRIED: usize = 256;
/// Keywords with schemas by names, in lists, and alone.
const NAMED: [&str; 2] = ["properties", "patternProperties"];
const LISTS: [&str; 5] = ["prefixItems", "items", "allOf", "anyOf", "oneOf"];
const ALONE: [&str; 3] = ["items", "additionalProperties", "additionalItems"];

/// The innermost part of `schema` that is refused, as an error with keyword and place; `None` if none is on its own. `reason`: makes
/// words of what the crate says.
pub(super) fn find(schema: &Value, reason: impl Fn(&str) -> String) -> Option<Error> {
    let mut tried = 0;
    let mut refused = |pointer: &str| {
        tried += 1;
        if tried > MAX_TRIED { None } else { refused_at(schema, pointer) }
    };
    let mut seen = vec![String::new()];
    let mut found = refused("")?;
    loop {
        let here = seen.last().cloned().unwrap_or_default();
        let inner = parts(schema, &here).into_iter().filter(|part| !seen.contains(part)).collect::<Vec<_>>();
        let Some((part, why)) = inner.into_iter().find_map(|part| refused(&part).map(|why| (part, why)))
        else {
            break;
        };
        seen.push(part);
        found = why;
    }
    let pointer = seen.pop().unwrap_or_default();
    let reason = reason(&found);
    let object = schema.pointer(&pointer).and_then(Value::as_object)?;
    let (keyword, reason) = match reason.split_once(": ") {
        Some((keyword, rest)) if object.contains_key(keyword) => (keyword, rest),
        _ => {
            let about = |key: &&&str| found.contains(**key) && object.contains_key(**key);
            let named = ["multipleOf", "format"].iter().find(about).copied();
            let pattern =
                || Some("pattern").filter(|key| object.contains_key(*key) && reason == first_line(&found));
            (named.or_else(pattern).unwrap_or("a schema"), reason.as_str())
        }
    };
    Some(schema::refused(&pointer, keyword, reason))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Why the part of `root` at `pointer` is refused.
fn refused_at(root: &Value, pointer: &str) -> Option<String> {
    let read = schema::read_at(root, pointer).ok()?;
    let grammar = GrammarInit::Serialized(json_grammar(read));
    grammar.to_internal(None, limits()).err().map(|error| format!("{error:#}"))
}

/// Pointers to the schemas in the one at `pointer`.
fn parts(root: &Value, pointer: &str) -> Vec<String> {
    let Some(object) = root.pointer(pointer).and_then(Value::as_object) else { return Vec::new() };
    let mut parts = Vec::new();
    for key in NAMED {
        let names = object.get(key).and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys);
        parts.extend(
            names.map(|name| format!("{pointer}/{key}/{}", name.replace('~', "~0").replace('/', "~1"))),
        );
    }
    for key in LISTS {
        let count = object.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        parts.extend((0..count).map(|at| format!("{pointer}/{key}/{at}")));
    }
    let alone = ALONE.iter().filter(|key| object.get(**key).is_some_and(Value::is_object));
    parts.extend(alone.map(|key| format!("{pointer}/{key}")));
    let reference = object.get("$ref").and_then(Value::as_str).and_then(|of| of.strip_prefix('#'));
    parts.extend(reference.filter(|of| root.pointer(of).is_some()).map(str::to_owned));
    parts
}
