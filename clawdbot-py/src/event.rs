//! What a request gives: events, usage, log-probabilities. Plain data: compared, pickled, and JSON.

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use serde_json::Value;

use crate::completion::Completion;
use crate::error::to_py;
use crate::objects;
use crate::plain_data::plain_data;

/// The log-probability (natural logarithm) of a token under the model's own distribution.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct TokenLogprob(core::TokenLogprob);

impl From<core::TokenLogprob> for TokenLogprob {
    fn from(token: core::TokenLogprob) -> Self {
        TokenLogprob(token)
    }
}

impl TokenLogprob {
    fn core(&self) -> &core::TokenLogprob {
        &self.0
    }
}

plain_data! {
    TokenLogprob {
        /// Token id.
        #[getter]
        fn id(&self) -> u32 {
            self.0.id
        }

        /// Natural logarithm of its probability.
        #[getter]
        fn logprob(&self) -> f32 {
            self.0.logprob
        }

        fn __repr__(&self) -> String {
            format!("TokenLogprob(id={}, logprob={})", self.0.id, self.0.logprob)
        }
    }
}

/// What was drawn at a position, and the most likely tokens there.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Logprobs(pub(crate) core::Logprobs);

impl From<core::Logprobs> for Logprobs {
    fn from(logprobs: core::Logprobs) -> Self {
        Logprobs(logprobs)
    }
}

impl Logprobs {
    fn core(&self) -> &core::Logprobs {
        &self.0
    }
}

plain_data! {
    Logprobs {
        /// The token that was chosen.
        #[getter]
        fn chosen(&self) -> TokenLogprob {
            TokenLogprob(self.0.chosen)
        }

        /// The most likely tokens, most likely first.
        #[getter]
        fn top(&self) -> Vec<TokenLogprob> {
            self.0.top.iter().copied().map(TokenLogprob).collect()
        }

        fn __repr__(&self) -> String {
            let top = self.0.top.len();
            format!("Logprobs(chosen={}, top=<{top} tokens>)", self.chosen().__repr__())
        }
    }
}

/// Tokens and seconds of a request.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Usage(pub(crate) core::Usage);

impl From<core::Usage> for Usage {
    fn from(usage: core::Usage) -> Self {
        Usage(usage)
    }
}

impl Usage {
    fn core(&self) -> &core::Usage {
        &self.0
    }
}

plain_data! {
    Usage {
        /// Tokens of the prompt; for a session, everything before the output.
        #[getter]
        fn prompt_tokens(&self) -> usize {
            self.0.prompt_tokens
        }

        /// How many of them were in the cache already.
        #[getter]
        fn cached_tokens(&self) -> usize {
            self.0.cached_tokens
        }

        /// Tokens generated, a stop token included.
        #[getter]
        fn completion_tokens(&self) -> usize {
            self.0.completion_tokens
        }

        /// Tokens that were guessed and then computed (speculation).
        #[getter]
        fn draft_tokens(&self) -> usize {
            self.0.draft_tokens
        }

        /// How many of them were right.
        #[getter]
        fn accepted_tokens(&self) -> usize {
            self.0.accepted_tokens
        }

        /// The right ones by position: of the first drafts of passes, of the second ones, and so on.
        #[getter]
        fn accepted_by_position(&self) -> Vec<u32> {
            self.0.accepted_by_position.to_vec()
        }

        /// Those of `accepted_tokens` that a constraint forced: with a pass for several of them.
        #[getter]
        fn forced_tokens(&self) -> usize {
            self.0.forced_tokens
        }

        /// Seconds before the request's first forward pass.
        #[getter]
        fn queue_seconds(&self) -> f64 {
            self.0.queue_seconds
        }

        /// Seconds from there to the first token.
        #[getter]
        fn prefill_seconds(&self) -> f64 {
            self.0.prefill_seconds
        }

        /// Seconds from the first token to the end.
        #[getter]
        fn decode_seconds(&self) -> f64 {
            self.0.decode_seconds
        }

        /// Seconds until it was known which first tokens a constraint allows, compiling it included; 0
        /// without one.
        #[getter]
        fn first_mask_seconds(&self) -> f64 {
            self.0.first_mask_seconds
        }

        /// Median of the seconds that this took for each later token.
        #[getter]
        fn mask_p50_seconds(&self) -> f64 {
            self.0.mask_p50_seconds
        }

        /// Their 99th percentile.
        #[getter]
        fn mask_p99_seconds(&self) -> f64 {
            self.0.mask_p99_seconds
        }

        /// Seconds from submission to the first token.
        #[getter]
        fn time_to_first_token(&self) -> f64 {
            self.0.time_to_first_token()
        }

        /// Prompt tokens computed per second; 0 when there is nothing to divide by.
        #[getter]
        fn prefill_tokens_per_s(&self) -> f64 {
            self.0.prefill_tokens_per_s()
        }

        /// Tokens per second after the first one; 0 when there is nothing to divide by.
        #[getter]
        fn decode_tokens_per_s(&self) -> f64 {
            self.0.decode_tokens_per_s()
        }

        fn __repr__(&self) -> String {
            let u = &self.0;
            format!(
                "Usage(prompt_tokens={}, cached_tokens={}, completion_tokens={}, prefill_seconds={:.3}, decode_seconds={:.3})",
                u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.prefill_seconds, u.decode_seconds
            )
        }
    }
}

