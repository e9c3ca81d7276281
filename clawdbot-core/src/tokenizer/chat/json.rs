//! The `tojson` filter: Python's `json.dumps` with the arguments that transformers passes on.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::args::Args;
use super::sorting::Direction;
use super::values::{self, MAX_DEPTH, type_error};
use super::{budget, iteration, sorting};

/// The layout of the output.
struct Style {
    ensure_ascii: bool,
    /// One level of indentation; `None`: everything on one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(_: &mut State<'_, '_>, args: &Args) -> Result<Value, Error> {
    let ensure_ascii = args.flag(1, false);
    let indent = indent_unit(args.get(2).cloned())?;
    let separators = args.some(3);
    let sort_keys = args.flag(4, false);

    let (item_separator, key_separator) = match separators {
        Some(pair) => {
            let parts = iteration::collect(pair)?;
            match parts.as_slice() {
                [item, key] => match (item.as_str(), key.as_str()) {
                    (Some(item), Some(key)) => (item.to_owned(), key.to_owned()),
                    _ => return Err(type_error("tojson: separators must be two strings")),
                },
                _ => {
                    return Err(type_error(format!(
                        "tojson: separators must be a pair, found {} items",
                        parts.len()
                    )));
                }
            }
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Style { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    write(&mut out, args.value(), &style, 0)?;
    Ok(Value::from(out))
}

fn indent_unit(indent: Option<Value>) -> Result<Option<String>, Error> {
    const MAX_INDENT: i64 = 1000;
    let Some(indent) = indent.filter(|value| !value.is_none()) else { return Ok(None) };
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let width = match indent.kind() {
        ValueKind::Bool => i64::from(indent.is_true()),
        _ => indent
            .as_i64()
            .ok_or_else(|| type_error("tojson: indent must be an integer, a string or none"))?,
    };
    if width > MAX_INDENT {
        return Err(type_error(format!("tojson: indent must be at most {MAX_INDENT}, found {width}")));
    }
    Ok(Some(" ".repeat(usize::try_from(width).unwrap_or(0))))
}

fn write(out: &mut String, value: &Value, style: &Style, level: usize) -> Result<(), Error> {
    if level > MAX_DEPTH {
        return Err(type_error(format!("tojson: nested deeper than {MAX_DEPTH} levels")));
    }
    budget::spend(64)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            budget::text(text.len().checked_mul(2))?;
            string(out, text, style.ensure_ascii);
        }
        _ if values::is_dict(value) => {
            let mut entries = Vec::new();
            for (key, item) in values::pairs(value) {
                budget::make(2)?;
                entries.push((key, item));
            }
            if style.sort_keys {
                // Sorted by key; Python compares keys before it writes any.
                sorting::sort(&mut entries, Direction::Ascending, |(key, _)| key)?;
            }
            block(out, style, level, '{', '}', entries, |out, (key, item)| {
                let key = key_text(&key)?;
                budget::text(key.len().checked_mul(2))?;
                string(out, &key, style.ensure_ascii);
                out.push_str(&style.key_separator);
                write(out, &item, style, level + 1)
            })?;
        }
        _ if values::is_list(value) || value.is_tuple() || values::is_group(value) => {
            let items = iteration::collect(value)?;
            block(out, style, level, '[', ']', items, |out, item| write(out, &item, style, level + 1))?;
        }
        _ => {
            return Err(type_error(format!(
                "Object of type {} is not JSON serializable",
                values::type_name(value)
            )));
        }
    }
    Ok(())
}

fn block<T>(
    out: &mut String,
    style: &Style,
    level: usize,
    open: char,
    close: char,
    items: Vec<T>,
    mut write_item: impl FnMut(&mut String, T) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    let empty = items.is_empty();
    let new_line = |out: &mut String, level: usize| {
        if let Some(unit) = &style.indent {
            budget::text(unit.len().checked_mul(level))?;
            out.push('\n');
            (0..level).for_each(|_| out.push_str(unit));
        }
        Ok::<_, Error>(())
    };
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            budget::text(Some(style.item_separator.len()))?;
            out.push_str(&style.item_separator);
        }
        new_line(out, level + 1)?;
        write_item(out, item)?;
    }
    if !empty {
        new_line(out, level)?;
    }
    out.push(close);
    Ok(())
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()).unwrap_or(f64::NAN) {
        nan if nan.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        finite => values::float_repr(finite),
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        _ => Err(type_error(format!(
            "keys must be str, int, float, bool or None, not {}",
            values::type_name(key)
        ))),
    }
}

fn string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
