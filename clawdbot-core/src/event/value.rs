//! Events in JSON.

use serde::{Deserialize, Serialize};

use super::{Completion, Event};
use crate::output::{ToolCall, ToolCallDelta};
use crate::sampling::Logprobs;

/// [`Event`] in JSON.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum EventValue {
    Progress {
        done: usize,
        total: usize,
    },
    Token {
        id: u32,
        text: String,
        logprobs: Option<Logprobs>,
    },
    Reasoning {
        text: String,
    },
    #[serde(rename = "tool_call_delta")]
    ToolCallDelta(ToolCallDelta),
    #[serde(rename = "tool_call")]
    ToolCall(ToolCall),
    Done {
        completion: Box<Completion>,
    },
}

impl From<EventValue> for Event {
    fn from(value: EventValue) -> Self {
        match value {
            EventValue::Progress { done, total } => Event::Progress { done, total },
            EventValue::Token { id, text, logprobs } => Event::Token { id, text, logprobs },
            EventValue::Reasoning { text } => Event::Reasoning { text },
            EventValue::ToolCallDelta(delta) => Event::ToolCallDelta(delta),
            EventValue::ToolCall(call) => Event::ToolCall(call),
            EventValue::Done { completion } => Event::Done(completion),
        }
    }
}

impl From<Event> for EventValue {
    fn from(event: Event) -> Self {
        match event {
            Event::Progress { done, total } => EventValue::Progress { done, total },
            Event::Token { id, text, logprobs } => EventValue::Token { id, text, logprobs },
            Event::Reasoning { text } => EventValue::Reasoning { text },
            Event::ToolCallDelta(delta) => EventValue::ToolCallDelta(delta),
            Event::ToolCall(call) => EventValue::ToolCall(call),
            Event::Done(completion) => EventValue::Done { completion },
        }
    }
}
