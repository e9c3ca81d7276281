//! Cohere's actions.

use crate::output::call::Calls;
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::objects::Objects;
use crate::output::preview::Begin;
use crate::output::tools::Tools;
use crate::output::value;
use crate::output::writing::{Function, Part, Parts, Writing, with_tool_name};

/// A tool that means: answer without one.
const DIRECT: &str = "directly_answer";

fn read(text: &str, _: &Tools) -> Calls {
    let mut calls = value::calls(text)?;
    if calls.len() > 1 {
        calls.retain(|call| call.name != DIRECT);
    }
    Ok(calls)
}

fn begin(_: &str) -> Begin {
    Begin::Objects(Objects { skipped: Some(DIRECT), ..Objects::default() })
}

fn numbered(function: &Function) -> Parts {
    let mut parts =
        vec![Part::text("{\"tool_call_id\": \""), Part::Pattern("[0-9]{1,3}"), Part::text("\", ")];
    let mut call = with_tool_name(function)?;
    if let Some(Part::Text(text)) = call.first_mut() {
        text.remove(0);
    }
    parts.extend(call);
    Ok(parts)
}

pub(in crate::output) const COMMAND: ToolFormat = ToolFormat {
    name: "command",
    models: "Command A, Command R7B",
    example: r#"<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}]<|END_ACTION|>"#,
    template: &[&["<|START_ACTION|>"]],
    inner: &[],
    writing: Writing::blocks(["<|START_ACTION|>[", ", ", "]<|END_ACTION|>"], "<|START_ACTION|>", numbered),
    grammar: Grammar::Blocks {
        blocks: &[Block::between("<|START_ACTION|>", "<|END_ACTION|>", Quotes::Json, read, begin).special()],
        dropped: &["<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"],
    },
};

pub(in crate::output) const COMMAND_R: ToolFormat = ToolFormat {
    name: "command_r",
    models: "Command R and R+",
    example: "Action: ```json\n[{\"tool_name\": \"f\", \"parameters\": {\"a\": 1}}]\n```",
    template: &[&["Action: ```json"], &["Action:```json"], &["'Action:'", "tool_name"]],
    inner: &[],
    writing: Writing::blocks(["Action: ```json\n[", ", ", "]\n```"], "Action: ```json", with_tool_name),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("Action: ```json", "```", Quotes::Json, read, begin),
            Block::between("Action:```json", "```", Quotes::Json, read, begin),
        ],
        dropped: &[],
    },
};
