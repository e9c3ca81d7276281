//! Tokens that are guessed before they are computed, and checked in a pass of their own sequence.
//!
//! A sequence that decodes brings its last token and some drafts. The logits of all these rows are the ones that a pass for each
//! token would give. So tokens are sampled from them in turn, until one is not the draft that follows. The rows after that are
//! forgotten. Drafts take rows, logits and memory that nobody else wants: they are the first thing to go.

use super::Engine;
use super::controller::{CLASSES, Controller, OF_MODEL, Prospect};
use super::draft_model::{DraftModel, Wish};
use super::entry::SCORE_ROWS;
use super::guess::Guess;
use super::ngram;
use super::sequence::{Job, Sequence};
use super::served::Served;
use super::share::Share;
use crate::cancel::Ticket;
use crate::metrics::MAX_DRAFTS;
use crate::options::Speculation;

/// Tokens that may follow, at most so many.
#[cfg(test)]
pub(super) type Guesser = dyn Fn(&[u32], usize) -> Vec<u32> + Send + Sync;

const _: () = assert!(OF_MODEL + (MAX_DRAFTS.ilog2() as usize) < CLASSES);

/// The class of a draft model's guess number `at`.
fn class_of_model(at: usize) -> usize {
    OF_MODEL + (at + 1).ilog2() as usize
}

impl Sequence {
    /// Guesses the next tokens, at most `most` of them.
    fn guess(&mut self, most: usize) {
        let Some(job) = self.job.as_mut() else { return };
        job.guesses.next = match job.options.speculation {
            _ if most == 0 => Vec::new(),
            // A draft model's come when their number is known.
            Speculation::None | Speculation::Draft => Vec::new(),
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
        let prospects: Vec<Prospect> = shares
            .iter()
            .map(|share| {
                let room = if decode { share.room.min(MAX_DRAFTS) } else { 0 };
                self.prospect(model, share, room)
            })
            .collect();
        let step = self.draft.as_ref().and_then(DraftModel::step);
        let counts = self.controller.choose(&prospects, rows, most, step);
        self.draft_by_model(model, shares, &counts);
        for (share, count) in shares.iter_mut().zip(counts) {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            let certain = share.start + share.rows;
            let count = count.min(sequence.guesses().len());
            if count == 0 {
                self.cache.drop_trials(&mut sequence.tables);
                continue;
            }
            let length = self.cache.grow_drafts(&mut sequence.tables, certain, certain + count);
            share.drafts = length - certain;
            (share.rows, share.logits) = (share.rows + share.drafts, share.logits + share.drafts);
        }
    }

    /// What the sequence of `share` could guess, at most `room` tokens.
    fn prospect(&mut self, model: &impl Served, share: &Share, room: usize) -> Prospect {
        let Some(sequence) = self.sequences.get_mut(&share.id) else { return Prospect::default() };
        // Beyond, all is computed again with other rotations.
        let to_rotation = model.longrope_from().and_then(|from| from.checked_sub(sequence.tokens.len()));
        let room = room.min(to_rotation.unwrap_or(usize::MAX));
        sequence.guess(room);
        #[cfg(test)]
        if let (Some(guesser), Some(job)) = (&self.guesser, &mut sequence.job) {
            let tokens = guesser(&sequence.tokens, room);
            job.guesses.next = tokens.into_iter().map(|token| Guess { token, class: 0 }).collect();
        }
        let Some(job) = sequence.job.as_ref() else { return Prospect::default() };
        // What the draft model holds is given up where memory is short.
        let modelled = job.options.speculation == Speculation::Draft && self.draft.is_some() && !self.short;
        let rate = |class: usize| self.controller.rate(&job.guesses.acceptance, class);
        let rates = match modelled {
            true => (0..room).map(|at| rate(class_of_model(at))).collect(),
            false => job.guesses.next.iter().map(|guess| rate(guess.class)).collect(),
        };
        Prospect { rates, modelled }
    }

    /// Lets the draft model guess as many tokens of each share as `counts` says.
    fn draft_by_model(&mut self, model: &impl Served, shares: &[Share], counts: &[usize]) {
        let Engine { draft: Some(draft), sequences, .. } = self else { return };
        let Some(draft_model) = model.draft_model() else { return };
        if self.short {
            draft.release();
            return;
        }
        let wishes = shares.iter().zip(counts).filter(|(_, count)| **count > 0);
        let wishes = wishes.filter_map(|(share, &most)| {
            let sequence = sequences.get(&share.id)?;
            let job = sequence.job.as_ref().filter(|job| job.options.speculation == Speculation::Draft)?;
            let (prompt_end, options) = (job.prompt_end, &job.options);
            Some(Wish { id: share.id, tokens: &sequence.tokens, prompt_end, options, most })
        });
        let wishes: Vec<Wish<'_>> = wishes.collect();
        if wishes.is_empty() {
            return;
        }
        let jobs = shares.iter().filter_map(|share| sequences.get(&share.id)?.job.as_ref());
        let tickets: Vec<_> = jobs.map(|job| job.ticket.clone()).collect();
        let stop = || tickets.iter().any(Ticket::is_cancelled);
        let Ok(found) = draft.draft(draft_model, &wishes, model.drawable(), &stop) else {
            // It has no memory, or is broken: there are no drafts.
            draft.release();
            return;
        };
        for (id, tokens) in found {
            let Some(job) = sequences.get_mut(&id).and_then(|sequence| sequence.job.as_mut()) else {
                continue;
            };
            let guesses = tokens.into_iter().enumerate();
            job.guesses.next =
                guesses.map(|(at, token)| Guess { token, class: class_of_model(at) }).collect();
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
