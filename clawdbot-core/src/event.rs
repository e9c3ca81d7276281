//! What a request returns: events while it runs, a completion at its end.

mod value;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::metrics::MAX_DRAFTS;
use crate::options::shown;
use crate::output::{ToolCall, ToolCallDelta};
use crate::sampling::{Logprobs, TokenLogprob};
use value::EventValue;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop token, the model's end of sequence, or a stop text.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// Cancelled by its owner.
    Cancelled,
    /// The time that `deadline_ms` gave is over.
    Deadline,
}

impl FinishReason {
    /// `stop`, `length`, `cancelled` or `deadline`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Deadline => "deadline",
        }
    }
}

/// Token counts and times of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "UsageValue")]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt; for a session, everything before the output.
    pub prompt_tokens: usize,
    /// Prompt tokens that were already in the cache.
    pub cached_tokens: usize,
    /// Tokens generated, a stop token included.
    pub completion_tokens: usize,
    /// Tokens that were guessed and then computed (`speculation`).
    pub draft_tokens: usize,
    /// Those of them that were right.
    pub accepted_tokens: usize,
    /// `accepted_tokens` by position in a pass: how many first guesses were right, how many
    /// second ones, and so on.
    pub accepted_by_position: [u32; MAX_DRAFTS],
    /// Those of `accepted_tokens` that a constraint forced: with a pass for several of them.
    pub forced_tokens: usize,
    /// Seconds before the request's first forward pass.
    pub queue_seconds: f64,
    /// Seconds from there to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the end.
    pub decode_seconds: f64,
    /// Seconds until it was known which first tokens a constraint allows, compiling it included; 0
    /// without one.
    pub first_mask_seconds: f64,
    /// Median of the seconds that this took for each later token.
    pub mask_p50_seconds: f64,
    /// Their 99th percentile.
    pub mask_p99_seconds: f64,
}

impl Usage {
    /// Prompt tokens computed per second; 0 if no time was measured.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prefill_seconds)
    }

    /// Tokens per second after the first one; 0 if no time was measured.
    pub fn decode_tokens_per_s(&self) -> f64 {
        rate(self.completion_tokens.saturating_sub(1), self.decode_seconds)
    }

    /// Seconds from submission to the first token.
    pub fn time_to_first_token(&self) -> f64 {
        self.queue_seconds + self.prefill_seconds
    }
}

/// [`Usage`] in JSON, with the rates derived from it.
#[derive(Serialize)]
struct UsageValue {
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    draft_tokens: usize,
    accepted_tokens: usize,
    accepted_by_position: [u32; MAX_DRAFTS],
    forced_tokens: usize,
    queue_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    first_mask_seconds: f64,
    mask_p50_seconds: f64,
    mask_p99_seconds: f64,
    time_to_first_token: f64,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
}

impl From<Usage> for UsageValue {
    fn from(usage: Usage) -> Self {
        UsageValue {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
            draft_tokens: usage.draft_tokens,
            accepted_tokens: usage.accepted_tokens,
            accepted_by_position: usage.accepted_by_position,
            forced_tokens: usage.forced_tokens,
            queue_seconds: usage.queue_seconds,
            prefill_seconds: usage.prefill_seconds,
            decode_seconds: usage.decode_seconds,
            first_mask_seconds: usage.first_mask_seconds,
            mask_p50_seconds: usage.mask_p50_seconds,
            mask_p99_seconds: usage.mask_p99_seconds,
            time_to_first_token: usage.time_to_first_token(),
            prefill_tokens_per_s: usage.prefill_tokens_per_s(),
            decode_tokens_per_s: usage.decode_tokens_per_s(),
        }
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "EventValue", into = "EventValue")]
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
        /// The text that became certain with it: whole characters only. Empty while a character is incomplete or a stop
        /// text may have begun, and in reasoning and calls.
        text: String,
        /// Its log-probability and those of the most likely tokens, if asked for.
        logprobs: Option<Logprobs>,
    },
    /// Text of the reasoning became certain. The token that it came with follows.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A part of a tool call became certain while the model writes it. The token that it came with came before. All deltas of a
    /// call come before its `ToolCall`, and their arguments, one after the other, are exactly its arguments. Deltas are a preview:
    /// if no `ToolCall` with their index follows, it was no call that can be read, and what the model wrote is in the text.
    ToolCallDelta(ToolCallDelta),
    /// A tool call is complete. The token that it ended with came before.
    ToolCall(ToolCall),
    /// The end: the last event.
    Done(Box<Completion>),
}

