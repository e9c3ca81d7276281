//! What a sequence has in the swap space, and pages on their way back.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::LoosePages;
use crate::cancel::Sleeper;
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
    /// Nobody wants the pages any more.
    given_up: AtomicBool,
}

#[derive(Debug)]
pub(super) enum State<T = LoosePages> {
    /// It has not begun to fill these.
    Queued(T),
    Running,
    /// The pages, and how many seconds it took.
    Done(T, f64),
    Failed,
}

impl<T> State<T> {
    /// Whether there is more to come.
    fn goes_on(&self) -> bool {
        matches!(self, State::Queued(_) | State::Running)
    }
}

impl<T> Reading<T> {
    /// Of so many bytes, into `pages`.
    pub(super) fn new(pages: T, bytes: u64) -> Self {
        let (state, given_up) = (Mutex::new(State::Queued(pages)), AtomicBool::new(false));
        Reading { bytes, state, ended: Condvar::new(), given_up }
    }

    /// The pages, for the thread that fills them; none if nobody wants them any more.
    pub(super) fn begin(&self) -> Option<T> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Running) {
            State::Queued(pages) => Some(pages),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Frees the pages; waits for the block that is being read.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        let running = |state: &mut State<T>| matches!(state, State::Running);
        let state = self.ended.wait_while(self.lock(), running);
        *state.unwrap_or_else(PoisonError::into_inner) = State::Failed;
    }

    /// Whether nobody wants the pages any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
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
        !self.lock().goes_on()
    }

    /// How it has ended: the pages are the caller's.
    pub(super) fn take(&self) -> State<T> {
        std::mem::replace(&mut *self.lock(), State::Failed)
    }

    /// Waits until it has ended, at most so long.
    pub(super) fn wait(&self, most: Duration) {
        let goes_on = |state: &mut State<T>| state.goes_on();
        drop(self.ended.wait_timeout_while(self.lock(), most, goes_on));
    }
}

/// Says that reading has failed, unless it has ended: also when its thread could not start, or has panicked.
pub(super) struct Ending<T = LoosePages> {
    pub(super) reading: Arc<Reading<T>>,
    /// Who is woken then.
    pub(super) sleeper: Option<Arc<dyn Sleeper>>,
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if !self.reading.has_ended() {
            self.reading.end(State::Failed);
        }
        self.sleeper.iter().for_each(|sleeper| sleeper.wake());
    }
}

/// Reads until nobody wants it any more.
pub(super) struct Wanted<'a, R> {
    pub(super) reader: R,
    pub(super) reading: &'a Reading,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reading.is_given_up() {
            true => Err(io::Error::other("given up")),
            false => self.reader.read(buffer),
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
