//! What a request gives back: events while it runs, a completion at its end.

use serde_json::{Map, Value, json};

use crate::sampling::{Logprobs, TokenLogprob};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop token, the model's end of sequence, or a stop text.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// Cancelled by its owner.
    Cancelled,
}

impl FinishReason {
    /// `stop`, `length` or `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// Tokens and seconds of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt; for a session, everything before the output.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub cached_tokens: usize,
    /// Tokens generated, a stop token included.
    pub completion_tokens: usize,
    /// Seconds before the request's first forward pass.
    pub queue_seconds: f64,
    /// Seconds from there to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the end.
    pub decode_seconds: f64,
}

impl Usage {
    /// Prompt tokens computed per second; 0 when there is nothing to divide by.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens, self.prefill_seconds)
    }

    /// Tokens per second after the first one; 0 when there is nothing to divide by.
    pub fn decode_tokens_per_s(&self) -> f64 {
        rate(self.completion_tokens.saturating_sub(1), self.decode_seconds)
    }

    /// Seconds from submission to the first token.
    pub fn time_to_first_token(&self) -> f64 {
        self.queue_seconds + self.prefill_seconds
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

impl Completion {
    /// The completion as a JSON object, with the names of the fields.
    pub fn to_json(&self) -> Map<String, Value> {
        let entry = |entry: &TokenLogprob| json!({"id": entry.id, "logprob": entry.logprob});
        let report = |report: &Logprobs| {
            let top: Vec<Value> = report.top.iter().map(entry).collect();
            json!({"id": report.chosen.id, "logprob": report.chosen.logprob, "top": top})
        };
        let logprobs = self.logprobs.as_ref().map(|all| all.iter().map(report).collect::<Vec<Value>>());
        let object = json!({
            "text": self.text, "token_ids": self.token_ids, "finish_reason": self.finish_reason.name(),
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens, "cached_tokens": self.usage.cached_tokens,
                "completion_tokens": self.usage.completion_tokens, "queue_seconds": self.usage.queue_seconds,
                "prefill_seconds": self.usage.prefill_seconds, "decode_seconds": self.usage.decode_seconds,
            },
            "logprobs": logprobs, "options": self.options,
        });
        match object {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A chunk of a long prompt was computed: `done` of `total` tokens.
    Progress {
        /// Tokens computed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was generated.
    Token {
        /// Its id.
        id: u32,
        /// The text that became certain with it: whole characters, empty while one or a possible stop text is open.
        text: String,
        /// Its log-probability and those of the most likely tokens, if asked for.
        logprobs: Option<Logprobs>,
    },
    /// The end: the last event.
    Done(Box<Completion>),
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The generated text.
    pub text: String,
    /// The generated tokens, a stop token included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Counts and times.
    pub usage: Usage,
    /// One entry for each generated token, if asked for.
    pub logprobs: Option<Vec<Logprobs>>,
    /// The options that were in force, defaults included.
    pub options: Map<String, Value>,
}
