//! `<invoke name="f">` with `<parameter name="a">`: MiniMax M2, and DeepSeek V3.2 and later, whose tags have a prefix and which say
//! whether an argument is a text.

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

/// Tags of a format.
struct Tags {
    invoke: &'static str,
    end_invoke: &'static str,
    parameter: &'static str,
    end_parameter: &'static str,
}

const MINIMAX: Tags = Tags {
    invoke: "<invoke name=",
    end_invoke: "</invoke>",
    parameter: "<parameter name=",
    end_parameter: "</parameter>",
};

const DSML: Tags = Tags {
    invoke: "<｜DSML｜invoke name=",
    end_invoke: "</｜DSML｜invoke>",
    parameter: "<｜DSML｜parameter name=",
    end_parameter: "</｜DSML｜parameter>",
};

/// What DeepSeek's tags say of an argument that is a text, or none.
const STRING: &str = "string=\"true\"";
const NO_STRING: &str = "string=\"false\"";

/// The value of an attribute, with or without quotes, and what follows in its tag.
fn attribute(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let quoted = text.strip_prefix('"').and_then(|text| text.split_once('"'));
    quoted.unwrap_or_else(|| text.split_once(char::is_whitespace).unwrap_or((text, "")))
}

fn invokes(text: &str, tools: &Tools, tags: &Tags) -> Calls {
    let mut calls = Vec::new();
    let mut rest = text;
    while let Some(after) = next_tag(rest, tags.invoke) {
        let (tag, mut inner) = between(after, ">")?;
        let (name, _) = attribute(tag);
        let mut arguments = Members::default();
        while let Some(after) = next_tag(inner, tags.parameter) {
            let (key, value, after) = parameter(after, (name, tools, tags), false)?;
            arguments.insert(key, &value);
            inner = after;
        }
        let Some(after) = next_tag(inner, tags.end_invoke) else {
            return Err(format!("expected {}, found {}", tags.end_invoke, start_of(inner)));
        };
        calls.push(RawCall::new(name, arguments.object())?);
        rest = after;
    }
    match rest.trim() {
        "" => Ok(calls),
        rest => Err(format!("expected {}, found {}", tags.invoke, start_of(rest))),
    }
}

/// An argument after the beginning of its tag, and what comes after it. `grows`: whether more text may come.
fn parameter<'a>(
    text: &'a str,
    (name, tools, tags): (&str, &Tools, &Tags),
    grows: bool,
) -> Result<(&'a str, Value, &'a str), String> {
    let (tag, after) = between(text, ">")?;
    let (key, more) = attribute(tag);
    let (text, after) = argument(after, tags.end_parameter, is_json(name, tag, tools), grows)?;
    let value = match more.trim() {
        STRING => Value::from(text),
        NO_STRING => serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::from(text)),
        _ => tools.value(name, key, text),
    };
    Ok((key, value, after))
}

fn step(text: &str, call: Option<&str>, tools: &Tools, tags: &Tags) -> Option<(Step, usize)> {
    let (step, rest) = match call {
        None => {
            let (tag, rest) = between(next_tag(text, tags.invoke)?, ">").ok()?;
            (Step::Call(attribute(tag).0.to_owned()), rest)
        }
        Some(name) => match next_tag(text, tags.parameter) {
            Some(after) => {
                let (key, value, rest) = parameter(after, (name, tools, tags), true).ok()?;
                (Step::Argument(key.to_owned(), value), rest)
            }
            None => (Step::End, next_tag(text, tags.end_invoke)?),
        },
    };
    Some((step, text.len() - rest.len()))
}

const MINIMAX_STEPS: Steps = Steps {
    opens: ">",
    ends: &[MINIMAX.end_parameter, MINIMAX.end_invoke],
    quotes: Quotes::None,
    step: |text, call, tools| step(text, call, tools, &MINIMAX),
};
const DSML_STEPS: Steps = Steps {
    opens: ">",
    ends: &[DSML.end_parameter, DSML.end_invoke],
    quotes: Quotes::None,
    step: |text, call, tools| step(text, call, tools, &DSML),
};

