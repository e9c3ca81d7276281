//! The engine of a model: all its sequences, the page pool, and one forward pass at a time.
//!
//! With the option `driver` caller there is no engine thread: who waits for an event of its sequence takes the lock and runs
//! steps until the event is there. Otherwise the runtime's thread runs them (`runtime/driver.rs`). A step serves *all* sequences that have work, so concurrent callers are batched
//! together, and a single caller is a batch of one.

mod constrained;
mod controller;
mod costs;
mod deliver;
mod draft_model;
mod drafters;
mod ended;
mod entry;
mod grants;
mod groups;
mod guess;
mod job_text;
mod mailbox;
mod measure;
mod memory;
#[cfg(all(test, loom))]
mod models;
mod mtp;
mod ngram;
mod others;
mod pacing;
mod pass;
mod prefix;
mod prefix_swap;
mod queue;
mod requests;
mod risk;
mod room;
mod save;
mod scheduler;
mod scores;
mod sequence;
mod served;
mod share;
#[cfg(test)]
mod simulation;
mod speculation;
mod step;
mod swap;
mod swapped;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_budget;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_mtp;
#[cfg(test)]
mod tests_prefix_swap;
#[cfg(test)]
mod tests_served;
#[cfg(test)]
mod tests_simulation;
#[cfg(test)]
mod tests_speculation;
#[cfg(test)]
mod tests_swap;
#[cfg(test)]
mod tests_swapped;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::cache::KvCache;
use crate::cancel::{Sleeper, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::Adapter;
use crate::forward::scratch::Scratch;
use crate::metrics::Meter;
use crate::runtime::{Budget, SwapSpace};

pub(crate) use constrained::Constrained;
use controller::Controller;
use costs::Costs;
pub(crate) use draft_model::DraftModel;
use drafters::Drafters;
use entry::{HORIZON, Turn};
pub(crate) use entry::{Limits, SCORE_ROWS, SequenceId};
use groups::Groups;
pub(crate) use job_text::{JobText, Said};
pub(crate) use mailbox::{Mailbox, Taken};
pub(crate) use memory::Room;
pub(crate) use mtp::{Mtp, mtp_rows};
use others::Others;
use pacing::Pacing;
use prefix_swap::PrefixReading;
use queue::Queue;
use requests::Requests;
pub(crate) use requests::reserved_bytes;
use risk::Work;
pub(crate) use save::{Held, Image, SwappedImage, lost};
pub(crate) use scores::{NextTokens, PromptScores, Scores, TokenScore};
pub(crate) use sequence::{Job, Sequence};
pub(crate) use served::{Resources, Served};
use swapped::Swapped;

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the session is closed")
}

/// Passes and rows computed since the model was loaded.
#[derive(Debug, Default)]
struct Counts {
    passes: u64,
    /// Tokens of all passes together.
    rows: u64,
}

/// All sequences of a model and what they share.
pub(crate) struct Engine {
    cache: KvCache,
    scratch: Scratch,
    sequences: BTreeMap<SequenceId, Sequence>,
    next_id: SequenceId,
    queue: Queue,
    groups: Groups,
    /// Most requests that wait to begin.
    max_queue: Option<usize>,
    /// The model was closed: running jobs end as cancelled, and no new one starts.
    closed: bool,
    /// The last pass was abandoned because of a cancelled sequence.
    abandoned: bool,
    counts: Counts,
    /// Work since the engine was last without a running job.
    work: Work,
    requests: Requests,
    pacing: Pacing,
    meter: Meter,
    controller: Controller,
    /// Where sequences leave pages that they lose.
    swap: Option<SwapSpace>,
    costs: Costs,
    prefix_readings: Vec<PrefixReading>,
    /// Whom to wake when pages have come back.
    sleeper: Option<Arc<dyn Sleeper>>,
    /// The latest step had nothing to compute before pages come back.
    waits: bool,
    /// Highest priority of the requests that make progress, for those who have no lock.
    urgency: Arc<AtomicU32>,
    drafters: Drafters,
    others: Others,
    /// Memory was too small for all requests to grow to their ends when the latest pass was planned.
    short: bool,
    /// Test hook, called in every pass.
    #[cfg(test)]
    trap: Option<Arc<crate::forward::trap::Trap>>,
    /// Test hook: guesses instead of what a request asks for.
    #[cfg(test)]
    guesser: Option<Arc<speculation::Guesser>>,
}

impl Engine {
    /// `reserved`: bytes that loading has reserved for requests. It counts what it does in `meter`.
    pub(crate) fn new(cache: KvCache, reserved: u64, budget: &Budget, meter: Meter) -> Self {
        let (scratch, sequences) = (Scratch::default(), BTreeMap::new());
        let (counts, requests) = (Counts::default(), Requests::new(reserved, budget));
        Engine {
            cache,
            scratch,
            sequences,
            next_id: 0,
            queue: Queue::default(),
            groups: Groups::default(),
            max_queue: None,
            closed: false,
            abandoned: false,
            counts,
            work: Work::default(),
            requests,
            pacing: Pacing::default(),
            meter,
            controller: Controller::default(),
            swap: None,
            costs: Costs::default(),
            prefix_readings: Vec::new(),
            sleeper: None,
            waits: false,
            urgency: Arc::default(),
            drafters: Drafters::default(),
            others: Others::new(budget),
            short: false,
            #[cfg(test)]
            trap: None,
            #[cfg(test)]
            guesser: None,
        }
    }

