//! Connections over TCP: slow clients, draining, many at a time.

use std::time::{Duration, Instant};

use clawdbot_core::ModelOptions;
use clawdbot_server::{App, Settings, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::app_with;

/// A server on a free port, with what stops it.
async fn started(app: App) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(app, listener, async move {
        let _ = stopped.await;
    }));
    (address, stop, server)
}

fn request(body: &str) -> String {
    format!(
        "POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn answer(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn what_has_begun_ends_when_the_server_stops() {
    let app = app_with(ModelOptions::default(), Settings::default());
    app.warm_up().await.unwrap();
    let (address, stop, server) = started(app.clone()).await;
    let body = r#"{"prompt": "Once", "max_tokens": 100, "ignore_eos": true, "stream": true}"#;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request(body).as_bytes()).await.unwrap();
    let mut first = [0; 64];
    assert!(stream.read(&mut first).await.unwrap() > 0);
    stop.send(()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_cancelled() {
    let mut settings = Settings::default();
    settings.drain_timeout = Duration::from_millis(50);
    let app = app_with(ModelOptions::default(), settings);
    app.warm_up().await.unwrap();
    let (address, stop, server) = started(app.clone()).await;
    // A client that sends half a request, and waits.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn slow_heads_are_cut() {
    let mut settings = Settings::default();
    settings.header_timeout = Duration::from_millis(100);
    let app = app_with(ModelOptions::default(), settings);
    app.warm_up().await.unwrap();
    let (address, stop, server) = started(app).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /health/live HTTP/1.1\r\nHost:").await.unwrap();
    let mut text = Vec::new();
    // It ends, with an answer or without.
    let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut text)).await;
    assert!(ended.is_ok(), "the connection is closed");
    let others = answer(address, &request(r#"{"prompt": "a", "max_tokens": 1}"#)).await;
    assert!(others.starts_with("HTTP/1.1 200"), "{others}");
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_hinder_nobody() {
    let app = app_with(ModelOptions::default(), Settings::default());
    app.warm_up().await.unwrap();
    let (address, stop, server) = started(app).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let found = answer(address, &request(r#"{"prompt": "a", "max_tokens": 1}"#)).await;
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    drop(idle);
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
