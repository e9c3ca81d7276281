//! What requests keep apart from pages (tokens, texts, events, log-probabilities), charged to the budget.

use crate::error::Result;
use crate::runtime::{Budget, Reservation};

/// Bytes that loading reserves for each sequence of a forward pass, so that small requests, some waiting ones included,
/// reserve nothing more.
const BYTES_PER_SEQUENCE: u64 = 16 << 10;
/// Further bytes are reserved in steps of this size.
const STEP: u64 = 64 << 10;

/// Bytes that loading a model reserves for requests. A pass computes at most `max_batch` of them.
pub(crate) fn reserved_bytes(max_batch: u32) -> u64 {
    BYTES_PER_SEQUENCE * u64::from(max_batch)
}

/// Bytes that all requests of an engine keep.
pub(super) struct Requests {
    used: u64,
    /// Bytes reserved while loading.
    reserved: u64,
    budget: Budget,
    /// The reservation beyond `reserved`.
    more: Option<Reservation>,
}

impl Requests {
    pub(super) fn new(reserved: u64, budget: &Budget) -> Self {
        Requests { used: 0, reserved, budget: budget.clone(), more: None }
    }

    /// Counts `new` bytes in place of `old`.
    ///
    /// # Errors
    /// `OutOfBudget`; nothing changes then.
    pub(super) fn replace(&mut self, old: u64, new: u64) -> Result<()> {
        let used = (self.used - old).saturating_add(new);
        let wanted = used.saturating_sub(self.reserved).div_ceil(STEP).saturating_mul(STEP);
        let purpose = "tokens and events of requests";
        match &mut self.more {
            None if wanted > 0 => self.more = Some(self.budget.reserve_growing(wanted, purpose)?),
            // One spare step is kept, so that it is not given back and reserved again all the time.
            Some(more) if wanted > more.bytes() || wanted + STEP < more.bytes() => {
                more.resize(wanted, purpose)?;
            }
            _ => {}
        }
        self.used = used;
        Ok(())
    }

    /// What of `reserved` bytes that are to be reserved from now on, and of those that are now, has to be.
    pub(super) fn reserves(&self, reserved: u64) -> u64 {
        // Fewer only if they are enough, so that nothing else has to be found.
        if self.used <= reserved { reserved } else { self.reserved.max(reserved) }
    }

    /// From now on, so many bytes are reserved elsewhere, as [`Requests::reserves`] said.
    pub(super) fn rebound(&mut self, reserved: u64) {
        self.reserved = reserved;
        // Cannot fail, as it takes no more than before.
        let _ = self.replace(0, 0);
    }

    /// Bytes reserved beyond those that loading has reserved.
    pub(super) fn more_bytes(&self) -> u64 {
        self.more.as_ref().map_or(0, Reservation::bytes)
    }

    /// Gives back the bytes of a sequence.
    pub(super) fn forget(&mut self, bytes: u64) {
        // Shrinking cannot fail.
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
        assert_eq!((requests.reserves(10), requests.reserves(2 * RESERVED)), (RESERVED, 2 * RESERVED));
        requests.replace(0, STEP).unwrap();
        assert_eq!(budget.used(), STEP);
        requests.rebound(requests.reserves(RESERVED + STEP));
        requests.forget(STEP);
        requests.forget(RESERVED);
        assert_eq!(requests.reserves(10), 10);
        assert_eq!((budget.used(), requests.used()), (0, 0));
    }
}
