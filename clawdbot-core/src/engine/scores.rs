//! What requests for scores keep of the logits of their tokens.

use std::ops::Range;

use crate::sampling::{Continuations, Logprobs, Sampled, TokenLogprob};

/// What a request for scores gathers, in the order of positions.
#[derive(Debug)]
pub(crate) enum Scores {
    /// Logits of all tokens, `[tokens, vocab_size]`.
    Logits(Vec<f32>),
    /// How likely given tokens are where they stand.
    Next(NextTokens),
}

/// How likely a token is after those before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenScore {
    pub(crate) logprob: f32,
    /// Whether it is the most likely one.
    pub(crate) greedy: bool,
}

/// How likely `targets` are: the first after position `first`, the others after the positions that follow.
#[derive(Debug)]
pub(crate) struct NextTokens {
    pub(crate) first: usize,
    pub(crate) targets: Vec<u32>,
    pub(crate) found: Vec<TokenScore>,
}

impl NextTokens {
    /// The token whose score is that of the logits at `position`, if it is wanted.
    pub(super) fn target(&self, position: usize) -> Option<u32> {
        self.targets.get(position.checked_sub(self.first)?).copied()
    }
}

/// What a step of a beam search asks for.
#[derive(Debug)]
pub(crate) struct Next {
    /// How many continuations.
    pub(super) most: usize,
    /// `None` until they are there.
    pub(crate) found: Option<Continuations>,
}

/// What the logits of a sequence's last token give.
#[derive(Debug)]
pub(super) enum Found {
    Token(Sampled),
    Next(Continuations),
}

/// How likely the tokens of a request's own prompt are, which is gathered before it generates.
#[derive(Debug)]
pub(crate) struct PromptScores {
    /// The tokens after the first one.
    pub(crate) targets: Vec<u32>,
    /// How many of the most likely tokens are told with each.
    pub(crate) top: usize,
    /// Of the first of them.
    pub(crate) found: Vec<Logprobs>,
}

impl PromptScores {
    /// For the tokens of `prompt`, with `top` of the most likely ones each.
    pub(crate) fn new(prompt: &[u32], top: u32) -> Self {
        let targets = prompt.get(1..).unwrap_or_default().to_vec();
        PromptScores { targets, top: top as usize, found: Vec::new() }
    }

    /// The tokens whose scores are not known yet, by the positions whose logits say them.
    pub(super) fn wanted(&self) -> Range<usize> {
        self.found.len()..self.targets.len()
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<Logprobs>() + self.top * size_of::<TokenLogprob>();
        size_of::<u32>() * self.targets.capacity() + each * self.found.len()
    }
}

impl Scores {
    /// Forgets what was gathered.
    pub(super) fn clear(&mut self) {
        match self {
            Scores::Logits(logits) => logits.clear(),
            Scores::Next(next) => next.found.clear(),
        }
    }

    /// The first position whose logits are wanted.
    pub(super) fn first(&self) -> usize {
        match self {
            Scores::Logits(_) => 0,
            Scores::Next(next) => next.first,
        }
    }
}
