//! Translates patterns from Oniguruma's language, which the tokenizers library uses, to that of the fancy-regex crate.
//! A pattern is parsed and written again; constructs that would mean something else are refused.
//!
//! Oniguruma's language: <https://github.com/kkos/oniguruma/blob/master/doc/RE>, with the syntax of Ruby.

use super::class::{self, Class};
use super::cursor::{Flags, Parser, letter};
use super::regex::Regex;

/// Deepest nesting of groups and classes.
const MAX_DEPTH: usize = 32;
/// Most characters of a pattern.
const MAX_LEN: usize = 10_000;
/// Most bytes that all patterns of a tokenizer may take when compiled, as estimated by [`Piece::cost`].
pub(in crate::tokenizer) const MAX_COST: u64 = 12 << 20;

/// A compiled pattern.
#[derive(Debug)]
pub(in crate::tokenizer) struct Pattern {
    pub(in crate::tokenizer) regex: Regex,
    /// Whether it can match the empty string.
    pub(in crate::tokenizer) nullable: bool,
}

/// Compiles `pattern` and subtracts its cost from `left`.
///
/// # Errors
/// With what was expected and found.
pub(in crate::tokenizer) fn compile(pattern: &str, left: &mut u64) -> Result<Pattern, String> {
    let failed = |reason: String| format!("pattern {pattern:.200?}: {reason}");
    let piece = translate(pattern).map_err(failed)?;
    *left = left.checked_sub(piece.cost).ok_or_else(|| {
        failed(format!("expected patterns that take at most {MAX_COST} bytes compiled, found larger ones"))
    })?;
    let regex = Regex::new(&piece.text).map_err(failed)?;
    Ok(Pattern { regex, nullable: piece.nullable })
}

/// A translated part of a pattern.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) nullable: bool,
    /// Estimated bytes when compiled.
    pub(super) cost: u64,
    /// Whether a quantifier may follow.
    quantifiable: bool,
    /// Letters that it may begin and end with where case is ignored: bit 0 is `a`.
    first: u32,
    last: u32,
}

/// Pairs of letters that also match one character where case is ignored, such as `ss` and `ß`.
const FOLDED_PAIRS: [(char, char); 5] = [('s', 's'), ('f', 'f'), ('f', 'i'), ('f', 'l'), ('s', 't')];

impl Piece {
    /// An assertion, which matches no character.
    fn assertion(text: impl Into<String>, cost: u64) -> Self {
        Piece { text: text.into(), nullable: true, cost, ..Piece::default() }
    }

    fn of_class(class: &Class) -> Self {
        let (text, cost, letters) = (class.text(), class.cost, class.only_letter);
        Piece { text, nullable: false, cost, quantifiable: true, first: letters, last: letters }
    }

    /// Appends `next`.
    fn then(&mut self, next: Piece) -> Result<(), String> {
        check_pairs(self.last, next.first)?;
        self.text.push_str(&next.text);
        self.cost += next.cost;
        self.first |= if self.nullable { next.first } else { 0 };
        self.last = next.last | if next.nullable { self.last } else { 0 };
        self.nullable &= next.nullable;
        Ok(())
    }

    /// Makes it an alternative of this and `other`.
    fn or(&mut self, other: Piece) {
        self.text.push('|');
        self.text.push_str(&other.text);
        self.cost += other.cost;
        self.nullable |= other.nullable;
        self.first |= other.first;
        self.last |= other.last;
    }

    fn empty() -> Self {
        Piece { nullable: true, ..Piece::default() }
    }
}

fn check_pairs(last: u32, first: u32) -> Result<(), String> {
    match FOLDED_PAIRS.iter().find(|(a, b)| last & letter(*a) != 0 && first & letter(*b) != 0) {
        Some((a, b)) => {
            Err(format!("{a}{b} is not supported where case is ignored: it would also match one character"))
        }
        None => Ok(()),
    }
}

pub(super) fn translate(pattern: &str) -> Result<Piece, String> {
    let chars: Vec<char> = pattern.chars().take(MAX_LEN + 1).collect();
    if chars.len() > MAX_LEN {
        return Err(format!("expected at most {MAX_LEN} characters"));
    }
    let mut parser = Parser { chars, at: 0 };
    let piece = parser.alternatives(Flags::default(), 0)?;
    match parser.peek() {
        None => Ok(piece),
        Some(_) => Err("expected a ( for each )".to_owned()),
    }
}

/// Notation of a quantifier: `*`, `{1,2}` or `{1}`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Sign,
    Interval,
    Exact,
}

