//! Conversations as messages, which the model's chat template renders.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use clawdbot_core::{Chat, GenerateOptions, Result};

use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{exclusive, give, handle, required};
use crate::model::clawdbot_model;
use crate::options::{clawdbot_options, generation_of, json, json_object};
use crate::session::clawdbot_session;
use crate::stream::clawdbot_stream;
use crate::string::clawdbot_string;

/// A conversation from JSON.
///
/// # Safety
/// `messages`, `tools` and `variables` are null or NUL-terminated.
unsafe fn chat(messages: *const c_char, tools: *const c_char, variables: *const c_char) -> Result<Chat> {
    // SAFETY: by the clause above, `messages` is NULL or ends with a NUL.
    let mut chat = Chat::new(unsafe { json(messages, "messages") }?);
    if !tools.is_null() {
        // SAFETY: not NULL, and by the clause above, `tools` ends with a NUL.
        chat = chat.tools(unsafe { json(tools, "tools") }?);
    }
    if !variables.is_null() {
        // SAFETY: not NULL, and by the clause above, `variables` ends with a NUL.
        chat = chat.variables(unsafe { json_object(variables, "variables") }?);
    }
    Ok(chat)
}

/// A conversation that is to be answered, and how.
///
/// # Safety
/// `messages`, `tools` and `variables` are null or NUL-terminated.
unsafe fn request(
    messages: *const c_char,
    tools: *const c_char,
    variables: *const c_char,
    options: Option<&clawdbot_options>,
) -> Result<(Chat, GenerateOptions)> {
    // SAFETY: by the clause above, `messages`, `tools` and `variables` are NULL or end with a NUL.
    let chat = unsafe { chat(messages, tools, variables) }?;
    let options = generation_of(options, |object| {
        Chat::check_option_names(object.keys().map(String::as_str), &[])?;
        GenerateOptions::from_json(object)
    })?;
    Ok((chat, options))
}

/// Renders a conversation with the model's chat template, after checking it.
///
/// `messages` is a JSON array of {"role", "content", ...}: roles are system, developer, user, assistant, tool, and what the
/// template names as well. `tools` is a JSON array of functions, or NULL; tools that the template does not use are an error.
/// `variables` is a JSON object of further variables for the template, or NULL. `add_generation_prompt`: not 0 to end with
/// what opens the assistant's answer. When the text goes to the model, a BOS that the template has written is not doubled.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_render_chat(
    model: Option<&clawdbot_model>,
    messages: *const c_char,
    tools: *const c_char,
    add_generation_prompt: i32,
    variables: *const c_char,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        // SAFETY: by the header, `messages`, `tools` and `variables` are NULL or end with a NUL.
        let chat = unsafe { chat(messages, tools, variables) }?;
        give(out, clawdbot_string::new(model.0.render_chat(&chat, (add_generation_prompt != 0).into())?));
        Ok(())
    })
}

/// Generates the next message of a conversation. Arguments as of `clawdbot_model_render_chat`; `options` as of
/// `clawdbot_model_generate_text`. The template brings its special tokens, unless `add_special_tokens` is set.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_chat(
    model: Option<&clawdbot_model>,
    messages: *const c_char,
    tools: *const c_char,
    variables: *const c_char,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        // SAFETY: by the header, `messages`, `tools` and `variables` are NULL or end with a NUL.
        let (chat, options) = unsafe { request(messages, tools, variables, options) }?;
        give(out, clawdbot_completion::new(model.0.chat(&chat, &options)?));
        Ok(())
    })
}

/// As `clawdbot_model_chat`, event by event.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_chat_stream(
    model: Option<&clawdbot_model>,
    messages: *const c_char,
    tools: *const c_char,
    variables: *const c_char,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        // SAFETY: by the header, `messages`, `tools` and `variables` are NULL or end with a NUL.
        let (chat, options) = unsafe { request(messages, tools, variables, options) }?;
        give(out, clawdbot_stream::new(model.0.chat_stream(&chat, &options)?));
        Ok(())
    })
}

/// Generates the next message of a conversation. The session may have computed a part of it already: its tokens become those of
/// the rendered conversation, and only what comes after the first difference is computed. `messages` has the whole
/// conversation each time; the answer is the one that `clawdbot_model_chat` gives.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_chat(
    session: Option<NonNull<clawdbot_session>>,
    messages: *const c_char,
    tools: *const c_char,
    variables: *const c_char,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_completion>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let (session, out) = (unsafe { handle(session, "session") }?, required(out, "out")?);
        // SAFETY: by the header, `messages`, `tools` and `variables` are NULL or end with a NUL.
        let (chat, options) = unsafe { request(messages, tools, variables, options) }?;
        give(out, clawdbot_completion::new(exclusive(&session.0, "session")?.chat(&chat, &options)?));
        Ok(())
    })
}

/// As `clawdbot_session_chat`, event by event. Until the stream has ended or is freed, the session takes no other work.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_session_chat_stream(
    session: Option<NonNull<clawdbot_session>>,
    messages: *const c_char,
    tools: *const c_char,
    variables: *const c_char,
    options: Option<&clawdbot_options>,
    out: Option<&mut MaybeUninit<*mut clawdbot_stream>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `session` is NULL or a handle that is not yet freed.
        let (session, out) = (unsafe { handle(session, "session") }?, required(out, "out")?);
        // SAFETY: by the header, `messages`, `tools` and `variables` are NULL or end with a NUL.
        let (chat, options) = unsafe { request(messages, tools, variables, options) }?;
        give(out, clawdbot_stream::new(exclusive(&session.0, "session")?.chat_stream(&chat, &options)?));
        Ok(())
    })
}
