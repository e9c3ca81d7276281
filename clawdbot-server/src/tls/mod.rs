//! TLS: handshakes within bounds of time and number, and certificates that are read again when their files change.

mod error;
mod files;
mod plain;
mod rustls;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::counters::Counters;
use files::{Content, Stamp};

pub use error::TlsError;
pub use files::Pem;

/// A connection that is encrypted.
pub(crate) type Secure = Box<dyn Stream>;
type Handshake<'a> = Pin<Box<dyn Future<Output = io::Result<Secure>> + Send + 'a>>;
type Hook = dyn Fn(&TlsEvent) + Send + Sync;

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What a library needs to speak TLS.
struct Material {
    certificate: Content,
    key: Content,
    client_ca: Option<Content>,
}

/// A library that speaks TLS, with a certificate.
trait Acceptor: fmt::Debug + Send + Sync {
    /// Does the handshake. It holds a slot from the time when the client has said what it wants.
    fn accept<'a>(&'a self, stream: TcpStream, slots: &'a Semaphore) -> Handshake<'a>;
    /// When its certificate ends, in seconds since 1970.
    fn expires(&self) -> u64;
}

/// A library that speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TlsStack {
    /// rustls: TLS 1.3 with AES-GCM and ChaCha20-Poly1305.
    #[default]
    Rustls,
}

type Load = fn(&Material) -> Result<Arc<dyn Acceptor>, TlsError>;

/// All libraries that speak TLS.
const STACKS: &[(TlsStack, Load)] = &[(TlsStack::Rustls, rustls::load)];

/// Certificates, keys and limits of TLS.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The certificate, and those between it and the authority that clients know.
    pub certificate: Pem,
    /// Its private key.
    pub key: Pem,
    /// Authorities of clients. If there are any, each client must have a certificate of one of them.
    pub client_ca: Option<Pem>,
    /// What speaks TLS.
    pub stack: TlsStack,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// Most handshakes at a time, of clients that have said what they want; further ones wait.
    pub max_handshakes: usize,
    /// Time between two looks at the files.
    pub reload_interval: Duration,
}

impl TlsOptions {
    /// With this certificate and its key.
    pub fn new(certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        TlsOptions {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            stack: TlsStack::default(),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 512,
            reload_interval: Duration::from_secs(2),
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(Pem::stamp).collect()
    }
}

/// What happens to certificates while a server runs, for logs.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsEvent {
    /// New connections get another certificate.
    Reloaded,
    /// The files have changed and cannot be used. New connections get the old certificate.
    ReloadFailed(TlsError),
    /// Others than the owner and the group of the file may read or write the private key. That is no error: the secrets of
    /// containers are mounted so, where there are no others.
    KeyIsOpen {
        /// Its path.
        file: String,
        /// Its permissions.
        mode: u32,
    },
}

impl fmt::Display for TlsEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsEvent::Reloaded => f.write_str("the certificate was read again"),
            TlsEvent::ReloadFailed(error) => write!(f, "the old certificate stays: {error}"),
            TlsEvent::KeyIsOpen { file, mode } => {
                write!(f, "{file}: expected a private key that others cannot read, found mode {mode:04o}")
            }
        }
    }
}

/// What encrypts the connections of a server. Clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    app: App,
    options: TlsOptions,
    hook: Box<Hook>,
    acceptor: RwLock<Arc<dyn Acceptor>>,
    seen: Mutex<Seen>,
    slots: Semaphore,
}

/// The files, as they were.
struct Seen {
    /// When they were read.
    read: Vec<Stamp>,
    /// When they were last looked at.
    looked: Vec<Stamp>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates and keys for a server of `app`. `hook` hears what happens to them, from any thread.
    ///
    /// # Errors
    /// If they cannot be used, or not now: an expired certificate, too, since clients would refuse it.
    pub fn new(
        app: &App,
        options: TlsOptions,
        hook: impl Fn(&TlsEvent) + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = options.stamps();
        let acceptor = load(&options, &hook)?;
        app.counters().tls_certificate_expires.set(acceptor.expires());
        Ok(Tls(Arc::new(Inner {
            app: app.clone(),
            slots: Semaphore::new(options.max_handshakes.min(Semaphore::MAX_PERMITS)),
            hook: Box::new(hook),
            acceptor: RwLock::new(acceptor),
            seen: Mutex::new(Seen { looked: stamps.clone(), read: stamps }),
            options,
        })))
    }

    /// Reads certificates and keys again, now. Connections that there are go on as they are; without success, new ones get the
    /// old certificate. A server does so by itself when the files change.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what changes meanwhile is read once more.
        seen.read = self.0.options.stamps();
        let acceptor = match load(&self.0.options, &*self.0.hook) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                self.counters().tls_reloads_failed.up();
                return Err(error);
            }
        };
        self.counters().tls_reloads.up();
        self.counters().tls_certificate_expires.set(acceptor.expires());
        *self.0.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    fn counters(&self) -> &Counters {
        self.0.app.counters()
    }

    /// Looks at the files again and again.
    pub(crate) async fn watch(self) {
        loop {
            tokio::time::sleep(self.0.options.reload_interval).await;
            let tls = self.clone();
            // Files may be slow.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// Reads the files if they have changed, once they do not change any more: certificates and keys are not written at once.
    fn look(&self) {
        let now = self.0.options.stamps();
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let changes = seen.looked != now;
            seen.looked.clone_from(&now);
            if changes || seen.read == now {
                return;
            }
        }
        let event = match self.reload() {
            Ok(()) => TlsEvent::Reloaded,
            Err(error) => TlsEvent::ReloadFailed(error),
        };
        (self.0.hook)(&event);
    }

    /// Does the handshake, or closes the connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<Secure> {
        let acceptor = Arc::clone(&self.0.acceptor.read().unwrap_or_else(PoisonError::into_inner));
        let handshake = async {
            match plain::first_byte(&stream).await? {
                // Such as the probe of a port: nobody wanted a handshake.
                None => return Ok(None),
                Some(plain::HANDSHAKE) => {}
                Some(first) => return Err(plain::refuse(stream, first).await),
            }
            acceptor.accept(stream, &self.0.slots).await.map(Some)
        };
        match tokio::time::timeout(self.0.options.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => {
                self.counters().tls_handshakes_failed.up();
                None
            }
        }
    }
}

/// Reads what a library needs, and gives it to that library.
fn load(options: &TlsOptions, hook: &Hook) -> Result<Arc<dyn Acceptor>, TlsError> {
    let material = Material {
        certificate: options.certificate.read()?,
        key: options.key.read()?,
        client_ca: options.client_ca.as_ref().map(Pem::read).transpose()?,
    };
    if let Some(mode) = material.key.open_mode {
        hook(&TlsEvent::KeyIsOpen { file: material.key.name.clone(), mode });
    }
    let stack = STACKS.iter().find(|(stack, _)| *stack == options.stack);
    let (_, load) = stack.ok_or_else(|| TlsError::Stack(format!("{:?} is not there", options.stack)))?;
    load(&material)
}
