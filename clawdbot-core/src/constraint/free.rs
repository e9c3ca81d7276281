//! Free text that calls may come in: where the ones begin that are enforced, and what would begin others.

use crate::output::{Opening, ReasoningMarks};

/// The marks that count in a free text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallMarks {
    /// What begins calls that are enforced.
    pub(crate) enforced: Opening,
    /// What would begin others.
    pub(crate) others: Vec<Opening>,
}

/// What a token of a free text brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// More of the text.
    Text,
    /// The beginning of enforced calls, with what follows the mark; a mark that is part of the calls is in it.
    Calls(Vec<u8>),
    /// The beginning of calls that are not enforced.
    Others,
}

/// Where a free text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Free {
    /// Its last bytes, which a mark may begin in.
    tail: Vec<u8>,
    /// Whether it is in its reasoning.
    reasons: bool,
    /// Whether there is more than white space and reasoning.
    begun: bool,
}

/// What a mark means.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Opens,
    Closes,
    Nothing,
    Calls { first: bool },
    Others,
}

impl Free {
    /// A text that begins; `reasons`: in reasoning.
    pub(super) fn new(reasons: bool) -> Self {
        Free { tail: Vec::new(), reasons, begun: false }
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.tail.len()
    }

    /// Takes the text of a token. After anything but [`Found::Text`] it is of no more use.
    pub(super) fn take(
        &mut self,
        text: &[u8],
        marks: &CallMarks,
        reasoning: Option<ReasoningMarks>,
    ) -> Found {
        self.tail.extend_from_slice(text);
        let mut read = 0;
        let mut known = self.known(marks, reasoning);
        while read < self.tail.len() {
            let rest = &self.tail[read..];
            let found = known.iter().filter(|(mark, _)| rest.starts_with(mark.as_bytes()));
            if let Some(&(mark, means)) = found.max_by_key(|(mark, _)| mark.len()) {
                let after = &rest[mark.len()..];
                match means {
                    Meaning::Calls { first: true } => return Found::Calls(rest.to_vec()),
                    Meaning::Calls { first: false } => return Found::Calls(after.to_vec()),
                    Meaning::Others => return Found::Others,
                    Meaning::Opens => self.reasons = true,
                    Meaning::Closes => self.reasons = false,
                    Meaning::Nothing => {}
                }
                read += mark.len();
                known = self.known(marks, reasoning);
                continue;
            }
            if known.iter().any(|(mark, _)| mark.as_bytes().starts_with(rest)) {
                break;
            }
            let (character, bytes) = match first(rest) {
                First::Character(character, bytes) => (character, bytes),
                First::Incomplete => break,
            };
            if !self.begun && !self.reasons && !character.is_whitespace() {
                // Some marks count only before this.
                self.begun = true;
                known = self.known(marks, reasoning);
            }
            read += bytes;
        }
        self.tail.drain(..read);
        Found::Text
    }

    /// The marks that count here.
    fn known(&self, marks: &CallMarks, reasoning: Option<ReasoningMarks>) -> Vec<(&'static str, Meaning)> {
        let counts = |opening: &&Opening| match self.reasons {
            true => opening.in_reasoning,
            false => !opening.first || !self.begun,
        };
        let mut known: Vec<(&'static str, Meaning)> = Vec::new();
        let enforced = Some(&marks.enforced).filter(counts);
        known.extend(enforced.map(|opening| (opening.mark, Meaning::Calls { first: opening.first })));
        known.extend(marks.others.iter().filter(counts).map(|opening| (opening.mark, Meaning::Others)));
        if let Some(reasoning) = reasoning {
            // A text may begin with the end of a reasoning that the prompt has left out.
            if self.reasons || !self.begun {
                known.push((reasoning.close, Meaning::Closes));
            }
            if !self.reasons && (reasoning.anywhere || !self.begun) {
                known.extend(reasoning.open.iter().map(|&open| (open, Meaning::Opens)));
            }
            known.extend(reasoning.dropped.iter().map(|&mark| (mark, Meaning::Nothing)));
        }
        known.retain(|(mark, _)| !mark.is_empty());
        known
    }
}

/// What a text begins with.
enum First {
    /// This character, of so many bytes; in place of a byte that is no character, the one that stands for such.
    Character(char, usize),
    /// Too few bytes of one.
    Incomplete,
}

fn first(text: &[u8]) -> First {
    let start = &text[..text.len().min(4)];
    let Some(chunk) = start.utf8_chunks().next() else { return First::Incomplete };
    match chunk.valid().chars().next() {
        Some(character) => First::Character(character, character.len_utf8()),
        None if start.len() < 4
            && std::str::from_utf8(start).is_err_and(|error| error.error_len().is_none()) =>
        {
            First::Incomplete
        }
        None => First::Character(char::REPLACEMENT_CHARACTER, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONING: ReasoningMarks = ReasoningMarks {
        open: &["<think>"],
        close: "</think>",
        opened: false,
        spaces: true,
        anywhere: false,
        dropped: &["<answer>"],
    };

    fn marks() -> CallMarks {
        let opening = |mark, first, in_reasoning| Opening { mark, first, in_reasoning };
        CallMarks {
            enforced: opening("<call>", false, true),
            others: vec![opening("[", true, false), opening("```call", false, false)],
        }
    }

    /// What `text` brings, whole or byte by byte, and where.
    fn found(text: &str, marks: &CallMarks) -> Found {
        let (mut free, mut bytes) = (Free::new(false), Free::new(false));
        let whole = free.take(text.as_bytes(), marks, Some(REASONING));
        let mut single = Found::Text;
        for byte in text.bytes() {
            match &mut single {
                Found::Text => single = bytes.take(&[byte], marks, Some(REASONING)),
                Found::Calls(rest) => rest.push(byte),
                Found::Others => {}
            }
        }
        assert_eq!(whole, single, "{text:?}");
        if whole == Found::Text {
            assert_eq!(free, bytes, "{text:?}");
        }
        whole
    }

    #[test]
    fn marks_count_where_the_reader_counts_them() {
        let calls = |rest: &str| Found::Calls(rest.as_bytes().to_vec());
        for (text, expected) in [
            ("", Found::Text),
            ("so <cal>", Found::Text),
            ("so <call> {", calls(" {")),
            ("<think>hm</think><call>", calls("")),
            ("<think>hm<call>{", calls("{")),
            (" [f()]", Found::Others),
            ("a [f()]", Found::Text),
            ("<think>[</think> a [", Found::Text),
            ("<think>a</think> [", Found::Others),
            ("<think>```call</think>", Found::Text),
            ("a ```call", Found::Others),
            ("a <think><call>", calls("")),
            ("\u{3000}[", Found::Others),
            ("\u{3042}[", Found::Text),
            ("</think><answer> [", Found::Others),
        ] {
            assert_eq!(found(text, &marks()), expected, "{text:?}");
        }
        let first = Opening { mark: "{", first: true, in_reasoning: false };
        let marks = CallMarks { enforced: first, others: Vec::new() };
        assert_eq!(found("\n{\"a", &marks), calls("{\"a"));
        assert_eq!(found("a {", &marks), Found::Text);
    }

    #[test]
    fn only_what_may_be_a_mark_is_kept() {
        let mut free = Free::new(false);
        for text in [" ".repeat(1000), "a".repeat(1000), "<cal".to_owned(), "x".to_owned()] {
            free.take(text.as_bytes(), &marks(), Some(REASONING));
            assert!(free.bytes() < 5, "{}", free.bytes());
        }
    }
}
