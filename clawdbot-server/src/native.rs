//! `POST /v1/generate`: the core's own requests and completions.

use axum::body::Bytes;
use axum::response::sse::Event as Sent;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{Chat, Completion, Event, GenerateOptions};
use serde_json::{Map, Value};

use crate::answers::{begin, complete, no_end};
use crate::body::{Body, missing};
use crate::caller::Caller;
use crate::fault::{Fault, Shape};
use crate::fields::{Field, Kind, read};
use crate::ids;
use crate::prompt::{Ask, ids as token_ids};
use crate::sse::{Teller, data, told};

/// Fields besides the core's options.
pub(crate) const FIELDS: &[Field] = &[
    read("model", Kind::Text),
    read("prompt", Kind::Any),
    read("messages", Kind::List),
    read("tools", Kind::List),
    read("variables", Kind::Object),
    read("stream", Kind::Bool),
];

/// `POST /v1/generate`
pub(crate) async fn generate(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) = Body::read::<GenerateOptions>(&bytes, &[FIELDS], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let stream = body.flag("stream")?;
    let ask = ask(&mut body)?;
    let options = body.options()?;
    let id = ids::id("gen-");
    let response = if stream {
        let answers = begin(&app, &name, vec![ask], options).await?;
        told(answers, Events { id, name, ended: false }, app.settings().keep_alive)
    } else {
        let completion = complete(&app, &name, vec![ask], options).await?.pop().ok_or_else(no_end)?;
        Json(completion_json(&id, &name, &completion)).into_response()
    };
    Ok(ignored.told_in(response))
}

/// A prompt, or a conversation.
fn ask(body: &mut Body) -> Result<Ask, Fault> {
    let (prompt, messages) = (body.take("prompt"), body.take("messages"));
    let (tools, variables) = (body.take("tools"), body.object("variables")?);
    match (prompt, messages) {
        (Some(_), Some(_)) => Err(Fault::invalid("expected prompt or messages, found both")),
        (None, None) => Err(missing("prompt", "a text or a list of token ids (or messages, a conversation)")),
        (None, Some(messages)) => {
            Ok(Ask::Chat(Chat::new(messages).tools(tools).variables(variables.unwrap_or_default())))
        }
        (Some(prompt), None) => {
            if let Some(field) = tools.map(|_| "tools").or(variables.map(|_| "variables")) {
                let message = format!("field {field}: expected messages with it, found a prompt");
                return Err(Fault::invalid(message).at(field));
            }
            match &prompt {
                Value::String(text) => Ok(Ask::Prompt(text.as_str().into())),
                other => match token_ids(other) {
                    Some(ids) => Ok(Ask::Prompt(ids.into())),
                    None => Err(Fault::field("prompt", "a text or a list of token ids", other)),
                },
            }
        }
    }
}

/// A completion with the answer's id and the model's name.
fn completion_json(id: &str, name: &str, completion: &Completion) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("id".into(), id.into());
    json.insert("model".into(), name.into());
    json.extend(completion.to_json());
    json
}

/// The core's events, as they are.
struct Events {
    id: String,
    name: String,
    ended: bool,
}

impl Teller for Events {
    fn event(&mut self, _: usize, event: Event) -> Vec<Sent> {
        let mut json = event.to_json();
        if let (Event::Done(completion), Some(of)) = (&event, json.get_mut("completion")) {
            *of = completion_json(&self.id, &self.name, completion).into();
            self.ended = true;
        }
        vec![data(&json.into())]
    }

    fn end(&mut self) -> Vec<Sent> {
        match self.ended {
            true => vec![Sent::default().data("[DONE]")],
            false => self.fault(&no_end().into()),
        }
    }

    fn fault(&mut self, fault: &Fault) -> Vec<Sent> {
        vec![data(&Shape::Native.body(fault)), Sent::default().data("[DONE]")]
    }
}
