//! What a download and the one who waits for it share: how far it is, whether to stop, and how long to be patient.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::http::{Failure, Repeat};
use crate::settings::Settings;

/// Longest time between a stop and its being noticed, where nothing else is waited for.
const POLL: Duration = Duration::from_millis(50);
/// How often a request is repeated when no server has answered yet: most likely there is no network.
const RETRIES_UNANSWERED: u32 = 2;

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are there, those of an earlier, interrupted download included.
    pub bytes: u64,
    /// Bytes of all files to be downloaded; 0 while it is being found out.
    pub total_bytes: u64,
}

/// Shared by all threads of a download.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    /// Bytes that came over the network.
    received: AtomicU64,
    /// Whether a server answered, be it with an error.
    answered: AtomicBool,
    /// What the one who waits has not been told yet.
    warnings: Mutex<Vec<String>>,
}

impl Control {
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            bytes: self.bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn plan(&self, bytes: u64) {
        self.bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were there before.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back bytes that turned out to be useless.
    pub(crate) fn remove_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that came over the network.
    pub(crate) fn receive(&self, bytes: u64) {
        self.add_bytes(bytes);
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells the one who waits.
    pub(crate) fn warn(&self, warning: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    /// What there is to tell, once.
    pub(crate) fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a server answered.
    pub(crate) fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// `Cancelled` after [`Control::stop`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Waits.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            thread::sleep(rest.min(POLL));
        }
    }
}

/// Failures in a row, and what is left of the patience with them.
pub(crate) struct Patience<'a> {
    settings: &'a Settings,
    control: &'a Control,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(settings: &'a Settings, control: &'a Control) -> Self {
        Patience { settings, control, failures: 0 }
    }

    /// Something came: failures before it do not count.
    pub(crate) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits until the request may be repeated.
    ///
    /// # Errors
    /// The failure's own, if it is not worth repeating, or was repeated often enough; `Cancelled`.
    pub(crate) fn wait(&mut self, failure: Failure) -> Result<()> {
        let settings = self.settings;
        let backoff =
            settings.retry_delay.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let delay = match failure.repeat {
            Repeat::No => return Err(failure.error),
            Repeat::Yes => backoff.min(settings.max_retry_after),
            Repeat::After(delay) if delay > settings.max_retry_after => return Err(failure.error),
            Repeat::After(delay) => delay,
        };
        if failure.error.status().is_some() {
            self.control.note_answer();
        }
        let retries = match self.control.answered.load(Ordering::Relaxed) {
            true => settings.retries,
            false => settings.retries.min(RETRIES_UNANSWERED),
        };
        if self.failures >= retries {
            let attempts = self.failures.saturating_add(1);
            return Err(failure.error.hint(&format!("gave up after {attempts} attempts in a row")));
        }
        self.failures += 1;
        let (count, seconds) = (self.failures, delay.as_secs_f64());
        self.control
            .warn(format!("{}; trying again in {seconds:.1} s ({count} of {retries})", failure.error));
        self.control.sleep(delay)
    }

    /// Repeats `request` until it succeeds, or patience ends.
    pub(crate) fn repeat<T>(&mut self, mut request: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        loop {
            self.control.check()?;
            match request() {
                Ok(value) => {
                    self.control.note_answer();
                    return Ok(value);
                }
                Err(failure) => self.wait(failure)?,
            }
        }
    }
}
