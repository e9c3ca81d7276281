//! GLM 4.5 and later: the name, then keys and values between tags.

use serde_json::Value;

use super::bare;
use super::tags::{argument, between, next_tag};
use crate::output::call::{Calls, RawCall};
use crate::output::format::{Arguments, Block, Grammar, Quotes, ToolFormat};
use crate::output::normal::Members;
use crate::output::preview::Begin;
use crate::output::steps::{Step, Steps};
use crate::output::tools::Tools;
use crate::output::value::start_of;
use crate::output::writing::{Function, Part, Parts, Writing};

fn read(text: &str, tools: &Tools) -> Calls {
    let name = text.split("<arg_key>").next().unwrap_or(text);
    let mut rest = &text[name.len()..];
    let name = name.trim();
    let mut arguments = Members::default();
    while let Some(after) = next_tag(rest, "<arg_key>") {
        let (key, value, after) = pair(after, name, tools, false)?;
        arguments.insert(key, &value);
        rest = after;
    }
    match rest.trim() {
        "" => Ok(vec![RawCall::new(name, arguments.object())?]),
        rest => Err(format!("expected <arg_key>, found {}", start_of(rest))),
    }
}

/// An argument after the mark of its key, and what comes after it. `grows`: whether more text may come.
fn pair<'a>(
    text: &'a str,
    name: &str,
    tools: &Tools,
    grows: bool,
) -> Result<(&'a str, Value, &'a str), String> {
    let (key, after) = between(text, "</arg_key>")?;
    let Some(after) = next_tag(after, "<arg_value>") else {
        return Err(format!("expected <arg_value>, found {}", start_of(after)));
    };
    let key = key.trim();
    let (text, after) = argument(after, "</arg_value>", tools.is_json(name, key), grows)?;
    Ok((key, tools.value(name, key, text), after))
}

fn step(text: &str, call: Option<&str>, tools: &Tools) -> Option<(Step, usize)> {
    let Some(name) = call else {
        let end = text.find("<arg_key>")?;
        return Some((Step::Call(text[..end].trim().to_owned()), end));
    };
    let (key, value, rest) = pair(next_tag(text, "<arg_key>")?, name, tools, true).ok()?;
    Some((Step::Argument(key.to_owned(), value), text.len() - rest.len()))
}

const STEPS: Steps = Steps { opens: "<arg_key>", ends: &["</arg_value>"], quotes: Quotes::None, step };

fn begin(_: &str) -> Begin {
    Begin::Steps { how: &STEPS, at: 0, call: None }
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
        blocks: &[Block::between("<tool_call>", "</tool_call>", Quotes::None, read, begin)
            .with_arguments(&ARGUMENTS)],
        dropped: &[],
    },
};
