//! Answers as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use clawdbot_core::Event;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::answers::Answers;
use crate::fault::Fault;

/// What a client is told of its answers, in the form that it reads.
pub(crate) trait Teller: Send + Unpin + 'static {
    /// Before the first event.
    fn begin(&mut self) -> Vec<Sent> {
        Vec::new()
    }

    /// Of an event of answer number `index`.
    fn event(&mut self, index: usize, event: Event) -> Vec<Sent>;

    /// After the last event of all answers.
    fn end(&mut self) -> Vec<Sent>;

    /// Of what ends the answers early.
    fn fault(&mut self, fault: &Fault) -> Vec<Sent>;
}

/// A data line with JSON.
pub(crate) fn data(value: &Value) -> Sent {
    Sent::default().data(value.to_string())
}

/// What a client is told, event by event.
struct Told<T> {
    /// None after the end.
    answers: Option<Answers>,
    teller: T,
    queue: VecDeque<Sent>,
}

impl<T: Teller> futures_util::Stream for Told<T> {
    type Item = Result<Sent, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(sent) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(sent)));
            }
            let Some(answers) = &mut this.answers else { return Poll::Ready(None) };
            match answers.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((index, Ok(event)))) => this.queue.extend(this.teller.event(index, event)),
                Poll::Ready(Some((_, Err(error)))) => {
                    this.queue.extend(this.teller.fault(&error.into()));
                    // The other answers are cancelled.
                    this.answers = None;
                }
                Poll::Ready(None) => {
                    this.queue.extend(this.teller.end());
                    this.answers = None;
                }
            }
        }
    }
}

/// The answers as events. A silent stream has a comment every `keep_alive`.
pub(crate) fn told(answers: Answers, mut teller: impl Teller, keep_alive: Duration) -> Response {
    let queue = teller.begin().into();
    let told = Told { answers: Some(answers), teller, queue };
    let keep_alive = KeepAlive::new().interval(keep_alive).text("ping");
    let mut response = Sse::new(told).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx keeps events back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
