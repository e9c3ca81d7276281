//! Stops calls that have no stream.

use std::mem::MaybeUninit;

use clawdbot_core::CancelHandle;

use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{give, quietly, required};

/// Stops the calls that it is given to, from another thread. (A stream is stopped by `clawdbot_stream_cancel`, loading by
/// its callback.)
pub struct clawdbot_cancel_handle(CancelHandle);

/// What a call is stopped by: nothing for NULL.
pub(crate) fn handle(cancel: Option<&clawdbot_cancel_handle>) -> CancelHandle {
    cancel.map_or_else(CancelHandle::default, |cancel| cancel.0.clone())
}

/// A new handle, for one call or several. It stops once and for all.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_cancel_handle_new(
    out: Option<&mut MaybeUninit<*mut clawdbot_cancel_handle>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        give(required(out, "out")?, clawdbot_cancel_handle(CancelHandle::default()));
        Ok(())
    })
}

/// Asks the calls that have the handle to stop, also those that are made later. May be called from any thread and from a
/// signal handler, while these calls run; not after, or while, the handle is freed. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_cancel_handle_cancel(cancel: Option<&clawdbot_cancel_handle>) {
    if let Some(cancel) = cancel {
        cancel.0.cancel();
    }
}

/// Frees a handle. Calls that have it continue, and can no longer be stopped. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_cancel_handle_free(cancel: Option<Box<clawdbot_cancel_handle>>) {
    quietly(|| drop(cancel));
}
