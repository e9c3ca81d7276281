//! The events of one request, pulled one by one or pushed to a callback.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::task::Poll;

use clawdbot_core::{CancelHandle, Stream};

use crate::callback::{UserData, next};
use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::event::clawdbot_event;
use crate::guard::guard;
use crate::handle::{exclusive, give, handle, quietly, required};

/// The events of one request. Computation happens inside the calls that ask for events.
pub struct clawdbot_stream {
    stream: Mutex<Stream>,
    cancel: CancelHandle,
}

impl clawdbot_stream {
    pub(crate) fn new(stream: Stream) -> Self {
        clawdbot_stream { cancel: stream.cancel_handle(), stream: Mutex::new(stream) }
    }
}

/// Receives events. The event is valid during the call, and must not be freed. Return 0 to go on; anything else cancels
/// the request.
pub type clawdbot_event_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const clawdbot_event) -> i32>;

/// Computes up to the next event and gives it to `out`, to be freed; NULL to `out` after the last event.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_stream_next(
    stream: Option<NonNull<clawdbot_stream>>,
    out: Option<&mut MaybeUninit<*mut clawdbot_event>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `stream` is NULL or a handle that is not yet freed.
        let (stream, out) = (unsafe { handle(stream, "stream") }?, required(out, "out")?);
        match exclusive(&stream.stream, "stream")?.next_event()? {
            Some(event) => give(out, clawdbot_event::new(event)?),
            None => _ = out.write(std::ptr::null_mut()),
        }
        Ok(())
    })
}

/// Gives the next event to `out`, to be freed, if there is one, without waiting; else NULL. `ended`, which may be NULL, gets 1
/// after the last event, otherwise 0. `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the runtime's option `driver` is `thread`, as
/// nobody computes otherwise.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_stream_try_next(
    stream: Option<NonNull<clawdbot_stream>>,
    out: Option<&mut MaybeUninit<*mut clawdbot_event>>,
    ended: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `stream` is NULL or a handle that is not yet freed.
        let (stream, out) = (unsafe { handle(stream, "stream") }?, required(out, "out")?);
        let polled = exclusive(&stream.stream, "stream")?.try_next_event();
        let (event, over) = match polled {
            Poll::Pending => (None, false),
            Poll::Ready(event) => event.map(|event| (event, true))?,
        };
        let over = over && event.is_none();
        match event {
            Some(event) => give(out, clawdbot_event::new(event)?),
            None => _ = out.write(std::ptr::null_mut()),
        }
        ended.map(|ended| ended.write(over.into()));
        Ok(())
    })
}

/// Is called when a stream has something to read. It must be quick and must not call this library: let it write to a pipe or
/// an eventfd, or signal a condition, for a thread that then calls `clawdbot_stream_try_next`.
pub type clawdbot_ready_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Lets `callback`, in place of an earlier one, be called whenever `clawdbot_stream_try_next` has something new to give, the end
/// included; at once, on this thread, if it has already; otherwise on the thread that computes, or on one that is inside a call for the same model. NULL takes the earlier one
/// away. When this, or `clawdbot_stream_free`, has returned, the earlier one is not called any more. The option `driver` must be
/// `thread`, as for `clawdbot_stream_try_next`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_stream_on_event(
    stream: Option<NonNull<clawdbot_stream>>,
    callback: clawdbot_ready_callback,
    user_data: *mut c_void,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `stream` is NULL or a handle that is not yet freed.
        let stream = unsafe { handle(stream, "stream") }?;
        let user_data = UserData::new(user_data);
        exclusive(&stream.stream, "stream")?.on_event(move || {
            if let Some(callback) = callback {
                // SAFETY: by the header, a function of this type, which is called with its own `user_data`, on any thread.
                unsafe { callback(user_data.get()) };
            }
        })
    })
}

/// Computes to the end. `callback` may be NULL, and gets every event. `out` may be NULL, and gets the completion, also
/// that of a request which was cancelled. `CLAWDBOT_ERROR_CLOSED` when the last event was taken before.
///
/// The callback may use any handle but this stream and its session.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_stream_run(
    stream: Option<NonNull<clawdbot_stream>>,
    callback: clawdbot_event_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `stream` is NULL or a handle that is not yet freed.
        let stream = unsafe { handle(stream, "stream") }?;
        let completion = exclusive(&stream.stream, "stream")?.run(|event| {
            let (Some(callback), Ok(event)) = (callback, clawdbot_event::new(event)) else {
                return ControlFlow::Continue(());
            };
            // SAFETY: by the header, `callback` is NULL or a function of this type, which is called with its own `user_data` on
            // this thread; `event` lives until it returns.
            next(unsafe { callback(user_data, &raw const event) })
        })?;
        if let Some(out) = out {
            give(out, clawdbot_completion::new(completion));
        }
        Ok(())
    })
}

/// Asks the request to stop; it ends with `CLAWDBOT_FINISH_CANCELLED`. Takes effect within a layer of the model,
/// also while the prompt is computed. May be called from any thread and from a signal handler, while another thread is
/// inside `clawdbot_stream_next` or `clawdbot_stream_run`; not after, or while, the stream is freed. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_stream_cancel(stream: Option<&clawdbot_stream>) {
    if let Some(stream) = stream {
        stream.cancel.cancel();
    }
}

/// Frees a stream; a request that has not ended is cancelled. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_stream_free(stream: Option<Box<clawdbot_stream>>) {
    quietly(|| drop(stream));
}
