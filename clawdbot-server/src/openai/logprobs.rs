//! Log-probabilities in OpenAI's forms.

use clawdbot_core::{Logprobs, Tokenizer};
use serde_json::{Map, Value, json};

/// The text of a token by itself, and its bytes if they are characters.
fn text(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.decode(&[id], false.into()).unwrap_or_default()
}

/// A token with its log-probability.
fn entry(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Value {
    let text = text(tokenizer, id);
    // Part of a character has no text of its own.
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    json!({"token": text, "logprob": logprob, "bytes": bytes})
}

/// A token of a chat, with the most likely ones in its place.
pub(super) fn of_chat(tokenizer: &Tokenizer, logprobs: &Logprobs) -> Value {
    let mut value = entry(tokenizer, logprobs.chosen.id, logprobs.chosen.logprob);
    let top = logprobs.top.iter().map(|top| entry(tokenizer, top.id, top.logprob));
    value["top_logprobs"] = top.collect();
    value
}

/// Tokens of a text completion, which begin `offset` characters after the beginning of the text. `first`: a token before them
/// that has no log-probability.
pub(super) fn of_text(
    tokenizer: &Tokenizer,
    first: Option<u32>,
    logprobs: &[&Logprobs],
    mut offset: usize,
) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut push = |id: u32, logprob: Value, top: Value| {
        let text = text(tokenizer, id);
        offsets.push(offset);
        offset += text.chars().count();
        tokens.push(text);
        values.push(logprob);
        tops.push(top);
    };
    if let Some(id) = first {
        push(id, Value::Null, Value::Null);
    }
    for logprobs in logprobs {
        let top = logprobs.top.iter().map(|top| (text(tokenizer, top.id), Value::from(top.logprob)));
        push(logprobs.chosen.id, logprobs.chosen.logprob.into(), top.collect::<Map<_, _>>().into());
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}