    /// Opens a sequence without tokens.
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

    /// Opens a sequence that begins as the idle sequence `id` is, with what that has cached.
    ///
    /// # Errors
    /// As [`Engine::idle`]; `OutOfBudget`.
    pub(crate) fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        self.idle(id)?;
        let copy = self.open()?;
        let Some(original) = self.sequences.get(&id) else { return Err(gone()) };
        let fork = Sequence {
            tokens: original.tokens.clone(),
            token_types: original.token_types.clone(),
            computed: original.computed,
            tables: self.cache.fork(&original.tables),
            swapped: original.swapped.as_ref().map(Swapped::share),
            adapter: original.adapter.clone(),
            long: original.long,
            restored: original.restored,
            rank: original.rank,
            turn: original.turn,
            ..Sequence::default()
        };
        if let Some(place) = self.sequences.get_mut(&copy) {
            *place = Sequence { charged: place.charged, ..fork };
        }
        self.charge(copy).inspect_err(|_| self.close(copy))?;
        Ok(copy)
    }

    fn check_open(&self) -> Result<()> {
        match self.closed {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Closed, "the model is closed")),
        }
    }

    /// Removes a sequence and gives back its pages.
    pub(crate) fn close(&mut self, id: SequenceId) {
        self.end_jobs(&[id]);
        if let Some(mut sequence) = self.sequences.remove(&id) {
            sequence.forget_swapped();
            self.cache.release_all(&mut sequence.tables);
            self.requests.forget(sequence.charged);
            self.drafters.forget(id);
        }
        if self.sequences.is_empty() {
            self.cache.trim();
        }
    }

    /// The sequence `id`, for changes while no job runs.
    ///
    /// # Errors
    /// `Closed`; `InvalidArgument` while a job is running.
    pub(crate) fn idle(&mut self, id: SequenceId) -> Result<&mut Sequence> {
        self.check_open()?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        match sequence.is_running() {
            false => Ok(sequence),
            true => Err(Error::invalid_argument(
                "expected an idle session, found one with an unfinished stream: read it to its end or cancel it",
            )),
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
            // Cannot fail: the sequence is idle and shrinks.
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

    /// The job of sequence `id` that `ticket` stands for; `None` if the sequence works on another job by now.
    pub(crate) fn job(&mut self, id: SequenceId, ticket: &Ticket) -> Option<&mut Job> {
        let job = self.sequences.get_mut(&id)?.job.as_mut()?;
        job.ticket.is(ticket).then_some(job)
    }

    /// Gives an idle sequence a job, in place of its finished one.
    ///
    /// # Errors
    /// As [`Engine::idle`]; `Overloaded` if too many wait.
    pub(crate) fn start(&mut self, id: SequenceId, mut job: Job) -> Result<Ticket> {
        self.idle(id)?;
        if !job.admitted {
            self.check_queue()?;
        }
        job.meter = self.meter.clone();
        self.end_jobs(&[id]);
        if self.running() == 0 {
            self.work = Work::default();
            self.queue.rest();
            self.groups.rest();
        }
        let ticket = job.ticket.clone();
        if job.prompt_scores.is_some() {
            // Logits of what is cached are not there any more.
            self.discard(id);
        }
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        // A job starts from the logits of the last token, so that token is computed again if `truncate` left it cached.
        let last = sequence.tokens.len().saturating_sub(1);
        if sequence.computed > last {
            sequence.computed = self.cache.truncate(&mut sequence.tables, last);
        }
        if sequence.reach() > last {
            self.shorten_swapped(id, last);
        }
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        job.cached = sequence.reach();
        let left = sequence.tokens.len() - job.cached;
        let step = job.next.is_some();
        let more = if step { 0 } else { HORIZON.min(job.options.max_tokens as usize) };
        let tokens = left.saturating_add(more);
        self.urgency.fetch_max(job.options.priority, Ordering::Relaxed);
        sequence.rank = self.queue.rank(job.options.priority, job.options.group.as_deref(), tokens);
        job.charged = tokens.max(1);
        job.group = self.groups.key(job.options.priority, job.options.group.as_deref());
        // A search goes on in its turn, step by step.
        let passes = if step { sequence.turn.passes } else { 0 };
        sequence.turn = Turn { passes, since: self.counts.passes, ..Turn::default() };
        sequence.job = Some(Box::new(job));
        self.charge(id).inspect_err(|_| drop(self.stop(id, &ticket)))?;
        Ok(ticket)
    }

    /// # Errors
    /// `Overloaded` if as many requests wait as may.
    pub(crate) fn check_queue(&self) -> Result<()> {
        let Some(most) = self.max_queue else { return Ok(()) };
        let waits = |sequence: &&Sequence| {
            sequence.job.as_ref().is_some_and(|job| !job.is_finished() && job.prefill_started.is_none())
        };
        match self.sequences.values().filter(waits).count() {
            waiting if waiting >= most => {
                self.meter.count(|metrics| metrics.requests.refused += 1);
                Err(self.queue.overloaded(waiting))
            }
            _ => Ok(()),
        }
    }

    /// Takes drafts from another model, too.
    pub(crate) fn draft_from(&mut self, draft: DraftModel) {
        self.drafters.model = Some(draft);
    }

    /// Takes drafts from the model's own head, too.
    pub(crate) fn draft_ahead(&mut self, mtp: Mtp) {
        self.drafters.mtp = Some(mtp);
    }

    /// Bytes that drafters hold.
    fn draft_bytes(&self) -> u64 {
        self.drafters.bytes()
    }

    /// Lets at most so many requests wait to begin.
    pub(crate) fn bound_queue(&mut self, most: Option<u32>) {
        self.max_queue = most.map(|most| most as usize);
    }

    /// Lets decoding sequences have tokens so many milliseconds apart, at the expense of prompts.
    pub(crate) fn keep_pace(&mut self, milliseconds: Option<u32>) {
        self.pacing = Pacing::new(milliseconds);
    }

    /// What of `reserved` bytes that are to be reserved for requests from now on, and of those that are now, has to be.
    pub(crate) fn reserves(&self, reserved: u64) -> u64 {
        self.requests.reserves(reserved)
    }

    /// The bounds of passes have changed, and so have the bytes reserved for requests, as [`Engine::reserves`] said.
    pub(crate) fn rebound(&mut self, reserved: u64) {
        self.requests.rebound(reserved);
        // Made again, as large as they may be now.
        self.scratch = Scratch::default();
    }

    /// The adapters of all sequences.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = &Arc<Adapter>> {
        self.sequences.values().filter_map(|sequence| sequence.adapter.as_ref())
    }

    /// Switches an idle sequence to another adapter, or to none. What it has cached is dropped and computed again.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn adapt(&mut self, id: SequenceId, adapter: Option<Arc<Adapter>>) -> Result<()> {
        let number = |adapter: &Option<Arc<Adapter>>| adapter.as_ref().map(|adapter| adapter.id);
        if number(&self.idle(id)?.adapter) != number(&adapter) {
            self.discard(id);
            self.idle(id)?.adapter = adapter;
        }
        Ok(())
    }

    /// Takes the job of `ticket` off the sequence, finished or not, and returns it.
    pub(crate) fn stop(&mut self, id: SequenceId, ticket: &Ticket) -> Option<Box<Job>> {
        self.job(id, ticket)?;
        self.end_jobs(&[id]);
        let job = self.sequences.get_mut(&id)?.job.take();
        if job.as_ref().is_some_and(|job| !job.is_finished() && job.next.is_none()) {
            self.meter.count(|metrics| metrics.requests.cancelled += 1);
        }
        self.release_ended();
        job
    }

    /// Keeps the first `length` tokens of an idle sequence.
    pub(crate) fn truncate(&mut self, id: SequenceId, length: usize) -> Result<()> {
        self.idle(id)?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(gone)?;
        sequence.tokens.truncate(length);
        self.drafters.truncate(id, length);
        sequence.tokens.shrink_to_fit();
        if sequence.computed > length {
            sequence.computed = self.cache.truncate(&mut sequence.tables, length);
        }
        self.shorten_swapped(id, length);
        self.charge(id)
    }

    /// Cancels everything that runs and lets nothing new start. Frees what sequences hold, even those with an open
    /// handle.
    pub(crate) fn shut(&mut self) {
        self.closed = true;
        for job in self.sequences.values().filter_map(|sequence| sequence.job.as_ref()) {
            job.ticket.cancel();
        }
        self.retire_stopped();
        for sequence in self.sequences.values_mut() {
            self.cache.release_all(&mut sequence.tables);
            sequence.forget_swapped();
            sequence.computed = 0;
        }
        self.drafters.release();
        self.stop_prefix_readings();
        self.cache.forget_prefixes();
        self.cache.trim();
        self.measure();
    }

    /// Ends the jobs that were cancelled, or whose time is over. Returns whether there were any.
    fn retire_stopped(&mut self) -> bool {
        let stopped = |sequence: &mut Sequence| {
            let reason = sequence.job.as_ref()?.stopped()?;
            sequence.finish(reason);
            Some(())
        };
        self.sequences.values_mut().filter_map(stopped).count() > 0
    }

    /// When the next job ends by its deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.sequences.values().filter_map(|sequence| sequence.job.as_ref()?.ends_at()).min()
    }

    /// Number of jobs that have not ended.
    fn running(&self) -> usize {
        self.sequences.values().filter(|sequence| sequence.is_running()).count()
    }

    /// Ends all running jobs with an error.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        let running = self.sequences.values_mut().filter(|sequence| sequence.is_running());
        running.filter_map(|sequence| sequence.job.as_mut()).for_each(|job| job.fail(error.clone()));
    }

    /// Whether the model was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}
