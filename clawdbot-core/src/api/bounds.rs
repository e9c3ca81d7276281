//! The bounds of forward passes, which may change while requests run, and the memory that is reserved for them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::options::ModelOptions;
use crate::runtime::Reservation;

/// `max_batch` and `prefill_chunk`, and what is reserved for them. They change with the engine locked.
pub(crate) struct Bounds {
    max_batch: AtomicU32,
    prefill_chunk: AtomicU32,
    reservation: Mutex<Reservation>,
}

impl Bounds {
    pub(super) fn new(options: &ModelOptions, reservation: Reservation) -> Self {
        Bounds {
            max_batch: options.max_batch.into(),
            prefill_chunk: options.prefill_chunk.into(),
            reservation: Mutex::new(reservation),
        }
    }

    pub(crate) fn max_batch(&self) -> u32 {
        self.max_batch.load(Ordering::Relaxed)
    }

    pub(crate) fn prefill_chunk(&self) -> u32 {
        self.prefill_chunk.load(Ordering::Relaxed)
    }

    /// Bytes that are reserved.
    pub(super) fn bytes(&self) -> u64 {
        self.reservation.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// Most rows of a pass that is cut.
    pub(super) fn rows(&self) -> u64 {
        self.max_batch().max(self.prefill_chunk()).into()
    }

    /// Reserves `bytes`, if that is more than now.
    ///
    /// # Errors
    /// `OutOfBudget`; nothing changes then.
    pub(super) fn grow(&self, bytes: u64) -> Result<()> {
        let mut reservation = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > reservation.bytes() {
            reservation.resize(bytes, "the buffers of larger passes")?;
        }
        Ok(())
    }

    /// Sets the bounds of `options`, for which `bytes` are enough.
    pub(super) fn set(&self, options: &ModelOptions, bytes: u64) {
        let mut reservation = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        // Shrinking cannot fail.
        let _ = reservation.resize(bytes, "the buffers of passes");
        self.max_batch.store(options.max_batch, Ordering::Relaxed);
        self.prefill_chunk.store(options.prefill_chunk, Ordering::Relaxed);
    }
}
