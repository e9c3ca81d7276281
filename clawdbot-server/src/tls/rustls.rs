//! TLS 1.3 with rustls, whose cryptography is ring's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    Acceptor as HelloReader, NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig,
};

use super::error::TlsError;
use super::files::Content;
use super::{Acceptor, Handshake, Material, Secure};

/// A configuration, and when its certificate ends.
#[derive(Debug)]
struct Rustls {
    config: Arc<ServerConfig>,
    expires: u64,
}

impl Acceptor for Rustls {
    fn accept<'a>(&'a self, stream: TcpStream, slots: &'a Semaphore) -> Handshake<'a> {
        Box::pin(async move {
            let hello = LazyConfigAcceptor::new(HelloReader::default(), stream).await?;
            // Those that have said nothing yet take no slot from others.
            let _slot = slots.acquire().await.map_err(std::io::Error::other)?;
            let stream = hello.into_stream(Arc::clone(&self.config)).await?;
            Ok(Box::new(stream) as Secure)
        })
    }

    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Reads certificates and keys, and checks that they can serve.
pub(super) fn load(material: &Material) -> Result<Arc<dyn Acceptor>, TlsError> {
    // The library is a part of programs: it leaves the provider of the process to them.
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&material.certificate)?;
    let expires = check_certificate(&material.certificate, &chain, &provider)?;
    let certified = with_key(chain, material, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?;
    let builder = match &material.client_ca {
        None => builder.with_no_client_auth(),
        Some(content) => builder.with_client_cert_verifier(clients_of(content, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if material.client_ca.is_some() {
        // A resumed session would take its client's certificate as it was: each connection is to be verified.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        // The client keeps the session, encrypted: nothing is kept here for clients that do not come back.
        config.ticketer = ring::Ticketer::new().map_err(refused)?;
    }
    Ok(Arc::new(Rustls { config: Arc::new(config), expires }))
}

fn refused(error: RustlsError) -> TlsError {
    TlsError::Stack(error.to_string())
}

fn wrong(content: &Content, expected: &'static str, found: impl ToString) -> TlsError {
    TlsError::Content { file: content.name.clone(), expected, found: found.to_string() }
}

/// The library's own words give lines as lists of bytes.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("no line -----END {}-----", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section wrongly".to_owned(),
        other => other.to_string(),
    }
}

/// All certificates of a file, at least one.
fn certificates(content: &Content) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const EXPECTED: &str = "certificates in PEM";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.bytes).collect();
    let found = found.map_err(|error| wrong(content, EXPECTED, told(&error)))?;
    if found.is_empty() {
        return Err(wrong(content, EXPECTED, content.labels()));
    }
    Ok(found)
}

/// Whether clients would take the first certificate now. Returns when it ends.
fn check_certificate(
    content: &Content,
    chain: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<u64, TlsError> {
    const EXPECTED: &str = "a certificate for a server";
    let bad = |error: RustlsError| wrong(content, EXPECTED, error);
    let leaf = chain.first().ok_or_else(|| wrong(content, EXPECTED, content.labels()))?;
    let leaf = ParsedCertificate::try_from(leaf).map_err(bad)?;
    let (nobody, algorithms) = (RootCertStore::empty(), provider.signature_verification_algorithms.all);
    // Without anyone to trust it fails in any case. What is wrong with the certificate itself is said first.
    let at = |time| verify_server_cert_signed_by_trust_anchor(&leaf, &nobody, &[], time, algorithms);
    let file = content.name.clone();
    match at(UnixTime::now()) {
        Err(RustlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            return Err(TlsError::Expired { file, ended: date(not_after) });
        }
        Err(RustlsError::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            return Err(TlsError::NotYetValid { file, begins: date(not_before) });
        }
        Err(
            error @ RustlsError::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            ),
        ) => return Err(bad(error)),
        _ => {}
    }
    match at(UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX))) {
        Err(RustlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Ok(not_after.as_secs())
        }
        _ => Err(wrong(content, EXPECTED, "one without the time of its end")),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let date = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| format!("second {}", time.as_secs()), |date| date.to_string())
}

/// Puts the chain together with its key.
fn with_key(
    chain: Vec<CertificateDer<'static>>,
    material: &Material,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    const EXPECTED: &str = "a private key in PEM (PKCS#8, SEC1 or PKCS#1) without passphrase";
    let content = &material.key;
    let key = PrivateKeyDer::from_pem_slice(&content.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound | pem::Error::Base64Decode(_) => wrong(content, EXPECTED, content.labels()),
        error => wrong(content, EXPECTED, told(&error)),
    })?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|_| {
        wrong(content, "an RSA, ECDSA (P-256, P-384) or Ed25519 key", "one of another kind, or broken")
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(RustlsError::InconsistentKeys(_)) => {
            let (key, certificate) = (content.name.clone(), material.certificate.name.clone());
            Err(TlsError::KeyMismatch { key, certificate })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Lets clients in that have a certificate of these authorities.
fn clients_of(
    content: &Content,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const EXPECTED: &str = "certificates of authorities";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(content)? {
        roots.add(certificate).map_err(|error| wrong(content, EXPECTED, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| wrong(content, EXPECTED, error))
}
