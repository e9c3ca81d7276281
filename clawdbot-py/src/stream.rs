//! One request's events, as an iterator.

use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::{closed, no_pickle, to_py};
use crate::event::{Completion, Event};
use crate::interrupt::{Released, interruptible};

type Shared = Arc<Mutex<Released<core::Stream>>>;

/// The events of one request. Iterating computes, with the interpreter released; leaving a `with` block cancels.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Stream {
    inner: Shared,
    cancel: core::CancelHandle,
    /// Whether the first token has come: the long wait, for the prompt, is over.
    decoding: AtomicBool,
}

impl Stream {
    pub(crate) fn new(stream: core::Stream) -> Self {
        let cancel = stream.cancel_handle();
        let inner = Arc::new(Mutex::new(Released::new(stream)));
        Stream { inner, cancel, decoding: AtomicBool::new(false) }
    }
}

fn lock(inner: &Shared) -> MutexGuard<'_, Released<core::Stream>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Stream {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Event>> {
        py.check_signals().inspect_err(|_| self.cancel.cancel())?;
        let inner = Arc::clone(&self.inner);
        let next = move || lock(&inner).get().map_or(Ok(None), core::Stream::next_event);
        let event = match self.decoding.load(Ordering::Relaxed) {
            true => py.detach(next).map_err(to_py)?,
            false => interruptible(py, from_ref(&self.cancel), next)?,
        };
        if matches!(event, Some(core::Event::Token { .. })) {
            self.decoding.store(true, Ordering::Relaxed);
        }
        Ok(event.map(Event::from))
    }

    /// Asks the request to stop, from any thread. The stream then ends with a completion whose `finish_reason` is
    /// `cancelled`.
    fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Computes to the end and gives the completion. Raises `Closed` when it was taken already.
    pub(crate) fn finish(&self, py: Python<'_>) -> PyResult<Completion> {
        let inner = Arc::clone(&self.inner);
        let take = move || lock(&inner).take();
        let stream = py.detach(take).ok_or_else(|| closed("stream"))?;
        interruptible(py, from_ref(&self.cancel), move || stream.finish()).map(Completion::from)
    }

    /// Cancels the request and frees its part of the cache.
    fn close(&self, py: Python<'_>) {
        self.cancel.cancel();
        py.detach(|| drop(lock(&self.inner).take()));
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> &'static str {
        "<clawdbot.Stream>"
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Stream"))
    }
}