/// The result of a request. Two are equal if text, tokens, finish reason and log-probabilities are, and what was read of the
/// output; usage and options are not compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Completion {
    /// The generated text: without reasoning and tool calls, where they are read.
    pub text: String,
    /// The reasoning before the answer.
    pub reasoning: String,
    /// The functions that the model asks to be called.
    pub tool_calls: Vec<ToolCall>,
    /// What looked like a tool call and could not be read as one: it is in the text.
    pub warnings: Vec<String>,
    /// The generated tokens, a stop token included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Counts and times.
    pub usage: Usage,
    /// One entry for each generated token, if asked for.
    pub logprobs: Option<Vec<Logprobs>>,
    /// One entry for each token of the prompt but the first, if asked for.
    pub prompt_logprobs: Option<Vec<Logprobs>>,
    /// The further completions of the prompt, if `n` asks for several. They have none themselves.
    pub alternatives: Vec<Completion>,
    /// The options that were in force, defaults included.
    pub options: Map<String, Value>,
}

impl PartialEq for Completion {
    fn eq(&self, other: &Self) -> bool {
        self.finish_reason == other.finish_reason
            && self.text == other.text
            && self.reasoning == other.reasoning
            && self.tool_calls == other.tool_calls
            && self.warnings == other.warnings
            && self.token_ids == other.token_ids
            && self.logprobs == other.logprobs
            && self.prompt_logprobs == other.prompt_logprobs
            && self.alternatives == other.alternatives
    }
}

fn object_of(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The fields of a value in JSON; `of` is its type.
struct Fields<'a> {
    of: &'static str,
    object: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let found = self.object.get(name).unwrap_or(&Value::Null);
        serde_json::from_value(found.clone()).map_err(|_| self.unexpected(name))
    }

    fn unexpected(&self, name: &str) -> Error {
        let (of, found) = (self.of, shown(self.object.get(name).unwrap_or(&Value::Null)));
        let message = format!("{of}: field {name}: expected a value as the library gives it, found {found}");
        Error::invalid_argument(message).with("field", name)
    }
}

macro_rules! json {
    ($($type:ident { $($field:ident)+ })+) => {
        $(impl $type {
            /// Returns it as a JSON object with the names of the fields.
            pub fn to_json(&self) -> Map<String, Value> {
                object_of(self)
            }

            /// Reads the result of `to_json`.
            ///
            /// # Errors
            /// `InvalidArgument` for anything else, which names the field.
            pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
                let fields = Fields { of: stringify!($type), object };
                Ok($type { $($field: fields.get(stringify!($field))?,)+ })
            }
        })+
    };
}

json! {
    Completion { text reasoning tool_calls warnings token_ids finish_reason usage logprobs prompt_logprobs alternatives options }
    ToolCall { index id name arguments }
    ToolCallDelta { index id name arguments }
    TokenLogprob { id logprob }
    Usage {
        prompt_tokens cached_tokens completion_tokens draft_tokens accepted_tokens accepted_by_position forced_tokens
        queue_seconds prefill_seconds decode_seconds first_mask_seconds mask_p50_seconds mask_p99_seconds
    }
}

impl Logprobs {
    /// All of it as a JSON object: `id` and `logprob` of the chosen token, `top`.
    pub fn to_json(&self) -> Map<String, Value> {
        object_of(self)
    }

