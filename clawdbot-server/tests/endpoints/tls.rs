//! TLS over TCP, with rustls as the client.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawdbot_core::ModelOptions;
use clawdbot_server::{App, Listener, Pem, Settings, Tls, TlsEvent, TlsOptions};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::certificates::{Authority, Pair, directory, written};
use crate::connections::started_at;
use crate::support::app_with;

/// A server that encrypts.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
    app: App,
    tls: Tls,
    events: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(options: TlsOptions) -> Self {
        let mut settings = Settings::default();
        settings.linger = Duration::from_millis(50);
        let app = app_with(ModelOptions::default(), settings);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let hook = move |event: &TlsEvent| {
            // Those of others' permissions depend on the tests' umask.
            if !matches!(event, TlsEvent::KeyIsOpen { .. }) {
                heard.lock().unwrap().push(event.to_string());
            }
        };
        let tls = Tls::new(&app, options, hook).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap().with_tls(tls.clone());
        let (address, stop, task) = started_at(app.clone(), listener);
        Server { address, stop, task, app, tls, events }
    }

    async fn connect(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = crate::support::text(crate::support::send(&self.app, "GET", "/metrics", "").await).await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("clawdbot_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse::<f64>().unwrap() as u64
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn options(pair: &Pair) -> TlsOptions {
    TlsOptions::new(Pem::Text(pair.certificate.clone()), Pem::Text(pair.key.clone()))
}

/// A client that trusts `authority`.
fn client_with(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    own: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}

fn client(authority: &Authority) -> ClientConfig {
    client_with(authority, &TLS13, None)
}

/// A request on a connection that stays open, and the answer.
async fn live(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let (mut text, mut part) = (String::new(), [0; 1024]);
    while !text.ends_with('}') {
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => text.push_str(str::from_utf8(&part[..count]).unwrap()),
        }
    }
    Ok(text)
}

/// Whether a request over a new connection is answered.
async fn answers(server: &Server, config: ClientConfig) -> bool {
    match server.connect(config).await {
        // A server that refuses a client's certificate says so after the client's part of the handshake.
        Ok(mut stream) => live(&mut stream).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")),
        Err(_) => false,
    }
}

/// The certificate that new connections get.
async fn presented(server: &Server, authority: &Authority) -> Vec<u8> {
    let stream = server.connect(client(authority)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap().to_vec()
}

/// Waits until `done`.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it happens");
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let authority = Authority::new();
    let server = Server::start(options(&authority.server())).await;
    let mut stream = server.connect(client(&authority)).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert!(live(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
    drop(stream);
    assert_eq!(server.metric("tls_handshakes_failed_total").await, 0);
    let old = server.connect(client_with(&authority, &TLS12, None)).await.unwrap_err();
    assert!(old.to_string().contains("ProtocolVersion"), "{old}");
    // A client that trusts others.
    assert!(server.connect(client(&Authority::new())).await.is_err());
    until(async || server.metric("tls_handshakes_failed_total").await == 2).await;
    assert!(server.metric("tls_certificate_expires_seconds").await > 0);
    server.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_and_closed() {
    let server = Server::start(options(&Authority::new().server())).await;
    for (sent, told) in [("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true), ("hello\r\n", false), ("\0\0\0", false)]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        // What is not read is answered with a reset.
        let _ = stream.read_to_end(&mut text).await;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.starts_with("HTTP/1.1 400") && text.contains("use https"), told, "{text}");
    }
    until(async || server.metric("tls_handshakes_failed_total").await == 3).await;
    server.stop().await;
}

#[tokio::test]
async fn clients_can_be_asked_for_certificates() {
    let (authority, authority_of_clients) = (Authority::new(), Authority::new());
    let mut options = options(&authority.server());
    options.client_ca = Some(Pem::Text(authority_of_clients.certificate()));
    let server = Server::start(options).await;
    let own = authority_of_clients.client();
    // Twice: sessions are not resumed without a look at the certificate.
    let config = client_with(&authority, &TLS13, Some(&own));
    assert!(answers(&server, config.clone()).await);
    assert!(answers(&server, config).await);
    assert!(!answers(&server, client(&authority)).await);
    let of_others = Authority::new().client();
    assert!(!answers(&server, client_with(&authority, &TLS13, Some(&of_others))).await);
    let of_a_server = authority_of_clients.server();
    assert!(!answers(&server, client_with(&authority, &TLS13, Some(&of_a_server))).await);
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    use tokio_rustls::rustls::HandshakeKind;

    let authority = Authority::new();
    let server = Server::start(options(&authority.server())).await;
    let config = client(&authority);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect(config.clone()).await.unwrap();
        live(&mut stream).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    // With another certificate, they are not.
    server.tls.reload().unwrap();
    let stream = server.connect(config).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let (authority, directory) = (Authority::new(), directory("tls-reload"));
    let (first, second) = (authority.server(), authority.server());
    let mut options = written(&directory, &first);
    options.reload_interval = Duration::from_millis(20);
    let server = Server::start(options).await;
    let mut old = server.connect(client(&authority)).await.unwrap();
    live(&mut old).await.unwrap();
    assert_eq!(presented(&server, &authority).await, der(&first));
    written(&directory, &second);
    until(async || presented(&server, &authority).await == der(&second)).await;
    assert!(live(&mut old).await.unwrap().starts_with("HTTP/1.1 200"), "old connections go on");
    until(async || server.events.lock().unwrap().len() == 1).await;
    assert_eq!(server.metric("tls_reloads_total").await, 1);
    // The key of another certificate: the old pair stays.
    fs::write(directory.join("key.pem"), &first.key).unwrap();
    until(async || server.events.lock().unwrap().len() == 2).await;
    let told = server.events.lock().unwrap()[1].clone();
    assert!(told.starts_with("the old certificate stays: ") && told.contains("key.pem"), "{told}");
    assert_eq!(presented(&server, &authority).await, der(&second));
    assert_eq!(server.metric("tls_reloads_failed_total").await, 1);
    // On demand, it is said again.
    assert!(server.tls.reload().is_err());
    assert_eq!(server.metric("tls_reloads_failed_total").await, 2);
    written(&directory, &first);
    server.tls.reload().unwrap();
    assert_eq!(presented(&server, &authority).await, der(&first));
    drop(old);
    server.stop().await;
}

#[tokio::test]
async fn slow_handshakes_hinder_nobody() {
    let authority = Authority::new();
    let mut options = options(&authority.server());
    options.max_handshakes = 1;
    options.handshake_timeout = Duration::from_millis(300);
    let server = Server::start(options).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(answers(&server, client(&authority)).await);
    // A client that begins, holds the only slot, and says nothing more.
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(client(&authority)), name).unwrap().write_tls(&mut hello).unwrap();
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    stalled.write_all(&hello).await.unwrap();
    assert!(stalled.read(&mut [0; 16]).await.unwrap() > 0);
    until(async || answers(&server, client(&authority)).await).await;
    for mut stream in silent {
        // Closed, or reset.
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut [0])).await;
        assert!(matches!(ended.expect("it is closed"), Ok(0) | Err(_)));
    }
    assert!(server.metric("tls_handshakes_failed_total").await > 100);
    server.stop().await;
}

#[tokio::test]
async fn http2_is_agreed_on() {
    let authority = Authority::new();
    let server = Server::start(options(&authority.server())).await;
    let mut config = client(&authority);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = server.connect(config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || hyper::Request::get("https://localhost/health/live").body(String::new()).unwrap();
    for _ in 0..3 {
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"status":"live"}"#);
    }
    // The server says goodbye, and the connection ends though the client keeps it.
    server.stop().await;
    connection.await.unwrap().unwrap();
}
