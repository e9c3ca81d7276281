//! Anthropic's interface (<https://docs.anthropic.com/en/api/messages>).

mod content;
mod reply;
mod request;
mod stream;
mod tools;

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::GenerateOptions;
use serde_json::json;

use crate::answers::{begin, complete, no_end};
use crate::body::Body;
use crate::caller::Caller;
use crate::fault::Fault;
use crate::ids;
use crate::openai::chat::enforces;
use crate::prompt::Ask;
use crate::sse::told;
use request::{Asked, FIELDS, asked};
use stream::Events;

/// `POST /v1/messages`
pub(crate) async fn messages(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, mut ignored) = Body::read::<GenerateOptions>(&bytes, &[FIELDS], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let stream = body.flag("stream")?;
    let Asked { chat, options } = asked(body, app.settings().fields, &mut ignored, true)?;
    let id = ids::id("msg_");
    let response = if stream {
        let enforced = enforces(&options, chat.tools.as_ref());
        let ask = Ask::Chat(chat);
        let counted = ask.clone();
        // The first event says how long the prompt is.
        let prompt = app.with_model(&name, move |model, cancel| counted.count(model, cancel)).await?;
        let answers = begin(&app, &name, vec![ask], options).await?;
        told(answers, Events::new(id, name, prompt, enforced), app.settings().keep_alive)
    } else {
        let completion =
            complete(&app, &name, vec![Ask::Chat(chat)], options).await?.pop().ok_or_else(no_end)?;
        Json(reply::message(&id, &name, &completion)).into_response()
    };
    Ok(ignored.told_in(response))
}

/// `POST /v1/messages/count_tokens`
pub(crate) async fn count_tokens(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, mut ignored) = Body::read::<GenerateOptions>(&bytes, &[FIELDS], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    body.flag("stream")?;
    let Asked { chat, .. } = asked(body, app.settings().fields, &mut ignored, false)?;
    let count = app.with_model(&name, move |model, cancel| Ask::Chat(chat).count(model, cancel));
    let answer = json!({"input_tokens": count.await?});
    Ok(ignored.told_in(Json(answer).into_response()))
}
