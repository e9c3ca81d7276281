//! The thread that computes for all models of a runtime, so that requests advance while nobody waits for them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use crate::error::Result;

/// What the thread does work for.
pub(crate) trait Driven: Send + Sync {
    /// Does a bounded part of the work. Returns whether there may be more.
    fn drive(&self) -> bool;
}

/// The thread of a runtime. It sleeps while there is no work, and ends when this is dropped.
pub(super) struct DriverThread {
    shared: Arc<Shared>,
    /// Started with the first model.
    handle: Mutex<Option<JoinHandle<()>>>,
    pid: u32,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    driven: Vec<Weak<dyn Driven>>,
    /// Work may have come since the thread looked last.
    woken: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn run(&self) {
        loop {
            let driven = {
                let mut state = self.lock();
                if state.stop {
                    return;
                }
                state.woken = false;
                state.driven.retain(|model| model.strong_count() > 0);
                state.driven.clone()
            };
            // What panics is asked again, and answers with an error. One model is held at a time, so that others can be freed.
            let drive = |model: &Weak<dyn Driven>| {
                let Some(model) = model.upgrade() else { return false };
                catch_unwind(AssertUnwindSafe(|| model.drive())).unwrap_or(true)
            };
            let busy = driven.iter().map(drive).fold(false, |busy, more| busy | more);
            if !busy {
                let state = self.changed.wait_while(self.lock(), |state| !state.woken && !state.stop);
                drop(state);
            }
        }
    }
}

impl DriverThread {
    pub(super) fn new() -> Self {
        DriverThread { shared: Arc::default(), handle: Mutex::new(None), pid: std::process::id() }
    }

    /// Adds something to drive, as long as it has owners.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread.
    pub(super) fn add(&self, driven: Weak<dyn Driven>) -> Result<()> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("clawdbot-driver".to_owned());
            *handle = Some(thread.spawn(move || shared.run()).map_err(clawdbot_kernels::Error::Thread)?);
        }
        self.shared.change(|state| {
            state.driven.push(driven);
            state.woken = true;
        });
        Ok(())
    }

    /// Says that there may be work.
    pub(super) fn wake(&self) {
        // The child of a fork has no such thread, and maybe a lock that nobody releases.
        if self.pid == std::process::id() {
            self.shared.change(|state| state.woken = true);
        }
    }
}

impl Drop for DriverThread {
    fn drop(&mut self) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(handle) = handle else { return };
        if self.pid != std::process::id() {
            std::mem::forget(handle);
            return;
        }
        self.shared.change(|state| state.stop = true);
        // The thread itself may have been the last owner of a model; it ends by itself then.
        if handle.thread().id() != thread::current().id() {
            // It catches panics, so joining cannot fail.
            let _ = handle.join();
        }
    }
}

impl fmt::Debug for DriverThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverThread").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Units of work, one of which panics.
    struct Work {
        left: AtomicU32,
        done: Mutex<Sender<u32>>,
    }

    impl Driven for Work {
        fn drive(&self) -> bool {
            let left = self.left.load(Ordering::SeqCst);
            if left == 0 {
                return false;
            }
            self.left.fetch_sub(1, Ordering::SeqCst);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).send(left).unwrap();
            assert!(left != 3, "a unit that panics");
            true
        }
    }

    fn work() -> (Arc<Work>, Receiver<u32>) {
        let (done, receiver) = channel();
        (Arc::new(Work { left: AtomicU32::new(0), done: Mutex::new(done) }), receiver)
    }

    #[test]
    fn work_is_done_when_it_comes_also_after_a_panic() {
        let driver = DriverThread::new();
        let (first, of_first) = work();
        let (second, of_second) = work();
        let weak = |work: &Arc<Work>| Arc::downgrade(&(Arc::clone(work) as Arc<dyn Driven>));
        driver.add(weak(&first)).unwrap();
        driver.add(weak(&second)).unwrap();
        for round in [4, 2, 7] {
            for work in [&first, &second] {
                work.left.store(round, Ordering::SeqCst);
            }
            driver.wake();
            for receiver in [&of_first, &of_second] {
                let done: Vec<u32> = receiver.iter().take(round as usize).collect();
                assert_eq!(done, (1..=round).rev().collect::<Vec<_>>());
            }
        }
        drop(second);
        first.left.store(1, Ordering::SeqCst);
        driver.wake();
        assert_eq!(of_first.recv().unwrap(), 1);
        drop(driver);
        // Nobody else holds it.
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
