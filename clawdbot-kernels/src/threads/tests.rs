//! Tests of the pool.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::sync::SPIN;
use super::*;

#[test]
fn every_task_runs_once() {
    let pool = ThreadPool::new(3);
    for round in 0..200 {
        let counts: Vec<AtomicUsize> = (0..round).map(|_| AtomicUsize::new(0)).collect();
        pool.region(|region| {
            for _ in 0..3 {
                region.parallel(round, |task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
            }
        })
        .unwrap();
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 3));
    }
}

#[test]
fn chunks_cover_everything_after_sleeping() {
    let pool = ThreadPool::new(4);
    let mut data = vec![0_u32; 1001];
    for pause in [0, 1, 2] {
        std::thread::sleep(Duration::from_millis(pause));
        pool.region(|region| {
            region.parallel_chunks_mut(&mut data, 10, |index, chunk| {
                chunk.iter_mut().enumerate().for_each(|(i, x)| *x += (index * 10 + i) as u32);
            });
        })
        .unwrap();
    }
    assert!(data.iter().enumerate().all(|(i, &x)| x == 3 * i as u32));
}

#[test]
fn a_panic_reaches_the_leader_and_the_pool_lives_on() {
    let pool = ThreadPool::new(2);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        pool.region(|region| region.parallel(64, |task| assert!(task != 40, "task 40"))).unwrap();
    }));
    assert!(caught.is_err());
    let sum = AtomicUsize::new(0);
    pool.region(|region| {
        region.parallel(10, |task| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
    })
    .unwrap();
    assert_eq!(sum.into_inner(), 45);
}

/// The trait has one method for every type, and a second for those that are `Sync`: with a `Sync` region, this would be
/// ambiguous, and no program.
const _: () = {
    trait Named<A> {
        fn name() {}
    }
    impl<T: ?Sized> Named<()> for T {}
    struct OfSync;
    impl<T: ?Sized + Sync> Named<OfSync> for T {}
    let _ = <Region<'static> as Named<_>>::name;
};

#[test]
fn the_hosts_unpark_is_still_there_afterwards() {
    let pool = ThreadPool::new(2);
    let host = std::thread::current();
    pool.region(|region| {
        let both = Barrier::new(2);
        region.parallel(2, |_| {
            // Each thread has one of the two tasks.
            both.wait();
            if std::thread::current().id() != host.id() {
                host.unpark();
                // Until the leader has long been asleep.
                std::thread::sleep(400 * SPIN);
            }
        });
    })
    .unwrap();
    let limit = Duration::from_secs(60);
    let start = Instant::now();
    std::thread::park_timeout(limit);
    assert!(start.elapsed() < limit / 2, "the token was taken");
}

#[test]
fn a_leader_that_sleeps_is_woken() {
    let pool = ThreadPool::new(3);
    pool.region(|region| {
        for _ in 0..20 {
            let all = Barrier::new(3);
            let late = AtomicUsize::new(0);
            region.parallel(3, |task| {
                all.wait();
                std::thread::sleep(task as u32 * 4 * SPIN);
                late.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(late.into_inner(), 3);
        }
    })
    .unwrap();
}

#[test]
fn after_the_stop_nothing_begins() {
    for threads in [1, 3] {
        let pool = ThreadPool::new(threads);
        let (asked, run) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 100;
        pool.region_until(&stop, |region| {
            for _ in 0..3 {
                region.parallel(1000, |_| {
                    run.fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(region.stop().is_set());
            Region::alone(region.stop()).parallel(9, |_| {
                run.fetch_add(1, Ordering::Relaxed);
            });
        })
        .unwrap();
        assert_eq!(run.into_inner(), 100, "{threads} threads");
        // Once yes, nobody asks again; each thread may have been about to.
        assert!((101..101 + threads).contains(&asked.into_inner()), "{threads} threads");
        // The next region has not stopped.
        pool.region(|region| assert!(!region.stop().is_set())).unwrap();
    }
}
