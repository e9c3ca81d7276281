//! Random requests from several threads at once, in a budget that does not hold them all: with cancels, deadlines, stalls, forks,
//! sessions that are saved and restored, guessed tokens, shared prefixes and swap space. None is lost, nothing leaks, and each
//! gets what it would get alone.
//!
//! `CLAWDBOT_SOAK` says how many requests (default 400; 10,000 take minutes), `CLAWDBOT_SOAK_SEED` which. A failure names the seed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::Duration;

use clawdbot_core::{
    AddSpecialTokens, Completion, Driver, ErrorKind, Event, FinishReason, GenerateOptions, KvType, Model,
    ModelMetrics, ModelOptions, Runtime, RuntimeOptions, Session, Source, Speculation, Stream,
};
use support::load::{Draw, soon, variable};

/// Programs that use a model at the same time.
const CLIENTS: u64 = 8;
/// Most tokens of a sequence.
const CONTEXT: u32 = 512;
/// Bytes of an entry of the prefix cache.
const ENTRY: u64 = 768;
/// What waiting requests and open sessions may take besides their pages.
const SLACK: u64 = 64 << 10;

fn requests() -> u64 {
    variable("CLAWDBOT_SOAK", 400)
}

/// Of so many requests, the bits of one are compared with those it has alone.
fn one_in() -> u64 {
    (requests() / 100).clamp(1, 20)
}

/// `guessed`: how tokens of some requests are guessed.
fn options(draw: &mut Draw, guessed: Speculation) -> GenerateOptions {
    let mut options = GenerateOptions::default().max_tokens(1 + draw.below(40) as u32).logprobs(2_u32);
    options = match draw.below(3) {
        0 => options.temperature(0.0),
        1 => options.temperature(0.8).seed(Some(draw.below(9))),
        _ => options.temperature(1.1).top_k(20_u32).repetition_penalty(1.2).seed(Some(draw.below(9))),
    };
    if draw.once_in(2) {
        options = options.ignore_eos(true);
    }
    if draw.once_in(4) {
        options = options.stop(vec![" the".to_owned()]);
    }
    if draw.once_in(3) {
        options = options.priority(draw.below(101) as u32);
    }
    if draw.once_in(3) {
        options = options.group(Some(format!("group {}", draw.below(3))));
    }
    if draw.once_in(3) {
        options = options.speculation(guessed);
    }
    options
}

/// A request as it was made, and what came of it.
struct Served {
    client: u64,
    number: u64,
    prompt: Vec<u32>,
    options: GenerateOptions,
    completion: Completion,
}

/// Tokens, and the bits of their log-probabilities.
fn bits(completion: &Completion) -> Vec<(u32, Vec<u32>)> {
    let logprobs = completion.logprobs.as_ref().unwrap();
    assert_eq!(logprobs.len(), completion.token_ids.len());
    let entries = completion.token_ids.iter().zip(logprobs);
    entries.map(|(&id, entry)| (id, entry.top.iter().map(|top| top.logprob.to_bits()).collect())).collect()
}

/// What all clients count.
#[derive(Default)]
struct Counts {
    served: Mutex<Vec<Served>>,
    ended: AtomicU64,
    /// Streams that were dropped before their ends.
    dropped: AtomicU64,
    restored: AtomicU64,
    /// Events that were read: while this grows, nothing hangs.
    events: AtomicU64,
    all_done: AtomicBool,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// What a client does.
struct Client<'a> {
    seed: u64,
    client: u64,
    /// Of its requests.
    number: u64,
    draw: Draw,
    model: &'a Model,
    guessed: Speculation,
    counts: &'a Counts,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Client { seed, client, number, .. } = self;
            println!("CLAWDBOT_SOAK_SEED={seed}: client {client} failed with its request {number}");
        }
    }
}

