//! What comes before a text that is constrained: reasoning, or an answer in which a call may begin.

use std::sync::Arc;

use super::free::{CallMarks, Found, Free};
use super::grammar::Grammar;
use super::mask::Mask;
use super::matcher::{Accepted, Matcher};
use crate::error::{Error, ErrorKind, Result};
use crate::output::ReasoningMarks;
use crate::tokenizer::AddSpecialTokens;

/// Most tokens of white space between reasoning and the constrained text.
const MAX_SPACES: usize = 4;
/// Most tokens that are refused for one place before reasoning is closed there.
const MAX_REFUSED: usize = 3;

/// Where the constrained text begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) reasoning: Option<ReasoningMarks>,
    /// The text before is free, and the constrained text begins with the calls that these begin, if they come.
    pub(crate) free: Option<CallMarks>,
    /// What ends reasoning with calls that are not enforced.
    pub(crate) refused: Vec<&'static str>,
}

/// Where a text is.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// At its beginning: after `at` tokens that may open reasoning. `text`: they are a constrained text too.
    Opening { at: usize, text: bool },
    /// In reasoning, whose close may begin in `tail`; `closing`: tokens of its close that were forced.
    Reasoning { tail: Vec<u8>, closing: usize },
    /// After reasoning and so many tokens of white space.
    Spaces(usize),
    /// In free text.
    Free(Free),
    /// In the constrained text.
    Text,
}

/// A [`Matcher`] and what comes before its text.
#[derive(Debug)]
pub struct Guide {
    grammar: Arc<Grammar>,
    matcher: Matcher,
    ends: Vec<u32>,
    lead: Lead,
    stage: Stage,
    /// Tokens of each mark that opens reasoning.
    opens: Vec<Vec<u32>>,
    close: Vec<u32>,
    /// Most tokens of the shortest text.
    shortest: usize,
    refused: Vec<u32>,
    /// Whether the last mask had the next token of the close alone.
    forced: bool,
    mask: Mask,
}

impl Guide {
    /// A text of `grammar` after `lead`. `ends`: tokens that end it; `follows`: it comes after other text.
    ///
    /// # Errors
    /// As [`Matcher::new`]; `InvalidTokenizer` if no tokens spell the mark that closes the reasoning.
    pub(crate) fn new(grammar: &Arc<Grammar>, ends: &[u32], follows: bool, lead: Lead) -> Result<Self> {
        let matcher = Matcher::new(grammar, ends, follows)?;
        let encode = |mark: &str| -> Result<Vec<u32>> {
            let tokenizer = grammar.vocabulary().tokenizer();
            match tokenizer.token_to_id(mark) {
                Some(id) => Ok(vec![id]),
                None => tokenizer.encode(mark, AddSpecialTokens::No),
            }
        };
        // White space may come before it, where the tokenizer begins words with some.
        let spells = |ids: &[u32], mark: &str| {
            let text: Vec<u8> = ids.iter().flat_map(|&id| grammar.vocabulary().text_of(id)).collect();
            !ids.is_empty() && text.trim_ascii_start() == mark.as_bytes().trim_ascii_start()
        };
        let (mut opens, mut close) = (Vec::new(), Vec::new());
        if let Some(reasoning) = lead.reasoning.filter(|_| lead.free.is_none()) {
            for &open in reasoning.open {
                let ids = encode(open)?;
                // What the tokens do not spell does not come.
                if spells(&ids, open) {
                    opens.push(ids);
                }
            }
            close = encode(reasoning.close)?;
            if !spells(&close, reasoning.close) {
                let mark = reasoning.close;
                let message = format!(
                    "tokenizer: expected tokens that spell {mark:?}, which ends the reasoning, found none"
                );
                return Err(Error::new(ErrorKind::InvalidTokenizer, message).with("expected", mark));
            }
        }
        let opened = lead.reasoning.is_some_and(|reasoning| reasoning.opened);
        let stage = match lead.free {
            Some(_) => Stage::Free(Free::new(opened)),
            None if opened => Stage::Reasoning { tail: Vec::new(), closing: 0 },
            None if !opens.is_empty() => Stage::Opening { at: 0, text: true },
            None => Stage::Text,
        };
        let mask = Mask::new(grammar.vocabulary().len());
        let mut guide = Guide {
            grammar: Arc::clone(grammar),
            matcher,
            ends: ends.to_vec(),
            lead,
            stage,
            opens,
            close,
            shortest: 0,
            refused: Vec::new(),
            forced: false,
            mask,
        };
        if guide.stage != Stage::Text {
            guide.shortest = guide.matcher.shortest_completion_tokens()?.max(1);
        }
        Ok(guide)
    }

