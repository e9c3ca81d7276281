//! Flags that cancel work from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The flag that cancels a job; also identifies the job among those of its sequence.
pub(crate) type Ticket = Arc<AtomicBool>;

/// Cancels from any thread: a request, a batch, or the requests it is passed to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    pub(crate) fn of(ticket: &Ticket) -> Self {
        CancelHandle(Arc::clone(ticket))
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Arc::clone(&self.0)
    }

    /// Whether cancelling was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks the request to stop. Its forward pass is abandoned within one layer, in prefill too; passes that other
    /// requests share are not abandoned twice in a row. The stream then ends with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}
