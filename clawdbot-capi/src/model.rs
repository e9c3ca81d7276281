//! Models: loading, generating, rendering, scoring.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use clawdbot_core::{
    EmbedOptions, Error, GenerateOptions, Model, ModelOptions, Prompt, RerankOptions, Result, Runtime,
};

use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::handle::{
    CLAWDBOT_NUL_TERMINATED, array, copy_out, give, guard, has_room, internal, invalid, owned, quietly,
    required, text,
};
use crate::options::{clawdbot_options, read};
use crate::runtime::{clawdbot_runtime, source, to_json};
use crate::stream::clawdbot_stream;
use crate::string::clawdbot_string;

/// A loaded model: immutable weights, tokenizer, chat template, and the engine that all its requests share. Requests
/// that run at the same time, on several threads, are computed together.
pub struct clawdbot_model(pub(crate) Model);

/// Receives the progress of loading: weights done, weights in all. Return 0 to go on; anything else cancels.
pub type clawdbot_progress_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>;

/// Loads a model.
///
/// `runtime`: NULL for one of the model's own, with default options.
/// `path`: a Hugging Face model directory (config.json, safetensors, tokenizer.json), a GGUF file, or a packed file (see
/// `clawdbot_runtime_pack`); NULL for the story model that is part of the library.
/// `options`: NULL, or `weights` ("int8", "int4", "bf16", "f32", "stored"), `kv` ("auto", "int8", "bf16", "f32"), `max_context`, `prefill_chunk`,
/// `max_batch`, `merge_adapters` (paths of LoRA directories), `chat_template` (source of one to use instead of the model's), `mmap`, `verify`, `cache` (true, false, or the path of a directory).
/// `progress`: NULL, or called on this thread now and then; a load that it stops is `CLAWDBOT_ERROR_CANCELLED`.
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
        // SAFETY: the contract of the header.
        let source = unsafe { source(path) }?;
        let options = read(options, ModelOptions::from_json)?;
        let runtime =
            runtime.map_or_else(|| Runtime::new(&Default::default()), |runtime| Ok(runtime.0.clone()))?;
        // SAFETY: the caller's function, with its own pointer.
        let go_on =
            |done, total| progress.is_none_or(|progress| unsafe { progress(user_data, done, total) } == 0);
        give(out, clawdbot_model(runtime.load_with_progress(&source, &options, go_on)?));
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
/// answers `CLAWDBOT_ERROR_CLOSED`.
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

/// Frees a model's handle. Its sessions and streams go on, and the memory is freed with the last of them. NULL is
/// allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_free(model: Option<Box<clawdbot_model>>) {
    quietly(|| drop(model));
}

/// Loads the LoRA adapter in the directory `path`, as PEFT writes it, for requests whose option `adapter` is `name`. It is
/// applied beside the weights, which stay as they are.
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
        // SAFETY: the contract of the header.
        let (name, dir) =
            unsafe { (text(name, CLAWDBOT_NUL_TERMINATED, "name")?, crate::handle::path(path, "path")?) };
        model.0.load_adapter(name, dir)
    })
}

/// Unloads an adapter. Requests that run with it go on; its memory is freed with the last session that used it.
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
        // SAFETY: the contract of the header.
        model.0.unload_adapter(unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?)
    })
}

/// Generates from a text. `options` may be NULL, or has any of `adapter`, `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`,
/// `typical_p`, `repetition_penalty`, `presence_penalty`, `frequency_penalty`, `suppress_tokens`, `begin_suppress_tokens`, `bad_words_ids`,
/// `no_repeat_ngram_size`, `min_tokens`, `logit_bias`, `seed`, `stop`, `stop_token_ids`,
/// `ignore_eos`, `logprobs`, `add_special_tokens`, `skip_special_tokens`.
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
    // SAFETY: the contract of the header.
    guard(error, || generate(model, || unsafe { text_prompt(text, length) }, options, out))
}

/// Generates from token ids.
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
    // SAFETY: the contract of the header.
    guard(error, || generate(model, || unsafe { tokens_prompt(ids, count) }, options, out))
}

/// Generates from `count` texts, computed together, with the same options.
///
/// `lengths` may be NULL if all texts are NUL-terminated. `completions` and `errors` have room for `count` handles each.
/// With status 0 every text has given either a completion or an error, to be freed, and NULL stands in the other array: a
/// text that is not UTF-8, or is too long, fails alone. A wrong argument, such as an option, fails the whole call.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_batch(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    completions: *mut *mut clawdbot_completion,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let options = read(options, GenerateOptions::from_json)?;
        // SAFETY: the contract of the header.
        let texts = unsafe { batch_texts(texts, lengths, count) }?.into_iter();
        let requests = texts.map(|text| Ok((Prompt::from(text?), options.clone())));
        // SAFETY: the contract of the header.
        unsafe { batch(model, requests, (completions, errors), count) }
    })
}

