//! Tokens that are guessed before they are computed, and checked in a pass of their own sequence.
//!
//! A sequence that decodes brings its last token and some drafts. The logits of all these rows are the ones that a pass for each
//! token would give. So tokens are sampled from them in turn, until one is not the draft that follows. The rows after that are
//! forgotten. Drafts take rows, logits and memory that nobody else wants: they are the first thing to go.

use super::Engine;
use super::controller::{Controller, Drafter, FORCED, Prospect};
use super::draft_model::Wish;
use super::entry::{SCORE_ROWS, SequenceId};
use super::guess::Guess;
use super::ngram;
use super::sequence::{Job, Sequence};
use super::served::Served;
use super::share::{Share, StatePositions};
use crate::cancel::Ticket;
use crate::metrics::MAX_DRAFTS;
use crate::options::Speculation;

/// Tokens that may follow, at most so many.
#[cfg(test)]
pub(super) type Guesser = dyn Fn(&[u32], usize) -> Vec<u32> + Send + Sync;

impl Sequence {
    /// Guesses the next tokens, at most `most` of them.
    fn guess(&mut self, most: usize) {
        let Some(job) = self.job.as_mut() else { return };
        // A constraint may leave one way to go on. Which tokens spell it is a guess.
        let forced =
            job.constrained.as_mut().filter(|_| most > 0).map(|constrained| constrained.forced(most));
        if let Some(forced) = forced.filter(|forced| !forced.is_empty()) {
            job.guesses.next = forced.into_iter().map(|token| Guess { token, class: FORCED }).collect();
            return;
        }
        job.guesses.next = match job.options.speculation {
            _ if most == 0 => Vec::new(),
            // Those of drafters come when their number is known.
            Speculation::None | Speculation::Draft | Speculation::Mtp => Vec::new(),
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
        if accepted && guess.class == FORCED {
            self.forced += 1;
        }
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
        let counts = self.controller.choose(&prospects, rows, most, self.drafters.steps());
        if self.short {
            self.drafters.release();
        } else {
            Drafter::ALL.into_iter().for_each(|drafter| self.draft(drafter, model, shares, &counts));
        }
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
        // What drafters hold is given up where memory is short.
        let drafter =
            self.drafters.of(job.options.speculation).filter(|_| !self.short && !job.guesses.are_forced());
        let rate = |class: usize| self.controller.rate(&job.guesses.acceptance, class);
        let rates = match drafter {
            Some(drafter) => {
                let able = self.drafters.can_draft(drafter, share.id, sequence.tokens.len());
                (0..if able { room } else { 0 }).map(|at| rate(drafter.class(at))).collect()
            }
            None => job.guesses.next.iter().map(|guess| rate(guess.class)).collect(),
        };
        Prospect { rates, drafter }
    }

    /// Lets `drafter` guess as many tokens of each of its shares as `counts` says.
    fn draft(&mut self, drafter: Drafter, model: &impl Served, shares: &[Share], counts: &[usize]) {
        let Engine { drafters, sequences, .. } = self;
        let wishes = shares.iter().zip(counts).filter(|(_, count)| **count > 0);
        let wishes = wishes.filter_map(|(share, &most)| {
            let sequence = sequences.get(&share.id)?;
            let job = sequence.job.as_ref()?;
            if drafters.of(job.options.speculation) != Some(drafter) || job.guesses.are_forced() {
                return None;
            }
            let (prompt_end, options, state) = (job.prompt_end, &job.options, job.sampling);
            Some(Wish { id: share.id, tokens: &sequence.tokens, prompt_end, options, state, most })
        });
        let wishes: Vec<Wish<'_>> = wishes.collect();
        if wishes.is_empty() {
            return;
        }
        let jobs = shares.iter().filter_map(|share| sequences.get(&share.id)?.job.as_ref());
        let tickets: Vec<_> = jobs.map(|job| job.ticket.clone()).collect();
        let stop = || tickets.iter().any(Ticket::is_cancelled);
        let found = drafters.draft(drafter, model, &wishes, &stop);
        for (id, tokens) in found {
            let Some(job) = sequences.get_mut(&id).and_then(|sequence| sequence.job.as_mut()) else {
                continue;
            };
            let guesses = tokens.into_iter().enumerate();
            job.guesses.next = guesses.map(|(at, token)| Guess { token, class: drafter.class(at) }).collect();
        }
    }

    /// Asks a pass for the states that the model's head reads, where they are wanted.
    pub(super) fn want_states(&mut self, shares: &mut [Share]) {
        for share in shares.iter_mut().filter(|_| !self.short) {
            let Some(job) = self.sequences.get(&share.id).and_then(|sequence| sequence.job.as_ref()) else {
                continue;
            };
            let generates = job.pooler.is_none() && job.scores.is_none();
            if generates && self.drafters.of(job.options.speculation) == Some(Drafter::Mtp) {
                share.states = StatePositions { first: share.start, count: share.rows };
            }
        }
    }

    /// After a pass: gives its states to the model's head, those of right tokens alone.
    pub(super) fn follow(&mut self, model: &impl Served, shares: &[Share]) {
        let Engine { drafters, sequences, scratch, .. } = self;
        let (Some(mtp), Some(head)) = (&mut drafters.mtp, model.mtp_head()) else { return };
        let width = model.hidden_size();
        let mut states = &scratch.states[..];
        for share in shares.iter().filter(|share| share.states.count > 0) {
            let Some((own, rest)) = states.split_at_checked(share.states.count * width) else { return };
            states = rest;
            let Some(sequence) = sequences.get(&share.id) else { continue };
            let generates = sequence.job.as_ref().is_some_and(|job| job.pooler.is_none());
            if generates && (sequence.is_running() || !sequence.once) {
                let rows = sequence.computed.saturating_sub(share.start).min(share.states.count);
                mtp.follow(share.id, share.start, &own[..rows * width]);
            }
        }
        let sequences = &*sequences;
        let tokens = |id: SequenceId| sequences.get(&id).map(|sequence| sequence.tokens.as_slice());
        if mtp.catch_up(head, tokens).is_err() {
            // It has no memory, or is broken: there are no drafts.
            mtp.release();
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
