//! A function of the program that changes logits.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use clawdbot_core::{LogitsProcessor, Result, SharedProcessor};

use crate::callback::UserData;
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{handle, invalid};
use crate::options::clawdbot_options;

/// Changes the logits of a request's next token before it is sampled: `count` of them, one for each token id, with `logit_bias` and
/// penalties, before masks and temperature. `prompt` and `output` are the tokens so far. Minus infinity forbids a token. Return 0
/// to go on; anything else ends the request with `CLAWDBOT_ERROR_INVALID_ARGUMENT`.
///
/// It is called for each token on a thread of the library, perhaps on several at a time for several requests, and other requests of
/// the model wait for it. It must not call back into the library, and what it does must depend on its arguments alone: the same
/// place may be asked for more than once. The arrays are valid during the call.
pub type clawdbot_logits_callback = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        prompt: *const u32,
        prompt_length: usize,
        output: *const u32,
        output_length: usize,
        logits: *mut f32,
        count: usize,
    ) -> i32,
>;

/// Is called once, on any thread, when nothing uses its `user_data` any more.
pub type clawdbot_release_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A callback with its data.
struct Function {
    callback: clawdbot_logits_callback,
    release: clawdbot_release_callback,
    user_data: UserData,
}

impl LogitsProcessor for Function {
    fn process(&self, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()> {
        let Some(callback) = self.callback else { return Ok(()) };
        let (count, user_data) = (logits.len(), self.user_data.get());
        // SAFETY: by the header, a function of this type, which is called with its own `user_data`, on any thread; the arrays
        // have these lengths.
        let returned = unsafe {
            callback(
                user_data,
                prompt.as_ptr(),
                prompt.len(),
                output.as_ptr(),
                output.len(),
                logits.as_mut_ptr(),
                count,
            )
        };
        match returned {
            0 => Ok(()),
            other => Err(invalid(format!("logits_processor: expected 0 from it, found {other}"))),
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: by the header, a function of this type, which is called with its own `user_data`, on any thread.
            unsafe { release(self.user_data.get()) };
        }
    }
}

/// Lets `callback` change the logits of the requests that these options are used for; NULL: nothing any more. `release` may be
/// NULL; otherwise it is called once with `user_data`: when the options are freed or have another callback, and all requests that were
/// begun with them have ended and are freed; at once if this fails. Calls that take other options refuse these.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_logits_processor(
    options: Option<NonNull<clawdbot_options>>,
    callback: clawdbot_logits_callback,
    user_data: *mut c_void,
    release: clawdbot_release_callback,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let function = Function { callback, release, user_data: UserData::new(user_data) };
        let processor = callback.is_some().then(|| SharedProcessor::new(function));
        // SAFETY: by the header, `options` is NULL or a handle that is not yet freed.
        unsafe { handle(options, "options") }?.set_processor(processor);
        Ok(())
    })
}
