//! What requests keep besides pages: tokens, texts, events, log-probabilities. It counts in the budget.

use super::{Engine, Sequence, SequenceId};
use crate::error::Result;
use crate::options::ModelOptions;
use crate::runtime::{Budget, Reservation};

/// Bytes for each sequence of a forward pass that loading reserves, so that small requests, also some that wait, cost nothing
/// more.
const BYTES_PER_SEQUENCE: u64 = 16 << 10;
/// More is reserved in steps of so many bytes.
const STEP: u64 = 64 << 10;

/// Bytes for requests that loading a model reserves.
pub(crate) fn reserved_bytes(options: &ModelOptions) -> u64 {
    BYTES_PER_SEQUENCE * u64::from(options.max_batch)
}

/// The account of all requests of an engine.
pub(super) struct Requests {
    used: u64,
    /// What loading has reserved.
    reserved: u64,
    budget: Budget,
    /// Beyond `reserved`.
    more: Option<Reservation>,
}

impl Requests {
    pub(super) fn new(reserved: u64, budget: &Budget) -> Self {
        Requests { used: 0, reserved, budget: budget.clone(), more: None }
    }

    /// Takes `new` bytes in place of `old`.
    ///
    /// # Errors
    /// `OutOfBudget`; nothing changes then.
    fn replace(&mut self, old: u64, new: u64) -> Result<()> {
        let used = (self.used - old).saturating_add(new);
        let wanted = used.saturating_sub(self.reserved).div_ceil(STEP).saturating_mul(STEP);
        let purpose = "tokens and events of requests";
        match &mut self.more {
            None if wanted > 0 => self.more = Some(self.budget.reserve_growing(wanted, purpose)?),
            // A step is kept, lest it is given back and taken again and again.
            Some(more) if wanted > more.bytes() || wanted + STEP < more.bytes() => {
                more.resize(wanted, purpose)?;
            }
            _ => {}
        }
        self.used = used;
        Ok(())
    }

    /// Gives back the bytes of a sequence.
    pub(super) fn forget(&mut self, bytes: u64) {
        // Less is always there.
        let _ = self.replace(bytes, 0);
        if self.used == 0 {
            self.more = None;
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used
    }
}

impl Engine {
    /// Counts what a sequence keeps now. Where the budget is full, pages that others can spare make room, or those of
    /// requests that came later.
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

    /// Frees some pages for `id`. Returns whether there were any to be had.
    fn make_room(&mut self, id: SequenceId) -> bool {
        if self.reclaim(|other| other == id) {
            return true;
        }
        // What does not run yet disturbs nobody.
        let running = self.sequences.get(&id).is_some_and(Sequence::is_running);
        let victim = self.victim(id).filter(|_| running);
        victim.into_iter().for_each(|victim| self.evict_running(victim));
        victim.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_are_free_and_others_are_counted_in_steps() {
        let budget = Budget::new(Some(10 * STEP));
        const RESERVED: u64 = 5000;
        let mut requests = Requests::new(RESERVED, &budget);
        requests.replace(0, RESERVED).unwrap();
        assert_eq!(budget.used(), 0);
        requests.replace(0, 1).unwrap();
        assert_eq!(budget.used(), STEP);
        assert!(requests.replace(1, 10 * STEP + 1).is_err());
        assert_eq!((budget.used(), requests.used()), (STEP, RESERVED + 1));
        requests.replace(1, 5 * STEP).unwrap();
        assert_eq!(budget.used(), 5 * STEP);
        requests.forget(3 * STEP);
        assert_eq!(budget.used(), 2 * STEP);
        requests.forget(2 * STEP);
        requests.forget(RESERVED);
        assert_eq!((budget.used(), requests.used()), (0, 0));
    }
}