/// A call of a function that the model asks for.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct ToolCall(pub(crate) core::ToolCall);

impl From<core::ToolCall> for ToolCall {
    fn from(call: core::ToolCall) -> Self {
        ToolCall(call)
    }
}

impl ToolCall {
    fn core(&self) -> &core::ToolCall {
        &self.0
    }
}

plain_data! {
    ToolCall {
        /// Its number among the calls of the answer, from 0. Numbers of deltas that no call followed are left out.
        #[getter]
        fn index(&self) -> usize {
            self.0.index
        }

        /// What the model called it, or 9 letters and digits that follow from its place, index and name.
        #[getter]
        fn id(&self) -> &str {
            &self.0.id
        }

        /// Name of the function.
        #[getter]
        fn name(&self) -> &str {
            &self.0.name
        }

        /// The arguments: a JSON object as text.
        #[getter]
        fn arguments(&self) -> &str {
            &self.0.arguments
        }

        fn __repr__(&self) -> String {
            let call = &self.0;
            format!("ToolCall(id={:?}, name={:?}, arguments={:?})", call.id, call.name, call.arguments)
        }
    }
}

/// A part of a tool call that became certain while the model writes it.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct ToolCallDelta(core::ToolCallDelta);

impl From<core::ToolCallDelta> for ToolCallDelta {
    fn from(delta: core::ToolCallDelta) -> Self {
        ToolCallDelta(delta)
    }
}

impl ToolCallDelta {
    fn core(&self) -> &core::ToolCallDelta {
        &self.0
    }
}

plain_data! {
    ToolCallDelta {
        /// Index of the call.
        #[getter]
        fn index(&self) -> usize {
            self.0.index
        }

        /// Id of the call, in its first delta.
        #[getter]
        fn id(&self) -> Option<&str> {
            self.0.id.as_deref()
        }

        /// Name of the function, in the first delta.
        #[getter]
        fn name(&self) -> Option<&str> {
            self.0.name.as_deref()
        }

        /// The text of the arguments that became certain.
        #[getter]
        fn arguments(&self) -> &str {
            &self.0.arguments
        }

        fn __repr__(&self) -> String {
            let delta = &self.0;
            let first = match (&delta.id, &delta.name) {
                (Some(id), Some(name)) => format!("id={id:?}, name={name:?}, "),
                _ => String::new(),
            };
            format!("ToolCallDelta(index={}, {first}arguments={:?})", delta.index, delta.arguments)
        }
    }
}

/// Something that happened to a request.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Event(core::Event);

impl From<core::Event> for Event {
    fn from(event: core::Event) -> Self {
        Event(event)
    }
}

