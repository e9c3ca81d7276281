//! Reads output that is text with blocks in it: reasoning, and calls.

use super::call::Piece;
use super::format::{Block, End, ReasoningFormat};
use super::marks::{At, EndSearch, at};
use super::preview::Preview;
use super::tools::Tools;

/// Most warnings about an output.
const MAX_WARNINGS: usize = 16;

/// A reader of output in pieces. What it gives does not depend on how the output is cut. Text is held back while it may be the
/// beginning of a mark; spaces, until it is known that they are not between the parts; a call, until it is complete.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    reasoning: Option<&'static ReasoningFormat>,
    blocks: &'static [Block],
    /// Marks that are left out.
    dropped: Vec<&'static str>,
    tools: Tools,
    /// Where the answer stands ([`super::call::place_after`]).
    place: u64,
    state: State,
    /// What is not decided yet: in a block, all of it.
    held: String,
    /// Spaces that come before further text.
    spaces: String,
    /// Whether spaces are left out, as after a mark.
    skips: bool,
    /// Whether text of the answer came.
    started: bool,
    /// Calls that came, and those whose deltas came to nothing.
    calls: usize,
    warnings: usize,
}

#[derive(Debug, Clone)]
enum State {
    Text,
    Reasoning,
    Block(Box<Opened>),
}

/// A block that has not ended.
#[derive(Debug, Clone)]
struct Opened {
    block: &'static Block,
    search: EndSearch,
    preview: Preview,
}

