//! A thread of the runtime computes: requests advance while nobody waits for them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::task::Poll;
use std::time::{Duration, Instant};

use clawdbot_core::{
    AddSpecialTokens, Driver, ErrorKind, Event, FinishReason, GenerateOptions, Model, ModelOptions, Prompt,
    Runtime, RuntimeOptions, Source,
};

fn runtime(driver: Driver) -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(2_u32).driver(driver)).unwrap()
}

fn model(driver: Driver) -> Model {
    runtime(driver).load(&Source::Builtin, &ModelOptions::default()).unwrap()
}

fn greedy(max_tokens: u32) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(max_tokens)
}

/// Waits until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn results_are_those_of_callers() {
    let prompts = || ["Once upon a time", "The dog", "A long day", "Tom and his friend"];
    let texts = |model: &Model| -> Vec<_> {
        let batch = model.generate_batch(prompts().map(Prompt::from).to_vec(), &greedy(30));
        let mut texts: Vec<_> = batch.into_iter().map(|completion| completion.unwrap().token_ids).collect();
        let streams = prompts().map(|prompt| model.stream(prompt, &greedy(30)).unwrap());
        texts.extend(streams.map(|stream| stream.finish().unwrap().token_ids));
        texts
    };
    let (called, driven) = (model(Driver::Caller), model(Driver::Thread));
    assert_eq!((called.runtime().driver(), driven.runtime().driver()), (Driver::Caller, Driver::Thread));
    let expected = texts(&called);
    assert_eq!(texts(&driven), expected);
    let logits = |model: &Model| model.logits(&[5, 6, 7]).unwrap();
    assert_eq!(logits(&driven), logits(&called));
}

#[test]
fn requests_advance_while_nobody_waits() {
    let model = model(Driver::Thread);
    let mut session = model.session().unwrap();
    session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let prompt = session.tokens().unwrap().len();
    let stream = session.stream(&greedy(40)).unwrap();
    until("all tokens are there", || session.tokens().unwrap().len() == prompt + 40);
    let mut events = 0;
    for event in stream {
        events += usize::from(matches!(event.unwrap(), Event::Token { .. }));
    }
    assert_eq!(events, 40);
}

#[test]
fn who_does_not_read_pauses_nobody_else() {
    let model = model(Driver::Thread);
    let mut session = model.session().unwrap();
    session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let prompt = session.tokens().unwrap().len();
    let stream = session.stream(&greedy(600)).unwrap();
    let generated = || session.tokens().unwrap().len() - prompt;
    until("a bounded queue is full", || generated() >= 200);
    let mut before = 0;
    until("the sequence pauses", || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, generated()) == generated()
    });
    assert!(generated() < 300, "{}", generated());
    for _ in 0..3 {
        assert_eq!(model.generate("The dog", &greedy(20)).unwrap().token_ids.len(), 20);
    }
    // It goes on as it is read.
    assert_eq!(stream.finish().unwrap().token_ids.len(), 600);
}

#[test]
fn what_stops_a_request_ends_who_waits() {
    let model = model(Driver::Thread);
    std::thread::scope(|scope| {
        let stream = model.stream("Once upon a time", &greedy(900)).unwrap();
        let cancel = stream.cancel_handle();
        let waiting = scope.spawn(|| stream.finish().unwrap().finish_reason);
        cancel.cancel();
        assert_eq!(waiting.join().unwrap(), FinishReason::Cancelled);
        let streams: Vec<_> = (0..3).map(|_| model.stream("Once", &greedy(900)).unwrap()).collect();
        let waiting =
            streams.into_iter().map(|stream| scope.spawn(|| stream.finish().unwrap().finish_reason));
        let waiting: Vec<_> = waiting.collect();
        model.close();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), FinishReason::Cancelled);
        }
    });
    assert_eq!(model.generate("Once", &greedy(1)).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn one_that_paused_ends_when_it_must() {
    let model = model(Driver::Thread);
    let running = || model.runtime().metrics().models[0].running;
    let outcomes = || model.runtime().metrics().models[0].requests;
    // Nobody reads: it pauses, and the thread sleeps until the deadline. On a slow machine that may come earlier.
    let (mut late, mut milliseconds) = (0, 1000_u64);
    while late < 250 {
        let before = outcomes().deadline;
        let stream = model.stream("Once upon a time", &greedy(900).deadline_ms(milliseconds)).unwrap();
        until("the deadline", || outcomes().deadline == before + 1);
        let done = stream.finish().unwrap();
        assert_eq!(done.finish_reason, FinishReason::Deadline);
        late = done.token_ids.len();
        assert!(late < 300, "it has not paused: {late} tokens");
        milliseconds *= 2;
    }
    let mut session = model.session().unwrap();
    session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let stream = session.stream(&greedy(900)).unwrap();
    let mut before = 0;
    until("it pauses", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = session.tokens().unwrap().len();
        std::mem::replace(&mut before, now) == now && now > 256
    });
    stream.cancel_handle().cancel();
    until("it is cancelled", || outcomes().cancelled == 1 && running() == 0);
    assert_eq!(stream.finish().unwrap().finish_reason, FinishReason::Cancelled);
}

