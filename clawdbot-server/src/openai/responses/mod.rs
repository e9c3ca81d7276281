//! `POST /v1/responses`: OpenAI's Responses, and those that are stored.

mod asked;
mod conversation;
mod input;
mod item;
mod output;
mod record;
mod stored;
mod stream;
mod tools;

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{Chat, Completion, ErrorKind, GenerateOptions};
use futures_util::StreamExt as _;

use self::asked::{Asked, FIELDS, asked};
use self::input::stem;
use self::output::Output;
pub(crate) use self::stored::{input_items, remove, retrieve};
use self::stream::Events;
use super::chat::enforces;
use crate::answers::{Answers, begin, complete, no_end, together};
use crate::body::Body;
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::OPENAI_IDLE;
use crate::prompt::Ask;
use crate::sse::told;

/// An answer that has begun.
enum Begun {
    Events(Answers),
    /// One that has no events, as of a beam search.
    Whole(Box<Completion>),
}

/// `POST /v1/responses`
pub(crate) async fn create(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, mut ignored) =
        Body::read::<GenerateOptions>(&bytes, &[FIELDS, OPENAI_IDLE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let Asked { chat, relaxed, options, stream, mut record } = asked(body, &mut ignored, &app, name.clone())?;
    let tokenizer = match options.logprobs.is_some() || together(&options) {
        true => Some(app.with_model(&name, |model, _| model.tokenizer()).await?),
        false => None,
    };
    let mut enforced = enforces(&options, chat.tools.as_ref());
    let begun = match (start(&app, &name, chat, &options, stream).await, relaxed) {
        // What cannot be enforced is not, unless the request says that it is to be.
        (Err(fault), Some(relaxed)) if is_of_request(&fault) => {
            enforced = enforces(&options, relaxed.tools.as_ref());
            let begun = start(&app, &name, relaxed, &options, stream).await?;
            record.relax();
            begun
        }
        (begun, _) => begun?,
    };
    let mut output = Output::new(stem(&record.id), tokenizer, enforced);
    let completion = match begun {
        Begun::Events(answers) if stream => {
            let events = Events::new(app.clone(), record, output);
            return Ok(ignored.told_in(told(answers, events, app.settings().keep_alive)));
        }
        Begun::Events(answers) => read(answers, &mut output).await?,
        Begun::Whole(completion) => {
            output.whole(&completion);
            completion
        }
    };
    let response = record.ended(&output, &completion, app.responses());
    Ok(ignored.told_in(Json(response).into_response()))
}

/// Whether another request may succeed where this one failed.
fn is_of_request(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::InvalidConstraint | ErrorKind::InvalidArgument)
}

async fn start(
    app: &Caller,
    name: &str,
    chat: Chat,
    options: &GenerateOptions,
    stream: bool,
) -> Result<Begun, Fault> {
    let asks = vec![Ask::Chat(chat)];
    if stream || !together(options) {
        return Ok(Begun::Events(begin(app, name, asks, options.clone()).await?));
    }
    let whole = complete(app, name, asks, options.clone()).await?.pop();
    Ok(Begun::Whole(Box::new(whole.ok_or_else(no_end)?)))
}

/// Reads an answer to its end.
async fn read(mut answers: Answers, output: &mut Output) -> Result<Box<Completion>, Fault> {
    while let Some((_, event)) = answers.next().await {
        let completion = output.event(event?);
        output.told();
        if let Some(completion) = completion {
            return Ok(completion);
        }
    }
    Err(no_end().into())
}
