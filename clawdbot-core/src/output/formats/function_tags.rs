//! `<function=name>`: with `<parameter=key>` for each argument (Qwen3-Coder), or with all of them as JSON (Functionary).

use serde_json::Value;

use super::bare;
use super::tags::{between, json_length, marks_from, next_tag, of_lines};
use crate::output::call::{Calls, RawCall};
use crate::output::format::{Arguments, Block, Grammar, Quotes, ToolFormat};
use crate::output::normal::Members;
use crate::output::preview::Begin;
use crate::output::steps::{Step, Steps};
use crate::output::tools::Tools;
use crate::output::value::{begin_object, object, start_of};
use crate::output::writing::{Function, Part, Parts, Writing};

const FUNCTION: &str = "<function=";
const END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const CLOSE: &str = "</parameter>";

/// Functions one after the other.
fn functions(text: &str, tools: &Tools) -> Calls {
    let mut calls = Vec::new();
    let mut rest = text;
    while let Some(after) = next_tag(rest, FUNCTION) {
        let (call, after) = function(after, tools)?;
        calls.push(call);
        rest = next_tag(after, END).unwrap_or(after);
    }
    match rest.trim() {
        "" => Ok(calls),
        rest => Err(format!("expected {FUNCTION}, found {}", start_of(rest))),
    }
}

/// The rest of a function, without the tag that ends it.
fn rest(text: &str, tools: &Tools) -> Calls {
    match function(text, tools)? {
        (call, after) if after.trim().is_empty() => Ok(vec![call]),
        (_, after) => Err(format!("expected {END}, found {}", start_of(after))),
    }
}

/// A function after its `<function=`, and what comes after its arguments.
fn function<'a>(text: &'a str, tools: &Tools) -> Result<(RawCall, &'a str), String> {
    let (name, mut rest) = head(text)?;
    if rest.trim_start().starts_with('{') {
        let json = json_length(rest);
        let end = rest[json..].find(END).map_or(rest.len(), |end| json + end);
        return Ok((RawCall::new(name, object(&rest[..end])?)?, &rest[end..]));
    }
    let mut arguments = Members::default();
    while let Some(after) = next_tag(rest, PARAMETER) {
        let (key, value, after) = pair(after, name, tools, false)?;
        arguments.insert(key, &value);
        rest = after;
    }
    Ok((RawCall::new(name, arguments.object())?, rest))
}

/// The name of a function after its `<function=`, and what comes after its tag.
fn head(text: &str) -> Result<(&str, &str), String> {
    let (name, rest) = between(text, ">")?;
    Ok((name.trim().trim_matches('"'), rest))
}

/// An argument after its `<parameter=`, and what comes after it. `grows`: whether more text may come.
fn pair<'a>(
    text: &'a str,
    name: &str,
    tools: &Tools,
    grows: bool,
) -> Result<(&'a str, Value, &'a str), String> {
    let (key, after) = between(text, ">")?;
    let key = key.trim().trim_matches('"');
    let from = marks_from(after, tools.is_json(name, key), grows)?;
    let (text, after) = parameter(after, from)?;
    Ok((key, tools.value(name, key, of_lines(text)), after))
}

/// The text of an argument, with marks from byte `from` on, and what comes after it. Some answers leave out `</parameter>`.
fn parameter(text: &str, from: usize) -> Result<(&str, &str), String> {
    for (place, _) in text[from..].match_indices('<').map(|(place, mark)| (from + place, mark)) {
        let (before, rest) = text.split_at(place);
        if let Some(after) = rest.strip_prefix(CLOSE) {
            return Ok((before, after));
        }
        // The line end after its own tag begins no other argument.
        let line = before != "\n" && before.ends_with('\n');
        if rest.starts_with(END) || (line && rest.starts_with(PARAMETER)) {
            return Ok((before, rest));
        }
    }
    Err(format!("expected {CLOSE} after {}", start_of(text)))
}

fn step(text: &str, call: Option<&str>, tools: &Tools) -> Option<(Step, usize)> {
    let (step, rest) = match call {
        None => {
            let (name, rest) = head(next_tag(text, FUNCTION)?).ok()?;
            (Step::Call(name.to_owned()), rest)
        }
        Some(name) => match next_tag(text, PARAMETER) {
            Some(after) => {
                let (key, value, rest) = pair(after, name, tools, true).ok()?;
                (Step::Argument(key.to_owned(), value), rest)
            }
            None => (Step::End, next_tag(text, END)?),
        },
    };
    Some((step, text.len() - rest.len()))
}