#[test]
fn an_old_stream_ends_when_its_session_has_another_request() {
    let model = model(Driver::Thread);
    let mut session = model.session().unwrap();
    session.append("Once upon a time", AddSpecialTokens::Yes).unwrap();
    let mut old = session.stream(&greedy(5)).unwrap();
    until("it is done", || session.stream(&greedy(5)).is_ok());
    let error = loop {
        match old.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // What was queued is still read; then the completion, which came before.
    assert!(error.is_none_or(|error| error.kind() == ErrorKind::Closed));
}

#[test]
fn everything_may_be_dropped_in_any_order() {
    for order in 0..4 {
        let runtime = runtime(Driver::Thread);
        let load = || runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let (first, second) = (load(), load());
        let stream = first.stream("Once upon a time", &greedy(900)).unwrap();
        let other = second.stream("Once upon a time", &greedy(30)).unwrap();
        match order {
            0 => drop((stream, other, first, second, runtime)),
            1 => drop((runtime, second, first, other, stream)),
            2 => {
                drop((runtime, first));
                drop(stream);
                assert_eq!(other.finish().unwrap().token_ids.len(), 30);
            }
            _ => {
                let thread = std::thread::spawn(move || drop((runtime, stream, first)));
                drop(second);
                assert_eq!(other.finish().unwrap().token_ids.len(), 30);
                thread.join().unwrap();
            }
        }
    }
}

/// Ticks of CPU time that the thread has used.
#[cfg(target_os = "linux")]
fn ticks() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        if name.ends_with("clawdbot-driver") {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            sum += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    sum
}

/// In a process of its own, as other tests have such threads too.
#[cfg(target_os = "linux")]
#[test]
fn without_work_it_sleeps() {
    const NAME: &str = "CLAWDBOT_TEST_IDLE";
    if std::env::var_os(NAME).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", "without_work_it_sleeps"]).env(NAME, "1").status();
        assert!(status.unwrap().success());
        return;
    }
    let model = model(Driver::Thread);
    model.generate("Once upon a time", &greedy(20)).unwrap();
    // A stream that nobody reads is no work either.
    let unread = model.stream("Once upon a time", &greedy(600)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut before = ticks();
    until("the thread sleeps", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, ticks()) == ticks()
    });
    assert_eq!(unread.finish().unwrap().token_ids.len(), 600);
}

#[test]
fn events_are_taken_when_a_listener_is_called() {
    let model = model(Driver::Thread);
    // More than a mailbox holds.
    let expected = model.generate("Once upon a time", &greedy(600)).unwrap().token_ids;
    let (sender, calls) = std::sync::mpsc::channel();
    let mut streams = [
        model.stream("Once upon a time", &greedy(600)).unwrap(),
        model.submit("Once upon a time", &greedy(600)).unwrap(),
    ];
    for (index, stream) in streams.iter_mut().enumerate() {
        let sender = sender.clone();
        stream.on_event(move || _ = sender.send(index)).unwrap();
    }
    drop(sender);
    let mut events = [Vec::new(), Vec::new()];
    let ended = |events: &Vec<Event>| matches!(events.last(), Some(Event::Done(_)));
    while !events.iter().all(ended) {
        let index = calls.recv_timeout(Duration::from_secs(60)).unwrap();
        while let Poll::Ready(Ok(Some(event))) = streams[index].try_next_event() {
            events[index].push(event);
        }
    }
    assert!(matches!(streams[0].try_next_event(), Poll::Ready(Ok(None))));
    assert!(events[0].len() >= 600);
    assert_eq!(events[1].len(), 1);
    for events in &events {
        let Some(Event::Done(done)) = events.last() else { panic!("{events:?}") };
        assert_eq!(done.token_ids, expected);
    }
    // Nobody is called any more.
    drop(streams);
    while calls.try_recv().is_ok() {}
    assert!(calls.recv().is_err());
    let called = self::model(Driver::Caller);
    let mut stream = called.stream("Once", &greedy(5)).unwrap();
    let Poll::Ready(Err(error)) = stream.try_next_event() else { panic!("nobody computes") };
    assert_eq!(error.detail()["option"], "driver");
    assert_eq!(
        called.stream("Once", &greedy(5)).unwrap().on_event(|| {}).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

/// Runs a future on this thread.
#[cfg(feature = "async")]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(feature = "async")]
#[test]
fn events_are_awaited() {
    use futures_core::Stream;
    let next = |mut stream: clawdbot_core::Stream| async move {
        let mut events = Vec::new();
        while let Some(event) =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut stream).poll_next(context)).await
        {
            events.push(event);
        }
        events
    };
    let model = model(Driver::Thread);
    // More than a mailbox holds.
    let expected = model.generate("Once upon a time", &greedy(600)).unwrap().token_ids;
    let events = block_on(next(model.stream("Once upon a time", &greedy(600)).unwrap()));
    let Some(Ok(Event::Done(done))) = events.last() else { panic!("{events:?}") };
    assert_eq!(done.token_ids, expected);
    assert!(events.len() >= 600);
    let called = self::model(Driver::Caller);
    let events = block_on(next(called.stream("Once", &greedy(5)).unwrap()));
    let [Err(error)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(error.detail()["option"], "driver");
}
