//! Who holds memory of a budget. An engine that lacks some asks the others for what nobody needs there now.
//!
//! Who asks with its own engine locked waits for no other one, so that no two wait for each other: an engine that is locked
//! counts as busy. Who has no engine locked may wait.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

/// One that holds memory.
pub(crate) trait Holder: Send + Sync {
    /// Gives back `bytes` bytes or more of what nobody needs now, or as many as there are, and returns how many. `None`: it is
    /// busy, and this does not wait.
    fn give_way(&self, bytes: u64, waits: bool) -> Option<u64>;

    /// Says in its meter how it is now, unless it is busy.
    fn report(&self);
}

/// All that hold memory of a budget, by their numbers.
#[derive(Default)]
pub(crate) struct Holders(Mutex<Members>);

#[derive(Default)]
struct Members {
    last: u64,
    all: Vec<(u64, Weak<dyn Holder>)>,
}

/// What others have given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Given {
    pub(crate) bytes: u64,
    /// Whether one could not be asked.
    pub(crate) busy: bool,
}

impl Holders {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that nobody has, from 1.
    pub(crate) fn number(&self) -> u64 {
        let mut members = self.lock();
        members.last += 1;
        members.last
    }

    /// Adds a holder, as long as it has owners.
    pub(crate) fn add(&self, number: u64, holder: Weak<dyn Holder>) {
        let mut members = self.lock();
        members.all.retain(|(_, holder)| holder.strong_count() > 0);
        members.all.push((number, holder));
    }

    /// All but the one of that number, to be called without the lock.
    fn others(&self, number: u64) -> Vec<Weak<dyn Holder>> {
        let members = self.lock();
        let others = members.all.iter().filter(|(other, _)| *other != number);
        others.map(|(_, holder)| Weak::clone(holder)).collect()
    }

    /// Lets each say in its meter how it is now.
    pub(crate) fn report(&self) {
        self.others(0).iter().filter_map(Weak::upgrade).for_each(|holder| holder.report());
    }

    /// Asks all but `asker` for `bytes` bytes together.
    pub(crate) fn ask(&self, asker: u64, bytes: u64, waits: bool) -> Given {
        let mut given = Given::default();
        for holder in self.others(asker).iter().filter_map(Weak::upgrade) {
            if given.bytes >= bytes {
                break;
            }
            match holder.give_way(bytes - given.bytes, waits) {
                Some(bytes) => given.bytes = given.bytes.saturating_add(bytes),
                None => given.busy = true,
            }
        }
        given
    }
}

impl fmt::Debug for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holders").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Purse(Mutex<u64>);

    impl Holder for Purse {
        fn give_way(&self, bytes: u64, waits: bool) -> Option<u64> {
            let mut left = if waits { self.0.lock().unwrap() } else { self.0.try_lock().ok()? };
            let given = bytes.min(*left);
            *left -= given;
            Some(given)
        }

        fn report(&self) {}
    }

    #[test]
    fn all_but_the_asker_give_as_much_as_is_wanted() {
        let holders = Holders::default();
        let purses = [5, 7, 9].map(|left| Arc::new(Purse(Mutex::new(left))));
        let numbers = purses.each_ref().map(|purse| {
            let (number, holder): (_, Arc<dyn Holder>) = (holders.number(), Arc::<Purse>::clone(purse));
            holders.add(number, Arc::downgrade(&holder));
            number
        });
        let left = || purses.each_ref().map(|purse| *purse.0.lock().unwrap());
        assert_eq!(holders.ask(numbers[0], 8, false), Given { bytes: 8, busy: false });
        assert_eq!(left(), [5, 0, 8]);
        let locked = purses[2].0.lock().unwrap();
        assert_eq!(holders.ask(numbers[1], 99, false), Given { bytes: 5, busy: true });
        drop(locked);
        assert_eq!(holders.ask(numbers[1], 99, true), Given { bytes: 8, busy: false });
        // Those that are gone are not asked.
        drop(purses);
        assert_eq!(holders.ask(0, 1, true), Given::default());
    }
}
