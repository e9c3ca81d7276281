//! The engine of a model: all sequences, the page pool, and one forward pass at a time.
//!
//! There is no engine thread. Whoever waits for an event of a sequence drives the engine: it takes the lock, and
//! unless its event is there already, runs steps. A step serves *all* sequences that have work, so concurrent callers
//! batch together by themselves, and a single one is simply a batch of one.

mod deliver;
mod grants;
mod memory;
mod pass;
mod requests;
mod risk;
mod room;
mod scheduler;
mod sequence;
mod served;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_budget;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_served;
#[cfg(test)]
mod tests_simulation;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::KvCache;
use crate::cancel::Ticket;
use crate::error::{Error, ErrorKind, Result};
use crate::event::FinishReason;
use crate::forward::adapter::Adapter;
use crate::forward::scratch::Scratch;
use crate::runtime::Budget;

use pass::Share;
use requests::Requests;
pub(crate) use requests::reserved_bytes;
use risk::Work;
use scheduler::Turn;
pub(crate) use scheduler::{Limits, SCORE_ROWS};
pub(crate) use sequence::{Job, JobText, Sequence};
pub(crate) use served::{Resources, Served};

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the session is closed")
}

/// Number of a sequence in its engine.
pub(crate) type SequenceId = u64;

/// What was computed so far.
#[derive(Debug, Default)]
struct Counts {
    passes: u64,
    /// Tokens of all passes.
    rows: u64,
}

/// All sequences of a model and what they share.
pub(crate) struct Engine {
    cache: KvCache,
    scratch: Scratch,
    sequences: BTreeMap<SequenceId, Sequence>,
    next_id: SequenceId,
    /// Counts requests, for first come, first served.
    clock: u64,
    /// The model was closed: running jobs end as cancelled, and nothing new begins.
    closed: bool,
    /// The last pass was abandoned because of a cancelled sequence.
    abandoned: bool,
    counts: Counts,
    /// What was computed since there has been work.
    work: Work,
    requests: Requests,
    /// Called in each pass.
    #[cfg(test)]
    trap: Option<Arc<crate::forward::trap::Trap>>,
}

impl Engine {
    /// `reserved`: bytes that loading has reserved for requests.
    pub(crate) fn new(cache: KvCache, reserved: u64, budget: &Budget) -> Self {
        let (scratch, sequences) = (Scratch::default(), BTreeMap::new());
        let (counts, requests) = (Counts::default(), Requests::new(reserved, budget));
        Engine {
            cache,
            scratch,
            sequences,
            next_id: 0,
            clock: 0,
            closed: false,
            abandoned: false,
            counts,
            work: Work::default(),
            requests,
            #[cfg(test)]
            trap: None,
        }
    }

    /// A new sequence without tokens.
    ///
    /// # Errors
    /// `Closed`; `OutOfBudget`.
    pub(crate) fn open(&mut self) -> Result<SequenceId> {
        self.check_open()?;
        self.next_id += 1;
        let id = self.next_id;
        self.sequences.insert(id, Sequence::default());
        self.charge(id).inspect_err(|_| self.close(id))?;
        Ok(id)
    }

