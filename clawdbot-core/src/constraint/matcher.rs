//! A text as it grows: which tokens may come next.

use std::sync::Arc;

use llguidance::earley::Parser;
use llguidance::toktrie::{INVALID_TOKEN, Recognizer};

use super::closing::Closing;
use super::grammar::Grammar;
use super::guard::guarded;
use super::mask::Mask;
use crate::error::{Error, Result};

/// Tokens that are refused for one position before only the shortest completion is left.
const MAX_REFUSED: usize = 3;
/// Most masks that are kept.
const MAX_KNOWN: usize = 6;
/// Tokens that are tried where a text without end tokens is complete.
const MAX_TRIED: usize = 8;

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The text goes on after it.
    Yes,
    /// Nothing changed: after this token the text could not be completed with the tokens that are left. The next mask is
    /// without it; draw again.
    Refused,
}

/// A state of the lexer, and whether a lexeme has begun there.
type State = (u32, bool);

/// The state of one text within a [`Grammar`].
pub struct Matcher {
    grammar: Arc<Grammar>,
    parser: Parser,
    /// Whether its text comes after another one.
    follows: bool,
    /// Tokens that end the text.
    ends: Vec<u32>,
    /// Bytes that each token added.
    tokens: Vec<usize>,
    /// Whether the last token was one that ends the text.
    ended: bool,
    mask: Mask,
    /// What the grammar allows at some states of the lexer, since the parser last had a new row, the oldest first: a long text
    /// comes back to few states.
    known: Vec<(State, Mask)>,
    closing: Closing,
    refused: Vec<u32>,
    /// Why the parser cannot go on.
    failed: Option<Error>,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Matcher {
    /// At the beginning of a text that the tokens `ends` end. `follows`: the text comes after another one, so that a space
    /// which its first token begins with is a part of it.
    ///
    /// # Errors
    /// `Internal` if the parser's crate panics.
    pub fn new(grammar: &Arc<Grammar>, ends: &[u32], follows: bool) -> Result<Self> {
        let mut parser = grammar.parser()?;
        if follows && grammar.vocabulary().first_differs() {
            // The mask that is kept is that of the beginning.
            guarded(|| parser.invalidate_bias_cache())?;
        }
        Ok(Matcher {
            mask: Mask::new(grammar.vocabulary().len()),
            grammar: Arc::clone(grammar),
            parser,
            follows,
            ends: ends.to_vec(),
            tokens: Vec::new(),
            ended: false,
            known: Vec::new(),
            closing: Closing::default(),
            refused: Vec::new(),
            failed: None,
        })
    }

    /// The tokens that may come next, of which there is at least one. `left` is how many tokens the text may still grow
    /// by, this one included; `None` if there is no limit. With a limit, the text can always be completed in time.
    ///
    /// # Errors
    /// `InvalidConstraint` if the constraint takes too long or no token fits; `InvalidArgument` after the end, and if the
    /// shortest completion needs more than `left` tokens.
    pub fn mask(&mut self, left: Option<usize>) -> Result<&Mask> {
        self.go_on(|matcher| matcher.compute(left))?;
        Ok(&self.mask)
    }

    fn compute(&mut self, left: Option<usize>) -> Result<()> {
        if self.ended {
            return Err(Error::invalid_argument("expected a text that goes on, found one that has ended"));
        }
        if left == Some(0) {
            return Err(Error::invalid_argument("expected room for at least one token, found none"));
        }
        let complete = self.accepts()?;
        let first = self.at_beginning();
        if let Some(left) = left {
            self.close(left)?;
            let shortest = self.closing.tokens().unwrap_or_default();
            if left <= shortest.len() || self.refused.len() >= MAX_REFUSED {
                let mut next = shortest.first().copied();
                if next.is_none() && self.ends.is_empty() {
                    next = self.one_that_fits(left)?;
                }
                self.mask.clear();
                if let Some(next) = next {
                    self.mask.set(next, true);
                }
                return self.finish_mask(complete);
            }
        }
        self.compute_all(first)?;
        self.finish_mask(complete)
    }

    /// Sets the tokens that the grammar allows, but for those that were refused.
    fn compute_all(&mut self, first: bool) -> Result<()> {
        let vocabulary = Arc::clone(self.grammar.vocabulary());
        let state = self.state()?;
        match self.known.iter().find(|(known, _)| *known == state && !first) {
            Some((_, mask)) => self.mask.clone_from(mask),
            None => {
                let computer = vocabulary.computer(first);
                let found = guarded(|| self.parser.compute_bias(computer, &[]))?;
                self.check_limits()?;
                self.mask.copy(&found);
                if !first {
                    if self.known.len() >= MAX_KNOWN {
                        self.known.remove(0);
                    }
                    self.known.push((state, self.mask.clone()));
                }
            }
        }
        for &token in &self.refused {
            self.mask.set(token, false);
        }
        Ok(())
    }

    /// A token after which the text can be complete in time, of the first few that the grammar allows.
    fn one_that_fits(&mut self, left: usize) -> Result<Option<u32>> {
        self.compute_all(self.at_beginning())?;
        let (refused, closing) = (self.refused.clone(), self.closing.clone());
        let candidates: Vec<u32> = self.mask.ids().take(MAX_TRIED).collect();
        let mut found = None;
        for token in candidates {
            if self.take(token, Some(left))? == Accepted::Yes {
                self.pop(1)?;
                found = Some(token);
                break;
            }
        }
        (self.refused, self.closing) = (refused, closing);
        Ok(found)
    }

    /// Sets the tokens that end the text.
    fn finish_mask(&mut self, complete: bool) -> Result<()> {
        let some = !self.mask.is_empty();
        for &end in &self.ends {
            self.mask.set(end, complete);
        }
        if self.mask.is_empty() && !complete {
            if some {
                return Err(self.error(
                    "expected stop_token_ids without the tokens that the constraint needs here, found all of them",
                ));
            }
            return Err(self.error("no token of the vocabulary can continue the text"));
        }
        Ok(())
    }

    /// Takes `token` as the next one. `left` as for [`mask`](Self::mask).
    ///
    /// # Errors
    /// `InvalidArgument` if the constraint forbids the token: nothing changes; as [`mask`](Self::mask).
    pub fn accept(&mut self, token: u32, left: Option<usize>) -> Result<Accepted> {
        self.go_on(|matcher| matcher.take(token, left))
    }

    fn take(&mut self, token: u32, left: Option<usize>) -> Result<Accepted> {
        if !self.fits(token)? {
            return Err(Error::invalid_argument(format!("the constraint forbids token {token} here"))
                .with("token_id", token));
        }
        if self.ends.contains(&token) {
            self.ended = true;
            self.tokens.push(0);
            self.refused.clear();
            return Ok(Accepted::Yes);
        }
        let before = self.closing.clone();
        let (rows, state) = (self.rows(), self.state()?);
        self.push(token)?;
        if let Some(left) = left {
            let same = self.rows() == rows && self.state()? == state;
            self.closing.advance(token, same);
            let known = self.close(left.saturating_sub(1)).is_ok();
            if !known || self.closing.tokens().is_none_or(|tokens| tokens.len() > left.saturating_sub(1)) {
                self.pop(1)?;
                self.closing = before;
                self.refused.push(token);
                return Ok(Accepted::Refused);
            }
        } else {
            self.closing.forget();
        }
        self.refused.clear();
        Ok(Accepted::Yes)
    }

    /// Begins the text with `bytes`, the end of a token, if they fit and the text can be complete within `left` tokens after
    /// them.
    pub(super) fn begin_within(&mut self, bytes: &[u8], left: usize) -> Result<bool> {
        self.go_on(|matcher| {
            let fits = guarded(|| {
                matcher.parser.with_recognizer(|recognizer| {
                    recognizer.trie_started("begins");
                    let fits = bytes.iter().all(|&byte| recognizer.try_push_byte(byte));
                    recognizer.trie_finished();
                    fits
                })
            })?;
            matcher.check_limits()?;
            if !fits {
                return Ok(false);
            }
            matcher.push_bytes(bytes, INVALID_TOKEN)?;
            let fits = matcher.close(left).is_ok();
            if !fits {
                matcher.pop(1)?;
            }
            Ok(fits)
        })
    }

    /// Whether `token` may come next, without a limit on the tokens.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub fn allows(&mut self, token: u32) -> Result<bool> {
        self.go_on(|matcher| matcher.fits(token))
    }

