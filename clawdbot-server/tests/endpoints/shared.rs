//! What endpoints have in common: ids, paths, health, metrics, limits, cancelling.

use std::time::Duration;

use axum::http::Request;
use clawdbot_core::ModelOptions;
use clawdbot_server::{MetricsDialect, Settings, router};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{app, app_with, json, post, send, text};

#[tokio::test]
async fn models_are_listed() {
    let app = app();
    app.warm_up().await.unwrap();
    let list = json(send(&app, "GET", "/v1/models", "").await, 200).await;
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("stories")));
    let one = json(send(&app, "GET", "/v1/models/stories", "").await, 200).await;
    assert_eq!((&one["object"], &one["loaded"]), (&json!("model"), &json!(true)));
    let none = json(send(&app, "GET", "/v1/models/a/b", "").await, 404).await;
    assert_eq!(none["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn health_says_what_is_missing() {
    let app = app();
    json(send(&app, "GET", "/health/live", "").await, 200).await;
    for path in ["/health", "/health/ready", "/health/startup"] {
        let found = json(send(&app, "GET", path, "").await, 503).await;
        assert_eq!(found["status"], "starting");
    }
    app.warm_up().await.unwrap();
    for path in ["/health", "/health/ready", "/health/startup"] {
        json(send(&app, "GET", path, "").await, 200).await;
    }
    app.drain();
    let draining = send(&app, "GET", "/health/ready", "").await;
    assert_eq!(draining.headers()["retry-after"], "1");
    assert_eq!(json(draining, 503).await["status"], "draining");
    json(post(&app, "/v1/generate", &json!({"prompt": "a"})).await, 503).await;
    json(send(&app, "GET", "/health/live", "").await, 200).await;
}

#[tokio::test]
async fn metrics_count() {
    let app = app();
    json(post(&app, "/v1/generate", &json!({"prompt": "a", "max_tokens": 3, "ignore_eos": true})).await, 200)
        .await;
    let metrics = text(send(&app, "GET", "/metrics", "").await).await;
    for line in
        ["# TYPE clawdbot_time_to_first_token_seconds histogram", "# TYPE clawdbot_requests counter", "# EOF"]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let length = metrics.lines().find(|line| {
        line.starts_with("clawdbot_requests_total{model=\"stories\"") && line.contains("outcome=\"length\"")
    });
    assert!(length.is_some(), "{metrics}");
    let infinite = metrics
        .lines()
        .any(|line| line.starts_with("clawdbot_request_seconds_bucket{") && line.contains("le=\"+Inf\""));
    assert!(infinite, "{metrics}");
    // Nothing of what was said.
    assert!(!metrics.contains("prompt=\""));
}

#[tokio::test]
async fn paths_and_methods_are_checked() {
    let app = app();
    let found = json(send(&app, "GET", "/v2", "").await, 404).await;
    assert!(found["error"]["message"].is_string());
    json(send(&app, "GET", "/v1/generate", "").await, 405).await;
}

#[tokio::test]
async fn requests_have_ids() {
    let app = app();
    let given =
        Request::get("/health/live").header("x-request-id", "mine").body(axum::body::Body::empty()).unwrap();
    let response = router(app.clone()).oneshot(given).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine");
    let own = send(&app, "GET", "/nothing", "").await;
    assert!(own.headers()["x-request-id"].to_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut settings = Settings::default();
    settings.max_body = 100;
    settings.body_timeout = Duration::from_millis(50);
    let app = app_with(ModelOptions::default(), settings);
    let long = json!({"prompt": "a".repeat(200)});
    let found = json(post(&app, "/v1/generate", &long).await, 413).await;
    assert!(found["error"]["message"].as_str().unwrap().contains("at most 100 bytes"), "{found}");
    let never =
        axum::body::Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    json(send(&app, "POST", "/v1/generate", never).await, 408).await;
}

#[tokio::test]
async fn clients_that_go_away_cancel() {
    let app = app();
    let body = json!({"prompt": "Once", "max_tokens": 200, "ignore_eos": true, "stream": true});
    let response = post(&app, "/v1/generate", &body).await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let cancelled = || {
        let models = app.pool().runtime().metrics().models;
        models.iter().map(|model| model.requests.cancelled).sum::<u64>()
    };
    tokio::time::timeout(Duration::from_secs(20), async {
        while cancelled() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the request is cancelled");
}

#[tokio::test]
async fn what_is_too_much_is_refused_with_a_hint() {
    let app = app_with(ModelOptions::default().max_queue(1_u32).max_batch(1_u32), Settings::default());
    app.warm_up().await.unwrap();
    let body = json!({"prompt": "Once", "max_tokens": 100, "ignore_eos": true});
    let body = chat(&body);
    let requests = (0..12).map(|_| post(&app, "/v1/chat/completions", &body));
    let responses = futures_util::future::join_all(requests).await;
    let refused: Vec<_> = responses.iter().filter(|response| response.status() == 429).collect();
    let served = responses.iter().filter(|response| response.status() == 200).count();
    assert_eq!(refused.len() + served, 12);
    assert!(!refused.is_empty() && served > 0, "{served} were served");
    for response in refused {
        assert_eq!(response.headers()["x-should-retry"], "true");
        assert!(
            response.headers().contains_key("retry-after-ms")
                && response.headers().contains_key("retry-after")
        );
    }
}

fn chat(body: &Value) -> Value {
    let mut body = body.clone();
    let object = body.as_object_mut().unwrap();
    let prompt = object.remove("prompt").unwrap();
    object.insert("messages".into(), json!([{"role": "user", "content": prompt}]));
    body
}

#[tokio::test]
async fn metrics_have_vllms_names_if_they_are_asked_for() {
    for dialect in [None, Some(MetricsDialect::Vllm)] {
        let mut settings = Settings::default();
        settings.metrics_dialect = dialect;
        let app = app_with(ModelOptions::default(), settings);
        json(
            post(&app, "/v1/completions", &json!({"prompt": "Once", "max_tokens": 3, "ignore_eos": true}))
                .await,
            200,
        )
        .await;
        let found = text(send(&app, "GET", "/metrics", "").await).await;
        let line = |name: &str| {
            let of = found.lines().filter(|line| line.contains("\"stories\""));
            of.filter(|line| line.starts_with(name))
                .map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
                .collect::<Vec<_>>()
        };
        assert!(!line("clawdbot_generated_tokens_total{model=").is_empty(), "{found}");
        let theirs = line("vllm:generation_tokens_total{model_name=");
        assert_eq!(theirs.is_empty(), dialect.is_none(), "{found}");
        assert_eq!(
            theirs,
            if dialect.is_some() { line("clawdbot_generated_tokens_total{") } else { Vec::new() }
        );
        assert_eq!(line("vllm:time_to_first_token_seconds_bucket{").is_empty(), dialect.is_none());
        assert_eq!(found.contains("finished_reason=\"length\""), dialect.is_some());
    }
}
