//! Which sequences get pages, and which lose them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::entry::{Entry, Limits, Memory, SequenceId};
use super::queue::GroupKey;
use super::scheduler::{Part, plan_step};
use super::scores::Scores;
use super::sequence::Sequence;
use super::served::Served;
use super::share::{Share, StatePositions};
use super::swapped::Swapped;
use crate::error::{Error, Result};
use crate::forward::pooling::Pooler;

/// How long a caller has pages before another one gets them.
const LOAN: Duration = Duration::from_millis(20);

/// Whether there is memory that was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There may be enough now.
    Made,
    /// Other callers have it, for a moment.
    Soon,
    None,
}

impl Engine {
    /// Plans the next pass and finds pages for it. `None` if no sequence has work.
    pub(super) fn plan(&mut self, limits: &Limits, max_context: usize) -> Option<Vec<Share>> {
        self.finish_reading();
        self.finish_prefix_readings();
        self.account_prefixes();
        self.attach_prefixes();
        self.begin_prefix_readings(limits.sequences);
        let mut entries: Vec<Entry> =
            self.sequences.iter().filter_map(|(&id, sequence)| sequence.entry(id, max_context)).collect();
        if entries.is_empty() {
            return None;
        }
        let working: Vec<(SequenceId, GroupKey)> =
            entries.iter().map(|entry| (entry.id, entry.group)).collect();
        self.wait_for_prefixes(&mut entries);
        let decoding = entries.iter().filter(|entry| entry.left() == 1).count().min(limits.sequences);
        let limits = &Limits { prompts: self.pacing.prompt_rows(decoding, limits.rows), ..*limits };
        // Pages on their way back are in no pool; what drafters hold, and what is lent, is given up where it is missed.
        let more = self.reading_bytes() + self.draft_bytes() + self.cache.lent_bytes();
        self.groups.tell(&mut entries);
        let plan = loop {
            let capacity = self.cache.capacity().saturating_add(more);
            let memory = || Memory { capacity, pages: &self.cache, work: self.work };
            let short = !memory().is_ample(&entries, limits);
            self.short = short;
            if short {
                for entry in entries.iter_mut().filter(|entry| entry.turn.admitted) {
                    entry.held = self.sequences.get(&entry.id).map_or(0, |sequence| {
                        let reading = sequence.swapped.as_ref().map_or(0, Swapped::reading_bytes);
                        self.cache.held(&sequence.tables) + reading
                    });
                }
            }
            let plan = plan_step(entries.clone(), limits, short.then(memory));
            // Nobody waits, loses pages or fails for what other engines hold for nobody.
            let all = plan.parts.len() == entries.len() && plan.evicted.is_empty();
            let lacking = if short && !all { memory().lacking(&entries, limits) } else { 0 };
            if lacking == 0 || !self.others.ask(lacking) {
                break plan;
            }
        };
        for id in plan.hopeless {
            if self.others.may_give() {
                continue;
            }
            let Some(sequence) = self.sequences.get(&id) else { continue };
            let length = sequence.tokens.len();
            let rows = if limits.whole { length } else { limits.rows };
            let error = self.cache.refusal(length, rows, self.cache.held(&sequence.tables));
            self.fail(id, error);
        }
        plan.evicted.into_iter().for_each(|id| self.evict_running(id));
        for id in plan.overtaken {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.turn.overtaken += 1;
            }
        }
        let taking_part: Vec<SequenceId> = plan.parts.iter().map(|part| part.id).collect();
        let (back, parts): (Vec<Part>, Vec<Part>) = plan.parts.into_iter().partition(|part| {
            self.sequences.get(&part.id).is_some_and(|sequence| sequence.swapped.is_some())
        });
        let mut waits = None;
        for part in back {
            if !self.begin_reading(part.id, &taking_part) {
                waits = Some(part.id);
            }
        }
        let mut shares: Vec<Share> = parts.into_iter().filter_map(|part| self.share(part)).collect();
        self.find_pages(&mut shares);
        match waits.filter(|_| shares.is_empty()) {
            // Nobody makes room for its pages: it begins with fewer.
            Some(id) if self.reading_bytes() == 0 => self.lose_swapped(id),
            _ => self.waits = shares.is_empty() && self.reading_bytes() > 0,
        }
        self.counts.passes += u64::from(!shares.is_empty());
        self.take_turns(&working, &shares, limits.rows);
        Some(shares)
    }

    /// Of the sequences with work, those with a share take part in a pass of at most `rows` rows, and the others wait.
    fn take_turns(&mut self, working: &[(SequenceId, GroupKey)], shares: &[Share], rows: usize) {
        let taking_part: BTreeMap<SequenceId, usize> =
            shares.iter().map(|share| (share.id, share.rows)).collect();
        let mut served = Vec::with_capacity(working.len());
        for (id, group) in working {
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            let tokens = taking_part.get(id).copied();
            served.push((*group, tokens.unwrap_or(0) as u64));
            if tokens.is_none() {
                sequence.turn.sit_out(self.counts.passes);
                continue;
            }
            self.queue.begin(sequence.rank);
            sequence.turn.take_part();
            if let Some(job) = &mut sequence.job {
                job.most_rows = job.most_rows.min(rows);
            }
        }
        self.groups.serve(&served);
    }

    fn share(&self, part: Part) -> Option<Share> {
        let Part { id, rows, logits, drafts: room } = part;
        let sequence = self.sequences.get(&id)?;
        let (start, pooler) = (sequence.computed, sequence.job.as_ref().and_then(|job| job.pooler.as_ref()));
        // Of those that are computed again, not all are wanted.
        let job = sequence.job.as_ref();
        let first = job.and_then(|job| job.scores.as_ref()).map(Scores::first);
        let of_prompt = job.and_then(|job| job.prompt_scores.as_ref()).map(|scores| scores.wanted().start);
        let first = first.or(of_prompt).unwrap_or(0);
        let logits = logits.min((start + rows).saturating_sub(first));
        let wanted = pooler.map_or(start..start, |pooler| pooler.wanted(start, rows, sequence.tokens.len()));
        let states = StatePositions { first: wanted.start, count: wanted.len() };
        Some(Share { id, start, rows, drafts: 0, room, logits, states })
    }

    /// Gets pages for every share: free ones, or those that others can spare. The plan made sure that there are enough;
    /// where it was wrong, because another model took memory first or the system has less than the budget says, the
    /// latest requests lose their pages.
    fn find_pages(&mut self, shares: &mut Vec<Share>) {
        let mut index = 0;
        let mut waiting: Option<(SequenceId, Error)> = None;
        while let Some(&share) = shares.get(index) {
            let Some(sequence) = self.sequences.get_mut(&share.id) else {
                shares.remove(index);
                continue;
            };
            // Last what takes snapshots: otherwise their memory would be given up for copies, and taken again, for ever.
            let own = self.cache.own(&mut sequence.tables, share.start);
            let grown = own.and_then(|()| self.cache.grow(&mut sequence.tables, share.start + share.rows));
            let Err(error) = grown else {
                index += 1;
                continue;
            };
            if self.reclaim_all(|id| shares.iter().any(|share| share.id == id)) {
                continue;
            }
            match self.victim(share.id) {
                Some(victim) => {
                    self.evict_running(victim);
                    shares.retain(|share| share.id != victim);
                    // The victim's share may have come before this one.
                    index = shares.iter().position(|other| other.id == share.id).unwrap_or(shares.len());
                }
                // Earlier requests hold the pages: this one waits until they are done.
                None if self.others_hold_pages(share.id) => {
                    waiting = Some((share.id, error));
                    shares.remove(index);
                }
                None => {
                    if !self.others.may_give() {
                        self.fail(share.id, error);
                    }
                    shares.remove(index);
                }
            }
        }
        // Otherwise nobody could continue.
        if let (true, Some((id, _))) = (shares.is_empty() && self.reading_bytes() == 0, waiting) {
            self.evict_running(id);
        }
    }

    /// Frees pages that nobody needs now: those of drafters, those kept of earlier sequences, snapshots of recurrent states, what
    /// other engines hold for nobody, or else the pages of one sequence that can spare them and is not `spared`. Returns whether
    /// there were any.
    pub(super) fn reclaim(&mut self, spared: impl Fn(SequenceId) -> bool) -> bool {
        if self.drafters.release() {
            return true;
        }
        let mut freed = self.cache.forget_prefix();
        if freed {
            return true;
        }
        for sequence in self.sequences.values_mut() {
            freed |= self.cache.drop_snapshots(&mut sequence.tables);
            // Nobody waits for these pages any more.
            freed |= !sequence.is_running() && sequence.stop_reading();
        }
        // One page or more: who needs others asks again.
        if freed || self.others.ask(1) {
            return true;
        }
        let spare = self.sequences.iter().filter(|(_, sequence)| sequence.tables.hold_pages());
        let spare = spare.filter_map(|(&id, sequence)| Some((sequence.spare()?, id)));
        let Some((_, id)) = spare.filter(|&(_, id)| !spared(id)).min() else {
            // What is left of prefixes in the swap space are their entries.
            return self.cache.let_stored_go();
        };
        self.evict(id);
        true
    }

    /// [`Engine::reclaim`], and at last pages that are lent.
    pub(super) fn reclaim_all(&mut self, spared: impl Fn(SequenceId) -> bool) -> bool {
        self.reclaim(spared) || self.cache.take_back(Duration::ZERO)
    }

    /// The latest running request with pages, if it came after `id`. Earlier requests are never disturbed.
    pub(super) fn victim(&self, id: SequenceId) -> Option<SequenceId> {
        let rank = self.sequences.get(&id)?.rank;
        let holders = self.sequences.iter().filter(|(_, sequence)| {
            sequence.rank > rank && sequence.makes_progress() && sequence.tables.hold_pages()
        });
        holders.max_by_key(|(_, sequence)| sequence.rank).map(|(&id, _)| id)
    }

    /// Whether requests other than `id` hold pages that they will give back.
    pub(super) fn others_hold_pages(&self, id: SequenceId) -> bool {
        !self.prefix_readings.is_empty()
            || self.sequences.iter().any(|(other, sequence)| {
                *other != id
                    && (sequence.makes_progress() && sequence.tables.hold_pages() || sequence.is_reading())
            })
    }

    /// [`Engine::evict`] for a running request, which has to repeat what it had computed, or to read it back.
    pub(super) fn evict_running(&mut self, id: SequenceId) {
        let computed = self.sequences.get(&id).map_or(0, |sequence| sequence.computed);
        self.meter.count(|metrics| metrics.preemptions += 1);
        if !self.evict(id) {
            self.work.lose(computed);
        }
    }

    /// Releases the pages of a sequence, which may leave them in the swap space. Otherwise its tokens are computed again, to
    /// the same bits, when needed. Returns whether it has left them.
    pub(super) fn evict(&mut self, id: SequenceId) -> bool {
        let reading = self.sequences.get_mut(&id).is_some_and(Sequence::stop_reading);
        let swapped = reading || self.swap_out(id);
        self.release(id);
        swapped
    }

    /// [`Engine::evict`] for pages that are not valid any more.
    pub(super) fn discard(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.forget_swapped();
        }
        self.release(id);
    }

    fn release(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.cache.release_all(&mut sequence.tables);
        sequence.computed = 0;
        // What is computed now is computed here.
        sequence.restored &= sequence.swapped.is_some();
        sequence.turn.admitted = false;
        // Logits and hidden states are gathered again as well, unless they are complete.
        let job = sequence.job.as_mut().filter(|job| !job.is_finished());
        if let Some(job) = job {
            job.scores.iter_mut().for_each(Scores::clear);
            job.pooler.iter_mut().for_each(Pooler::clear);
        }
    }

    /// Releases the pages of single requests that have ended, even while their handle is still held.
    pub(super) fn release_ended(&mut self) {
        for (&id, sequence) in &mut self.sequences {
            if sequence.once && !sequence.is_running() {
                self.drafters.forget(id);
                self.cache.release_all(&mut sequence.tables);
                sequence.forget_swapped();
                sequence.computed = 0;
            }
        }
    }

    /// Charges what a sequence keeps now. If the budget is full, frees pages that others can spare, then those of later
    /// requests.
    ///
    /// # Errors
    /// `OutOfBudget`.
    pub(super) fn charge(&mut self, id: SequenceId) -> Result<()> {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return Ok(()) };
            let bytes = sequence.bytes();
            match self.requests.replace(sequence.charged, bytes) {
                Ok(()) => {
                    sequence.charged = bytes;
                    return Ok(());
                }
                Err(error) => {
                    self.cache.trim_reserve();
                    if !self.make_room(id) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Bytes that sequences, and what is kept of earlier ones, hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        let cached = self.cache.allocated_bytes().saturating_add(self.cache.entry_bytes());
        let more = self.draft_bytes() + self.cache.lent_bytes();
        cached.saturating_add(more).saturating_add(self.requests.more_bytes())
    }

    /// Frees some memory that nobody needs now, pages in reserve first. Returns whether there was any.
    pub(crate) fn free_some(&mut self) -> bool {
        if self.cache.trim_reserve() {
            return true;
        }
        let freed = self.reclaim_all(|_| false);
        // What has given way may be in reserve.
        self.cache.trim_reserve();
        freed
    }

    /// Releases some memory for a caller that has no sequence yet: pages that nobody needs now, or what requests free while one
    /// step is computed, or pages that another such caller has had for a while.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub(crate) fn make_some_room(&mut self, model: &impl Served) -> Result<Room> {
        let freed = self.cache.trim_reserve() || self.reclaim(|_| false);
        let stepped = !freed && self.step(model)?;
        // What has given way, and what a request that ended leaves, may be in reserve.
        if self.cache.trim_reserve() || freed || stepped || self.cache.take_back(LOAN) {
            return Ok(Room::Made);
        }
        Ok(if self.cache.lent_bytes() > 0 { Room::Soon } else { Room::None })
    }

    /// Frees some pages for `id`. Returns whether there were any.
    fn make_room(&mut self, id: SequenceId) -> bool {
        if self.reclaim_all(|other| other == id) {
            return true;
        }
        // A request that does not run yet disturbs nobody.
        let running = self.sequences.get(&id).is_some_and(Sequence::is_running);
        let victim = self.victim(id).filter(|_| running);
        victim.into_iter().for_each(|victim| self.evict_running(victim));
        victim.is_some()
    }
}