const STEPS: Steps = Steps { opens: ">", ends: &[CLOSE, END, "\n<parameter="], quotes: Quotes::None, step };

fn begin(_: &str) -> Begin {
    Begin::Steps { how: &STEPS, at: 0, call: None }
}

/// Where the function's tag is read already.
fn begin_rest(text: &str) -> Begin {
    let Ok((name, rest)) = head(text) else { return Begin::Open };
    match begin_object(text, (name, None), rest, false) {
        Begin::Never => {
            Begin::Steps { how: &STEPS, at: text.len() - rest.len(), call: Some(name.to_owned()) }
        }
        other => other,
    }
}

const ARGUMENTS: Arguments = Arguments {
    function: FUNCTION,
    key: PARAMETER,
    open: ">",
    close: CLOSE,
    is_json: |name, key, tools| {
        let name = name.split('>').next().unwrap_or(name).trim().trim_matches('"');
        tools.is_json(name, key.trim().trim_matches('"'))
    },
};

/// Where the function's tag is read already.
const AFTER_NAME: Arguments = Arguments { function: "", ..ARGUMENTS };

/// Each argument on lines of its own; none of `never` is in one.
fn write(function: &Function, never: [&'static str; 4]) -> Parts {
    let arguments = bare::arguments(function)?;
    let written = bare::in_order(&arguments, |argument| {
        let open = Part::text(format!("{PARAMETER}{}>\n", argument.key));
        let value = argument.value(&never, "\n</parameter>\n")?;
        Ok([vec![open], value].concat())
    })?;
    let open = Part::text(format!("{FUNCTION}{}>\n", function.name));
    Ok([vec![open], written, vec![Part::text(END)]].concat())
}

pub(in crate::output) const QWEN3_CODER: ToolFormat = ToolFormat {
    name: "qwen3_coder",
    models: "Qwen3-Coder, Qwen 3.5, Nemotron 3, Step 3.5",
    example: "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    template: &[&["<tool_call>", "<function="]],
    inner: &[],
    writing: Writing::blocks(
        ["<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"],
        "<tool_call>",
        |function| write(function, [CLOSE, END, "\n<parameter=", "</tool_call>"]),
    ),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("<tool_call>", "</tool_call>", Quotes::None, functions, begin)
                .with_arguments(&ARGUMENTS),
            // Some answers leave out the outer tag.
            Block::between(FUNCTION, END, Quotes::None, rest, begin_rest).with_arguments(&AFTER_NAME),
        ],
        dropped: &["</tool_call>"],
    },
};

pub(in crate::output) const SEED_OSS: ToolFormat = ToolFormat {
    name: "seed_oss",
    models: "Seed-OSS",
    example: "<seed:tool_call>\n<function=f>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
    template: &[&["<seed:tool_call>"]],
    inner: &[],
    writing: Writing::blocks(
        ["<seed:tool_call>\n", "\n</seed:tool_call>\n<seed:tool_call>\n", "\n</seed:tool_call>"],
        "<seed:tool_call>",
        |function| write(function, [CLOSE, END, "\n<parameter=", "</seed:tool_call>"]),
    ),
    grammar: Grammar::Blocks {
        blocks: &[Block::between("<seed:tool_call>", "</seed:tool_call>", Quotes::None, functions, begin)
            .with_arguments(&ARGUMENTS)
            .special()],
        dropped: &[],
    },
};

pub(in crate::output) const FUNCTIONARY: ToolFormat = ToolFormat {
    name: "functionary",
    models: "Functionary 3.1, Llama 3.1 with functions of its own",
    example: "<function=f>{\"a\": 1}</function>",
    template: &[&["<function=", "</function>"]],
    inner: &[],
    writing: Writing::blocks([FUNCTION, FUNCTION, ""], FUNCTION, |function| {
        let json = Part::Json(function.parameters.clone());
        Ok(vec![Part::text(format!("{}>", function.name)), json, Part::text(END)])
    }),
    grammar: Grammar::Blocks {
        blocks: &[Block::between(FUNCTION, END, Quotes::Json, rest, begin_rest)],
        dropped: &[],
    },
};
