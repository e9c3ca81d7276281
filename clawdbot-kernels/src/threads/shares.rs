//! The tasks that each thread of a job has.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::sync::AtomicU64;

/// Tasks `first..end` as `end << 32 | first`, on a cache line of its own.
#[repr(align(128))]
pub(super) struct Share(AtomicU64);

/// The tasks of thread `thread` of `threads`, among `tasks`.
pub(crate) fn share(tasks: u32, thread: u64, threads: u64) -> Range<u32> {
    let border = |thread: u64| (u64::from(tasks) * thread / threads) as u32;
    border(thread)..border(thread + 1)
}

/// Which task of a share is taken.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The first: by the owner.
    First,
    /// The last: by others.
    Last,
}

impl Share {
    pub(super) fn empty() -> Self {
        Share(AtomicU64::new(0))
    }

    pub(super) fn set(&self, tasks: Range<u32>) {
        // Published by opening the job.
        self.0.store(u64::from(tasks.end) << 32 | u64::from(tasks.start), Ordering::Relaxed);
    }

    pub(super) fn take(&self, end: End) -> Option<usize> {
        let rest = |share: u64| {
            let (first, stop) = (share as u32, (share >> 32) as u32);
            (first < stop).then(|| match end {
                End::First => share + 1,
                End::Last => share - (1 << 32),
            })
        };
        // Results of tasks are published by leaving the job, not here.
        let share = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).ok()?;
        let task = match end {
            End::First => share as u32,
            End::Last => (share >> 32) as u32 - 1,
        };
        Some(task as usize)
    }
}
