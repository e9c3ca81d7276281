//! How an [`App`](crate::App) answers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::keys::KeyLimits;

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

/// Names of another server under which `/metrics` has its numbers, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsDialect {
    /// vLLM's: `vllm:num_requests_running` and so on.
    Vllm,
}

/// How an [`App`](crate::App) answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the model that requests without one get; the pool's only one if there is one.
    pub default_model: Option<String>,
    /// Fields without effect.
    pub fields: Fields,
    /// Other names of models that clients may ask for, each with the model's.
    pub aliases: BTreeMap<String, String>,
    /// API keys. Each request needs one; without any, everyone may ask.
    pub keys: Vec<KeyLimits>,
    /// Origins of web pages that may ask, such as `https://example.org`; `*` for all. Without any, browsers let none.
    pub cors_origins: Vec<String>,
    /// Waiting requests of models with which the server says that it is not ready, by name.
    pub max_waiting: BTreeMap<String, u64>,
    /// Other names for `/metrics`, besides clawdbot's own.
    pub metrics_dialect: Option<MetricsDialect>,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// How long a request waits for its model to be loaded.
    pub load_timeout: Duration,
    /// Time between comments in a stream of events that has nothing to say: proxies cut connections that are silent.
    pub keep_alive: Duration,
    /// Time in which a client must have sent the head of its first request.
    pub header_timeout: Duration,
    /// Time in which a client must have sent the head of its next request. Proxies keep connections for a minute, and should be
    /// the ones that close them.
    pub idle_timeout: Duration,
    /// Time in which a client must have sent the body of a request.
    pub body_timeout: Duration,
    /// Time in which requests may end when the server is asked to stop; what runs longer is cancelled.
    pub drain_timeout: Duration,
    /// When the server is asked to stop: time in which an open connection may still send a request. It is answered, and the
    /// connection closed.
    pub linger: Duration,
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
            aliases: BTreeMap::new(),
            keys: Vec::new(),
            cors_origins: Vec::new(),
            max_waiting: BTreeMap::new(),
            metrics_dialect: None,
            max_body: 16 << 20,
            load_timeout: Duration::from_secs(600),
            keep_alive: Duration::from_secs(15),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            max_connections: 4096,
            max_stored_bytes: 64 << 20,
            max_stored_responses: 4096,
        }
    }
}
