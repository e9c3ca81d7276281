//! A cursor over the characters of a pattern.

/// A pattern that is being parsed, and the index of its next character.
pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
}

/// Options of a part of a pattern.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) ignore_case: bool,
    /// Whether `.` matches a line feed.
    pub(super) dot_all: bool,
}

impl Parser {
    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Result<char, String> {
        let c = self.peek().ok_or("expected more, found the end of the pattern")?;
        self.at += 1;
        Ok(c)
    }

    /// Consumes `text` if it comes next.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let comes = text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        if comes {
            self.at += text.chars().count();
        }
        comes
    }

    /// Whether a dash comes next that makes a range.
    pub(super) fn range_follows(&self) -> bool {
        self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|&c| c != ']')
    }

    /// Consumes everything up to and including `end`; returns what was before it.
    pub(super) fn until(&mut self, end: &str) -> Option<String> {
        let start = self.at;
        while self.at < self.chars.len() {
            let here = self.at;
            if self.take(end) {
                return Some(self.chars[start..here].iter().collect());
            }
            self.at += 1;
        }
        self.at = start;
        None
    }
}

/// The bit for an ASCII letter of either case; 0 for other characters.
pub(super) fn letter(c: char) -> u32 {
    if c.is_ascii_alphabetic() { 1 << (c.to_ascii_lowercase() as u32 - 'a' as u32) } else { 0 }
}
