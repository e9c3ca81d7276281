//! How far work is, and what stops it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use crate::error::{Error, ErrorKind};
use crate::sync::{AtomicBool, Mutex, fence};

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

/// What may sleep, and looks for what was cancelled when it is woken.
pub(crate) trait Sleeper: fmt::Debug + Send + Sync {
    /// Wakes it, without waiting for anybody: the caller may be a signal handler.
    fn wake(&self);

    /// Whether it works no more.
    fn is_gone(&self) -> bool;
}

/// Cancels from any thread: a request, a batch, or the requests it is passed to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    cancelled: AtomicBool,
    /// Whether there were ever sleepers. Without, the lock is not touched: on some systems its first use allocates, which a signal
    /// handler must not.
    watched: AtomicBool,
    /// Who works for the jobs of this handle.
    sleepers: Mutex<Vec<Arc<dyn Sleeper>>>,
}

impl Flag {
    fn add(&self, sleeper: &Arc<dyn Sleeper>) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.retain(|other| !other.is_gone());
        if !sleepers.iter().any(|other| Arc::ptr_eq(other, sleeper)) {
            sleepers.push(Arc::clone(sleeper));
        }
        drop(sleepers);
        self.watched.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Who cancelled meanwhile may have found the list locked.
        if self.cancelled.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.watched.load(Ordering::SeqCst) {
            return;
        }
        // Not waited for: this may be a signal handler that has interrupted who holds it, or the child of a fork. Who holds it
        // wakes them.
        let sleepers = match self.sleepers.try_lock() {
            Ok(sleepers) => sleepers,
            Err(TryLockError::Poisoned(sleepers)) => sleepers.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        sleepers.iter().for_each(|sleeper| sleeper.wake());
    }
}

impl CancelHandle {
    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Asks the request to stop. Its forward pass is abandoned within one layer, in prefill too; passes that other
    /// requests share are not abandoned twice in a row. The stream then ends with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.0.wake();
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

    /// Whoever stops this job wakes `sleeper`, which works for it.
    pub(crate) fn wakes(&self, sleeper: &Arc<dyn Sleeper>) {
        self.own.0.add(sleeper);
        self.given.iter().for_each(|given| given.0.add(sleeper));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

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

    #[derive(Debug, Default)]
    struct Counted {
        woken: AtomicU32,
        gone: AtomicBool,
    }

    impl Sleeper for Counted {
        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::SeqCst);
        }

        fn is_gone(&self) -> bool {
            self.gone.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn who_works_for_a_job_is_woken_once() {
        let (one, other) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
        let sleeper = |counted: &Arc<Counted>| Arc::clone(counted) as Arc<dyn Sleeper>;
        let all = CancelHandle::default();
        let tickets = [&one, &one, &other].map(|counted| {
            let ticket = all.ticket();
            ticket.wakes(&sleeper(counted));
            ticket
        });
        let woken = || [&one, &other].map(|counted| counted.woken.load(Ordering::SeqCst));
        tickets[2].cancel();
        assert_eq!(woken(), [0, 1]);
        all.cancel();
        assert_eq!(woken(), [1, 2]);
        // One that comes later looks at once.
        all.ticket().wakes(&sleeper(&one));
        assert_eq!(woken(), [2, 3]);
        other.gone.store(true, Ordering::SeqCst);
        all.ticket().wakes(&sleeper(&one));
        all.cancel();
        assert_eq!(woken(), [4, 3]);
    }
}
