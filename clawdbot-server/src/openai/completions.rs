//! `POST /v1/completions`

use axum::body::Bytes;
use axum::response::sse::Event as Sent;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{
    AddSpecialTokens, Completion, Error, Event, GenerateOptions, Logprobs, Model, Prompt, Tokenizer, Usage,
};
use serde_json::{Value, json};

use super::logprobs::of_text;
use super::{StreamOptions, Tokens, completions, finish_reason, list_of_stops, stream_options};
use crate::answers::{begin, complete, no_end};
use crate::body::{Body, missing};
use crate::caller::Caller;
use crate::fault::{Fault, Shape};
use crate::fields::{Field, Kind, OPENAI_IDLE, read};
use crate::ids;
use crate::prompt::{Ask, prompts};
use crate::sse::{Teller, data, told};

/// Fields besides the core's options.
pub(crate) const FIELDS: &[Field] = &[
    read("model", Kind::Text),
    read("prompt", Kind::Any),
    read("echo", Kind::Bool),
    read("max_tokens", Kind::Whole),
    read("stop", Kind::Any),
    read("stream", Kind::Bool),
    read("stream_options", Kind::Object),
];

/// What OpenAI generates if a request does not say how much.
const MAX_TOKENS: u64 = 16;

/// A prompt that is given back before its completion.
#[derive(Debug, Clone, Default)]
struct Echo {
    text: String,
    /// Its first token, which has no log-probability.
    first: Option<u32>,
}

/// `POST /v1/completions`
pub(crate) async fn complete_text(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) =
        Body::read::<GenerateOptions>(&bytes, &[FIELDS, OPENAI_IDLE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let prompt = body.take("prompt").ok_or_else(|| missing("prompt", "a text or token ids"))?;
    let prompts = prompts("prompt", &prompt)?;
    let (echo, stream) = (body.flag("echo")?, stream_options(&mut body)?);
    list_of_stops(&mut body);
    let most = body.whole("max_tokens")?.unwrap_or(MAX_TOKENS);
    // The prompt alone: a token is generated, and left out.
    let prompt_only = most == 0 && echo;
    body.set("max_tokens", if prompt_only { 1 } else { most });
    let mut options: GenerateOptions = body.options()?;
    if echo && options.logprobs.is_some() && options.prompt_logprobs.is_none() {
        options.prompt_logprobs = options.logprobs;
    }
    let echoes = if echo { echoes(&app, &name, &prompts).await? } else { Vec::new() };
    let tokenizer = match options.logprobs {
        Some(_) => Some(app.with_model(&name, |model, _| model.tokenizer()).await?),
        None => None,
    };
    let asks = prompts.into_iter().map(Ask::Prompt).collect::<Vec<_>>();
    let (id, n) = (ids::id("cmpl-"), options.n as usize);
    let writer = Writer { id, name, created: ids::now(), tokenizer, echoes, prompt_only };
    let Some(stream) = stream else {
        let answered = complete(&app, &writer.name, asks, options).await?;
        return Ok(ignored.told_in(Json(writer.all(&answered)).into_response()));
    };
    refuse_in_streams(&options, echo)?;
    let ended = vec![None; asks.len() * n];
    let answers = begin(&app, &writer.name, asks, options).await?;
    let offsets = vec![0; ended.len()];
    let chunks = Chunks { writer, options: stream, n, ended, offsets };
    Ok(ignored.told_in(told(answers, chunks, app.settings().keep_alive)))
}

/// What is known at the end alone.
fn refuse_in_streams(options: &GenerateOptions, echo: bool) -> Result<(), Fault> {
    if echo && options.logprobs.is_some() {
        let message =
            "field logprobs: expected none with echo and stream, as those of the prompt come at the end";
        return Err(Fault::invalid(message).at("logprobs"));
    }
    Ok(())
}

/// The prompts as text, and their first tokens.
async fn echoes(app: &Caller, name: &str, prompts: &[Prompt]) -> Result<Vec<Echo>, Fault> {
    let prompts = prompts.to_vec();
    let one = |model: &Model, prompt: &Prompt| -> Result<Echo, Error> {
        let tokenizer = model.tokenizer()?;
        Ok(match prompt {
            Prompt::Tokens(ids) => {
                Echo { text: tokenizer.decode(ids, false.into())?, first: ids.first().copied() }
            }
            prompt => {
                let text = Ask::Prompt(prompt.clone()).text(model)?;
                let first = tokenizer.encode(&text, AddSpecialTokens::Yes)?.first().copied();
                Echo { text, first }
            }
        })
    };
    app.with_model(name, move |model, _| prompts.iter().map(|prompt| one(model, prompt)).collect()).await
}

/// Writes choices.
struct Writer {
    id: String,
    name: String,
    created: i64,
    tokenizer: Option<Tokenizer>,
    /// Of each prompt, if they are given back.
    echoes: Vec<Echo>,
    /// Whether the prompts alone are given back.
    prompt_only: bool,
}

impl Writer {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        })
    }

    fn all(&self, answered: &[Completion]) -> Value {
        let (mut choices, mut tokens) = (Vec::new(), Tokens::default());
        for (prompt, completion) in answered.iter().enumerate() {
            tokens.add(Tokens::of(completions(completion).map(|one| one.usage)));
            for one in completions(completion) {
                // Those of the prompt are with the first completion.
                let scores = completion.prompt_logprobs.as_deref().unwrap_or_default();
                choices.push(self.choice(choices.len(), prompt, scores, one));
            }
        }
        if self.prompt_only {
            tokens.completion = 0;
        }
        let mut object = self.object(choices.into());
        object["usage"] = tokens.json();
        object
    }

    fn choice(&self, index: usize, prompt: usize, scores: &[Logprobs], completion: &Completion) -> Value {
        let echo = self.echoes.get(prompt);
        let generated = if self.prompt_only { "" } else { completion.text.as_str() };
        let text = format!("{}{generated}", echo.map_or("", |echo| echo.text.as_str()));
        let logprobs = completion.logprobs.as_deref().zip(self.tokenizer.as_ref());
        let logprobs = logprobs.map(|(own, tokenizer)| {
            let own = if self.prompt_only { &[] } else { own };
            let scores = if echo.is_some() { scores } else { &[] };
            let all: Vec<&Logprobs> = scores.iter().chain(own).collect();
            of_text(tokenizer, echo.and_then(|echo| echo.first), &all, 0)
        });
        let reason = if self.prompt_only { "length" } else { finish_reason(completion) };
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason})
    }
}

