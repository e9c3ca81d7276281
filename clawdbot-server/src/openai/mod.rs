//! OpenAI's interface (<https://platform.openai.com/docs/api-reference>).

pub(crate) mod chat;
mod chat_stream;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod logprobs;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod responses;

use clawdbot_core::{Completion, FinishReason, Usage};
use serde_json::{Value, json};

use crate::body::Body;
use crate::fault::Fault;

/// What a stream is asked to tell besides its text.
#[derive(Debug, Clone, Copy, Default)]
struct StreamOptions {
    /// The usage, after the last choice.
    usage: bool,
    /// The usage so far, with each chunk.
    continuous: bool,
}

/// Takes `stream` and `stream_options`; `None` without a stream.
fn stream_options(body: &mut Body) -> Result<Option<StreamOptions>, Fault> {
    let (stream, options) = (body.flag("stream")?, body.object("stream_options")?);
    let Some(options) = options.filter(|options| !options.is_empty()) else {
        return Ok(stream.then(StreamOptions::default));
    };
    if !stream {
        let message = "field stream_options: expected stream true with it, found none";
        return Err(Fault::invalid(message).at("stream_options"));
    }
    let mut found = StreamOptions::default();
    for (name, value) in &options {
        let flag = value
            .as_bool()
            .ok_or_else(|| Fault::field(&format!("stream_options.{name}"), "true or false", value))?;
        match name.as_str() {
            "include_usage" => found.usage = flag,
            "continuous_usage_stats" => found.continuous = flag,
            // Padding against those who measure packets: there is none to leave out.
            "include_obfuscation" if !flag => {}
            _ => {
                let message = format!(
                    "field stream_options: expected include_usage and continuous_usage_stats, found {name:?}"
                );
                return Err(Fault::invalid(message).at("stream_options"));
            }
        }
    }
    Ok(Some(found))
}

/// Makes a list of the field `stop`, which may be one text.
fn list_of_stops(body: &mut Body) {
    if let Some(stop) = body.take("stop") {
        body.set("stop", if stop.is_string() { json!([stop]) } else { stop });
    }
}

/// Tokens that an answer took.
#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    prompt: usize,
    cached: usize,
    completion: usize,
    accepted: usize,
    rejected: usize,
}

impl Tokens {
    /// Those of completions of one prompt, which counts once.
    fn of(usages: impl IntoIterator<Item = Usage>) -> Self {
        let mut tokens = Tokens::default();
        for (at, usage) in usages.into_iter().enumerate() {
            if at == 0 {
                (tokens.prompt, tokens.cached) = (usage.prompt_tokens, usage.cached_tokens);
            }
            tokens.completion += usage.completion_tokens;
            tokens.accepted += usage.accepted_tokens;
            tokens.rejected += usage.draft_tokens.saturating_sub(usage.accepted_tokens);
        }
        tokens
    }

    fn add(&mut self, other: Tokens) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.completion += other.completion;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
    }

    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {
                "accepted_prediction_tokens": self.accepted,
                "rejected_prediction_tokens": self.rejected,
            },
        })
    }
}

/// All completions of a prompt.
fn completions(completion: &Completion) -> impl Iterator<Item = &Completion> {
    std::iter::once(completion).chain(&completion.alternatives)
}

/// Why an answer ended, in OpenAI's words. A deadline is a limit, too.
fn finish_reason(completion: &Completion) -> &'static str {
    match completion.finish_reason {
        FinishReason::Stop if !completion.tool_calls.is_empty() => "tool_calls",
        FinishReason::Stop => "stop",
        _ => "length",
    }
}
