//! Conversations.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Mutex;

use clawdbot_core::{AddSpecialTokens, Prompt, Session};

use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{array, copy_out, exclusive, give, handle, quietly, required};
use crate::model::clawdbot_model;
use crate::options::{clawdbot_options, generation};
use crate::stream::clawdbot_stream;

/// One conversation: its tokens, and their part of the model's cache.
pub struct clawdbot_session(pub(crate) Mutex<Session>);

/// A new conversation without tokens.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_session_new(
    model: Option<&clawdbot_model>,
    out: Option<&mut MaybeUninit<*mut clawdbot_session>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        give(out, clawdbot_session(Mutex::new(model.0.session()?)));
        Ok(())
    })
}

/// Adds text to the conversation; how many tokens that was goes to `count`, which may be NULL.
///
/// `add_special_tokens`: not 0 for the tokenizer's special tokens, such as BOS; usually for the first text alone, and not
/// for rendered chat templates, which bring their own. A BOS that the text begins with is not doubled.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_append_text(
    session: Option<NonNull<clawdbot_session>>,
    text: *const c_char,
    length: usize,
    add_special_tokens: i32,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
        let prompt = unsafe { crate::handle::text(text, length, "text") }?;
        let added = exclusive(&session.0, "session")?.append(prompt, (add_special_tokens != 0).into())?;
        count.map(|count| count.write(added));
        Ok(())
    })
}

/// Adds token ids to the conversation.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_append_tokens(
    session: Option<NonNull<clawdbot_session>>,
    ids: *const u32,
    count: usize,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: by the header, `ids` is NULL or readable for `count` items.
        let ids = unsafe { array(ids, count, "ids") }?;
        exclusive(&session.0, "session")?.append(Prompt::from(ids), AddSpecialTokens::No)?;
        Ok(())
    })
}

/// All tokens of the conversation, prompts and outputs: copied to `ids`, which has room for `capacity`, and their number
/// to `count`. `ids` may be NULL to learn the number, `count` may be NULL.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_tokens(
    session: Option<NonNull<clawdbot_session>>,
    ids: *mut u32,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let session = unsafe { handle(session, "session") }?;
        let tokens = exclusive(&session.0, "session")?.tokens()?;
        // SAFETY: by the header, `ids` is NULL or writable for `capacity` items.
        unsafe { copy_out(&tokens, ids, capacity, count, "ids") }
    })
}

/// A conversation of its own that begins as this one is, to be freed with `clawdbot_session_free`. What is cached is shared,
/// and copied page by page where one of the two goes on.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_fork(
    session: Option<NonNull<clawdbot_session>>,
    out: Option<&mut MaybeUninit<*mut clawdbot_session>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let (session, out) = (unsafe { handle(session, "session") }?, required(out, "out")?);
        let fork = exclusive(&session.0, "session")?.fork()?;
        give(out, clawdbot_session(Mutex::new(fork)));
        Ok(())
    })
}

/// Writes the conversation to the file `path`, with all that is cached of it. The file appears when it is complete, and
/// replaces an earlier one; on Unix, only its owner may read it. The first call for a model reads all its weights, to know what
/// the file belongs to.
///
/// `size`: receives the size of the file in bytes; may be NULL.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_save(
    session: Option<NonNull<clawdbot_session>>,
    path: *const c_char,
    size: Option<&mut MaybeUninit<u64>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let path = unsafe { crate::handle::path(path, "path") }?;
        let bytes = exclusive(&session.0, "session")?.save(path)?;
        size.map(|size| size.write(bytes));
        Ok(())
    })
}

/// A session from a file that `clawdbot_session_save` has written, to be freed with `clawdbot_session_free`. Nothing is computed,
/// and all that follows has the bits that it would have had. A file of another model, weight type, type of the KV cache or
/// version of the library, and one that was changed, is `CLAWDBOT_ERROR_INVALID_ARGUMENT`. An adapter that the session used has to
/// be loaded, under any name.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_restore_session(
    model: Option<&clawdbot_model>,
    path: *const c_char,
    out: Option<&mut MaybeUninit<*mut clawdbot_session>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let path = unsafe { crate::handle::path(path, "path") }?;
        give(out, clawdbot_session(Mutex::new(model.0.restore_session(path)?)));
        Ok(())
    })
}

/// Forgets all but the first `length` tokens.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_truncate(
    session: Option<NonNull<clawdbot_session>>,
    length: usize,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let session = unsafe { handle(session, "session") }?;
        exclusive(&session.0, "session")?.truncate(length)
    })
}

/// Generates a continuation, which becomes part of the conversation.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_generate(
    session: Option<NonNull<clawdbot_session>>,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let (session, out) = (unsafe { handle(session, "session") }?, required(out, "out")?);
        let options = generation(options)?;
        give(out, clawdbot_completion::new(exclusive(&session.0, "session")?.generate(&options)?));
        Ok(())
    })
}

/// Generates a continuation event by event. Until the stream has ended or is freed, the session takes no other work.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_stream(
    session: Option<NonNull<clawdbot_session>>,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let (session, out) = (unsafe { handle(session, "session") }?, required(out, "out")?);
        let options = generation(options)?;
        give(out, clawdbot_stream::new(exclusive(&session.0, "session")?.stream(&options)?));
        Ok(())
    })
}

/// Frees a session, and its part of the cache unless a stream still uses it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_session_free(session: Option<Box<clawdbot_session>>) {
    quietly(|| drop(session));
}
