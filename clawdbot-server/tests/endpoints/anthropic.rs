//! `POST /v1/messages` and `POST /v1/messages/count_tokens`

use axum::body::Body;
use axum::http::Request;
use clawdbot_core::ModelOptions;
use clawdbot_server::{App, KeyLimits, Settings, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{app, app_with, json, post, send, text};

const PATH: &str = "/v1/messages";

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "stories", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 12, "temperature": 0,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn look() -> Value {
    json!({"name": "look", "description": "Looks.", "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 8}},
        "required": ["place"],
        "additionalProperties": false,
    }})
}

/// Reads a stream as Anthropic's clients do, checks the order of its events, and returns the message.
async fn streamed(app: &App, body: &Value) -> Value {
    let text = text(post(app, PATH, body).await).await;
    let mut message = Value::Null;
    let (mut open, mut stopped, mut partial) = (None, false, String::new());
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        let (name, data) = event.split_once('\n').unwrap_or_else(|| panic!("{event}"));
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
        assert!(!stopped, "{event} after the end");
        let index = data["index"].as_u64().map(|index| index as usize);
        match data["type"].as_str().unwrap() {
            "message_start" => {
                assert!(message.is_null());
                message = data["message"].clone();
            }
            "ping" => {}
            "content_block_start" => {
                let blocks = message["content"].as_array_mut().unwrap();
                assert_eq!((open, index), (None, Some(blocks.len())));
                blocks.push(data["content_block"].clone());
                open = index;
            }
            "content_block_delta" => {
                assert_eq!(open, index);
                let block = &mut message["content"][index.unwrap()];
                let delta = &data["delta"];
                match delta["type"].as_str().unwrap() {
                    "text_delta" => {
                        block["text"] = (block["text"].as_str().unwrap().to_owned()
                            + delta["text"].as_str().unwrap())
                        .into();
                    }
                    "input_json_delta" => partial.push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                assert_eq!(open.take(), index);
                if !partial.is_empty() {
                    message["content"][index.unwrap()]["input"] =
                        serde_json::from_str(&std::mem::take(&mut partial)).unwrap();
                }
            }
            "message_delta" => {
                assert_eq!(open, None);
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => stopped = true,
            other => panic!("{other}"),
        }
    }
    assert!(stopped);
    message
}

/// Without what differs from request to request.
fn same(mut message: Value) -> Value {
    for key in ["id", "usage"] {
        message.as_object_mut().unwrap().remove(key);
    }
    message
}

#[tokio::test]
async fn streams_have_the_same_answer() {
    let app = app();
    let asked = |stream: bool| body(json!({"ignore_eos": true, "stream": stream}));
    let whole = json(post(&app, PATH, &asked(false)).await, 200).await;
    assert_eq!(
        (&whole["type"], &whole["role"], &whole["stop_reason"]),
        (&json!("message"), &json!("assistant"), &json!("max_tokens"))
    );
    assert_eq!(whole["usage"]["output_tokens"], 12);
    assert!(!whole["content"][0]["text"].as_str().unwrap().is_empty());
    assert_eq!(same(streamed(&app, &asked(true)).await), same(whole));
}

#[tokio::test]
async fn calls_are_enforced_and_streamed() {
    let app = app();
    let asked = |choice: Value, stream: bool| {
        body(json!({"tools": [look()], "tool_choice": choice, "max_tokens": 200, "stream": stream}))
    };
    for choice in
        [json!({"type": "tool", "name": "look"}), json!({"type": "any", "disable_parallel_tool_use": true})]
    {
        let whole = json(post(&app, PATH, &asked(choice.clone(), false)).await, 200).await;
        assert_eq!(whole["stop_reason"], "tool_use");
        let call = &whole["content"][0];
        assert!(call["name"] == "look" && call["input"]["place"].is_string(), "{call}");
        let stream = streamed(&app, &asked(choice, true)).await;
        assert_eq!(
            (&stream["content"][0]["input"], &stream["stop_reason"]),
            (&call["input"], &json!("tool_use"))
        );
        let next = body(json!({"tools": [look()], "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": whole["content"]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "rain"}]},
        ]}));
        json(post(&app, PATH, &next).await, 200).await;
    }
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_computed() {
    let app = app();
    let asked = json!({"system": "Be brief.", "tools": [look()]});
    let answer = json(post(&app, PATH, &body(asked.clone())).await, 200).await;
    let usage = &answer["usage"];
    let computed =
        usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    let mut count = body(asked);
    count.as_object_mut().unwrap().remove("max_tokens");
    let counted = json(post(&app, "/v1/messages/count_tokens?beta=true", &count).await, 200).await;
    assert_eq!(counted, json!({"input_tokens": computed}));
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    let app = app();
    for (more, status, kind) in [
        (json!({"model": "none"}), 404, "not_found_error"),
        (json!({"max_tokens": null}), 400, "invalid_request_error"),
        (json!({"messages": []}), 400, "invalid_request_error"),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            400,
            "invalid_request_error",
        ),
        (json!({"tool_choice": {"type": "some"}}), 400, "invalid_request_error"),
        (json!({"thinking": {"type": "deep"}}), 400, "invalid_request_error"),
        (json!({"temprature": 1}), 400, "invalid_request_error"),
        (json!({"stop": ["a"], "stop_sequences": ["b"]}), 400, "invalid_request_error"),
    ] {
        let response = post(&app, PATH, &body(more.clone())).await;
        assert!(response.headers().contains_key("request-id"));
        let found = json(response, status).await;
        assert_eq!(
            (&found["type"], &found["error"]["type"]),
            (&json!("error"), &json!(kind)),
            "{more}: {found}"
        );
        assert!(found["error"]["message"].is_string());
    }
    let mut settings = Settings::default();
    settings.keys = vec![KeyLimits::of_key("a", "secret")];
    let keyed = app_with(ModelOptions::default(), settings);
    let found = json(post(&keyed, PATH, &body(json!({}))).await, 401).await;
    assert_eq!(found["error"]["type"], "authentication_error");
}

#[tokio::test]
async fn what_changes_nothing_is_named() {
    let asked = body(json!({
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    }));
    let response = post(&app(), PATH, &asked).await;
    let ignored = response.headers()["x-clawdbot-ignored"].to_str().unwrap().to_owned();
    for name in ["metadata", "thinking.budget_tokens", "system[0].cache_control"] {
        assert!(ignored.contains(name), "{ignored}");
    }
    json(response, 200).await;
}

#[tokio::test]
async fn no_blocks_are_no_system_message() {
    let (app, text) = (app(), |answer: Value| answer["content"][0]["text"].clone());
    let with = json(post(&app, PATH, &body(json!({"system": []}))).await, 200).await;
    let without = json(post(&app, PATH, &body(json!({}))).await, 200).await;
    assert_eq!(text(with), text(without));
}

#[tokio::test]
async fn models_are_listed_in_their_form() {
    let request = Request::get("/v1/models").header("anthropic-version", "2023-06-01").body(Body::empty());
    let list = json(router(app()).oneshot(request.unwrap()).await.unwrap(), 200).await;
    assert_eq!(
        (&list["data"][0]["type"], &list["last_id"], &list["has_more"]),
        (&json!("model"), &json!("stories"), &json!(false))
    );
    let plain = json(send(&app(), "GET", "/v1/models", "").await, 200).await;
    assert_eq!(plain["object"], "list");
}