impl Client<'_> {
    /// Starts what `start` does, again if too many wait.
    fn started<T>(mut start: impl FnMut() -> clawdbot_core::Result<T>) -> T {
        loop {
            match start() {
                Ok(started) => return started,
                Err(error) if error.kind() == ErrorKind::Overloaded => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads a stream as clients do: at once, with pauses, when they are told that there is something, not to its end, or not
    /// at all.
    fn read(&mut self, mut stream: Stream, prompt: Vec<u32>, options: GenerateOptions) {
        let (mut tokens, stalls, listens) = (0, self.draw.once_in(6), self.draw.once_in(4));
        let cancelled_after = self.draw.once_in(8).then(|| self.draw.below(20));
        let dropped_after = self.draw.once_in(12).then(|| self.draw.below(8));
        let mut pauses = self.draw.apart();
        self.number += 1;
        let (told, tells) = channel();
        if listens {
            stream.on_event(move || _ = told.send(())).unwrap();
        }
        let handle = stream.cancel_handle();
        let completion = loop {
            if dropped_after == Some(tokens) {
                add(&self.counts.dropped);
                return drop(stream);
            }
            let event = match listens {
                true => loop {
                    if let Poll::Ready(event) = stream.try_next_event() {
                        break event;
                    }
                    tells.recv().unwrap();
                },
                false => stream.next_event(),
            };
            add(&self.counts.events);
            match event.unwrap().unwrap() {
                Event::Token { .. } => tokens += 1,
                Event::Done(completion) => break completion,
                _ => {}
            }
            if stalls {
                std::thread::sleep(Duration::from_millis(pauses.below(3)));
            }
            if cancelled_after == Some(tokens) {
                handle.cancel();
            }
        };
        assert!(stream.next_event().unwrap().is_none(), "an event after the last");
        assert_eq!(tokens, completion.token_ids.len() as u64, "an event for each token");
        add(&self.counts.ended);
        let (client, number) = (self.client, self.number);
        if (client + CLIENTS * number).is_multiple_of(one_in()) {
            let served = Served { client, number, prompt, options, completion: *completion };
            self.counts.served.lock().unwrap().push(served);
        }
    }

    fn single(&mut self) {
        let (prompt, mut options) = (self.draw.prompt(), options(&mut self.draw, self.guessed));
        if self.draw.once_in(6) {
            options = options.deadline_ms(Some(self.draw.below(60)));
        }
        let stream = Self::started(|| self.model.stream(prompt.clone(), &options));
        self.read(stream, prompt, options);
    }

    /// A request of a session, which keeps its tokens.
    fn turn(&mut self, session: &mut Session) {
        session.append(self.draw.tokens(30), AddSpecialTokens::No).unwrap();
        let (prompt, options) = (session.tokens().unwrap(), options(&mut self.draw, self.guessed));
        let stream = Self::started(|| session.stream(&options));
        self.read(stream, prompt, options);
    }

    /// The session as it comes back from a file, which may have been damaged first.
    fn restored(&mut self, session: Session) -> Session {
        let mut file = Vec::new();
        while let Err(error) = session.save_to(&mut file) {
            // Requests took its memory meanwhile.
            assert_eq!(error.kind(), ErrorKind::OutOfBudget, "{error}");
            file.clear();
            add(&self.counts.events);
            std::thread::sleep(Duration::from_millis(1));
        }
        let tokens = session.tokens().unwrap();
        drop(session);
        if self.draw.once_in(2) {
            let mut damaged = file.clone();
            let place = self.draw.below(file.len() as u64) as usize;
            damaged[place] ^= 1 << self.draw.below(8);
            assert!(self.model.restore_session_from(damaged.as_slice()).is_err(), "byte {place}");
        }
        let restored = self.model.restore_session_from(file.as_slice()).unwrap();
        assert_eq!(restored.tokens().unwrap(), tokens);
        add(&self.counts.restored);
        restored
    }

    fn conversation(&mut self) {
        let mut session = self.model.session().unwrap();
        session.append(self.draw.prompt(), AddSpecialTokens::No).unwrap();
        self.turn(&mut session);
        let mut fork = session.fork().unwrap();
        if self.draw.once_in(2) {
            let length = session.tokens().unwrap().len() as u64;
            session.truncate(1 + self.draw.below(length) as usize).unwrap();
        }
        self.turn(&mut fork);
        if self.draw.once_in(2) {
            session = self.restored(session);
        }
        self.turn(&mut session);
        if self.draw.once_in(2) {
            fork = self.restored(fork);
            self.turn(&mut fork);
        }
    }

    fn run(&mut self, requests: u64) {
        while self.number < requests {
            self.draw = Draw::of(self.seed, self.client, self.number);
            match self.draw.once_in(4) {
                true => self.conversation(),
                false => self.single(),
            }
        }
    }
}

/// Aborts if no client gets anything for minutes.
fn watch(runtime: &Runtime, seed: u64, counts: &Counts) {
    let (mut before, mut quiet) = (0, 0);
    while !counts.all_done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        let events = counts.events.load(Ordering::Relaxed);
        quiet = if events == before { quiet + 1 } else { 0 };
        before = events;
        if quiet == 3000 {
            println!("CLAWDBOT_SOAK_SEED={seed}: no event any more: {:#?}", runtime.metrics());
            std::process::abort();
        }
    }
}

/// Entries of a directory of the system's about this process, where it has one.
fn count(directory: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{directory}")).map_or(0, Iterator::count)
}

/// How a request that is served alone ends, and how it ended: it has the same beginning if it was cancelled or late.
fn assert_same(alone: &Completion, served: &Served) {
    let Served { client, number, completion, .. } = served;
    let which = format!("client {client}, request {number}");
    let (expected, found) = (bits(alone), bits(completion));
    match completion.finish_reason {
        FinishReason::Cancelled | FinishReason::Deadline => assert!(expected.starts_with(&found), "{which}"),
        reason => {
            assert_eq!((found, reason), (expected, alone.finish_reason), "{which}");
            assert_eq!(completion.text, alone.text, "{which}");
        }
    }
}

/// What clients use.
struct Load {
    name: &'static str,
    /// A family's, or the built-in model.
    family: Option<&'static str>,
    kv: KvType,
    guessed: Speculation,
    /// Halves of the longest sequence that there is memory for.
    room: u64,
}

const LOADS: [Load; 4] = [
    Load { name: "built-in", family: None, kv: KvType::Auto, guessed: Speculation::Ngram, room: 3 },
    Load { name: "windows", family: Some("gemma3"), kv: KvType::Int8, guessed: Speculation::Ngram, room: 3 },
    Load { name: "recurrent", family: Some("lfm2"), kv: KvType::Auto, guessed: Speculation::Ngram, room: 3 },
    // Drafts are made where there is memory.
    Load {
        name: "draft model",
        family: Some("llama"),
        kv: KvType::Auto,
        guessed: Speculation::Draft,
        room: 16,
    },
];

impl Load {
    fn source(&self) -> Source {
        self.family.map_or(Source::Builtin, |family| Source::Path(support::family(family)))
    }

    /// The model, and another one that the clients do not use, if theirs is an instance of it.
    fn model(&self, runtime: &RuntimeOptions) -> (Model, Option<Model>) {
        let runtime = Runtime::new(&runtime.clone().threads(2_u32).driver(Driver::Thread)).unwrap();
        let bounds = ModelOptions::default().max_batch(12_u32).max_queue(Some(20)).kv(self.kv);
        let bounds = bounds.max_context(CONTEXT);
        match self.guessed {
            Speculation::Draft => {
                let drafts = self.family.map(support::family);
                let model = runtime.load(&self.source(), &bounds.clone().draft_model(drafts)).unwrap();
                (model.instance(&bounds).unwrap(), Some(model))
            }
            _ => (runtime.load(&self.source(), &bounds).unwrap(), None),
        }
    }

    /// What clients do with a model that does not have room for all they do. Returns what it has counted.
    fn run(&self, seed: u64) -> ModelMetrics {
        let fixed = self.model(&RuntimeOptions::default()).0.runtime().memory_used();
        let alone = Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap();
        let alone =
            alone.load(&self.source(), &ModelOptions::default().kv(self.kv).max_context(CONTEXT)).unwrap();
        let room = alone.info().plan.kv_bytes_full_context * self.room / 2;
        let limits = RuntimeOptions::default().memory_budget(fixed + room + SLACK).swap_space(4 * room);
        let (model, other) = self.model(&limits);
        let runtime = model.runtime().clone();
        let metrics = || runtime.metrics().models.pop().unwrap();
        let idle = runtime.memory_used();
        let counts = Counts::default();
        std::thread::scope(|scope| {
            scope.spawn(|| watch(&runtime, seed, &counts));
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (model, guessed, counts) = (&model, self.guessed, &counts);
                    let draw = Draw::of(seed, client, 0);
                    let mut client = Client { seed, client, number: 0, draw, model, guessed, counts };
                    scope.spawn(move || client.run(requests() / LOADS.len() as u64 / CLIENTS))
                })
                .collect();
            let failed = clients.into_iter().filter_map(|client| client.join().err()).count();
            counts.all_done.store(true, Ordering::Relaxed);
            assert_eq!(failed, 0, "clients failed");
        });
        let (ended, dropped) = (counts.ended.into_inner(), counts.dropped.into_inner());
        soon("nothing is under way", || (metrics().running, metrics().waiting) == (0, 0));
        let found = metrics();
        let outcomes = &found.requests;
        println!(
            "{}: {outcomes:?}, {} restored, {} preemptions, swapped {} times out and {} in, {} and {} pages of prefixes, {} tokens cached, {} of {} drafts right",
            self.name,
            counts.restored.into_inner(),
            found.preemptions,
            found.swap_outs,
            found.swap_ins,
            found.prefix_swap_outs,
            found.prefix_swap_ins,
            found.cached_tokens,
            found.accepted_tokens,
            found.draft_tokens,
        );
        let counted = outcomes.stop + outcomes.length + outcomes.cancelled + outcomes.deadline;
        assert_eq!((counted, outcomes.failed), (ended + dropped, 0));
        assert!(found.cached_tokens > 0 && found.swap_failures == 0, "{found:?}");
        // One more, so that what is held is counted when there are no others.
        model.generate(vec![5, 6, 7], &GenerateOptions::default().max_tokens(1_u32)).unwrap();
        // Pages of prefixes in the swap space leave their entries.
        soon("pages return", || {
            let found = metrics();
            let entries = runtime.memory_used().checked_sub(idle + found.prefix_cache_bytes);
            entries
                .is_some_and(|bytes| bytes.is_multiple_of(ENTRY) && bytes <= ENTRY * found.prefix_swap_outs)
        });
        for request in counts.served.into_inner().unwrap() {
            let options = request.options.clone().deadline_ms(None).speculation(Speculation::None);
            assert_same(&alone.generate(request.prompt.clone(), &options).unwrap(), &request);
        }
        model.close();
        soon("the swap space is empty", || runtime.metrics().swap_used == 0);
        drop((model, other));
        soon("nothing is left of the model", || runtime.memory_used() == 0);
        found
    }
}

/// Says which seed has failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("CLAWDBOT_SOAK_SEED={}", self.0);
        }
    }
}

#[test]
fn whatever_clients_do() {
    let (threads, files) = (count("task"), count("fd"));
    let seed = Seed(variable("CLAWDBOT_SOAK_SEED", 1));
    let found: Vec<ModelMetrics> = LOADS.iter().map(|load| load.run(seed.0)).collect();
    let sum = |of: fn(&ModelMetrics) -> u64| found.iter().map(of).sum::<u64>();
    assert!(sum(|found| found.swap_outs) > 0 && sum(|found| found.swap_ins) > 0, "swap space is used");
    assert!(sum(|found| found.draft_tokens) > 0, "tokens are guessed");
    soon("threads end", || count("task") <= threads);
    soon("files are closed", || count("fd") <= files);
}
