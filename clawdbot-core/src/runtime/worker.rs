//! A thread that does one job after another, from the first one on.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::own_thread::OwnThread;
use crate::error::Result;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that starts with its first job. It sleeps without any, and ends when this is dropped.
pub(super) struct Worker {
    queue: Arc<Queue>,
    thread: OwnThread,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stop: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let wait = |state: &mut State| state.jobs.is_empty() && !state.stop;
            let mut state =
                self.changed.wait_while(self.lock(), wait).unwrap_or_else(PoisonError::into_inner);
            let Some(job) = state.jobs.pop_front() else { return };
            drop(state);
            // Who waits for a job that panics is told by what the job owned, when that is dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

impl Worker {
    pub(super) fn new(name: &'static str) -> Self {
        Worker { queue: Arc::default(), thread: OwnThread::new(name) }
    }

    /// One as the child of a fork has it.
    #[cfg(test)]
    pub(super) fn of_parent() -> Self {
        Worker { queue: Arc::default(), thread: OwnThread::of_parent() }
    }

    /// Whether this is not the child of a fork, which has no such thread.
    pub(super) fn is_here(&self) -> bool {
        self.thread.is_here()
    }

    /// Adds a job.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread; the job is dropped then.
    pub(super) fn spawn(&self, job: Job) -> Result<()> {
        let queue = Arc::clone(&self.queue);
        self.thread.start(move || queue.run())?;
        self.queue.lock().jobs.push_back(job);
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let queue = &self.queue;
        self.thread.end(|| {
            queue.lock().stop = true;
            queue.changed.notify_one();
        });
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("thread", &self.thread).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_also_after_a_panic() {
        let worker = Worker::new("test");
        let (done, receiver) = channel();
        for job in 0..5 {
            let done = done.clone();
            let job = move || {
                assert_ne!(job, 2, "a job that panics");
                done.send(job).unwrap();
            };
            worker.spawn(Box::new(job)).unwrap();
        }
        drop(done);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 3, 4]);
        drop(worker);
    }

    #[test]
    fn a_job_may_be_the_last_owner() {
        let worker = Arc::new(Worker::new("test"));
        let (done, receiver) = channel();
        let (owner, go) = (Arc::clone(&worker), Mutex::new(receiver));
        let (ended, end) = channel();
        worker
            .spawn(Box::new(move || {
                go.lock().unwrap().recv().unwrap();
                drop(owner);
                ended.send(()).unwrap();
            }))
            .unwrap();
        drop(worker);
        done.send(()).unwrap();
        end.recv().unwrap();
    }
}
