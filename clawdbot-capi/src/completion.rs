//! What a request gave in the end.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use clawdbot_core::{Completion, FinishReason, Logprobs, Result, TokenLogprob, Usage};

use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{Versioned, give, invalid, quietly, required, write_sized};
use crate::string::{Text, clawdbot_string};

/// Finish reason: a stop token, the model's end of sequence, or a stop text.
pub const CLAWDBOT_FINISH_STOP: i32 = 1;
/// Finish reason: `max_tokens`, or the context is full.
pub const CLAWDBOT_FINISH_LENGTH: i32 = 2;
/// Finish reason: cancelled by its owner.
pub const CLAWDBOT_FINISH_CANCELLED: i32 = 3;
/// Finish reason: the time that `deadline_ms` gave is over.
pub const CLAWDBOT_FINISH_DEADLINE: i32 = 4;

/// The result of a request.
pub struct clawdbot_completion {
    completion: Completion,
    text: Text,
    reasoning: Text,
    tool_calls: Text,
    logprobs: Option<Vec<TokenReport>>,
    prompt_logprobs: Option<Vec<TokenReport>>,
}

impl clawdbot_completion {
    pub(crate) fn new(completion: Completion) -> Self {
        let text = Text::from(completion.text.clone());
        let reports = |all: &Vec<Logprobs>| all.iter().map(TokenReport::new).collect();
        let logprobs = completion.logprobs.as_ref().map(reports);
        let prompt_logprobs = completion.prompt_logprobs.as_ref().map(reports);
        let reasoning = Text::from(completion.reasoning.clone());
        let calls = completion.tool_calls.iter().map(|call| serde_json::Value::Object(call.to_json()));
        let tool_calls = Text::from(calls.collect::<serde_json::Value>().to_string());
        clawdbot_completion { completion, text, reasoning, tool_calls, logprobs, prompt_logprobs }
    }
}

/// The log-probability of a token under the model's own distribution.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct clawdbot_logprob {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl From<&TokenLogprob> for clawdbot_logprob {
    fn from(entry: &TokenLogprob) -> Self {
        clawdbot_logprob { id: entry.id, logprob: entry.logprob }
    }
}

/// What was drawn and what was likely, for one token.
pub(crate) struct TokenReport {
    chosen: clawdbot_logprob,
    top: Vec<clawdbot_logprob>,
}

impl TokenReport {
    pub(crate) fn new(logprobs: &Logprobs) -> Self {
        TokenReport {
            chosen: clawdbot_logprob::from(&logprobs.chosen),
            top: logprobs.top.iter().map(clawdbot_logprob::from).collect(),
        }
    }

    /// Writes to those of the out-parameters that are wanted.
    pub(crate) fn give(
        &self,
        chosen: Option<&mut MaybeUninit<clawdbot_logprob>>,
        top: Option<&mut MaybeUninit<*const clawdbot_logprob>>,
        count: Option<&mut MaybeUninit<usize>>,
    ) {
        chosen.map(|out| out.write(self.chosen));
        top.map(|out| out.write(self.top.as_ptr()));
        count.map(|out| out.write(self.top.len()));
    }
}

/// Tokens and seconds of a request. Set `struct_size` to `sizeof(clawdbot_usage)` before the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct clawdbot_usage {
    /// Size of this struct in bytes, as the program knows it.
    pub struct_size: usize,
    /// Tokens of the prompt; for a session, everything before the output.
    pub prompt_tokens: u64,
    /// How many of them were in the cache already.
    pub cached_tokens: u64,
    /// Tokens generated, a stop token included.
    pub completion_tokens: u64,
    /// Tokens that were guessed and then computed (speculation).
    pub draft_tokens: u64,
    /// How many of them were right.
    pub accepted_tokens: u64,
    /// The right ones by position: of the first drafts of passes, of the second ones, and so on.
    pub accepted_by_position: [u64; 15],
    /// Seconds before the request's first forward pass.
    pub queue_seconds: f64,
    /// Seconds from there to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the end.
    pub decode_seconds: f64,
    /// Seconds until it was known which first tokens a constraint allows, compiling it included; 0 without one.
    pub first_mask_seconds: f64,
    /// Median of the seconds that this took for each later token.
    pub mask_p50_seconds: f64,
    /// Their 99th percentile.
    pub mask_p99_seconds: f64,
    /// Those of `accepted_tokens` that a constraint forced: with a pass for several of them.
    pub forced_tokens: u64,
}

// SAFETY: `repr(C)`, and the first field is a `usize`.
unsafe impl Versioned for clawdbot_usage {
    const FIRST: usize = size_of::<clawdbot_usage>();
}

impl From<&Usage> for clawdbot_usage {
    fn from(usage: &Usage) -> Self {
        clawdbot_usage {
            struct_size: size_of::<clawdbot_usage>(),
            prompt_tokens: usage.prompt_tokens as u64,
            cached_tokens: usage.cached_tokens as u64,
            completion_tokens: usage.completion_tokens as u64,
            draft_tokens: usage.draft_tokens as u64,
            accepted_tokens: usage.accepted_tokens as u64,
            accepted_by_position: usage.accepted_by_position.map(u64::from),
            queue_seconds: usage.queue_seconds,
            prefill_seconds: usage.prefill_seconds,
            decode_seconds: usage.decode_seconds,
            first_mask_seconds: usage.first_mask_seconds,
            mask_p50_seconds: usage.mask_p50_seconds,
            mask_p99_seconds: usage.mask_p99_seconds,
            forced_tokens: usage.forced_tokens as u64,
        }
    }
}

