//! Apertus: a list of objects whose only key is the function.

use serde_json::Value;

use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::normal::Tree;
use crate::output::objects::Objects;
use crate::output::preview::Begin;
use crate::output::tools::Tools;
use crate::output::value::{arguments, calls_with, start_of};
use crate::output::writing::{Function, Part, Parts, Writing};

fn read(text: &str, _: &Tools) -> Calls {
    calls_with(text, |value: &Tree| {
        let members = if let Tree::Object(members) = value { members.as_slice() } else { &[] };
        let [(name, given)] = members else {
            return Err(format!("expected an object with one key, found {}", start_of(&value.to_string())));
        };
        RawCall::new(name, arguments(given)?)
    })
}

fn begin(_: &str) -> Begin {
    Begin::Objects(Objects { one_key: true, ..Objects::default() })
}

fn write(function: &Function) -> Parts {
    let name = Value::from(function.name.as_str());
    Ok(vec![Part::text(format!("{{{name}: ")), Part::Json(function.parameters.clone()), Part::text("}")])
}

pub(in crate::output) const APERTUS: ToolFormat = ToolFormat {
    name: "apertus",
    models: "Apertus",
    example: r#"<|tools_prefix|>[{"f": {"a": 1}}]<|tools_suffix|>"#,
    template: &[&["<|tools_prefix|>"]],
    inner: &[],
    writing: Writing::blocks(["<|tools_prefix|>[", ", ", "]<|tools_suffix|>"], "<|tools_prefix|>", write),
    grammar: Grammar::Blocks {
        blocks: &[Block::between("<|tools_prefix|>", "<|tools_suffix|>", Quotes::Json, read, begin).special()],
        dropped: &[],
    },
};
