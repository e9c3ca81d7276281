//! Guesses of the tokens that come next.

use super::controller::{Acceptance, FORCED};

/// A guess of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) token: u32,
    /// Those of a class are right equally often.
    pub(super) class: usize,
}

/// What a request has guessed.
#[derive(Debug)]
pub(super) struct Guesses {
    /// For the tokens that come next. The first ones are the drafts of a pass.
    pub(super) next: Vec<Guess>,
    pub(super) acceptance: Acceptance,
}

impl Guesses {
    /// Whether a constraint forces them.
    pub(super) fn are_forced(&self) -> bool {
        self.next.first().is_some_and(|guess| guess.class == FORCED)
    }
}

impl Default for Guesses {
    fn default() -> Self {
        Guesses { next: Vec::new(), acceptance: Acceptance::of_request() }
    }
}
