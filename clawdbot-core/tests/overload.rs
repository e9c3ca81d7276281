//! Ten times as many requests as a model can serve: memory stays bounded, each is served or refused, and service goes on as before.
//!
//! `CLAWDBOT_OVERLOAD` says for how many seconds (default 2).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use clawdbot_core::{
    Driver, ErrorKind, Event, GenerateOptions, Model, ModelMetrics, ModelOptions, Prompt, Runtime,
    RuntimeOptions, Source, Stream,
};
use support::load::{Draw, soon, variable};

/// Programs that send requests.
const CLIENTS: u64 = 8;
const TIMES: f64 = 10.0;
const MAX_QUEUE: u32 = 32;
/// Bytes for requests, besides what loading takes.
const ROOM: u64 = 2 << 20;
/// What the process may grow besides: its allocator keeps memory, and threads have stacks.
const MORE: u64 = 32 << 20;

/// One of three groups' requests, of one of three priorities.
fn request(draw: &mut Draw) -> (Prompt, GenerateOptions) {
    let options = GenerateOptions::default().temperature(0.0).max_tokens(1 + draw.below(12) as u32);
    let options = options.priority(49 + draw.below(3) as u32).group(Some(format!("group {}", draw.below(3))));
    (Prompt::Tokens(draw.prompt()), options)
}

/// Bytes of memory that the process has now, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}

/// Requests of a batch, as many as the model can serve. Returns how many there were in a second.
fn serve(model: &Model, seed: u64) -> f64 {
    let started = Instant::now();
    let prompts = (0..40).map(|number| Draw::of(seed, 0, number).prompt().into()).collect();
    let options = GenerateOptions::default().temperature(0.0).max_tokens(6_u32);
    let all = model.generate_batch(prompts, &options);
    assert!(all.iter().all(Result::is_ok));
    all.len() as f64 / started.elapsed().as_secs_f64()
}

enum Message {
    Begun(u64, Stream),
    /// It has something to read.
    Ready(u64),
    /// No further one begins.
    Over,
}

/// Reads all streams to their ends, whichever has something. Returns how many there were.
fn read_all(messages: &Receiver<Message>, sender: &Sender<Message>) -> u64 {
    let (mut streams, mut ended, mut over) = (HashMap::new(), 0, false);
    while !over || !streams.is_empty() {
        match messages.recv().unwrap() {
            Message::Over => over = true,
            Message::Begun(number, mut stream) => {
                let sender = sender.clone();
                stream.on_event(move || _ = sender.send(Message::Ready(number))).unwrap();
                streams.insert(number, stream);
            }
            Message::Ready(number) => {
                // Without a stream, the one before it has read to the end.
                let Some(stream) = streams.get_mut(&number) else { continue };
                while let Poll::Ready(event) = stream.try_next_event() {
                    if let Event::Done(completion) = event.unwrap().unwrap() {
                        assert!(!completion.token_ids.is_empty());
                        streams.remove(&number);
                        ended += 1;
                        break;
                    }
                }
            }
        }
    }
    ended
}

/// Sends a client's requests, one each `interval`. Returns how many were refused.
fn send(model: &Model, client: u64, interval: Duration, over: &AtomicBool, begun: &Sender<Message>) -> u64 {
    let (started, mut refused) = (Instant::now(), 0);
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (prompt, options) = request(&mut Draw::of(7, client, number));
        let stream = match number % 2 {
            0 => model.stream(prompt, &options),
            _ => model.submit(prompt, &options),
        };
        match stream {
            Ok(stream) => begun.send(Message::Begun(client + CLIENTS * number, stream)).unwrap(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                assert!(error.detail()["retry_after_ms"].as_u64().unwrap() > 0, "{error}");
                refused += 1;
            }
        }
        let next = started + interval.mul_f64((number + 1) as f64);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    refused
}

#[test]
fn more_requests_than_a_model_can_serve() {
    let options = ModelOptions::default().max_batch(8_u32).max_queue(Some(MAX_QUEUE)).max_context(512_u32);
    let runtime = RuntimeOptions::default().threads(2_u32).driver(Driver::Thread);
    let load =
        |runtime: &RuntimeOptions| Runtime::new(runtime).unwrap().load(&Source::Builtin, &options).unwrap();
    let budget = load(&runtime).runtime().memory_used() + ROOM;
    let model = load(&runtime.memory_budget(budget));
    let runtime = model.runtime();
    let metrics = || runtime.metrics().models.remove(0);
    let idle = runtime.memory_used();
    serve(&model, 1);
    let rate = serve(&model, 2);
    let before = metrics();
    let grown = resident();
    let interval = Duration::from_secs_f64(CLIENTS as f64 / (TIMES * rate));
    let seconds = variable("CLAWDBOT_OVERLOAD", 2);
    let (over, most_used, most_resident) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(grown));
    let (sender, messages) = channel();
    let (served, refused) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (model, over, begun) = (&model, &over, sender.clone());
                scope.spawn(move || send(model, client, interval, over, &begun))
            })
            .collect();
        let tells = sender.clone();
        let reads = scope.spawn(move || read_all(&messages, &tells));
        for _ in 0..seconds * 100 {
            std::thread::sleep(Duration::from_millis(10));
            most_used.fetch_max(runtime.memory_used(), Ordering::Relaxed);
            most_resident.fetch_max(resident(), Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
        let refused: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        sender.send(Message::Over).unwrap();
        (reads.join().unwrap(), refused)
    });
    soon("nothing is under way", || (metrics().running, metrics().waiting) == (0, 0));
    let after = metrics();
    let (most_used, most_resident) = (most_used.into_inner(), most_resident.into_inner());
    let mean = |histogram: fn(&ModelMetrics) -> (f64, u64)| {
        let ((sum, count), (sum_before, count_before)) = (histogram(&after), histogram(&before));
        (sum - sum_before) / (count - count_before) as f64
    };
    println!(
        "{} requests in {seconds} s, {:.1} times the {rate:.0} in a second that are served alone: {served} served ({:.0} in a \
         second), {refused} refused; {:.2} s in the queue; {most_used} of {budget} bytes used, {idle} when idle; the process grew \
         from {grown} to {most_resident} bytes",
        served + refused,
        (served + refused) as f64 / seconds as f64 / rate,
        served as f64 / seconds as f64,
        mean(|found| (found.queue_seconds.sum, found.queue_seconds.count)),
    );
    assert!(refused > 0 && served > 0);
    assert!(most_used <= budget);
    assert!(most_resident <= grown + ROOM + MORE, "{most_resident}");
    let outcomes = |found: &ModelMetrics| {
        let found = &found.requests;
        assert_eq!((found.failed, found.cancelled, found.deadline), (0, 0, 0));
        (found.stop + found.length, found.refused)
    };
    assert_eq!(outcomes(&after).0 - outcomes(&before).0, served);
    assert_eq!(outcomes(&after).1 - outcomes(&before).1, refused);
    // Service goes on.
    let again = serve(&model, 3);
    println!("{again:.0} requests in a second afterwards");
    // One more, so that what is held is counted when there are no others.
    model.generate(vec![5, 6, 7], &GenerateOptions::default().max_tokens(1_u32)).unwrap();
    soon("memory returns", || runtime.memory_used() == idle + metrics().prefix_cache_bytes);
}
