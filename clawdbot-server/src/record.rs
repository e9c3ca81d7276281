//! What a server tells of a request that has ended, for an access log: no prompts, no answers, no keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

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

    /// Key, model and tokens, as far as they are known.
    pub(crate) fn known(&self) -> (Option<String>, Option<String>, u64) {
        let Noted { key, model, tokens } = &*self.0;
        (key.get().cloned(), model.get().cloned(), tokens.load(Ordering::Relaxed))
    }
}
