//! A completion as a message.

use clawdbot_core::{Completion, FinishReason, Usage};
use serde_json::{Map, Value, json};

/// A message with its blocks.
pub(super) fn message(id: &str, model: &str, completion: &Completion) -> Value {
    let mut content = Vec::new();
    if !completion.reasoning.is_empty() {
        content.push(json!({"type": "thinking", "thinking": completion.reasoning, "signature": ""}));
    }
    if !completion.text.is_empty() {
        content.push(json!({"type": "text", "text": completion.text}));
    }
    for call in &completion.tool_calls {
        content.push(
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input(&call.arguments)}),
        );
    }
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason(completion),
        "stop_sequence": null,
        "usage": usage(&completion.usage),
    })
}

/// The arguments of a call.
fn input(arguments: &str) -> Value {
    // They were read as an object before.
    serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_default().into()
}

/// Why an answer ended, in Anthropic's words. A deadline is a limit, too.
pub(super) fn stop_reason(completion: &Completion) -> &'static str {
    match completion.finish_reason {
        FinishReason::Stop if !completion.tool_calls.is_empty() => "tool_use",
        FinishReason::Stop => "end_turn",
        _ => "max_tokens",
    }
}

/// Tokens. Cached ones count apart.
pub(super) fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}
