//! `POST /v1/chat/completions`

use axum::body::Bytes;
use axum::response::{IntoResponse, Json, Response};
use clawdbot_core::{Chat, Completion, GenerateOptions, Tokenizer};
use serde_json::{Map, Value, json};

use super::chat_stream::Chunks;
use super::logprobs::of_chat;
use super::messages::normalized;
use super::{Tokens, completions, finish_reason, list_of_stops, stream_options};
use crate::answers::{begin, complete};
use crate::body::{Body, Ignored, missing};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::{Field, Kind, OPENAI_IDLE, idle, read};
use crate::ids;
use crate::prompt::Ask;
use crate::sse::told;

/// Fields besides the core's options.
pub(crate) const FIELDS: &[Field] = &[
    read("model", Kind::Text),
    read("messages", Kind::List),
    read("tools", Kind::List),
    read("tool_choice", Kind::Any),
    read("stream", Kind::Bool),
    read("stream_options", Kind::Object),
    read("response_format", Kind::Object),
    read("max_completion_tokens", Kind::Whole),
    read("stop", Kind::Any),
    read("logprobs", Kind::Any),
    read("top_logprobs", Kind::Whole),
    read("chat_template_kwargs", Kind::Object),
    read("reasoning_effort", Kind::Text),
    read("modalities", Kind::List),
    // What it would guess the answer to be, to be faster.
    idle("prediction", Kind::Object),
    idle("verbosity", Kind::Text),
];

/// What a request asks for.
struct Asked {
    chat: Chat,
    options: GenerateOptions,
    stream: Option<super::StreamOptions>,
    /// Whether calls follow a grammar, so that what is told of them is certain.
    enforced: bool,
}

/// `POST /v1/chat/completions`
pub(crate) async fn complete_chat(app: Caller, bytes: Bytes) -> Result<Response, Fault> {
    let (mut body, mut ignored) =
        Body::read::<GenerateOptions>(&bytes, &[FIELDS, OPENAI_IDLE], app.settings().fields)?;
    let name = app.name_of(body.text("model")?)?;
    let Asked { chat, options, stream, enforced } = asked(body, &mut ignored)?;
    let tokenizer = match options.logprobs {
        Some(_) => Some(app.with_model(&name, |model, _| model.tokenizer()).await?),
        None => None,
    };
    let id = ids::id("chatcmpl-");
    let response = match stream {
        Some(stream) => {
            let choices = options.n as usize;
            let answers = begin(&app, &name, vec![Ask::Chat(chat)], options).await?;
            let chunks = Chunks::new(id, name, choices, stream, tokenizer, enforced);
            told(answers, chunks, app.settings().keep_alive)
        }
        None => {
            let answered = complete(&app, &name, vec![Ask::Chat(chat)], options).await?;
            let choices = answered.iter().flat_map(completions).enumerate();
            let choices: Vec<Value> =
                choices.map(|(index, one)| choice(index, one, tokenizer.as_ref())).collect();
            let usage = Tokens::of(answered.iter().flat_map(completions).map(|one| one.usage));
            Json(json!({
                "id": id,
                "object": "chat.completion",
                "created": ids::now(),
                "model": name,
                "choices": choices,
                "usage": usage.json(),
            }))
            .into_response()
        }
    };
    Ok(ignored.told_in(response))
}

/// Reads the fields.
fn asked(mut body: Body, ignored: &mut Ignored) -> Result<Asked, Fault> {
    let messages = body.take("messages").ok_or_else(|| missing("messages", "a list of messages"))?;
    let tools = body.take("tools").filter(|tools| tools.as_array().is_none_or(|tools| !tools.is_empty()));
    let stream = stream_options(&mut body)?;
    list_of_stops(&mut body);
    max_tokens(&mut body, "max_completion_tokens")?;
    match (body.flag("logprobs")?, body.whole("top_logprobs")?) {
        (true, top) => body.set("logprobs", top.unwrap_or(0)),
        (false, None | Some(0)) => {}
        (false, Some(_)) => {
            let message = "field top_logprobs: expected logprobs true with it, found none";
            return Err(Fault::invalid(message).at("top_logprobs"));
        }
    }
    if let Some(format) = body.object("response_format")? {
        let schema = format.get("json_schema").and_then(|named| named.get("schema"));
        let schema = schema.or_else(|| format.get("schema"));
        constrain(
            &mut body,
            &format,
            schema,
            ["response_format.type", "response_format.json_schema.schema"],
        )?;
    }
    if let Some(modalities) = body.take("modalities")
        && modalities != json!(["text"])
    {
        return Err(Fault::field("modalities", "[\"text\"]", &modalities));
    }
    let choice = body.take("tool_choice");
    if let Some(choice) = choice.as_ref().map(tool_choice).transpose()? {
        choose(&mut body, choice, tools.is_some(), ignored);
    }
    let mut variables = body.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(effort) = body.text("reasoning_effort")? {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    let options: GenerateOptions = body.options()?;
    let enforced = enforces(&options, tools.as_ref());
    let chat = Chat::new(normalized(messages)?).tools(tools).variables(variables);
    Ok(Asked { chat, options, stream, enforced })
}

/// Takes the field `name`, which is `max_tokens` in other words.
pub(super) fn max_tokens(body: &mut Body, name: &str) -> Result<(), Fault> {
    let Some(most) = body.whole(name)? else { return Ok(()) };
    // Some clients send both.
    if let Some(other) = body.take("max_tokens").filter(|other| *other != most) {
        let message = format!("field max_tokens: expected {name}, {most}, or none, found {other}");
        return Err(Fault::invalid(message).at("max_tokens"));
    }
    body.set("max_tokens", most);
    Ok(())
}

/// Sets the option `tool_choice`. Clients send the choices that are none without tools, too.
pub(crate) fn choose(body: &mut Body, choice: String, has_tools: bool, ignored: &mut Ignored) {
    match has_tools || !matches!(choice.as_str(), "auto" | "none") {
        true => body.set("tool_choice", choice),
        false => ignored.add("tool_choice"),
    }
}

/// Whether calls follow a grammar.
pub(crate) fn enforces(options: &GenerateOptions, tools: Option<&Value>) -> bool {
    let strict = tools.and_then(Value::as_array).is_some_and(|tools| tools.iter().any(is_strict));
    match options.tool_choice.as_str() {
        "auto" => strict || !options.parallel_tool_calls,
        choice => choice != "none",
    }
}

fn is_strict(tool: &Value) -> bool {
    [tool.pointer("/function/strict"), tool.get("strict")].contains(&Some(&Value::Bool(true)))
}

/// Sets the constraint of a format with its schema; `paths` are those of its type and of its schema, for errors.
pub(crate) fn constrain(
    body: &mut Body,
    format: &Map<String, Value>,
    schema: Option<&Value>,
    paths: [&str; 2],
) -> Result<(), Fault> {
    match format.get("type").and_then(Value::as_str) {
        Some("text") => {}
        Some("json_object") => body.set("json_object", true),
        Some("json_schema") => {
            let schema = schema.ok_or_else(|| missing(paths[1], "a JSON Schema"))?;
            body.set("json_schema", schema.clone());
        }
        _ => {
            let found = format.get("type").unwrap_or(&Value::Null);
            return Err(Fault::field(paths[0], "text, json_object or json_schema", found));
        }
    }
    Ok(())
}

/// The core's word for a `tool_choice`.
fn tool_choice(choice: &Value) -> Result<String, Fault> {
    let function = match choice {
        Value::String(choice) => return Ok(choice.clone()),
        Value::Object(choice) if choice.get("type").is_some_and(|kind| kind == "function") => {
            choice.get("function").unwrap_or(&Value::Null).get("name").or_else(|| choice.get("name"))
        }
        _ => None,
    };
    let name = function.and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        let expected = "auto, none, required or {\"type\": \"function\", \"function\": {\"name\": NAME}}";
        Fault::field("tool_choice", expected, choice)
    })
}

