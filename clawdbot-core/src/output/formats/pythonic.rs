//! Calls written as Python: `[f(a=1), g(b="x")]`.

use serde_json::{Map, Value};

use super::bare;
use crate::output::call::{Calls, RawCall};
use crate::output::format::{Block, Grammar, Quotes, ToolFormat};
use crate::output::normal::Members;
use crate::output::preview::Begin;
use crate::output::steps::{Step, Steps};
use crate::output::tools::Tools;
use crate::output::value::{begin_calls, calls as json_calls, start_of, without_fence};
use crate::output::writing::{Function, Part, Parts, Writing};

/// How deep values may be in each other.
const MAX_DEPTH: usize = 64;

/// Calls with commas or lines between them, in brackets or not.
pub(super) fn calls(text: &str) -> Calls {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let mut reader = Reader { rest: text };
    let mut found = Vec::new();
    loop {
        reader.pass_between();
        if reader.rest.is_empty() {
            return Ok(found);
        }
        found.push(reader.call()?);
    }
}

/// What is not read yet.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Whether `mark` comes next, after spaces; reads it then.
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

    /// Passes what is between calls.
    fn pass_between(&mut self) {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == ';');
    }

    /// A name, with dots where `dots`.
    fn name(&mut self, dots: bool) -> Result<&'a str, String> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || (dots && (c == '.' || c == '-'))));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("expected a name, found {}", start_of(text)));
        }
        self.rest = rest;
        Ok(name)
    }

    fn call(&mut self) -> Result<RawCall, String> {
        let name = self.name(true)?;
        self.expect("(")?;
        let mut arguments = Members::default();
        while !self.takes(")") {
            let (key, value) = self.argument()?;
            arguments.insert(key, &value);
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        RawCall::new(name, arguments.object())
    }

    fn argument(&mut self) -> Result<(&'a str, Value), String> {
        let key = self.name(false)?;
        self.expect("=")?;
        Ok((key, self.value(0)?))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("expected values at most {MAX_DEPTH} deep, found deeper ones"));
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some('"' | '\'') => self.text().map(Value::from),
            Some('[') => self.list("[", "]", depth),
            Some('(') => self.list("(", ")", depth),
            Some('{') => self.map(depth),
            _ => self.word(),
        }
    }

    fn list(&mut self, open: &str, close: &str, depth: usize) -> Result<Value, String> {
        self.expect(open)?;
        let mut list = Vec::new();
        while !self.takes(close) {
            list.push(self.value(depth + 1)?);
            if !self.takes(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        self.expect("{")?;
        let mut map = Map::new();
        while !self.takes("}") {
            self.rest = self.rest.trim_start();
            let key = self.text()?;
            self.expect(":")?;
            map.insert(key, self.value(depth + 1)?);
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Value::Object(map))
    }

    /// A number or one of the words for true, false and nothing.
    fn word(&mut self) -> Result<Value, String> {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_.+-".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let value = match word {
            "True" | "true" => Value::Bool(true),
            "False" | "false" => Value::Bool(false),
            "None" | "null" => Value::Null,
            number => serde_json::from_str::<serde_json::Number>(number)
                .map(Value::Number)
                .map_err(|_| format!("expected a value, found {}", start_of(self.rest)))?,
        };
        self.rest = rest;
        Ok(value)
    }

    /// A text in quotes: one, or three.
    fn text(&mut self) -> Result<String, String> {
        let start = self.rest;
        let quotes = ["\"\"\"", "'''", "\"", "'"];
        let expected = || format!("expected a text in quotes, found {}", start_of(start));
        let quote = quotes.into_iter().find(|quote| start.starts_with(quote)).ok_or_else(expected)?;
        let mut rest = &start[quote.len()..];
        let mut text = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                self.rest = after;
                return Ok(text);
            }
            let mut chars = rest.chars();
            match chars.next() {
                None => return Err(format!("expected {quote} at the end of {}", start_of(start))),
                Some('\\') => rest = escape(chars.as_str(), &mut text),
                Some(c) => {
                    text.push(c);
                    rest = chars.as_str();
                }
            }
        }
    }
}