/// The generated text in UTF-8, with a NUL after it; its length goes to `length`, which may be NULL. Valid until the
/// completion is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_text(
    completion: Option<&clawdbot_completion>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    completion.map_or(std::ptr::null(), |completion| completion.text.give(length))
}

/// The reasoning before the answer, as `clawdbot_completion_text` gives the text; empty if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_reasoning(
    completion: Option<&clawdbot_completion>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    completion.map_or(std::ptr::null(), |completion| completion.reasoning.give(length))
}

/// The functions that the model asks to be called: a JSON array of objects with index, id, name and arguments (a JSON object as
/// text), as `clawdbot_completion_text` gives the text; `[]` if there are none.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_tool_calls(
    completion: Option<&clawdbot_completion>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    completion.map_or(std::ptr::null(), |completion| completion.tool_calls.give(length))
}

/// The generated tokens, a stop token included; their number goes to `count`, which may be NULL. Valid until the
/// completion is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_token_ids(
    completion: Option<&clawdbot_completion>,
    count: Option<&mut MaybeUninit<usize>>,
) -> *const u32 {
    let Some(completion) = completion else { return std::ptr::null() };
    let ids = &completion.completion.token_ids;
    count.map(|out| out.write(ids.len()));
    ids.as_ptr()
}

/// Why the request ended, to `reason`: one of `CLAWDBOT_FINISH_*`.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_finish_reason(
    completion: Option<&clawdbot_completion>,
    reason: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (completion, reason) = (required(completion, "completion")?, required(reason, "reason")?);
        reason.write(match completion.completion.finish_reason {
            FinishReason::Stop => CLAWDBOT_FINISH_STOP,
            FinishReason::Length => CLAWDBOT_FINISH_LENGTH,
            FinishReason::Cancelled => CLAWDBOT_FINISH_CANCELLED,
            FinishReason::Deadline => CLAWDBOT_FINISH_DEADLINE,
            other => return Err(crate::handle::internal(format!("no number for {other:?}"))),
        });
        Ok(())
    })
}

/// Tokens and seconds, to `usage`, whose `struct_size` must be set.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_completion_usage(
    completion: Option<&clawdbot_completion>,
    usage: *mut clawdbot_usage,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let value = clawdbot_usage::from(&required(completion, "completion")?.completion.usage);
        // SAFETY: by the header, `usage` is NULL or writable for as many bytes as its readable first field
        // says.
        unsafe { write_sized(usage, &value, "usage") }
    })
}

/// The report of token number `index` among `all`, which are there if `option` was set.
fn report<'a>(all: Option<&'a [TokenReport]>, option: &str, index: usize) -> Result<&'a TokenReport> {
    let all = all.ok_or_else(|| invalid(format!("log-probabilities need the option {option}")))?;
    let missing = || invalid(format!("index: expected less than {}, found {index}", all.len()));
    all.get(index).ok_or_else(missing)
}

/// Log-probabilities of the generated token number `index`: its own to `chosen`; an array of the most likely ones, most
/// likely first, to `top`, and its length to `count`. Each of the three may be NULL. The array is valid until the
/// completion is freed. `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the option `logprobs` was set.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_logprobs(
    completion: Option<&clawdbot_completion>,
    index: usize,
    chosen: Option<&mut MaybeUninit<clawdbot_logprob>>,
    top: Option<&mut MaybeUninit<*const clawdbot_logprob>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let all = required(completion, "completion")?.logprobs.as_deref();
        report(all, "logprobs", index)?.give(chosen, top, count);
        Ok(())
    })
}

/// As `clawdbot_completion_logprobs`, of the token of the prompt number `index` + 1: nothing says how likely the first one is.
/// `CLAWDBOT_ERROR_INVALID_ARGUMENT` unless the option `prompt_logprobs` was set.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_prompt_logprobs(
    completion: Option<&clawdbot_completion>,
    index: usize,
    chosen: Option<&mut MaybeUninit<clawdbot_logprob>>,
    top: Option<&mut MaybeUninit<*const clawdbot_logprob>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let all = required(completion, "completion")?.prompt_logprobs.as_deref();
        report(all, "prompt_logprobs", index)?.give(chosen, top, count);
        Ok(())
    })
}

/// All of it as a JSON object: text, reasoning, tool_calls, warnings, token_ids, finish_reason, usage, logprobs, prompt_logprobs, and
/// the options that were in force.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_json(
    completion: Option<&clawdbot_completion>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (completion, out) = (required(completion, "completion")?, required(out, "out")?);
        let json = serde_json::Value::Object(completion.completion.to_json());
        give(out, clawdbot_string::new(json.to_string()));
        Ok(())
    })
}

/// Frees a completion. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_completion_free(completion: Option<Box<clawdbot_completion>>) {
    quietly(|| drop(completion));
}
