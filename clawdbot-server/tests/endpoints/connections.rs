//! Connections over TCP: slow clients, draining, many at a time.

use std::time::{Duration, Instant};

use clawdbot_core::ModelOptions;
use clawdbot_server::{App, Listener, Settings, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::app_with;

/// A server on a free port, with what stops it.
async fn started(app: App) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    started_at(app, TcpListener::bind("127.0.0.1:0").await.unwrap().into())
}

pub(crate) fn started_at(
    app: App,
    listener: Listener,
) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
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

/// Sends the head of a request that keeps its connection, and reads the answer of a known end.
async fn live(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut text, mut part) = (String::new(), [0; 1024]);
    while !text.ends_with('}') {
        let count = stream.read(&mut part).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(str::from_utf8(&part[..count]).unwrap());
    }
    text
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut settings = Settings::default();
    settings.header_timeout = Duration::from_millis(100);
    settings.idle_timeout = Duration::from_millis(100);
    let (address, stop, server) = started(app_with(ModelOptions::default(), settings)).await;
    let mut used = TcpStream::connect(address).await.unwrap();
    assert!(live(&mut used).await.starts_with("HTTP/1.1 200"));
    let mut silent = TcpStream::connect(address).await.unwrap();
    for stream in [&mut used, &mut silent] {
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        assert_eq!(ended.expect("it is closed").unwrap(), 0);
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_are_kept_for_their_own_time() {
    let mut settings = Settings::default();
    settings.header_timeout = Duration::from_millis(50);
    let (address, stop, server) = started(app_with(ModelOptions::default(), settings)).await;
    let mut used = TcpStream::connect(address).await.unwrap();
    live(&mut used).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(live(&mut used).await.starts_with("HTTP/1.1 200"));
    drop(used);
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn open_connections_have_a_last_request() {
    let mut settings = Settings::default();
    settings.linger = Duration::from_secs(20);
    let (address, stop, server) = started(app_with(ModelOptions::default(), settings)).await;
    let mut used = TcpStream::connect(address).await.unwrap();
    live(&mut used).await;
    let mut fresh = TcpStream::connect(address).await.unwrap();
    // It waits to be accepted or is accepted, and has sent nothing.
    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for stream in [&mut used, &mut fresh] {
        let answer = live(stream).await;
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_ends_without_its_idle_clients() {
    let mut settings = Settings::default();
    settings.linger = Duration::from_millis(50);
    settings.drain_timeout = Duration::from_secs(600);
    let (address, stop, server) = started(app_with(ModelOptions::default(), settings)).await;
    let mut used = TcpStream::connect(address).await.unwrap();
    live(&mut used).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /health").await.unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(60), server).await.expect("it ends").unwrap().unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn servers_share_an_address() {
    let any = "127.0.0.1:0".parse().unwrap();
    let first = Listener::shared(any).unwrap();
    let (address, stop, server) = started_at(app_with(ModelOptions::default(), Settings::default()), first);
    assert!(Listener::bind(address).await.is_err(), "only those that ask for it share");
    let asked = tokio::spawn(async move {
        let mut count = 0;
        while count < 300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(live(&mut stream).await.starts_with("HTTP/1.1 200"));
            count += 1;
        }
    });
    let second = Listener::shared(address).unwrap();
    let (_, stop_second, second) = started_at(app_with(ModelOptions::default(), Settings::default()), second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    asked.await.unwrap();
    stop_second.send(()).unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lent_socket_stays_open() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lent = Listener::lent(socket.try_clone().unwrap()).unwrap();
    let (address, stop, server) = started_at(app_with(ModelOptions::default(), Settings::default()), lent);
    live(&mut TcpStream::connect(address).await.unwrap()).await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    // Between the two servers, clients wait.
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let next = Listener::lent(socket).unwrap();
    let (_, stop, server) = started_at(app_with(ModelOptions::default(), Settings::default()), next);
    assert!(live(&mut waiting).await.starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
