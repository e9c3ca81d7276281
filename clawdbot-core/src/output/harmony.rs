//! OpenAI's Harmony, which gpt-oss writes (<https://github.com/openai/harmony/blob/main/docs/format.md>): messages with headers
//! that name a channel, and for calls a recipient.

use super::call::{Piece, RawCall};
use super::format::{End, Quotes};
use super::marks::{At, EndSearch, at};
use super::preview::Preview;
use super::tools::Tools;
use super::value::{begin_object, object};
use super::writing::Part;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";
const CONSTRAIN: &str = "<|constrain|>";

/// Its marks, all of them special tokens.
pub(crate) const MARKS: &[&str] = &[START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN];

/// Those without which there is no header of a call.
pub(super) const HEADER_MARKS: &[&str] = &[CHANNEL, MESSAGE];

/// The beginning of the reasoning's message, as models write it.
pub(super) const ANALYSIS: &str = "<|channel|>analysis<|message|>";
/// The end of the reasoning's message, with the beginning of the next one.
pub(super) const NEXT: &str = "<|end|><|start|>assistant";
/// The beginning of the answer's message, as models write it.
pub(super) const FINAL: &str = "<|channel|>final<|message|>";
/// The beginning of a message that says what comes next, as models write it.
const PREAMBLE: &str = "<|channel|>commentary<|message|>";
/// How a prompt ends that has begun a message.
const OPENED: &str = "<|start|>assistant";

/// Messages that may come before an answer or a call, each with the beginning of the next one.
pub(super) fn messages_before() -> Vec<Part> {
    let message = |open| vec![Part::text(open), Part::Until { never: MARKS.to_vec(), end: NEXT }];
    vec![Part::One(vec![message(ANALYSIS), message(PREAMBLE)])]
}

/// Most bytes of a header.
const MAX_HEADER: usize = 1024;
const MAX_WARNINGS: usize = 16;

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) reasoning: bool,
    pub(super) calls: bool,
}

/// A reader of messages in pieces, as [`super::blocks::Blocks`].
#[derive(Debug, Clone)]
pub(super) struct Messages {
    wants: Wants,
    /// As in [`super::blocks::Blocks`].
    place: u64,
    state: State,
    /// What is not decided yet.
    held: String,
    /// Bytes of it that were looked at.
    seen: usize,
    /// In a call, until the end of its arguments is found: marks in their texts do not count.
    arguments: Option<EndSearch>,
    preview: Preview,
    /// Whether there was reasoning, and text: further messages begin on a new line.
    reasoned: bool,
    answered: bool,
    calls: usize,
    warnings: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Between messages. What is there is text.
    Between,
    /// From its first mark on.
    Header,
    Reasoning,
    Answer,
    /// A call of a function.
    Call {
        header: String,
        name: String,
    },
}

impl Messages {
    /// `tail`: how the prompt ends.
    pub(super) fn new(wants: Wants, place: u64, tail: &str) -> Self {
        let state = match tail.trim_end() {
            tail if tail.ends_with(OPENED) => State::Header,
            // The prompt may end in a message.
            tail => match tail.rfind(MESSAGE).filter(|_| tail.ends_with(MESSAGE)) {
                Some(end) => {
                    let start = tail[..end].rfind(START).unwrap_or(0);
                    Header::read(&tail[start..end]).state(wants, &tail[start..end])
                }
                None => State::Between,
            },
        };
        Messages {
            wants,
            place,
            state,
            held: String::new(),
            seen: 0,
            arguments: Some(EndSearch::new(End::Value, Quotes::Json)),
            preview: Preview::default(),
            reasoned: false,
            answered: false,
            calls: 0,
            warnings: 0,
        }
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.held.capacity() + self.preview.bytes()
    }

    /// Adds `text`; `last`: there is no more.
    pub(super) fn push(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(text);
        let mut read = 0;
        while let Some(taken) = self.next(&held[read..], last, out) {
            (read, self.seen) = (read + taken, 0);
        }
        held.drain(..read);
        self.held = held;
    }