/// Tells choices in chunks.
struct Chunks {
    writer: Writer,
    options: StreamOptions,
    /// Choices of each prompt.
    n: usize,
    ended: Vec<Option<Usage>>,
    /// Characters of each choice so far.
    offsets: Vec<usize>,
}

impl Chunks {
    fn chunk(&self, index: usize, text: &str, logprobs: Option<Value>, reason: Option<&str>) -> Sent {
        let choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason});
        let mut object = self.writer.object(json!([choice]));
        if self.options.usage || self.options.continuous {
            object["usage"] = Value::Null;
        }
        data(&object)
    }
}

impl Teller for Chunks {
    fn begin(&mut self) -> Vec<Sent> {
        let echoed = (0..self.ended.len()).filter_map(|index| {
            let echo = self.writer.echoes.get(index / self.n)?;
            Some(self.chunk(index, &echo.text, None, None))
        });
        echoed.collect()
    }

    fn event(&mut self, index: usize, event: Event) -> Vec<Sent> {
        match event {
            Event::Token { text, logprobs, .. } if !self.writer.prompt_only => {
                let logprobs = logprobs.zip(self.writer.tokenizer.as_ref());
                let logprobs =
                    logprobs.map(|(one, tokenizer)| of_text(tokenizer, None, &[&one], self.offsets[index]));
                self.offsets[index] += text.chars().count();
                if text.is_empty() && logprobs.is_none() {
                    return Vec::new();
                }
                vec![self.chunk(index, &text, logprobs, None)]
            }
            Event::Done(completion) => {
                self.ended[index] = Some(completion.usage);
                let reason = if self.writer.prompt_only { "length" } else { finish_reason(&completion) };
                vec![self.chunk(index, "", None, Some(reason))]
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
            let mut tokens = Tokens::default();
            usages.chunks(self.n).for_each(|usages| tokens.add(Tokens::of(usages.iter().copied())));
            let mut object = self.writer.object(json!([]));
            object["usage"] = tokens.json();
            sent.push(data(&object));
        }
        sent.push(Sent::default().data("[DONE]"));
        sent
    }

    fn fault(&mut self, fault: &Fault) -> Vec<Sent> {
        vec![data(&Shape::OpenAi.body(fault)), Sent::default().data("[DONE]")]
    }
}
