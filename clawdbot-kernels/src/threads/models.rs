//! Models of the pool: loom runs the code of this module in every order of its atomic operations, with every value that
//! the memory model lets a load return, and fails at data races, deadlocks (lost wake-ups) and broken assertions.
//!
//! `cargo xtask models` runs them. `LOOM_MAX_PREEMPTIONS` bounds how often a thread is interrupted where it could go on.

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicUsize;

use super::*;

/// What tasks write: loom reports accesses that are not ordered.
struct Results(Vec<UnsafeCell<usize>>);

// SAFETY: a task writes its own element only, and the leader reads after the job; loom checks both.
unsafe impl Sync for Results {}

impl Results {
    fn new(tasks: usize) -> Self {
        Results((0..tasks).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add_one(&self, task: usize) {
        // SAFETY: see `Results`.
        self.0[task].with_mut(|value| unsafe { *value += 1 });
    }

    fn values(&self) -> Vec<usize> {
        // SAFETY: see `Results`.
        self.0.iter().map(|value| value.with(|value| unsafe { *value })).collect()
    }
}

/// A model whose threads are interrupted `preemptions` times at most: with more, three threads take hours.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(f);
}

/// Publication of jobs and of results, sleeping and waking on both sides, and the end of the pool.
#[test]
fn jobs_and_results_are_published() {
    model(3, || {
        let pool = ThreadPool::new(2);
        let results = Results::new(2);
        pool.region(|region| {
            region.parallel(2, |task| results.add_one(task));
            assert_eq!(results.values(), [1, 1]);
            region.parallel(2, |task| results.add_one(1 - task));
        })
        .unwrap();
        assert_eq!(results.values(), [2, 2]);
    });
}

/// Between regions workers sleep; the next region wakes them.
#[test]
fn the_next_region_wakes_the_workers() {
    model(3, || {
        let pool = ThreadPool::new(2);
        let results = Results::new(2);
        for round in 1..=2 {
            pool.region(|region| region.parallel(2, |task| results.add_one(task))).unwrap();
            assert_eq!(results.values(), [round; 2]);
        }
    });
}

/// Whoever has task 0 waits until task 1 is done. At first that is the leader: if it does not wake the worker, nobody
/// does task 1. (Without such tasks a worker that is not woken only costs time: the leader takes all tasks.)
#[test]
fn a_job_wakes_workers_that_sleep() {
    model(3, || {
        let pool = ThreadPool::new(2);
        pool.region(|region| {
            for _ in 0..2 {
                let (done, changed) = (Mutex::new(false), Condvar::new());
                region.parallel(2, |task| {
                    let mut done = done.lock().unwrap();
                    if task == 1 {
                        *done = true;
                        changed.notify_one();
                    }
                    while !*done {
                        done = changed.wait(done).unwrap();
                    }
                });
            }
        })
        .unwrap();
    });
}

#[test]
fn two_workers_take_each_task_once() {
    model(2, || {
        let pool = ThreadPool::new(3);
        let results = Results::new(3);
        pool.region(|region| region.parallel(3, |task| results.add_one(task))).unwrap();
        assert_eq!(results.values(), [1; 3]);
    });
}

/// Workers that were never given a job, and may not even have begun, end.
#[test]
fn a_pool_without_jobs_shuts_down() {
    model(4, || {
        let pool = ThreadPool::new(3);
        pool.region(|_| ()).unwrap();
    });
}

/// The answer can change at any moment of the job. Afterwards no task begins, and tasks of the leader's next step are
/// left out.
#[test]
fn a_stop_ends_the_region() {
    model(3, || {
        let pool = ThreadPool::new(2);
        let (asked, begun) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 1;
        pool.region_until(&stop, |region| {
            region.parallel(2, |_| {
                begun.fetch_add(1, Ordering::Relaxed);
            });
            assert!(region.stop().is_set());
            region.parallel(2, |_| {
                begun.fetch_add(1, Ordering::Relaxed);
            });
        })
        .unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    });
}

/// A panic reaches the leader after all threads have left the job, and the pool works on.
#[test]
fn a_panic_reaches_the_leader() {
    model(3, || {
        let pool = ThreadPool::new(2);
        let results = Results::new(2);
        pool.region(|region| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                // Without the hook, which would print for each of thousands of orders.
                region.parallel(2, |task| {
                    if task == 1 {
                        resume_unwind(Box::new("task 1"))
                    }
                });
            }));
            assert!(caught.is_err_and(|panic| panic.downcast_ref() == Some(&"task 1")));
            region.parallel(2, |task| results.add_one(task));
        })
        .unwrap();
        assert_eq!(results.values(), [1; 2]);
    });
}
