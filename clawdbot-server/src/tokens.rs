//! `POST /tokenize` and `POST /detokenize`, as vLLM has them.

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{AddGenerationPrompt, Chat, GenerateOptions};
use serde_json::{Value, json};

use crate::body::{Body, missing};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::{Field, Kind, read};
use crate::prompt::ids;

/// Fields of `/tokenize`.
const TOKENIZE: &[Field] = &[
    read("model", Kind::Text),
    read("prompt", Kind::Text),
    read("messages", Kind::List),
    read("tools", Kind::List),
    read("add_special_tokens", Kind::Bool),
    read("add_generation_prompt", Kind::Bool),
    read("chat_template_kwargs", Kind::Object),
    read("return_token_strs", Kind::Bool),
];

/// Fields of `/detokenize`.
const DETOKENIZE: &[Field] = &[read("model", Kind::Text), read("tokens", Kind::List)];

/// `POST /tokenize`: of a prompt, or of a conversation as the chat template renders it.
pub(crate) async fn tokenize(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) = Body::read::<GenerateOptions>(&bytes, &[TOKENIZE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let (prompt, messages, tools) = (body.text("prompt")?, body.take("messages"), body.take("tools"));
    let special = body.take("add_special_tokens").map(|special| special == true);
    let open = body.take("add_generation_prompt").is_none_or(|open| open == true);
    let variables = body.object("chat_template_kwargs")?.unwrap_or_default();
    let strings = body.flag("return_token_strs")?;
    body.end()?;
    if prompt.is_some() == messages.is_some() {
        return Err(missing("prompt", "a text (or messages, a conversation)"));
    }
    let answer = app.with_model(&name, move |model, cancel| {
        let tokenizer = model.tokenizer()?;
        // A chat template writes its own special tokens.
        let (text, special) = match messages {
            None => (prompt.unwrap_or_default(), special.unwrap_or(true)),
            Some(messages) => {
                let chat = Chat::new(messages).tools(tools).variables(variables);
                let open = if open { AddGenerationPrompt::Yes } else { AddGenerationPrompt::No };
                (model.render_chat(&chat, open)?, special.unwrap_or(false))
            }
        };
        let tokens = tokenizer.encode_until(&text, special.into(), cancel)?;
        let context = model.info().plan.max_context;
        let texts = strings.then(|| tokens.iter().map(|&id| tokenizer.id_to_token(id)).collect::<Vec<_>>());
        Ok(json!({"count": tokens.len(), "max_model_len": context, "tokens": tokens, "token_strs": texts}))
    });
    Ok(ignored.told_in(Json(answer.await?).into_response()))
}

/// `POST /detokenize`
pub(crate) async fn detokenize(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, ignored) = Body::read::<GenerateOptions>(&bytes, &[DETOKENIZE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let tokens = body.take("tokens").ok_or_else(|| missing("tokens", "a list of token ids"))?;
    body.end()?;
    let tokens = ids(&tokens).ok_or_else(|| Fault::field("tokens", "a list of token ids", &tokens))?;
    let text: Value = app
        .with_model(&name, move |model, cancel| {
            let text = model.tokenizer()?.decode_until(&tokens, false.into(), cancel)?;
            Ok(json!({"prompt": text}))
        })
        .await?;
    Ok(ignored.told_in(Json(text).into_response()))
}
