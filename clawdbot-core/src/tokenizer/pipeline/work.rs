//! Per-thread state of tokenizing: whether it should stop, and why it failed. The tokenizers crate drops errors of
//! normalizers and has no way to cancel.

use std::cell::RefCell;

use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind, Result};

/// Steps that pattern searches may take in any case: less than a second. Some published patterns look ahead over all
/// digits of a number for every three of them. Fuzzing makes many endless patterns, which end sooner.
const CREDIT: u64 = if cfg!(feature = "fuzzing") { 1 << 17 } else { 1 << 26 };
/// Steps taken from the credit at once, between checks for cancellation.
const DRAW: u64 = 1 << 14;

struct Work {
    cancelled: Option<CancelHandle>,
    failure: Option<Error>,
    /// Steps that pattern searches may still take.
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

/// Restores the previous state, also if the work panics.
struct Before(Work);

impl Drop for Before {
    fn drop(&mut self) {
        WORK.with(|work| std::mem::swap(&mut *work.borrow_mut(), &mut self.0));
    }
}

/// Steps that pattern searches may take in several pieces of work, such as the tokens of one stream.
#[derive(Debug, Clone)]
pub(in crate::tokenizer) struct Allowance(u64);

impl Default for Allowance {
    fn default() -> Self {
        Allowance(CREDIT)
    }
}

/// Runs `work` until `cancelled` is set. Searches beyond their share are charged to `allowance`.
///
/// # Errors
/// The error given to [`fail`]; `Cancelled`; that of the work.
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
    // Steps that a search did not use are not for others.
    allowance.0 = allowance.0.min(left);
    failure.map_or(result, Err)
}

/// Records that the work failed, and why.
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
/// If the work should stop or has failed.
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

/// Steps that a search may take: its own share, then the shared credit.
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

    /// Takes `steps` from it.
    ///
    /// # Errors
    /// If the work should stop, or no steps are left.
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

/// Steps left.
#[cfg(test)]
pub(super) fn left() -> u64 {
    WORK.with(|work| work.borrow().credit)
}

/// The error of a pattern that backtracks too often.
pub(super) fn too_long() -> tokenizers::Error {
    fail("a pattern takes too long: expected time proportional to the text".to_owned())
}
