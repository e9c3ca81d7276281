//! Filters on strings, as in jinja2.

use std::sync::OnceLock;

use fancy_regex::Regex;
use minijinja::{Error, State, Value};

use super::args::Args;
use super::methods::{self, split_lines};
use super::{budget, numeric, operators, percent, values};

type Filtered = Result<Value, Error>;

/// `text` as a value, escaped if `like` is.
fn like(like: &Value, text: String) -> Value {
    if like.is_safe() { Value::from_safe_string(text) } else { Value::from(text) }
}

/// The string of `value`. It is charged twice, as the filter's result has about the same size.
fn soft_str(value: &Value) -> Result<String, Error> {
    let text = values::to_str(value)?;
    budget::text(Some(text.len()))?;
    Ok(text)
}

/// The string in `value`, or an error.
fn text_of<'v>(args: &Args, value: &'v Value) -> Result<&'v str, Error> {
    let text = value.as_str().ok_or_else(|| values::unsupported("expected a string, found", value))?;
    if value.is_safe() {
        return Err(args.error("escaped strings are not supported here"));
    }
    budget::text(text.len().checked_mul(2))?;
    Ok(text)
}

pub(super) fn string(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    match args.value().as_str() {
        Some(_) => Ok(args.value().clone()),
        None => values::to_str(args.value()).map(Value::from),
    }
}

pub(super) fn upper(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    Ok(like(args.value(), soft_str(args.value())?.to_uppercase()))
}

pub(super) fn lower(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    Ok(like(args.value(), soft_str(args.value())?.to_lowercase()))
}

pub(super) fn capitalize(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    Ok(like(args.value(), methods::capitalize(&soft_str(args.value())?)))
}

pub(super) fn title(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let text = soft_str(args.value())?;
    budget::spend((text.len() as u64).saturating_mul(4))?;
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        out.extend(first.to_uppercase());
        let separates = is_word_start(first);
        let mut word = String::new();
        while let Some(next) = chars.next_if(|c| is_word_start(*c) == separates) {
            word.push(next);
        }
        out.push_str(&word.to_lowercase());
    }
    Ok(like(args.value(), out))
}

/// Characters after which `title` starts a word in jinja2.
fn is_word_start(c: char) -> bool {
    methods::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<')
}

pub(super) fn trim(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let text = values::to_str(args.value())?;
    let chars = match args.some(1) {
        None => None,
        Some(chars) => Some(chars.as_str().ok_or_else(|| args.error("strip arg must be None or str"))?),
    };
    Ok(like(args.value(), methods::strip(&text, chars, methods::Sides::Both).to_owned()))
}

pub(super) fn center(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let padded = methods::pad(&values::to_str(args.value())?, "center", args.integer(1, 80)?, " ")?;
    Ok(like(args.value(), padded))
}

pub(super) fn replace(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let part = |at: usize| values::to_str(args.get(at).unwrap_or(&Value::UNDEFINED));
    let count = args.some(3).map_or(Ok(-1), numeric::integer)?;
    methods::replace(&part(0)?, &part(1)?, &part(2)?, usize::try_from(count).unwrap_or(usize::MAX))
        .map(Value::from)
}

pub(super) fn wordcount(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    static WORD: OnceLock<Option<Regex>> = OnceLock::new();
    let text = soft_str(args.value())?;
    let word = WORD.get_or_init(|| Regex::new(r"[\p{L}\p{N}_]+").ok()).as_ref();
    let word = word.ok_or_else(|| args.error("no regex"))?;
    budget::spend((text.len() as u64).saturating_mul(8))?;
    let mut count = 0;
    for found in word.find_iter(&text) {
        found.map_err(|error| args.error(&error.to_string()))?;
        count += 1;
    }
    Ok(Value::from(count))
}

pub(super) fn indent(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let text = text_of(args, args.value())?;
    let unit = match args.get(1) {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => methods::spaces(numeric::integer(width)?)?,
        },
    };
    let (first, blank) = (args.flag(2, false), args.flag(3, false));
    let text = format!("{text}\n");
    let lines = split_lines(&text, false);
    budget::text(lines.len().checked_mul(unit.len() + 1))?;
    let mut out = if first { unit.clone() } else { String::new() };
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n');
            out.push_str(if blank || !line.is_empty() { &unit } else { "" });
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

pub(super) fn truncate(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    let (length, hard) = (args.integer(1, 255)?, args.flag(2, false));
    let end = match args.get(3) {
        None => "...",
        Some(end) => text_of(args, end)?,
    };
    let leeway = args.some(4).map_or(Ok(5), numeric::integer)?;
    let end_length = end.chars().count() as i64;
    if length < end_length {
        return Err(args.error(&format!("expected length >= {end_length}, got {length}")));
    }
    if leeway < 0 {
        return Err(args.error(&format!("expected leeway >= 0, got {leeway}")));
    }
    if value.is_undefined() {
        return Ok(value.clone());
    }
    if value.as_str().is_none()
        && values::type_name(value) != "object"
        && value
            .as_object()
            .and_then(|_| value.len())
            .is_some_and(|found| found as i64 <= length.saturating_add(leeway))
    {
        return Ok(value.clone());
    }
    let text = text_of(args, value)?;
    if (text.chars().count() as i64) <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept: String = text.chars().take(usize::try_from(length - end_length).unwrap_or(0)).collect();
    let kept =
        if hard { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before) };
    Ok(Value::from(format!("{kept}{end}")))
}