    /// Reads on. Returns the bytes that were read; `None` if more must come first, or all is read.
    fn next(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) -> Option<usize> {
        let header = self.state == State::Header;
        if header && !may_be_header(text) {
            self.state = State::Between;
            return Some(0);
        }
        if !self.pass_arguments(text, last, out) {
            return None;
        }
        let marks: &[&str] = match self.state {
            State::Header => &[MESSAGE],
            State::Between => MARKS,
            _ => &[END, CALL, RETURN, START, CHANNEL],
        };
        let found = find(text, self.seen, marks, last);
        let place = match found {
            Next::Mark(place, _) | Next::Open(place) => place,
            Next::End => text.len(),
        };
        if header && place > MAX_HEADER {
            return Some(self.no_header(text, out));
        }
        let Next::Mark(_, mark) = found else {
            let certain = match self.state {
                State::Header | State::Call { .. } => 0,
                // Spaces before a mark are none of the answer.
                State::Between => text[..place].trim_end().len(),
                State::Reasoning | State::Answer => place,
            };
            if certain > 0 {
                self.say(&text[..certain], out);
                return Some(certain);
            }
            if last {
                return self.end(text, out);
            }
            self.seen = place;
            return None;
        };
        if header {
            self.state = Header::read(&text[..place]).state(self.wants, &text[..place]);
            self.begin(out);
            return Some(place + mark.len());
        }
        self.end_message(&text[..place], mark, out);
        let opens = mark == START || mark == CHANNEL;
        self.state = match mark {
            START | CHANNEL => State::Header,
            MESSAGE => State::Answer,
            _ => State::Between,
        };
        Some(if opens { place } else { place + mark.len() })
    }

    /// Reads the JSON object of a call up to its end. Whether marks count in what follows.
    fn pass_arguments(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) -> bool {
        let State::Call { name, .. } = &self.state else { return true };
        let Some(search) = &mut self.arguments else { return true };
        // What was looked at is white space.
        match text[self.seen..].trim_start().chars().next() {
            None => return true,
            Some('{') => {}
            Some(_) => {
                self.arguments = None;
                return true;
            }
        }
        let (found, none) = (search.find(text, &Tools::default()), Tools::default());
        let begin = |text: &str| begin_object(text, (name, None), text, false);
        let certain = &text[..search.done()];
        let given = self.preview.push(certain, "", &begin, (&none, &|_| true));
        let deltas = given.into_iter().map(|certain| certain.delta(self.calls, self.place));
        out.extend(deltas.map(Piece::Delta));
        match found {
            Some(found) => self.seen = found.whole,
            // JSON that does not end: all marks count.
            None if last => {}
            None => return false,
        }
        self.arguments = None;
        true
    }

    /// A header that is none: its first mark is text. Returns its bytes.
    fn no_header(&mut self, text: &str, out: &mut Vec<Piece>) -> usize {
        self.state = State::Between;
        self.warn("a message with a header that does not end", out);
        let mark = [START, CHANNEL].into_iter().find(|mark| text.starts_with(mark)).map_or(0, str::len);
        self.answer(&text[..mark], out);
        mark
    }

    /// Ends the output with `text`, which has no mark in it.
    fn end(&mut self, text: &str, out: &mut Vec<Piece>) -> Option<usize> {
        if self.state == State::Header && !text.is_empty() {
            self.warn("a message with a header that does not end", out);
            self.answer(text, out);
        } else {
            self.end_message(text, "", out);
        }
        self.state = State::Between;
        (!text.is_empty()).then_some(text.len())
    }

    /// Text of the state that needs nothing after it.
    fn say(&mut self, text: &str, out: &mut Vec<Piece>) {
        match self.state {
            State::Between => self.answer(text.trim_end(), out),
            State::Reasoning => self.reason(text, out),
            _ => self.answer(text, out),
        }
    }

