//! Mistral: a list of calls after `[TOOL_CALLS]`, or, in newer models, one for each call: the name, perhaps an id, and the
//! arguments.

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, ToolFormat};
use crate::output::tools::Tools;
use crate::output::value::{calls, object, start_of};

const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";

fn read(text: &str, _: &Tools) -> Calls {
    let trimmed = text.trim_start();
    if trimmed.starts_with(['[', '{']) {
        return calls(trimmed);
    }
    let Some(start) = trimmed.find('{') else {
        return Err(format!("expected a list, or a name and arguments, found {}", start_of(trimmed)));
    };
    let (head, given) = trimmed.split_at(start);
    let head = head.trim_end();
    let head = head.strip_suffix(ARGUMENTS).unwrap_or(head);
    let (name, id) = match head.split_once(ID) {
        Some((name, id)) => (name, Some(id)),
        None => (head, None),
    };
    Ok(vec![RawCall::new(name, object(given)?)?.with_id(id)])
}

pub(in crate::output) const MISTRAL: ToolFormat = ToolFormat {
    name: "mistral",
    models: "Mistral, Ministral, Magistral, Devstral",
    example: r#"[TOOL_CALLS]f[ARGS]{"a": 1}"#,
    template: &[&["[TOOL_CALLS]"]],
    inner: &[ARGUMENTS, ID],
    grammar: Grammar::Blocks { blocks: &[Block::value("[TOOL_CALLS]", read).special()], dropped: &[] },
};
