//! Clients that misbehave: nothing is lost, and nothing is left over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawdbot_core::ModelMetrics;
use clawdbot_server::{App, KeyLimits, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::connections::started_at;
use crate::support::app_alone;

/// How many clients go: enough to see what is left over. `CLAWDBOT_FAULTS` says how many, for a longer run by hand.
fn clients() -> usize {
    std::env::var("CLAWDBOT_FAULTS").ok().and_then(|count| count.parse().ok()).unwrap_or(120)
}

fn of(app: &App) -> ModelMetrics {
    app.pool()
        .runtime()
        .metrics()
        .models
        .iter()
        .find(|model| model.pool_name.as_deref() == Some("stories"))
        .unwrap()
        .clone()
}

fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nx-api-key: secret-of-a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request of each kind of stream.
fn streams() -> Vec<String> {
    let messages = json!([{"role": "user", "content": "Tell me a story."}]);
    let with = |path: &str, mut body: Value| {
        for (name, value) in [("stream", json!(true)), ("ignore_eos", json!(true)), ("temperature", json!(0))]
        {
            body[name] = value;
        }
        request(path, &body)
    };
    vec![
        with("/v1/generate", json!({"prompt": "Once", "max_tokens": 300})),
        with("/v1/completions", json!({"prompt": ["Once", "The sea"], "max_tokens": 300, "n": 2})),
        with("/v1/chat/completions", json!({"messages": messages, "max_tokens": 300, "n": 2})),
        with("/v1/responses", json!({"input": "Tell me a story.", "max_output_tokens": 300})),
        with("/v1/messages", json!({"messages": messages, "max_tokens": 300})),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_killed_leave_nothing() {
    let mut settings = Settings::default();
    let mut key = KeyLimits::of_key("a", "secret-of-a");
    key.concurrent = Some(64);
    settings.keys = vec![key];
    let app = app_alone(settings);
    app.warm_up().await.unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&told);
    app.on_access(move |_| {
        counting.fetch_add(1, Ordering::Relaxed);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop, server) = started_at(app.clone(), listener.into());
    let whole =
        request("/v1/generate", &json!({"prompt": "Once", "max_tokens": 20, "temperature": 0, "seed": 1}));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(whole.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        body["token_ids"].clone()
    };
    let before = ask().await;
    assert!(before.is_array(), "{before}");
    let (requests, count) = (Arc::new(streams()), clients());
    let per_task = count.div_ceil(8);
    let tasks = (0..8).map(|task| {
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            for round in 0..per_task {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(requests[(task + round) % requests.len()].as_bytes()).await.unwrap();
                // Some go before there is an answer, others in the middle of it.
                let mut some = vec![0; 1 + 700 * (round % 3)];
                if round % 4 > 0 {
                    let _ = stream.read(&mut some).await;
                }
                // Sent as a reset, as when a process is killed.
                let _ = stream.set_zero_linger();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let begun = Instant::now();
    while of(&app).running + of(&app).waiting > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", of(&app));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // All of the key's places are free again, and the answer is the same.
    let again = futures_util::future::join_all((0..60).map(|_| ask())).await;
    assert!(again.iter().all(|tokens| *tokens == before));
    let metrics = of(&app);
    assert_eq!(metrics.kv_bytes, metrics.prefix_cache_bytes, "pages are left over");
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(told.load(Ordering::Relaxed) >= 61, "requests that are not told of");
}

#[tokio::test]
async fn bodies_that_are_cut_are_no_requests() {
    let app = app_alone(Settings::default());
    app.warm_up().await.unwrap();
    let (begun, listener) = (of(&app).passes, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (address, stop, server) = started_at(app.clone(), listener.into());
    let whole = request("/v1/generate", &json!({"prompt": "Once", "max_tokens": 20}));
    for length in (1..whole.len()).step_by(7) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&whole.as_bytes()[..length]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(of(&app).passes, begun);
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
