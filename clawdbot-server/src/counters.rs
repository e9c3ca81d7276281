//! What a server counts: connections and handshakes. The core counts the rest.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a server counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) access_log_lost: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) tls_handshakes_failed: Counter,
    pub(crate) tls_reloads: Counter,
    pub(crate) tls_reloads_failed: Counter,
    /// In seconds since 1970; 0 without TLS.
    pub(crate) tls_certificate_expires: Counter,
}

/// A number that threads share.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
