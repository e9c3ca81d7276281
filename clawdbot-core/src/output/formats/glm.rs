//! GLM 4.5 and later: the name, then keys and values between tags.

use serde_json::Map;

use super::bare;
use super::tags::{argument, between, next_tag};
use crate::output::call::{Calls, RawCall};
use crate::output::format::{Arguments, Block, Grammar, Quotes, ToolFormat};
use crate::output::tools::Tools;
use crate::output::value::start_of;
use crate::output::writing::{Function, Part, Parts, Writing};

fn read(text: &str, tools: &Tools) -> Calls {
    let name = text.split("<arg_key>").next().unwrap_or(text);
    let mut rest = &text[name.len()..];
    let name = name.trim();
    let mut arguments = Map::new();
    while let Some(after) = next_tag(rest, "<arg_key>") {
        let (key, after) = between(after, "</arg_key>")?;
        let Some(after) = next_tag(after, "<arg_value>") else {
            return Err(format!("expected <arg_value>, found {}", start_of(after)));
        };
        let key = key.trim();
        let (text, after) = argument(after, "</arg_value>", tools.is_json(name, key))?;
        arguments.insert(key.to_owned(), tools.value(name, key, text));
        rest = after;
    }
    match rest.trim() {
        "" => Ok(vec![RawCall::new(name, arguments)?]),
        rest => Err(format!("expected <arg_key>, found {}", start_of(rest))),
    }
}

const ARGUMENTS: Arguments = Arguments {
    function: "",
    key: "<arg_key>",
    open: "<arg_value>",
    close: "</arg_value>",
    is_json: |name, key, tools| {
        let name = name.split("<arg_key>").next().unwrap_or(name);
        let key = key.split("</arg_key>").next().unwrap_or(key);
        tools.is_json(name.trim(), key.trim())
    },
};

fn write(function: &Function) -> Parts {
    const END: &str = "</arg_value>";
    let arguments = bare::arguments(function)?;
    let written = bare::in_order(&arguments, |argument| {
        let mut parts = vec![Part::text(format!("<arg_key>{}</arg_key>\n<arg_value>", argument.key))];
        parts.extend(argument.value(&[END, "</tool_call>"], END)?);
        parts.push(Part::text("\n"));
        Ok(parts)
    })?;
    Ok([vec![Part::text(format!("{}\n", function.name))], written].concat())
}

pub(in crate::output) const GLM: ToolFormat = ToolFormat {
    name: "glm",
    models: "GLM 4.5, 4.6, 4.7 and 5",
    example: "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    template: &[&["<arg_key>"]],
    inner: &["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
    writing: Writing::blocks(
        ["<tool_call>", "</tool_call>\n<tool_call>", "</tool_call>"],
        "<tool_call>",
        write,
    ),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("<tool_call>", "</tool_call>", Quotes::None, read).with_arguments(&ARGUMENTS)
        ],
        dropped: &[],
    },
};
