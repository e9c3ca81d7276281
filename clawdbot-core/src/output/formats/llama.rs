//! Llama 3.1, 3.2 and 3.3: an output that is JSON; `<|python_tag|>` before built-in tools.

use super::pythonic;
use crate::output::call::Calls;
use crate::output::format::{Block, End, Grammar, Quotes, ToolFormat};
use crate::output::preview::Begin;
use crate::output::steps::{Step, Steps};
use crate::output::tools::Tools;
use crate::output::value::{begin_calls, calls};
use crate::output::writing::{Writing, with_parameters};

/// How a built-in tool is called.
const CALL: &str = ".call";

fn json(text: &str, _: &Tools) -> Calls {
    calls(text)
}

/// `brave_search.call(query="...")`, or JSON.
fn built_in(text: &str, _: &Tools) -> Calls {
    let text = text.trim();
    if text.starts_with(['{', '[']) {
        return calls(text);
    }
    let mut found = pythonic::calls(text)?;
    for call in &mut found {
        if let Some(name) = call.name.strip_suffix(CALL) {
            call.name = name.to_owned();
        }
    }
    Ok(found)
}

/// As [`pythonic::STEPS`], of built-in tools.
const STEPS: Steps = Steps {
    step: |text, call, tools| match (pythonic::STEPS.step)(text, call, tools)? {
        (Step::Call(name), bytes) => {
            Some((Step::Call(name.strip_suffix(CALL).unwrap_or(&name).to_owned()), bytes))
        }
        other => Some(other),
    },
    ..pythonic::STEPS
};

fn begin_built_in(text: &str) -> Begin {
    match text.trim_start().chars().next() {
        None => Begin::Open,
        Some('{' | '[') => begin_calls(text),
        Some(_) => Begin::Steps { how: &STEPS, at: 0, call: None },
    }
}

pub(in crate::output) const LLAMA3: ToolFormat = ToolFormat {
    name: "llama3_json",
    models: "Llama 3.1, 3.2 and 3.3",
    example: r#"{"name": "f", "parameters": {"a": 1}}"#,
    template: &[&["<|python_tag|>"], &["Respond in the format {\"name\": function name"]],
    inner: &[],
    writing: Writing::single("", "", "{", with_parameters),
    grammar: Grammar::Blocks {
        blocks: &[
            Block {
                end: End::Output,
                ..Block::between("<|python_tag|>", "", Quotes::None, built_in, begin_built_in).special()
            },
            Block::whole("{", json, begin_calls),
        ],
        dropped: &[],
    },
};
