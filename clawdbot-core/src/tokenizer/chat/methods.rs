//! Methods of Python's `str`, `dict` and `list` that a sandboxed template may call.

use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::args::{Args, Signature};
use super::objects::DictView;
use super::values::{self, type_error};
use super::{budget, comparisons, iteration, method_names};

/// Widest padding that a method or a format may add.
pub(super) const MAX_WIDTH: usize = 100_000;

/// Called by the engine for a method of a value that is not one of our objects.
///
/// # Errors
/// `UnknownMethod` for a method that Python does not have, or that the sandbox forbids because it changes the receiver.
pub(super) fn call(
    _state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) if value.is_safe() => {
            Err(type_error(format!("the method {method} of an escaped string is not supported")))
        }
        Some(text) => {
            budget::text(Some(text.len()))?;
            string_method(text, method, args)
        }
        None if values::is_dict(value) => dict_method(value, method, args),
        None if values::type_name(value) == "range" || values::is_list(value) || value.is_tuple() => {
            list_method(value, method, args)
        }
        None => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `width` spaces.
pub(super) fn spaces(width: i64) -> Result<String, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(type_error(format!("the width must be at most {MAX_WIDTH}, found {width}")));
    }
    Ok(" ".repeat(width))
}

/// `str.isspace` for one character: White_Space and four separators that Python counts as well.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The ends of a string to strip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    Left,
    Right,
    Both,
}

/// `str.strip(chars)`, `lstrip` and `rstrip`.
pub(super) fn strip<'t>(mut text: &'t str, chars: Option<&str>, sides: Sides) -> &'t str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    if sides != Sides::Right {
        text = text.trim_start_matches(drop);
    }
    if sides != Sides::Left {
        text = text.trim_end_matches(drop);
    }
    text
}

const SPLIT: Signature = Signature { name: "split", params: &["sep", "maxsplit"], needed: 0, open: false };
const SPLIT_LINES: Signature =
    Signature { name: "splitlines", params: &["keepends"], needed: 0, open: false };

/// The string in an argument that may be absent or none. The engine takes an undefined one for absent, Python does not.
fn text_or_none(value: Option<&Value>) -> Result<Option<&str>, Error> {
    match value {
        Some(value) if !value.is_none() => {
            let refuse = || values::unsupported("expected a string, found", value);
            value.as_str().map(Some).ok_or_else(refuse)
        }
        _ => Ok(None),
    }
}

