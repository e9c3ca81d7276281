//! What has been used of a key's limits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawdbot_core::{Error, ErrorKind};

use super::{Key, KeyLimits};
use crate::fault::Fault;

/// A limit per minute: it fills at an even rate up to a minute's worth, and what is used is taken out. It may be overdrawn; then
/// nothing is given until the debt is paid.
#[derive(Debug)]
struct Bucket {
    per_minute: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    fn new(per_minute: u64, now: Instant) -> Self {
        Bucket { per_minute: per_minute as f64, level: per_minute as f64, filled: now }
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + seconds * self.per_minute / 60.0).min(self.per_minute);
        self.filled = now;
    }

    /// How long it takes until there are `count`; nothing if there are.
    fn wait(&mut self, count: f64, now: Instant) -> Option<Duration> {
        self.fill(now);
        let missing = count - self.level;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing * 60.0 / self.per_minute))
    }

    fn take(&mut self, count: f64) {
        self.level -= count;
    }
}

/// What has been used of a key.
#[derive(Debug)]
pub(crate) struct Usage {
    rates: Mutex<Rates>,
    running: AtomicU64,
}

#[derive(Debug)]
struct Rates {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Usage {
    pub(super) fn new(limits: &KeyLimits) -> Self {
        let now = Instant::now();
        let bucket = |limit: Option<u64>| limit.map(|limit| Bucket::new(limit, now));
        let rates =
            Rates { requests: bucket(limits.requests_per_minute), tokens: bucket(limits.tokens_per_minute) };
        Usage { rates: Mutex::new(rates), running: AtomicU64::new(0) }
    }
}

/// A request of a key, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Running(Arc<Key>);

impl Running {
    /// Begins a request, if the key's limits have room for it.
    pub(crate) fn begin(key: &Arc<Key>, now: Instant) -> Result<Self, Fault> {
        let Key { limits, usage } = &**key;
        // It is counted down again when this is dropped.
        let before = usage.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(key));
        if let Some(most) = limits.concurrent.filter(|most| before >= *most) {
            return Err(limited(
                limits,
                &format!("at most {most} requests at the same time"),
                Duration::from_secs(1),
            ));
        }
        let mut rates = usage.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let Rates { requests, tokens } = &mut *rates;
        for (bucket, most, what) in [
            (&mut *tokens, limits.tokens_per_minute, "tokens"),
            (&mut *requests, limits.requests_per_minute, "requests"),
        ] {
            let wait = bucket.as_mut().and_then(|bucket| bucket.wait(1.0, now));
            if let (Some(wait), Some(most)) = (wait, most) {
                return Err(limited(limits, &format!("at most {most} {what} per minute"), wait));
            }
        }
        if let Some(requests) = requests {
            requests.take(1.0);
        }
        drop(rates);
        Ok(running)
    }

    /// Takes tokens that were used.
    pub(crate) fn used(&self, tokens: usize) {
        let mut rates = self.0.usage.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = &mut rates.tokens {
            bucket.take(tokens as f64);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.usage.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn limited(limits: &KeyLimits, expected: &str, wait: Duration) -> Fault {
    let message = format!("API key {}: expected {expected}, found more", limits.name);
    let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    Error::new(ErrorKind::Overloaded, message).with("retry_after_ms", milliseconds).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn key(change: impl FnOnce(&mut KeyLimits)) -> Arc<Key> {
        let mut limits = KeyLimits::of_key("team", "secret");
        change(&mut limits);
        let keys = Keys::new(&[limits], &Keys::default());
        Arc::clone(&keys.0[0])
    }

    fn wait_of(fault: &Fault) -> u64 {
        assert!(fault.may_retry() && fault.message.contains("API key team"), "{}", fault.message);
        fault.retry_after_ms.expect("a time")
    }

    #[test]
    fn requests_come_back_with_time() {
        let key = key(|limits| limits.requests_per_minute = Some(2));
        let now = Instant::now();
        for _ in 0..2 {
            Running::begin(&key, now).expect("room");
        }
        let wait = wait_of(&Running::begin(&key, now).expect_err("limited"));
        assert!((29_000..=30_000).contains(&wait), "{wait}");
        Running::begin(&key, now + Duration::from_secs(31)).expect("room");
        Running::begin(&key, now + Duration::from_secs(32)).expect_err("limited");
        // An hour is not worth more than a minute.
        let later = now + Duration::from_secs(3600);
        let begun = (0..10).filter(|_| Running::begin(&key, later).is_ok()).count();
        assert_eq!(begun, 2);
    }

    #[test]
    fn tokens_may_be_overdrawn_once() {
        let key = key(|limits| limits.tokens_per_minute = Some(60));
        let now = Instant::now();
        Running::begin(&key, now).expect("room").used(179);
        let wait = wait_of(&Running::begin(&key, now).expect_err("limited"));
        assert!((119_000..=121_000).contains(&wait), "{wait}");
        Running::begin(&key, now + Duration::from_secs(122)).expect("room");
    }

    #[test]
    fn requests_at_a_time_end() {
        let key = key(|limits| limits.concurrent = Some(1));
        let now = Instant::now();
        let first = Running::begin(&key, now).expect("room");
        for _ in 0..3 {
            Running::begin(&key, now).expect_err("limited");
        }
        drop(first);
        Running::begin(&key, now).expect("room");
    }
}
