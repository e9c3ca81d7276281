//! The thread that computes for all models of a runtime, so that requests advance while nobody waits for them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::own_thread::OwnThread;
use super::turns::{Next, Turns, choose};
use crate::cancel::Sleeper;
use crate::error::Result;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Thread, park, park_timeout};

/// What the thread does work for.
pub(crate) trait Driven: Send + Sync {
    /// Does a bounded part of the work. Returns when there may be more.
    fn drive(&self) -> Next;

    /// Highest priority of its work. Work of a higher priority is done first.
    fn urgency(&self) -> u32 {
        0
    }
}

/// The thread of a runtime. It sleeps while there is no work, and ends when this is dropped.
pub(crate) struct DriverThread {
    shared: Arc<Shared>,
    /// Started with the first model.
    thread: OwnThread,
}

/// One that is driven, as long as it has owners.
struct Member {
    driven: Weak<dyn Driven>,
    turns: Turns,
}

#[derive(Default)]
struct Shared {
    driven: Mutex<Vec<Member>>,
    /// Work may have come since the thread looked last.
    woken: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // When the last turn began, in the time of `turns.rs`.
        let mut clock = 0.0;
        loop {
            let woken = self.woken.swap(false, Ordering::SeqCst);
            // After the wake was taken, which may be the last one.
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let started = Instant::now();
            let chosen = {
                let mut members = self.lock();
                members.retain(|member| member.driven.strong_count() > 0);
                if woken {
                    members.iter_mut().for_each(|member| member.turns.wake());
                }
                let urgent = |member: &Member| member.driven.upgrade().map_or(0, |driven| driven.urgency());
                let all = members.iter().map(|member| (&member.turns, urgent(member)));
                let chosen = choose(all, clock, started);
                chosen.map(|(index, begin)| (Weak::clone(&members[index].driven), begin))
            };
            let (driven, begin) = match chosen {
                Ok(chosen) => chosen,
                Err(next) => {
                    self.sleep(next);
                    continue;
                }
            };
            // Held no longer than this, so that it can be freed.
            let Some(model) = driven.upgrade() else { continue };
            // What panics is asked again, and answers with an error.
            let next = catch_unwind(AssertUnwindSafe(|| model.drive())).unwrap_or(Next::Now);
            drop(model);
            clock = begin;
            let mut members = self.lock();
            if let Some(member) = members.iter_mut().find(|member| Weak::ptr_eq(&member.driven, &driven)) {
                member.turns.took(begin, started.elapsed(), next);
            }
        }
    }

    /// Waits for the next work.
    fn sleep(&self, next: Next) {
        while !self.woken.load(Ordering::SeqCst) {
            match next {
                Next::Now => return,
                Next::Woken => park(),
                Next::At(time) => match time.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => return,
                    left => park_timeout(left),
                },
            }
        }
    }
}

impl Sleeper for Shared {
    fn wake(&self) {
        // A swap, as the thread's: the second one sees all that came before the first.
        self.woken.swap(true, Ordering::SeqCst);
        self.thread.get().into_iter().for_each(Thread::unpark);
    }

    fn is_gone(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl DriverThread {
    pub(crate) fn new() -> Self {
        DriverThread { shared: Arc::default(), thread: OwnThread::new("clawdbot-driver") }
    }

    /// Adds something to drive, as long as it has owners, with a share of the thread's time.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread.
    pub(crate) fn add(&self, driven: Weak<dyn Driven>, share: u32) -> Result<()> {
        self.shared.lock().push(Member { driven, turns: Turns::new(share) });
        let shared = Arc::clone(&self.shared);
        let thread = self.thread.start(move || shared.run())?;
        self.shared.thread.get_or_init(|| thread);
        self.wake();
        Ok(())
    }

    /// Says that there may be work.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }

    /// The thread, for those that cancel its work.
    pub(crate) fn sleeper(&self) -> Arc<dyn Sleeper> {
        Arc::<Shared>::clone(&self.shared)
    }
}

impl Drop for DriverThread {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.stop.store(true, Ordering::SeqCst);
        self.thread.end(|| shared.wake());
    }
}

impl fmt::Debug for DriverThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverThread").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Units of work, one of which panics.
    struct Work {
        left: AtomicU32,
        done: Mutex<Sender<u32>>,
        /// When one more unit comes without a wake.
        later: Mutex<Option<Instant>>,
    }

    impl Driven for Work {
        fn drive(&self) -> Next {
            let left = self.left.load(Ordering::SeqCst);
            if left == 0 {
                return self.later.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(
                    Next::Woken,
                    |later| {
                        self.left.store(1, Ordering::SeqCst);
                        Next::At(later)
                    },
                );
            }
            self.left.fetch_sub(1, Ordering::SeqCst);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).send(left).unwrap();
            assert!(left != 3, "a unit that panics");
            Next::Now
        }
    }

    fn work() -> (Arc<Work>, Receiver<u32>) {
        let (done, receiver) = channel();
        (
            Arc::new(Work { left: AtomicU32::new(0), done: Mutex::new(done), later: Mutex::new(None) }),
            receiver,
        )
    }

    #[test]
    fn work_is_done_when_it_comes_also_after_a_panic() {
        let driver = DriverThread::new();
        let (first, of_first) = work();
        let (second, of_second) = work();
        let weak = |work: &Arc<Work>| Arc::downgrade(&(Arc::clone(work) as Arc<dyn Driven>));
        driver.add(weak(&first), 1).unwrap();
        driver.add(weak(&second), 3).unwrap();
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
        let later = Instant::now() + Duration::from_millis(20);
        *first.later.lock().unwrap() = Some(later);
        driver.wake();
        assert_eq!(of_first.recv().unwrap(), 1);
        assert!(Instant::now() >= later);
        drop(driver);
        // Nobody else holds it.
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
