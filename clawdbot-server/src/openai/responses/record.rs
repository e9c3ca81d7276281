//! The response object, and what is kept of it.

use clawdbot_core::{Completion, Usage};
use serde_json::{Map, Value, json};

use super::output::Output;
use super::tools::Tools;
use crate::fault::Fault;
use crate::ids;
use crate::store::{Entry, Shelf};

/// Options that a response repeats, with what OpenAI's are if nobody says otherwise. That is what a stream begins with; at the
/// end, those of the model are known.
pub(super) const REPEATED: [(&str, f64); 4] =
    [("temperature", 1.0), ("top_p", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)];

/// What is known of a response before its answer.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) model: String,
    /// What it repeats of its request.
    pub(super) repeated: Map<String, Value>,
    /// The functions of the request.
    pub(super) tools: Tools,
    /// The items of the request.
    pub(super) items: Vec<Value>,
    pub(super) previous: Option<String>,
    /// Whether it is to be kept.
    pub(super) store: bool,
}

impl Record {
    /// Says that functions that did not say `strict` are not.
    pub(super) fn relax(&mut self) {
        self.repeated.insert("tools".into(), self.tools.json(false));
    }

    fn object(&self, status: &str, output: Value, fields: Value) -> Value {
        let mut object = Map::new();
        let head = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "completed_at": null,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": output,
            "usage": null,
        });
        for part in [head, Value::Object(self.repeated.clone()), fields] {
            if let Value::Object(part) = part {
                object.extend(part);
            }
        }
        object.into()
    }

    /// The response before its end.
    pub(super) fn begun(&self) -> Value {
        self.object("in_progress", json!([]), Value::Null)
    }

    /// The response whose answer ended early.
    pub(super) fn failed(&self, output: &Output, fault: &Fault) -> Value {
        let error = json!({"code": error_code(fault), "message": fault.message});
        self.object("failed", output.json(), json!({"error": error, "store": false}))
    }

    /// The whole response, which is kept from now on if it is to be.
    pub(super) fn ended(&self, output: &Output, completion: &Completion, store: Shelf<'_>) -> Value {
        let mut fields = json!({"usage": usage(&completion.usage, output.reasoning_tokens())});
        for (name, _) in REPEATED {
            if let Some(value) = completion.options.get(name) {
                fields[name] = value.clone();
            }
        }
        let status = match output.is_incomplete() {
            true => {
                // A deadline is a limit, too.
                fields["incomplete_details"] = json!({"reason": "max_output_tokens"});
                "incomplete"
            }
            false => {
                fields["completed_at"] = ids::now().into();
                "completed"
            }
        };
        let mut object = self.object(status, output.json(), fields);
        if self.store {
            let (response, input) =
                (object.to_string().into(), Value::from(self.items.clone()).to_string().into());
            let kept = store.put(&self.id, Entry { response, input, previous: self.previous.clone() });
            object["store"] = kept.into();
        }
        object
    }
}

fn usage(usage: &Usage, reasoning: usize) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        // What is written to the cache costs nothing, and is not counted.
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

/// What OpenAI's clients know the errors of responses by.
pub(super) fn error_code(fault: &Fault) -> &'static str {
    match fault.status.as_u16() {
        429 => "rate_limit_exceeded",
        400..=499 => "invalid_prompt",
        _ => "server_error",
    }
}