/// As `clawdbot_model_generate_batch`, with options for each text: `options` points to `count` pointers, each of which may
/// be NULL, and may be the same as others. Options that are wrong fail their text alone.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_batch_with(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    options: *const *const clawdbot_options,
    count: usize,
    completions: *mut *mut clawdbot_completion,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: the contract of the header.
        let (texts, options) =
            unsafe { (batch_texts(texts, lengths, count)?, array(options, count, "options")?) };
        let requests = texts.into_iter().zip(options).map(|(text, options)| {
            // SAFETY: the contract of the header: NULL or a live handle.
            let options = unsafe { options.as_ref() };
            Ok((Prompt::from(text?), read(options, GenerateOptions::from_json)?))
        });
        // SAFETY: the contract of the header.
        unsafe { batch(model, requests, (completions, errors), count) }
    })
}

/// Generates from a text, event by event.
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
    // SAFETY: the contract of the header.
    guard(error, || stream(model, || unsafe { text_prompt(text, length) }, options, out))
}

/// Generates from token ids, event by event.
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
    // SAFETY: the contract of the header.
    guard(error, || stream(model, || unsafe { tokens_prompt(ids, count) }, options, out))
}

/// Logits at every position of `ids`: [count, vocab_size] floats, row-major, copied to `logits`, which has room for
/// `capacity`; their number goes to `needed`, which may be NULL. With `logits` NULL nothing is computed.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_logits(
    model: Option<&clawdbot_model>,
    ids: *const u32,
    count: usize,
    logits: *mut f32,
    capacity: usize,
    needed: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: the contract of the header.
    unsafe {
        clawdbot_model_logits_with(model, ids, count, std::ptr::null(), logits, capacity, needed, error)
    }
}

/// As `clawdbot_model_logits`, with the loaded adapter of that name; none for NULL.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_logits_with(
    model: Option<&clawdbot_model>,
    ids: *const u32,
    count: usize,
    adapter: *const c_char,
    logits: *mut f32,
    capacity: usize,
    needed: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = &required(model, "model")?.0;
        // SAFETY: the contract of the header.
        let ids = unsafe { array(ids, count, "ids") }?;
        let adapter = match adapter.is_null() {
            true => None,
            // SAFETY: the contract of the header.
            false => Some(unsafe { text(adapter, CLAWDBOT_NUL_TERMINATED, "adapter") }?),
        };
        let size =
            count.checked_mul(model.info().vocab_size).ok_or_else(|| invalid("count: too many tokens"))?;
        if !has_room(logits, capacity, size, "logits")? {
            needed.map(|needed| needed.write(size));
            return Ok(());
        }
        let found = model.logits_with(ids, adapter)?;
        // SAFETY: the contract of the header.
        unsafe { copy_out(&found, logits, capacity, needed, "logits") }
    })
}

/// Turns `count` texts into vectors, computed together: [count, dimensions] floats, row-major, copied to `vectors`, which has
/// room for `capacity`; their number goes to `needed`, which may be NULL. With `vectors` NULL nothing is computed.
///
/// `lengths` may be NULL if all texts are NUL-terminated. `options` may be NULL, or has any of `pooling` ("cls", "mean",
/// "max", "last", "weighted_mean", "mean_sqrt_len"), `normalize`, `prompt_name`, `prompt`, `dimensions`, `truncate`,
/// `add_special_tokens`; what is not given comes from the model's files.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_embed(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    vectors: *mut f32,
    capacity: usize,
    needed: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = &required(model, "model")?.0;
        // SAFETY: the contract of the header.
        let prompts = unsafe { batch_prompts(texts, lengths, count) }?;
        let options = read(options, EmbedOptions::from_json)?;
        let dimensions = options.dimensions.map_or(model.info().embedding.dimensions, |n| n as usize);
        let size = count.checked_mul(dimensions).ok_or_else(|| invalid("count: too many texts"))?;
        if !has_room(vectors, capacity, size, "vectors")? {
            needed.map(|needed| needed.write(size));
            return Ok(());
        }
        // SAFETY: the contract of the header.
        unsafe { copy_out(&model.embed(prompts, &options)?.values, vectors, capacity, needed, "vectors") }
    })
}

