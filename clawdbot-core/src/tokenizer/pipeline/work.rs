//! What a thread tokenizes at present: whether it should stop, and why it failed. The tokenizers crate drops errors of
//! normalizers, and asks nobody on its way.

use std::cell::RefCell;

use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind, Result};

/// What searches for patterns may do in any case, in their steps: less than a second. Some published patterns look ahead
/// over all digits of a number for each three of them. Fuzzing makes many patterns without end: they end sooner there.
const CREDIT: u64 = if cfg!(feature = "fuzzing") { 1 << 17 } else { 1 << 26 };
/// What they take of it at once, between looks at what was cancelled.
const DRAW: u64 = 1 << 14;

struct Work {
    cancelled: Option<CancelHandle>,
    failure: Option<Error>,
    /// What searches for patterns may still do.
    credit: u64,
}

impl Default for Work {
    fn default() -> Self {
        Work { cancelled: None, failure: None, credit: CREDIT }
    }
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

/// Puts back what was there, also when the work panics.
struct Before(Work);

impl Drop for Before {
    fn drop(&mut self) {
        WORK.with(|work| std::mem::swap(&mut *work.borrow_mut(), &mut self.0));
    }
}

/// What searches for patterns may do in several pieces of work, such as the tokens of one stream.
#[derive(Debug, Clone)]
pub(in crate::tokenizer) struct Allowance(u64);

impl Default for Allowance {
    fn default() -> Self {
        Allowance(CREDIT)
    }
}

/// Does `work`, until `cancelled` is set. What its searches need beyond their share is taken off `allowance`.
///
/// # Errors
/// What [`fail`] was given; `Cancelled`; that of the work.
pub(in crate::tokenizer) fn run<T>(
    cancelled: Option<&CancelHandle>,
    allowance: &mut Allowance,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let new = Work { cancelled: cancelled.cloned(), credit: allowance.0, ..Work::default() };
    let before = Before(WORK.with(|work| work.replace(new)));
    let result = work();
    let (failure, left) = WORK.with(|work| {
        let mut work = work.borrow_mut();
        (work.failure.take(), work.credit)
    });
    drop(before);
    // What a search left of its share is no allowance for others.
    allowance.0 = allowance.0.min(left);
    failure.map_or(result, Err)
}

/// Remembers that the work failed, and why.
pub(in crate::tokenizer) fn fail(reason: String) -> tokenizers::Error {
    remember(Error::invalid_tokenizer(reason))
}

fn remember(error: Error) -> tokenizers::Error {
    let message = error.message().to_owned();
    WORK.with(|work| {
        work.borrow_mut().failure.get_or_insert(error);
    });
    message.into()
}

/// # Errors
/// When the work should stop, or failed.
pub(in crate::tokenizer) fn check() -> tokenizers::Result<()> {
    let (cancelled, failed) = WORK.with(|work| {
        let work = work.borrow();
        let cancelled = work.cancelled.as_ref().is_some_and(CancelHandle::is_cancelled);
        (cancelled, work.failure.is_some())
    });
    match (failed, cancelled) {
        (true, _) => Err("an earlier step failed".into()),
        (_, true) => Err(remember(Error::new(ErrorKind::Cancelled, "the work was cancelled"))),
        _ => Ok(()),
    }
}

/// What a search may do: its own share, and what others left.
pub(super) struct Credit {
    drawn: u64,
}

impl Credit {
    pub(super) fn new(share: u64) -> Self {
        WORK.with(|work| {
            let credit = &mut work.borrow_mut().credit;
            *credit = credit.saturating_add(share);
        });
        Credit { drawn: 0 }
    }

    /// Takes `steps` off.
    ///
    /// # Errors
    /// When the work should stop, and when nothing is left.
    pub(super) fn spend(&mut self, steps: u64) -> tokenizers::Result<()> {
        if let Some(rest) = self.drawn.checked_sub(steps) {
            self.drawn = rest;
            return Ok(());
        }
        check()?;
        let left = WORK.with(|work| {
            let credit = &mut work.borrow_mut().credit;
            let drawn = (self.drawn.saturating_add(*credit)).min(steps.saturating_add(DRAW));
            *credit -= drawn - self.drawn;
            drawn.checked_sub(steps)
        });
        self.drawn = left.ok_or_else(too_long)?;
        Ok(())
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        WORK.with(|work| {
            let credit = &mut work.borrow_mut().credit;
            *credit = credit.saturating_add(self.drawn);
        });
    }
}

/// What is left.
#[cfg(test)]
pub(super) fn left() -> u64 {
    WORK.with(|work| work.borrow().credit)
}

/// The error of a pattern that goes back too often.
pub(super) fn too_long() -> tokenizers::Error {
    fail("a pattern takes too long: expected time in proportion to the text".to_owned())
}
