//! Requests whose text is constrained: what may come next is known before a token is drawn.

use std::time::Instant;

use crate::constraint::{Accepted, Guide, Mask};
use crate::error::{Error, ErrorKind, Result};
use crate::sampling::{Sampled, State};

/// The constraint of a request, at the end of its text so far.
#[derive(Debug)]
pub(crate) struct Constrained {
    guide: Guide,
    /// Whether some token ends the text. Without one, the text ends where no other text may follow.
    has_end: bool,
    /// Whether the text is over.
    over: bool,
    /// Seconds until the first mask was there.
    first: f64,
    /// Seconds of each later mask.
    masks: Vec<f32>,
}

/// How long masks took, in seconds; 0 where there were none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct MaskTimes {
    pub(super) first: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Constrained {
    /// A text that `guide` constrains, of at most `left` tokens. `ends`: the tokens that end it. `began`: when the constraint
    /// was asked for.
    ///
    /// # Errors
    /// As [`Guide::check`]: also where the shortest text that the constraint allows has more tokens than `left`.
    pub(crate) fn new(mut guide: Guide, ends: &[u32], left: usize, began: Instant) -> Result<Self> {
        guide.check(left)?;
        let first = began.elapsed().as_secs_f64();
        Ok(Constrained { guide, has_end: !ends.is_empty(), over: false, first, masks: Vec::new() })
    }

    /// Draws the next token with `sample`, which overwrites logits and gets what is allowed as bits, or nothing if all is. At most `left` tokens may
    /// come, this one included.
    ///
    /// # Errors
    /// As [`Guide::mask`], [`Guide::accept`] and `sample`; `OutOfBudget` without memory.
    pub(super) fn draw(
        &mut self,
        logits: &mut [f32],
        state: &mut State,
        left: usize,
        sample: impl Fn(&mut [f32], &mut State, Option<&[u32]>) -> Result<Sampled>,
    ) -> Result<Sampled> {
        let mut kept = Vec::new();
        kept.try_reserve_exact(logits.len()).map_err(|_| no_memory())?;
        kept.extend_from_slice(logits);
        let before = *state;
        loop {
            let began = Instant::now();
            let mask = self.guide.mask(left)?.map(Mask::words);
            let seconds = began.elapsed().as_secs_f32();
            let sampled = sample(logits, state, mask)?;
            if self.guide.in_text() {
                self.masks.try_reserve(1).map_err(|_| no_memory())?;
                self.masks.push(seconds);
            }
            if self.guide.accept(sampled.id, left)? == Accepted::Yes {
                self.over = !self.has_end && self.guide.must_end(left.saturating_sub(1))?;
                return Ok(sampled);
            }
            // With this token, there would be no room to complete the text: another one.
            logits.copy_from_slice(&kept);
            *state = before;
        }
    }

    /// Tokens that are likely to come next, because no other text may: at most `most`.
    pub(super) fn forced(&mut self, most: usize) -> Vec<u32> {
        // What fails here fails at the next mask too, which says so.
        let mut forced = self.guide.forced().unwrap_or_default();
        forced.truncate(most);
        forced
    }

    /// Whether the text is over, though no token has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.guide.bytes() + 4 * self.masks.capacity()
    }

    pub(super) fn times(&self) -> MaskTimes {
        let mut sorted = self.masks.clone();
        sorted.sort_by(f32::total_cmp);
        let at = |share: usize| {
            let last = sorted.len().saturating_sub(1);
            sorted.get((sorted.len() * share / 100).min(last)).copied().map_or(0.0, f64::from)
        };
        MaskTimes { first: self.first, p50: at(50), p99: at(99) }
    }
}

fn no_memory() -> Error {
    Error::new(ErrorKind::OutOfBudget, "there is no memory for the logits of a token that is constrained")
}
