//! A thread that does one job after another, from the first one on.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::error::Result;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that starts with its first job. It sleeps without any, and ends when this is dropped.
pub(super) struct Worker {
    name: &'static str,
    queue: Arc<Queue>,
    handle: Mutex<Option<JoinHandle<()>>>,
    pid: u32,
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
        Worker { name, queue: Arc::default(), handle: Mutex::new(None), pid: std::process::id() }
    }

    /// Adds a job.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread; the job is dropped then.
    pub(super) fn spawn(&self, job: Job) -> Result<()> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() {
            let queue = Arc::clone(&self.queue);
            let thread = thread::Builder::new().name(self.name.to_owned());
            *handle = Some(thread.spawn(move || queue.run()).map_err(clawdbot_kernels::Error::Thread)?);
        }
        self.queue.lock().jobs.push_back(job);
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(handle) = handle else { return };
        // The child of a fork has no such thread, and maybe a lock that nobody releases.
        if self.pid != std::process::id() {
            std::mem::forget(handle);
            return;
        }
        self.queue.lock().stop = true;
        self.queue.changed.notify_one();
        // A job may have been the last owner: then the thread ends by itself.
        if handle.thread().id() != thread::current().id() {
            let _ = handle.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
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
