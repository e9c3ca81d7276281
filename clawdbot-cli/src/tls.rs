//! TLS of `serve`

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clawdbot_core::{Error, ErrorKind, Result};
use clawdbot_server::{App, ConfigTls, Pem, Tls, TlsEvent, TlsOptions};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SanType};
use sha2::{Digest, Sha256};

use crate::output::{note, warn};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a certificate for trying is valid.
const TRIAL: u32 = 30;

/// What encrypts connections, and how to connect.
pub(crate) struct Protection {
    pub(crate) tls: Tls,
    /// `curl` with what it needs.
    pub(crate) curl: String,
    /// Lines about the certificate.
    pub(crate) notes: String,
}

/// A certificate for trying.
struct Trial {
    certificate: String,
    key: String,
    /// SHA-256 of the certificate, as browsers show it.
    fingerprint: String,
    /// SHA-256 of the public key, as curl compares it.
    pin: String,
}

/// What encrypts the connections of a server at `ip`, if they are to be encrypted.
///
/// # Errors
/// Of certificates and keys.
pub(crate) fn protection(
    app: &App,
    files: Option<&ConfigTls>,
    self_signed: bool,
    ip: IpAddr,
    quiet: bool,
) -> Result<Option<Protection>> {
    let (mut curl, mut notes) = ("curl".to_owned(), String::new());
    let (certificate, key) = match files {
        Some(files) => (Pem::from(files.certificate.clone()), Pem::from(files.key.clone())),
        None if self_signed => {
            let trial = trial(ip)?;
            curl = format!("curl --insecure --pinnedpubkey sha256//{}", trial.pin);
            notes = format!(
                "the certificate is valid for {TRIAL} days; its SHA-256 fingerprint: {}\n",
                trial.fingerprint
            );
            (Pem::Text(trial.certificate), Pem::Text(trial.key))
        }
        None => return Ok(None),
    };
    let mut options = TlsOptions::new(certificate, key);
    if let Some(authorities) = files.and_then(|files| files.client_ca.as_ref()) {
        options.client_ca = Some(Pem::from(authorities.clone()));
        curl.push_str(" --cert CLIENT.pem --key CLIENT.key");
    }
    let hook = move |event: &TlsEvent| match event {
        TlsEvent::Reloaded if quiet => {}
        TlsEvent::Reloaded => note(event),
        TlsEvent::KeyIsOpen { .. } if quiet => {}
        _ => warn(&event.to_string()),
    };
    let tls = Tls::new(app, options, hook)?;
    Ok(Some(Protection { tls, curl, notes }))
}

/// Makes a certificate for trying: for this machine, from yesterday on, as clocks differ.
fn trial(ip: IpAddr) -> Result<Trial> {
    let failed =
        |error: rcgen::Error| Error::new(ErrorKind::Internal, format!("option tls_self_signed: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(failed)?;
    params.subject_alt_names.extend(addresses(ip).into_iter().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "clawdbot, for trying");
    params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let yesterday = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
    (params.not_before, params.not_after) = (yesterday, yesterday + DAY * (TRIAL + 1));
    let certificate = params.self_signed(&key).map_err(failed)?;
    let mut fingerprint = String::new();
    for byte in Sha256::digest(certificate.der()) {
        let colon = if fingerprint.is_empty() { "" } else { ":" };
        let _ = write!(fingerprint, "{colon}{byte:02X}");
    }
    Ok(Trial {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        fingerprint,
        pin: BASE64_STANDARD.encode(Sha256::digest(key.subject_public_key_info())),
    })
}

/// By which a server at `ip` is reached: with that of all interfaces, also the one of this machine.
fn addresses(ip: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let own = if ip.is_unspecified() { outgoing(ip) } else { Some(ip) };
    all.extend(own.filter(|ip| !ip.is_loopback()));
    all
}

/// The address from which this machine would send. Nothing is sent.
fn outgoing(any: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation: they are routed like any other.
    let somewhere: IpAddr = match any {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((somewhere, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
