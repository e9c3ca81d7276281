//! The events of a request, and what stops it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;

use super::slot::{Place, Slot};
use crate::api::loaded::Loaded;
use crate::cancel::{CancelHandle, Ticket, cancelled};
use crate::engine::{Engine, Job, Mailbox, Scores, SequenceId, Taken, TokenScore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Completion, Event, FinishReason};
use crate::forward::pooling::Pooler;
use crate::options::Driver;
use crate::runtime::Runtime;
use crate::sampling::Continuations;

/// The events of one request. Dropping it cancels the request.
///
/// It uses its model until it has given its last event.
pub struct Stream {
    id: SequenceId,
    runtime: Runtime,
    ticket: Ticket,
    mailbox: Arc<Mailbox>,
    /// None after the last event.
    slot: Option<Arc<Slot>>,
    /// What is left of the slot then.
    place: Option<Place>,
}

impl Stream {
    /// Gives the sequence of `slot`, whose engine is `engine`, a job, and returns its events. [`Stream::begun`] comes next.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub(super) fn start(slot: &Arc<Slot>, engine: &mut Engine, job: Job) -> Result<Self> {
        let mailbox = job.mailbox.receiver();
        let ticket = engine.start(slot.id, job)?;
        let runtime = slot.loaded.runtime.clone();
        runtime.wake_when_cancelled(&ticket);
        Ok(Stream { id: slot.id, runtime, ticket, mailbox, slot: Some(Arc::clone(slot)), place: None })
    }

    /// Lets computing begin, once the engine is not locked any more.
    pub(super) fn begun(self) -> Self {
        self.runtime.wake_driver();
        self
    }

    /// Notes what `event` means for what comes after it.
    fn note(&mut self, event: &Result<Option<Event>>) {
        if is_last(event) {
            self.place = self.slot.take().and_then(Slot::end_use);
        }
    }

    /// A handle that cancels this request.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.ticket.handle()
    }

    /// The next event; computes until there is one, or waits for it where a driver thread computes. `None` after the last.
    ///
    /// # Errors
    /// What ended the request: `OutOfBudget`, `NonFinite`, `Internal`. In the child of a fork, `ForkedRuntime`, or `Cancelled` where
    /// the request was.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let Some(slot) = &self.slot else { return Ok(None) };
        self.check_fork()?;
        let event = match self.runtime.driver() {
            Driver::Caller => next_event(&slot.loaded, self.id, &self.ticket),
            Driver::Thread => self.wait(),
        };
        self.note(&event);
        event
    }

    /// The next event of the driver thread.
    fn wait(&self) -> Result<Option<Event>> {
        self.taken(self.mailbox.wait())
    }

    /// In the child of a fork, a request that was cancelled is not one that goes on in the parent.
    ///
    /// # Errors
    /// `ForkedRuntime`; `Cancelled`.
    fn check_fork(&self) -> Result<()> {
        match self.runtime.pool().check_fork() {
            Err(_) if self.ticket.is_cancelled() => {
                let message =
                    "the request was cancelled: only the process that began it can read how it ended";
                Err(Error::new(ErrorKind::Cancelled, message))
            }
            checked => Ok(checked?),
        }
    }

    /// An event that was taken out of the mailbox.
    fn taken(&self, Taken { event, resumes }: Taken) -> Result<Option<Event>> {
        if resumes {
            self.runtime.wake_driver();
        }
        event.ok_or_else(another_request)?.map(Some)
    }

    /// The next event if there is one, without waiting; `Pending` if there is none yet.
    ///
    /// # Errors
    /// As [`Stream::next_event`]; `InvalidArgument` unless the runtime's `driver` is `thread`, as nobody computes otherwise.
    pub fn try_next_event(&mut self) -> Poll<Result<Option<Event>>> {
        if self.slot.is_none() {
            return Poll::Ready(Ok(None));
        }
        if let Err(error) = self.check_awaited() {
            return Poll::Ready(Err(error));
        }
        let event = match self.mailbox.try_take() {
            None => return Poll::Pending,
            Some(taken) => self.taken(taken),
        };
        self.note(&event);
        Poll::Ready(event)
    }

    /// Lets `listener`, in place of an earlier one, be called whenever [`Stream::try_next_event`] has something new to give, the end
    /// included; at once, if it has already. It is called with locks held, on the thread that computes or on any that is inside a
    /// call of this model: it must be quick, must not use this library, and must take no lock that is held during such calls. It is
    /// not called after the stream is dropped.
    ///
    /// # Errors
    /// `InvalidArgument` unless the runtime's `driver` is `thread`; `ForkedRuntime`.
    pub fn on_event(&mut self, listener: impl Fn() + Send + Sync + 'static) -> Result<()> {
        self.check_awaited()?;
        self.mailbox.listen(Box::new(listener));
        Ok(())
    }

    /// Stops the request, unless it has ended.
    fn stop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.ticket.cancel();
            if let Ok(mut engine) = slot.loaded.engine() {
                engine.stop(self.id, &self.ticket);
            }
            // What it held may be what others wait for.
            self.runtime.wake_driver();
        }
    }

    /// Whether events come without a caller that computes.
    fn check_awaited(&self) -> Result<()> {
        self.check_fork()?;
        match self.runtime.driver() {
            Driver::Thread => Ok(()),
            driver => {
                let message = format!("option driver: expected thread, to await events, found {driver}");
                Err(Error::invalid_argument(message).with("option", "driver").with("expected", "thread"))
            }
        }
    }

    /// Computes to the end, and takes the job for what it has besides its completion.
    fn ended_job(mut self) -> Result<Option<Box<Job>>> {
        // Longer than the last event keeps it.
        let slot = self.slot.clone();
        let completion = last_event(|| self.next_event())?;
        let Some(slot) = slot else { return Ok(None) };
        match completion.finish_reason {
            FinishReason::Cancelled => Err(stopped(&slot.loaded)),
            _ => Ok(slot.loaded.engine()?.stop(self.id, &self.ticket)),
        }
    }

    /// What the pooler of a stream that [`Session::pool`] began gives; computes until it is there.
    pub(crate) fn pooled(self) -> Result<Vec<f32>> {
        let job = self.ended_job()?;
        Ok(job.and_then(|job| job.pooler).map_or_else(Vec::new, Pooler::finish))
    }

    /// What a stream that [`Session::score_next`](super::Session::score_next) began gives; computes until it is there.
    pub(crate) fn scores(self) -> Result<Vec<TokenScore>> {
        let job = self.ended_job()?;
        match job.and_then(|job| job.scores) {
            Some(Scores::Next(next)) if next.found.len() == next.targets.len() => Ok(next.found),
            _ => Err(Error::internal("expected a score of each token, found others")),
        }
    }

    /// What a stream that [`Session::step`](super::Session::step) began gives; computes until it is there. Without continuations, why
    /// it was stopped.
    pub(crate) fn stepped(mut self) -> Result<std::result::Result<Continuations, FinishReason>> {
        // Longer than the last event keeps it.
        let slot = self.slot.clone();
        let reason = last_event(|| self.next_event())?.finish_reason;
        let Some(slot) = slot else { return Ok(Err(reason)) };
        let job = slot.loaded.engine()?.stop(self.id, &self.ticket);
        match (job.and_then(|job| job.next).and_then(|next| next.found), reason) {
            (Some(found), FinishReason::Length) => Ok(Ok(found)),
            (_, FinishReason::Cancelled | FinishReason::Deadline) => Ok(Err(reason)),
            _ => Err(Error::internal("expected continuations of a text, found none")),
        }
    }

    /// Computes to the end, and gives each event to `listener`. A break cancels the request, whose further events nobody
    /// gets; the completion comes all the same.
    ///
    /// # Errors
    /// As [`Stream::next_event`]; `Closed` when the completion was taken already.
    pub fn run(&mut self, mut listener: impl FnMut(Event) -> ControlFlow<()>) -> Result<Completion> {
        let mut listening = true;
        last_event(|| {
            let event = self.next_event()?;
            if let Some(event) = event.as_ref().filter(|_| listening)
                && listener(event.clone()).is_break()
            {
                self.ticket.cancel();
                listening = false;
            }
            Ok(event)
        })
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

/// Events that are awaited, by any executor; with `driver` thread alone, since nobody else would compute.
#[cfg(feature = "async")]
impl futures_core::Stream for Stream {
    type Item = Result<Event>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        if stream.slot.is_none() {
            return Poll::Ready(None);
        }
        if let Err(error) = stream.check_awaited() {
            // Who awaits the end would ask for ever.
            stream.stop();
            return Poll::Ready(Some(Err(error)));
        }
        let event = match stream.mailbox.poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(taken) => stream.taken(taken),
        };
        stream.note(&event);
        Poll::Ready(event.transpose())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // In the child of a fork, a thread that is not there may hold the lock.
        if self.runtime.pool().check_fork().is_ok() {
            self.mailbox.stop_listening();
        }
        self.stop();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.slot.is_none();
        f.debug_struct("Stream").field("id", &self.id).field("done", &done).finish_non_exhaustive()
    }
}

