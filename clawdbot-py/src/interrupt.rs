//! Work that Ctrl-C can stop: Python runs signal handlers on its main thread only, so the work moves to a helper thread
//! while the caller looks for signals.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clawdbot_core::{CancelHandle, Error, ErrorKind, Result};
use pyo3::prelude::*;

use crate::error::to_py;

/// Longest time between a signal and its handler.
const POLL: Duration = Duration::from_millis(20);
/// How long work that was cancelled may take to end.
const PATIENCE: Duration = Duration::from_millis(300);

/// Does `work`, interpreter released. If a signal handler raises, cancels, waits for the work to end, and gives the
/// handler's exception.
///
/// # Errors
/// The handler's exception, or the work's error.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    cancel: &[CancelHandle],
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let receiver = start(work)?;
    wait(py, cancel, receiver, None)
}

/// As [`interruptible`], but work that has not ended some time after it was cancelled is left to end on its own.
///
/// # Errors
/// As [`interruptible`].
pub(crate) fn interruptible_soon<T: Send + 'static>(
    py: Python<'_>,
    cancel: &CancelHandle,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let receiver = start(work)?;
    wait(py, std::slice::from_ref(cancel), receiver, Some(PATIENCE))
}

/// As [`interruptible`], for work that borrows.
///
/// # Errors
/// As [`interruptible`].
pub(crate) fn interruptible_here<T: Send>(
    py: Python<'_>,
    cancel: &CancelHandle,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        scope.spawn(move || drop(sender.send(work())));
        wait(py, std::slice::from_ref(cancel), receiver, None)
    })
}

/// Does `work` on a thread of its own.
fn start<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<Receiver<Result<T>>> {
    let (sender, receiver) = channel();
    // A caller who is gone does not take the result; the result of an interrupted call is dropped.
    let helper = move || drop(sender.send(work()));
    let spawned = std::thread::Builder::new().name("clawdbot-request".into()).spawn(helper);
    spawned.map_err(|error| to_py(Error::new(ErrorKind::Io, format!("starting a thread: {error}"))))?;
    Ok(receiver)
}

/// Waits for the result, and looks for signals; `patience`: how long for the end of what was cancelled.
fn wait<T: Send>(
    py: Python<'_>,
    cancel: &[CancelHandle],
    receiver: Receiver<Result<T>>,
    patience: Option<Duration>,
) -> PyResult<T> {
    let mut receiver = Some(receiver);
    let mut raised: Option<(PyErr, Instant)> = None;
    loop {
        let (back, received) = py.detach(|| {
            let receiver = receiver.take();
            let received = receiver.as_ref().map(|receiver| receiver.recv_timeout(POLL));
            (receiver, received)
        });
        receiver = back;
        match received {
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Ok(result)) => {
                return raised.map_or_else(|| result.map_err(to_py), |(exception, _)| Err(exception));
            }
            _ => return Err(to_py(Error::new(ErrorKind::Internal, "the helper thread panicked"))),
        }
        match raised.take() {
            None => {
                if let Err(exception) = py.check_signals() {
                    cancel.iter().for_each(CancelHandle::cancel);
                    raised = Some((exception, Instant::now()));
                }
            }
            Some((exception, since)) if patience.is_some_and(|patience| since.elapsed() > patience) => {
                return Err(exception);
            }
            waiting => raised = waiting,
        }
    }
}

/// Keeps a core object and drops it with the interpreter released: dropping may wait for a forward pass to end.
pub(crate) struct Released<T: Send>(Option<T>);

impl<T: Send> Released<T> {
    pub(crate) fn new(value: T) -> Self {
        Released(Some(value))
    }

    /// The object, until [`Released::take`].
    pub(crate) fn get(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    /// Takes the object out.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send> Drop for Released<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            // When the interpreter is gone, the closure is dropped and the object with it.
            Python::try_attach(|py| py.detach(|| drop(value)));
        }
    }
}