    /// Refuses a text that cannot be complete within `left` tokens.
    ///
    /// # Errors
    /// `InvalidArgument` that says how many are needed.
    pub(crate) fn check(&mut self, left: usize) -> Result<()> {
        match self.stage {
            Stage::Text | Stage::Opening { .. } => self.matcher.mask(Some(left)).map(|_| ()),
            Stage::Reasoning { .. } | Stage::Spaces(_) => {
                let needed = self.close.len() + self.shortest;
                if needed <= left {
                    return Ok(());
                }
                let message = format!(
                    "expected room for the {needed} tokens that end the reasoning and of the shortest constrained text, found {left}"
                );
                Err(Error::invalid_argument(message).with("needed", needed).with("max_tokens", left))
            }
            Stage::Free(_) => Ok(()),
        }
    }

    /// The tokens that may come next; `None` if any may. At most `left` tokens may come, this one included.
    ///
    /// # Errors
    /// As [`Matcher::mask`].
    pub(crate) fn mask(&mut self, left: usize) -> Result<Option<&Mask>> {
        match self.stage.clone() {
            Stage::Text => return self.matcher.mask(Some(left)).map(Some),
            Stage::Free(_) => {
                if self.refused.is_empty() {
                    return Ok(None);
                }
                self.all_but_refused();
            }
            Stage::Opening { at, text } => {
                match text {
                    true => self.mask.clone_from(self.matcher.mask(Some(left))?),
                    false => self.mask.clear(),
                }
                // What follows must fit too.
                let rest = self.close.len() + self.shortest;
                for open in &self.opens {
                    if self.begins(open, at) && left > open.len() - at + rest {
                        self.mask.set(open[at], true);
                    }
                }
            }
            Stage::Reasoning { closing, .. } => {
                let rest = self.close.len() - closing + self.shortest;
                self.forced = closing > 0 || left <= rest || self.refused.len() >= MAX_REFUSED;
                if self.forced {
                    self.mask.clear();
                    self.mask.set(self.close[closing], true);
                } else {
                    self.all_but_refused();
                    for &end in &self.ends {
                        self.mask.set(end, false);
                    }
                }
            }
            Stage::Spaces(count) => {
                self.mask.clone_from(self.matcher.mask(Some(left))?);
                let spaces = self.lead.reasoning.is_some_and(|reasoning| reasoning.spaces);
                if spaces && count < MAX_SPACES && left > self.shortest + 1 {
                    for &space in self.grammar.vocabulary().spaces() {
                        self.mask.set(space, true);
                    }
                }
            }
        }
        Ok(Some(&self.mask))
    }

    /// Takes `token`, which the last mask allows; `left` as for the mask. A token that is refused must be drawn again.
    ///
    /// # Errors
    /// As [`Matcher::accept`].
    pub(crate) fn accept(&mut self, token: u32, left: usize) -> Result<Accepted> {
        let accepted = self.take(token, left)?;
        match accepted {
            Accepted::Yes => self.refused.clear(),
            Accepted::Refused => self.refused.push(token),
        }
        Ok(accepted)
    }

