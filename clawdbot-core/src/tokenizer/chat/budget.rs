//! The budget of one rendering. The engine's fuel counts instructions and bytes. This budget counts elements and bytes
//! that our own operators, filters, tests and methods read and make, and checks the clock as a last resort.
//!
//! It belongs to the thread that renders: the engine passes no state to objects that it iterates over or prints.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use minijinja::Error;

use super::errors::type_error;

/// Longest time of a rendering.
pub(super) const MAX_TIME: Duration = Duration::from_secs(10);

/// Units of work between two checks of the clock.
const UNITS_PER_LOOK: u64 = 1 << 16;

/// Units for reading an element.
const WALK: u64 = 24;

/// Units for storing an element in a new list, tuple or dictionary: at least the bytes it takes.
const MAKE: u64 = 48;

/// The remaining budget.
#[derive(Debug, Clone, Copy)]
struct Left {
    units: u64,
    until_look: u64,
    deadline: Option<Instant>,
    is_late: bool,
}

thread_local! {
    static LEFT: RefCell<Option<Left>> = const { RefCell::new(None) };
}

/// Gives this thread a budget of `units` (about bytes) until `deadline`, while the guard lives.
pub(super) fn start(units: u64, deadline: Option<Instant>) -> Guard {
    LEFT.with_borrow_mut(|left| *left = Some(Left { units, until_look: 0, deadline, is_late: false }));
    Guard
}

/// Ends the budget of its thread when dropped.
pub(super) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        LEFT.with_borrow_mut(|left| *left = None);
    }
}

/// Spends `units` of the budget. Outside of a rendering nothing is counted.
pub(super) fn spend(units: u64) -> Result<(), Error> {
    LEFT.with_borrow_mut(|left| {
        let Some(left) = left else { return Ok(()) };
        // An exceeded budget stays exceeded: dropping the error must not allow more work.
        let rest = left.units.checked_sub(units);
        left.units = rest.unwrap_or(0);
        left.until_look = left.until_look.saturating_sub(units.max(1));
        if left.until_look == 0 {
            left.until_look = UNITS_PER_LOOK;
            left.is_late |= left.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        }
        if left.is_late {
            left.units = 0;
            return Err(type_error(format!(
                "expected a template that renders within {} s",
                MAX_TIME.as_secs()
            )));
        }
        if rest.is_none() {
            return Err(type_error("the template takes too many steps or makes too much text"));
        }
        Ok(())
    })
}

/// Spends for reading `count` elements.
pub(super) fn walk(count: usize) -> Result<(), Error> {
    spend((count as u64).saturating_mul(WALK))
}

/// Spends for storing `count` elements.
pub(super) fn make(count: usize) -> Result<(), Error> {
    spend((count as u64).saturating_mul(MAKE))
}

/// Spends for making a text of `bytes` bytes; `None`: more than can be counted.
pub(super) fn text(bytes: Option<usize>) -> Result<(), Error> {
    spend(bytes.map_or(u64::MAX, |bytes| bytes as u64))
}

/// Spends for reading `bytes` bytes of text.
pub(super) fn scan(bytes: usize) -> Result<(), Error> {
    spend(bytes as u64 / 4 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exceeded_budget_stays_exceeded() {
        let guard = start(100, None);
        assert!(spend(60).is_ok() && spend(41).is_err() && spend(1).is_err());
        drop(guard);
        assert!(spend(u64::MAX).is_ok(), "nothing is counted outside of a rendering");
    }

    #[test]
    fn a_passed_deadline_ends_the_work() {
        let _guard = start(u64::MAX, Some(Instant::now()));
        let error = spend(1).expect_err("too late");
        assert!(error.to_string().contains("renders within"), "{error}");
        assert!(spend(1).is_err());
    }
}