/// `args`, if all of them have values. Python needs each; the engine takes undefined and none for absent.
fn given(args: &[Value]) -> Result<&[Value], Error> {
    match args.iter().find(|value| value.is_undefined() || value.is_none()) {
        Some(value) => Err(values::unsupported("expected a value, found", value)),
        None => Ok(args),
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let all = |test: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(!text.is_empty() && text.chars().all(test)))
    };
    Ok(match method {
        "upper" => {
            let () = from_args(args)?;
            Value::from(text.to_uppercase())
        }
        "lower" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "casefold" if text.is_ascii() => {
            let () = from_args(args)?;
            Value::from(text.to_ascii_lowercase())
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "capitalize" => {
            let () = from_args(args)?;
            Value::from(capitalize(text))
        }
        "isspace" => all(is_space)?,
        "isdigit" | "isdecimal" => all(|c| c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric()))?,
        "isnumeric" => all(char::is_numeric)?,
        "isalpha" => all(char::is_alphabetic)?,
        "isalnum" => all(char::is_alphanumeric)?,
        "isascii" => {
            let () = from_args(args)?;
            Value::from(text.is_ascii())
        }
        "islower" | "isupper" => {
            let () = from_args(args)?;
            let (lower, upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
            Value::from(if method == "islower" { lower && !upper } else { upper && !lower })
        }
        "strip" | "lstrip" | "rstrip" => {
            let (_chars,): (Option<&Value>,) = from_args(args)?;
            let chars = text_or_none(args.first())?;
            let sides = match method {
                "lstrip" => Sides::Left,
                "rstrip" => Sides::Right,
                _ => Sides::Both,
            };
            Value::from(strip(text, chars, sides))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "startswith" | "endswith" => {
            let (affix,): (&Value,) = from_args(args)?;
            let test = |affix: &str| {
                if method == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }
            };
            let refuse = |found: &Value| {
                type_error(format!("{method} expects str or tuple of str, not {}", values::type_name(found)))
            };
            match affix.as_str() {
                Some(affix) => Value::from(test(affix)),
                None if affix.is_tuple() => {
                    let mut found = false;
                    for affix in affix.try_iter()? {
                        found |= test(affix.as_str().ok_or_else(|| refuse(&affix))?);
                    }
                    Value::from(found)
                }
                None => return Err(refuse(affix)),
            }
        }
        "replace" => {
            let (old, new, count, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(given(args)?)?;
            let count = match count {
                Some(count) => Some(count),
                None => kwargs.get("count")?,
            };
            kwargs.assert_all_used()?;
            let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
            Value::from(replace(text, old, new, count)?)
        }
        "split" | "rsplit" => {
            let args = Args::bind_values(SPLIT, args.to_vec())?;
            let limit = usize::try_from(args.integer(1, -1)?).unwrap_or(usize::MAX);
            list(split(text, text_or_none(args.get(0))?, limit, method == "rsplit")?)?
        }
        "splitlines" => {
            let args = Args::bind_values(SPLIT_LINES, args.to_vec())?;
            list(split_lines(text, args.flag(0, false)))?
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(type_error("empty separator"));
            }
            let parts = match method {
                "partition" => text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b]),
                _ => text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b]),
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(text.matches(what).count())
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let found = if method.starts_with('r') { text.rfind(what) } else { text.find(what) };
            match found {
                Some(at) => Value::from(text[..at].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(type_error("substring not found")),
            }
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            join(text, items)?
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<&str>) = from_args(given(args)?)?;
            Value::from(pad(text, method, width, fill.unwrap_or(" "))?)
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            let padded = pad(digits, "rjust", width.saturating_sub(sign.len() as i64), "0")?;
            Value::from(format!("{sign}{padded}"))
        }
        "isprintable" => {
            let () = from_args(args)?;
            Value::from(text.chars().all(values::is_printable))
        }
        "format" => super::fields::format(text, args).map(Value::from)?,
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn list(parts: Vec<&str>) -> Result<Value, Error> {
    budget::make(parts.len())?;
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        // Title case of a character: its first letter in upper case, further letters of its decomposition in lower
        // case.
        let mut upper = match first {
            '\u{1c4}'..='\u{1c6}' => '\u{1c5}'.to_string(),
            '\u{1c7}'..='\u{1c9}' => '\u{1c8}'.to_string(),
            '\u{1ca}'..='\u{1cc}' => '\u{1cb}'.to_string(),
            '\u{1f1}'..='\u{1f3}' => '\u{1f2}'.to_string(),
            _ => first.to_uppercase().collect::<String>(),
        };
        let rest = upper.split_off(upper.chars().next().map_or(0, char::len_utf8));
        out = out + &upper + &rest.to_lowercase();
    }
    out + &chars.as_str().to_lowercase()
}

/// `str.title`: a letter that follows no letter becomes upper case, every other one lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// `str.replace`.
pub(super) fn replace(text: &str, old: &str, new: &str, count: usize) -> Result<String, Error> {
    // A boundary between letters costs as much as some letters.
    budget::scan(text.len().saturating_mul(if old.is_empty() { 32 } else { 4 }))?;
    let hits = text.matches(old).take(count).count();
    budget::text(hits.checked_mul(new.len()).and_then(|added| added.checked_add(text.len())))?;
    Ok(text.replacen(old, new, count))
}

