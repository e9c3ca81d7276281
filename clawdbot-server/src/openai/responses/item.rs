//! An item of an answer.

use serde_json::{Value, json};

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Reasoning,
    Message,
    Call { index: usize, call_id: String, name: String },
}

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// It was cut off.
    Incomplete,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete => "incomplete",
        }
    }
}

/// An item of an answer.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) written: Written,
    pub(super) status: Status,
    /// Its text; of a call, the arguments.
    pub(super) text: String,
    pub(super) logprobs: Vec<Value>,
}

impl Item {
    /// Item number `at` of a response; `stem` is the id of the response without its prefix.
    pub(super) fn new(stem: &str, at: usize, written: Written) -> Self {
        let prefix = match written {
            Written::Reasoning => "rs_",
            Written::Message => "msg_",
            Written::Call { .. } => "fc_",
        };
        let id = format!("{prefix}{stem}{at:04}");
        Item { id, written, status: Status::InProgress, text: String::new(), logprobs: Vec::new() }
    }

    pub(super) fn is_call(&self) -> bool {
        matches!(self.written, Written::Call { .. })
    }

    /// The event of more text.
    pub(super) fn delta_event(&self) -> &'static str {
        match self.written {
            Written::Reasoning => "response.reasoning_text.delta",
            Written::Message => "response.output_text.delta",
            Written::Call { .. } => "response.function_call_arguments.delta",
        }
    }

    /// The event of all of it.
    pub(super) fn done_event(&self) -> &'static str {
        match self.written {
            Written::Reasoning => "response.reasoning_text.done",
            Written::Message => "response.output_text.done",
            Written::Call { .. } => "response.function_call_arguments.done",
        }
    }

    /// Its only part. Calls have none.
    pub(super) fn part(&self, text: &str, logprobs: &[Value]) -> Option<Value> {
        match self.written {
            Written::Reasoning => Some(json!({"type": "reasoning_text", "text": text})),
            Written::Message => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}))
            }
            Written::Call { .. } => None,
        }
    }

    /// The item before anything is in it.
    pub(super) fn begun(&self) -> Value {
        self.with(json!([]), "")
    }

    /// The item.
    pub(super) fn json(&self) -> Value {
        self.with(self.part(&self.text, &self.logprobs).into_iter().collect(), &self.text)
    }

    fn with(&self, content: Value, arguments: &str) -> Value {
        let (id, status) = (&self.id, self.status.name());
        match &self.written {
            Written::Reasoning => {
                json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
            }
            Written::Message => {
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Written::Call { call_id, name, .. } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments,
            }),
        }
    }
}
