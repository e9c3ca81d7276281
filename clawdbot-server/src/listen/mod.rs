//! Connections: accepting, serving and ending them.

mod activity;
mod connection;
mod socket;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use connection::Server;

pub use socket::Listener;

/// How long to wait when no connection can be accepted, as when there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves `app` until `stop` is ready. Then nothing new begins, and what has begun has `drain_timeout` to end; what runs
/// longer is cancelled. Requests that were on their way are answered: those of connections that waited to be accepted, and
/// those that come on open connections within `linger`.
///
/// # Errors
/// Of the listener's address.
pub async fn serve(
    app: App,
    listener: impl Into<Listener>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = listener.into();
    listener.local_addr()?;
    let (ended, ending) = watch::channel(false);
    let server = Server::new(&app, &listener, ending);
    let places = Arc::new(Semaphore::new(app.settings().max_connections.min(Semaphore::MAX_PERMITS)));
    // Aborted when it is dropped.
    let mut watching = JoinSet::new();
    listener.watch(&mut watching);
    let mut connections = JoinSet::new();
    let accepted = async || {
        let place = Arc::clone(&places).acquire_owned().await;
        (place, listener.accept().await)
    };
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (place, stream) = accepted() => match stream {
                Ok(stream) => drop(connections.spawn(server.clone().serve(stream, place))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
    app.end();
    // Clients have connected that the system has not given us yet.
    let until = tokio::time::Instant::now() + listener.leave();
    while let Ok((place, Ok(stream))) = tokio::time::timeout_at(until, accepted()).await {
        connections.spawn(server.clone().serve(stream, place));
    }
    drop(listener);
    ended.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(app.settings().drain_timeout, all).await;
    connections.shutdown().await;
    Ok(())
}
