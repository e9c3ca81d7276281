//! Sequences that lose their pages leave them in the swap space, and read them back when they are admitted again.
//!
//! Writing happens where the memory is needed, in place of throwing the pages away. Reading happens on the swap space's
//! thread, into pages that are reserved and belong to nobody else, while the other sequences go on; the sequence takes part
//! in passes again when they are there. Whatever goes wrong means that its tokens are computed again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::entry::SequenceId;
use super::sequence::Sequence;
use super::swapped::{Ending, Reading, State, Swapped, Wanted};
use crate::cache::LoosePages;
use crate::cancel::Sleeper;
use crate::error::{Error, Result};
use crate::runtime::{Extent, SwapSpace};

/// How long a step that has nothing to compute waits for pages before others get the engine.
const PATIENCE: Duration = Duration::from_millis(20);

impl Sequence {
    /// Tokens that need not be computed: those in its pages, or in the swap space.
    pub(crate) fn reach(&self) -> usize {
        self.swapped.as_ref().map_or(self.computed, Swapped::tokens)
    }

    /// Gives up pages that are on their way back, whose memory is free then; they stay in the swap space. Returns whether
    /// there were any.
    pub(super) fn stop_reading(&mut self) -> bool {
        let reading = self.swapped.as_mut().and_then(|swapped| swapped.reading.take());
        reading.map(|reading| reading.give_up()).is_some()
    }

    /// Gives up what it has in the swap space.
    pub(super) fn forget_swapped(&mut self) {
        self.stop_reading();
        self.swapped = None;
    }

    /// Whether its pages are on their way back.
    pub(super) fn is_reading(&self) -> bool {
        self.swapped.as_ref().is_some_and(|swapped| swapped.reading.is_some())
    }
}

impl Engine {
    /// Lets sequences and prefixes leave their pages in `space`.
    pub(crate) fn swap_to(&mut self, space: Option<SwapSpace>) {
        space.iter().for_each(|space| self.cache.swap_prefixes_to(space.clone()));
        self.swap = space;
    }

    /// Writes the pages of a sequence to the swap space, if there is room and it is worth it. Returns whether they are there;
    /// the sequence has its pages still.
    pub(super) fn swap_out(&mut self, id: SequenceId) -> bool {
        let Engine { swap: Some(space), sequences, cache, costs, meter, .. } = self else { return false };
        let Some(sequence) = sequences.get_mut(&id) else { return false };
        // What is gathered over passes starts over without its pages.
        let job = sequence.job.as_ref().filter(|job| !job.is_finished());
        let gathers = job.is_some_and(|job| job.scores.is_some() || job.pooler.is_some());
        let computed = sequence.computed;
        let bytes = cache.image_bytes(computed);
        if gathers || computed == 0 || !costs.swapping_pays(bytes, computed) {
            return false;
        }
        let Some(pages) = cache.image(&sequence.tables, computed) else { return false };
        let mut writer = loop {
            match space.writer(bytes) {
                Some(writer) => break writer,
                None if cache.let_stored_go() => {}
                None => return false,
            }
        };
        let started = Instant::now();
        let write = || -> Result<Extent> {
            let io = |error| Error::stream("swap space", error);
            for page in pages {
                cache.page_bytes_of(page)?.into_iter().try_for_each(|part| writer.write(part)).map_err(io)?;
            }
            writer.finish().map_err(io)
        };
        match write() {
            Ok(extent) => {
                costs.wrote(bytes, started.elapsed().as_secs_f64());
                meter.count(|metrics| metrics.swap_outs += 1);
                let extent = Arc::new(extent);
                sequence.swapped = Some(Swapped { extent, computed, valid: computed, reading: None });
                true
            }
            Err(_) => {
                costs.failed();
                meter.count(|metrics| metrics.swap_failures += 1);
                false
            }
        }
    }

