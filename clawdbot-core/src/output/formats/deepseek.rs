//! DeepSeek V3 and R1 (`function`, a separator, the name, and arguments as a code block), and V3.1 (the name, a separator,
//! arguments).

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::preview::Begin;
use crate::output::tools::Tools;
use crate::output::value::{begin_object, object, start_of, without_fence};
use crate::output::writing::{Function, Part, Parts, Writing};

const SEPARATOR: &str = "<｜tool▁sep｜>";

/// The name, and what comes after it.
fn head(text: &str) -> Option<(&str, &str)> {
    let (before, after) = text.split_once(SEPARATOR)?;
    match before.trim() {
        "function" => after.split_once('\n'),
        name => Some((name, after)),
    }
}

fn read(text: &str, _: &Tools) -> Calls {
    let expected = || format!("expected a name, {SEPARATOR} and arguments, found {}", start_of(text));
    let (name, given) = head(text).ok_or_else(expected)?;
    Ok(vec![RawCall::new(name, object(without_fence(given))?)?])
}

fn begin(text: &str) -> Begin {
    head(text).map_or(Begin::Open, |(name, given)| begin_object(text, (name, None), given, true))
}

/// In V3.1's way, or in the one before it.
fn write(function: &Function) -> Parts {
    let (name, json) = (&function.name, Part::Json(function.parameters.clone()));
    let before = format!("function{SEPARATOR}{name}\n```json\n");
    Ok(vec![Part::One(vec![
        vec![Part::text(format!("{name}{SEPARATOR}")), json.clone()],
        vec![Part::text(before), json, Part::text("\n```")],
    ])])
}

pub(in crate::output) const DEEPSEEK: ToolFormat = ToolFormat {
    name: "deepseek",
    models: "DeepSeek V3, R1 and V3.1",
    example: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    template: &[&["<｜tool▁calls▁begin｜>"], &["<｜tool▁call▁begin｜>"]],
    inner: &[SEPARATOR],
    writing: Writing::blocks(
        [
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜><｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ],
        "<｜tool▁calls▁begin｜>",
        write,
    ),
    grammar: Grammar::Blocks {
        blocks: &[Block::between("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", Quotes::Json, read, begin)
            .special()],
        dropped: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    },
};
