//! Connections: accepting, serving and ending them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::App;
use crate::router::router;

/// Most bytes of the head of a request.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait when no connection can be accepted, as when there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves `app` until `stop` is ready. Then nothing new begins, and what has begun has `drain_timeout` to end; what runs
/// longer is cancelled.
///
/// # Errors
/// Of the listener's address.
pub async fn serve(app: App, listener: TcpListener, stop: impl Future<Output = ()>) -> io::Result<()> {
    listener.local_addr()?;
    let settings = app.settings();
    let service = TowerToHyperService::new(router(app.clone()));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(MAX_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.keep_alive);
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Tokens are small, and each is to arrive at once. Without this it still works.
        let _ = stream.set_nodelay(true);
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _place = place;
            // Errors of a connection are its client's.
            let _ = connection.await;
        });
    }
    drop(listener);
    app.drain();
    let _ = tokio::time::timeout(app.settings().drain_timeout, graceful.shutdown()).await;
    connections.shutdown().await;
    Ok(())
}
