//! Logits, vectors of texts, and scores of documents.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::ptr::NonNull;

use clawdbot_core::{EmbedOptions, Embeddings, Item, Model, Prompt, RerankOptions, Result};

use crate::batch::{all_texts, give_errors};
use crate::cancel::{self, clawdbot_cancel_handle};
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, array, copy_out, give, has_room, invalid, required, text};
use crate::model::clawdbot_model;
use crate::options::{clawdbot_options, read};
use crate::runtime::to_json;
use crate::string::clawdbot_string;

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
    // SAFETY: by the header, as for the called function, whose `adapter` may be NULL.
    unsafe {
        clawdbot_model_logits_with(model, ids, count, std::ptr::null(), None, logits, capacity, needed, error)
    }
}

/// As `clawdbot_model_logits`, with the loaded adapter of that name; none for NULL. `cancel` may be NULL; a call that it stops,
/// within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_logits_with(
    model: Option<&clawdbot_model>,
    ids: *const u32,
    count: usize,
    adapter: *const c_char,
    cancel: Option<&clawdbot_cancel_handle>,
    logits: *mut f32,
    capacity: usize,
    needed: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let model = &required(model, "model")?.0;
        // SAFETY: by the header, `ids` is NULL or readable for `count` items.
        let ids = unsafe { array(ids, count, "ids") }?;
        let adapter = match adapter.is_null() {
            true => None,
            // SAFETY: by the header, `adapter` is NULL or ends with a NUL.
            false => Some(unsafe { text(adapter, CLAWDBOT_NUL_TERMINATED, "adapter") }?),
        };
        let size =
            count.checked_mul(model.info().vocab_size).ok_or_else(|| invalid("count: too many tokens"))?;
        if !has_room(logits, capacity, size, "logits")? {
            needed.map(|needed| needed.write(size));
            return Ok(());
        }
        let found = model.logits_until(ids, adapter, &cancel::handle(cancel))?;
        // SAFETY: by the header, `logits` is NULL or writable for `capacity` items.
        unsafe { copy_out(&found, logits, capacity, needed, "logits") }
    })
}

/// How likely `count` continuations of a prompt are, as JSON: an array with an object for each, which has `token_ids`,
/// `logprobs` (natural logarithms, one for each token), `greedy` (whether each token is the most likely one), `logprob` (their sum),
/// `is_greedy` (all are) and `probability` (of all continuations of the call; they add up to 1). The prompt is computed once, and gets the tokenizer's special tokens; continuations are tokenized
/// together with it.
///
/// `lengths` may be NULL if all continuations are NUL-terminated. `adapter` is the name of a loaded adapter, or NULL. `cancel` may
/// be NULL; a call that it stops, within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_score_json(
    model: Option<&clawdbot_model>,
    prompt: *const c_char,
    prompt_length: usize,
    continuations: *const *const c_char,
    lengths: *const usize,
    count: usize,
    adapter: *const c_char,
    cancel: Option<&clawdbot_cancel_handle>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (&required(model, "model")?.0, required(out, "out")?);
        // SAFETY: by the header, `prompt` is NULL or readable for `prompt_length` bytes, or up to a NUL.
        let prompt = unsafe { text(prompt, prompt_length, "prompt") }?;
        // SAFETY: by the header, `continuations` and `lengths` are NULL or readable for `count` items, and so is each text
        // for its length.
        let texts = unsafe { all_texts(continuations, lengths, count, "continuations", Item::Continuation) }?;
        let texts = texts.into_iter().map(|text| text.map(Prompt::from)).collect::<Result<Vec<_>>>()?;
        let adapter = match adapter.is_null() {
            true => None,
            // SAFETY: by the header, `adapter` is NULL or ends with a NUL.
            false => Some(unsafe { text(adapter, CLAWDBOT_NUL_TERMINATED, "adapter") }?),
        };
        let scores = model.score_until(prompt, &texts, adapter, &cancel::handle(cancel))?;
        give(out, clawdbot_string::new(to_json(&scores)?));
        Ok(())
    })
}

/// Turns `count` texts into vectors, computed together: [count, dimensions] floats, row-major, copied to `vectors`, which has
/// room for `capacity`; their number goes to `needed`, which may be NULL. With `vectors` NULL nothing is computed. The first text
/// that fails fails the call; its error says which one it is.
///
/// `lengths` may be NULL if all texts are NUL-terminated.
///
/// Options: [`clawdbot_core::EmbedOptions`].
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
        // SAFETY: by the header, `texts` and `lengths` are NULL or readable for `count` items, and so is each text for its
        // length; `vectors` is NULL or writable for `capacity` items.
        unsafe {
            embed(
                model,
                Texts { texts, lengths, count },
                options,
                Room { vectors, capacity, needed },
                |model, texts, options| {
                    let texts = texts.into_iter().collect::<Result<Vec<_>>>()?;
                    model.embed(texts, options)
                },
            )
        }
    })
}

