//! How an [`App`](crate::App) answers.

use std::time::Duration;

/// What happens to fields of requests that change nothing, or that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fields {
    /// Known fields without effect are named in the header `x-clawdbot-ignored` of the answer; unknown ones are refused.
    #[default]
    Known,
    /// Both are refused.
    Strict,
    /// Both are named in the header.
    Lenient,
}

/// How an [`App`](crate::App) answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the model that requests without one get; the pool's only one if there is one.
    pub default_model: Option<String>,
    /// Fields without effect.
    pub fields: Fields,
    /// Waiting requests of a model with which the server says that it is not ready.
    pub max_waiting: Option<u64>,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// How long a request waits for its model to be loaded.
    pub load_timeout: Duration,
    /// Time between comments in a stream of events that has nothing to say: proxies cut connections that are silent.
    pub keep_alive: Duration,
    /// Time in which a client must have sent the head of a request.
    pub header_timeout: Duration,
    /// Time in which a client must have sent the body of a request.
    pub body_timeout: Duration,
    /// Time in which requests may end when the server is asked to stop; what runs longer is cancelled.
    pub drain_timeout: Duration,
    /// Most connections at a time; further ones wait.
    pub max_connections: usize,
    /// Most bytes of stored responses (`/v1/responses`); those that were used least recently are dropped first.
    pub max_stored_bytes: usize,
    /// Most of them.
    pub max_stored_responses: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            default_model: None,
            fields: Fields::Known,
            max_waiting: None,
            max_body: 16 << 20,
            load_timeout: Duration::from_secs(600),
            keep_alive: Duration::from_secs(15),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            max_connections: 4096,
            max_stored_bytes: 64 << 20,
            max_stored_responses: 4096,
        }
    }
}