/// Python's `textwrap` as jinja2 calls it: line by line, with spaces kept.
pub(super) fn wordwrap(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let text = match args.value() {
        value if value.is_undefined() => return Err(values::unsupported("", value)),
        value => text_of(args, value)?,
    };
    let width = args.integer(1, 79)?;
    let (break_long, break_on_hyphens) = (args.flag(2, true), args.flag(4, true));
    let separator = match args.get(3) {
        Some(given) if given.is_true() => text_of(args, given)?,
        _ => "\n",
    };
    let lines = split_lines(text, false);
    let Some(width) = usize::try_from(width).ok().filter(|width| *width > 0) else {
        return if lines.is_empty() {
            Ok(Value::from(""))
        } else {
            Err(args.error(&format!("invalid width {width} (must be > 0)")))
        };
    };
    let mut out = String::new();
    for (at, line) in lines.into_iter().enumerate() {
        if at > 0 {
            budget::text(Some(separator.len()))?;
            out.push_str(separator);
        }
        let wrapped = wrap(&chunks(args, line, break_on_hyphens)?, width, break_long, break_on_hyphens)?;
        for (at, line) in wrapped.into_iter().enumerate() {
            budget::text(Some(separator.len() + line.len()))?;
            out.push_str(if at > 0 { separator } else { "" });
            out.push_str(&line);
        }
    }
    Ok(Value::from(out))
}

/// Words, parts of hyphenated words, and the spaces between them.
fn chunks<'t>(args: &Args, line: &'t str, break_on_hyphens: bool) -> Result<Vec<&'t str>, Error> {
    const SPACE: &str = r"[\t\n\x0b\x0c\r ]";
    const WORD: &str = r#"[\p{L}\p{N}_!"'&.,?]"#;
    const LETTER: &str = r"[\p{L}_]";
    static HYPHENS: OnceLock<Option<Regex>> = OnceLock::new();
    static SIMPLE: OnceLock<Option<Regex>> = OnceLock::new();
    let regex = if break_on_hyphens {
        HYPHENS.get_or_init(|| {
            let not_space = SPACE.replace('[', "[^");
            Regex::new(&format!(
                "{SPACE}+|(?<={WORD})-{{2,}}(?=[\\p{{L}}\\p{{N}}_])|{not_space}+?(?:-(?:(?<={LETTER}{LETTER}-)|(?<={LETTER}-{WORD}-))(?={LETTER}-?{LETTER})|(?={SPACE}|\\z)|(?<={WORD})(?=-{{2,}}[\\p{{L}}\\p{{N}}_]))"
            ))
            .ok()
        })
    } else {
        SIMPLE.get_or_init(|| Regex::new(&format!("{SPACE}+")).ok())
    };
    let regex = regex.as_ref().ok_or_else(|| args.error("no regex"))?;
    budget::spend((line.len() as u64).saturating_mul(64))?;
    let mut parts = Vec::new();
    let mut at = 0;
    for found in regex.find_iter(line) {
        let found = found.map_err(|error| args.error(&error.to_string()))?;
        parts.extend([&line[at..found.start()], found.as_str()].into_iter().filter(|part| !part.is_empty()));
        at = found.end();
    }
    parts.extend(Some(&line[at..]).filter(|part| !part.is_empty()));
    Ok(parts)
}

fn wrap(
    chunks: &[&str],
    width: usize,
    break_long: bool,
    break_on_hyphens: bool,
) -> Result<Vec<String>, Error> {
    let is_blank = |chunk: &str| methods::strip(chunk, None, methods::Sides::Both).is_empty();
    let mut lines: Vec<String> = Vec::new();
    let mut rest: Vec<&str> = chunks.iter().rev().copied().collect();
    while let Some(&next) = rest.last() {
        if !lines.is_empty() && is_blank(next) {
            rest.pop();
        }
        let mut line: Vec<&str> = Vec::new();
        let mut length = 0;
        while let Some(&chunk) = rest.last() {
            let chunk_length = chunk.chars().count();
            budget::scan(chunk.len())?;
            if length + chunk_length > width {
                if chunk_length > width {
                    let room = width - length;
                    if break_long {
                        let cut = long_word_cut(chunk, room, break_on_hyphens);
                        line.push(&chunk[..cut]);
                        rest.pop();
                        rest.push(&chunk[cut..]);
                    } else if line.is_empty() {
                        line.push(chunk);
                        rest.pop();
                    }
                }
                break;
            }
            line.push(chunk);
            rest.pop();
            length += chunk_length;
        }
        if line.last().is_some_and(|chunk| is_blank(chunk)) {
            line.pop();
        }
        if !line.is_empty() {
            lines.push(line.concat());
        }
    }
    Ok(lines)
}

