//! Models by the name of their repository.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use clawdbot_core::{Error, ErrorKind, HubOptions, Source};

use crate::error::clawdbot_error;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, give, guard, required, text};
use crate::model::clawdbot_progress_callback;
use crate::options::{clawdbot_options, read};
use crate::string::clawdbot_string;

/// Sees to it that a model is on this machine, and gives its path, for `clawdbot_model_load`. Only in a library that was
/// built with the feature `hub`; define CLAWDBOT_HUB to have it declared.
///
/// `name`: OWNER/NAME on Hugging Face, hf://OWNER/NAME or modelscope://OWNER/NAME, the address of its page, or any of them with
/// `:Q4_K_M` for its GGUF file of that quantization; or a path, which is given back.
/// `options`: NULL, or `revision` (branch, tag or commit), `file` (a GGUF file of the repository), `offline`.
/// `progress`: NULL, or called on this thread with bytes: those that are there, and those that will be (0 while that is
/// found out).
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_hub_fetch(
    name: *const c_char,
    options: Option<&clawdbot_options>,
    progress: clawdbot_progress_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let name = unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?;
        let options = read(options, HubOptions::from_json)?;
        // SAFETY: by the header, `progress` is NULL or a function of this type, which is called with its own `user_data` on
        // this thread.
        let go_on =
            |done, total| progress.is_none_or(|progress| unsafe { progress(user_data, done, total) } == 0);
        let path = Source::fetch(name, &options, go_on)?.into_os_string().into_string();
        let path = path.map_err(|path| {
            Error::new(
                ErrorKind::InvalidUtf8,
                format!("expected a cache whose path is UTF-8, found {path:?}"),
            )
        })?;
        give(out, clawdbot_string::new(path));
        Ok(())
    })
}
