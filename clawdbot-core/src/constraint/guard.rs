//! Calls into the parser's crate: a panic becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Runs `work`. What it changed must not be used after a panic.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| panicked())
}

/// The error for a panic of the crate.
pub(super) fn panicked() -> Error {
    Error::internal("the parser of constraints panicked")
}
