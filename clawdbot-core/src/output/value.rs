//! Values in formats that write JSON.

use serde_json::{Deserializer, Value};

use super::call::{Calls, RawCall};
use super::normal::Tree;
use super::objects::{ARGUMENTS, FUNCTION, IDS, NAMES, Objects};
use super::preview::Begin;

/// Keys that an object may have apart from the name, if there are no arguments.
const OTHERS: [&str; 4] = ["id", "tool_call_id", "type", "index"];
const NO_ARGUMENTS: &str = "{}";

/// The arguments of a call in normal form: those of a JSON object, of a text with one, or none.
pub(super) fn arguments(value: &Tree) -> Result<String, String> {
    match value {
        Tree::Object(_) => Ok(value.to_string()),
        Tree::Simple(Value::Null) => Ok(NO_ARGUMENTS.to_owned()),
        Tree::Simple(Value::String(text)) => object(text),
        other => Err(format!("expected arguments in a JSON object, found {}", start_of(&other.to_string()))),
    }
}

/// The normal form of a text that is a JSON object, or empty.
pub(super) fn object(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(NO_ARGUMENTS.to_owned());
    }
    let wrong =
        |reason: String| format!("expected arguments in a JSON object, found {}{reason}", start_of(text));
    match serde_json::from_str(text) {
        Ok(tree @ Tree::Object(_)) => Ok(tree.to_string()),
        Ok(_) => Err(wrong(String::new())),
        Err(error) => Err(wrong(format!(" ({error})"))),
    }
}

/// A call written as an object: `{"name", "arguments"}`, with `parameters` for `arguments` or within `function`. Of keys that say
/// the same the first one counts, and of ids one before the arguments, so that a preview knows them.
pub(super) fn call(value: &Tree) -> Result<RawCall, String> {
    let expected =
        || format!("expected an object with name and arguments, found {}", start_of(&value.to_string()));
    let Tree::Object(outer) = value else { return Err(expected()) };
    let is_inner = |(key, value): &&(String, Tree)| key == FUNCTION && matches!(value, Tree::Object(_));
    let says = |member: &(String, Tree)| is_name(member) || ARGUMENTS.contains(&member.0.as_str());
    let first = outer.iter().position(|member| says(member) || is_inner(&member));
    let inner = first.and_then(|at| outer.get(at)).filter(is_inner);
    let members = match inner {
        Some((_, Tree::Object(inner))) => inner,
        _ => outer,
    };
    let name = members.iter().find(|member| is_name(member)).and_then(|(_, name)| name.as_str());
    let name = name.ok_or_else(expected)?;
    let given = members.iter().position(|(key, _)| ARGUMENTS.contains(&key.as_str()));
    let known = |key: &str| NAMES.contains(&key) || OTHERS.contains(&key);
    let arguments = match given {
        Some(at) => arguments(&members[at].1)?,
        None if members.iter().all(|(key, _)| known(key)) => NO_ARGUMENTS.to_owned(),
        None => return Err(expected()),
    };
    let before = if inner.is_some() { first } else { given };
    let mut ids = outer[..before.unwrap_or(outer.len())].iter();
    let id = ids.find_map(|(key, id)| id.as_str().filter(|_| IDS.contains(&key.as_str())));
    Ok(RawCall::new(name, arguments)?.with_id(id))
}

/// Whether a member of an object is the name of a function.
fn is_name((key, value): &(String, Tree)) -> bool {
    (NAMES.contains(&key.as_str()) || key == FUNCTION) && value.as_str().is_some()
}

/// JSON values one after the other, each a call or a list of calls, with commas or semicolons between them, and perhaps as a
/// code block.
pub(super) fn calls(text: &str) -> Calls {
    calls_with(text, call)
}

/// As [`calls`], with objects that `read` understands.
pub(super) fn calls_with(text: &str, read: fn(&Tree) -> Result<RawCall, String>) -> Calls {
    let mut rest = without_fence(text);
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
        if rest.is_empty() {
            return Ok(found);
        }
        let mut values = Deserializer::from_str(rest).into_iter::<Tree>();
        match values.next() {
            Some(Ok(Tree::List(list))) => {
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

/// The preview of [`calls`].
pub(super) fn begin_calls(_: &str) -> Begin {
    Begin::Objects(Objects::default())
}

/// The preview of a call of `name` whose arguments `given`, how `text` ends, are [`object`]s; `fenced`: perhaps in a code block.
pub(super) fn begin_object(text: &str, (name, id): (&str, Option<&str>), given: &str, fenced: bool) -> Begin {
    let start = given.trim_start();
    let mut object = start;
    if fenced && start.starts_with('`') {
        match start.strip_prefix("```") {
            Some(inner) => object = without_language(inner).trim_start(),
            None if "```".starts_with(start) => return Begin::Open,
            None => return Begin::Never,
        }
    }
    match object.chars().next() {
        None => Begin::Open,
        Some('{') => Begin::Arguments {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            at: text.len() - object.len(),
        },
        Some(_) => Begin::Never,
    }
}

/// A text without the marks of a code block around it.
pub(super) fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```") else { return text };
    let inner = inner.strip_suffix("```").unwrap_or(inner);
    without_language(inner).trim()
}

/// A code block without its language, which is on the first line.
fn without_language(inner: &str) -> &str {
    inner.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The beginning of a text, for a message.
pub(super) fn start_of(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?} ...", &text[..end]),
        None => format!("{text:?}"),
    }
}
