//! `str.format`.

use minijinja::formatting::{FormatStyle, format as engine_format};
use minijinja::value::Kwargs;
use minijinja::{Error, Value};

use super::values::{self, type_error};
use super::{budget, numeric};

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
        let end = end.ok_or_else(|| type_error("nested or unclosed fields are not supported"))?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let missing = || type_error(format!("format: missing argument {name:?}"));
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
                return Err(type_error(format!(
                    "format: attributes and items of arguments ({name:?}) are not supported"
                )));
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
    if value.is_safe() || value.as_str().is_none() && numeric::number(value).is_none() {
        return Err(type_error(format!(
            "unsupported format string passed to {}.__format__",
            values::type_name(value)
        )));
    }
    // Widths and precisions are checked before text is padded to them.
    if spec.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_DIGITS) {
        return Err(type_error(format!(
            "format: expected numbers of at most {MAX_DIGITS} digits in the format"
        )));
    }
    if let Some(text) = value.as_str() {
        return padded(text, spec);
    }
    budget::text(Some(10_000))?;
    engine_format(FormatStyle::StrFormat, &format!("{{:{spec}}}"), std::slice::from_ref(value))
}

/// Pads a text by a format `[[fill]align][0][width][.precision][s]`. The engine counts bytes where Python counts
/// characters.
fn padded(text: &str, spec: &str) -> Result<String, Error> {
    let mut chars = spec.chars();
    let (mut fill, mut align) = (' ', '<');
    let is_align = |c: Option<char>| c.filter(|c| "<>^=".contains(*c));
    let mut rest = spec;
    let (first, second) = (chars.next(), chars.next());
    if let (Some(c), Some(side)) = (first, is_align(second)) {
        (fill, align) = (c, side);
        rest = &spec[c.len_utf8() + 1..];
    } else if let Some(side) = is_align(first) {
        align = side;
        rest = &spec[1..];
    } else if spec.starts_with('0') {
        fill = '0';
    }
    let number = |rest: &mut &str| -> usize {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        *rest = after;
        digits.parse().unwrap_or(0)
    };
    let width = number(&mut rest);
    let mut kept = text.to_owned();
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        let precision = number(&mut rest);
        kept = text.chars().take(precision).collect();
    }
    if align == '=' || !matches!(rest, "" | "s") {
        return Err(type_error(format!("invalid format {spec:?} for a string")));
    }
    let missing = width.saturating_sub(kept.chars().count());
    budget::text(Some(kept.len() + missing * fill.len_utf8()))?;
    let left = match align {
        '<' => 0,
        '>' => missing,
        _ => missing / 2,
    };
    let side = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(format!("{}{kept}{}", side(left), side(missing - left)))
}