    /// Begins to read back the pages of a sequence whose turn it is; `spared` keep theirs. Returns whether they are on their
    /// way: not without memory for them.
    pub(super) fn begin_reading(&mut self, id: SequenceId, spared: &[SequenceId]) -> bool {
        let swapped = self.sequences.get(&id).and_then(|sequence| sequence.swapped.as_ref());
        let Some(swapped) = swapped.filter(|swapped| swapped.reading.is_none()) else { return true };
        let (computed, extent, bytes) = (swapped.computed, Arc::clone(&swapped.extent), swapped.bytes());
        let pages = loop {
            match self.cache.loose_pages(computed) {
                Ok(pages) => break pages,
                Err(_) if self.reclaim_all(|other| other == id || spared.contains(&other)) => {}
                Err(_) => return false,
            }
        };
        let reading = Arc::new(Reading::new(pages, bytes));
        let ending = Ending { reading: Arc::clone(&reading), sleeper: self.sleeper.clone() };
        let job = move || {
            let (ending, started) = (ending, Instant::now());
            // Freed before the end is told, unless they are part of it.
            let Some(mut pages) = ending.reading.begin() else { return };
            let mut wanted = Wanted { reader: extent.reader(), reading: &ending.reading };
            if pages.read(&mut wanted).is_ok() && wanted.reader.is_sound() {
                ending.reading.end(State::Done(pages, started.elapsed().as_secs_f64()));
            }
        };
        // If it cannot begin, it has failed: the next step sees that.
        let _ = self.swap.as_ref().map(|space| space.spawn(job));
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.turn.admitted = true;
            sequence.swapped.iter_mut().for_each(|swapped| swapped.reading = Some(Arc::clone(&reading)));
        }
        true
    }

    /// Gives sequences the pages that have come back.
    pub(super) fn finish_reading(&mut self) {
        let ended = |sequence: &Sequence| sequence.swapped.as_ref().is_some_and(Swapped::has_ended);
        let ended: Vec<SequenceId> =
            self.sequences.iter().filter(|(_, sequence)| ended(sequence)).map(|(&id, _)| id).collect();
        for id in ended {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            let Some(swapped) = sequence.swapped.take() else { continue };
            match swapped.reading.as_ref().map(|reading| reading.take()) {
                Some(State::Done(pages, seconds)) => {
                    self.costs.read(swapped.bytes(), seconds);
                    self.meter.count(|metrics| metrics.swap_ins += 1);
                    self.take_back(id, pages, swapped.valid);
                }
                _ => {
                    sequence.swapped = Some(swapped);
                    self.lose_swapped(id);
                }
            }
        }
    }

    /// Gives a sequence `pages`, of which its first `valid` tokens are.
    fn take_back(&mut self, id: SequenceId, pages: LoosePages, valid: usize) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let computed = pages.computed();
        self.cache.release_all(&mut sequence.tables);
        sequence.tables = self.cache.adopt(pages);
        sequence.computed = match valid < computed {
            true => self.cache.truncate(&mut sequence.tables, valid),
            false => computed,
        };
    }

    /// What a sequence has in the swap space is not to be had: its tokens are computed again.
    pub(crate) fn lose_swapped(&mut self, id: SequenceId) {
        self.meter.count(|metrics| metrics.swap_failures += 1);
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        if let Some(swapped) = sequence.swapped.take() {
            sequence.turn.admitted = false;
            if sequence.is_running() {
                self.work.lose(swapped.valid);
            }
            if let Some(job) = sequence.job.as_mut().filter(|job| job.prefill_started.is_none()) {
                job.cached = 0;
            }
        }
    }

    /// Keeps what a sequence has in the swap space of its first `length` tokens.
    pub(super) fn shorten_swapped(&mut self, id: SequenceId, length: usize) {
        // States cannot be rewound, and windows lack what shorter sequences see.
        let cuts = self.cache.can_be_cut();
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let Some(swapped) = &mut sequence.swapped else { return };
        if swapped.valid > length {
            swapped.valid = length;
            if !cuts || length == 0 {
                sequence.forget_swapped();
            }
        }
    }

    /// Bytes of pages that are on their way back.
    pub(super) fn reading_bytes(&self) -> u64 {
        let swapped = self.sequences.values().filter_map(|sequence| sequence.swapped.as_ref());
        let prefixes = self.prefix_readings.iter().map(|one| one.reading().bytes);
        swapped.map(Swapped::reading_bytes).chain(prefixes).sum()
    }

    /// Lets `sleeper` be woken when pages have come back, or cannot.
    pub(crate) fn wake_when_read(&mut self, sleeper: Option<Arc<dyn Sleeper>>) {
        self.sleeper = sleeper;
    }

    /// Whether the latest step had nothing to compute before pages come back.
    pub(crate) fn waits_for_pages(&self) -> bool {
        self.waits
    }

    /// Waits a little for pages that are on their way back.
    pub(super) fn wait_for_reading(&self) {
        let reading =
            self.sequences.values().filter_map(|sequence| sequence.swapped.as_ref()?.reading.as_ref());
        match (reading.min_by_key(|reading| reading.bytes), self.prefix_readings.first()) {
            (Some(reading), _) => reading.wait(PATIENCE),
            (None, Some(prefix)) => prefix.reading().wait(PATIENCE),
            (None, None) => {}
        }
    }

    /// Bytes in the swap space.
    pub(super) fn swapped_bytes(&self) -> u64 {
        let swapped = self.sequences.values().filter_map(|sequence| sequence.swapped.as_ref());
        let (own, shared): (Vec<&Swapped>, Vec<&Swapped>) = swapped.partition(|swapped| swapped.is_own());
        let mut shared: Vec<(*const Extent, u64)> =
            shared.into_iter().map(|swapped| (Arc::as_ptr(&swapped.extent), swapped.bytes())).collect();
        shared.sort_unstable();
        shared.dedup();
        let sequences = own.into_iter().map(Swapped::bytes).chain(shared.into_iter().map(|(_, bytes)| bytes));
        sequences.sum::<u64>() + self.cache.stored_bytes()
    }
}
