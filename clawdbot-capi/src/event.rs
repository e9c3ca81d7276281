//! What happens to a request while it runs.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use clawdbot_core::{Event, Result};

use crate::completion::{TokenReport, clawdbot_completion, clawdbot_logprob};
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{internal, invalid, quietly, required};
use crate::string::Text;

/// Event kind: a chunk of a long prompt was computed.
pub const CLAWDBOT_EVENT_PROGRESS: i32 = 1;
/// Event kind: a token was generated.
pub const CLAWDBOT_EVENT_TOKEN: i32 = 2;
/// Event kind: the end, with the completion. The last event.
pub const CLAWDBOT_EVENT_DONE: i32 = 3;

/// Event kind: text of the reasoning became certain.
pub const CLAWDBOT_EVENT_REASONING: i32 = 4;
/// Event kind: a tool call is complete.
pub const CLAWDBOT_EVENT_TOOL_CALL: i32 = 5;
/// Event kind: a part of a tool call became certain.
pub const CLAWDBOT_EVENT_TOOL_CALL_DELTA: i32 = 6;

/// Something that happened to a request.
pub struct clawdbot_event(Inner);

enum Inner {
    Progress { done: u64, total: u64 },
    Token { id: u32, text: Text, logprobs: Option<TokenReport> },
    Reasoning(Text),
    ToolCall(Text),
    ToolCallDelta(Text),
    Done(Box<clawdbot_completion>),
}

impl clawdbot_event {
    pub(crate) fn new(event: Event) -> Result<Self> {
        Ok(clawdbot_event(match event {
            Event::Progress { done, total } => Inner::Progress { done: done as u64, total: total as u64 },
            Event::Token { id, text, logprobs } => {
                let logprobs = logprobs.as_ref().map(TokenReport::new);
                Inner::Token { id, text: Text::from(text), logprobs }
            }
            Event::Reasoning { text } => Inner::Reasoning(Text::from(text)),
            Event::ToolCall(call) => {
                Inner::ToolCall(Text::from(serde_json::Value::Object(call.to_json()).to_string()))
            }
            Event::ToolCallDelta(delta) => {
                Inner::ToolCallDelta(Text::from(serde_json::Value::Object(delta.to_json()).to_string()))
            }
            Event::Done(completion) => Inner::Done(Box::new(clawdbot_completion::new(*completion))),
            other => return Err(internal(format!("no C event for {other:?}"))),
        }))
    }

    fn kind(&self) -> i32 {
        match self.0 {
            Inner::Progress { .. } => CLAWDBOT_EVENT_PROGRESS,
            Inner::Token { .. } => CLAWDBOT_EVENT_TOKEN,
            Inner::Reasoning(_) => CLAWDBOT_EVENT_REASONING,
            Inner::ToolCall(_) => CLAWDBOT_EVENT_TOOL_CALL,
            Inner::ToolCallDelta(_) => CLAWDBOT_EVENT_TOOL_CALL_DELTA,
            Inner::Done(_) => CLAWDBOT_EVENT_DONE,
        }
    }

    fn unexpected(&self, expected: &str) -> clawdbot_core::Error {
        invalid(format!("event: expected a {expected} event, found kind {}", self.kind()))
    }
}

/// The event's kind, one of `CLAWDBOT_EVENT_*`. Kinds may be added: let a program pass over those it does not know.
/// 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_kind(event: Option<&clawdbot_event>) -> i32 {
    event.map_or(0, clawdbot_event::kind)
}

/// Of a progress event: tokens of the prompt that are computed, and all of them.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_progress(
    event: Option<&clawdbot_event>,
    done: Option<&mut MaybeUninit<u64>>,
    total: Option<&mut MaybeUninit<u64>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let event = required(event, "event")?;
        let (out_done, out_total) = (required(done, "done")?, required(total, "total")?);
        let Inner::Progress { done, total } = event.0 else { return Err(event.unexpected("progress")) };
        out_done.write(done);
        out_total.write(total);
        Ok(())
    })
}

/// Of a token event: the token's id. `id` must not be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_token_id(
    event: Option<&clawdbot_event>,
    id: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (event, out) = (required(event, "event")?, required(id, "id")?);
        let Inner::Token { id, .. } = event.0 else { return Err(event.unexpected("token")) };
        out.write(id);
        Ok(())
    })
}

/// Of a token event: the text that became certain with it, whole characters only, with a NUL after it; its length goes
/// to `length`, which may be NULL. Empty while a character or a possible stop text is open. Of a reasoning event: its text. Valid
/// until the event is freed, or the callback that was given it returns. NULL for other events and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_text(
    event: Option<&clawdbot_event>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    match event.map(|event| &event.0) {
        Some(Inner::Token { text, .. } | Inner::Reasoning(text)) => text.give(length),
        _ => std::ptr::null(),
    }
}

/// Of a tool call event: the call as a JSON object, with index, id, name and arguments (a JSON object as text); its length goes to
/// `length`, which may be NULL. Valid as the text of an event is. NULL for other events and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_tool_call(
    event: Option<&clawdbot_event>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    match event.map(|event| &event.0) {
        Some(Inner::ToolCall(call)) => call.give(length),
        _ => std::ptr::null(),
    }
}

/// Of a tool call delta event: what became certain of a call as a JSON object, with index, id and name (null but in the first delta
/// of a call) and arguments (the text that is new); its length goes to `length`, which may be NULL. The arguments of a call's deltas,
/// one after the other, are those of its tool call event, which comes after them; if none with their index comes, it was no call
/// that can be read. Valid as the text of an event is. NULL for other events and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_tool_call_delta(
    event: Option<&clawdbot_event>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    match event.map(|event| &event.0) {
        Some(Inner::ToolCallDelta(delta)) => delta.give(length),
        _ => std::ptr::null(),
    }
}

/// Of a token event: log-probabilities, as `clawdbot_completion_logprobs` gives them.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_logprobs(
    event: Option<&clawdbot_event>,
    chosen: Option<&mut MaybeUninit<clawdbot_logprob>>,
    top: Option<&mut MaybeUninit<*const clawdbot_logprob>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let event = required(event, "event")?;
        let Inner::Token { logprobs, .. } = &event.0 else { return Err(event.unexpected("token")) };
        let missing = || invalid("log-probabilities need the option logprobs");
        logprobs.as_ref().ok_or_else(missing)?.give(chosen, top, count);
        Ok(())
    })
}

/// Of the last event: the completion, which belongs to the event. NULL for other events and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_completion(event: Option<&clawdbot_event>) -> *const clawdbot_completion {
    match event.map(|event| &event.0) {
        Some(Inner::Done(completion)) => std::ptr::from_ref(&**completion),
        _ => std::ptr::null(),
    }
}

/// Frees an event that `clawdbot_stream_next` gave. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_event_free(event: Option<Box<clawdbot_event>>) {
    quietly(|| drop(event));
}
