//! Mistral: a list of calls after `[TOOL_CALLS]`, or, in newer models, one for each call: the name, perhaps an id, and the
//! arguments.

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, ToolFormat};
use crate::output::preview::Begin;
use crate::output::tools::Tools;
use crate::output::value::{begin_calls, begin_object, calls, object, start_of};
use crate::output::writing::{Function, Part, Parts, Writing};

const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";

/// Name, perhaps an id, and the arguments.
fn head(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (head, given) = text.split_at(text.find('{')?);
    let head = head.trim_end();
    let head = head.strip_suffix(ARGUMENTS).unwrap_or(head);
    Some(match head.split_once(ID) {
        Some((name, id)) => (name, Some(id), given),
        None => (head, None, given),
    })
}

fn read(text: &str, _: &Tools) -> Calls {
    let trimmed = text.trim_start();
    if trimmed.starts_with(['[', '{']) {
        return calls(trimmed);
    }
    let Some((name, id, given)) = head(trimmed) else {
        return Err(format!("expected a list, or a name and arguments, found {}", start_of(trimmed)));
    };
    Ok(vec![RawCall::new(name, object(given)?)?.with_id(id)])
}

fn begin(text: &str) -> Begin {
    if text.trim_start().starts_with(['[', '{']) {
        return begin_calls(text);
    }
    head(text).map_or(Begin::Open, |(name, id, given)| begin_object(text, (name, id), given, false))
}

/// As newer models do, or as a list of one, with or without an id.
fn write(function: &Function) -> Parts {
    const LETTERS: Part = Part::Pattern("[0-9A-Za-z]{9}");
    let json = || Part::Json(function.parameters.clone());
    let id = Part::Maybe(vec![Part::text(ID), LETTERS]);
    let named = vec![Part::text(function.name.as_str()), id, Part::text(ARGUMENTS), json()];
    let begin = format!("[{{\"name\": \"{}\", \"arguments\": ", function.name);
    let id = Part::Maybe(vec![Part::text(", \"id\": \""), LETTERS, Part::text("\"")]);
    Ok(vec![Part::One(vec![named, vec![Part::text(begin), json(), id, Part::text("}]")]])])
}

pub(in crate::output) const MISTRAL: ToolFormat = ToolFormat {
    name: "mistral",
    models: "Mistral, Ministral, Magistral, Devstral",
    example: r#"[TOOL_CALLS]f[ARGS]{"a": 1}"#,
    template: &[&["[TOOL_CALLS]"]],
    inner: &[ARGUMENTS, ID],
    writing: Writing::blocks(["[TOOL_CALLS]", "[TOOL_CALLS]", ""], "[TOOL_CALLS]", write),
    grammar: Grammar::Blocks { blocks: &[Block::value("[TOOL_CALLS]", read, begin).special()], dropped: &[] },
};
