//! Tells Python that a stream has events. The thread that computes must not wait for the interpreter, which may wait for it in
//! turn; so a thread of this module calls Python in its place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use clawdbot_core::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::to_py;

/// Whom to call once when there is an event: several tasks may await one.
#[derive(Default)]
pub(crate) struct Listener {
    callbacks: Mutex<Vec<Py<PyAny>>>,
    /// Whether it waits for its call.
    queued: AtomicBool,
}

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Vec<Py<PyAny>>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `callback` be called at the next event.
    pub(crate) fn add(&self, callback: Py<PyAny>) {
        self.lock().push(callback);
    }

    /// Forgets `callback`, which need not be called any more.
    pub(crate) fn remove(&self, callback: &Py<PyAny>) {
        let mut callbacks = self.lock();
        let found = callbacks.iter().position(|other| other.is(callback));
        let removed = found.map(|at| callbacks.swap_remove(at));
        // Not with the lock: freeing may run any code.
        drop(callbacks);
        drop(removed);
    }

    /// Forgets all who wait.
    pub(crate) fn clear(&self) {
        let callbacks = std::mem::take(&mut *self.lock());
        drop(callbacks);
    }

    /// What the garbage collector is to know.
    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.callbacks.try_lock() {
            Ok(callbacks) => callbacks.iter().try_for_each(|callback| visit.call(callback)),
            Err(_) => Ok(()),
        }
    }

    /// Calls who waits.
    pub(crate) fn call(&self, py: Python<'_>) {
        self.queued.store(false, Ordering::SeqCst);
        let callbacks = std::mem::take(&mut *self.lock());
        // A loop that is closed has nobody who waits.
        callbacks.into_iter().for_each(|callback| drop(callback.call0(py)));
    }
}

/// Who is to be called.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: Vec<Arc<Listener>>,
    stopped: bool,
}

impl Queue {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn run(&self) {
        loop {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waits = |state: &mut State| state.ready.is_empty() && !state.stopped;
            let mut state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            let (ready, stopped) = (std::mem::take(&mut state.ready), state.stopped);
            drop(state);
            if stopped {
                return;
            }
            Python::try_attach(|py| ready.iter().for_each(|listener| listener.call(py)));
        }
    }
}

/// The thread that calls, of the process `pid`.
struct Caller {
    pid: u32,
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

static CALLER: Mutex<Option<Caller>> = Mutex::new(None);

/// Nothing that needs the interpreter may be done with this lock.
fn caller() -> MutexGuard<'static, Option<Caller>> {
    CALLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queue of this process, whose thread is started with the first listener.
fn queue() -> PyResult<Arc<Queue>> {
    let (mut caller, pid) = (caller(), std::process::id());
    match &*caller {
        // The child of a fork has no thread yet.
        Some(caller) if caller.pid == pid => Ok(Arc::clone(&caller.queue)),
        _ => {
            let queue = Arc::<Queue>::default();
            let run = {
                let queue = Arc::clone(&queue);
                move || queue.run()
            };
            // The parent's thread may have the number that this process's gets: it must not be detached in its place.
            caller.take().into_iter().for_each(|parent| std::mem::forget(parent.thread));
            let thread = std::thread::Builder::new().name("clawdbot-events".into()).spawn(run);
            let thread = thread
                .map_err(|error| to_py(Error::new(ErrorKind::Io, format!("starting a thread: {error}"))))?;
            *caller = Some(Caller { pid, queue: Arc::clone(&queue), thread });
            Ok(queue)
        }
    }
}

/// A function for the thread that computes, which lets `listener` be called soon.
///
/// # Errors
/// `Io` when the thread cannot be started.
pub(crate) fn ready(listener: Arc<Listener>) -> PyResult<impl Fn() + Send + Sync + 'static> {
    let queue = queue()?;
    Ok(move || {
        if !listener.queued.swap(true, Ordering::SeqCst) {
            queue.change(|state| state.ready.push(Arc::clone(&listener)));
        }
    })
}

/// Lets the thread end before the interpreter does.
pub(crate) fn end_at_exit(py: Python<'_>) -> PyResult<()> {
    let end = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let Some(Caller { pid, queue, thread }) = caller().take() else { return };
        if pid == std::process::id() {
            queue.change(|state| state.stopped = true);
            // Released, as it may wait for the interpreter. It does not panic.
            arguments.py().detach(|| drop(thread.join()));
        } else {
            std::mem::forget(thread);
        }
    };
    let end = PyCFunction::new_closure(py, None, None, end)?;
    py.import("atexit")?.call_method1("register", (end,))?;
    Ok(())
}
