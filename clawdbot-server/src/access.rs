//! Tells of each request when its answer has ended.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::ids::REQUEST_ID;
use crate::kept::{Keep, kept};
use crate::record::{AccessRecord, Notes};

/// The status of a request whose client has gone before there was an answer: as nginx writes it.
const CLIENT_GONE: u16 = 499;
/// Most characters of a path in a log.
const MAX_PATH: usize = 256;

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
        let (key, model, tokens) = self.notes.known();
        self.app.tell_access(&AccessRecord {
            id,
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status,
            key,
            model,
            tokens,
            first_byte,
            duration,
            complete: self.complete,
        });
    }
}
