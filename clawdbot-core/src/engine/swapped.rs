//! What a sequence has in the swap space, and pages on their way back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::LoosePages;
use crate::runtime::Extent;

/// What a sequence has in the swap space.
#[derive(Debug)]
pub(crate) struct Swapped {
    pub(super) extent: Arc<Extent>,
    /// Tokens that were in its pages.
    pub(super) computed: usize,
    /// Those of them that are still its first tokens.
    pub(super) valid: usize,
    pub(super) reading: Option<Arc<Reading>>,
}

/// Pages on their way back.
#[derive(Debug)]
pub(super) struct Reading<T = LoosePages> {
    pub(super) bytes: u64,
    state: Mutex<State<T>>,
    ended: Condvar,
}

#[derive(Debug)]
pub(super) enum State<T = LoosePages> {
    Running,
    /// The pages, and how many seconds it took.
    Done(T, f64),
    Failed,
}

impl<T> Reading<T> {
    /// Of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Reading { bytes, state: Mutex::new(State::Running), ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self, state: State<T>) {
        *self.lock() = state;
        self.ended.notify_all();
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(*self.lock(), State::Running)
    }

    /// How it has ended: the pages are the caller's.
    pub(super) fn take(&self) -> State<T> {
        std::mem::replace(&mut *self.lock(), State::Failed)
    }

    /// Waits until it has ended, at most so long.
    pub(super) fn wait(&self, most: Duration) {
        let running = |state: &mut State<T>| matches!(state, State::Running);
        drop(self.ended.wait_timeout_while(self.lock(), most, running));
    }
}

/// Says that reading has failed, unless it has ended: also when its thread could not start, or has panicked.
pub(super) struct Ending<T = LoosePages>(pub(super) Arc<Reading<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.end(State::Failed);
        }
    }
}

impl Swapped {
    /// Tokens that need not be computed once it is read.
    pub(super) fn tokens(&self) -> usize {
        self.valid
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.extent.bytes()
    }

    /// Bytes of pages that are on their way back.
    pub(super) fn reading_bytes(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.bytes)
    }

    /// For a fork: the same bytes.
    pub(super) fn share(&self) -> Self {
        Swapped {
            extent: Arc::clone(&self.extent),
            computed: self.computed,
            valid: self.valid,
            reading: None,
        }
    }

    /// Whether no other sequence has the same bytes.
    pub(super) fn is_own(&self) -> bool {
        Arc::strong_count(&self.extent) == 1
    }

    /// Whether its reading has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.has_ended())
    }
}
