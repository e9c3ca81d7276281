//! The memory budget: bytes are reserved before they are allocated and given back on drop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::holders::Holders;
use crate::error::{Error, ErrorKind, Result};

/// Shared account of the bytes that models hold.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    /// What the user set.
    limit: Option<u64>,
    /// Without a limit of the user's: memory that there is, which bounds what grows with requests.
    memory: Option<u64>,
    /// Part of it that the system's allocator may reserve.
    reserved: u64,
    used: Mutex<Used>,
    /// As in `used`, to be read without waiting.
    total: AtomicU64,
    holders: Holders,
}

#[derive(Debug, Default)]
struct Used {
    total: u64,
    /// Part of it that grows with requests.
    growing: u64,
}

/// What bytes are reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Weights and what loading fixes.
    Fixed,
    /// What grows with requests: pages, states, results, tokens.
    Growing,
}

impl Budget {
    /// An account with the user's limit; without one, nothing is bounded.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Budget::with_memory(limit, None, 0)
    }

    /// As [`Budget::new`]; without a limit, what grows with requests is bounded by a share of `memory` bytes, less those that
    /// the system's allocator may reserve.
    pub(crate) fn with_memory(limit: Option<u64>, memory: Option<u64>, reserved: u64) -> Self {
        let (used, total, holders) = (Mutex::default(), AtomicU64::new(0), Holders::default());
        let account = Account { limit, memory, reserved, used, total, holders };
        Budget(Arc::new(account))
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// Without a limit: the memory that there is, if that is known.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.0.memory.filter(|_| self.0.limit.is_none())
    }

    /// Those that hold its bytes.
    pub(crate) fn holders(&self) -> &Holders {
        &self.0.holders
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Bytes that what grows with requests can still take.
    pub(crate) fn left(&self) -> u64 {
        let used = self.lock();
        match self.0.limit {
            Some(limit) => limit.saturating_sub(used.total),
            None => self.growing_limit(&used).saturating_sub(used.growing),
        }
    }

    /// Bytes that may grow with requests where the user has set no limit: three quarters of the memory less what is fixed,
    /// but an eighth at least, as mapped weights need not stay in memory.
    fn growing_limit(&self, used: &Used) -> u64 {
        let Some(memory) = self.0.memory else { return u64::MAX };
        let share = memory.saturating_sub(self.0.reserved) / 4 * 3;
        share.saturating_sub(used.total - used.growing).max(memory / 8)
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` for `purpose` ("weights", ...) out of the budget.
    ///
    /// # Errors
    /// `OutOfBudget` with the numbers; nothing is taken then.
    pub(crate) fn reserve(&self, bytes: u64, purpose: &str) -> Result<Reservation> {
        self.take(bytes, Kind::Fixed, purpose)?;
        Ok(Reservation { budget: self.clone(), bytes, kind: Kind::Fixed })
    }

    /// As [`Budget::reserve`], for what grows with requests: without a budget, it is bounded by the memory that there is.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub(crate) fn reserve_growing(&self, bytes: u64, purpose: &str) -> Result<Reservation> {
        self.take(bytes, Kind::Growing, purpose)?;
        Ok(Reservation { budget: self.clone(), bytes, kind: Kind::Growing })
    }

    /// Bytes that were missing when `error` was made; `None` if it is not one of a budget.
    pub(crate) fn lacking(error: &Error) -> Option<u64> {
        let number = |name: &str| error.detail().get(name).and_then(serde_json::Value::as_u64);
        let (needed, budget, used) = (number("needed")?, number("budget")?, number("used")?);
        (error.kind() == ErrorKind::OutOfBudget).then(|| needed.saturating_add(used).saturating_sub(budget))
    }

    fn take(&self, bytes: u64, kind: Kind, purpose: &str) -> Result<()> {
        let mut used = self.lock();
        let limit = self.0.limit.unwrap_or(u64::MAX);
        if used.total.checked_add(bytes).is_none_or(|sum| sum > limit) {
            let used = used.total;
            return Err(Error::new(
                ErrorKind::OutOfBudget,
                format!("{purpose} need {bytes} bytes; the budget is {limit} bytes, {used} of them in use"),
            )
            .with("needed", bytes)
            .with("budget", limit)
            .with("used", used));
        }
        if kind == Kind::Growing && self.0.limit.is_none() {
            let limit = self.growing_limit(&used);
            if used.growing.saturating_add(bytes) > limit {
                let used = used.growing;
                let message = format!(
                    "{purpose} need {bytes} bytes; requests may take {limit} bytes of this machine's memory, {used} of them in use; \
                     the option memory_budget sets another limit"
                );
                let error = Error::new(ErrorKind::OutOfBudget, message);
                return Err(error.with("needed", bytes).with("budget", limit).with("used", used));
            }
        }
        used.total += bytes;
        if kind == Kind::Growing {
            used.growing += bytes;
        }
        self.0.total.store(used.total, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: u64, kind: Kind) {
        let mut used = self.lock();
        used.total -= bytes;
        if kind == Kind::Growing {
            used.growing -= bytes;
        }
        self.0.total.store(used.total, Ordering::Relaxed);
    }
}

/// Bytes taken out of a budget; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    bytes: u64,
    kind: Kind,
}

impl Reservation {
    /// Makes it one of `bytes` bytes.
    ///
    /// # Errors
    /// As [`Budget::reserve`]; it stays as it was then.
    pub(crate) fn resize(&mut self, bytes: u64, purpose: &str) -> Result<()> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.take(more, self.kind, purpose)?,
            None => self.budget.give_back(self.bytes - bytes, self.kind),
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes, self.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_add_up_and_return() {
        let budget = Budget::new(Some(100));
        let first = budget.reserve(60, "weights").unwrap();
        let error = budget.reserve(41, "KV cache").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert_eq!(error.detail()["used"], 60);
        let mut second = budget.reserve_growing(30, "KV cache").unwrap();
        assert!(second.resize(41, "KV cache").is_err());
        second.resize(40, "KV cache").unwrap();
        assert_eq!((budget.used(), budget.left(), second.bytes()), (100, 0, 40));
        second.resize(15, "KV cache").unwrap();
        assert_eq!((budget.used(), budget.left()), (75, 25));
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(u64::MAX, "x").is_err());
        let unlimited = Budget::new(None);
        let _most = unlimited.reserve(u64::MAX, "x").unwrap();
        assert!(unlimited.reserve(1, "overflow").is_err());
    }

    #[test]
    fn without_a_limit_the_memory_bounds_what_grows() {
        let budget = Budget::with_memory(None, Some(800), 0);
        assert_eq!(budget.left(), 600);
        let pages = budget.reserve_growing(400, "a page").unwrap();
        // What is fixed is not bounded, but counts.
        let weights = budget.reserve(100, "weights").unwrap();
        assert_eq!(budget.left(), 100);
        let error = budget.reserve_growing(101, "a page").unwrap_err();
        assert_eq!((&error.detail()["budget"], &error.detail()["used"]), (&500.into(), &400.into()));
        assert!(error.message().contains("memory_budget"), "{error}");
        drop(pages);
        let _more = budget.reserve(900, "weights").unwrap();
        assert_eq!((budget.left(), budget.used()), (100, 1000), "an eighth at least");
        drop(weights);
        // A limit of the user's is the only one.
        assert_eq!(Budget::with_memory(Some(10_000), Some(800), 0).left(), 10_000);
        assert_eq!(Budget::new(None).left(), u64::MAX);
    }
}