    fn check_open(&self) -> Result<()> {
        match self.closed {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Closed, "the model is closed")),
        }
    }

    /// Removes a sequence and gives back its pages.
    pub(crate) fn close(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.cache.release_all(&mut sequence.tables);
            self.requests.forget(sequence.charged);
        }
        if self.sequences.is_empty() {
            self.cache.trim();
        }
    }

    /// The sequence, to work on it.
    ///
    /// # Errors
    /// `Closed`; `InvalidArgument` while a job is running.
    pub(crate) fn idle(&mut self, id: SequenceId) -> Result<&mut Sequence> {
        self.check_open()?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        match sequence.is_running() {
            false => Ok(sequence),
            true => Err(Error::invalid_argument("the session has a stream that is not finished")),
        }
    }

    /// Adds tokens to an idle sequence.
    ///
    /// # Errors
    /// As [`Engine::idle`]; `OutOfBudget`. Nothing is added then.
    pub(crate) fn append(&mut self, id: SequenceId, tokens: &[u32]) -> Result<()> {
        let sequence = self.idle(id)?;
        let before = sequence.tokens.len();
        sequence.tokens.extend_from_slice(tokens);
        self.charge(id).inspect_err(|_| {
            // It was idle, and gets smaller.
            let _ = self.truncate(id, before);
        })
    }

    /// The tokens of a sequence.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) fn tokens(&self, id: SequenceId) -> Result<&[u32]> {
        self.sequences.get(&id).map(|sequence| sequence.tokens.as_slice()).ok_or_else(gone)
    }

    /// The job of a sequence that `ticket` belongs to; `None` when the sequence has gone on to another.
    pub(crate) fn job(&mut self, id: SequenceId, ticket: &Ticket) -> Option<&mut Job> {
        let job = self.sequences.get_mut(&id)?.job.as_mut()?;
        job.ticket.is(ticket).then_some(job)
    }

    /// Gives an idle sequence work; a finished job makes way.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn start(&mut self, id: SequenceId, mut job: Job) -> Result<Ticket> {
        self.idle(id)?;
        if !self.sequences.values().any(Sequence::is_running) {
            self.work = Work::default();
        }
        self.clock += 1;
        let ticket = job.ticket.clone();
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        // What is wanted first is logits, and they come from computing the last token: after `truncate`, again.
        let last = sequence.tokens.len().saturating_sub(1);
        if sequence.computed > last {
            sequence.computed = self.cache.truncate(&mut sequence.tables, last);
        }
        job.cached = sequence.computed;
        sequence.arrival = self.clock;
        sequence.turn = Turn { since: self.counts.passes, ..Turn::default() };
        sequence.job = Some(job);
        self.charge(id).inspect_err(|_| drop(self.stop(id, &ticket)))?;
        Ok(ticket)
    }

    /// Lets an idle sequence go on with another adapter, or with none: what is cached of it is computed again.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn adapt(&mut self, id: SequenceId, adapter: Option<Arc<Adapter>>) -> Result<()> {
        let number = |adapter: &Option<Arc<Adapter>>| adapter.as_ref().map(|adapter| adapter.id);
        if number(&self.idle(id)?.adapter) != number(&adapter) {
            self.evict(id);
            self.idle(id)?.adapter = adapter;
        }
        Ok(())
    }

    /// Takes the job of `ticket` away, finished or not, and says what it had become.
    pub(crate) fn stop(&mut self, id: SequenceId, ticket: &Ticket) -> Option<Job> {
        self.job(id, ticket)?;
        let job = self.sequences.get_mut(&id)?.job.take();
        self.release_ended();
        job
    }

    /// Keeps the first `length` tokens of an idle sequence.
    pub(crate) fn truncate(&mut self, id: SequenceId, length: usize) -> Result<()> {
        self.idle(id)?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        sequence.tokens.truncate(length);
        sequence.tokens.shrink_to_fit();
        if sequence.computed > length {
            sequence.computed = self.cache.truncate(&mut sequence.tables, length);
        }
        self.charge(id)
    }

    /// Cancels whatever is running, and lets nothing new begin. What sequences hold is freed, whoever still has them.
    pub(crate) fn shut(&mut self) {
        self.closed = true;
        for job in self.sequences.values().filter_map(|sequence| sequence.job.as_ref()) {
            job.ticket.cancel();
        }
        self.retire_cancelled();
        for sequence in self.sequences.values_mut() {
            self.cache.release_all(&mut sequence.tables);
            sequence.computed = 0;
        }
        self.cache.trim();
    }

    /// Ends the jobs that were cancelled. Returns whether there were any.
    fn retire_cancelled(&mut self) -> bool {
        let cancelled = |sequence: &&mut Sequence| sequence.job.as_ref().is_some_and(Job::is_cancelled);
        let retired = self.sequences.values_mut().filter(cancelled);
        retired.map(|sequence| sequence.finish(FinishReason::Cancelled)).count() > 0
    }

    /// Whether the model was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}
