//! The previews of calls: what is certain of their arguments while a block is being written.
//!
//! A preview says nothing but what the calls will say if the block turns out to have some: it begins with the same name and id,
//! and its text is the beginning of the arguments' normal form. What cannot be known before comes with the call.

use super::call::{Certain, Piece, RawCall, ToolCallDelta};
use super::compact::{Compact, Taken};
use super::objects::{Objects, ObjectsReader};
use super::steps::{Steps, StepsReader};
use super::tools::Tools;

/// What the beginning of a block's text says of what follows.
#[derive(Debug)]
pub(super) enum Begin {
    /// Nothing yet.
    Open,
    /// That there will be no preview.
    Never,
    /// Calls as JSON objects, or lists of them, from the beginning on.
    Objects(Objects),
    /// The arguments of the only call, a JSON object, from this byte on.
    Arguments { name: String, id: Option<String>, at: usize },
    /// Arguments one by one, from this byte on, within a call of a function or before one.
    Steps { how: &'static Steps, at: usize, call: Option<String> },
}

/// Most bytes of a text that say how it is read.
const MAX_HEAD: usize = 1024;

/// The preview of a block's calls. What it says does not depend on how the text is cut.
#[derive(Debug, Clone, Default)]
pub(super) struct Preview {
    state: State,
    /// Bytes that were looked at.
    seen: usize,
    /// Bytes of arguments that were given, by call.
    given: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Head,
    Objects(Box<ObjectsReader>),
    Arguments(Compact),
    Steps(StepsReader),
    Over,
}

impl Preview {
    /// Reads on in `text`, which is the block's, as far as it is certain to be in the block. `open`: what comes before it as a
    /// part of it. `may_call`: which functions are called.
    pub(super) fn push(
        &mut self,
        text: &str,
        open: &str,
        begin: &dyn Fn(&str) -> Begin,
        (tools, may_call): (&Tools, &dyn Fn(&str) -> bool),
    ) -> Vec<Certain> {
        let mut out = Vec::new();
        if matches!(self.state, State::Head) {
            self.begin(text, open, begin, &mut out);
        }
        let new = text.get(self.seen..).unwrap_or_default();
        match &mut self.state {
            State::Head | State::Over => return out,
            State::Objects(reader) => reader.push(new, &mut out),
            State::Steps(reader) => reader.push(text, tools, &mut out),
            State::Arguments(compact) => {
                let mut more = Certain::more(0);
                let taken = new.chars().map(|c| compact.take(c, &mut more.arguments));
                let ended = taken.into_iter().any(|taken| taken != Taken::More);
                out.push(more);
                if ended {
                    self.state = State::Over;
                }
            }
        }
        self.seen = text.len();
        self.checked(out, may_call)
    }

    /// Ends a block with `calls`, after `before` others: what was not given of them, and each of them.
    pub(super) fn end(&self, calls: Vec<RawCall>, before: &mut usize, place: u64, out: &mut Vec<Piece>) {
        for (number, call) in calls.into_iter().enumerate() {
            let given = self.given.get(number).copied().unwrap_or(0);
            let call = call.finish(*before, place);
            let arguments = call.arguments.get(given..).unwrap_or_default().to_owned();
            if !arguments.is_empty() {
                let first = |text: &String| (given == 0).then(|| text.clone());
                let (id, name) = (first(&call.id), first(&call.name));
                out.push(Piece::Delta(ToolCallDelta { index: *before, id, name, arguments }));
            }
            out.push(Piece::Call(call));
            *before += 1;
        }
    }

    /// How many calls it has given something for, those before the last of them included.
    pub(super) fn calls(&self) -> usize {
        self.given.len()
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        let reader = match &self.state {
            State::Objects(reader) => reader.bytes(),
            State::Arguments(compact) => compact.bytes(),
            State::Head | State::Steps(_) | State::Over => 0,
        };
        reader + self.given.capacity() * size_of::<usize>()
    }

    fn begin(&mut self, text: &str, open: &str, begin: &dyn Fn(&str) -> Begin, out: &mut Vec<Certain>) {
        let head = &text[..text.floor_char_boundary(MAX_HEAD)];
        self.state = match begin(head) {
            Begin::Open if head.len() == text.len() => State::Head,
            Begin::Open | Begin::Never => State::Over,
            Begin::Objects(objects) => {
                let mut reader = ObjectsReader::new(objects);
                reader.push(open, out);
                State::Objects(Box::new(reader))
            }
            Begin::Arguments { name, id, at } => {
                out.push(Certain::named(0, name, id));
                self.seen = at;
                State::Arguments(Compact::default())
            }
            Begin::Steps { how, at, call } => {
                if let Some(name) = &call {
                    let begun = Certain::named(0, name.clone(), None);
                    out.push(Certain { arguments: "{".to_owned(), ..begun });
                }
                State::Steps(StepsReader::new(how, at, call))
            }
        };
    }

    /// What is given of `found`, each call in one piece: up to a name that no call has.
    fn checked(&mut self, found: Vec<Certain>, may_call: &dyn Fn(&str) -> bool) -> Vec<Certain> {
        let mut out: Vec<Certain> = Vec::new();
        for mut certain in found {
            if let Some((name, id)) = certain.named.take() {
                let Ok(call) = RawCall::new(&name, String::new()) else {
                    self.state = State::Over;
                    break;
                };
                let RawCall { name, id, .. } = call.with_id(id.as_deref());
                if !may_call(&name) {
                    self.state = State::Over;
                    break;
                }
                certain.named = Some((name, id));
            }
            if self.given.len() <= certain.number {
                self.given.resize(certain.number + 1, 0);
            }
            self.given[certain.number] += certain.arguments.len();
            match out.last_mut() {
                Some(last) if last.number == certain.number => last.arguments.push_str(&certain.arguments),
                _ => out.push(certain),
            }
        }
        out.retain(|certain| !certain.arguments.is_empty());
        out
    }
}
