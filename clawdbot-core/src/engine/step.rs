//! Steps of a beam search: jobs that find what may follow their tokens, and add nothing to them.

use std::sync::Arc;

use super::scores::{Found, Next};
use super::sequence::{Job, Sequence};
use crate::event::FinishReason;
use crate::options::Resolved;
use crate::sampling::BadWords;

impl Job {
    /// A step of a beam search, which finds the `most` best tokens after its own; the first `prompt_end` are the prompt. It is part
    /// of a request that was admitted, and that is counted when it ends.
    pub(crate) fn step(
        options: Resolved,
        prompt_end: usize,
        bad_words: Option<Arc<BadWords>>,
        most: usize,
    ) -> Self {
        let mut job = Job::generate(options, prompt_end, None);
        job.next = Some(Next { most, found: None });
        (job.bad_words, job.quiet, job.admitted) = (bad_words, true, true);
        job
    }

    /// Whether it is a part of a request, which is counted as a whole.
    pub(super) fn is_part(&self) -> bool {
        self.fills || self.next.is_some()
    }
}

impl Sequence {
    /// Takes what was found: ends the step of a search, or appends the token that was sampled.
    pub(super) fn take(&mut self, found: Found, max_context: usize) {
        match found {
            Found::Token(sampled) => self.accept(sampled, max_context),
            Found::Next(continuations) => {
                if let Some(next) = self.job.as_mut().and_then(|job| job.next.as_mut()) {
                    next.found = Some(continuations);
                }
                self.finish(FinishReason::Length);
            }
        }
    }
}