/// Adds what the text after a backslash stands for; returns what comes after it. As in Python, what is no escape stays.
fn escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let mut chars = text.chars();
    let digits = match chars.next() {
        None => {
            out.push('\\');
            return text;
        }
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        Some(c) => {
            match c {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                '\n' => {}
                '\\' | '\'' | '"' => out.push(c),
                other => out.extend(['\\', other]),
            }
            return chars.as_str();
        }
    };
    let rest = chars.as_str();
    let hex = rest.get(..digits).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let c = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
    match c {
        Some(c) => {
            out.push(c);
            &rest[digits..]
        }
        None => {
            out.push('\\');
            text
        }
    }
}

fn read(text: &str, _: &Tools) -> Calls {
    // JSON comes too.
    match text.trim_start().trim_start_matches('[').trim_start().starts_with('{') {
        true => json_calls(text),
        false => calls(text),
    }
}

fn step(text: &str, call: Option<&str>, _: &Tools) -> Option<(Step, usize)> {
    let mut reader = Reader { rest: text };
    let step = if call.is_none() {
        reader.pass_between();
        let name = reader.name(true).ok()?;
        reader.expect("(").ok()?;
        Step::Call(name.to_owned())
    } else if reader.takes(")") {
        Step::End
    } else {
        let (key, value) = reader.argument().ok()?;
        // What comes after it says where it ends.
        if !reader.takes(",") && !reader.rest.starts_with(')') {
            return None;
        }
        Step::Argument(key.to_owned(), value)
    };
    Some((step, text.len() - reader.rest.len()))
}

pub(super) const STEPS: Steps = Steps { opens: "(", ends: &[",", ")"], quotes: Quotes::Python, step };

fn begin(text: &str) -> Begin {
    let listed = text.trim_start();
    let inner = listed.strip_prefix('[').unwrap_or(listed);
    match listed.trim_start_matches('[').trim_start().chars().next() {
        None => Begin::Open,
        Some('{') => begin_calls(text),
        Some(_) => Begin::Steps { how: &STEPS, at: text.len() - inner.len(), call: None },
    }
}

/// After the bracket of a list.
fn begin_listed(text: &str) -> Begin {
    match text.trim_start_matches('[').trim_start().chars().next() {
        None => Begin::Open,
        Some('{') => begin_calls(text),
        Some(_) => Begin::Steps { how: &STEPS, at: 0, call: None },
    }
}

fn begin_code(text: &str) -> Begin {
    const PRINT: &str = "print(";
    let code = text.trim_start();
    if PRINT.starts_with(code) {
        return Begin::Open;
    }
    let inner = code.strip_prefix(PRINT).unwrap_or(code);
    match begin(inner) {
        _ if code.starts_with('`') => Begin::Never,
        Begin::Steps { how, at, call } => Begin::Steps { how, at: at + text.len() - inner.len(), call },
        // JSON that is not printed.
        Begin::Objects(_) if inner.len() < code.len() => Begin::Never,
        other => other,
    }
}

/// A block of code, whose calls may be printed.
fn code(text: &str, tools: &Tools) -> Calls {
    let text = without_fence(text);
    let printed = text.strip_prefix("print(").and_then(|text| text.strip_suffix(')'));
    read(printed.unwrap_or(text), tools)
}

const fn between(open: &'static str, close: &'static str) -> Block {
    Block::between(open, close, Quotes::Python, read, begin)
}

/// With values as JSON, which are read too.
fn write(function: &Function) -> Parts {
    let identifier = |key: &str| {
        let mut reader = Reader { rest: key };
        reader.name(false).is_ok() && reader.rest.is_empty()
    };
    let mut name = Reader { rest: &function.name };
    if name.name(true).is_err() || !name.rest.is_empty() {
        return Err("expected a name as in Python".to_owned());
    }
    let arguments = bare::arguments(function)?;
    let written = bare::listed(arguments, ", ", |argument| match identifier(argument.key) {
        true => Ok(vec![Part::text(format!("{}=", argument.key)), argument.json()]),
        false => Err(format!("argument {:?}: expected a name as in Python", argument.key)),
    })?;
    Ok([vec![Part::text(format!("{}(", function.name))], written, vec![Part::text(")")]].concat())
}

