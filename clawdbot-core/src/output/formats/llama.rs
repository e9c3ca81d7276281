//! Llama 3.1, 3.2 and 3.3: an output that is JSON; `<|python_tag|>` before built-in tools.

use super::pythonic;
use crate::output::call::Calls;
use crate::output::format::{Block, End, Grammar, Quotes, ToolFormat};
use crate::output::tools::Tools;
use crate::output::value::calls;
use crate::output::writing::{Writing, with_parameters};

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
        if let Some(name) = call.name.strip_suffix(".call") {
            call.name = name.to_owned();
        }
    }
    Ok(found)
}

pub(in crate::output) const LLAMA3: ToolFormat = ToolFormat {
    name: "llama3_json",
    models: "Llama 3.1, 3.2 and 3.3",
    example: r#"{"name": "f", "parameters": {"a": 1}}"#,
    template: &[&["<|python_tag|>"], &["Respond in the format {\"name\": function name"]],
    inner: &[],
    writing: Writing::single("", "", "", with_parameters),
    grammar: Grammar::Blocks {
        blocks: &[
            Block {
                end: End::Output,
                ..Block::between("<|python_tag|>", "", Quotes::None, built_in).special()
            },
            Block::whole("{", json),
        ],
        dropped: &[],
    },
};
