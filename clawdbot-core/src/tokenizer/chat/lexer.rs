//! Splits the inside of a tag into jinja2's tokens.

/// Kind of a token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Name(String),
    /// A string, unescaped.
    Text(String),
    /// A number in a notation that the engine reads too.
    Integer(String),
    Float(String),
    /// An operator or parenthesis.
    Sign(&'static str),
    /// The end of the tag.
    End,
}

/// A token, and the number of line feeds since the end of the token before it, up to its own end.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) breaks: usize,
}

const SIGNS: &[&str] = &[
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// A tag of a template.
pub(super) struct Tag {
    pub(super) tokens: Vec<Token>,
    /// Where its end begins, with a `-` or `+` before it; byte offset in the source.
    pub(super) close: usize,
    /// Where the text after it begins.
    pub(super) after: usize,
}

/// Reads the tag whose inside starts at `at`, of at most `most` tokens, up to `close`.
///
/// # Errors
/// The reason.
pub(super) fn tag(source: &str, mut at: usize, close: &str, most: usize) -> Result<Tag, String> {
    let mut tokens = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    let mut last = at;
    loop {
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else {
            return Err("expected the end of the tag, found the end of the template".to_owned());
        };
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if open.is_empty() {
            let trimmed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            for inner in [rest, trimmed] {
                if inner.starts_with(close) {
                    let after = source.len() - inner.len() + close.len();
                    return Ok(Tag { tokens, close: at, after });
                }
            }
        }
        let (kind, length) = token(rest, first)?;
        if let Kind::Sign(sign) = kind {
            match sign {
                "(" => open.push(")"),
                "[" => open.push("]"),
                "{" => open.push("}"),
                ")" | "]" | "}" => match open.pop() {
                    Some(expected) if expected == sign => {}
                    Some(expected) => return Err(format!("expected {expected:?}, found {sign:?}")),
                    None => return Err(format!("unexpected {sign:?}")),
                },
                _ => {}
            }
        }
        at += length;
        let breaks = source[last..at].bytes().filter(|byte| *byte == b'\n').count();
        last = at;
        tokens.push(Token { kind, breaks });
        if tokens.len() > most {
            return Err(format!("expected at most {most} tokens in a tag"));
        }
    }
}

fn token(rest: &str, first: char) -> Result<(Kind, usize), String> {
    match first {
        '\'' | '"' => {
            let end = text_end(rest)
                .ok_or_else(|| "expected the end of a string, found the end of the template".to_owned())?;
            Ok((Kind::Text(unescape(&rest[1..end - 1])?), end))
        }
        c if c == '_' || c.is_alphabetic() => {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            Ok((Kind::Name(rest[..length].to_owned()), length))
        }
        '0'..='9' => number(rest),
        _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => Ok((Kind::Sign(sign), sign.len())),
            None => Err(format!("unexpected {first:?}")),
        },
    }
}

fn text_end(rest: &str) -> Option<usize> {
    let quote = rest.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Digits with single underscores between them: how many bytes.
fn digits(text: &str, is_digit: impl Fn(char) -> bool) -> usize {
    let mut length = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let between = c == '_' && at > 0 && chars.peek().is_some_and(|(_, next)| is_digit(*next));
        if !is_digit(c) && !between {
            break;
        }
        length = at + c.len_utf8();
    }
    length
}

fn number(rest: &str) -> Result<(Kind, usize), String> {
    let decimal = |text: &str| digits(text, |c| c.is_ascii_digit());
    for (mark, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        let starts = rest.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(mark));
        let length = if starts { digits(&rest[2..], |c| c.is_digit(radix)) } else { 0 };
        if length > 0 {
            let plain = rest[2..2 + length].replace('_', "");
            let value = i128::from_str_radix(&plain, radix)
                .map_err(|_| format!("the number {plain} is too large"))?;
            return Ok((Kind::Integer(value.to_string()), 2 + length));
        }
    }
    let whole = decimal(rest);
    let mut end = whole;
    if let Some(after) = rest[end..].strip_prefix('.') {
        let length = decimal(after);
        end += if length > 0 { 1 + length } else { 0 };
    }
    if let Some(after) = rest[end..].strip_prefix(['e', 'E']) {
        let sign = usize::from(after.starts_with(['+', '-']));
        let length = decimal(&after[sign..]);
        end += if length > 0 { 1 + sign + length } else { 0 };
    }
    let plain = rest[..end].replace('_', "");
    if end == whole {
        if plain.len() > 1 && plain.starts_with('0') && plain.bytes().any(|digit| digit != b'0') {
            return Err(format!("the number {plain} has a leading zero"));
        }
        let value: i128 = plain.parse().map_err(|_| format!("the number {plain} is too large"))?;
        return Ok((Kind::Integer(value.to_string()), end));
    }
    let value: f64 = plain.parse().map_err(|_| format!("{plain} is not a number"))?;
    if !value.is_finite() {
        return Err(format!("the number {plain} is too large"));
    }
    // The engine reads digits, a point, and an exponent.
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.to_owned() } else { format!("{mantissa}.0") };
    Ok((Kind::Float(format!("{mantissa}e{exponent}")), end))
}

/// Replaces the escapes of a Python string.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let Some(mark) = escape.chars().next() else { break };
        rest = &escape[mark.len_utf8()..];
        match mark {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(mark),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            'x' | 'u' | 'U' => {
                let length = match mark {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let code = rest.get(..length).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let c = code
                    .and_then(char::from_u32)
                    .ok_or_else(|| format!("the escape \\{mark} is incomplete"))?;
                out.push(c);
                rest = &rest[length..];
            }
            '0'..='7' => {
                let length = escape.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let code = u32::from_str_radix(&escape[..length], 8).unwrap_or(0);
                out.extend(char::from_u32(code));
                rest = &escape[length..];
            }
            'N' => return Err("named characters (\\N) are not supported".to_owned()),
            other => out.extend(['\\', other]),
        }
    }
    out.push_str(rest);
    Ok(out)
}