/// A quantifier: least and most times (`None`: any number), and its notation.
#[derive(Clone, Copy)]
struct Quantifier {
    low: u32,
    high: Option<u32>,
    form: Form,
}

/// Which of several lengths a quantifier prefers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Greedy,
    Lazy,
    Possessive,
}

impl Parser {
    fn alternatives(&mut self, flags: Flags, depth: usize) -> Result<Piece, String> {
        if depth > MAX_DEPTH {
            return Err(format!("expected groups at most {MAX_DEPTH} deep"));
        }
        let mut piece = self.sequence(flags, depth)?;
        while self.take("|") {
            piece.or(self.sequence(flags, depth)?);
        }
        Ok(piece)
    }

    fn sequence(&mut self, flags: Flags, depth: usize) -> Result<Piece, String> {
        let mut piece = Piece::empty();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            let atom = self.atom(flags, depth)?;
            let quantified = self.quantified(atom)?;
            piece.then(quantified)?;
        }
        Ok(piece)
    }

    /// `atom` with the quantifiers that follow it.
    fn quantified(&mut self, mut atom: Piece) -> Result<Piece, String> {
        let mut before = None;
        while let Some(Quantifier { low, high, form }) = self.quantifier()? {
            let mode = match self.peek() {
                // After an exact number comes another quantifier; so does a plus after any interval.
                Some('?') if form != Form::Exact => Mode::Lazy,
                Some('+') if form == Form::Sign => Mode::Possessive,
                _ => Mode::Greedy,
            };
            self.at += usize::from(mode != Mode::Greedy);
            if !atom.quantifiable {
                return Err("expected something to repeat before a quantifier".to_owned());
            }
            let many = high.is_none_or(|high| high > 1);
            if many && atom.nullable {
                return Err("expected no repetition of an expression that can be empty".to_owned());
            }
            if before.is_some_and(|before| before != Mode::Greedy || mode != Mode::Greedy) {
                return Err("expected one quantifier, found several that differ".to_owned());
            }
            if many {
                check_pairs(atom.last, atom.first)?;
            }
            let times = match (low, high) {
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (0, Some(1)) => "?".to_owned(),
                (low, None) => format!("{{{low},}}"),
                (low, Some(high)) => format!("{{{low},{high}}}"),
            };
            atom.text = match (mode, before) {
                (Mode::Greedy, None) => format!("{}{times}", atom.text),
                (Mode::Greedy, Some(_)) => format!("(?:{}){times}", atom.text),
                (Mode::Lazy, _) => format!("{}{times}?", atom.text),
                (Mode::Possessive, _) => format!("(?>{}{times})", atom.text),
            };
            atom.nullable |= low == 0;
            atom.cost = atom.cost.saturating_mul(u64::from(high.unwrap_or(low).max(1))).saturating_add(64);
            before = Some(mode);
        }
        Ok(atom)
    }

    /// A quantifier, if one comes next.
    fn quantifier(&mut self) -> Result<Option<Quantifier>, String> {
        let (low, high) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.interval(),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(Quantifier { low, high, form: Form::Sign }))
    }

    /// An interval; text that only looks like one stands for itself.
    fn interval(&mut self) -> Result<Option<Quantifier>, String> {
        let start = self.at;
        self.at += 1;
        let low = self.number()?;
        let (high, form) = match self.take(",") {
            true => (self.number()?, Form::Interval),
            false => (low, Form::Exact),
        };
        if low.is_none() && high.is_none() || !self.take("}") {
            self.at = start;
            return Ok(None);
        }
        let low = low.unwrap_or(0);
        match high {
            Some(high) if high < low => Err("expected an ascending interval".to_owned()),
            high => Ok(Some(Quantifier { low, high, form })),
        }
    }

    fn number(&mut self) -> Result<Option<u32>, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.parse().ok().filter(|&number| number <= 100_000);
        number.map(Some).ok_or_else(|| "expected at most 100000 repetitions".to_owned())
    }

    fn atom(&mut self, flags: Flags, depth: usize) -> Result<Piece, String> {
        match self.next()? {
            '(' => self.group(flags, depth),
            '[' => {
                let class = class::bracket(self, flags, depth + 1)?;
                Ok(Piece::of_class(&class))
            }
            '.' => {
                let text = if flags.dot_all { "(?s:.)" } else { "." };
                Ok(Piece { text: text.to_owned(), cost: 8 << 10, quantifiable: true, ..Piece::default() })
            }
            // Lines begin after a line feed unless it is the last character, and end before one.
            '^' => Ok(Piece::assertion(r"(?:\A|(?<=\n)(?!\z))", 2048)),
            '$' => Ok(Piece::assertion("(?m:$)", 512)),
            '\\' => self.escape(flags),
            '*' | '+' | '?' => Err("expected something to repeat before a quantifier".to_owned()),
            '{' => {
                self.at -= 1;
                if self.interval()?.is_some() {
                    return Err("expected something to repeat before a quantifier".to_owned());
                }
                self.at += 1;
                literal('{', flags)
            }
            c => literal(c, flags),
        }
    }

    fn group(&mut self, flags: Flags, depth: usize) -> Result<Piece, String> {
        let look = |what: &str| what.starts_with("(?=") || what.starts_with("(?!") || what.starts_with("(?<");
        if !self.take("?") {
            return self.inside("(?:", flags, depth);
        }
        if self.take("#") {
            return self
                .until(")")
                .map(|_| Piece::empty())
                .ok_or_else(|| "expected a ) after a comment".to_owned());
        }
        for (kind, open) in
            [(":", "(?:"), ("=", "(?="), ("!", "(?!"), ("<=", "(?<="), ("<!", "(?<!"), (">", "(?>")]
        {
            if self.take(kind) {
                let mut piece = self.inside(open, flags, depth)?;
                if look(open) {
                    (piece.nullable, piece.quantifiable, piece.first, piece.last) = (true, false, 0, 0);
                }
                return Ok(piece);
            }
        }
        // Named groups are like unnamed ones, since nothing may refer to them.
        if self.take("<") || self.take("'") {
            let end = if self.chars[self.at - 1] == '<' { ">" } else { "'" };
            let name = self.until(end).ok_or("expected the end of a group's name")?;
            let word = |c: char| c.is_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err("expected a group's name".to_owned());
            }
            return self.inside("(?:", flags, depth);
        }
        let (mut flags, mut on) = (flags, true);
        loop {
            match self.next()? {
                'i' => flags.ignore_case = on,
                'm' => flags.dot_all = on,
                '-' if on => on = false,
                ':' => return self.inside("(?:", flags, depth),
                // Options without a group of their own apply up to the end of the group, alternatives included.
                ')' => {
                    let mut rest = self.alternatives(flags, depth + 1)?;
                    rest.text = format!("(?:{})", rest.text);
                    rest.quantifiable = false;
                    return Ok(rest);
                }
                c => return Err(format!("(?{c} is not supported")),
            }
        }
    }

    /// The contents of a group, up to its end.
    fn inside(&mut self, open: &str, flags: Flags, depth: usize) -> Result<Piece, String> {
        let mut piece = self.alternatives(flags, depth + 1)?;
        if !self.take(")") {
            return Err("expected a ) for each (".to_owned());
        }
        piece.text = format!("{open}{})", piece.text);
        piece.quantifiable = true;
        Ok(piece)
    }

    fn escape(&mut self, flags: Flags) -> Result<Piece, String> {
        let word = class::word();
        let wide = 4 * class::WIDE;
        match self.next()? {
            'A' => Ok(Piece::assertion(r"\A", 64)),
            'z' => Ok(Piece::assertion(r"\z", 64)),
            'Z' => Ok(Piece::assertion(r"(?=\n?\z)", 256)),
            'b' => Ok(Piece::assertion(format!("(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"), wide)),
            'B' => Ok(Piece::assertion(format!("(?:(?<={word})(?={word})|(?<!{word})(?!{word}))"), wide)),
            'R' => Ok(whole(class::LINE_BREAK, 1024)),
            'X' => Ok(whole(class::GRAPHEME, 16 * class::WIDE)),
            c => {
                // Letters of a property keep their case, whatever the options say.
                if let Some(class) = class::escaped(self, c)? {
                    return Ok(Piece::of_class(&class.alone()));
                }
                let c = class::escaped_char(self, c)?;
                literal(c, flags)
            }
        }
    }
}

/// An atomic group that never matches the empty string.
fn whole(text: &str, cost: u64) -> Piece {
    Piece { text: text.to_owned(), cost, quantifiable: true, ..Piece::default() }
}

fn literal(c: char, flags: Flags) -> Result<Piece, String> {
    if flags.ignore_case && !c.is_ascii() {
        return Err(format!("{c:?} is not supported where case is ignored"));
    }
    let letters = if flags.ignore_case { letter(c) } else { 0 };
    let written = class::written(c);
    let text = if letters != 0 { format!("(?i:{written})") } else { written };
    Ok(Piece { text, nullable: false, cost: 64, quantifiable: true, first: letters, last: letters })
}