    /// From what `to_json` gave.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else, which names the field.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let fields = Fields { of: "Logprobs", object };
        let chosen = TokenLogprob { id: fields.get("id")?, logprob: fields.get("logprob")? };
        Ok(Logprobs { chosen, top: fields.get("top")? })
    }
}

impl Event {
    /// All of it as a JSON object: `kind` (`progress`, `token`, `reasoning`, `tool_call_delta`, `tool_call`, `done`), and the fields of that kind.
    pub fn to_json(&self) -> Map<String, Value> {
        object_of(self)
    }

    /// From what `to_json` gave.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else, which names the field.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let fields = Fields { of: "Event", object };
        match object.get("kind").and_then(Value::as_str) {
            Some("progress") => {
                Ok(Event::Progress { done: fields.get("done")?, total: fields.get("total")? })
            }
            Some("token") => {
                let (id, text) = (fields.get("id")?, fields.get("text")?);
                Ok(Event::Token { id, text, logprobs: fields.get("logprobs")? })
            }
            Some("reasoning") => Ok(Event::Reasoning { text: fields.get("text")? }),
            Some("tool_call_delta") => Ok(Event::ToolCallDelta(ToolCallDelta {
                index: fields.get("index")?,
                id: fields.get("id")?,
                name: fields.get("name")?,
                arguments: fields.get("arguments")?,
            })),
            Some("tool_call") => Ok(Event::ToolCall(ToolCall {
                index: fields.get("index")?,
                id: fields.get("id")?,
                name: fields.get("name")?,
                arguments: fields.get("arguments")?,
            })),
            Some("done") => match object.get("completion") {
                Some(Value::Object(completion)) => {
                    Completion::from_json(completion).map(Box::new).map(Event::Done)
                }
                _ => Err(fields.unexpected("completion")),
            },
            _ => Err(fields.unexpected("kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_back() {
        let token = |id, logprob| TokenLogprob { id, logprob };
        let logprobs = Logprobs { chosen: token(3, -0.1), top: vec![token(3, -0.1), token(4, -1.7e-3)] };
        let options = serde_json::json!({"seed": 3});
        let text = |text: &str| text.to_owned();
        let call = ToolCall { index: 0, id: text("abc"), name: text("f"), arguments: text("{}") };
        let delta = ToolCallDelta { index: 0, id: Some(text("abc")), name: None, arguments: text("{") };
        let completion = Completion {
            text: "ü".to_owned(),
            reasoning: "Hm.".to_owned(),
            tool_calls: vec![call.clone()],
            warnings: vec!["no call".to_owned()],
            token_ids: vec![3],
            finish_reason: FinishReason::Length,
            usage: Usage { prompt_tokens: 2, queue_seconds: 0.25, decode_seconds: 0.1, ..Usage::default() },
            logprobs: Some(vec![logprobs.clone()]),
            prompt_logprobs: Some(vec![logprobs.clone()]),
            alternatives: Vec::new(),
            options: options.as_object().unwrap().clone(),
        };
        let object = completion.to_json();
        assert_eq!(
            (&object["finish_reason"], &object["usage"]["prompt_tokens"]),
            (&"length".into(), &2.into())
        );
        assert_eq!(object["logprobs"][0]["top"][1]["id"], 4);
        let again = Completion::from_json(&object).unwrap();
        assert_eq!(
            (&again, again.usage, &again.options),
            (&completion, completion.usage, &completion.options)
        );
        let slower =
            Completion { usage: Usage { decode_seconds: 9.0, ..completion.usage }, ..completion.clone() };
        assert_eq!(slower, completion);
        assert_ne!(slower.to_json(), object);
        for other in [
            Completion { text: String::new(), ..completion.clone() },
            Completion { reasoning: String::new(), ..completion.clone() },
            Completion { tool_calls: Vec::new(), ..completion.clone() },
            Completion { warnings: Vec::new(), ..completion.clone() },
            Completion { token_ids: vec![4], ..completion.clone() },
            Completion { finish_reason: FinishReason::Stop, ..completion.clone() },
            Completion { logprobs: None, ..completion.clone() },
            Completion { prompt_logprobs: None, ..completion.clone() },
            Completion { alternatives: vec![completion.clone()], ..completion.clone() },
        ] {
            assert_ne!(other, completion);
        }
        let usage = completion.usage.to_json();
        assert_eq!(usage["time_to_first_token"], completion.usage.time_to_first_token());
        assert_eq!((usage.len(), &usage["decode_tokens_per_s"]), (16, &0.0.into()));
        for (kind, event) in [
            ("progress", Event::Progress { done: 1, total: 2 }),
            ("token", Event::Token { id: 1, text: "a".to_owned(), logprobs: Some(logprobs) }),
            ("reasoning", Event::Reasoning { text: text("Hm") }),
            ("tool_call_delta", Event::ToolCallDelta(delta)),
            ("tool_call", Event::ToolCall(call)),
            ("done", Event::Done(Box::new(completion))),
        ] {
            let object = event.to_json();
            assert_eq!(object["kind"], kind);
            let text = serde_json::to_string(&object).unwrap();
            assert_eq!(Event::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), event);
        }
        assert!(
            Usage::from_json(&Map::new()).unwrap_err().message().starts_with("Usage: field prompt_tokens: ")
        );
    }

    #[test]
    fn a_bad_field_is_named() {
        let good = serde_json::json!({
            "text": "a", "token_ids": [3], "finish_reason": "stop", "usage": Usage::default().to_json(), "logprobs": null,
            "options": {}, "reasoning": "", "tool_calls": [], "warnings": [], "alternatives": [],
        });
        assert!(Completion::from_json(good.as_object().unwrap()).is_ok());
        for (field, bad, found) in [
            ("text", Value::Null, "nothing"),
            ("reasoning", Value::Null, "nothing"),
            ("tool_calls", "x".into(), "\"x\""),
            ("warnings", 5.into(), "5"),
            ("token_ids", "x".into(), "\"x\""),
            ("finish_reason", "tired".into(), "\"tired\""),
            ("usage", Value::Object(Map::new()), "{}"),
            ("logprobs", 5.into(), "5"),
            ("alternatives", 5.into(), "5"),
            ("options", Value::Array(Vec::new()), "[]"),
        ] {
            let mut fields = good.as_object().unwrap().clone();
            fields.insert(field.to_owned(), bad);
            let error = Completion::from_json(&fields).unwrap_err();
            let expected =
                format!("Completion: field {field}: expected a value as the library gives it, found {found}");
            assert_eq!((error.message(), &error.detail()["field"]), (&*expected, &field.into()));
            let event = serde_json::json!({"kind": "done", "completion": fields});
            assert_eq!(Event::from_json(event.as_object().unwrap()).unwrap_err().message(), expected);
        }
        for (event, field) in [
            (serde_json::json!({}), "kind"),
            (serde_json::json!({"kind": "end"}), "kind"),
            (serde_json::json!({"kind": "done"}), "completion"),
            (serde_json::json!({"kind": "progress", "done": 1}), "total"),
            (serde_json::json!({"kind": "token", "id": -1, "text": ""}), "id"),
            (serde_json::json!({"kind": "reasoning"}), "text"),
            (serde_json::json!({"kind": "tool_call", "index": 0, "id": ""}), "name"),
            (serde_json::json!({"kind": "tool_call_delta", "index": 0}), "arguments"),
        ] {
            let error = Event::from_json(event.as_object().unwrap()).unwrap_err();
            assert!(error.message().starts_with(&format!("Event: field {field}: ")), "{error}");
        }
        let error =
            Logprobs::from_json(serde_json::json!({"id": 3, "logprob": 0}).as_object().unwrap()).unwrap_err();
        assert!(error.message().starts_with("Logprobs: field top: "), "{error}");
    }
}
