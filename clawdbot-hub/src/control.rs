//! State shared by a download and its caller: progress, cancelling, retries, warnings.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::http::{Failure, Repeat};
use crate::settings::Settings;

/// Longest time until a cancellation is noticed while nothing else happens.
const POLL: Duration = Duration::from_millis(50);
/// Retries of a request while no server has answered yet: there is probably no network.
const RETRIES_UNANSWERED: u32 = 2;

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes present, those of an earlier, interrupted download included.
    pub bytes: u64,
    /// Bytes of all files of the download; 0 while unknown.
    pub total_bytes: u64,
}

/// Shared by all threads of a download.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    /// Bytes received over the network.
    received: AtomicU64,
    /// Whether a server has answered, even with an error.
    answered: AtomicBool,
    /// Warnings not yet passed to the caller.
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

    /// Counts bytes that were present before.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Subtracts bytes that turned out to be useless.
    pub(crate) fn remove_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes received over the network.
    pub(crate) fn receive(&self, bytes: u64) {
        self.add_bytes(bytes);
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Queues a warning for the caller.
    pub(crate) fn warn(&self, warning: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    /// Takes the queued warnings.
    pub(crate) fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that a server answered.
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

    /// Sleeps for `time`.
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

/// Counts failures in a row, and decides about retries.
pub(crate) struct Patience<'a> {
    settings: &'a Settings,
    control: &'a Control,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(settings: &'a Settings, control: &'a Control) -> Self {
        Patience { settings, control, failures: 0 }
    }

    /// Forgets earlier failures, as data has arrived.
    pub(crate) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits until the request may be retried.
    ///
    /// # Errors
    /// The failure itself, if a retry is useless or there were too many; `Cancelled`.
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

    /// Retries `request` until it succeeds or there are no retries left.
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
