//! A constraint without a model: does it accept a text?

use std::sync::Arc;

use super::grammar::Grammar;
use super::matcher::Matcher;
use super::spec::ConstraintSpec;
use super::vocabulary::Vocabulary;
use crate::cancel::{CancelHandle, cancelled};
use crate::error::Result;
use crate::tokenizer::{AddSpecialTokens, Tokenizer};

/// A constraint for a tokenizer, to check texts with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Constraint {
    grammar: Arc<Grammar>,
}

impl Constraint {
    /// Compiles `spec` for the tokens of `tokenizer`.
    ///
    /// # Errors
    /// `InvalidConstraint` if `spec` is malformed, uses what is not enforced, or is too large; `UnsupportedModel` if the
    /// tokens of `tokenizer` have no text of their own.
    pub fn new(tokenizer: &Tokenizer, spec: &ConstraintSpec) -> Result<Self> {
        Self::with(&Arc::new(Vocabulary::new(tokenizer)?), spec)
    }

    /// As [`new`](Self::new), for a vocabulary that is there already.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(vocabulary: &Arc<Vocabulary>, spec: &ConstraintSpec) -> Result<Self> {
        Ok(Constraint { grammar: Arc::new(Grammar::compile(spec, vocabulary)?) })
    }

    /// What sequences are matched with.
    pub fn grammar(&self) -> &Arc<Grammar> {
        &self.grammar
    }

    /// Whether `text`, written with the tokenizer's own tokens, satisfies the constraint as a whole.
    ///
    /// # Errors
    /// `InvalidTokenizer` if it cannot be encoded; `InvalidConstraint` if the constraint takes too long.
    pub fn accepts(&self, text: &str) -> Result<bool> {
        self.accepts_until(text, &CancelHandle::default())
    }

    /// As [`accepts`](Self::accepts), but stops when `cancel` is cancelled.
    ///
    /// # Errors
    /// As [`accepts`](Self::accepts); `Cancelled`.
    pub fn accepts_until(&self, text: &str, cancel: &CancelHandle) -> Result<bool> {
        let (mut matcher, forbidden) = self.run(text, cancel)?;
        Ok(forbidden.is_none() && matcher.is_complete()?)
    }

    /// Where the first token of `text` that is forbidden begins, in characters; `None` if all are allowed (the text may
    /// still be incomplete). Of a token that begins within a character, it is that character.
    ///
    /// # Errors
    /// As [`accepts`](Self::accepts).
    pub fn forbidden_at(&self, text: &str) -> Result<Option<usize>> {
        self.forbidden_at_until(text, &CancelHandle::default())
    }

    /// As [`forbidden_at`](Self::forbidden_at), but stops when `cancel` is cancelled.
    ///
    /// # Errors
    /// As [`accepts`](Self::accepts); `Cancelled`.
    pub fn forbidden_at_until(&self, text: &str, cancel: &CancelHandle) -> Result<Option<usize>> {
        let (_, forbidden) = self.run(text, cancel)?;
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        Ok(forbidden.map(|bytes| ends.take_while(|end| *end <= bytes).count()))
    }

    /// The state after the allowed tokens of `text`, and the byte at which the first forbidden one begins.
    fn run(&self, text: &str, cancel: &CancelHandle) -> Result<(Matcher, Option<usize>)> {
        let vocabulary = self.grammar.vocabulary();
        let mut matcher = Matcher::new(&self.grammar, &[], false)?;
        let mut at = 0;
        for id in vocabulary.tokenizer().encode_until(text, AddSpecialTokens::No, cancel)? {
            if cancel.is_cancelled() {
                return Err(cancelled());
            }
            if !matcher.allows(id)? {
                return Ok((matcher, Some(at)));
            }
            at += vocabulary.token(id, matcher.is_empty()).len();
            matcher.accept(id, None)?;
        }
        Ok((matcher, None))
    }
}