/// Runs one pass and takes those streams out of `running`, all of one model, that have ended: what they give is there. An error is
/// that of the pass, for each of them.
pub(crate) fn run_together<K>(running: &mut Vec<(K, Stream)>) -> Vec<(K, Result<Stream>)> {
    let Some(slot) = running.iter().find_map(|(_, stream)| stream.slot.as_ref()) else {
        return running.drain(..).map(|(key, stream)| (key, Ok(stream))).collect();
    };
    let loaded = Arc::clone(&slot.loaded);
    let step = || {
        let busy = loaded.step(loaded.engine()?)?;
        let mut engine = loaded.engine()?;
        let ended = |(_, stream): &(K, Stream)| {
            engine.job(stream.id, &stream.ticket).is_none_or(|job| job.is_finished())
        };
        let ended: Vec<bool> = running.iter().map(ended).collect();
        match busy || ended.contains(&true) {
            true => Ok(ended),
            false => Err(nothing_to_compute()),
        }
    };
    match step() {
        Err(error) => running.drain(..).map(|(key, _)| (key, Err(error.clone()))).collect(),
        Ok(ended) => {
            let mut ended = ended.into_iter();
            let done = running.extract_if(.., |_| ended.next().unwrap_or(true));
            done.map(|(key, stream)| (key, Ok(stream))).collect()
        }
    }
}

