//! Calls whose arguments are read one by one, each once it is complete: in tags, in Python's notation, in Gemma's.

use serde_json::Value;

use super::call::Certain;
use super::normal::member;
use super::quotes::Quotes;
use super::tools::Tools;

/// A part of a call.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It begins: a call of this function.
    Call(String),
    Argument(String, Value),
    /// It ends.
    End,
}

/// A step, and the bytes of it.
pub(super) type Next = Option<(Step, usize)>;

/// How calls are read in steps.
#[derive(Debug)]
pub(super) struct Steps {
    /// With what a call's name ends.
    pub(super) opens: &'static str,
    /// With what an argument may end, or a call.
    pub(super) ends: &'static [&'static str],
    /// Where these do not count.
    pub(super) quotes: Quotes,
    /// The step that a text begins with, and the bytes of it, for a text that is within a call of the function that is given or
    /// between calls. `None` if there is none, or if it would not be the same whatever comes after the text.
    pub(super) step: fn(&str, Option<&str>, &Tools) -> Next,
}

/// Steps that are being read. Work is proportional to the text: after a try in vain, the next one is made when the text has
/// grown by a part of its length.
#[derive(Debug, Clone)]
pub(super) struct StepsReader {
    how: &'static Steps,
    /// Where the next step begins.
    at: usize,
    /// Bytes that were looked at.
    seen: usize,
    /// Where the next try is made at the earliest.
    next: usize,
    /// The quote that is open; 1 for a mark.
    quote: Option<u8>,
    /// The function of the call that is open.
    call: Option<String>,
    /// Whether it has no argument yet.
    first: bool,
    /// Calls that came before.
    number: usize,
}

impl StepsReader {
    /// From byte `at` on, within a call of `call` or before one.
    pub(super) fn new(how: &'static Steps, at: usize, call: Option<String>) -> Self {
        StepsReader { how, at, seen: at, next: 0, quote: None, call, first: true, number: 0 }
    }

    /// Reads on in `text`, which has grown.
    pub(super) fn push(&mut self, text: &str, tools: &Tools, out: &mut Vec<Certain>) {
        while let Some(&byte) = text.as_bytes().get(self.seen) {
            self.seen += 1;
            if byte == b'\\' && self.quote.is_some() && matches!(self.how.quotes, Quotes::Python) {
                // What is escaped ends nothing.
                match text[self.seen..].chars().next() {
                    Some(c) => self.seen += c.len_utf8(),
                    None => {
                        self.seen -= 1;
                        return;
                    }
                }
                continue;
            }
            let read = &text.as_bytes()[..self.seen];
            self.pass_quote(byte, read);
            let ends = |mark: &&str| !mark.is_empty() && read.ends_with(mark.as_bytes());
            let tries = match self.call {
                None => ends(&self.how.opens),
                Some(_) => self.how.ends.iter().any(ends),
            };
            if !tries || self.quote.is_some() || self.seen < self.next {
                continue;
            }
            if !self.steps(&text[..self.seen], tools, out) {
                self.next = self.seen + (self.seen - self.at) / 4;
            }
        }
    }

    fn pass_quote(&mut self, byte: u8, read: &[u8]) {
        match (self.how.quotes, self.quote) {
            (Quotes::Python, None) if byte == b'"' || byte == b'\'' => self.quote = Some(byte),
            (Quotes::Python, Some(open)) if byte == open => self.quote = None,
            (Quotes::Mark(mark), open) if read.ends_with(mark.as_bytes()) => {
                self.quote = if open.is_some() { None } else { Some(1) };
            }
            _ => {}
        }
    }

    /// Reads the steps that are whole. Returns whether there were some.
    fn steps(&mut self, text: &str, tools: &Tools, out: &mut Vec<Certain>) -> bool {
        let mut some = false;
        while let Some((step, bytes)) = (self.how.step)(&text[self.at..], self.call.as_deref(), tools) {
            (self.at, some) = (self.at + bytes, true);
            let mut more = |text: String| out.push(Certain { arguments: text, ..Certain::more(self.number) });
            match step {
                Step::Call(name) => {
                    more("{".to_owned());
                    if let Some(begun) = out.last_mut() {
                        begun.named = Some((name.clone(), None));
                    }
                    (self.call, self.first) = (Some(name), true);
                }
                Step::Argument(key, value) => {
                    more(member(self.first, &key, &value));
                    self.first = false;
                }
                Step::End => {
                    more("}".to_owned());
                    (self.call, self.number) = (None, self.number + 1);
                }
            }
        }
        some
    }
}
