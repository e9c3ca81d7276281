//! What the system asks of a server.

use clawdbot_core::Result;

use super::system;

/// Is ready when the process is asked to end: by Ctrl-C, or with SIGTERM.
#[cfg(unix)]
pub(super) fn stopped() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| system("SIGINT", &error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| system("SIGTERM", &error))?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Is ready when the process is asked to end, by Ctrl-C.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(super) fn stopped() -> Result<impl Future<Output = ()>> {
    Ok(async {
        // Where that cannot be known, only the process itself can be ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Is ready each time the process is asked to read its configuration again, with SIGHUP.
#[cfg(unix)]
pub(super) fn hangups() -> Result<impl AsyncFnMut() -> ()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangup = signal(SignalKind::hangup()).map_err(|error| system("SIGHUP", &error))?;
    Ok(async move || {
        // It is closed with the runtime alone.
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    })
}

/// Is never ready: there is no such signal.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(super) fn hangups() -> Result<impl AsyncFnMut() -> ()> {
    Ok(async || std::future::pending::<()>().await)
}
