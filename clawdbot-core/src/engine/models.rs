//! Models of how events get from the thread that computes to who reads them, and how requests end: loom runs the code of
//! `mailbox.rs`, `cancel.rs` and `runtime/driver.rs` in every order of its operations, and fails at lost wake-ups (deadlocks) and
//! broken assertions.
//!
//! `cargo xtask models` runs them. `LOOM_MAX_PREEMPTIONS` bounds how often a thread is interrupted where it could go on.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::mailbox::{MAX_EVENTS, Mailbox, Sender, Taken};
use crate::cancel::{CancelHandle, Ticket};
use crate::event::Event;
use crate::runtime::{Driven, DriverThread, Next};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A model whose threads are interrupted `preemptions` times at most.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(f);
}

/// A request for so many events.
struct Request {
    /// None after the end.
    sender: Option<Sender>,
    ticket: Ticket,
    pushed: usize,
    events: usize,
    deadline: Option<Instant>,
}

/// An engine whose passes compute nothing: each gives every request that is not paused an event.
#[derive(Default)]
struct Engine {
    requests: Mutex<Vec<Request>>,
    ended: Condvar,
}

fn event(done: usize) -> Event {
    Event::Progress { done, total: 9 }
}

impl Engine {
    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the ends of all requests, without reading anything.
    fn wait(&self) {
        let mut requests = self.lock();
        while requests.iter().any(|request| request.sender.is_some()) {
            requests = self.ended.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all requests.
    fn shut(&self) {
        self.lock().iter_mut().for_each(|request| request.sender = None);
    }
}

impl Driven for Engine {
    fn drive(&self) -> Next {
        let mut requests = self.lock();
        let mut done = false;
        for request in requests.iter_mut() {
            let Some(sender) = &request.sender else { continue };
            let late = request.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if request.pushed == request.events || late || request.ticket.is_cancelled() {
                request.sender = None;
                self.ended.notify_all();
            } else if !sender.is_full() {
                sender.push(Ok(event(request.pushed)));
                request.pushed += 1;
            } else {
                continue;
            }
            done = true;
        }
        let open = requests.iter().filter(|request| request.sender.is_some());
        let deadline = open.filter_map(|request| request.deadline).min();
        if done { Next::Now } else { deadline.map_or(Next::Woken, Next::At) }
    }
}

/// What requests need, and streams hold.
struct Model {
    driver: DriverThread,
    engine: Arc<Engine>,
}

struct Stream {
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

impl Model {
    fn new() -> Self {
        let (driver, engine) = (DriverThread::new(), Arc::<Engine>::default());
        let driven: Weak<dyn Driven> = Arc::<Engine>::downgrade(&engine);
        driver.add(driven, 1).unwrap();
        Model { driver, engine }
    }

    /// A request for `events` events that `given` stops.
    fn start(&self, events: usize, given: &CancelHandle, deadline: Option<Instant>) -> Stream {
        let (sender, ticket) = (Sender::default(), given.ticket());
        let stream = Stream { mailbox: sender.receiver(), ticket: ticket.clone() };
        let request = Request { sender: Some(sender), ticket, pushed: 0, events, deadline };
        self.engine.lock().push(request);
        stream.ticket.wakes(&self.driver.sleeper());
        self.driver.wake();
        stream
    }

    fn request(&self, events: usize) -> Stream {
        self.start(events, &CancelHandle::default(), None)
    }

    /// Reads what `take` takes out of the mailbox, up to the end. Returns how many events there were.
    fn read(&self, mut take: impl FnMut() -> Taken) -> usize {
        for number in 0.. {
            let Taken { event: found, resumes } = take();
            if resumes {
                self.driver.wake();
            }
            match found {
                Some(found) => assert_eq!(found.unwrap(), event(number)),
                None => return number,
            }
        }
        0
    }
}

/// The driver sleeps, is woken, pauses a sequence whose queue is full, and goes on with it.
#[test]
fn all_events_arrive() {
    model(3, || {
        let model = Model::new();
        let stream = model.request(MAX_EVENTS + 1);
        assert_eq!(model.read(|| stream.mailbox.wait()), MAX_EVENTS + 1);
    });
}

#[test]
fn who_does_not_read_pauses_nobody_else() {
    model(2, || {
        let model = Model::new();
        let unread = model.request(MAX_EVENTS + 1);
        let stream = model.request(1);
        assert_eq!(model.read(|| stream.mailbox.wait()), 1);
        assert_eq!(model.read(|| unread.mailbox.wait()), MAX_EVENTS + 1);
    });
}

/// Nobody reads, so only cancelling wakes a driver that sleeps: also one that waits for a deadline.
#[test]
fn cancelling_wakes_the_driver() {
    let later = Instant::now().checked_add(Duration::from_secs(100_000));
    for deadline in [None, later] {
        model(3, move || {
            let model = Model::new();
            let stream = model.start(MAX_EVENTS + 1, &CancelHandle::default(), deadline);
            stream.ticket.handle().cancel();
            model.engine.wait();
            assert!(model.read(|| stream.mailbox.wait()) <= MAX_EVENTS);
        });
    }
}

/// A handle of several requests is cancelled while one of them begins.
#[test]
fn cancelling_meets_a_request_that_begins() {
    model(2, || {
        let model = Model::new();
        let all = CancelHandle::default();
        let cancels = loom::thread::spawn({
            let all = all.clone();
            move || all.cancel()
        });
        let _stream = model.start(MAX_EVENTS + 1, &all, None);
        model.engine.wait();
        cancels.join().unwrap();
    });
}

/// Nobody wakes the driver when the time is over.
#[test]
fn a_deadline_needs_no_wake() {
    let now = Instant::now();
    model(3, move || {
        let model = Model::new();
        let stream = model.start(MAX_EVENTS + 1, &CancelHandle::default(), Some(now));
        model.engine.wait();
        assert_eq!(model.read(|| stream.mailbox.wait()), 0);
    });
}

/// A model is closed while somebody waits for an event.
#[test]
fn closing_ends_streams() {
    model(2, || {
        let model = Arc::new(Model::new());
        let stream = model.request(MAX_EVENTS + 1);
        let reader = loom::thread::spawn({
            let model = Arc::clone(&model);
            move || model.read(|| stream.mailbox.wait())
        });
        model.engine.shut();
        drop(model);
        assert!(reader.join().unwrap() <= MAX_EVENTS + 1);
    });
}

/// What is driven owns its driver, as models own their runtimes: whoever drops it last ends the thread, be it the thread itself.
#[test]
fn the_last_owner_ends_the_thread() {
    struct Owner {
        engine: Arc<Engine>,
        _driver: Arc<DriverThread>,
    }
    impl Driven for Owner {
        fn drive(&self) -> Next {
            self.engine.drive()
        }
    }
    model(3, || {
        let driver = Arc::new(DriverThread::new());
        let engine = Arc::<Engine>::default();
        let owner = Arc::new(Owner { engine: Arc::clone(&engine), _driver: Arc::clone(&driver) });
        let driven: Weak<dyn Driven> = Arc::<Owner>::downgrade(&owner);
        driver.add(driven, 1).unwrap();
        let (sender, ticket) = (Sender::default(), Ticket::default());
        let mailbox = sender.receiver();
        ticket.wakes(&driver.sleeper());
        let request =
            Request { sender: Some(sender), ticket: ticket.clone(), pushed: 0, events: 1, deadline: None };
        engine.lock().push(request);
        driver.wake();
        drop(driver);
        // The stream is dropped, and it was the last one.
        ticket.cancel();
        engine.shut();
        drop(owner);
        while mailbox.wait().event.is_some() {}
    });
}

/// Pushes two events and the end.
fn pushes(sender: Sender) -> loom::thread::JoinHandle<()> {
    loom::thread::spawn(move || {
        (0..2).for_each(|number| sender.push(Ok(event(number))));
        drop(sender);
    })
}

/// Whether something was said, and to wait for it.
#[derive(Default)]
struct Told {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Told {
    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *told) {
            told = self.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(feature = "async")]
impl std::task::Wake for Told {
    fn wake(self: Arc<Self>) {
        self.tell();
    }
}

#[test]
fn a_listener_misses_nothing_and_is_not_called_afterwards() {
    model(3, || {
        let (sender, told) = (Sender::default(), Arc::<Told>::default());
        let mailbox = sender.receiver();
        let pushes = pushes(sender);
        mailbox.listen(Box::new({
            let told = Arc::clone(&told);
            move || told.tell()
        }));
        // It looks only when it was told to.
        let mut events = 0;
        let mut ended = false;
        while !ended {
            told.wait();
            while let Some(Taken { event, .. }) = mailbox.try_take().filter(|_| !ended) {
                events += usize::from(event.is_some());
                ended = event.is_none();
            }
        }
        assert_eq!(events, 2);
        mailbox.stop_listening();
        // Nobody else has what the listener held.
        assert_eq!(Arc::strong_count(&told), 1);
        pushes.join().unwrap();
    });
}

#[cfg(feature = "async")]
#[test]
fn a_waker_misses_nothing() {
    use std::task::{Context, Poll, Waker};

    model(3, || {
        let (sender, told) = (Sender::default(), Arc::<Told>::default());
        let mailbox = sender.receiver();
        let pushes = pushes(sender);
        let waker = Waker::from(Arc::clone(&told));
        let take = || loop {
            match mailbox.poll(&Context::from_waker(&waker)) {
                Poll::Ready(taken) => break taken.event,
                Poll::Pending => told.wait(),
            }
        };
        assert_eq!(std::iter::from_fn(take).count(), 2);
        pushes.join().unwrap();
    });
}
