//! Prefixes that come back from the swap space: those that requests which are about to begin have in common with earlier ones.
//!
//! They are read on the swap space's thread, while other sequences go on. A request waits for its own.

use std::sync::Arc;
use std::time::Instant;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::SequenceId;
use super::sequence::Sequence;
use super::swapped::{Ending, Reading, State};
use crate::cache::LooseNodes;
use crate::runtime::SwapSpace;

/// A prefix on its way back, for a sequence.
pub(super) struct PrefixReading {
    id: SequenceId,
    reading: Arc<Reading<LooseNodes>>,
}

impl PrefixReading {
    pub(super) fn reading(&self) -> &Reading<LooseNodes> {
        &self.reading
    }
}

impl Engine {
    /// Lets the cache know whether prefixes that have to go are worth writing, and learns what writing has cost.
    pub(super) fn account_prefixes(&mut self) {
        if self.swap.is_none() {
            return;
        }
        let report = self.cache.swap_report();
        if report.nodes > 0 {
            self.costs.wrote(report.bytes, report.seconds);
        }
        if report.refused > 0 {
            self.costs.refused();
        }
        if report.failures > 0 {
            self.costs.failed();
        }
        self.meter.count(|metrics| {
            metrics.prefix_swap_outs += report.nodes;
            metrics.swap_failures += report.failures;
        });
        let pays = !self.costs.pauses() && self.costs.pays(self.cache.node_bytes(), PAGE_TOKENS);
        self.cache.set_swapping_pays(pays);
    }

    /// Begins to read prefixes for the requests that come first, if they may begin in the next pass of at most `most` sequences.
    pub(super) fn begin_prefix_readings(&mut self, most: usize) {
        let Some(space) = self.swap.clone() else { return };
        if self.cache.stored_bytes() == 0 {
            return;
        }
        let begun = |sequence: &&Sequence| sequence.is_running() && sequence.turn.admitted;
        let busy = self.sequences.values().filter(begun).count() + self.prefix_readings.len();
        let looks = |sequence: &Sequence| {
            sequence.may_attach() && sequence.job.as_ref().is_some_and(|job| !job.looked_up)
        };
        let waiting = self.sequences.iter().filter(|(_, sequence)| looks(sequence));
        let mut waiting: Vec<_> = waiting.map(|(&id, sequence)| (sequence.rank, id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting.into_iter().take(most.saturating_sub(busy)) {
            self.begin_prefix_reading(id, &space);
        }
    }

    fn begin_prefix_reading(&mut self, id: SequenceId, space: &SwapSpace) {
        let Engine { sequences, cache, costs, .. } = self;
        let Some(sequence) = sequences.get_mut(&id) else { return };
        sequence.job.iter_mut().for_each(|job| job.looked_up = true);
        let (count, bytes) = cache.stored_after(sequence.root(), &sequence.tokens);
        if count == 0 || !costs.pays(bytes, count * PAGE_TOKENS) {
            return;
        }
        let Some(nodes) = cache.loose_nodes(sequence.root(), &sequence.tokens) else { return };
        let bytes = nodes.bytes();
        let reading = Arc::new(Reading::new(nodes, bytes));
        let ending = Ending { reading: Arc::clone(&reading), sleeper: self.sleeper.clone() };
        let job = move || {
            let (ending, started) = (ending, Instant::now());
            let Some(mut nodes) = ending.reading.begin() else { return };
            nodes.read(&|| !ending.reading.is_given_up());
            ending.reading.end(State::Done(nodes, started.elapsed().as_secs_f64()));
        };
        // If it cannot begin, it has failed: the next step sees that.
        let _ = space.spawn(job);
        self.prefix_readings.push(PrefixReading { id, reading });
    }

    /// Adds prefixes that have come back to the index.
    pub(super) fn finish_prefix_readings(&mut self) {
        let (ended, running) =
            std::mem::take(&mut self.prefix_readings).into_iter().partition(|one| one.reading.has_ended());
        self.prefix_readings = running;
        let ended: Vec<PrefixReading> = ended;
        for PrefixReading { reading, .. } in ended {
            let (nodes, sound) = match reading.take() {
                State::Done(nodes, seconds) => {
                    self.costs.read(reading.bytes, seconds);
                    self.cache.add_loose(nodes)
                }
                State::Queued(_) | State::Running | State::Failed => (0, false),
            };
            self.meter.count(|metrics| {
                metrics.prefix_swap_ins += nodes as u64;
                metrics.swap_failures += u64::from(!sound);
            });
        }
    }

    /// Gives up all that are on their way back.
    pub(super) fn stop_prefix_readings(&mut self) {
        self.prefix_readings.drain(..).for_each(|one| one.reading.give_up());
    }

    /// Whether the prefix of a sequence is on its way back.
    pub(super) fn reads_prefix(&self, id: SequenceId) -> bool {
        self.prefix_readings.iter().any(|one| one.id == id)
    }
}
