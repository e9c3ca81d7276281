//! Gemma 4 and FunctionGemma: `call:name{key:value}`, with a mark around texts.

use serde_json::{Map, Value};

use super::marked;
use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::normal::Members;
use crate::output::preview::Begin;
use crate::output::steps::{Step, Steps};
use crate::output::tools::Tools;
use crate::output::value::start_of;
use crate::output::writing::{Function, Part, Parts, Writing};

/// How deep values may be in each other.
const MAX_DEPTH: usize = 64;
const QUOTE: &str = "<|\"|>";
const ESCAPE: &str = "<escape>";

/// What is not read yet, and the mark around texts.
struct Reader<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl<'a> Reader<'a> {
    fn takes(&mut self, mark: &str) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, mark: &str) -> Result<(), String> {
        match self.takes(mark) {
            true => Ok(()),
            false => Err(format!("expected {mark}, found {}", start_of(self.rest))),
        }
    }

    /// The text up to one of `ends`.
    fn bare(&mut self, ends: &[char]) -> &'a str {
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        text.trim()
    }

    /// A text between marks, whose first one is read.
    fn quoted(&mut self) -> Result<&'a str, String> {
        let quote = self.quote;
        let found = self.rest.split_once(quote);
        let (text, rest) = found.ok_or_else(|| format!("expected {quote} after {}", start_of(self.rest)))?;
        self.rest = rest;
        Ok(text)
    }

    fn map(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        let mut map = Map::new();
        self.members(|key, value| _ = map.insert(key.to_owned(), value), depth)?;
        Ok(map)
    }

    fn members(&mut self, mut add: impl FnMut(&str, Value), depth: usize) -> Result<(), String> {
        self.expect("{")?;
        while !self.takes("}") {
            let (key, value) = self.member(depth)?;
            add(key, value);
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(())
    }

    fn member(&mut self, depth: usize) -> Result<(&'a str, Value), String> {
        let key = if self.takes(self.quote) { self.quoted()? } else { self.bare(&[':', '{', '}', ',']) };
        self.expect(":")?;
        Ok((key.trim_matches('"'), self.value(depth + 1)?))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("expected values at most {MAX_DEPTH} deep, found deeper ones"));
        }
        if self.takes(self.quote) {
            return self.quoted().map(Value::from);
        }
        if self.rest.starts_with('{') {
            return self.map(depth).map(Value::Object);
        }
        if self.takes("[") {
            let mut list = Vec::new();
            while !self.takes("]") {
                list.push(self.value(depth + 1)?);
                if !self.takes(",") {
                    self.expect("]")?;
                    break;
                }
            }
            return Ok(Value::Array(list));
        }
        let text = self.bare(&[',', '}', ']']);
        if text.is_empty() {
            return Err(format!("expected a value, found {}", start_of(self.rest)));
        }
        Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
    }
}

fn call(text: &str, quote: &'static str) -> Calls {
    let mut reader = Reader { rest: text, quote };
    reader.expect("call:")?;
    let name = reader.bare(&['{']);
    let mut arguments = Members::default();
    reader.members(|key, value| arguments.insert(key, &value), 0)?;
    match reader.rest.trim() {
        "" => Ok(vec![RawCall::new(name, arguments.object())?]),
        rest => Err(format!("expected the end of the call, found {}", start_of(rest))),
    }
}

fn step(text: &str, call: Option<&str>, quote: &'static str) -> Option<(Step, usize)> {
    let mut reader = Reader { rest: text, quote };
    let step = if call.is_none() {
        reader.expect("call:").ok()?;
        let name = reader.bare(&['{']);
        reader.expect("{").ok()?;
        Step::Call(name.to_owned())
    } else if reader.takes("}") {
        Step::End
    } else {
        let (key, value) = reader.member(0).ok()?;
        // What comes after it says where it ends.
        if !reader.takes(",") && !reader.rest.starts_with('}') {
            return None;
        }
        Step::Argument(key.to_owned(), value)
    };
    Some((step, text.len() - reader.rest.len()))
}

const GEMMA4_STEPS: Steps = Steps {
    opens: "{",
    ends: &[",", "}"],
    quotes: Quotes::Mark(QUOTE),
    step: |text, call, _| step(text, call, QUOTE),
};
const FUNCTION_GEMMA_STEPS: Steps =
    Steps { quotes: Quotes::Mark(ESCAPE), step: |text, call, _| step(text, call, ESCAPE), ..GEMMA4_STEPS };

fn begin_gemma4(_: &str) -> Begin {
    Begin::Steps { how: &GEMMA4_STEPS, at: 0, call: None }
}

fn begin_function_gemma(_: &str) -> Begin {
    Begin::Steps { how: &FUNCTION_GEMMA_STEPS, at: 0, call: None }
}

fn write(function: &Function, quote: &'static str) -> Parts {
    let open = Part::text(format!("call:{}", function.name));
    Ok([vec![open], marked::object(function, quote)?].concat())
}

fn gemma4(text: &str, _: &Tools) -> Calls {
    call(text, QUOTE)
}

fn function_gemma(text: &str, _: &Tools) -> Calls {
    call(text, ESCAPE)
}

pub(in crate::output) const GEMMA4: ToolFormat = ToolFormat {
    name: "gemma4",
    models: "Gemma 4",
    example: "<|tool_call>call:f{a:1,b:<|\"|>x<|\"|>}<tool_call|>",
    template: &[&["<|tool_call>"]],
    inner: &[QUOTE],
    writing: Writing::blocks(
        ["<|tool_call>", "<tool_call|><|tool_call>", "<tool_call|>"],
        "<|tool_call>",
        |function| write(function, QUOTE),
    ),
    grammar: Grammar::Blocks {
        blocks: &[Block::between("<|tool_call>", "<tool_call|>", Quotes::Mark(QUOTE), gemma4, begin_gemma4)
            .special()],
        dropped: &[],
    },
};

pub(in crate::output) const FUNCTION_GEMMA: ToolFormat = ToolFormat {
    name: "function_gemma",
    models: "FunctionGemma",
    example: "<start_function_call>call:f{a:1,b:<escape>x<escape>}<end_function_call>",
    template: &[&["<start_function_call>"]],
    inner: &[ESCAPE],
    writing: Writing::blocks(
        ["<start_function_call>", "<end_function_call><start_function_call>", "<end_function_call>"],
        "<start_function_call>",
        |function| write(function, ESCAPE),
    ),
    grammar: Grammar::Blocks {
        blocks: &[Block::between(
            "<start_function_call>",
            "<end_function_call>",
            Quotes::Mark(ESCAPE),
            function_gemma,
            begin_function_gemma,
        )
        .special()],
        dropped: &[],
    },
};
