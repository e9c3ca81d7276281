//! Chunks of `POST /v1/chat/completions` with `stream`.

use axum::response::sse::Event as Sent;
use clawdbot_core::{Event, Tokenizer, Usage};
use serde_json::{Value, json};

use super::logprobs::of_chat;
use super::{StreamOptions, Tokens, finish_reason};
use crate::answers::no_end;
use crate::fault::{Fault, Shape};
use crate::ids;
use crate::sse::{Teller, data};

/// Tells a chat's choices in chunks.
pub(super) struct Chunks {
    id: String,
    name: String,
    created: i64,
    options: StreamOptions,
    /// For log-probabilities.
    tokenizer: Option<Tokenizer>,
    /// Whether what is told of calls while they are written is certain.
    enforced: bool,
    /// The usage of each choice that has ended.
    ended: Vec<Option<Usage>>,
    /// Tokens so far.
    tokens: usize,
}

impl Chunks {
    pub(super) fn new(
        id: String,
        name: String,
        choices: usize,
        options: StreamOptions,
        tokenizer: Option<Tokenizer>,
        enforced: bool,
    ) -> Self {
        let ended = vec![None; choices];
        Chunks { id, name, created: ids::now(), options, tokenizer, enforced, ended, tokens: 0 }
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Sent {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        });
        if self.options.usage || self.options.continuous {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        data(&chunk)
    }

    fn delta(&self, index: usize, delta: Value, logprobs: Option<Value>) -> Sent {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        let so_far = Tokens { completion: self.tokens, ..Tokens::default() };
        self.chunk(json!([choice]), self.options.continuous.then(|| so_far.json()))
    }

    /// A call, or what is new of one; `id` and name come with the first part.
    fn call(&self, choice: usize, index: usize, named: Option<(&str, &str)>, arguments: &str) -> Sent {
        let mut part = json!({"index": index, "function": {"arguments": arguments}});
        if let Some((id, name)) = named {
            part["id"] = id.into();
            part["type"] = "function".into();
            part["function"]["name"] = name.into();
        }
        self.delta(choice, json!({"tool_calls": [part]}), None)
    }
}

impl Teller for Chunks {
    fn begin(&mut self) -> Vec<Sent> {
        let first = |index| self.delta(index, json!({"role": "assistant", "content": ""}), None);
        (0..self.ended.len()).map(first).collect()
    }

    fn event(&mut self, index: usize, event: Event) -> Vec<Sent> {
        match event {
            Event::Token { text, logprobs, .. } => {
                self.tokens += 1;
                let logprobs = logprobs.zip(self.tokenizer.as_ref());
                let logprobs = logprobs.map(|(logprobs, tokenizer)| {
                    json!({"content": [of_chat(tokenizer, &logprobs)], "refusal": null})
                });
                if text.is_empty() && logprobs.is_none() {
                    return Vec::new();
                }
                vec![self.delta(index, json!({"content": text}), logprobs)]
            }
            Event::Reasoning { text } => {
                vec![self.delta(index, json!({"reasoning": text, "reasoning_content": text}), None)]
            }
            Event::ToolCallDelta(delta) if self.enforced => {
                let named = delta.id.as_deref().zip(delta.name.as_deref());
                vec![self.call(index, delta.index, named, &delta.arguments)]
            }
            Event::ToolCall(call) if !self.enforced => {
                vec![self.call(index, call.index, Some((&call.id, &call.name)), &call.arguments)]
            }
            Event::Done(completion) => {
                self.ended[index] = Some(completion.usage);
                let reason = finish_reason(&completion);
                let choice = json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason});
                vec![self.chunk(json!([choice]), None)]
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Sent> {
        let Some(usages) = self.ended.iter().copied().collect::<Option<Vec<_>>>() else {
            return self.fault(&no_end().into());
        };
        let mut sent = Vec::new();
        if self.options.usage || self.options.continuous {
            sent.push(self.chunk(json!([]), Some(Tokens::of(usages).json())));
        }
        sent.push(Sent::default().data("[DONE]"));
        sent
    }

    fn fault(&mut self, fault: &Fault) -> Vec<Sent> {
        vec![data(&Shape::OpenAi.body(fault)), Sent::default().data("[DONE]")]
    }
}
