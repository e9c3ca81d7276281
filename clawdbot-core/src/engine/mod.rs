//! The engine of a model: all sequences, the page pool, and one forward pass at a time.
//!
//! There is no engine thread. Whoever waits for an event of a sequence drives the engine: it takes the lock, and
//! unless its event is there already, runs steps. A step serves *all* sequences that have work, so concurrent callers
//! batch together by themselves, and a single one is simply a batch of one.

mod deliver;
mod memory;
mod requests;
mod room;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_budget;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::cache::KvCache;
use crate::error::{Error, ErrorKind, Result};
use crate::event::FinishReason;
use crate::model::batch::Batch;
use crate::model::decoder::{Decoder, ForwardContext, Pass};
use crate::model::scratch::Scratch;
use crate::model::spec::DecoderSpec;
use crate::model::{Adapter, Loaded};

use crate::runtime::Budget;

use requests::Requests;
pub(crate) use requests::reserved_bytes;
pub(crate) use room::Pages;
pub(crate) use scheduler::SCORE_ROWS;
use scheduler::{Limits, Turn};
pub(crate) use sequence::{Job, JobText, Sequence};

/// What tells the jobs of a sequence apart: the flag that cancels the job.
pub(crate) type Ticket = Arc<std::sync::atomic::AtomicBool>;

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the session is closed")
}

/// Number of a sequence in its engine.
pub(crate) type SequenceId = u64;

/// A sequence's share of a pass: tokens `start .. start + rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    id: SequenceId,
    start: usize,
    rows: usize,
    /// Number of last rows whose logits are wanted.
    logits: usize,
    /// First position whose state is wanted, and how many are.
    states: (usize, usize),
}

