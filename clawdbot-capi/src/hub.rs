//! Models by the name of their repository.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::path::PathBuf;

use clawdbot_core::{Error, ErrorKind, HubOptions, Result, Source};

use crate::callback::{clawdbot_progress_callback, watched};
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, give, required, text};
use crate::options::{clawdbot_options, read};
use crate::runtime::clawdbot_runtime;
use crate::string::clawdbot_string;

/// Sees to it that a model is on this machine, and gives its path, for `clawdbot_model_load`. Only in a library that was
/// built with the feature `hub`; define CLAWDBOT_HUB to have it declared.
///
/// `name`: OWNER/NAME on Hugging Face, hf://OWNER/NAME or modelscope://OWNER/NAME, the address of its page, or any of them with
/// `:Q4_K_M` for its GGUF file of that quantization; or a path, which is given back.
/// `progress`: NULL, or called on this thread with bytes: those downloaded, and those in all (0 while that is not known).
///
/// Options: [`clawdbot_core::HubOptions`].
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
        give(out, path_string(Source::fetch(name, &options, watched(progress, user_data))?)?);
        Ok(())
    })
}

/// As `clawdbot_hub_fetch`; requests that fail and are repeated go to the log callback of `runtime`: why, and when.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_runtime_fetch(
    runtime: Option<&clawdbot_runtime>,
    name: *const c_char,
    options: Option<&clawdbot_options>,
    progress: clawdbot_progress_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (required(runtime, "runtime")?, required(out, "out")?);
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let name = unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?;
        let options = read(options, HubOptions::from_json)?;
        give(out, path_string(runtime.0.fetch(name, &options, watched(progress, user_data))?)?);
        Ok(())
    })
}

fn path_string(path: PathBuf) -> Result<clawdbot_string> {
    let path = path.into_os_string().into_string().map_err(|path| {
        let message = format!("expected a cache whose path is UTF-8, found {path:?}");
        Error::new(ErrorKind::InvalidUtf8, message)
    })?;
    Ok(clawdbot_string::new(path))
}
