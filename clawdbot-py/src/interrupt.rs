//! Work that Ctrl-C can stop: Python runs signal handlers on its main thread only, so the work moves to a helper thread
//! while the caller looks for signals.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clawdbot_core::{CancelHandle, Error, ErrorKind, Result};
use pyo3::prelude::*;

use crate::error::to_py;

/// Longest time between a signal and its handler.
const POLL: Duration = Duration::from_millis(20);

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
    let (sender, receiver) = channel();
    // A caller who is gone does not take the result; the result of an interrupted call is dropped.
    let helper = move || drop(sender.send(work()));
    let spawned = std::thread::Builder::new().name("clawdbot-request".into()).spawn(helper);
    spawned.map_err(|error| to_py(Error::new(ErrorKind::Io, format!("starting a thread: {error}"))))?;
    let mut receiver = Some(receiver);
    let mut raised = None;
    loop {
        let (back, received) = py.detach(|| {
            let receiver = receiver.take();
            let received = receiver.as_ref().map(|receiver| receiver.recv_timeout(POLL));
            (receiver, received)
        });
        receiver = back;
        match received {
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Ok(result)) => return raised.map_or_else(|| result.map_err(to_py), Err),
            _ => return Err(to_py(Error::new(ErrorKind::Internal, "the helper thread panicked"))),
        }
        if raised.is_none()
            && let Err(exception) = py.check_signals()
        {
            cancel.iter().for_each(CancelHandle::cancel);
            raised = Some(exception);
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