    fn fits(&mut self, token: u32) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.ends.contains(&token) {
            return self.accepts();
        }
        let vocabulary = Arc::clone(self.grammar.vocabulary());
        let bytes = vocabulary.token(token, self.at_beginning());
        if bytes.is_empty() {
            return Ok(false);
        }
        let fits = guarded(|| {
            self.parser.with_recognizer(|recognizer| {
                recognizer.trie_started("allows");
                let fits = bytes.iter().all(|&byte| recognizer.try_push_byte(byte));
                recognizer.trie_finished();
                fits
            })
        })?;
        self.check_limits()?;
        Ok(fits)
    }

    /// Takes back the last `count` tokens.
    ///
    /// # Errors
    /// `InvalidArgument` if there are fewer; `Internal` if the parser fails.
    pub fn rollback(&mut self, count: usize) -> Result<()> {
        if count > self.tokens.len() {
            let found = self.tokens.len();
            return Err(Error::invalid_argument(format!(
                "expected at most {found} tokens to take back, found {count}"
            )));
        }
        self.go_on(|matcher| {
            matcher.closing.forget();
            matcher.refused.clear();
            matcher.pop(count)
        })
    }

    /// Whether the text is complete as it is.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub fn is_complete(&mut self) -> Result<bool> {
        if self.ended { Ok(true) } else { self.go_on(Self::accepts) }
    }

    /// Whether the text is complete, and no other text may follow.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub fn must_end(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(true);
        }
        self.go_on(|matcher| {
            if !matcher.accepts()? {
                return Ok(false);
            }
            if !guarded(|| matcher.parser.can_advance())? {
                return Ok(true);
            }
            matcher.compute(None)?;
            Ok(matcher.mask.ids().all(|token| matcher.ends.contains(&token)))
        })
    }

    /// As [`must_end`](Self::must_end), where at most `left` tokens may follow: also if none of the next ones leaves room to
    /// complete the text again, and no token ends it.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub(super) fn must_end_within(&mut self, left: usize) -> Result<bool> {
        if self.must_end()? {
            return Ok(true);
        }
        self.go_on(|matcher| {
            let open = left > 0 && matcher.ends.is_empty() && matcher.accepts()?;
            Ok(open && matcher.one_that_fits(left)?.is_none())
        })
    }

    /// About how many tokens complete the text; never fewer than the shortest completion has.
    ///
    /// # Errors
    /// `InvalidConstraint` if no completion was found within a bounded search.
    pub fn shortest_completion_tokens(&mut self) -> Result<usize> {
        if self.ended {
            return Ok(0);
        }
        self.go_on(|matcher| {
            matcher.find_closing()?;
            Ok(matcher.closing.tokens().map_or(0, <[u32]>::len))
        })
    }

    /// Tokens so far, the one that ended the text included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// About how many bytes it takes: the tables of its lexer, and its states.
    pub fn bytes(&self) -> usize {
        /// Of a byte of the text: a state of the lexer, and at most a row of the parser with its items.
        const PER_BYTE: usize = 256;
        let text = PER_BYTE * self.parser.get_bytes().len();
        let masks = (1 + self.known.len()) * self.mask.words().len();
        self.parser.lexer_stats().num_bytes + text + 4 * (masks + 2 * self.tokens.len())
    }

    /// Whether the next token is the first of all text, where decoders drop a space.
    fn at_beginning(&self) -> bool {
        !self.follows && self.tokens.is_empty()
    }

    /// Finds a completion, which must have at most `left` tokens.
    fn close(&mut self, left: usize) -> Result<()> {
        self.find_closing()?;
        let needed = self.closing.tokens().map_or(0, <[u32]>::len);
        if needed <= left {
            return Ok(());
        }
        let message = format!(
            "option {}: expected room for the {needed} tokens of the shortest completion, found {left}",
            self.grammar.option()
        );
        Err(Error::invalid_argument(message).with("needed", needed).with("max_tokens", left))
    }

    fn find_closing(&mut self) -> Result<()> {
        if self.closing.tokens().is_none() {
            let vocabulary = Arc::clone(self.grammar.vocabulary());
            let first = self.at_beginning();
            self.closing.find(&mut self.parser, &vocabulary, first, self.grammar.ends())?;
            self.check_limits()?;
            if self.closing.tokens().is_none() {
                return Err(self.error("found no way to complete the text within the bounds of the search"));
            }
        }
        Ok(())
    }

    /// Runs `work` unless the parser has failed; a failure stays.
    fn go_on<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let vocabulary = Arc::clone(self.grammar.vocabulary());
        guarded(|| vocabulary.refuel(&mut self.parser))?;
        work(self).inspect_err(|error| {
            if error.kind() != crate::error::ErrorKind::InvalidArgument {
                self.failed = Some(error.clone());
            }
        })
    }

    fn accepts(&mut self) -> Result<bool> {
        guarded(|| self.parser.is_accepting())
    }

    fn state(&mut self) -> Result<State> {
        guarded(|| {
            let begun = self.parser.has_pending_lexeme_bytes();
            (self.parser.with_recognizer(|recognizer| recognizer.lexer_state().as_u32()), begun)
        })
    }

    /// Rows of the parser so far, those that were used again included: as long as it is the same, none was added.
    fn rows(&self) -> usize {
        let stats = self.parser.stats();
        stats.rows + stats.cached_rows
    }

    /// Applies `token`, which fits.
    fn push(&mut self, token: u32) -> Result<()> {
        let vocabulary = Arc::clone(self.grammar.vocabulary());
        let bytes = vocabulary.token(token, self.at_beginning());
        self.push_bytes(bytes, token)
    }

    fn push_bytes(&mut self, bytes: &[u8], token: u32) -> Result<()> {
        let rows = self.rows();
        let applied = guarded(|| self.parser.apply_token(bytes, token))?;
        if self.rows() != rows {
            self.known.clear();
        }
        applied.map_err(|error| self.error(&error.to_string()))?;
        self.tokens.push(bytes.len());
        self.check_limits()
    }

    fn pop(&mut self, count: usize) -> Result<()> {
        let kept = self.tokens.len().saturating_sub(count);
        let bytes = self.tokens.drain(kept..).sum();
        self.ended = false;
        self.known.clear();
        let back = guarded(|| {
            // It is found by its place alone, where another text stood.
            self.parser.invalidate_bias_cache();
            self.parser.rollback(bytes)
        })?;
        back.map_err(|error| self.error(&error.to_string()))
    }

    /// The parser's bounds were kept.
    fn check_limits(&self) -> Result<()> {
        match guarded(|| self.parser.get_error())? {
            Some(error) => Err(self.error(&format!("expected a simpler constraint: {}", error.message()))),
            None => Ok(()),
        }
    }

    fn error(&self, reason: &str) -> Error {
        let option = self.grammar.option();
        let reason = reason.lines().next().unwrap_or_default();
        Error::invalid_constraint(format!("option {option}: {reason}")).with("option", option)
    }

    /// The parts that [`forced`](super::forced) works with.
    pub(super) fn parts(&mut self) -> (&mut Parser, &Grammar, bool) {
        let first = self.at_beginning();
        (&mut self.parser, &self.grammar, first)
    }
}
