//! Character classes in Oniguruma's patterns: brackets, escapes, named properties.

use super::cursor::{Flags, Parser, letter};

/// Bytes of a compiled class with many of Unicode's characters.
pub(super) const WIDE: u64 = 64 << 10;
/// Bytes of a compiled class between that and a few ASCII characters.
const NARROW: u64 = 8 << 10;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 16;

/// Word characters of Oniguruma: unlike those of the regex crate, they do not include joiners.
const LETTERS: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
/// Latin-1 numbers that are also word characters, except inside brackets.
const LATIN: &str = r"\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}";

/// A word character, for word boundaries.
pub(super) fn word() -> String {
    format!("[{LETTERS}{LATIN}]")
}

/// `\R`
pub(super) const LINE_BREAK: &str = r"(?>\r\n|[\n\x{0B}\x{0C}\r\x{85}\x{2028}\x{2029}])";
/// `\X`: extended grapheme clusters, <https://www.unicode.org/reports/tr29/#Regex_Definitions>.
pub(super) const GRAPHEME: &str = concat!(
    r"(?>\r\n|[\p{gcb=Control}\r\n]|\p{gcb=Prepend}*(?:",
    r"\p{gcb=L}*(?:\p{gcb=V}+|\p{gcb=LV}\p{gcb=V}*|\p{gcb=LVT})\p{gcb=T}*|\p{gcb=L}+|\p{gcb=T}+|",
    r"\p{gcb=Regional_Indicator}{2}|",
    r"\p{Extended_Pictographic}(?:\p{gcb=Extend}*\x{200D}\p{Extended_Pictographic})*|",
    r"[^\p{gcb=Control}\r\n])[\p{gcb=Extend}\x{200D}\p{gcb=SpacingMark}]*)"
);

/// Names of classes in Oniguruma, in brackets (`[:alpha:]`) and as properties (`\p{Alpha}`): name, translation, bytes
/// when compiled. Other properties have Unicode's names.
const NAMES: [(&str, &str, u64); 14] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}", WIDE),
    ("alpha", r"\p{Alphabetic}", WIDE),
    ("ascii", r"\x{0}-\x{7F}", 256),
    ("blank", r"\p{Zs}\t", NARROW),
    ("cntrl", r"\p{Cc}", NARROW),
    ("digit", r"\p{Nd}", NARROW),
    ("graph", r"[^\p{White_Space}\p{Cc}\p{Cn}]", WIDE),
    ("lower", r"\p{Lowercase}", WIDE),
    ("print", r"[[^\p{White_Space}\p{Cc}\p{Cn}]\p{Zs}]", WIDE),
    ("punct", r"\p{P}\p{S}", WIDE),
    ("space", r"\p{White_Space}", NARROW),
    ("upper", r"\p{Uppercase}", WIDE),
    ("word", LETTERS, WIDE),
    ("xdigit", "0-9A-Fa-f", 256),
];

/// A set of characters.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// The text between brackets.
    items: String,
    negated: bool,
    ignore_case: bool,
    pub(super) cost: u64,
    /// If it has only one letter: that letter as a bit.
    pub(super) only_letter: u32,
}

impl Class {
    fn new(items: &str, cost: u64) -> Self {
        Class { items: items.to_owned(), negated: false, ignore_case: false, cost, only_letter: 0 }
    }

    fn bracketed(&self) -> String {
        format!("[{}{}]", if self.negated { "^" } else { "" }, self.items)
    }

    /// The class as it is outside of brackets.
    pub(super) fn alone(mut self) -> Self {
        if self.items == LETTERS {
            self.items.push_str(LATIN);
        }
        self
    }

    /// The class as a pattern.
    pub(super) fn text(&self) -> String {
        if self.ignore_case { format!("(?i:{})", self.bracketed()) } else { self.bracketed() }
    }
}

/// `c` as a pattern, inside and outside of brackets.
pub(super) fn written(c: char) -> String {
    if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) }
}

/// The class that `\` and `c` stand for, if any.
pub(super) fn escaped(parser: &mut Parser, c: char) -> Result<Option<Class>, String> {
    let class = match c.to_ascii_lowercase() {
        'd' => named("digit"),
        'h' => named("xdigit"),
        's' => named("space"),
        'w' => named("word"),
        'p' => return property(parser, c == 'P').map(Some),
        _ => return Ok(None),
    };
    Ok(class.map(|class| Class { negated: c.is_ascii_uppercase(), ..class }))
}

fn named(name: &str) -> Option<Class> {
    let (_, items, cost) = NAMES.iter().find(|(known, ..)| *known == name)?;
    Some(Class::new(items, *cost))
}

/// Parses what follows `\p`.
fn property(parser: &mut Parser, negated: bool) -> Result<Class, String> {
    let name = if parser.take("{") {
        parser.until("}").ok_or("expected a } after a property's name")?
    } else {
        return Err("expected a property's name in braces".to_owned());
    };
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, !negated),
        None => (name.as_str(), negated),
    };
    // Compared as Oniguruma compares names.
    let key: String =
        name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    // The property does not contain symbols, unlike the class of that name.
    let class = if key == "punct" { Some(Class::new(r"\p{P}", WIDE)) } else { named(&key) };
    if let Some(class) = class {
        return Ok(Class { negated, ..class });
    }
    let known = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric());
    match known && regex_syntax::parse(&format!(r"\p{{{key}}}")).is_ok() {
        true => Ok(Class { negated, ..Class::new(&format!(r"\p{{{key}}}"), WIDE) }),
        false => Err(format!("unknown property {name:.50?}")),
    }
}

