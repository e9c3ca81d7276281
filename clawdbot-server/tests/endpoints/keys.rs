//! API keys: who may ask, for what, and how much; pages of other origins; the access log.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, Response};
use clawdbot_core::ModelOptions;
use clawdbot_server::{App, KeyLimits, Settings, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{app_with, json, send, text};

fn keyed(change: impl FnOnce(&mut KeyLimits)) -> App {
    let mut settings = Settings::default();
    let mut key = KeyLimits::of_key("team", "secret-key-of-team");
    change(&mut key);
    settings.keys = vec![key, KeyLimits::of_key("other", "secret-key-of-other")];
    app_with(ModelOptions::default(), settings)
}

async fn with_key(app: &App, key: &str, path: &str, body: &Value) -> Response<Body> {
    let request = Request::post(path).header("authorization", format!("Bearer {key}"));
    router(app.clone()).oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
}

async fn of_team(app: &App, body: &Value) -> Response<Body> {
    with_key(app, "secret-key-of-team", "/v1/generate", body).await
}

fn short() -> Value {
    json!({"prompt": "Once", "max_tokens": 4, "temperature": 0})
}

#[tokio::test]
async fn every_endpoint_but_health_and_numbers_needs_a_key() {
    let app = keyed(|_| {});
    for path in [
        "/v1/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/score",
        "/tokenize",
        "/detokenize",
    ] {
        let response = send(&app, "POST", path, "{}").await;
        assert_eq!((path, response.status().as_u16()), (path, 401));
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    for path in ["/v1/models", "/v1/models/stories"] {
        assert_eq!(send(&app, "GET", path, "").await.status(), 401);
    }
    for path in ["/health/live", "/metrics", "/version"] {
        assert_eq!(send(&app, "GET", path, "").await.status(), 200, "{path}");
    }
    let wrong = with_key(&app, "secret-key-of-nobody", "/v1/completions", &short()).await;
    let wrong = json(wrong, 401).await;
    assert_eq!(
        (&wrong["error"]["code"], &wrong["error"]["type"]),
        (&json!("invalid_api_key"), &json!("authentication_error"))
    );
    json(of_team(&app, &short()).await, 200).await;
}

#[tokio::test]
async fn a_body_is_not_read_without_a_key() {
    let app = keyed(|_| {});
    let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    assert_eq!(send(&app, "POST", "/v1/generate", Body::from_stream(never)).await.status(), 401);
}

#[tokio::test]
async fn a_key_may_have_some_models_only() {
    let app = keyed(|key| key.models = Some(vec!["another".into()]));
    let refused = json(of_team(&app, &json!({"prompt": "a", "model": "stories"})).await, 404).await;
    assert!(!refused["error"]["message"].as_str().unwrap().contains("one of stories"), "{refused}");
    let list = Request::get("/v1/models").header("x-api-key", "secret-key-of-team").body(Body::empty());
    let list = json(router(app.clone()).oneshot(list.unwrap()).await.unwrap(), 200).await;
    assert_eq!(list["data"], json!([]));
    json(with_key(&app, "secret-key-of-other", "/v1/generate", &short()).await, 200).await;
}

#[tokio::test]
async fn limits_refuse_with_a_time() {
    let app = keyed(|key| key.requests_per_minute = Some(2));
    for _ in 0..2 {
        json(of_team(&app, &short()).await, 200).await;
    }
    let refused = of_team(&app, &short()).await;
    assert!(refused.headers()["retry-after-ms"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let refused = json(refused, 429).await;
    assert_eq!(refused["error"]["kind"], "Overloaded");
    json(with_key(&app, "secret-key-of-other", "/v1/generate", &short()).await, 200).await;
}

#[tokio::test]
async fn tokens_count_with_streams_too() {
    for stream in [false, true] {
        let app = keyed(|key| key.tokens_per_minute = Some(5));
        let mut body = short();
        body["stream"] = stream.into();
        let first = of_team(&app, &body).await;
        assert_eq!(first.status(), 200);
        text(first).await;
        json(of_team(&app, &short()).await, 429).await;
    }
}

#[tokio::test]
async fn a_stream_counts_until_its_end() {
    let app = keyed(|key| key.concurrent = Some(1));
    let stream = of_team(&app, &json!({"prompt": "Once", "max_tokens": 8, "stream": true})).await;
    json(of_team(&app, &short()).await, 429).await;
    text(stream).await;
    json(of_team(&app, &short()).await, 200).await;
    // A client that goes ends its request, too.
    drop(of_team(&app, &json!({"prompt": "Once", "max_tokens": 200, "stream": true})).await);
    json(of_team(&app, &short()).await, 200).await;
}

#[tokio::test]
async fn a_key_bounds_the_context() {
    let app = keyed(|key| key.max_context = Some(10));
    let found =
        json(of_team(&app, &json!({"prompt": "Once", "temperature": 0, "ignore_eos": true})).await, 200)
            .await;
    let usage = &found["usage"];
    assert_eq!(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap(), 10);
    for body in
        [json!({"prompt": "Once", "max_tokens": 10}), json!({"prompt": "Once upon a time ".repeat(20)})]
    {
        let refused = json(of_team(&app, &body).await, 400).await;
        assert_eq!(refused["error"]["kind"], "ContextOverflow");
    }
    let refused = json(of_team(&app, &json!({"prompt": "a", "group": "mine"})).await, 400).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("field group"), "{refused}");
}

#[tokio::test]
async fn keys_change_while_the_server_runs() {
    let app = keyed(|key| key.requests_per_minute = Some(1));
    json(of_team(&app, &short()).await, 200).await;
    let mut settings = Settings::clone(&app.settings());
    settings.keys.pop();
    app.set_settings(settings.clone()).unwrap();
    // What was used stays used.
    json(of_team(&app, &short()).await, 429).await;
    assert_eq!(with_key(&app, "secret-key-of-other", "/v1/generate", &short()).await.status(), 401);
    settings.default_model = Some("none".into());
    assert!(app.set_settings(settings).is_err());
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_by_name_only() {
    let ask = async |settings: Settings| {
        let app = app_with(ModelOptions::default(), settings);
        let request = Request::options("/v1/chat/completions").header("origin", "https://example.org");
        let request = request.header("access-control-request-method", "POST");
        let response = router(app).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(ask(Settings::default()).await, None);
    let mut settings = Settings::default();
    settings.cors_origins = vec!["https://example.org".into()];
    assert_eq!(ask(settings.clone()).await.as_deref(), Some("https://example.org"));
    settings.cors_origins = vec!["https://example.com".into()];
    assert_eq!(ask(settings).await, None);
}

#[tokio::test]
async fn the_log_has_what_was_asked_but_no_prompts_and_keys() {
    let (app, records) = (keyed(|_| {}), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&records);
    app.on_access(move |record| log.lock().unwrap().push(record.to_json()));
    text(of_team(&app, &short()).await).await;
    text(of_team(&app, &json!({"prompt": "Once", "max_tokens": 4, "stream": true})).await).await;
    drop(of_team(&app, &json!({"prompt": "Once", "max_tokens": 200, "stream": true})).await);
    text(send(&app, "GET", "/nowhere?secret=1", "").await).await;
    text(send(&app, "POST", "/v1/generate", "{}").await).await;
    let records = records.lock().unwrap();
    let field = |name: &str| records.iter().map(|record| record[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("status"), [200, 200, 200, 404, 401]);
    assert_eq!(field("complete"), [true, true, false, true, true]);
    assert_eq!(field("key"), [json!("team"), json!("team"), json!("team"), Value::Null, Value::Null]);
    assert_eq!(records[0]["model"], "stories");
    assert!(
        records[0]["tokens"].as_u64() > Some(4) && records[1]["tokens"] == records[0]["tokens"],
        "{records:?}"
    );
    assert!(records[0]["id"].as_str().unwrap().starts_with("req-"), "{records:?}");
    let all = Value::from(records.clone()).to_string();
    assert!(!all.contains("Once") && !all.contains("secret"), "{all}");
}
