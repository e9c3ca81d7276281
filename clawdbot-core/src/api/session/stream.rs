//! The events of a request, and what stops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Slot;
use crate::api::model::{Loaded, last_event};
use crate::cancel::{CancelHandle, Ticket};
use crate::engine::SequenceId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Completion, Event, FinishReason};
use crate::forward::pooling::Pooler;

/// The events of one request. Dropping it cancels the request.
pub struct Stream {
    pub(super) slot: Arc<Slot>,
    pub(super) cancelled: Ticket,
    pub(super) done: bool,
}

impl Stream {
    /// A handle that cancels this request.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::of(&self.cancelled)
    }

    /// The next event; computes until there is one. `None` after the last.
    ///
    /// # Errors
    /// What ended the request: `OutOfBudget`, `NonFinite`, `ForkedRuntime`, `Internal`.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        if self.done {
            return Ok(None);
        }
        let event = next_event(&self.slot.loaded, self.slot.id, &self.cancelled);
        self.done = !matches!(event, Ok(Some(Event::Progress { .. } | Event::Token { .. })));
        event
    }

    /// What the pooler of a stream that [`Session::pool`] began gives; computes until it is there.
    pub(crate) fn pooled(mut self) -> Result<Vec<f32>> {
        let completion = last_event(|| self.next_event())?;
        if completion.finish_reason == FinishReason::Cancelled {
            return Err(Error::new(ErrorKind::Closed, "the model was closed meanwhile"));
        }
        let job = self.slot.loaded.engine()?.stop(self.slot.id, &self.cancelled);
        Ok(job.and_then(|job| job.pooler).map_or_else(Vec::new, Pooler::finish))
    }

    /// Computes to the end.
    ///
    /// # Errors
    /// As [`Stream::next_event`]; `Closed` when the completion was taken already.
    pub fn finish(mut self) -> Result<Completion> {
        last_event(|| self.next_event())
    }
}

impl Iterator for Stream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.next_event().transpose()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.done {
            self.cancelled.store(true, Ordering::Relaxed);
            if let Ok(mut engine) = self.slot.loaded.engine() {
                engine.stop(self.slot.id, &self.cancelled);
            }
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.slot.id).field("done", &self.done).finish_non_exhaustive()
    }
}

/// Runs one pass and takes those streams out of `running`, all of one model, that have ended, with what they gave.
pub(crate) fn run_together(running: &mut Vec<(usize, Stream)>) -> Vec<(usize, Result<Completion>)> {
    let Some((_, first)) = running.first() else { return Vec::new() };
    let loaded = Arc::clone(&first.slot.loaded);
    let step = || {
        let mut engine = loaded.engine()?;
        let busy = engine.step(&*loaded)?;
        let ended = |(_, stream): &(usize, Stream)| {
            engine.job(stream.slot.id, &stream.cancelled).is_none_or(|job| job.is_finished())
        };
        let ended: Vec<bool> = running.iter().map(ended).collect();
        match busy || ended.contains(&true) {
            true => Ok(ended),
            false => Err(nothing_to_compute()),
        }
    };
    match step() {
        Err(error) => running.drain(..).map(|(index, _)| (index, Err(error.clone()))).collect(),
        Ok(ended) => {
            let mut ended = ended.into_iter();
            let done = running.extract_if(.., |_| ended.next().unwrap_or(true));
            done.map(|(index, stream)| (index, stream.finish())).collect()
        }
    }
}

/// Takes the next event of a job; drives the engine until there is one. `None` when the job has given its last.
///
/// # Errors
/// `Closed` when the session has gone on to another request.
pub(super) fn next_event(loaded: &Loaded, id: SequenceId, ticket: &Ticket) -> Result<Option<Event>> {
    loop {
        // The lock is taken again for each step, so that callers who wait for it get their events in between.
        let mut engine = loaded.engine()?;
        let Some(job) = engine.job(id, ticket) else {
            return Err(Error::new(ErrorKind::Closed, "the session has gone on to another request"));
        };
        let running = !job.is_finished();
        if let Some(event) = job.events.pop_front() {
            return event.map(Some);
        }
        if !running {
            return Ok(None);
        }
        if !engine.step(loaded)? {
            return Err(nothing_to_compute());
        }
    }
}

fn nothing_to_compute() -> Error {
    Error::internal("a request is running, but there is nothing to compute")
}
