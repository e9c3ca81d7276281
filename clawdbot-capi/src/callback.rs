//! Callbacks: what their answers mean, the pointer that they get back, and progress.

use std::ffi::c_void;
use std::ops::ControlFlow;

use clawdbot_core::Progress;

/// What the answer of a callback means: 0 is to go on.
pub(crate) fn next(answer: i32) -> ControlFlow<()> {
    if answer == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// The pointer that a callback gets back. The header asks for one that may be used on any thread.
#[derive(Clone, Copy)]
pub(crate) struct UserData(*mut c_void);

// SAFETY: the pointer is only passed on to its callback, which by the header may be called on any thread.
unsafe impl Send for UserData {}
// SAFETY: the pointer is only passed on to its callback, which by the header may be called on any thread.
unsafe impl Sync for UserData {}

impl UserData {
    pub(crate) fn new(pointer: *mut c_void) -> Self {
        UserData(pointer)
    }

    pub(crate) fn get(self) -> *mut c_void {
        self.0
    }
}

/// Receives the progress of loading: weights done, weights in all. Return 0 to go on; anything else cancels.
pub type clawdbot_progress_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>;

/// Progress of the core, for a callback that may be NULL.
pub(crate) fn watched(
    callback: clawdbot_progress_callback,
    user_data: *mut c_void,
) -> impl FnMut(Progress) -> ControlFlow<()> {
    move |now| {
        // SAFETY: by the header, `progress` is NULL or a function of this type, which is called with its own `user_data` on
        // this thread.
        callback.map_or(ControlFlow::Continue(()), |callback| unsafe {
            next(callback(user_data, now.done, now.total))
        })
    }
}