/// A choice of the answer.
fn choice(index: usize, completion: &Completion, tokenizer: Option<&Tokenizer>) -> Value {
    let calls: Vec<Value> = completion
        .tool_calls
        .iter()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    let content = (!completion.text.is_empty() || calls.is_empty()).then_some(&completion.text);
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !completion.reasoning.is_empty() {
        // Clients read one or the other.
        message["reasoning"] = completion.reasoning.as_str().into();
        message["reasoning_content"] = completion.reasoning.as_str().into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let logprobs = completion.logprobs.as_ref().zip(tokenizer).map(|(logprobs, tokenizer)| {
        let content: Vec<Value> = logprobs.iter().map(|one| of_chat(tokenizer, one)).collect();
        json!({"content": content, "refusal": null})
    });
    json!({
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason(completion),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Fields;

    fn read_fields(value: &Value) -> Result<Asked, Fault> {
        let text = value.to_string();
        let (body, mut ignored) =
            Body::read::<GenerateOptions>(text.as_bytes(), &[FIELDS, OPENAI_IDLE], Fields::Known)?;
        asked(body, &mut ignored)
    }

    #[test]
    fn fields_become_options() {
        let asked = read_fields(&json!({
            "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 5, "stop": "x", "logprobs": true,
            "top_logprobs": 2, "temperature": 0, "seed": 1, "n": 2, "logit_bias": {"7": -1}, "top_k": 3,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "null"}}},
            "reasoning_effort": "low", "stream": true, "stream_options": {"include_usage": true},
        }));
        let Asked { chat, options, stream, enforced } = asked.expect("asked");
        assert_eq!((options.max_tokens, options.logprobs, options.n), (Some(5), Some(2), 2));
        assert_eq!((options.seed, options.top_k, options.temperature), (Some(1), Some(3), Some(0.0)));
        assert_eq!(options.stop.as_deref(), Some(&["x".to_owned()][..]));
        assert!(options.json_schema.is_some() && options.logit_bias.len() == 1 && !enforced);
        assert_eq!(chat.variables["reasoning_effort"], "low");
        assert!(stream.is_some_and(|stream| stream.usage && !stream.continuous));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (field, value, param) in [
            ("top_logprobs", json!(2), "top_logprobs"),
            ("response_format", json!({"type": "yaml"}), "response_format.type"),
            ("response_format", json!({"type": "json_schema"}), "response_format.json_schema.schema"),
            ("tool_choice", json!({"type": "any"}), "tool_choice"),
            ("modalities", json!(["audio"]), "modalities"),
            ("max_tokens", json!(3), "max_tokens"),
            ("stream_options", json!({"include_usage": true}), "stream_options"),
            ("temperature", json!(-1), "temperature"),
        ] {
            let mut body = json!({"messages": [{"role": "user", "content": "a"}], field: value});
            if field == "max_tokens" {
                body["max_completion_tokens"] = json!(4);
            }
            let fault = read_fields(&body).err().unwrap_or_else(|| panic!("{field} is refused"));
            assert_eq!(fault.param.as_deref(), Some(param), "{}", fault.message);
        }
        assert_eq!(read_fields(&json!({})).err().expect("refused").param.as_deref(), Some("messages"));
    }

    #[test]
    fn choices_of_tools_have_two_forms() {
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(tool_choice(&named).expect("a name"), "f");
        assert_eq!(tool_choice(&json!("required")).expect("a word"), "required");
    }
}
