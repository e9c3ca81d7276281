//! The way to complete a text with few tokens, so that a limit on tokens never cuts it.
//!
//! A completion is found by a search that is bounded, so it may be longer than the shortest one; but it is always valid,
//! because the parser has read it. A text that is never let into a state whose completion is longer than what is left is
//! complete when nothing is left.

use std::collections::HashSet;

use llguidance::earley::Parser;
use llguidance::toktrie::{INVALID_TOKEN, Recognizer};

use super::guard::guarded;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// Longest completion, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// Bytes that may be tried in the search that keeps all ways, where the first choice leads nowhere.
const MAX_TRIED: usize = 100_000;
/// Ways of one length that are kept there; and where few bytes may follow, as in numbers, which have a state for each remainder.
const MAX_WAYS: usize = 64;
const MAX_WAYS_OF_FEW: usize = 512;
/// So few.
const FEW: usize = 16;
/// What reading a way costs, in bytes that are tried.
const READING: usize = 64;
/// States of a text whose end is searched.
const MAX_TEXT_STATES: usize = 128;
/// Zeros after which another digit is tried.
const MAX_ZEROS: usize = 10;
/// Digits in a row after which all ways are tried: what a number has to be a multiple of may be none of zeros.
const MAX_NUMBER: usize = 4;
/// Ends of the last completion that are tried.
const MAX_ENDS: usize = 24;

/// The completion that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing {
    /// `None` until it is found.
    tokens: Option<Vec<u32>>,
    /// Bytes of the last completion that was found: the next one often ends as it did.
    last: Vec<u8>,
}

impl Closing {
    /// The completion, if it is known.
    pub(super) fn tokens(&self) -> Option<&[u32]> {
        self.tokens.as_deref()
    }

    /// The text went elsewhere.
    pub(super) fn forget(&mut self) {
        self.tokens = None;
    }

    /// `token` was added to the text; `same`: it left the parser in the state in which it was.
    pub(super) fn advance(&mut self, token: u32, same: bool) {
        self.tokens = match self.tokens.take() {
            Some(tokens) if tokens.first() == Some(&token) => Some(tokens[1..].to_vec()),
            tokens => tokens.filter(|_| same),
        };
    }

    /// Searches a completion; leaves the parser where it was. None is found if the bounds do not suffice, or the tokens
    /// of `vocabulary` cannot write it. `first`: the text is empty; `ends`: what ends texts without quotes, and all.
    ///
    /// # Errors
    /// `Internal` if the parser's crate fails.
    pub(super) fn find(
        &mut self,
        parser: &mut Parser,
        vocabulary: &Vocabulary,
        first: bool,
        ends: &[Vec<u8>],
    ) -> Result<()> {
        let start = parser.get_bytes().len();
        let mut search = Search { parser, start, ends, number: false };
        let last = std::mem::take(&mut self.last);
        let found = search.run(&last);
        search.back_to(0)?;
        let found = found?;
        self.tokens = found.as_deref().and_then(|bytes| tokens(bytes, vocabulary, first));
        self.last = found.unwrap_or(last);
        Ok(())
    }
}

/// `bytes` as tokens, each the longest; `None` if there are none for some.
fn tokens(bytes: &[u8], vocabulary: &Vocabulary, first: bool) -> Option<Vec<u32>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (token, len) = vocabulary.longest(&bytes[at..], first && at == 0)?;
        tokens.push(token);
        at += len;
    }
    Some(tokens)
}

/// A search in the states of a parser, which has read some bytes of a completion.
struct Search<'a> {
    parser: &'a mut Parser,
    /// Bytes of the text before the completion.
    start: usize,
    /// What ends texts without quotes, and all.
    ends: &'a [Vec<u8>],
    /// Whether no end of a text was found, and digits alone came since.
    number: bool,
}

