//! The memory budget: bytes are reserved before they are allocated and given back on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Shared account of the bytes that models hold.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: Option<u64>,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Budget(Arc::new(Account { limit, used: AtomicU64::new(0) }))
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` for `purpose` ("weights", ...) out of the budget.
    ///
    /// # Errors
    /// `OutOfBudget` with the numbers; nothing is taken then.
    pub(crate) fn reserve(&self, bytes: u64, purpose: &str) -> Result<Reservation> {
        let limit = self.0.limit.unwrap_or(u64::MAX);
        let take = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= limit);
        match self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(Reservation { budget: self.clone(), bytes }),
            Err(used) => Err(Error::new(
                ErrorKind::OutOfBudget,
                format!("{purpose} need {bytes} bytes, but of the budget of {limit} bytes {used} are used"),
            )
            .with("needed", bytes)
            .with("budget", limit)
            .with("used", used)),
        }
    }
}

/// Bytes taken out of a budget; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
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
        let second = budget.reserve(40, "KV cache").unwrap();
        assert_eq!(budget.used(), 100);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(u64::MAX, "x").is_err());
        let unlimited = Budget::new(None);
        let _most = unlimited.reserve(u64::MAX, "x").unwrap();
        assert!(unlimited.reserve(1, "overflow").is_err());
    }
}
