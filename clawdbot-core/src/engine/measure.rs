//! What an engine says of itself: in its meter, and how urgent its requests are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sequence::Sequence;
use super::{Counts, Engine};
use crate::metrics::Meter;

impl Engine {
    /// Highest priority of the requests that make progress; 0 without any.
    pub(crate) fn urgency(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.urgency)
    }

    /// Where it counts.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Says in the meter how many requests there are, and what they hold, and how urgent they are.
    pub(crate) fn measure(&self) {
        let jobs = self.sequences.values().filter(|sequence| sequence.makes_progress());
        let priorities = jobs.filter_map(|sequence| Some(sequence.job.as_ref()?.options.priority));
        self.urgency.store(priorities.max().unwrap_or(0), Ordering::Relaxed);
        let begun = |sequence: &&Sequence| sequence.is_running() && sequence.turn.admitted;
        let running = self.sequences.values().filter(begun).count() as u64;
        let waiting = self.running() as u64 - running;
        let kv_bytes = self.cache.allocated_bytes() + self.cache.entry_bytes() + self.draft_bytes();
        let prefix_bytes = self.cache.prefix_bytes();
        let Counts { passes, rows } = self.counts;
        let swapped_bytes = self.swapped_bytes();
        self.meter.count(|metrics| {
            metrics.swapped_bytes = swapped_bytes;
            (metrics.running, metrics.waiting) = (running, waiting);
            (metrics.kv_bytes, metrics.prefix_cache_bytes) = (kv_bytes, prefix_bytes);
            (metrics.passes, metrics.computed_tokens) = (passes, rows);
        });
    }
}