/// A mark that means something where the text is.
#[derive(Debug, Clone, Copy)]
enum Mark {
    OpensReasoning,
    ClosesReasoning,
    Opens(&'static Block),
    Dropped,
}

impl Blocks {
    /// `inside`: whether the prompt has opened the reasoning.
    pub(super) fn new(
        reasoning: Option<&'static ReasoningFormat>,
        (blocks, dropped): (&'static [Block], &'static [&'static str]),
        tools: Tools,
        place: u64,
        inside: bool,
    ) -> Self {
        let dropped = dropped.iter().chain(reasoning.iter().flat_map(|format| format.dropped)).copied();
        Blocks {
            reasoning,
            blocks,
            dropped: dropped.collect(),
            tools,
            place,
            state: if inside { State::Reasoning } else { State::Text },
            held: String::new(),
            spaces: String::new(),
            skips: inside,
            started: false,
            calls: 0,
            warnings: 0,
        }
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        let preview = if let State::Block(opened) = &self.state { opened.preview.bytes() } else { 0 };
        self.held.capacity() + self.spaces.capacity() + preview
    }

    /// Adds `text`; `last`: there is no more.
    pub(super) fn push(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(text);
        let mut read = 0;
        while read < held.len() {
            let rest = &held[read..];
            let taken = match self.state {
                State::Text | State::Reasoning => self.text(rest, last, out),
                State::Block(_) => self.block(rest, last, out),
            };
            match taken {
                0 => break,
                taken => read += taken,
            }
        }
        held.drain(..read);
        self.held = held;
        if last {
            self.finish(out);
        }
    }

    /// What is left when nothing more comes.
    fn finish(&mut self, out: &mut Vec<Piece>) {
        if matches!(self.state, State::Block(_)) {
            // A block that has only been opened.
            self.end_block("", "", out);
        }
        if matches!(self.state, State::Text) && !self.skips && !self.spaces.is_empty() {
            out.push(Piece::Text(std::mem::take(&mut self.spaces)));
        }
    }

    /// The marks that count here.
    fn marks(&self) -> Vec<(&'static str, Mark)> {
        let mut marks: Vec<(&'static str, Mark)> = Vec::new();
        let dropped = self.dropped.iter().map(|&mark| (mark, Mark::Dropped));
        match (&self.state, self.reasoning) {
            (State::Reasoning, Some(format)) => {
                marks.push((format.close, Mark::ClosesReasoning));
                let blocks = self.blocks.iter().filter(|block| block.ends_reasoning);
                marks.extend(blocks.map(|block| (block.open, Mark::Opens(block))));
            }
            (_, reasoning) => {
                // An answer may begin with the end of a reasoning that the prompt has left out.
                let close = reasoning.filter(|_| !self.started).map(|format| (format.close, Mark::Dropped));
                marks.extend(close);
                let reasoning = reasoning.filter(|format| format.anywhere || !self.started);
                marks.extend(
                    reasoning.iter().flat_map(|format| format.open).map(|&open| (open, Mark::OpensReasoning)),
                );
                let blocks = self.blocks.iter().filter(|block| !block.first || !self.started);
                marks.extend(blocks.map(|block| (block.open, Mark::Opens(block))));
            }
        }
        marks.extend(dropped);
        marks
    }

    /// Reads text up to the next mark, and the mark. Returns the bytes that were read.
    fn text(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) -> usize {
        let mut marks = self.marks();
        for (place, c) in text.char_indices() {
            let rest = &text[place..];
            let found = match at(rest, marks.iter().map(|(mark, _)| *mark)) {
                // Nothing can make a longer mark of it.
                At::Open if last => whole_mark(rest, &marks),
                At::Open => {
                    self.say(&text[..place], out);
                    return place;
                }
                At::Mark(which) => Some(which),
                At::Nothing => None,
            };
            if let Some((mark, means)) = found.and_then(|which| marks.get(which)).copied() {
                self.say(&text[..place], out);
                self.meet(means);
                return place + mark.len();
            }
            if !c.is_whitespace() && !self.started && matches!(self.state, State::Text) {
                // Some marks count only before this.
                self.started = true;
                marks = self.marks();
            }
        }
        self.say(text, out);
        text.len()
    }

    fn meet(&mut self, mark: Mark) {
        match mark {
            Mark::OpensReasoning => (self.state, self.skips) = (State::Reasoning, true),
            Mark::ClosesReasoning => (self.state, self.skips) = (State::Text, true),
            Mark::Dropped => self.skips = true,
            // Its spaces are those of the text, should there be no call in it.
            Mark::Opens(block) => {
                if matches!(self.state, State::Reasoning) {
                    self.spaces.clear();
                    self.skips = true;
                }
                let search = EndSearch::new(block.end, block.quotes);
                self.state = State::Block(Box::new(Opened { block, search, preview: Preview::default() }));
                return;
            }
        }
        self.spaces.clear();
    }

    /// Reads a block, once it has ended. Returns the bytes that were read.
    fn block(&mut self, text: &str, last: bool, out: &mut Vec<Piece>) -> usize {
        let State::Block(opened) = &mut self.state else { return 0 };
        let Opened { block, search, preview } = &mut **opened;
        let found = search.find(text, &self.tools);
        let certain = &text[..found.map_or(search.done(), |found| found.inner)];
        let open = if block.keeps_open { block.open } else { "" };
        let may_call = |name: &str| !block.maybe || self.tools.may_call(name);
        let given = preview.push(certain, open, &block.begin, (&self.tools, &may_call));
        let deltas = given.into_iter().map(|certain| certain.delta(self.calls, self.place));
        out.extend(deltas.map(Piece::Delta));
        let (inner, whole) = match found {
            Some(found) => (found.inner, found.whole),
            None if last => (text.len(), text.len()),
            None => return 0,
        };
        self.end_block(&text[..inner], &text[inner..whole], out);
        whole
    }

    fn end_block(&mut self, inner: &str, close: &str, out: &mut Vec<Piece>) {
        let State::Block(opened) = std::mem::replace(&mut self.state, State::Text) else { return };
        let Opened { block, preview, .. } = *opened;
        let whole = || format!("{}{inner}{close}", block.open);
        let calls = match block.keeps_open {
            true => (block.read)(&whole(), &self.tools),
            false => (block.read)(inner, &self.tools),
        };
        let known = |calls: &Vec<super::call::RawCall>| {
            !block.maybe || calls.iter().all(|call| self.tools.may_call(&call.name))
        };
        match calls {
            Ok(calls) if !calls.is_empty() && known(&calls) => {
                preview.end(calls, &mut self.calls, self.place, out);
                self.spaces.clear();
                self.skips = true;
            }
            calls => {
                self.started = true;
                self.calls += preview.calls();
                self.say(&whole(), out);
                if !block.maybe && self.warnings < MAX_WARNINGS {
                    self.warnings += 1;
                    let reason = calls.err().unwrap_or_else(|| "expected a call, found none".to_owned());
                    let cut = if close.is_empty() && !matches!(block.end, End::Output) {
                        ", where the output ends"
                    } else {
                        ""
                    };
                    out.push(Piece::Warning(format!(
                        "{} without a tool call that can be read{cut}: {reason}; it is in the text",
                        block.open
                    )));
                }
            }
        }
    }

    /// Gives text, without spaces at its ends that may be between parts.
    fn say(&mut self, text: &str, out: &mut Vec<Piece>) {
        let text = if self.skips { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        self.skips = false;
        let solid = text.trim_end().len();
        if solid > 0 {
            let mut piece = std::mem::take(&mut self.spaces);
            piece.push_str(&text[..solid]);
            out.push(match self.state {
                State::Reasoning => Piece::Reasoning(piece),
                _ => Piece::Text(piece),
            });
        }
        self.spaces.push_str(&text[solid..]);
    }
}

/// The longest mark that the end of an output begins with.
fn whole_mark(text: &str, marks: &[(&'static str, Mark)]) -> Option<usize> {
    let whole = marks.iter().enumerate().filter(|(_, (mark, _))| text.starts_with(mark));
    whole.max_by_key(|(_, (mark, _))| mark.len()).map(|(which, _)| which)
}
