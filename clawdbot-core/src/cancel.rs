//! How far work is, and what stops it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind};

/// How far a call is. What a call counts (weights, texts, bytes) is in its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    /// How many are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// What is done at the moment, where that has a name.
    pub stage: Option<Stage>,
}

/// A part of long work. As text: `calibrating layer 3 of 30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// A layer is calibrated.
    CalibratingLayer {
        /// Its number, from 1.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// The output layer is calibrated, and the embedding rounded.
    CalibratingOutput,
    /// The text goes through a layer of the model that is evaluated, or of its reference.
    EvaluatingLayer {
        /// Its number, from 1.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// Logits are computed and compared.
    EvaluatingOutput,
    /// The report is stored; bytes are counted.
    StoringReport,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::CalibratingLayer { layer, layers } => write!(f, "calibrating layer {layer} of {layers}"),
            Stage::CalibratingOutput => f.write_str("calibrating the output layer"),
            Stage::EvaluatingLayer { layer, layers } => write!(f, "evaluating layer {layer} of {layers}"),
            Stage::EvaluatingOutput => f.write_str("evaluating the output layer"),
            Stage::StoringReport => f.write_str("storing the report"),
        }
    }
}

/// A caller's progress function in the form that loading takes: whether to continue.
pub(crate) fn reporting(
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> impl FnMut(u64, u64) -> bool {
    move |done, total| progress(Progress { done, total, stage: None }).is_continue()
}

/// The error of work that was cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the work was cancelled")
}

/// Cancels from any thread: a request, a batch, or the requests it is passed to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks the request to stop. Its forward pass is abandoned within one layer, in prefill too; passes that other
    /// requests share are not abandoned twice in a row. The stream then ends with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// A ticket for a job that this handle stops. Stopping that job does not stop others of this handle.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { own: CancelHandle::default(), given: Some(self.clone()) }
    }
}

/// What tells the jobs of a sequence apart, and stops them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticket {
    own: CancelHandle,
    /// A caller's handle, which may stop other jobs too.
    given: Option<CancelHandle>,
}

impl Ticket {
    /// A handle that stops this job alone.
    pub(crate) fn handle(&self) -> CancelHandle {
        self.own.clone()
    }

    /// Whether both are of one job.
    pub(crate) fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.own.0, &other.own.0)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.own.is_cancelled() || self.given.as_ref().is_some_and(CancelHandle::is_cancelled)
    }

    /// Stops this job alone.
    pub(crate) fn cancel(&self) {
        self.own.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_stopped_alone_or_with_others() {
        let all = CancelHandle::default();
        let (first, second) = (all.ticket(), all.ticket());
        assert!(first.is(&first.clone()) && !first.is(&second));
        first.cancel();
        assert!(first.is_cancelled() && !second.is_cancelled() && !all.is_cancelled());
        all.cancel();
        assert!(second.is_cancelled() && !second.handle().is_cancelled());
    }
}
