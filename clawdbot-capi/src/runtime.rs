//! Runtimes, and what models would cost on them.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use clawdbot_core::{
    EvaluateOptions, LogLevel, LogRecord, ModelOptions, PackOptions, Result, Runtime, RuntimeOptions, Source,
};
use serde_json::json;

use crate::callback::{UserData, clawdbot_progress_callback, watched};
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{give, internal, path, quietly, required};
use crate::options::{clawdbot_options, read};
use crate::string::{Text, clawdbot_string};

/// Log level: something that was asked for is not quite what happens.
pub const CLAWDBOT_LOG_WARNING: i32 = 1;
/// Log level: what was chosen, such as kernels, threads and sizes.
pub const CLAWDBOT_LOG_INFO: i32 = 2;

const _: () =
    assert!(LogLevel::Warning as i32 == CLAWDBOT_LOG_WARNING && LogLevel::Info as i32 == CLAWDBOT_LOG_INFO);

/// Threads, memory budget and log callback; models keep theirs alive.
///
/// Worker threads start at the first computation. After a `fork`, the child must make its own runtime: everything that
/// needs this one answers `CLAWDBOT_ERROR_FORKED_RUNTIME` there.
pub struct clawdbot_runtime(pub(crate) Runtime);

/// Receives log messages: one of `CLAWDBOT_LOG_*`, and one line of text with a NUL after it, valid during the call. May
/// be called on any thread that uses the runtime, several at a time. It must not call back into the library.
pub type clawdbot_log_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, message: *const c_char, length: usize)>;

/// The source that a path stands for: the model directory or packed file, or the built-in model if it is null.
///
/// # Safety
/// `pointer` is null or NUL-terminated.
pub(crate) unsafe fn source(pointer: *const c_char) -> Result<Source> {
    if pointer.is_null() {
        return Ok(Source::Builtin);
    }
    // SAFETY: by the clause above, `pointer` is NULL or ends with a NUL.
    Ok(Source::from(unsafe { path(pointer, "path") }?))
}

/// A new runtime. `log` may be NULL; it and `user_data` must remain valid until the runtime and everything made with it is
/// freed.
///
/// Options: [`clawdbot_core::RuntimeOptions`].
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_runtime_new(
    options: Option<&clawdbot_options>,
    log: clawdbot_log_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_runtime>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let out = required(out, "out")?;
        let options = read(options, RuntimeOptions::from_json)?;
        let user_data = UserData::new(user_data);
        let runtime = match log {
            None => Runtime::new(&options)?,
            Some(log) => Runtime::with_log(&options, move |record: &LogRecord| {
                let message = Text::from(record.message.clone());
                // SAFETY: by the documentation above, `log` and `user_data` remain valid until everything made with the runtime
                // is freed; `message` lives until the call returns.
                unsafe { log(user_data.get(), record.level as i32, message.pointer(), message.length()) }
            })?,
        };
        give(out, clawdbot_runtime(runtime));
        Ok(())
    })
}

/// Facts about a runtime, a JSON object: threads, numa, kernels, memory_budget (bytes or null), memory_used (bytes).
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_runtime_info_json(
    runtime: Option<&clawdbot_runtime>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (&required(runtime, "runtime")?.0, required(out, "out")?);
        let info = json!({
            "threads": runtime.threads(), "numa": runtime.numa().name(), "kernels": runtime.kernels(),
            "memory_budget": runtime.memory_budget(), "memory_used": runtime.memory_used(),
        });
        give(out, clawdbot_string::new(info.to_string()));
        Ok(())
    })
}

/// What the runtime's models have done since they were loaded, and what they do now, a JSON object: memory_used, memory_budget,
/// swap_used, histogram_bounds (seconds), and models, each with its name, requests by outcome, running, waiting, tokens, passes,
/// preemptions, bytes, and histograms of times. Waits for no pass.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_runtime_metrics_json(
    runtime: Option<&clawdbot_runtime>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (&required(runtime, "runtime")?.0, required(out, "out")?);
        give(out, clawdbot_string::new(json!(runtime.metrics()).to_string()));
        Ok(())
    })
}

/// What loading a model would cost, a JSON object: parameters, weights_bytes, kv_bytes_per_token, load_bytes, fits (whether
/// these are free in the budget, or without one in `system_memory`), verified, tasks, has_chat_template, warnings (what of the files has no effect), and so on.
/// Opens and checks the files, but reads no weights. Arguments as of `clawdbot_model_load`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_runtime_plan_json(
    runtime: Option<&clawdbot_runtime>,
    path: *const c_char,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (required(runtime, "runtime")?, required(out, "out")?);
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let source = unsafe { source(path) }?;
        let plan = runtime.0.plan(&source, &read(options, ModelOptions::from_json)?)?;
        give(out, clawdbot_string::new(to_json(&plan)?));
        Ok(())
    })
}

/// Writes a model to a packed file: weights as they are computed with, tokenizer, chat template and configuration. Such a
/// file loads in milliseconds, and processes that use it share its memory. It appears when it is complete.
///
/// `path`: as of `clawdbot_model_load`. `target`: the file to write.
/// `progress`: NULL, or called on this thread now and then; what it stops is `CLAWDBOT_ERROR_CANCELLED`.
/// `size`: receives the size of the file in bytes; may be NULL.
///
/// Options: [`clawdbot_core::PackOptions`].
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_runtime_pack(
    runtime: Option<&clawdbot_runtime>,
    path: *const c_char,
    target: *const c_char,
    options: Option<&clawdbot_options>,
    progress: clawdbot_progress_callback,
    user_data: *mut c_void,
    size: Option<&mut MaybeUninit<u64>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let runtime = required(runtime, "runtime")?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let source = unsafe { source(path) }?;
        // SAFETY: by the header, `target` is NULL or ends with a NUL.
        let target = unsafe { crate::handle::path(target, "target") }?;
        let options = read(options, PackOptions::from_json)?;
        let bytes = runtime.0.pack_with_progress(&source, target, &options, watched(progress, user_data))?;
        size.map(|size| size.write(bytes));
        Ok(())
    })
}

/// How good a model is with a weight type, a JSON object: perplexity, and against a reference kl_divergence (nats),
/// top1_agreement and the error of each layer; `reference` says what it was compared with. One layer of each is in memory at
/// a time.
///
/// `path`: as of `clawdbot_model_load`.
/// `progress`: NULL, or called on this thread now and then; what it stops is `CLAWDBOT_ERROR_CANCELLED`.
///
/// Options: [`clawdbot_core::EvaluateOptions`].
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_runtime_evaluate_json(
    runtime: Option<&clawdbot_runtime>,
    path: *const c_char,
    options: Option<&clawdbot_options>,
    progress: clawdbot_progress_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (required(runtime, "runtime")?, required(out, "out")?);
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let source = unsafe { source(path) }?;
        let options = read(options, EvaluateOptions::from_json)?;
        let found = runtime.0.evaluate_with_progress(&source, &options, watched(progress, user_data))?;
        give(out, clawdbot_string::new(to_json(&found)?));
        Ok(())
    })
}

/// `value` as JSON text.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| internal(format!("no JSON: {error}")))
}

/// Frees a runtime; models made with it keep working. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_runtime_free(runtime: Option<Box<clawdbot_runtime>>) {
    quietly(|| drop(runtime));
}
