//! One request's events, as an iterator.

use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::Duration;

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::completion::Completion;
use crate::error::{closed, invalid_argument, no_pickle, to_py};
use crate::event::Event;
use crate::interrupt::{Released, interruptible};
use crate::notify::{self, Listener};

type Shared = Arc<Mutex<Released<core::Stream>>>;

/// The events of one request. Iterating computes, with the interpreter released; leaving a `with` block cancels.
///
/// With the option `driver` `thread`, `async for event in stream` awaits events in asyncio. Cancelling the task that awaits one
/// cancels the request, and so does leaving an `async with` block, which does not hold up the event loop.
///
/// It is an iterator, not a list: each event is given once. Threads or tasks that read one stream share its events among them, and
/// all of them find its end. Who reads on after the end, or after `close` or `finish`, finds the end again, as with any iterator.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Stream {
    inner: Shared,
    cancel: core::CancelHandle,
    /// Whether the first token has come: the long wait, for the prompt, is over.
    decoding: AtomicBool,
    /// Who awaits the next event.
    listener: Arc<Listener>,
    /// Whether the core knows the listener.
    listens: AtomicBool,
}

impl Stream {
    pub(crate) fn new(stream: core::Stream) -> Self {
        let cancel = stream.cancel_handle();
        let inner = Arc::new(Mutex::new(Released::new(stream)));
        let (decoding, listens) = Default::default();
        Stream { inner, cancel, decoding, listener: Arc::default(), listens }
    }
}

/// How often a lock that is held only for moments is tried, a millisecond apart.
const TRIES: usize = 20;

impl Stream {
    /// The lock, for an event loop, which must not wait for a thread that computes.
    ///
    /// # Errors
    /// `InvalidArgument` while another thread waits for an event.
    fn lock_soon(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Released<core::Stream>>> {
        for _ in 0..TRIES {
            match self.inner.try_lock() {
                Ok(inner) => return Ok(inner),
                Err(TryLockError::Poisoned(inner)) => return Ok(inner.into_inner()),
                Err(TryLockError::WouldBlock) => py.detach(|| std::thread::sleep(Duration::from_millis(1))),
            }
        }
        Err(invalid_argument("the stream is in use by another thread"))
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

    fn __aiter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __anext__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("clawdbot._await")?.call_method1("next_event", (this,))
    }

    /// For `clawdbot._await`: whether there is something to read, and the event, None at the end. Otherwise `callback` is
    /// called once there is, on another thread.
    fn _poll(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<(bool, Option<Event>)> {
        let mut inner = self.lock_soon(py)?;
        let Some(stream) = inner.get() else { return Ok((true, None)) };
        if !self.listens.load(Ordering::Relaxed) {
            stream.on_event(notify::ready(Arc::clone(&self.listener))?).map_err(to_py)?;
            self.listens.store(true, Ordering::Relaxed);
        }
        // Before it looks, so that no event comes in between.
        self.listener.add(callback.clone_ref(py));
        let Poll::Ready(event) = stream.try_next_event() else { return Ok((false, None)) };
        drop(inner);
        self.listener.remove(&callback);
        // If this was the last event or an error, none comes that would wake the others.
        self.listener.call(py);
        Ok((true, event.map_err(to_py)?.map(Event::from)))
    }

    /// For `clawdbot._await`: frees the part of the cache of a stream that has ended, unless another thread has taken it
    /// to finish it.
    fn _free(&self, py: Python<'_>) {
        py.detach(|| {
            let stream = lock(&self.inner).take();
            drop(stream);
        });
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
        self.listener.call(py);
        interruptible(py, from_ref(&self.cancel), move || stream.finish()).map(Completion::from)
    }

    /// Cancels the request and frees its part of the cache.
    fn close(&self, py: Python<'_>) {
        self.cancel.cancel();
        py.detach(|| {
            let stream = lock(&self.inner).take();
            drop(stream);
        });
        // Who awaits an event finds the end.
        self.listener.call(py);
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __aenter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("clawdbot._await")?.call_method1("enter", (this,))
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(
        this: &Bound<'py, Self>,
        _exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("clawdbot._await")?.call_method1("leave", (this,))
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> &'static str {
        "<clawdbot.Stream>"
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.listener.visit(&visit)
    }

    fn __clear__(&self) {
        self.listener.clear();
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Stream"))
    }
}