    fn take(&mut self, token: u32, left: usize) -> Result<Accepted> {
        match std::mem::replace(&mut self.stage, Stage::Text) {
            Stage::Text => self.matcher.accept(token, Some(left)),
            Stage::Opening { at, text } => {
                let opens = self.opens.iter().any(|open| self.begins(open, at) && open[at] == token);
                let fits = text && self.matcher.allows(token)?;
                let taken = fits && self.matcher.accept(token, Some(left))? == Accepted::Yes;
                if !opens {
                    if taken {
                        self.opens.clear();
                        return Ok(Accepted::Yes);
                    }
                    self.stage = Stage::Opening { at, text };
                    return Ok(Accepted::Refused);
                }
                let done = self
                    .opens
                    .iter()
                    .any(|open| self.begins(open, at) && open[at] == token && open.len() == at + 1);
                self.opens.retain(|open| open.get(at) == Some(&token));
                self.stage = match done {
                    true => Stage::Reasoning { tail: Vec::new(), closing: 0 },
                    false => Stage::Opening { at: at + 1, text: taken },
                };
                Ok(Accepted::Yes)
            }
            Stage::Reasoning { mut tail, closing } => {
                let close = self.lead.reasoning.map_or("", |reasoning| reasoning.close);
                let before = tail.len();
                tail.extend(self.grammar.vocabulary().text_of(token));
                let end = place_of(&tail, close);
                let first =
                    |mark: &&str| place_of(&tail, mark).is_some_and(|at| end.is_none_or(|end| at < end));
                if self.lead.refused.iter().any(first) {
                    tail.truncate(before);
                    self.stage = Stage::Reasoning { tail, closing };
                    return Ok(Accepted::Refused);
                }
                match end {
                    Some(end) => {
                        let rest = tail[end + close.len()..].to_vec();
                        tail.truncate(before);
                        self.enter(&rest, left, Stage::Reasoning { tail, closing })
                    }
                    None => {
                        let closing = if self.forced { closing + 1 } else { 0 };
                        let marks = self.lead.refused.iter().map(|mark| mark.len());
                        keep_tail(&mut tail, marks.fold(close.len(), usize::max));
                        self.stage = Stage::Reasoning {
                            tail,
                            closing: closing.min(self.close.len().saturating_sub(1)),
                        };
                        Ok(Accepted::Yes)
                    }
                }
            }
            Stage::Spaces(count) => {
                let space = self.grammar.vocabulary().spaces().contains(&token);
                if space && !self.matcher.allows(token)? {
                    self.stage = Stage::Spaces(count + 1);
                    return Ok(Accepted::Yes);
                }
                let accepted = self.matcher.accept(token, Some(left))?;
                if accepted == Accepted::Refused {
                    self.stage = Stage::Spaces(count);
                }
                Ok(accepted)
            }
            Stage::Free(free) => {
                let mut after = free.clone();
                let text = self.grammar.vocabulary().text_of(token);
                let found = match &self.lead.free {
                    Some(marks) => after.take(&text, marks, self.lead.reasoning),
                    None => Found::Text,
                };
                match found {
                    Found::Calls(rest) => self.enter(&rest, left, Stage::Free(free)),
                    Found::Text => {
                        self.stage = Stage::Free(after);
                        Ok(Accepted::Yes)
                    }
                    Found::Others => {
                        self.stage = Stage::Free(free);
                        Ok(Accepted::Refused)
                    }
                }
            }
        }
    }

    /// Tokens of the text that must come next, as far as there is only one; none before the constrained text.
    ///
    /// # Errors
    /// As [`Matcher::forced`].
    pub(crate) fn forced(&mut self) -> Result<Vec<u32>> {
        if self.in_text() { self.matcher.forced() } else { Ok(Vec::new()) }
    }

    /// Whether the text is over, though no token has ended it: no other text may follow within `left` tokens.
    ///
    /// # Errors
    /// As [`Matcher::must_end`].
    pub(crate) fn must_end(&mut self, left: usize) -> Result<bool> {
        match self.stage {
            Stage::Text => self.matcher.must_end_within(left),
            _ => Ok(false),
        }
    }

    /// Whether the constrained text has begun.
    pub(crate) fn in_text(&self) -> bool {
        self.stage == Stage::Text
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        let tail = match &self.stage {
            Stage::Reasoning { tail, .. } => tail.len(),
            Stage::Free(free) => free.bytes(),
            Stage::Opening { .. } | Stage::Spaces(_) | Stage::Text => 0,
        };
        self.matcher.bytes() + 4 * self.mask.words().len() + tail
    }

    /// Whether `open` is a mark that the first `at` tokens begin, and that has more.
    fn begins(&self, open: &[u32], at: usize) -> bool {
        open.len() > at
    }

    /// Begins the constrained text with `rest`, the end of `token`; where that is not allowed, it is as `before`.
    fn enter(&mut self, rest: &[u8], left: usize, before: Stage) -> Result<Accepted> {
        let spaces =
            self.lead.free.is_none() && self.lead.reasoning.is_some_and(|reasoning| reasoning.spaces);
        let rest = if spaces { rest.trim_ascii_start() } else { rest };
        self.matcher = Matcher::new(&self.grammar, &self.ends, true)?;
        let fits = match rest.is_empty() {
            true => self.shortest < left,
            false => self.matcher.begin_within(rest, left.saturating_sub(1))?,
        };
        if !fits {
            self.stage = before;
            return Ok(Accepted::Refused);
        }
        self.stage = if spaces && rest.is_empty() { Stage::Spaces(0) } else { Stage::Text };
        Ok(Accepted::Yes)
    }

    fn all_but_refused(&mut self) {
        self.mask.fill();
        for &token in &self.refused {
            self.mask.set(token, false);
        }
    }
}

/// Where `mark` is in `text`.
fn place_of(text: &[u8], mark: &str) -> Option<usize> {
    text.windows(mark.len().max(1)).position(|window| window == mark.as_bytes())
}

/// Keeps what a mark of `length` bytes may begin in.
fn keep_tail(tail: &mut Vec<u8>, length: usize) {
    let more = tail.len().saturating_sub(length.saturating_sub(1));
    tail.drain(..more);
}