/// Scores `count` documents against a query, more is more relevant: `count` floats to `scores`, in their order.
///
/// `lengths` may be NULL if all documents are NUL-terminated. `options` may be NULL, or has any of `sigmoid`, `instruction`,
/// `truncate`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_rerank(
    model: Option<&clawdbot_model>,
    query: *const c_char,
    query_length: usize,
    documents: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    scores: *mut f32,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = &required(model, "model")?.0;
        required(NonNull::new(scores), "scores")?;
        // SAFETY: the contract of the header.
        let (query, documents) =
            unsafe { (text(query, query_length, "query")?, batch_texts(documents, lengths, count)?) };
        let documents = documents.into_iter().collect::<Result<Vec<_>>>()?;
        let found = model.rerank(query, &documents, &read(options, RerankOptions::from_json)?)?;
        // SAFETY: the contract of the header.
        unsafe { copy_out(&found, scores, count, None, "scores") }
    })
}

/// # Safety
/// As `handle::text`.
unsafe fn text_prompt(pointer: *const c_char, length: usize) -> Result<Prompt> {
    // SAFETY: the caller's promise.
    unsafe { text(pointer, length, "text") }.map(Prompt::from)
}

/// # Safety
/// As `handle::array`.
unsafe fn tokens_prompt(ids: *const u32, count: usize) -> Result<Prompt> {
    // SAFETY: the caller's promise.
    unsafe { array(ids, count, "ids") }.map(Prompt::from)
}

/// # Safety
/// As `handle::array` for both arrays, unless `lengths` is null; as `handle::text` for each text.
unsafe fn batch_prompts(
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
) -> Result<Vec<Prompt>> {
    // SAFETY: the caller's promise.
    let texts = unsafe { batch_texts(texts, lengths, count) }?;
    texts.into_iter().map(|text| text.map(Prompt::from)).collect()
}

/// # Safety
/// As [`batch_prompts`].
unsafe fn batch_texts<'a>(
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
) -> Result<Vec<Result<&'a str>>> {
    // SAFETY: the caller's promise.
    let texts = unsafe { array(texts, count, "texts") }?;
    let lengths = match lengths.is_null() {
        true => None,
        // SAFETY: the caller's promise.
        false => Some(unsafe { array(lengths, count, "lengths") }?),
    };
    let length = |i: usize| lengths.map_or(CLAWDBOT_NUL_TERMINATED, |lengths| lengths[i]);
    // SAFETY: the caller's promise.
    let one = |(i, &one): (usize, &*const c_char)| unsafe { text(one, length(i), &format!("texts[{i}]")) };
    Ok(texts.iter().enumerate().map(one).collect())
}

/// Generates for `count` requests, and gives each a completion or an error.
///
/// # Safety
/// Both arrays are null or writable for `count` pointers.
unsafe fn batch(
    model: Option<&clawdbot_model>,
    requests: impl Iterator<Item = Result<(Prompt, GenerateOptions)>>,
    (completions, errors): (*mut *mut clawdbot_completion, *mut *mut clawdbot_error),
    count: usize,
) -> Result<()> {
    let model = required(model, "model")?;
    required(NonNull::new(completions), "completions")?;
    required(NonNull::new(errors), "errors")?;
    // Texts that are none take no part.
    let mut good = Vec::new();
    let bad: Vec<Option<Error>> = requests.map(|request| request.map(|one| good.push(one)).err()).collect();
    let mut results = model.0.generate_batch_with_progress(good.into_iter(), |_, _| true).into_iter();
    let missing = || Err(internal("a request without a result"));
    let (done, failed): (Vec<_>, Vec<_>) = bad
        .into_iter()
        .map(|error| error.map_or_else(|| results.next().unwrap_or_else(missing), Err))
        .map(|result| match result {
            Ok(completion) => (owned(clawdbot_completion::new(completion)), null_mut()),
            Err(error) => (null_mut(), owned(clawdbot_error::new(error))),
        })
        .unzip();
    // SAFETY: the caller's promise.
    unsafe {
        copy_out(&done, completions, count, None, "completions")?;
        copy_out(&failed, errors, count, None, "errors")
    }
}

fn generate(
    model: Option<&clawdbot_model>,
    prompt: impl FnOnce() -> Result<Prompt>,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
) -> Result<()> {
    let (model, out) = (required(model, "model")?, required(out, "out")?);
    let completion = model.0.generate(prompt()?, &read(options, GenerateOptions::from_json)?)?;
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
    let stream = model.0.stream(prompt()?, &read(options, GenerateOptions::from_json)?)?;
    give(out, clawdbot_stream::new(stream));
    Ok(())
}
