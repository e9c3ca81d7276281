//! What requests for scores keep of the logits of their tokens.

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
