//! Events of `POST /v1/messages` with `stream`.

use axum::response::sse::Event as Sent;
use clawdbot_core::{Completion, Event};
use serde_json::{Value, json};

use super::reply::{stop_reason, usage};
use crate::answers::no_end;
use crate::fault::{Fault, Shape};
use crate::sse::Teller;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call(usize),
}

/// Tells a message block by block.
pub(super) struct Events {
    id: String,
    model: String,
    prompt_tokens: usize,
    /// Whether what is told of calls while they are written is certain.
    enforced: bool,
    /// The block that is written.
    open: Option<Block>,
    /// How many blocks have begun.
    blocks: usize,
    /// Bytes of text that were told.
    said: usize,
    ended: bool,
}

impl Events {
    pub(super) fn new(id: String, model: String, prompt_tokens: usize, enforced: bool) -> Self {
        Events { id, model, prompt_tokens, enforced, open: None, blocks: 0, said: 0, ended: false }
    }

    /// Ends the block that is open.
    fn close(&mut self, sent: &mut Vec<Sent>) {
        if self.open.take().is_some() {
            sent.push(named("content_block_stop", json!({"index": self.blocks.saturating_sub(1)})));
        }
    }

    /// Writes to `block`, which begins as `start` if it is not open.
    fn write(&mut self, block: Block, start: Value, delta: Option<Value>, sent: &mut Vec<Sent>) {
        if self.open != Some(block) {
            self.close(sent);
            sent.push(named("content_block_start", json!({"index": self.blocks, "content_block": start})));
            self.blocks += 1;
            self.open = Some(block);
        }
        if let Some(delta) = delta {
            let index = self.blocks.saturating_sub(1);
            sent.push(named("content_block_delta", json!({"index": index, "delta": delta})));
        }
    }

    fn text(&mut self, text: &str, sent: &mut Vec<Sent>) {
        if !text.is_empty() {
            self.said += text.len();
            let delta = json!({"type": "text_delta", "text": text});
            self.write(Block::Text, json!({"type": "text", "text": ""}), Some(delta), sent);
        }
    }

    fn call(&mut self, index: usize, id: &str, name: &str, arguments: &str, sent: &mut Vec<Sent>) {
        let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        let delta = json!({"type": "input_json_delta", "partial_json": arguments});
        self.write(Block::Call(index), start, (!arguments.is_empty()).then_some(delta), sent);
    }

    fn done(&mut self, completion: &Completion, sent: &mut Vec<Sent>) {
        // The text of a call that was cut off comes with the completion alone.
        let rest = completion.text.get(self.said..).unwrap_or_default();
        self.text(rest, sent);
        self.close(sent);
        let delta = json!({"stop_reason": stop_reason(completion), "stop_sequence": null});
        sent.push(named("message_delta", json!({"delta": delta, "usage": usage(&completion.usage)})));
        sent.push(named("message_stop", json!({})));
        self.ended = true;
    }
}

/// An event whose data have its name, too.
fn named(name: &'static str, mut fields: Value) -> Sent {
    fields["type"] = name.into();
    Sent::default().event(name).data(fields.to_string())
}

impl Teller for Events {
    fn begin(&mut self) -> Vec<Sent> {
        let message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": {
                "input_tokens": self.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 0,
            },
        });
        vec![named("message_start", json!({"message": message})), named("ping", json!({}))]
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<Sent> {
        let mut sent = Vec::new();
        match event {
            Event::Token { text, .. } => self.text(&text, &mut sent),
            Event::Reasoning { text } if !text.is_empty() => {
                let start = json!({"type": "thinking", "thinking": "", "signature": ""});
                let delta = json!({"type": "thinking_delta", "thinking": text});
                self.write(Block::Thinking, start, Some(delta), &mut sent);
            }
            Event::ToolCallDelta(delta) if self.enforced => {
                let (id, name) = (delta.id.as_deref(), delta.name.as_deref());
                self.call(
                    delta.index,
                    id.unwrap_or_default(),
                    name.unwrap_or_default(),
                    &delta.arguments,
                    &mut sent,
                );
            }
            Event::ToolCall(call) if !self.enforced => {
                self.call(call.index, &call.id, &call.name, &call.arguments, &mut sent);
            }
            Event::Done(completion) => self.done(&completion, &mut sent),
            _ => {}
        }
        sent
    }

    fn end(&mut self) -> Vec<Sent> {
        match self.ended {
            true => Vec::new(),
            false => self.fault(&no_end().into()),
        }
    }

    fn fault(&mut self, fault: &Fault) -> Vec<Sent> {
        vec![named("error", Shape::Anthropic.body(fault))]
    }
}
