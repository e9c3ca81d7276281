//! The events of a request on their way from the engine to its consumer, who takes them without the engine's lock.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::error::Result;
use crate::event::Event;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A sequence pauses while its consumer has this many events to read. Few in models, which try all orders of them.
pub(super) const MAX_EVENTS: usize = if cfg!(loom) { 2 } else { 256 };

/// Called when there is something to read.
type Listener = dyn Fn() + Send + Sync;

/// Events of one request, the oldest first.
#[derive(Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Locked while it is called, so that it is not called any more once it was taken away.
    listener: Mutex<Listening>,
}

#[derive(Default)]
struct Listening {
    listener: Option<Box<Listener>>,
    /// It is not called again.
    panicked: bool,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Result<Event>>,
    /// Nothing more will come.
    ended: bool,
    /// Who awaits the next event.
    #[cfg(feature = "async")]
    waker: Option<std::task::Waker>,
}

/// The engine's end. Nothing more comes after it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Sender(Arc<Mailbox>);

impl Sender {
    /// The consumer's end.
    pub(crate) fn receiver(&self) -> Arc<Mailbox> {
        Arc::clone(&self.0)
    }

    pub(super) fn push(&self, event: Result<Event>) {
        self.0.change(|state| state.events.push_back(event));
    }

    /// Number of events to read.
    pub(super) fn len(&self) -> usize {
        self.0.lock().events.len()
    }

    /// Whether the consumer is too far back.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_EVENTS
    }

    /// The next event, if there is one.
    pub(crate) fn take(&self) -> Option<Result<Event>> {
        self.0.lock().events.pop_front()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

/// What a consumer finds.
#[derive(Debug)]
pub(crate) struct Taken {
    /// None after the last.
    pub(crate) event: Option<Result<Event>>,
    /// Whether the sequence had paused because of its events, and can go on.
    pub(crate) resumes: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        #[cfg(feature = "async")]
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        // The waker is the host's: it is called without the lock.
        #[cfg(feature = "async")]
        waker.into_iter().for_each(std::task::Waker::wake);
        Mailbox::call(&mut self.listener());
    }

    fn listener(&self) -> MutexGuard<'_, Listening> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the listener, if there is one; one that panics is not called again.
    fn call(listener: &mut Listening) {
        let Listening { listener, panicked } = listener;
        if let Some(call) = listener
            && !*panicked
        {
            *panicked = catch_unwind(AssertUnwindSafe(call)).is_err();
        }
    }

    /// Lets `listener`, in place of an earlier one, be called whenever there is something more to read, the end included: now, if
    /// there is already.
    pub(crate) fn listen(&self, listener: Box<Listener>) {
        let mut place = self.listener();
        let earlier = std::mem::replace(&mut *place, Listening { listener: Some(listener), panicked: false });
        let state = self.lock();
        let ready = !state.events.is_empty() || state.ended;
        drop(state);
        if ready {
            Mailbox::call(&mut place);
        }
        drop(place);
        // It is the host's: what it drops may take any lock.
        drop(earlier);
    }

    /// Takes the listener away, and waits for the call that it is in.
    pub(crate) fn stop_listening(&self) {
        let earlier = std::mem::take(&mut *self.listener());
        drop(earlier);
    }

    /// The next event, if there is one; `None` if there is none yet.
    pub(crate) fn try_take(&self) -> Option<Taken> {
        let mut state = self.lock();
        (!state.events.is_empty() || state.ended).then(|| state.take())
    }

    /// The next event, or a wake of `context` when there is one.
    #[cfg(feature = "async")]
    pub(crate) fn poll(&self, context: &std::task::Context<'_>) -> std::task::Poll<Taken> {
        let mut state = self.lock();
        if state.events.is_empty() && !state.ended {
            state.waker = Some(context.waker().clone());
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(state.take())
    }

    /// Waits for the next event.
    pub(crate) fn wait(&self) -> Taken {
        let mut state = self.lock();
        while state.events.is_empty() && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.take()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self) -> Taken {
        let resumes = self.events.len() == MAX_EVENTS;
        Taken { event: self.events.pop_front(), resumes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: usize) -> Result<Event> {
        Ok(Event::Progress { done, total: 9 })
    }

    #[test]
    fn events_come_in_order_and_then_the_end() {
        let sender = Sender::default();
        let mailbox = sender.receiver();
        let consumer = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                let mut found = Vec::new();
                while let Some(event) = mailbox.wait().event {
                    found.push(event.unwrap());
                }
                found
            }
        });
        for done in 0..1000 {
            sender.push(progress(done));
        }
        drop(sender);
        let expected: Vec<Event> = (0..1000).map(|done| progress(done).unwrap()).collect();
        assert_eq!(consumer.join().unwrap(), expected);
        assert!(mailbox.wait().event.is_none());
    }

    #[test]
    fn who_reads_from_a_full_mailbox_resumes_its_sequence() {
        let sender = Sender::default();
        for done in 0..MAX_EVENTS {
            assert!(!sender.is_full());
            sender.push(progress(done));
        }
        assert!(sender.is_full());
        let mailbox = sender.receiver();
        assert!(mailbox.wait().resumes && !sender.is_full());
        assert!(!mailbox.wait().resumes);
        assert_eq!(sender.take().unwrap().unwrap(), progress(2).unwrap());
    }

    #[test]
    fn a_listener_is_called_for_each_event_and_the_end() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let calls = Arc::new(AtomicUsize::new(0));
        let listener = || {
            let calls = Arc::clone(&calls);
            Box::new(move || {
                // The third call panics, and is the last one of this listener.
                assert!(calls.fetch_add(1, Ordering::SeqCst) != 2, "a listener that panics");
            })
        };
        let called = || calls.load(Ordering::SeqCst);
        let sender = Sender::default();
        let mailbox = sender.receiver();
        assert!(mailbox.try_take().is_none());
        mailbox.listen(listener());
        assert_eq!(called(), 0);
        sender.push(progress(0));
        assert_eq!(called(), 1);
        mailbox.listen(listener());
        assert_eq!(called(), 2, "there is something to read already");
        sender.push(progress(1));
        sender.push(progress(2));
        assert_eq!(called(), 3);
        mailbox.listen(listener());
        drop(sender);
        assert_eq!(called(), 5);
        mailbox.stop_listening();
        assert_eq!(Arc::strong_count(&calls), 1);
        for done in 0..3 {
            assert_eq!(mailbox.try_take().unwrap().event.unwrap().unwrap(), progress(done).unwrap());
        }
        assert!(mailbox.try_take().unwrap().event.is_none());
    }
}