/// What was computed so far.
#[derive(Debug, Default)]
struct Counts {
    passes: u64,
    /// Tokens of all passes.
    rows: u64,
    /// Of them those whose results were thrown away for want of memory, so that they are computed again.
    again: u64,
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
    requests: Requests,
    /// Called by tasks of each pass.
    #[cfg(test)]
    trap: Option<fn(usize)>,
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
        Arc::ptr_eq(&job.cancelled, ticket).then_some(job)
    }

    /// Gives an idle sequence work; a finished job makes way.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn start(&mut self, id: SequenceId, mut job: Job) -> Result<Ticket> {
        self.idle(id)?;
        self.clock += 1;
        let ticket = Arc::clone(&job.cancelled);
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

    /// Runs one forward pass for all sequences that have work. Returns whether anything was done: a pass, or the end of
    /// a cancelled job.
    ///
    /// # Errors
    /// Only when nothing could be run for anybody, such as in a forked child; what concerns one sequence becomes an
    /// event of that sequence.
    pub(crate) fn step(&mut self, loaded: &Loaded) -> Result<bool> {
        let done = self.pass(loaded);
        self.release_ended();
        done
    }

    fn pass(&mut self, loaded: &Loaded) -> Result<bool> {
        let retired = self.retire_cancelled();
        self.rotate_anew(&loaded.decoder.spec);
        let options = &loaded.options;
        let limits = Limits {
            rows: options.prefill_chunk as usize,
            sequences: options.max_batch as usize,
            whole: loaded.decoder.spec.bidirectional,
        };
        let Some(mut shares) = self.plan(&limits, loaded.max_context) else { return Ok(retired) };
        if shares.is_empty() {
            return Ok(true);
        }
        // Sequences with the same adapter are neighbours, so that it is applied to all of them at once.
        shares.sort_by_key(|share| self.adapter(share.id).map(|adapter| adapter.id));
        let started = Instant::now();
        let pass = || -> Result<Pass> {
            let pass = self.forward(loaded, &shares)?;
            if pass == Pass::Done {
                self.abandoned = false;
                self.counts.rows += shares.iter().map(|share| share.rows as u64).sum::<u64>();
                self.deliver(loaded, &shares, started);
            }
            Ok(pass)
        };
        match catch_unwind(AssertUnwindSafe(pass)) {
            Ok(Ok(Pass::Cancelled)) => {
                self.abandoned = true;
                self.abandon(&shares);
                self.retire_cancelled();
            }
            Ok(Ok(Pass::Done)) => {}
            Ok(Err(error)) if error.kind() == ErrorKind::ForkedRuntime => return Err(error),
            Ok(Err(error)) => {
                self.abandon(&shares);
                shares.iter().for_each(|share| self.fail(share.id, error.clone()));
            }
            Err(panic) => {
                // What the pass had in hand may be half changed: buffers are made again, and what is cached of its sequences is
                // computed again.
                self.scratch = Scratch::default();
                let error = panicked(&*panic);
                for share in &shares {
                    self.evict(share.id);
                    self.fail(share.id, error.clone());
                }
            }
        }
        Ok(true)
    }

    /// Lets sequences begin again that have become so long (or short) that they are rotated by other frequencies.
    fn rotate_anew(&mut self, spec: &DecoderSpec) {
        let Some(from) = spec.longrope_from() else { return };
        let changed = |sequence: &Sequence| sequence.long != (sequence.tokens.len() > from);
        let ids: Vec<SequenceId> = self
            .sequences
            .iter()
            .filter(|(_, sequence)| sequence.makes_progress() && changed(sequence))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.evict(id);
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.long = !sequence.long;
            }
        }
    }

    /// After a pass that did not end: states that it has changed are not to be gone on from.
    fn abandon(&mut self, shares: &[Share]) {
        for share in shares {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            sequence.computed = self.cache.abandon(&mut sequence.tables, share.start);
            // What was gathered of positions that come again would count twice: all of it is gathered again.
            let gathers =
                sequence.job.as_ref().is_some_and(|job| job.scores.is_some() || job.pooler.is_some());
            if gathers && sequence.computed < share.start {
                self.evict(share.id);
            }
        }
    }

    /// Cancels whatever is running, and lets nothing new begin. What sequences hold is freed, whoever still has them.
    pub(crate) fn shut(&mut self) {
        self.closed = true;
        for job in self.sequences.values().filter_map(|sequence| sequence.job.as_ref()) {
            job.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
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

    fn adapter(&self, id: SequenceId) -> Option<&Adapter> {
        self.sequences.get(&id)?.adapter.as_deref()
    }

    fn fail(&mut self, id: SequenceId, error: Error) {
        let job = self.sequences.get_mut(&id).and_then(|sequence| sequence.job.as_mut());
        if let Some(job) = job.filter(|job| !job.is_finished()) {
            job.fail(error);
        }
    }

    /// Whether the model was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn forward(&mut self, loaded: &Loaded, shares: &[Share]) -> Result<Pass> {
        let Engine { cache, scratch, sequences, abandoned, .. } = self;
        let mut batch = Batch::new();
        let mut flags = Vec::with_capacity(shares.len());
        for share in shares {
            let Some(sequence) = sequences.get(&share.id) else { continue };
            let tokens = &sequence.tokens[share.start..share.start + share.rows];
            let (first, count) = share.states;
            let first = batch.rows() + first - share.start;
            batch.state_rows.extend(first..first + count);
            batch.push_of(sequence.tokens.len(), tokens, share.start, share.logits, &sequence.tables);
            if !sequence.token_types.is_empty() {
                batch.push_types(&sequence.token_types[share.start..share.start + share.rows]);
            }
            if let Some(adapter) = &sequence.adapter {
                batch.adapt(adapter);
            }
            flags.extend(sequence.job.as_ref().map(|job| Arc::clone(&job.cancelled)));
        }
        let is_set = |flag: &Ticket| flag.load(std::sync::atomic::Ordering::Relaxed);
        // One cancelled sequence ends the pass for all, who lose at most one: the next pass is not abandoned for some.
        let abandoned = *abandoned;
        let cancelled = || if abandoned { flags.iter().all(is_set) } else { flags.iter().any(is_set) };
        let runtime = &loaded.runtime;
        let decoder: &Decoder = &loaded.decoder;
        #[cfg(test)]
        let trap = self.trap;
        runtime.pool().region_until(&cancelled, |region| {
            #[cfg(test)]
            trap.iter().for_each(|trap| region.parallel(8, trap));
            let kernels = runtime.kernel_set();
            decoder.forward(&mut ForwardContext { kernels, region, cache, scratch }, &batch)
        })?
    }
}

/// A fault of this library, as what the requests of the pass get.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::internal(format!("a forward pass panicked: {text}"))
}
