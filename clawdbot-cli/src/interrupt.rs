//! Ctrl-C: stops a running computation; at any other time, or when pressed twice, ends the process.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawdbot_core::{CancelHandle, Error, ErrorKind, Result};

use crate::output::{INTERRUPTED, note};

struct State {
    /// Whether there is work to stop.
    working: bool,
    interrupted: bool,
    handles: Vec<CancelHandle>,
}

static STATE: Mutex<State> = Mutex::new(State { working: false, interrupted: false, handles: Vec::new() });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles Ctrl-C for the process.
///
/// # Errors
/// `Io` if the system refuses.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(on_interrupt).map_err(|error| Error::new(ErrorKind::Io, format!("Ctrl-C: {error}")))
}

fn on_interrupt() {
    let mut state = state();
    if !state.working || state.interrupted {
        if io::stderr().is_terminal() {
            note("");
        }
        std::process::exit(i32::from(INTERRUPTED));
    }
    state.interrupted = true;
    state.handles.iter().for_each(CancelHandle::cancel);
}

/// While it lives, Ctrl-C stops the work instead of the process.
pub(crate) struct Work(());

impl Work {
    /// Marks the start of work.
    pub(crate) fn begin() -> Self {
        *state() = State { working: true, interrupted: false, handles: Vec::new() };
        Work(())
    }

    /// Makes Ctrl-C cancel `handle` too.
    pub(crate) fn cancels(&self, handle: CancelHandle) {
        let mut state = state();
        if state.interrupted {
            handle.cancel();
        }
        state.handles.push(handle);
    }

    /// Whether the work goes on.
    pub(crate) fn next(&self) -> ControlFlow<()> {
        if self.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether Ctrl-C came.
    pub(crate) fn interrupted(&self) -> bool {
        state().interrupted
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        *state() = State { working: false, interrupted: false, handles: Vec::new() };
    }
}
