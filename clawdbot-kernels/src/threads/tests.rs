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

#[test]
fn seats_are_for_all_threads() {
    use crate::numa::Seat;
    let seats = vec![Seat { node: 0, cpus: vec![0] }; 2];
    let error = ThreadPool::placed(3, Placement::Local(seats)).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "expected seats of 3 threads, found 2");
}

#[cfg(target_os = "linux")]
#[allow(clippy::unwrap_used, reason = "tests, and what they call")]
mod placed {
    use std::collections::BTreeSet;

    use super::*;
    use crate::numa::Seat;

    /// What the system says of the calling thread.
    fn allowed(key: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
    }

    /// The first number of a list.
    fn first(list: &str) -> usize {
        list.split([',', '-']).next().unwrap().parse().unwrap()
    }

    /// The last number of a list.
    fn last(list: &str) -> usize {
        list.rsplit([',', '-']).next().unwrap().parse().unwrap()
    }

    #[test]
    fn threads_run_where_their_seats_are_and_the_caller_leaves_again() {
        let before = allowed("Cpus_allowed_list:");
        let node = first(&allowed("Mems_allowed_list:")) as u32;
        let (one, other) = (first(&before), last(&before));
        let seats = [one, other, other].map(|cpu| Seat { node, cpus: vec![cpu] });
        let pool = match ThreadPool::placed(3, Placement::Local(seats.to_vec())) {
            Ok(pool) => pool,
            Err(error) => return crate::skipped::skipped(&format!("placing of threads: {error}")),
        };
        for _ in 0..2 {
            let found = Mutex::new(BTreeSet::new());
            pool.region(|region| {
                let all = Barrier::new(3);
                region.parallel(3, |_| {
                    all.wait();
                    let name = std::thread::current().name().unwrap_or_default().to_owned();
                    found.lock().unwrap().insert((name, allowed("Cpus_allowed_list:")));
                });
                // What is packed here has its pages asked for.
                assert!(region.zeroed::<u8>(3 << 20).unwrap().iter().all(|&byte| byte == 0));
            })
            .unwrap();
            let found = found.into_inner().unwrap();
            let of_workers = |name: &str| (name.to_owned(), other.to_string());
            assert!(found.contains(&of_workers("clawdbot-1")) && found.contains(&of_workers("clawdbot-2")));
            assert!(
                found.iter().any(|(name, cpus)| !name.starts_with("clawdbot") && *cpus == one.to_string())
            );
            assert_eq!(allowed("Cpus_allowed_list:"), before);
        }
    }

    #[test]
    fn a_seat_that_never_was_is_an_error_and_one_that_goes_is_none() {
        let node = first(&allowed("Mems_allowed_list:")) as u32;
        let seats = || Placement::Local(vec![Seat { node, cpus: vec![60_000] }; 2]);
        let error = ThreadPool::placed(2, seats()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Placement { .. }), "{error}");
        let mut pool = ThreadPool::new(2);
        pool.placement = Some(seats());
        let (before, ran) = (allowed("Cpus_allowed_list:"), AtomicUsize::new(0));
        pool.region(|region| region.parallel(8, |_| _ = ran.fetch_add(1, Ordering::Relaxed))).unwrap();
        assert_eq!((ran.into_inner(), allowed("Cpus_allowed_list:")), (8, before));
    }
}