impl Event {
    fn core(&self) -> &core::Event {
        &self.0
    }
}

plain_data! {
    Event {
        /// `token`, `reasoning`, `tool_call_delta`, `tool_call`, `progress` or `done`.
        #[getter]
        fn kind(&self) -> PyResult<&'static str> {
            match &self.0 {
                core::Event::Progress { .. } => Ok("progress"),
                core::Event::Token { .. } => Ok("token"),
                core::Event::Reasoning { .. } => Ok("reasoning"),
                core::Event::ToolCallDelta(_) => Ok("tool_call_delta"),
                core::Event::ToolCall(_) => Ok("tool_call"),
                core::Event::Done(_) => Ok("done"),
                other => {
                    let message = format!("unknown event {other:?}");
                    Err(to_py(core::Error::new(core::ErrorKind::Internal, message)))
                }
            }
        }

        /// `token`: its id.
        #[getter]
        fn id(&self) -> Option<u32> {
            match &self.0 {
                core::Event::Token { id, .. } => Some(*id),
                _ => None,
            }
        }

        /// `token`: the text that became certain with it, perhaps none. `reasoning`: its text.
        #[getter]
        fn text(&self) -> Option<&str> {
            match &self.0 {
                core::Event::Token { text, .. } | core::Event::Reasoning { text } => Some(text),
                _ => None,
            }
        }

        /// `token`: log-probabilities, if asked for.
        #[getter]
        fn logprobs(&self) -> Option<Logprobs> {
            match &self.0 {
                core::Event::Token { logprobs, .. } => logprobs.clone().map(Logprobs),
                _ => None,
            }
        }

        /// `tool_call`: the call, complete.
        #[getter]
        fn tool_call(&self) -> Option<ToolCall> {
            match &self.0 {
                core::Event::ToolCall(call) => Some(ToolCall(call.clone())),
                _ => None,
            }
        }

        /// `tool_call_delta`: what became certain of a call. The arguments of a call's deltas, joined, are those of its
        /// `tool_call`, which comes after them; if none with their index comes, it was no call that can be read.
        #[getter]
        fn tool_call_delta(&self) -> Option<ToolCallDelta> {
            match &self.0 {
                core::Event::ToolCallDelta(delta) => Some(ToolCallDelta(delta.clone())),
                _ => None,
            }
        }

        /// `progress`: tokens of the prompt computed so far.
        #[getter]
        fn done(&self) -> Option<usize> {
            match &self.0 {
                core::Event::Progress { done, .. } => Some(*done),
                _ => None,
            }
        }

        /// `progress`: tokens of the prompt.
        #[getter]
        fn total(&self) -> Option<usize> {
            match &self.0 {
                core::Event::Progress { total, .. } => Some(*total),
                _ => None,
            }
        }

        /// `done`: the completion.
        #[getter]
        fn completion(&self) -> Option<Completion> {
            match &self.0 {
                core::Event::Done(completion) => Some(Completion::from((**completion).clone())),
                _ => None,
            }
        }

        fn __repr__(&self) -> String {
            match &self.0 {
                core::Event::Token { id, text, .. } => format!("Event(kind='token', id={id}, text={text:?})"),
                core::Event::Reasoning { text } => format!("Event(kind='reasoning', text={text:?})"),
                core::Event::ToolCall(call) => {
                    format!("Event(kind='tool_call', tool_call={})", ToolCall(call.clone()).__repr__())
                }
                core::Event::ToolCallDelta(delta) => {
                    let delta = ToolCallDelta(delta.clone()).__repr__();
                    format!("Event(kind='tool_call_delta', tool_call_delta={delta})")
                }
                core::Event::Progress { done, total } => {
                    format!("Event(kind='progress', done={done}, total={total})")
                }
                core::Event::Done(completion) => {
                    format!("Event(kind='done', completion={})", Completion::from((**completion).clone()).__repr__())
                }
                other => format!("Event({other:?})"),
            }
        }
    }
}
