//! A body with what is kept until its last byte is sent, or its client has gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;

/// What is kept; dropped with the body.
pub(crate) trait Keep: Unpin + Send + 'static {
    /// All of the body was sent.
    fn sent(&mut self) {}
}

struct Kept<K> {
    body: Body,
    keep: K,
}

/// `response`, with `keep` until its end.
pub(crate) fn kept(response: Response, mut keep: impl Keep) -> Response {
    response.map(|body| {
        if body.is_end_stream() {
            keep.sent();
        }
        Body::new(Kept { body, keep })
    })
}

impl<K: Keep> HttpBody for Kept<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let failed = matches!(frame, Poll::Ready(Some(Err(_))));
        if matches!(frame, Poll::Ready(None)) || (frame.is_ready() && !failed && self.body.is_end_stream()) {
            self.keep.sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
