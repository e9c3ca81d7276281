//! One forward pass: its shares, its outcome, and what happens to its sequences if it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::Engine;
use super::entry::SequenceId;
use super::sequence::Sequence;
use super::served::{Resources, Served};
use super::share::{Share, StatePositions};
use crate::cancel::Ticket;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::Adapter;
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::forward::scratch::Scratch;
use crate::metrics::Parts;

impl Engine {
    /// Runs one forward pass for all sequences that have work. Returns whether anything was done: a pass, or ending a
    /// cancelled job. Where nothing can be computed before pages come back from the swap space, it waits a little for them.
    ///
    /// # Errors
    /// Only if nothing can run for anyone, as in a forked child. An error of one sequence becomes an event of that
    /// sequence.
    pub(crate) fn step(&mut self, model: &impl Served) -> Result<bool> {
        let done = self.step_at_once(model)?;
        if self.waits {
            self.wait_for_reading();
        }
        Ok(done)
    }

    /// As [`Engine::step`], without waiting for pages: see [`Engine::waits_for_pages`].
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub(crate) fn step_at_once(&mut self, model: &impl Served) -> Result<bool> {
        self.waits = false;
        self.others.begin_step();
        let before = self.running();
        let done = self.pass(model);
        self.end_finished_jobs();
        self.release_ended();
        self.others.end_step();
        let now = Instant::now();
        (self.running()..before).for_each(|_| self.queue.end(now));
        self.measure();
        done
    }

    fn pass(&mut self, model: &impl Served) -> Result<bool> {
        let retired = self.retire_stopped();
        self.restart_rotated(model.longrope_from());
        let Some(mut shares) = self.plan(&model.limits(), model.max_context()) else { return Ok(retired) };
        if shares.is_empty() {
            return Ok(true);
        }
        // For those who ask while it is computed.
        self.measure();
        // Sort by adapter, so that each is applied once to neighbouring rows.
        shares.sort_by_key(|share| self.adapter(share.id).map(|adapter| adapter.id));
        let pass = || -> Result<Pass> {
            self.add_drafts(model, &mut shares);
            self.want_states(&mut shares);
            let started = Instant::now();
            self.meter.begin_pass(started);
            let pass = self.forward(model, &shares)?;
            if pass == Pass::Done {
                self.abandoned = false;
                let rows: usize = shares.iter().map(|share| share.rows).sum();
                self.costs.computed(rows, started.elapsed().as_secs_f64());
                self.counts.rows += rows as u64;
                self.work.compute(shares.iter().map(Share::certain).sum());
                let prompts = shares.iter().filter(|share| !share.decodes()).map(|share| share.rows).sum();
                self.deliver(model, &shares, started);
                let ended = Instant::now();
                let seconds = (ended - started).as_secs_f64();
                let decode = seconds * self.pacing.decode_share(prompts, rows, seconds);
                self.meter.end_pass(Parts { prefill: seconds - decode, decode }, ended);
                self.pacing.measure(prompts, seconds);
                if prompts == 0 {
                    self.controller.measure(rows, ended - started);
                }
                self.follow(model, &shares);
            }
            Ok(pass)
        };
        match catch_unwind(AssertUnwindSafe(pass)) {
            Ok(Ok(Pass::Cancelled)) => {
                self.abandoned = true;
                self.abandon(&shares);
                self.retire_stopped();
            }
            Ok(Ok(Pass::Done)) => {}
            Ok(Err(error)) if error.kind() == ErrorKind::ForkedRuntime => return Err(error),
            Ok(Err(error)) => {
                self.abandon(&shares);
                shares.iter().for_each(|share| self.fail(share.id, error.clone()));
            }
            Err(panic) => {
                // The panic may have left buffers and cached states half written: drop both. The sequences are computed
                // again.
                self.scratch = Scratch::default();
                self.drafters.reset();
                let error = panicked(&*panic);
                for share in &shares {
                    self.discard(share.id);
                    self.fail(share.id, error.clone());
                }
            }
        }
        Ok(true)
    }

    /// Evicts sequences whose length has crossed the LongRoPE threshold: their keys were rotated with other
    /// frequencies.
    fn restart_rotated(&mut self, longrope_from: Option<usize>) {
        let Some(from) = longrope_from else { return };
        let changed = |sequence: &Sequence| sequence.long != (sequence.tokens.len() > from);
        let ids: Vec<SequenceId> = self
            .sequences
            .iter()
            .filter(|(_, sequence)| sequence.makes_progress() && changed(sequence))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.discard(id);
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.long = !sequence.long;
            }
        }
    }

    /// After a pass that was not completed: recurrent states that it may have changed are discarded.
    pub(super) fn abandon(&mut self, shares: &[Share]) {
        for share in shares {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            sequence.computed = self.cache.abandon(&mut sequence.tables, share.start);
            // Positions that are computed again would be gathered twice, so gathering starts over.
            let gathers =
                sequence.job.as_ref().is_some_and(|job| job.scores.is_some() || job.pooler.is_some());
            if gathers && sequence.computed < share.start {
                self.discard(share.id);
            }
        }
    }

    fn adapter(&self, id: SequenceId) -> Option<&Adapter> {
        self.sequences.get(&id)?.adapter.as_deref()
    }

    pub(super) fn fail(&mut self, id: SequenceId, error: Error) {
        let job = self.sequences.get_mut(&id).and_then(|sequence| sequence.job.as_mut());
        if let Some(job) = job.filter(|job| !job.is_finished()) {
            job.fail(error);
        }
    }

    fn forward(&mut self, model: &impl Served, shares: &[Share]) -> Result<Pass> {
        #[cfg(test)]
        let trap = self.trap.clone();
        let Engine { cache, scratch, sequences, abandoned, .. } = self;
        let mut batch = Batch::new();
        let mut tickets = Vec::with_capacity(shares.len());
        for share in shares {
            let Some(sequence) = sequences.get(&share.id) else { continue };
            let drafts = sequence.guesses().iter().take(share.drafts).map(|guess| guess.token);
            let tokens = sequence.tokens[share.start..share.start + share.certain()].iter().copied();
            let tokens: Vec<u32> = tokens.chain(drafts).collect();
            let StatePositions { first, count } = share.states;
            let first = batch.rows() + first - share.start;
            batch.state_rows.extend(first..first + count);
            batch.push_of(sequence.tokens.len(), &tokens, share.start, share.logits, &sequence.tables);
            if !sequence.token_types.is_empty() {
                batch.push_types(&sequence.token_types[share.start..share.start + share.rows]);
            }
            if let Some(adapter) = &sequence.adapter {
                batch.adapt(adapter);
            }
            tickets.extend(sequence.job.as_ref().map(|job| job.ticket.clone()));
        }
        // One cancelled sequence ends the pass for all, who lose at most one: the next pass is not abandoned for some.
        let abandoned = *abandoned;
        let cancelled = || match abandoned {
            true => tickets.iter().all(Ticket::is_cancelled),
            false => tickets.iter().any(Ticket::is_cancelled),
        };
        let resources = Resources {
            cache,
            scratch,
            stop: &cancelled,
            #[cfg(test)]
            trap: trap.as_deref(),
        };
        model.forward(resources, &batch)
    }
}

/// The error that the requests of a pass get when it panics.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::internal(format!("a forward pass panicked: {text}"))
}
