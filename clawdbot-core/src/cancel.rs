//! What stops work from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What tells the jobs of a sequence apart: the flag that cancels the job.
pub(crate) type Ticket = Arc<AtomicBool>;

/// Stops a request, all of a batch, or what a new one is given to, from any thread. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    pub(crate) fn of(ticket: &Ticket) -> Self {
        CancelHandle(Arc::clone(ticket))
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Arc::clone(&self.0)
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks the request to stop. The forward pass it is part of, prefill included, is abandoned within a layer
    /// (but not two in a row for the sake of some of several sequences); the stream then ends with [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}