/// Where to break a word longer than a line with `room` characters left: after its last hyphen there, if there is one.
fn long_word_cut(chunk: &str, room: usize, break_on_hyphens: bool) -> usize {
    let end = chunk.char_indices().nth(room).map_or(chunk.len(), |(at, _)| at);
    if break_on_hyphens
        && let Some(hyphen) = chunk[..end].rfind('-')
        && chunk[..hyphen].chars().any(|c| c != '-')
    {
        return hyphen + 1;
    }
    end
}

/// `text` escaped for HTML, as markupsafe does.
fn escaped(text: &str) -> Result<String, Error> {
    budget::text(text.len().checked_mul(2))?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Ok(out)
}

pub(super) fn escape(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    if args.value().is_safe() { Ok(args.value().clone()) } else { forceescape(state, args) }
}

pub(super) fn forceescape(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    escaped(&values::to_str(args.value())?).map(Value::from_safe_string)
}

pub(super) fn safe(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    values::to_str(args.value()).map(Value::from_safe_string)
}

pub(super) fn striptags(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let text = soft_str(args.value())?;
    if text.contains('&') {
        return Err(args.error("character references are not supported"));
    }
    let mut out = text;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut rest = out.as_str();
        let mut kept = String::with_capacity(rest.len());
        while let Some(at) = rest.find(open) {
            let Some(end) = rest[at..].find(close) else { break };
            kept.push_str(&rest[..at]);
            rest = &rest[at + end + close.len()..];
        }
        kept.push_str(rest);
        out = kept;
    }
    let words: Vec<&str> = out.split(methods::is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::from(words.join(" ")))
}

pub(super) fn urlencode(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    let pairs = match value.as_str() {
        None if values::is_dict(value) => values::pairs(value).collect(),
        None if numeric::number(value).is_none() && !value.is_none() => {
            let items = super::iteration::collect(value)?;
            let pair = |item: Value| -> Result<(Value, Value), Error> {
                let pair = super::sequences::unpack(&item, 2)?;
                Ok((operators::item(&pair, &Value::from(0))?, operators::item(&pair, &Value::from(1))?))
            };
            items.into_iter().map(pair).collect::<Result<Vec<_>, _>>()?
        }
        _ => return quoted(&values::to_str(value)?, UrlPart::Path).map(Value::from),
    };
    let mut parts = Vec::new();
    for (key, item) in pairs {
        parts.push(format!(
            "{}={}",
            quoted(&values::to_str(&key)?, UrlPart::Query)?,
            quoted(&values::to_str(&item)?, UrlPart::Query)?
        ));
    }
    Ok(Value::from(parts.join("&")))
}

/// Where a quoted text goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UrlPart {
    Path,
    Query,
}

fn quoted(text: &str, part: UrlPart) -> Result<String, Error> {
    budget::text(text.len().checked_mul(12))?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b'/' if part == UrlPart::Path => out.push('/'),
            b' ' if part == UrlPart::Query => out.push('+'),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

pub(super) fn xmlattr(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    if !values::is_dict(value) {
        return Err(values::unsupported("expected a dictionary, found", value));
    }
    let mut parts = Vec::new();
    for (key, item) in values::pairs(value) {
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = key.as_str().ok_or_else(|| args.error("expected strings as names of attributes"))?;
        if name.contains(|c: char| methods::is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(args.error(&format!("invalid character in the name {name:?} of an attribute")));
        }
        let text = values::to_str(&item)?;
        parts.push(format!("{}=\"{}\"", escaped(name)?, if item.is_safe() { text } else { escaped(&text)? }));
    }
    let text = parts.join(" ");
    let space = if args.flag(1, true) && !text.is_empty() { " " } else { "" };
    Ok(Value::from(format!("{space}{text}")))
}

pub(super) fn format(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    if args.value().is_safe() {
        return Err(args.error("escaped strings are not supported here"));
    }
    if !args.extra.is_empty() && !args.keywords.is_empty() {
        return Err(args.error("can't handle positional and keyword arguments at the same time"));
    }
    let given = if args.keywords.is_empty() {
        Value::from(minijinja::value::Tuple::from(args.extra.clone()))
    } else {
        Value::from_pairs(args.keywords.iter().cloned())
    };
    percent::format(&values::to_str(args.value())?, &given).map(Value::from)
}

pub(super) fn pprint(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    const WIDTH: usize = 80;
    let value = args.value();
    let text = values::to_repr(value)?;
    let nested = values::is_dict(value) || value.as_object().is_some();
    // Python breaks longer output into lines, and sorts the keys of dictionaries.
    if text.chars().count() > WIDTH || nested && text.contains('{') {
        return Err(args.error("values longer than a line, and dictionaries, are not supported"));
    }
    Ok(Value::from(text))
}
