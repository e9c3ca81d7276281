//! `str.format`.

use minijinja::formatting::{FormatStyle, format as engine_format};
use minijinja::value::Kwargs;
use minijinja::{Error, Value};

use super::values::{self, type_error};
use super::{budget, operators};

/// Most digits of a number in a format.
const MAX_DIGITS: usize = 4;

/// `text.format(*args)`.
pub(super) fn format(text: &str, args: &[Value]) -> Result<String, Error> {
    let (args, kwargs) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
        _ => (args, None),
    };
    let mut out = String::new();
    let mut next = Some(0);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        budget::text(Some(at))?;
        out.push_str(&rest[..at]);
        let mark = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(mark) {
            out.push_str(mark);
            rest = after;
            continue;
        }
        if mark == "}" {
            return Err(type_error("single '}' encountered in format string"));
        }
        let end = rest.find(['}', '{']).filter(|end| rest[*end..].starts_with('}'));
        let end =
            end.ok_or_else(|| type_error("fields within fields, or without an end, are not supported"))?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let missing = || type_error(format!("format: there is no argument {name:?}"));
        let value = if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) {
            let place = match (name.is_empty(), next) {
                (true, Some(place)) => {
                    next = Some(place + 1);
                    place
                }
                (false, None | Some(0)) => {
                    next = None;
                    name.parse().map_err(|_| missing())?
                }
                _ => return Err(type_error("cannot switch between automatic and manual field numbering")),
            };
            args.get(place).cloned().ok_or_else(missing)?
        } else {
            if name.contains(['.', '[']) {
                return Err(type_error(format!("format: parts of arguments ({name:?}) are not supported")));
            }
            let kwargs = kwargs.as_ref().filter(|kwargs| kwargs.has(name)).ok_or_else(missing)?;
            kwargs.peek::<Value>(name)?
        };
        let value = match conversion {
            None => value,
            Some("s") => Value::from(values::to_str(&value)?),
            Some("r") => Value::from(values::to_repr(&value)?),
            Some(other) => return Err(type_error(format!("format: unknown conversion {other:?}"))),
        };
        let written = field_text(&value, spec)?;
        budget::text(Some(written.len()))?;
        out.push_str(&written);
    }
    budget::text(Some(rest.len()))?;
    out.push_str(rest);
    Ok(out)
}

fn field_text(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return values::to_str(value);
    }
    if value.is_safe() || value.as_str().is_none() && operators::number(value).is_none() {
        return Err(type_error(format!(
            "unsupported format string passed to {}.__format__",
            values::type_name(value)
        )));
    }
    // Widths and precisions are bounded before the engine pads to them.
    if spec.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_DIGITS) {
        return Err(type_error(format!("format: a number in the format has more than {MAX_DIGITS} digits")));
    }
    budget::text(value.as_str().map(str::len).or(Some(10_000)))?;
    engine_format(FormatStyle::StrFormat, &format!("{{:{spec}}}"), std::slice::from_ref(value))
}
