//! What one rendering may still do. The engine's fuel counts instructions and bytes; this budget counts the elements
//! and bytes that our own operators, filters, tests and methods walk over and make, and looks at the clock as a last line.
//!
//! It belongs to the thread that renders: the engine hands no state to objects that it iterates over or prints.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use minijinja::Error;

use super::values::type_error;

/// Longest time that one rendering may take.
pub(super) const MAX_TIME: Duration = Duration::from_secs(10);

/// Units of work between two looks at the clock.
const UNITS_PER_LOOK: u64 = 1 << 16;

/// Units for an element that is read.
const WALK: u64 = 24;

/// Units for an element of a new list, tuple or dictionary: no less than the bytes it takes.
const MAKE: u64 = 48;

/// What is left.
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

/// Gives the work of this thread `units` (about bytes), to be used before `deadline`, until the guard is dropped.
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

/// Takes `units` off the budget. Outside of a rendering nothing is counted.
pub(super) fn spend(units: u64) -> Result<(), Error> {
    LEFT.with_borrow_mut(|left| {
        let Some(left) = left else { return Ok(()) };
        // Once exceeded, a budget stays so: an error that is not passed on must not open the way to more work.
        let rest = left.units.checked_sub(units);
        left.units = rest.unwrap_or(0);
        left.until_look = left.until_look.saturating_sub(units.max(1));
        if left.until_look == 0 {
            left.until_look = UNITS_PER_LOOK;
            left.is_late |= left.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        }
        if left.is_late {
            left.units = 0;
            return Err(type_error(format!("the template takes longer than {} s", MAX_TIME.as_secs())));
        }
        if rest.is_none() {
            return Err(type_error("the template takes too many steps, or makes too much text"));
        }
        Ok(())
    })
}

/// For `count` elements that are read.
pub(super) fn walk(count: usize) -> Result<(), Error> {
    spend((count as u64).saturating_mul(WALK))
}

/// For `count` elements that are about to be stored.
pub(super) fn make(count: usize) -> Result<(), Error> {
    spend((count as u64).saturating_mul(MAKE))
}

/// For text of `bytes` bytes that is about to be made; `None` for more than can be counted.
pub(super) fn text(bytes: Option<usize>) -> Result<(), Error> {
    spend(bytes.map_or(u64::MAX, |bytes| bytes as u64))
}

/// For `bytes` bytes of text that are read.
pub(super) fn scan(bytes: usize) -> Result<(), Error> {
    spend(bytes as u64 / 4 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exceeded_stays_so() {
        let guard = start(100, None);
        assert!(spend(60).is_ok() && spend(41).is_err() && spend(1).is_err());
        drop(guard);
        assert!(spend(u64::MAX).is_ok(), "nothing is counted outside of a rendering");
    }

    #[test]
    fn a_deadline_that_has_passed_ends_the_work() {
        let _guard = start(u64::MAX, Some(Instant::now()));
        let error = spend(1).expect_err("too late");
        assert!(error.to_string().contains("longer than"), "{error}");
        assert!(spend(1).is_err());
    }
}
