//! Models: loading, generating, rendering, scoring.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use clawdbot_core::{Model, ModelOptions, Prompt, Result, Runtime};

use crate::callback::{clawdbot_progress_callback, watched};
use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, array, give, quietly, required, text};
use crate::options::{clawdbot_options, generation, read};
use crate::runtime::{clawdbot_runtime, source, to_json};
use crate::stream::clawdbot_stream;
use crate::string::clawdbot_string;

/// A loaded model: immutable weights, tokenizer, chat template, and the engine that all its requests share. Requests
/// that run at the same time, on several threads, are computed together.
pub struct clawdbot_model(pub(crate) Model);

/// Loads a model.
///
/// `runtime`: NULL for one of the model's own, with default options.
/// `path`: a Hugging Face model directory (config.json, safetensors, tokenizer.json), a GGUF file, or a packed file (see
/// `clawdbot_runtime_pack`); NULL for the story model that is part of the library.
/// `progress`: NULL, or called on this thread now and then; a load that it stops is `CLAWDBOT_ERROR_CANCELLED`.
///
/// Options: [`clawdbot_core::ModelOptions`].
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_load(
    runtime: Option<&clawdbot_runtime>,
    path: *const c_char,
    options: Option<&clawdbot_options>,
    progress: clawdbot_progress_callback,
    user_data: *mut c_void,
    out: Option<&mut MaybeUninit<*mut clawdbot_model>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let source = unsafe { source(path) }?;
        let options = read(options, ModelOptions::from_json)?;
        let runtime =
            runtime.map_or_else(|| Runtime::new(&Default::default()), |runtime| Ok(runtime.0.clone()))?;
        give(
            out,
            clawdbot_model(runtime.load_with_progress(&source, &options, watched(progress, user_data))?),
        );
        Ok(())
    })
}

/// Facts about a model, a JSON object: those of its plan, and vocab_size, bos_token_id, eos_token_ids,
/// has_chat_template, tasks, embedding (dimensions, pooling, normalize, prompts, default_prompt_name, max_tokens).
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_info_json(
    model: Option<&clawdbot_model>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        give(out, clawdbot_string::new(to_json(model.0.info())?));
        Ok(())
    })
}

/// Cancels the model's requests and frees its memory once they have ended. The handle remains, and everything else
/// answers `CLAWDBOT_ERROR_CLOSED`. The weights stay in memory until the last of its sessions, streams (until their last event is read)
/// and instances is freed; instances go on.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_close(
    model: Option<&clawdbot_model>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        required(model, "model")?.0.close();
        Ok(())
    })
}

/// Frees a model's handle. Its sessions, streams and instances keep working. The weights stay in memory until the last of these
/// (streams until their last event is read) is freed, also after `clawdbot_model_close`. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_free(model: Option<Box<clawdbot_model>>) {
    quietly(|| drop(model));
}

/// Changes the most sequences of a forward pass, as the option `max_batch`, also while requests run, whose results stay the
/// same. `CLAWDBOT_ERROR_OUT_OF_BUDGET` without memory for larger passes; nothing changes then.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_set_max_batch(
    model: Option<&clawdbot_model>,
    max_batch: u32,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || required(model, "model")?.0.set_max_batch(max_batch))
}

/// Changes the most tokens of a forward pass, as the option `prefill_chunk`; else as `clawdbot_model_set_max_batch`. Prompts
/// that are under way get no more tokens of a pass than before.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_set_prefill_chunk(
    model: Option<&clawdbot_model>,
    prefill_chunk: u32,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || required(model, "model")?.0.set_prefill_chunk(prefill_chunk))
}

/// Loads the LoRA adapter in the directory `path`, as PEFT writes it, for requests whose option `adapter` is `name`. It is
/// applied next to the weights, which stay as they are.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_load_adapter(
    model: Option<&clawdbot_model>,
    name: *const c_char,
    path: *const c_char,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = required(model, "model")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let name = unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let dir = unsafe { crate::handle::path(path, "path") }?;
        model.0.load_adapter(name, dir)
    })
}

/// Unloads an adapter. Requests that run keep using it; its memory is freed with the last session that used it.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_unload_adapter(
    model: Option<&clawdbot_model>,
    name: *const c_char,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = required(model, "model")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        model.0.unload_adapter(unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?)
    })
}

/// Generates from a text.
///
/// Options: [`clawdbot_core::GenerateOptions`].
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_text(
    model: Option<&clawdbot_model>,
    text: *const c_char,
    length: usize,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
    guard(error, || generate(model, || unsafe { text_prompt(text, length) }, options, out))
}

/// Generates from token ids. `options` as of `clawdbot_model_generate_text`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_tokens(
    model: Option<&clawdbot_model>,
    ids: *const u32,
    count: usize,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `ids` is NULL or readable for `count` items.
    guard(error, || generate(model, || unsafe { tokens_prompt(ids, count) }, options, out))
}

/// Generates from a text, event by event. `options` as of `clawdbot_model_generate_text`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_stream_text(
    model: Option<&clawdbot_model>,
    text: *const c_char,
    length: usize,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
    guard(error, || stream(model, || unsafe { text_prompt(text, length) }, options, out))
}

/// Generates from token ids, event by event. `options` as of `clawdbot_model_generate_text`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_stream_tokens(
    model: Option<&clawdbot_model>,
    ids: *const u32,
    count: usize,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `ids` is NULL or readable for `count` items.
    guard(error, || stream(model, || unsafe { tokens_prompt(ids, count) }, options, out))
}

/// # Safety
/// As `handle::text`.
unsafe fn text_prompt(pointer: *const c_char, length: usize) -> Result<Prompt> {
    // SAFETY: by the clause above, `pointer` is NULL or readable for `length` bytes, or up to a NUL.
    unsafe { text(pointer, length, "text") }.map(Prompt::from)
}

/// # Safety
/// As `handle::array`.
unsafe fn tokens_prompt(ids: *const u32, count: usize) -> Result<Prompt> {
    // SAFETY: by the clause above, `ids` is NULL or readable for `count` items.
    unsafe { array(ids, count, "ids") }.map(Prompt::from)
}

fn generate(
    model: Option<&clawdbot_model>,
    prompt: impl FnOnce() -> Result<Prompt>,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
) -> Result<()> {
    let (model, out) = (required(model, "model")?, required(out, "out")?);
    let completion = model.0.generate(prompt()?, &generation(options)?)?;
    give(out, clawdbot_completion::new(completion));
    Ok(())
}

fn stream(
    model: Option<&clawdbot_model>,
    prompt: impl FnOnce() -> Result<Prompt>,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
) -> Result<()> {
    let (model, out) = (required(model, "model")?, required(out, "out")?);
    let stream = model.0.stream(prompt()?, &generation(options)?)?;
    give(out, clawdbot_stream::new(stream));
    Ok(())
}
