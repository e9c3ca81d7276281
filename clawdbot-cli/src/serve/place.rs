//! Where a server listens, and whom it lets in there.

use std::net::{IpAddr, SocketAddr, TcpListener as Socket};

use clawdbot_core::{Error, ErrorKind, Result};
use clawdbot_server::{Config, Listener};

use super::system;
use crate::args::ServeArgs;

/// Where to listen.
pub(super) enum Place {
    Address(SocketAddr),
    /// An address that other servers have, too.
    #[cfg(unix)]
    Shared(SocketAddr),
    /// A socket that was open before.
    #[cfg(unix)]
    Open(Socket),
}

impl Place {
    /// Where `config` says, or as flags do.
    pub(super) fn of(config: &Config, args: &ServeArgs) -> Result<Self> {
        let address = SocketAddr::new(config.host, config.port);
        #[cfg(unix)]
        if args.listen_fd {
            return passed().map(Place::Open);
        }
        #[cfg(unix)]
        if args.reuse_port {
            return Ok(Place::Shared(address));
        }
        Ok(Place::Address(address))
    }

    /// Its address.
    pub(super) fn ip(&self) -> Result<IpAddr> {
        match self {
            Place::Address(address) => Ok(address.ip()),
            #[cfg(unix)]
            Place::Shared(address) => Ok(address.ip()),
            #[cfg(unix)]
            Place::Open(socket) => {
                socket.local_addr().map(|address| address.ip()).map_err(|error| system("address", &error))
            }
        }
    }

    /// Whether clients that connect would wait for the model, although another server has it.
    pub(super) fn waits_for_model(&self) -> bool {
        match self {
            Place::Address(_) => false,
            #[cfg(unix)]
            Place::Shared(_) => true,
            #[cfg(unix)]
            Place::Open(_) => false,
        }
    }

    pub(super) async fn listen(self) -> Result<Listener> {
        let at = |address: SocketAddr| move |error| system(&format!("address {address}"), &error);
        match self {
            Place::Address(address) => Listener::bind(address).await.map_err(at(address)),
            #[cfg(unix)]
            Place::Shared(address) => Listener::shared(address).map_err(at(address)),
            #[cfg(unix)]
            Place::Open(socket) => Listener::lent(socket).map_err(|error| system("passed socket", &error)),
        }
    }
}

/// The socket that the service manager passes.
#[cfg(unix)]
fn passed() -> Result<Socket> {
    let mut sockets = listenfd::ListenFd::from_env();
    let wrong = |found: &dyn std::fmt::Display| {
        let message = format!("option listen_fd: expected one TCP socket in LISTEN_FDS, found {found}");
        Error::new(ErrorKind::InvalidArgument, message).with("option", "listen_fd")
    };
    match (sockets.len(), sockets.take_tcp_listener(0)) {
        (1, Ok(Some(socket))) => Ok(socket),
        (1, Err(error)) => Err(wrong(&error)),
        (count, _) => Err(wrong(&count)),
    }
}

/// Refuses an address that other machines reach unless they are kept from using the model and from reading what others send.
pub(super) fn check_protection(ip: IpAddr, config: &Config, args: &ServeArgs) -> Result<()> {
    let certified = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let (encrypted, authenticated) = (encrypts(config, args), certified || !config.settings.keys.is_empty());
    match lack(encrypted, authenticated) {
        Some(lack) if !ip.is_loopback() && !args.insecure => {
            let message = format!(
                "option host: expected an address of this machine alone, such as 127.0.0.1, found {ip}; with --insecure, others \
                 are served too, {lack}"
            );
            Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "host"))
        }
        _ => Ok(()),
    }
}

/// What a server lacks that others reach.
fn lack(encrypted: bool, authenticated: bool) -> Option<&'static str> {
    match (encrypted, authenticated) {
        (true, true) => None,
        (true, false) => Some("and anyone may use the model (--api-key-file asks for keys)"),
        (false, true) => Some("without encryption (--tls-cert encrypts)"),
        (false, false) => Some("without encryption (--tls-cert) and keys (--api-key-file)"),
    }
}

/// Whether connections are encrypted.
fn encrypts(config: &Config, args: &ServeArgs) -> bool {
    #[cfg(feature = "tls")]
    return config.tls.is_some() || args.tls.self_signed;
    #[cfg(not(feature = "tls"))]
    {
        let _ = args;
        config.tls.is_some()
    }
}