/// `str.split` and `str.rsplit`, with at most `limit` splits.
fn split<'t>(
    text: &'t str,
    separator: Option<&str>,
    limit: usize,
    from_right: bool,
) -> Result<Vec<&'t str>, Error> {
    let pieces = limit.saturating_add(1);
    match (separator, from_right) {
        (Some(""), _) => Err(type_error("empty separator")),
        (Some(separator), false) => Ok(text.splitn(pieces, separator).collect()),
        (Some(separator), true) => {
            let mut parts: Vec<&str> = text.rsplitn(pieces, separator).collect();
            parts.reverse();
            Ok(parts)
        }
        (None, false) => {
            let mut parts = Vec::new();
            let mut rest = strip(text, None, Sides::Left);
            while !rest.is_empty() {
                let end = if parts.len() == limit { None } else { rest.find(is_space) };
                let end = end.unwrap_or(rest.len());
                parts.push(&rest[..end]);
                rest = strip(&rest[end..], None, Sides::Left);
            }
            Ok(parts)
        }
        (None, true) => {
            let mut parts = Vec::new();
            let mut rest = strip(text, None, Sides::Right);
            while !rest.is_empty() {
                let last = if parts.len() == limit {
                    None
                } else {
                    rest.char_indices().rfind(|(_, c)| is_space(*c))
                };
                let start = last.map_or(0, |(at, c)| at + c.len_utf8());
                parts.push(&rest[start..]);
                rest = strip(&rest[..start], None, Sides::Right);
            }
            parts.reverse();
            Ok(parts)
        }
    }
}

/// `str.splitlines`: at every line boundary of Python's.
pub(super) fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let is_break = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c' | '\x1d' | '\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_break).unwrap_or(rest.len());
        let mark = match &rest[end..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { end + mark } else { end }]);
        rest = &rest[end + mark..];
    }
    lines
}

fn join(separator: &str, items: &Value) -> Result<Value, Error> {
    let items = iteration::iterate(items).map_err(|_| type_error("can only join an iterable"))?;
    let mut out = String::new();
    for (at, item) in items.enumerate() {
        let item = item?;
        let item = item.as_str().filter(|_| !item.is_safe()).ok_or_else(|| {
            type_error(format!(
                "sequence item {at}: expected str instance, {} found",
                values::type_name(&item)
            ))
        })?;
        budget::text(separator.len().checked_add(item.len()))?;
        if at > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
    }
    Ok(Value::from(out))
}

/// `str.ljust`, `str.rjust` and `str.center`: pads to `width` characters with the one character `fill`.
pub(super) fn pad(text: &str, method: &str, width: i64, fill: &str) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(type_error("the fill character must be exactly one character long"));
    }
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(type_error(format!("{method}: the width must be at most {MAX_WIDTH}, found {width}")));
    }
    let missing = width.saturating_sub(text.chars().count());
    budget::text(Some(text.len() + 4 * missing))?;
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // CPython puts the odd space on the left only if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn dict_method(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "keys" | "values" | "items" => {
            let () = from_args(args)?;
            let name = method_names::DICT.iter().find(|name| **name == method).copied().unwrap_or("items");
            DictView::of(name, value)
        }
        "get" => {
            let (key, _default): (&Value, Option<&Value>) = from_args(args)?;
            comparisons::hashable(key)?;
            // The default can be undefined.
            let default = || args.get(1).cloned().unwrap_or_else(|| Value::from(()));
            Ok(values::entry(value, key)?.unwrap_or_else(default))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ if method_names::DICT.contains(&method) => {
            Err(type_error(format!("access to method '{method}' of a dict is unsafe")))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "count" | "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let mut count = 0;
            for (at, item) in iteration::iterate(value)?.enumerate() {
                let found = comparisons::equal(&item?, what, values::MAX_DEPTH)?;
                if found && method == "index" {
                    return Ok(Value::from(at));
                }
                count += usize::from(found);
            }
            if method == "index" {
                Err(type_error("value is not in the list"))
            } else {
                Ok(Value::from(count))
            }
        }
        "copy" if values::is_list(value) => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ if method_names::LIST.contains(&method) && values::is_list(value) => {
            Err(type_error(format!("access to method '{method}' of a list is unsafe")))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}
