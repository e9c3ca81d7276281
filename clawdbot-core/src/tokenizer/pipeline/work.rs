//! What a thread tokenizes at present: whether it should stop, and why it failed. The tokenizers crate drops errors of
//! normalizers, and asks nobody on its way.

use std::cell::RefCell;

use crate::error::{Error, ErrorKind, Result};
use crate::session::CancelHandle;

#[derive(Default)]
struct Work {
    cancelled: Option<CancelHandle>,
    failure: Option<Error>,
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

/// Does `work`, until `cancelled` is set.
///
/// # Errors
/// What [`fail`] was told; `Cancelled`; that of the work.
pub(in crate::tokenizer) fn run<T>(
    cancelled: Option<&CancelHandle>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let new = Work { cancelled: cancelled.cloned(), failure: None };
    let before = Before(WORK.with(|work| work.replace(new)));
    let result = work();
    let failure = WORK.with(|work| work.borrow_mut().failure.take());
    drop(before);
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
