//! `POST /v1/chat/completions`

use serde_json::{Value, json};

use crate::support::{app, events, json, post};

const PATH: &str = "/v1/chat/completions";

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look", "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["place", "days"],
        "additionalProperties": false,
    }}}])
}

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "stories", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 10, "temperature": 0,
        "ignore_eos": true,
    });
    let object = body.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn streams_have_the_same_answer() {
    let app = app();
    let whole = json(post(&app, PATH, &body(json!({}))).await, 200).await;
    let message = &whole["choices"][0]["message"];
    assert_eq!((&whole["object"], &message["role"]), (&json!("chat.completion"), &json!("assistant")));
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 10);
    let total = whole["usage"]["prompt_tokens"].as_u64().unwrap() + 10;
    assert_eq!(whole["usage"]["total_tokens"], total);

    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = events(post(&app, PATH, &body(asked)).await).await;
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(message["content"], text);
    let (usage, before) = chunks.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(total)));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
}

#[tokio::test]
async fn several_choices_have_their_seeds() {
    let app = app();
    let sampled = |more: Value| {
        let mut asked = json!({"temperature": 1, "n": 3, "seed": 5});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body(asked)
    };
    let whole = json(post(&app, PATH, &sampled(json!({}))).await, 200).await;
    let texts: Vec<&str> =
        (0..3).map(|i| whole["choices"][i]["message"]["content"].as_str().unwrap()).collect();
    let chunks = events(post(&app, PATH, &sampled(json!({"stream": true}))).await).await;
    for (index, expected) in texts.iter().enumerate() {
        let of = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let text: String = of
            .filter(|choice| choice["index"] == index)
            .filter_map(|c| c["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, *expected);
    }
    let alone = json(post(&app, PATH, &body(json!({"temperature": 1, "seed": 6}))).await, 200).await;
    assert_eq!(alone["choices"][0]["message"]["content"], texts[1]);
}

#[tokio::test]
async fn calls_are_enforced_and_streamed() {
    let app = app();
    let asked = |stream: bool| {
        body(json!({
            "tools": tools(), "tool_choice": {"type": "function", "function": {"name": "look"}}, "max_tokens": 200, "ignore_eos": false,
            "stream": stream,
        }))
    };
    let whole = json(post(&app, PATH, &asked(false)).await, 200).await;
    let choice = &whole["choices"][0];
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&choice["finish_reason"], &call["type"]), (&json!("tool_calls"), &json!("function")));
    assert_eq!(choice["message"]["content"], Value::Null);
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()) && arguments["place"].is_string());

    let chunks = events(post(&app, PATH, &asked(true)).await).await;
    let parts: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0])
        .filter(|p| !p.is_null())
        .collect();
    assert_eq!((&parts[0]["id"], &parts[0]["function"]["name"]), (&call["id"], &json!("look")));
    assert!(parts[1..].iter().all(|part| part.get("id").is_none()), "{parts:?}");
    let joined: String = parts.iter().map(|part| part["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(call["function"]["arguments"], joined);
    assert!(parts.len() > 2, "{parts:?}");

    // The turn goes on with what clients send back.
    let next = body(json!({"tools": tools(), "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "rain"}]},
    ]}));
    json(post(&app, PATH, &next).await, 200).await;
}

#[tokio::test]
async fn json_follows_its_schema() {
    let app = app();
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let asked = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, "max_tokens": 30});
    let found = json(post(&app, PATH, &body(asked)).await, 200).await;
    let content: Value =
        serde_json::from_str(found["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(content["a"].is_boolean(), "{content}");

    let unsupported = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", "contains": {"type": "null"}}}}});
    let found = json(post(&app, PATH, &body(unsupported)).await, 400).await;
    assert_eq!(found["error"]["code"], "invalid_json_schema");
    assert!(found["error"]["message"].as_str().unwrap().contains("contains"), "{found}");
}

#[tokio::test]
async fn logprobs_have_tokens_and_bytes() {
    let app = app();
    let asked =
        |stream: bool| body(json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 5, "stream": stream}));
    let whole = json(post(&app, PATH, &asked(false)).await, 200).await;
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 5);
    for entry in content {
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
        // Greedy: the most likely one.
        assert_eq!(entry["top_logprobs"][0]["token"], entry["token"]);
        let bytes: Vec<u8> = serde_json::from_value(entry["bytes"].clone()).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), entry["token"].as_str().unwrap());
    }
    let chunks = events(post(&app, PATH, &asked(true)).await).await;
    let streamed: Vec<Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(&streamed, content);
}

#[tokio::test]
async fn errors_have_openais_shape() {
    let app = app();
    for (more, status, param, code) in [
        (json!({"model": "gpt-4"}), 404, json!("model"), json!("model_not_found")),
        (json!({"temperature": 3, "top_logprobs": 1}), 400, json!("top_logprobs"), Value::Null),
        (json!({"functions": []}), 400, json!("functions"), json!("unknown_parameter")),
        (json!({"max_tokens": 1_000_000}), 400, Value::Null, json!("context_length_exceeded")),
        (json!({"messages": []}), 400, json!("messages"), Value::Null),
    ] {
        let found = json(post(&app, PATH, &body(more)).await, status).await;
        let error = &found["error"];
        assert_eq!((&error["code"], error["message"].is_string()), (&code, true), "{found}");
        if !param.is_null() {
            assert_eq!(error["param"], param, "{found}");
        }
        assert_eq!(error["type"], "invalid_request_error", "{found}");
    }
    let idle = post(&app, PATH, &body(json!({"user": "u", "store": true}))).await;
    assert_eq!(idle.headers()["x-clawdbot-ignored"], "user, store");
}
