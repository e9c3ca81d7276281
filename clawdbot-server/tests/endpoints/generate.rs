//! `POST /v1/generate`

use clawdbot_core::GenerateOptions;
use serde_json::json;

use crate::support::{app, events, json, model, post};

#[tokio::test]
async fn completions_are_the_cores() {
    let app = app();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0});
    let found = json(post(&app, "/v1/generate", &body).await, 200).await;
    let options = GenerateOptions::default().max_tokens(12_u32).temperature(0.0);
    let expected = model().generate("Once upon a time", &options).unwrap();
    assert_eq!(found["text"], expected.text.as_str());
    assert_eq!(found["token_ids"], json!(expected.token_ids));
    assert_eq!((&found["finish_reason"], &found["model"]), (&json!("length"), &json!("stories")));
    assert_eq!(found["usage"]["completion_tokens"], 12);

    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "seed": 7, "temperature": 1});
    let one = json(post(&app, "/v1/generate", &chat).await, 200).await;
    let other = json(post(&app, "/v1/generate", &chat).await, 200).await;
    assert_eq!(one["token_ids"], other["token_ids"]);
}

#[tokio::test]
async fn events_are_the_cores() {
    let app = app();
    let body = json!({"prompt": "Once", "max_tokens": 9, "temperature": 0, "stream": true});
    let events = events(post(&app, "/v1/generate", &body).await).await;
    let (last, tokens) = events.split_last().unwrap();
    let text: String = tokens
        .iter()
        .filter(|event| event["kind"] == "token")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(last["kind"], "done");
    assert_eq!(last["completion"]["text"], text);
    assert_eq!(last["completion"]["token_ids"].as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = app();
    for (body, kind, message) in [
        (json!({}), "InvalidArgument", "field prompt: expected a text"),
        (
            json!({"prompt": 1}),
            "InvalidArgument",
            "field prompt: expected a text or a list of token ids, found 1",
        ),
        (json!({"prompt": "a", "messages": []}), "InvalidArgument", "found both"),
        (json!({"prompt": "a", "tools": []}), "InvalidArgument", "field tools: expected messages"),
        (json!({"prompt": "a", "max_token": 1}), "UnknownOption", "max_tokens"),
        (json!({"prompt": "a", "top_p": 2}), "InvalidArgument", "top_p"),
        (json!({"prompt": "a", "max_tokens": 1_000_000}), "ContextOverflow", "context"),
        (json!({"prompt": "a", "stream": true, "num_beams": 2}), "InvalidArgument", "num_beams"),
    ] {
        let found = json(post(&app, "/v1/generate", &body).await, 400).await;
        assert_eq!(found["error"]["kind"], kind, "{found}");
        assert!(found["error"]["message"].as_str().unwrap().contains(message), "{found}");
    }
}
