//! What runs on a connection: it may not be idle for ever, and requests are not cut.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// The requests of a connection. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Requests whose answer has not ended.
    running: AtomicUsize,
    /// Whether there was any.
    begun: AtomicBool,
    changed: Notify,
}

/// A request, until its answer has ended.
#[derive(Debug)]
pub(super) struct Running(Activity);

/// An answer's body: while it is there, its request runs.
#[derive(Debug)]
struct Tracked {
    body: Body,
    _running: Running,
}

impl Activity {
    pub(super) fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.store(true, Ordering::Relaxed);
        self.0.changed.notify_one();
        Running(self.clone())
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Is ready when a request has begun or ended since the last time.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Running(Activity(inner)) = self;
        inner.running.fetch_sub(1, Ordering::Relaxed);
        inner.changed.notify_one();
    }
}

impl Running {
    /// The request runs until `body` has ended.
    pub(super) fn until_end_of(self, body: Body) -> Body {
        Body::new(Tracked { body, _running: self })
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
