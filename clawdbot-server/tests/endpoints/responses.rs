//! `POST /v1/responses`, and those that are stored.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Request;
use clawdbot_core::ModelOptions;
use clawdbot_server::{App, KeyLimits, Settings, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{app, app_with, json, post, send, text};

const PATH: &str = "/v1/responses";

fn body(more: Value) -> Value {
    let mut body =
        json!({"model": "stories", "input": "Tell me a story.", "max_output_tokens": 12, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn look() -> Value {
    json!({"type": "function", "name": "look", "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 8}},
        "required": ["place"],
        "additionalProperties": false,
    }})
}

/// The events of a stream.
async fn events(app: &App, body: &Value) -> Vec<Value> {
    let text = text(post(app, PATH, body).await).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events =
        text.split("\n\n").filter(|event| !event.is_empty() && *event != "data: [DONE]").map(|event| {
            let (name, data) = event.split_once('\n').unwrap_or_else(|| panic!("{event}"));
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
            data
        });
    events.collect()
}

/// Checks the order of events as strict clients do, and returns the last response.
fn checked(events: &[Value]) -> Value {
    let mut items: Vec<(String, String)> = Vec::new();
    let mut texts: HashMap<u64, String> = HashMap::new();
    let mut done = 0;
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        let kind = event["type"].as_str().unwrap();
        let at = event["output_index"].as_u64();
        match kind {
            "response.created" => {
                assert_eq!((number, &event["response"]["status"]), (0, &json!("in_progress")));
            }
            "response.in_progress" => assert_eq!(number, 1),
            "response.output_item.added" => {
                assert_eq!(at, Some(items.len() as u64));
                let item = &event["item"];
                assert_eq!(item["status"], "in_progress");
                items.push((
                    item["id"].as_str().unwrap().to_owned(),
                    item["type"].as_str().unwrap().to_owned(),
                ));
                texts.insert(at.unwrap(), String::new());
            }
            "response.output_item.done" => {
                done += 1;
                let item = &event["item"];
                assert_eq!(item["id"], items[at.unwrap() as usize].0);
                let text = item.get("arguments").unwrap_or(&item["content"][0]["text"]);
                assert_eq!(text, &texts[&at.unwrap()]);
            }
            "response.completed" | "response.incomplete" => assert_eq!(number + 1, events.len()),
            _ => {
                let (id, of) = &items[at.unwrap() as usize];
                assert_eq!(event["item_id"], id.as_str(), "{event}");
                let expected = match of.as_str() {
                    "message" => ["response.content_part.", "response.output_text."],
                    "function_call" => {
                        ["response.function_call_arguments.", "response.function_call_arguments."]
                    }
                    other => panic!("{other}"),
                };
                assert!(expected.iter().any(|prefix| kind.starts_with(prefix)), "{kind} of {of}");
                if let Some(delta) = event["delta"].as_str() {
                    texts.get_mut(&at.unwrap()).unwrap().push_str(delta);
                }
            }
        }
    }
    assert_eq!(done, items.len());
    let last = events.last().unwrap()["response"].clone();
    let ids: Vec<&str> =
        last["output"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, items.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    last
}

#[tokio::test]
async fn streams_have_the_same_answer() {
    let app = app();
    let whole = json(post(&app, PATH, &body(json!({"ignore_eos": true}))).await, 200).await;
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("incomplete")));
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(whole["usage"]["output_tokens"], 12);
    let events = events(&app, &body(json!({"stream": true, "ignore_eos": true}))).await;
    let last = checked(&events);
    assert_eq!(last["output"][0]["content"][0]["text"], whole["output"][0]["content"][0]["text"]);
    assert!(events.iter().filter(|event| event["type"] == "response.output_text.delta").count() > 3);
}

#[tokio::test]
async fn calls_are_enforced_and_streamed() {
    let app = app();
    let asked = |stream: bool| {
        body(
            json!({"tools": [look()], "tool_choice": "required", "max_output_tokens": 200, "stream": stream}),
        )
    };
    let whole = json(post(&app, PATH, &asked(false)).await, 200).await;
    let call = &whole["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &whole["status"]),
        (&json!("function_call"), &json!("look"), &json!("completed"))
    );
    assert!(call["call_id"].is_string() && call["call_id"] != call["id"]);
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["place"].is_string());
    let last = checked(&events(&app, &asked(true)).await);
    assert_eq!(last["output"][0]["arguments"], call["arguments"]);
    // The turn goes on with what was kept.
    let next = body(json!({
        "previous_response_id": whole["id"], "tools": [look()], "tool_choice": "none",
        "input": [{"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}],
    }));
    let next = json(post(&app, PATH, &next).await, 200).await;
    assert_eq!(
        (&next["previous_response_id"], &next["output"][0]["type"]),
        (&whole["id"], &json!("message"))
    );
}

#[tokio::test]
async fn a_chain_is_the_conversation() {
    let app = app();
    let first = json(post(&app, PATH, &body(json!({}))).await, 200).await;
    let said = &first["output"][0]["content"][0]["text"];
    let next = body(json!({"previous_response_id": first["id"], "input": "Go on."}));
    let next = json(post(&app, PATH, &next).await, 200).await;
    let spelled = body(json!({"input": [
        {"role": "user", "content": "Tell me a story."},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "Go on."},
    ]}));
    let spelled = json(post(&app, PATH, &spelled).await, 200).await;
    assert_eq!(next["output"][0]["content"], spelled["output"][0]["content"]);
    assert_eq!(next["usage"]["input_tokens"], spelled["usage"]["input_tokens"]);
    // Shared pages are not computed again.
    let of = format!("{PATH}/{}", first["id"].as_str().unwrap());
    let stored = json(send(&app, "GET", &of, "").await, 200).await;
    assert_eq!(stored, first);
    let items = json(send(&app, "GET", &format!("{of}/input_items"), "").await, 200).await;
    assert_eq!(items["data"][0]["content"][0]["text"], "Tell me a story.");
    json(send(&app, "DELETE", &of, "").await, 200).await;
    json(send(&app, "GET", &of, "").await, 404).await;
    let gone = body(json!({"previous_response_id": first["id"]}));
    let gone = json(post(&app, PATH, &gone).await, 400).await;
    assert_eq!(gone["error"]["code"], "previous_response_not_found");
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_its_owners() {
    let mut settings = Settings::default();
    settings.max_stored_responses = 1;
    settings.keys = ["a", "b"].map(|name| KeyLimits::of_key(name, &format!("secret-{name}"))).into();
    let app = app_with(ModelOptions::default(), settings);
    let ask = async |key: &str, method: &str, path: &str, body: &Value| {
        let request =
            Request::builder().method(method).uri(path).header("x-api-key", format!("secret-{key}"));
        router(app.clone()).oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
    };
    let first = json(ask("a", "POST", PATH, &body(json!({}))).await, 200).await;
    let of = format!("{PATH}/{}", first["id"].as_str().unwrap());
    json(ask("a", "GET", &of, &json!({})).await, 200).await;
    json(ask("b", "GET", &of, &json!({})).await, 404).await;
    json(ask("b", "DELETE", &of, &json!({})).await, 404).await;
    json(ask("b", "POST", PATH, &body(json!({"previous_response_id": first["id"]}))).await, 400).await;
    json(ask("b", "POST", PATH, &body(json!({"store": false}))).await, 200).await;
    json(ask("a", "GET", &of, &json!({})).await, 200).await;
    json(ask("b", "POST", PATH, &body(json!({}))).await, 200).await;
    json(ask("a", "GET", &of, &json!({})).await, 404).await;
}

#[tokio::test]
async fn formats_are_enforced() {
    let app = app();
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let asked = json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": true}}, "max_output_tokens": 30});
    let found = json(post(&app, PATH, &body(asked)).await, 200).await;
    let content: Value =
        serde_json::from_str(found["output"][0]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(content["a"].is_boolean() && found["status"] == "completed", "{found}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = app();
    for (more, param) in [
        (json!({"background": true}), "background"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"text": {"format": {"type": "yaml"}}}), "text.format.type"),
        (json!({"include": ["everything"]}), "include"),
        (json!({"n": 2}), "n"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"input": []}), "input"),
        (json!({"reasoning": {"effort": 1}}), "reasoning.effort"),
    ] {
        let found = json(post(&app, PATH, &body(more)).await, 400).await;
        assert_eq!(found["error"]["param"], param, "{found}");
    }
    let harmless =
        post(&app, PATH, &body(json!({"user": "u", "reasoning": {"summary": "auto"}, "max_tool_calls": 3})))
            .await;
    let ignored = harmless.headers()["x-clawdbot-ignored"].to_str().unwrap().to_owned();
    for name in ["user", "max_tool_calls", "reasoning.summary"] {
        assert!(ignored.contains(name), "{ignored}");
    }
}