/// Takes the next event of a job; drives the engine until there is one. `None` when the job has given its last.
///
/// # Errors
/// `Closed` when the session has begun another request.
pub(super) fn next_event(loaded: &Loaded, id: SequenceId, ticket: &Ticket) -> Result<Option<Event>> {
    loop {
        // The lock is taken again for each step, so that callers who wait for it get their events in between.
        let mut engine = loaded.engine()?;
        let Some(job) = engine.job(id, ticket) else {
            return Err(another_request());
        };
        let running = !job.is_finished();
        if let Some(event) = job.mailbox.take() {
            return event.map(Some);
        }
        if !running {
            return Ok(None);
        }
        if !loaded.step(engine)? {
            return Err(nothing_to_compute());
        }
    }
}

/// Whether nothing comes after `event`.
fn is_last(event: &Result<Option<Event>>) -> bool {
    matches!(event, Err(_) | Ok(None | Some(Event::Done(_))))
}

fn another_request() -> Error {
    Error::new(ErrorKind::Closed, "the session has begun another request")
}

/// Waits for the end of a stream of events.
pub(super) fn last_event(mut next: impl FnMut() -> Result<Option<Event>>) -> Result<Completion> {
    while let Some(event) = next()? {
        if let Event::Done(completion) = event {
            return Ok(*completion);
        }
    }
    Err(Error::new(ErrorKind::Closed, "the stream has already given its completion"))
}

/// Why a job that has no completion to give was stopped.
pub(super) fn stopped(loaded: &Loaded) -> Error {
    match loaded.engine() {
        Ok(engine) if !engine.is_closed() => cancelled(),
        Ok(_) => Error::new(ErrorKind::Closed, "the model was closed meanwhile"),
        Err(error) => error,
    }
}

fn nothing_to_compute() -> Error {
    Error::internal("a request is running, but there is nothing to compute")
}