    /// The last text of a message, which `mark` ends.
    fn end_message(&mut self, text: &str, mark: &str, out: &mut Vec<Piece>) {
        let State::Call { header, name } = &self.state else { return self.say(text, out) };
        let call = object(text).and_then(|arguments| RawCall::new(name, arguments));
        match call {
            Ok(call) => {
                self.preview.end(vec![call], &mut self.calls, self.place, out);
            }
            Err(reason) => {
                self.calls += self.preview.calls();
                let message = format!("{header}{MESSAGE}{text}{mark}");
                self.warn(&format!("a message that is no tool call that can be read: {reason}"), out);
                self.answer(&message, out);
            }
        }
    }

    /// Begins a message: on a new line, if it is not the first of its kind.
    fn begin(&mut self, out: &mut Vec<Piece>) {
        self.arguments = Some(EndSearch::new(End::Value, Quotes::Json));
        self.preview = Preview::default();
        match self.state {
            State::Reasoning if self.reasoned => self.reason("\n", out),
            State::Answer if self.answered => self.answer("\n", out),
            _ => {}
        }
    }

    fn answer(&mut self, text: &str, out: &mut Vec<Piece>) {
        if !text.is_empty() {
            self.answered = true;
            out.push(Piece::Text(text.to_owned()));
        }
    }

    fn reason(&mut self, text: &str, out: &mut Vec<Piece>) {
        if !text.is_empty() {
            self.reasoned = true;
            out.push(Piece::Reasoning(text.to_owned()));
        }
    }

    fn warn(&mut self, what: &str, out: &mut Vec<Piece>) {
        if self.warnings < MAX_WARNINGS {
            self.warnings += 1;
            out.push(Piece::Warning(format!("{what}; it is in the text")));
        }
    }
}

/// The next mark in a text.
enum Next<'a> {
    Mark(usize, &'a str),
    /// There may be one at this place.
    Open(usize),
    End,
}

fn find<'a>(text: &str, from: usize, marks: &[&'a str], last: bool) -> Next<'a> {
    // All marks begin with this.
    for (place, _) in text[from..].match_indices('<').map(|(at, mark)| (from + at, mark)) {
        match at(&text[place..], marks.iter().copied()) {
            At::Mark(which) => return Next::Mark(place, marks[which]),
            At::Open if !last => return Next::Open(place),
            At::Open | At::Nothing => {}
        }
    }
    Next::End
}

/// Whether `text` may be the beginning of a header, or of the rest of one that the prompt has begun.
fn may_be_header(text: &str) -> bool {
    let text = text.trim_start();
    [START, CHANNEL, MESSAGE, "to="].iter().any(|mark| text.starts_with(mark) || mark.starts_with(text))
}

/// What a header says.
struct Header<'a> {
    channel: Option<&'a str>,
    recipient: Option<&'a str>,
}

impl<'a> Header<'a> {
    fn read(header: &'a str) -> Self {
        let word = |after: &str| {
            let rest = header.split_once(after)?.1.trim_start();
            rest.split(|c: char| c.is_whitespace() || c == '<').next().filter(|word| !word.is_empty())
        };
        Header { channel: word(CHANNEL), recipient: word("to=") }
    }

    fn state(&self, wants: Wants, header: &str) -> State {
        match (self.recipient, self.channel) {
            (Some(name), _) if wants.calls && !matches!(name, "user" | "assistant" | "all") => {
                let name = name.strip_prefix("functions.").unwrap_or(name).to_owned();
                State::Call { header: header.to_owned(), name }
            }
            (None, Some("analysis")) if wants.reasoning => State::Reasoning,
            _ => State::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_does_not_end_is_text() {
        let text = format!("{CHANNEL}{}", "x".repeat(MAX_HEADER + 1));
        let wants = Wants { reasoning: true, calls: true };
        let mut out = Vec::new();
        Messages::new(wants, 0, "").push(&text, true, &mut out);
        let said: String = out
            .iter()
            .filter_map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(said, text);
    }
}