/// As `clawdbot_model_embed`, but a text that fails, or is not UTF-8, fails alone: its vector is NaN.
///
/// `errors` has room for `count` handles: with status 0 each is NULL, or an error to be freed. With `vectors` NULL it is left
/// alone, and may be NULL. `cancel` may be NULL; a call that it stops, within a layer of the model, gives
/// `CLAWDBOT_ERROR_CANCELLED`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_embed_each(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    cancel: Option<&clawdbot_cancel_handle>,
    vectors: *mut f32,
    capacity: usize,
    needed: Option<&mut MaybeUninit<usize>>,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    let cancel = cancel::handle(cancel);
    guard(error, || {
        let work =
            |model: &Model, texts: Vec<Result<Prompt>>, options: &EmbedOptions| -> Result<Embeddings> {
                required(NonNull::new(errors), "errors")?;
                let go_on = |_| ControlFlow::Continue(());
                let found = model.embed_each(texts.into_iter(), options, &cancel, go_on)?;
                // SAFETY: not NULL, and by the header writable for `count` pointers.
                unsafe { give_errors(found.faults, count, errors) }?;
                Ok(found.embeddings)
            };
        // SAFETY: by the header, `texts` and `lengths` are NULL or readable for `count` items, and so is each text for its
        // length; `vectors` is NULL or writable for `capacity` items.
        unsafe {
            embed(model, Texts { texts, lengths, count }, options, Room { vectors, capacity, needed }, work)
        }
    })
}

/// Scores `count` documents against a query, more is more relevant: `count` floats to `scores`, in their order. The first
/// document that fails fails the call; its error says which one it is.
///
/// `lengths` may be NULL if all documents are NUL-terminated.
///
/// Options: [`clawdbot_core::RerankOptions`].
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
        // SAFETY: by the header, `query` is NULL or readable for `query_length` bytes, or up to a NUL.
        let query = unsafe { text(query, query_length, "query") }?;
        // SAFETY: by the header, `documents` and `lengths` are NULL or readable for `count` items, and so is each text for
        // its length.
        let documents = unsafe { all_texts(documents, lengths, count, "documents", Item::Document) }?;
        let documents = documents.into_iter().collect::<Result<Vec<_>>>()?;
        let found = model.rerank(query, &documents, &read(options, RerankOptions::from_json)?)?;
        // SAFETY: by the header, `scores` is NULL or writable for `count` items.
        unsafe { copy_out(&found, scores, count, None, "scores") }
    })
}

/// As `clawdbot_model_rerank`, but a document that fails, or is not UTF-8, fails alone: its score is NaN.
///
/// `errors` has room for `count` handles: with status 0 each is NULL, or an error to be freed. `cancel` may be NULL; a call that
/// it stops, within a layer of the model, gives `CLAWDBOT_ERROR_CANCELLED`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_rerank_each(
    model: Option<&clawdbot_model>,
    query: *const c_char,
    query_length: usize,
    documents: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    cancel: Option<&clawdbot_cancel_handle>,
    scores: *mut f32,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    let cancel = cancel::handle(cancel);
    guard(error, || {
        let model = &required(model, "model")?.0;
        required(NonNull::new(scores), "scores")?;
        required(NonNull::new(errors), "errors")?;
        // SAFETY: by the header, `query` is NULL or readable for `query_length` bytes, or up to a NUL.
        let query = unsafe { text(query, query_length, "query") }?;
        // SAFETY: by the header, `documents` and `lengths` are NULL or readable for `count` items, and so is each text for
        // its length.
        let documents = unsafe { all_texts(documents, lengths, count, "documents", Item::Document) }?;
        let options = read(options, RerankOptions::from_json)?;
        let go_on = |_| ControlFlow::Continue(());
        let found = model.rerank_each(query, documents.into_iter(), &options, &cancel, go_on)?;
        // SAFETY: by the header, `scores` is NULL or writable for `count` items.
        unsafe { copy_out(&found.scores, scores, count, None, "scores") }?;
        // SAFETY: not NULL, as required above, and by the header writable for `count` pointers.
        unsafe { give_errors(found.faults, count, errors) }
    })
}

/// Texts as C has them.
struct Texts {
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
}

/// Where vectors go.
struct Room<'a> {
    vectors: *mut f32,
    capacity: usize,
    /// How many floats there are.
    needed: Option<&'a mut MaybeUninit<usize>>,
}

/// Vectors, if there is room for them, from `work`.
///
/// # Safety
/// As `all_texts` for the texts, as `copy_out` for the room.
unsafe fn embed(
    model: Option<&clawdbot_model>,
    texts: Texts,
    options: Option<&clawdbot_options>,
    room: Room<'_>,
    work: impl FnOnce(&Model, Vec<Result<Prompt>>, &EmbedOptions) -> Result<Embeddings>,
) -> Result<()> {
    let model = &required(model, "model")?.0;
    let (Texts { texts, lengths, count }, Room { vectors, capacity, needed }) = (texts, room);
    // SAFETY: by the clause above, `texts` and `lengths` are NULL or readable for `count` items, and so is
    // each text for its length.
    let texts = unsafe { all_texts(texts, lengths, count, "texts", Item::Text) }?;
    let options = read(options, EmbedOptions::from_json)?;
    let dimensions = model.embedding_dimensions(&options)?;
    let size = count.checked_mul(dimensions).ok_or_else(|| invalid("count: too many texts"))?;
    if !has_room(vectors, capacity, size, "vectors")? {
        needed.map(|needed| needed.write(size));
        return Ok(());
    }
    let prompts = texts.into_iter().map(|text| text.map(Prompt::from)).collect();
    let found = work(model, prompts, &options)?;
    // SAFETY: by the clause above, `vectors` is NULL or writable for `capacity` items.
    unsafe { copy_out(&found.values, vectors, capacity, needed, "vectors") }
}
