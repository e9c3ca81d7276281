//! Tokens that are guessed before they are computed, and checked in a pass of their own sequence.
//!
//! A sequence that decodes brings its last token and some drafts. The logits of all these rows are the ones that a pass for each
//! token would give. So tokens are sampled from them in turn, until one is not the draft that follows. The rows after that are
//! forgotten. Drafts take rows, logits and memory that nobody else wants: they are the first thing to go.

use super::Engine;
use super::controller::Controller;
use super::entry::SCORE_ROWS;
use super::guess::Guess;
use super::ngram;
use super::sequence::{Job, Sequence};
use super::served::Served;
use super::share::Share;
use crate::metrics::MAX_DRAFTS;
use crate::options::Speculation;

/// Tokens that may follow, at most so many.
#[cfg(test)]
pub(super) type Guesser = dyn Fn(&[u32], usize) -> Vec<u32> + Send + Sync;

impl Sequence {
    /// Guesses the next tokens, at most `most` of them.
    fn guess(&mut self, most: usize) {
        let Some(job) = self.job.as_mut() else { return };
        job.guesses.next = match job.options.speculation {
            _ if most == 0 => Vec::new(),
            Speculation::None => Vec::new(),
            Speculation::Ngram => ngram::look_up(&self.tokens, most),
        };
    }

    /// Its guesses for the next tokens.
    pub(super) fn guesses(&self) -> &[Guess] {
        self.job.as_ref().map_or(&[], |job| &job.guesses.next)
    }
}

impl Job {
    /// A pass has computed so many drafts.
    pub(super) fn add_drafts(&mut self, drafts: usize) {
        self.drafts += drafts;
        self.meter.count(|metrics| {
            metrics.draft_tokens += drafts as u64;
            metrics.drafts_by_position.iter_mut().take(drafts).for_each(|count| *count += 1);
        });
    }

    /// Compares a pass's token `number` with what was guessed; `drafts` guesses were computed. Returns whether the next row is
    /// that of this token.
    pub(super) fn check_guess(
        &mut self,
        controller: &mut Controller,
        number: usize,
        token: u32,
        drafts: usize,
    ) -> bool {
        let Some(guess) = self.guesses.next.get(number).copied() else { return false };
        let right = guess.token == token;
        controller.count(&mut self.guesses.acceptance, guess.class, right);
        let accepted = right && number < drafts;
        if let Some(count) = self.accepted.get_mut(number).filter(|_| accepted) {
            *count += 1;
            self.meter.count(|metrics| {
                metrics.accepted_tokens += 1;
                metrics.accepted_by_position[number] += 1;
            });
        }
        accepted
    }
}

impl Engine {
    /// Adds drafts to the shares of a pass, where that pays and all that is needed is there. A pass over prompts has none.
    pub(super) fn add_drafts(&mut self, model: &impl Served, shares: &mut [Share]) {
        let limits = model.limits();
        let rows = shares.len();
        let logits = SCORE_ROWS.max(limits.sequences).saturating_sub(rows);
        let most = limits.rows.saturating_sub(rows).min(logits);
        let decode = shares.iter().all(Share::decodes);
        let mut rates = vec![Vec::new(); rows];
        for (share, rates) in shares.iter().zip(&mut rates) {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            let length = sequence.tokens.len();
            // Beyond, all is computed again with other rotations.
            let to_rotation = model.longrope_from().and_then(|from| from.checked_sub(length));
            let room = if decode { share.room } else { 0 };
            sequence.guess(room.min(MAX_DRAFTS).min(to_rotation.unwrap_or(usize::MAX)));
            #[cfg(test)]
            if let (Some(guesser), Some(job)) = (&self.guesser, &mut sequence.job) {
                let most = room.min(MAX_DRAFTS).min(to_rotation.unwrap_or(usize::MAX));
                let tokens = guesser(&sequence.tokens, most);
                job.guesses.next = tokens.into_iter().map(|token| Guess { token, class: 0 }).collect();
            }
            let Some(job) = sequence.job.as_ref() else { continue };
            let rate = |guess: &Guess| self.controller.rate(&job.guesses.acceptance, guess.class);
            *rates = job.guesses.next.iter().map(rate).collect();
        }
        let counts = self.controller.choose(&rates, rows, most);
        for (share, count) in shares.iter_mut().zip(counts) {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            let certain = share.start + share.rows;
            if count == 0 {
                self.cache.drop_trials(&mut sequence.tables);
                continue;
            }
            let length = self.cache.grow_drafts(&mut sequence.tables, certain, certain + count);
            share.drafts = length - certain;
            (share.rows, share.logits) = (share.rows + share.drafts, share.logits + share.drafts);
        }
    }

    /// After a pass with drafts, when its tokens are known: forgets what belongs to wrong ones.
    pub(super) fn end_drafts(&mut self, share: &Share) {
        let Some(sequence) = self.sequences.get_mut(&share.id) else { return };
        self.cache.keep_drafts(&mut sequence.tables, sequence.computed);
        if !sequence.is_running() {
            // Nothing comes next.
            self.cache.drop_trials(&mut sequence.tables);
        }
        self.work.compute(sequence.computed - share.start - share.certain());
        sequence.settle(&mut self.cache, share.start);
    }
}
