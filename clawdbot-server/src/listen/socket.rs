//! Where a server accepts connections, and how it leaves that place to another one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[cfg(feature = "tls")]
use crate::tls::Tls;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;
/// How long connections are accepted that were on their way when the server was asked to end: as long as a client takes to
/// answer.
const SETTLE: Duration = Duration::from_millis(100);

/// Where a server accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    owner: Owner,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

/// Whose a socket is.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Alone,
    /// Other processes have sockets of their own with the same address.
    Shared,
    /// It stays open elsewhere when we close it.
    Lent,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Listener::new(socket, Owner::Alone)
    }
}

impl Listener {
    fn new(socket: TcpListener, owner: Owner) -> Self {
        Listener {
            socket,
            owner,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// Of the system, as when the address is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::from)
    }

    /// Listens on an address that other processes of the same user may share if they all ask for it (`SO_REUSEPORT`): the next
    /// server begins before this one ends.
    ///
    /// # Errors
    /// Of the system, as when the address is taken by one that does not share it.
    #[cfg(unix)]
    pub fn shared(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        Ok(Self::new(socket.listen(BACKLOG)?, Owner::Shared))
    }

    /// Listens on a socket that stays open when this server ends, such as a service manager's.
    ///
    /// # Errors
    /// Of the system.
    pub fn lent(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(TcpListener::from_std(socket)?, Owner::Lent))
    }

    /// Encrypts its connections.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Its address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// Does what has to be done while it listens.
    pub(super) fn watch(&self, tasks: &mut JoinSet<()>) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tasks.spawn(tls.clone().watch());
        }
        #[cfg(not(feature = "tls"))]
        let _ = tasks;
    }

    /// Prepares for being closed. Returns how long to accept what is on its way.
    pub(super) fn leave(&self) -> Duration {
        match self.owner {
            Owner::Lent => return Duration::ZERO,
            Owner::Alone => {}
            // If the system cannot do it, fewer connections are saved.
            Owner::Shared => drop(ignore_new(&self.socket)),
        }
        SETTLE
    }
}

/// Makes the system ignore new connections, rather than complete and then reset them. Their clients try again after a second,
/// and reach a socket that is still open. Those that it has begun to set up go on.
#[cfg(target_os = "linux")]
fn ignore_new(socket: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    /// Classic BPF over the header of TCP: its flags are in byte 13, SYN is 2 and ACK is 16.
    const ALL_BUT_SYN: &[SockFilter] = &[
        SockFilter::new(0x30, 0, 0, 13),       // load the byte
        SockFilter::new(0x54, 0, 0, 0x12),     // SYN and ACK of it
        SockFilter::new(0x15, 0, 1, 0x02),     // SYN alone?
        SockFilter::new(0x06, 0, 0, 0),        // drop the packet
        SockFilter::new(0x06, 0, 0, u32::MAX), // keep it
    ];
    SockRef::from(socket).attach_filter(ALL_BUT_SYN)
}

/// Elsewhere, what arrives at the moment of closing is reset.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
fn ignore_new(_: &TcpListener) -> io::Result<()> {
    Ok(())
}
