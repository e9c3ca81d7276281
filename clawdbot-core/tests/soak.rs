//! Random requests from several threads at once, in a budget that does not hold them all: none is lost, nothing leaks, and
//! each gets what it would get alone. `CLAWDBOT_SOAK` says how many requests (default 400; 10,000 take minutes).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawdbot_core::{
    AddSpecialTokens, Completion, Driver, ErrorKind, Event, FinishReason, GenerateOptions, KvType, Model,
    ModelOptions, Runtime, RuntimeOptions, Session, Source, Stream,
};

/// Programs that use the model at the same time.
const CLIENTS: u64 = 8;
/// Requests whose bits are compared with those they have alone.
const SAMPLE: usize = 500;

/// xorshift64*: the same numbers everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// With a probability of 1 in `of`.
    fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

fn requests() -> u64 {
    std::env::var("CLAWDBOT_SOAK").map_or(400, |text| text.parse().unwrap())
}

/// Many prompts begin as others do.
fn prompt(draw: &mut Draw) -> Vec<u32> {
    let (beginning, length) = (draw.below(4) as u32, [0, 70, 130, 260][draw.below(4) as usize]);
    let own = 1 + draw.below(90);
    let beginning = (0..length).map(|i| 3 + (i * 37 + beginning * 101) % 500);
    beginning.chain((0..own).map(|_| 3 + draw.below(500) as u32)).collect()
}

fn options(draw: &mut Draw) -> GenerateOptions {
    let mut options = GenerateOptions::default().max_tokens(1 + draw.below(60) as u32).logprobs(2_u32);
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
    options
}

/// A request as it was made, and what came of it.
struct Served {
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

/// What a client does, and what it counts.
struct Client<'a> {
    model: &'a Model,
    draw: Draw,
    served: &'a Mutex<Vec<Served>>,
    ended: &'a AtomicU64,
    dropped: &'a AtomicU64,
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

    /// Reads a stream as clients do: at once, with pauses, not to its end, or not at all.
    fn read(&mut self, mut stream: Stream, prompt: Vec<u32>, options: GenerateOptions) {
        let (mut tokens, stalls) = (0, self.draw.once_in(6));
        let cancelled_after = self.draw.once_in(8).then(|| self.draw.below(20));
        if self.draw.once_in(12) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return drop(stream);
        }
        let handle = stream.cancel_handle();
        let completion = loop {
            match stream.next_event().unwrap().unwrap() {
                Event::Token { .. } => tokens += 1,
                Event::Done(completion) => break completion,
                _ => {}
            }
            if stalls {
                std::thread::sleep(Duration::from_millis(self.draw.below(3)));
            }
            if cancelled_after == Some(tokens) {
                handle.cancel();
            }
        };
        assert!(stream.next_event().unwrap().is_none(), "an event after the last");
        assert_eq!(tokens, completion.token_ids.len() as u64, "an event for each token");
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.served.lock().unwrap().push(Served { prompt, options, completion: *completion });
    }

    fn single(&mut self) {
        let (prompt, mut options) = (prompt(&mut self.draw), options(&mut self.draw));
        if self.draw.once_in(6) {
            options = options.deadline_ms(Some(self.draw.below(60)));
        }
        let stream = Self::started(|| self.model.stream(prompt.clone(), &options));
        self.read(stream, prompt, options);
    }

    /// A request of a session, which keeps its tokens.
    fn turn(&mut self, session: &mut Session) {
        let more: Vec<u32> = (0..1 + self.draw.below(40)).map(|_| 3 + self.draw.below(500) as u32).collect();
        session.append(more, AddSpecialTokens::No).unwrap();
        let (prompt, options) = (session.tokens().unwrap(), options(&mut self.draw));
        let stream = Self::started(|| session.stream(&options));
        self.read(stream, prompt, options);
    }

    fn conversation(&mut self) -> u64 {
        let mut session = self.model.session().unwrap();
        session.append(prompt(&mut self.draw), AddSpecialTokens::No).unwrap();
        self.turn(&mut session);
        let mut fork = session.fork().unwrap();
        if self.draw.once_in(2) {
            let length = session.tokens().unwrap().len() as u64;
            session.truncate(1 + self.draw.below(length) as usize).unwrap();
        }
        self.turn(&mut fork);
        self.turn(&mut session);
        3
    }

    fn run(&mut self, requests: u64) {
        let mut made = 0;
        while made < requests {
            made += match self.draw.once_in(5) {
                true => self.conversation(),
                false => {
                    self.single();
                    1
                }
            };
        }
    }
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn load(driver: Driver, budget: Option<u64>, kv: KvType) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver).memory_budget(budget);
    let options = match driver {
        Driver::Thread => ModelOptions::default().max_batch(12_u32).max_queue(Some(20)),
        _ => ModelOptions::default(),
    };
    Runtime::new(&runtime).unwrap().load(&Source::Builtin, &options.kv(kv)).unwrap()
}

/// How a request that is served alone ends, and how it ended: it has the same beginning if it was cancelled or late.
fn assert_same(alone: &Completion, served: &Completion) {
    let (expected, found) = (bits(alone), bits(served));
    match served.finish_reason {
        FinishReason::Cancelled | FinishReason::Deadline => assert!(expected.starts_with(&found)),
        reason => {
            assert_eq!((found, reason), (expected, alone.finish_reason));
            assert_eq!(served.text, alone.text);
        }
    }
}

#[test]
fn whatever_clients_do() {
    for (kv, seed) in [(KvType::Auto, 1), (KvType::Int8, 2)] {
        let before = threads();
        let alone = load(Driver::Caller, None, kv);
        // Room for the weights, and for two or three of the longest sequences.
        let budget = alone.runtime().memory_used() + (2 << 20);
        let model = load(Driver::Thread, Some(budget), kv);
        let runtime = model.runtime().clone();
        let (served, ended, dropped) = (Mutex::new(Vec::new()), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (model, served, ended, dropped) = (&model, &served, &ended, &dropped);
                let draw = Draw((seed << 32) + number * 7919 + 1);
                let mut client = Client { model, draw, served, ended, dropped };
                scope.spawn(move || client.run(requests() / 2 / CLIENTS));
            }
        });
        let metrics = runtime.metrics();
        assert!(metrics.memory_used <= budget);
        let found = &metrics.models[0];
        let outcomes = &found.requests;
        let counted = outcomes.stop + outcomes.length + outcomes.cancelled + outcomes.deadline;
        let (ended, dropped) = (ended.into_inner(), dropped.into_inner());
        println!("{outcomes:?}, {} preemptions, {} cached tokens", found.preemptions, found.cached_tokens);
        assert_eq!((counted, outcomes.failed), (ended + dropped, 0));
        assert_eq!((found.running, found.waiting), (0, 0));
        assert!(found.cached_tokens > 0, "prefixes are shared");
        let served = served.into_inner().unwrap();
        let step = served.len().div_ceil(SAMPLE);
        for request in served.iter().step_by(step) {
            let options = request.options.clone().deadline_ms(None);
            assert_same(&alone.generate(request.prompt.clone(), &options).unwrap(), &request.completion);
        }
        model.close();
        drop(model);
        assert_eq!(runtime.memory_used(), 0, "nothing is left of the model");
        drop((runtime, alone));
        // Threads end a little later than what waits for them.
        let ends = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            threads() <= before
        });
        assert!(ends, "{} threads are left", threads() - before);
    }
}
