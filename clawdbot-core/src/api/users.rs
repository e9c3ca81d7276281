//! Who uses a model: its handles, sessions and streams.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Called when the last user has gone.
type Freed = dyn Fn() + Send + Sync;

/// How many use an instance of a model.
#[derive(Default)]
pub(crate) struct Users {
    count: AtomicUsize,
    /// When the last one went.
    left: Mutex<Option<Instant>>,
    freed: OnceLock<Box<Freed>>,
}

impl Users {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// When the last one went; none while there is one, or was none yet.
    pub(super) fn left(&self) -> Option<Instant> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.filter(|_| self.count() == 0)
    }

    /// Calls `freed` whenever the last user has gone.
    pub(super) fn when_freed(&self, freed: Box<Freed>) {
        self.freed.get_or_init(|| freed);
    }
}

/// One user, as long as it lives.
pub(crate) struct User(Arc<Users>);

impl User {
    pub(crate) fn new(users: &Arc<Users>) -> Self {
        users.count.fetch_add(1, Ordering::SeqCst);
        User(Arc::clone(users))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.freed.get().into_iter().for_each(|freed| freed());
        }
    }
}