/// The character that `\` and `c` stand for.
pub(super) fn escaped_char(parser: &mut Parser, c: char) -> Result<char, String> {
    let code = match c {
        't' => 0x09,
        'n' => 0x0A,
        'v' => 0x0B,
        'f' => 0x0C,
        'r' => 0x0D,
        'a' => 0x07,
        'e' => 0x1B,
        '0' if !parser.peek().is_some_and(|c| c.is_ascii_digit()) => 0,
        'x' if parser.take("{") => {
            let digits = parser.until("}").ok_or("expected a } after a number")?;
            hexadecimal(&digits, 1..=8)?
        }
        'x' => {
            let mut digits = String::new();
            while digits.len() < 2 && parser.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
                digits.push(parser.next()?);
            }
            // Larger values would be parts of characters.
            match hexadecimal(&digits, 1..=2)? {
                code @ 0..0x80 => code,
                _ => return Err("bytes that are not characters are not supported".to_owned()),
            }
        }
        'u' => {
            let digits: String = (0..4).map(|_| parser.next()).collect::<Result<_, _>>()?;
            hexadecimal(&digits, 4..=4)?
        }
        c if c.is_ascii_alphanumeric() => return Err(format!(r"\{c} is not supported")),
        c => u32::from(c),
    };
    char::from_u32(code).ok_or_else(|| format!("{code:X} is not a character"))
}

fn hexadecimal(digits: &str, length: std::ops::RangeInclusive<usize>) -> Result<u32, String> {
    let valid = length.contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| valid);
    number.ok_or_else(|| format!("expected a hexadecimal number, found {digits:.20?}"))
}

/// One item between brackets.
enum Item {
    Char(char),
    Class(Class),
}

fn item(parser: &mut Parser, flags: Flags, depth: usize) -> Result<Item, String> {
    let class = match parser.next()? {
        '[' if parser.take(":") => {
            let name = parser.until(":]").ok_or("expected :] after the name of a class")?;
            let (negated, name) = name.strip_prefix('^').map_or((false, name.as_str()), |name| (true, name));
            let class = named(name).ok_or_else(|| format!("unknown class {name:.50?}"))?;
            Class { negated, ..class }
        }
        '[' => bracket(parser, flags, depth + 1)?,
        '\\' => {
            let c = parser.next()?;
            match (c, escaped(parser, c)?) {
                (_, Some(class)) => class,
                ('b', None) => return Ok(Item::Char('\x08')),
                (c, None) => return escaped_char(parser, c).map(Item::Char),
            }
        }
        c => return Ok(Item::Char(c)),
    };
    // In Oniguruma, letters of a property keep their case; in the regex crate they would not.
    if flags.ignore_case && class.cost >= WIDE {
        return Err("case-insensitive classes of letters are not supported".to_owned());
    }
    Ok(Item::Class(class))
}

/// Parses what follows `[`, up to its end.
pub(super) fn bracket(parser: &mut Parser, flags: Flags, depth: usize) -> Result<Class, String> {
    if depth > MAX_DEPTH {
        return Err(format!("expected brackets at most {MAX_DEPTH} deep"));
    }
    let negated = parser.take("^");
    let mut class = Class {
        negated,
        ignore_case: flags.ignore_case,
        ..Class::new("", if negated { NARROW } else { 256 })
    };
    // The sets to intersect.
    let mut parts = vec![String::new()];
    let (mut letters, mut others) = (0, negated);
    let mut first = true;
    // A bracket in the first place stands for itself.
    while std::mem::take(&mut first) || !parser.take("]") {
        if parser.take("&&") {
            others = true;
            parts.push(String::new());
            continue;
        }
        let low = match item(parser, flags, depth)? {
            Item::Char(low) => low,
            Item::Class(inner) => {
                others = true;
                class.cost += inner.cost;
                push(&mut parts, &inner.bracketed());
                if parser.range_follows() {
                    return Err("expected no range that begins with a class".to_owned());
                }
                continue;
            }
        };
        let high = match parser.range_follows() {
            false => low,
            true => {
                parser.next()?;
                match item(parser, flags, depth)? {
                    Item::Char(high) => high,
                    Item::Class(_) => return Err("expected no range that ends with a class".to_owned()),
                }
            }
        };
        if high < low {
            return Err(format!("expected an ascending range, found {low:?} to {high:?}"));
        }
        if flags.ignore_case && !high.is_ascii() {
            return Err(format!("{high:?} is not supported where case is ignored"));
        }
        class.cost += if high.is_ascii() { 0 } else { NARROW };
        letters |= letter(low);
        others |= low != high || letter(low) == 0;
        push(&mut parts, &written(low));
        if low != high {
            push(&mut parts, &format!("-{}", written(high)));
        }
    }
    if parts.iter().any(String::is_empty) {
        return Err("expected characters between brackets".to_owned());
    }
    class.items = match parts.as_slice() {
        [items] => items.clone(),
        parts => parts.iter().map(|part| format!("[{part}]")).collect::<Vec<_>>().join("&&"),
    };
    if flags.ignore_case && !others && letters.count_ones() == 1 {
        class.only_letter = letters;
    }
    Ok(class)
}

fn push(parts: &mut [String], text: &str) {
    if let Some(part) = parts.last_mut() {
        part.push_str(text);
    }
}