impl Search<'_> {
    fn run(&mut self, last: &[u8]) -> Result<Option<Vec<u8>>> {
        let (mut path, mut tried) = (Vec::new(), false);
        loop {
            if self.accepts()? {
                return Ok(Some(path));
            }
            // Digits before the end of another number make a longer one each time.
            let end = if self.number { None } else { self.end_of(last)? };
            if let Some(end) = end {
                path.extend_from_slice(end);
                return Ok(Some(path));
            }
            let next = self.preferred()?;
            let room = !next.is_empty() && path.len() < MAX_BYTES && !loops(&path, &next);
            if !room || !self.push(&next)? {
                return if tried { Ok(None) } else { self.all_ways() };
            }
            path.extend_from_slice(&next);
            let digits = path.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            self.number &= digits > 0;
            if !tried && digits > MAX_NUMBER {
                tried = true;
                if let Some(found) = self.all_ways()? {
                    return Ok(Some(found));
                }
                self.back_to(0)?;
                if !self.push(&path)? {
                    return Ok(None);
                }
            }
        }
    }

    /// The end of the last completion that completes the text from here.
    fn end_of<'b>(&mut self, last: &'b [u8]) -> Result<Option<&'b [u8]>> {
        let here = self.depth();
        for from in 0..last.len().min(MAX_ENDS) {
            let end = &last[from..];
            if self.allows(end)? {
                let complete = self.push(end)? && self.accepts()?;
                self.back_to(here)?;
                if complete {
                    return Ok(Some(end));
                }
            }
        }
        Ok(None)
    }

    /// Bytes that are likely to complete the text soon: what ends a string, an object, a list; then short values.
    fn preferred(&mut self) -> Result<Vec<u8>> {
        for end in self.ends {
            // Not in a text where it is no end, and may come again.
            if self.allows(end)? && !self.allows(&end.repeat(2))? {
                return Ok(end.clone());
            }
        }
        let pending = guarded(|| self.parser.has_pending_lexeme_bytes())?;
        if pending {
            if let Some(byte) = self.first_of([b'"'].into_iter())? {
                return Ok(vec![byte]);
            }
            // Inside of a text brackets are characters; after a number they are not.
            let text = self.first_of([b'a'].into_iter())?.is_some();
            let after = self.first_of(b"}],".iter().copied())?;
            match after {
                Some(byte) if !text => return Ok(vec![byte]),
                _ => {}
            }
            // What is no text leads out of itself, and not to the end of one.
            if let Some(byte) = self.only()? {
                return Ok(vec![byte]);
            }
            if !self.number {
                if let Some(end) = self.end_of_text()? {
                    return Ok(end);
                }
                self.number = true;
            }
        } else if let Some(byte) = self.first_of(b"}]".iter().copied())? {
            return Ok(vec![byte]);
        }
        // Zeros that go on may never be a number: below 0, after a point, or where there are many.
        let before = self.parser.get_bytes();
        let one = [&b"-"[..], b".0", &[b'0'; MAX_ZEROS]].iter().any(|end| before.ends_with(end));
        let values = if one { *b"\"10nta234567,:[{f- " } else { *b"\"0nta1234567,:[{f- " };
        let byte = match self.first_of(values.into_iter())? {
            Some(byte) => Some(byte),
            None => self.first_of(0..=254)?,
        };
        Ok(byte.into_iter().collect())
    }

    /// The shortest end of a text in quotation marks. While the parser stays in it, the lexer's state is the whole state.
    fn end_of_text(&mut self) -> Result<Option<Vec<u8>>> {
        guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("end");
                let mut seen = HashSet::new();
                let (mut nodes, mut at) = (vec![Vec::new()], 0);
                let mut found = None;
                while let Some(node) = nodes.get(at).filter(|_| at < MAX_TEXT_STATES).cloned() {
                    at += 1;
                    let pushed = node.iter().take_while(|&&byte| recognizer.try_push_byte(byte)).count();
                    if recognizer.byte_allowed(b'"') {
                        found = Some([&node[..], b"\""].concat());
                    } else {
                        // Letters first: they read best. After a backslash, the quotation mark would not be the end.
                        for byte in (b'a'..=b'z').chain(b' '..=b'[').chain(b']'..=b'`').chain(b'{'..=0xfe) {
                            if recognizer.try_push_byte(byte) {
                                if seen.insert(recognizer.lexer_state()) {
                                    nodes.push([&node[..], &[byte]].concat());
                                }
                                recognizer.pop_bytes(1);
                            }
                        }
                    }
                    recognizer.pop_bytes(pushed);
                    if found.is_some() {
                        break;
                    }
                }
                recognizer.trie_finished();
                found
            })
        })
    }

    /// All ways, the shortest first. Of ways of one length that leave the lexer in the same state, one is kept.
    fn all_ways(&mut self) -> Result<Option<Vec<u8>>> {
        let (mut ways, mut tried) = (vec![Vec::new()], 0);
        while !ways.is_empty() && tried < MAX_TRIED {
            let mut longer: Vec<Vec<u8>> = Vec::new();
            let mut seen = HashSet::new();
            for way in &ways {
                self.back_to(0)?;
                if !self.push(way)? {
                    continue;
                }
                if self.accepts()? {
                    return Ok(Some(way.clone()));
                }
                let next = self.next()?;
                tried += READING.max(next.len());
                let most = if next.len() <= FEW { MAX_WAYS_OF_FEW } else { MAX_WAYS };
                for (byte, state) in next {
                    if longer.len() < most && seen.insert(state) {
                        let mut way = way.clone();
                        way.push(byte);
                        longer.push(way);
                    }
                }
            }
            ways = longer;
        }
        Ok(None)
    }

    /// The bytes that may follow, with the state in which they leave the lexer.
    fn next(&mut self) -> Result<Vec<(u8, impl std::hash::Hash + Eq + use<>)>> {
        guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("next");
                let mut found = Vec::new();
                // Printable characters first.
                for byte in (b' '..=b'~').chain(0..b' ').chain(0x7f..=0xfe) {
                    if recognizer.try_push_byte(byte) {
                        found.push((byte, recognizer.lexer_state()));
                        recognizer.pop_bytes(1);
                    }
                }
                recognizer.trie_finished();
                found
            })
        })
    }

    /// The first of `bytes` that may follow.
    fn first_of(&mut self, bytes: impl Iterator<Item = u8>) -> Result<Option<u8>> {
        guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("first");
                let mut bytes = bytes;
                let found = bytes.find(|&byte| recognizer.byte_allowed(byte));
                recognizer.trie_finished();
                found
            })
        })
    }

    /// The byte that must follow, if there is only one.
    fn only(&mut self) -> Result<Option<u8>> {
        guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("only");
                let mut allowed = (0..=254).filter(|&byte| recognizer.byte_allowed(byte));
                let found = allowed.next().filter(|_| allowed.next().is_none());
                recognizer.trie_finished();
                found
            })
        })
    }

    /// Whether `bytes` may follow.
    fn allows(&mut self, bytes: &[u8]) -> Result<bool> {
        guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("allows");
                let allowed = bytes.iter().all(|&byte| recognizer.try_push_byte(byte));
                recognizer.trie_finished();
                allowed
            })
        })
    }

    fn accepts(&mut self) -> Result<bool> {
        guarded(|| self.parser.is_accepting())
    }

    /// Reads `bytes`; `false` if the parser does not take them, or its bounds do not suffice.
    fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        guarded(|| bytes.is_empty() || self.parser.apply_token(bytes, INVALID_TOKEN).is_ok())
    }

    /// Bytes of the completion that the parser has read.
    fn depth(&self) -> usize {
        self.parser.get_bytes().len().saturating_sub(self.start)
    }

    /// Forgets bytes of the completion after the first `depth`.
    fn back_to(&mut self, depth: usize) -> Result<()> {
        let more = self.depth().saturating_sub(depth);
        if more == 0 || guarded(|| self.parser.get_error().is_some())? {
            return Ok(());
        }
        let back = guarded(|| self.parser.rollback(more))?;
        back.map_err(|error| Error::internal(format!("constraint: {error}")))
    }
}

/// Whether the preferred bytes repeat: a way that leads nowhere. Runs that a schema asks for are shorter.
fn loops(path: &[u8], next: &[u8]) -> bool {
    const RUN: usize = 4096;
    let (Some(earlier), [byte]) = (path.len().checked_sub(RUN).and_then(|from| path.get(from..)), next)
    else {
        return false;
    };
    earlier.iter().all(|earlier| earlier == byte)
}