fn begin_minimax(_: &str) -> Begin {
    Begin::Steps { how: &MINIMAX_STEPS, at: 0, call: None }
}

fn begin_dsml(_: &str) -> Begin {
    Begin::Steps { how: &DSML_STEPS, at: 0, call: None }
}

/// Whether the argument with this tag is JSON.
fn is_json(name: &str, tag: &str, tools: &Tools) -> bool {
    let (key, more) = attribute(tag);
    match more.trim() {
        STRING => false,
        NO_STRING => true,
        _ => tools.is_json(name, key),
    }
}

const fn arguments(tags: &'static Tags) -> Arguments {
    Arguments {
        function: tags.invoke,
        key: tags.parameter,
        open: ">",
        close: tags.end_parameter,
        is_json: |name, tag, tools| {
            let (name, _) = attribute(name.split('>').next().unwrap_or(name));
            is_json(name, tag, tools)
        },
    }
}

const MINIMAX_ARGUMENTS: Arguments = arguments(&MINIMAX);
const DSML_ARGUMENTS: Arguments = arguments(&DSML);

fn minimax(text: &str, tools: &Tools) -> Calls {
    invokes(text, tools, &MINIMAX)
}

fn dsml(text: &str, tools: &Tools) -> Calls {
    invokes(text, tools, &DSML)
}

/// `kind`: what the tag of an argument says, which is a text or is none.
fn write(function: &Function, tags: &Tags, kind: fn(bool) -> &'static str, close: &'static str) -> Parts {
    let arguments = bare::arguments(function)?;
    let written = bare::in_order(&arguments, |argument| {
        let kind = kind(argument.is_text()?);
        let open = Part::text(format!("{}\"{}\"{kind}>", tags.parameter, argument.key));
        let value = argument.value(&[tags.end_parameter, tags.end_invoke, close], tags.end_parameter)?;
        Ok([vec![open], value, vec![Part::text("\n")]].concat())
    })?;
    let open = Part::text(format!("{}\"{}\">\n", tags.invoke, function.name));
    Ok([vec![open], written, vec![Part::text(tags.end_invoke)]].concat())
}

pub(in crate::output) const MINIMAX_M2: ToolFormat = ToolFormat {
    name: "minimax_m2",
    models: "MiniMax M2",
    example: "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"a\">1</parameter>\n</invoke>\n</minimax:tool_call>",
    template: &[&["<minimax:tool_call>"]],
    inner: &[],
    writing: Writing::blocks(
        ["<minimax:tool_call>\n", "\n", "\n</minimax:tool_call>"],
        "<minimax:tool_call>",
        |function| write(function, &MINIMAX, |_| "", "</minimax:tool_call>"),
    ),
    grammar: Grammar::Blocks {
        blocks: &[Block::between(
            "<minimax:tool_call>",
            "</minimax:tool_call>",
            Quotes::None,
            minimax,
            begin_minimax,
        )
        .with_arguments(&MINIMAX_ARGUMENTS)
        .special()],
        dropped: &[],
    },
};

pub(in crate::output) const DEEPSEEK_DSML: ToolFormat = ToolFormat {
    name: "deepseek_dsml",
    models: "DeepSeek V3.2 and V4",
    example: "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    template: &[&["｜DSML｜"]],
    inner: &["｜DSML｜"],
    writing: Writing::blocks(
        ["<｜DSML｜function_calls>\n", "\n", "\n</｜DSML｜function_calls>"],
        "<｜DSML｜function_calls>",
        |function| {
            let kind = |text| if text { " string=\"true\"" } else { " string=\"false\"" };
            write(function, &DSML, kind, "</｜DSML｜function_calls>")
        },
    ),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between(
                "<｜DSML｜function_calls>",
                "</｜DSML｜function_calls>",
                Quotes::None,
                dsml,
                begin_dsml,
            )
            .with_arguments(&DSML_ARGUMENTS)
            .special(),
            Block::between("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", Quotes::None, dsml, begin_dsml)
                .with_arguments(&DSML_ARGUMENTS)
                .special(),
        ],
        dropped: &[],
    },
};
