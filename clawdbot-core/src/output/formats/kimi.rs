//! Kimi K2: `functions.name:number`, which is the id, and arguments.

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::preview::Begin;
use crate::output::tools::Tools;
use crate::output::value::{begin_object, object, start_of};
use crate::output::writing::{Function, Part, Parts, Writing};

const ARGUMENTS: &str = "<|tool_call_argument_begin|>";

/// Name, id, and what comes after them.
fn head(text: &str) -> Option<(&str, &str, &str)> {
    let (id, given) = text.split_once(ARGUMENTS)?;
    let id = id.trim();
    let name = id.strip_prefix("functions.").unwrap_or(id);
    let number = |number: &str| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let name = name.rsplit_once(':').filter(|(_, end)| number(end)).map_or(name, |(name, _)| name);
    Some((name, id, given))
}

fn read(text: &str, _: &Tools) -> Calls {
    let Some((name, id, given)) = head(text) else {
        return Err(format!("expected an id, {ARGUMENTS} and arguments, found {}", start_of(text)));
    };
    Ok(vec![RawCall::new(name, object(given)?)?.with_id(Some(id))])
}

fn begin(text: &str) -> Begin {
    head(text).map_or(Begin::Open, |(name, id, given)| begin_object(text, (name, Some(id)), given, false))
}

fn write(function: &Function) -> Parts {
    let name = Part::text(format!("functions.{}:", function.name));
    let number = Part::Pattern("[0-9]{1,3}");
    Ok(vec![name, number, Part::text(ARGUMENTS), Part::Json(function.parameters.clone())])
}

pub(in crate::output) const KIMI: ToolFormat = ToolFormat {
    name: "kimi_k2",
    models: "Kimi K2",
    example: "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_calls_section_end|>",
    template: &[&["<|tool_call_begin|>"]],
    inner: &[ARGUMENTS],
    writing: Writing::blocks(
        [
            "<|tool_calls_section_begin|><|tool_call_begin|>",
            "<|tool_call_end|><|tool_call_begin|>",
            "<|tool_call_end|><|tool_calls_section_end|>",
        ],
        "<|tool_calls_section_begin|>",
        write,
    ),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("<|tool_call_begin|>", "<|tool_call_end|>", Quotes::Json, read, begin).special()
        ],
        dropped: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
    },
};