pub(in crate::output) const PYTHONIC: ToolFormat = ToolFormat {
    name: "pythonic",
    models: "Llama 4, Llama 3.2 with lists of calls, ToolACE",
    example: "[f(a=1), g(b=\"x\")]",
    template: &[&["<|python_start|>"]],
    inner: &[],
    writing: Writing::blocks(["[", ", ", "]"], "[", write),
    grammar: Grammar::Blocks {
        blocks: &[
            between("<|python_start|>", "<|python_end|>").special(),
            Block::whole("[", read, begin_listed),
        ],
        dropped: &[],
    },
};

pub(in crate::output) const LFM2: ToolFormat = ToolFormat {
    name: "lfm2",
    models: "LFM2",
    example: "<|tool_call_start|>[f(a=1)]<|tool_call_end|>",
    template: &[&["<|tool_call_start|>"], &["<|tool_list_start|>"]],
    inner: &[],
    writing: Writing::blocks(
        ["<|tool_call_start|>[", ", ", "]<|tool_call_end|>"],
        "<|tool_call_start|>",
        write,
    ),
    grammar: Grammar::Blocks {
        blocks: &[between("<|tool_call_start|>", "<|tool_call_end|>").special()],
        dropped: &[],
    },
};

pub(in crate::output) const OLMO3: ToolFormat = ToolFormat {
    name: "olmo3",
    models: "Olmo 3",
    example: "<function_calls>\nf(a=1)\n</function_calls>",
    template: &[&["<function_calls>"]],
    inner: &[],
    writing: Writing::blocks(["<function_calls>\n", "\n", "\n</function_calls>"], "<function_calls>", write),
    grammar: Grammar::Blocks { blocks: &[between("<function_calls>", "</function_calls>")], dropped: &[] },
};

pub(in crate::output) const GEMMA3: ToolFormat = ToolFormat {
    name: "gemma3",
    models: "Gemma 2 and 3, whose templates know no tools: describe them in a message",
    example: "```tool_code\nf(a=1)\n```",
    template: &[&["tool_code"]],
    inner: &[],
    writing: Writing::blocks(["```tool_code\n[", ", ", "]\n```"], "```tool_code", write),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::between("```tool_code", "```", Quotes::Python, code, begin_code),
            Block::between("```tool_call", "```", Quotes::Python, code, begin_code),
            Block::whole("[", read, begin_listed),
        ],
        dropped: &[],
    },
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_python() {
        let found = calls(
            r#"[f(a=-1.5e3, b='x\'"\n\u00fc\q', c=[1, (2,), {'k': None, "l": True}], d="""a"b"""), m.g()]"#,
        );
        let found = found.unwrap();
        let expected =
            json!({"a": -1.5e3, "b": "x'\"\n\u{fc}\\q", "c": [1, [2], {"k": null, "l": true}], "d": "a\"b"});
        let arguments: Value = serde_json::from_str(&found[0].arguments).unwrap();
        assert_eq!((found[0].name.as_str(), arguments), ("f", expected));
        assert_eq!((found[1].name.as_str(), found[1].arguments.as_str()), ("m.g", "{}"));
    }

    #[test]
    fn what_is_no_call_is_an_error() {
        for text in [
            "f",
            "f(",
            "f(1)",
            "f(a=)",
            "f(a=x)",
            "f(a='b)",
            "1()",
            "f(a=1) = 2",
            "f(a={b: 1})",
            "f(a=1 b=2)",
        ] {
            assert!(calls(text).is_err(), "{text}");
        }
        let deep = format!("f(a={}1{})", "[".repeat(100), "]".repeat(100));
        assert!(calls(&deep).unwrap_err().contains("64 deep"));
    }
}
