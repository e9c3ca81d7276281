//! The access log: what was asked for, and how it ended, without prompts, answers and keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::kept::{Keep, kept};
use crate::router::REQUEST_ID;

/// The status of a request whose client has gone before there was an answer: as nginx writes it.
const CLIENT_GONE: u16 = 499;
/// Most characters of a path in a log.
const MAX_PATH: usize = 256;

/// A request that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AccessRecord {
    /// Its id, as in `x-request-id`.
    pub id: String,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// The status that was sent.
    pub status: u16,
    /// The name of the API key.
    pub key: Option<String>,
    /// The model that it was for.
    pub model: Option<String>,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Time from the head of the request to the head of the answer.
    pub first_byte: Duration,
    /// Time from the head of the request to the end of the answer.
    pub duration: Duration,
    /// Whether the answer was sent to its end; if not, its client has gone.
    pub complete: bool,
}

impl AccessRecord {
    /// As JSON, with the time now.
    pub fn to_json(&self) -> Value {
        json!({
            "time": jiff::Timestamp::now().to_string(),
            "id": self.id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "key": self.key,
            "model": self.model,
            "tokens": self.tokens,
            "first_byte_ms": milliseconds(self.first_byte),
            "duration_ms": milliseconds(self.duration),
            "complete": self.complete,
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What becomes known of a request while it is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    key: OnceLock<String>,
    model: OnceLock<String>,
    tokens: AtomicU64,
}

impl Notes {
    pub(crate) fn key(&self, name: &str) {
        // The first one is it.
        let _ = self.0.key.set(name.to_owned());
    }

    pub(crate) fn model(&self, name: &str) {
        let _ = self.0.model.set(name.to_owned());
    }

    pub(crate) fn tokens(&self, tokens: usize) {
        self.0.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }
}

/// Tells `app` of a request when its answer has ended.
pub(crate) async fn logged(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if !app.has_access_log() {
        return next.run(request).await;
    }
    let (started, notes) = (Instant::now(), Notes::default());
    request.extensions_mut().insert(notes.clone());
    let method = request.method().to_string();
    let path: String = request.uri().path().chars().take(MAX_PATH).collect();
    // It is told of, even if the answer is not waited for.
    let mut entry = Entry { app, notes, method, path, started, answered: None, complete: false };
    let response = next.run(request).await;
    let id = response.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    entry.answered = Some((id.to_owned(), response.status().as_u16(), started.elapsed()));
    kept(response, entry)
}

/// A request that is answered. When it is dropped, it has ended.
struct Entry {
    app: App,
    notes: Notes,
    method: String,
    path: String,
    started: Instant,
    /// The id, the status and the time of the answer.
    answered: Option<(String, u16, Duration)>,
    complete: bool,
}

impl Keep for Entry {
    fn sent(&mut self) {
        self.complete = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let gone = || (String::new(), CLIENT_GONE, duration);
        let (id, status, first_byte) = self.answered.take().unwrap_or_else(gone);
        let noted = &self.notes.0;
        self.app.tell_access(&AccessRecord {
            id,
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status,
            key: noted.key.get().cloned(),
            model: noted.model.get().cloned(),
            tokens: noted.tokens.load(Ordering::Relaxed),
            first_byte,
            duration,
            complete: self.complete,
        });
    }
}
