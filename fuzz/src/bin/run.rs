//! Mutates files at random and parses them: no panic, no abort, no hang, no memory beyond a bound. See `README.md`.
//!
//! A child process with a limited address space does the work. It writes each input to a file before it parses it: when a
//! signal ends the child, the parent keeps that input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawdbot_core::ErrorKind;
use clawdbot_fuzz::mutate::mutate;
use clawdbot_fuzz::rng::Rng;
use clawdbot_fuzz::{TARGETS, Target};

/// Memory that one input may take at most, in bytes. Names of tensors are the most: see `MAX_EXPERTS` in `spec/mod.rs`.
const MAX_BYTES: usize = 128 << 20;
/// Time that one input may take at most.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Address space of the process that parses, in bytes: larger allocations fail, which aborts it.
const MAX_ADDRESS_SPACE: u64 = 3 << 30;
/// In the child: the path of the file that it writes its input to.
const VARIABLE: &str = "CLAWDBOT_FUZZ_INPUT";
/// Inputs to mutate that are kept for each target: those with a new outcome.
const MAX_CORPUS: usize = 2000;

const USAGE: &str = "usage: run [--runs N] [--seconds N] [--seed N] [--target NAME] [FILE ...]

  --runs N       inputs in all (default: 100000)
  --seconds N    ends earlier
  --seed N       another sequence of inputs (default: 1)
  --target NAME  this parser only
  FILE ...       parses these with --target, and nothing else";

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

/// `pointer`. A failed allocation does not count as live.
fn counted(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
    }
    pointer
}

// SAFETY: every call is passed to the system's allocator unchanged; the counters touch none of its memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System` too.
        counted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, which is that of `System` too.
        counted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, which is that of `System` too.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, which is that of `System` too.
        let moved = counted(unsafe { System.realloc(pointer, layout, size) }, size);
        if !moved.is_null() {
            LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is being parsed.
struct Current {
    start: Instant,
    target: &'static str,
    input: Vec<u8>,
}

/// For the thread that watches the time.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

/// The file that the parent reads when the child dies.
static LEFT: Mutex<Option<File>> = Mutex::new(None);

/// Where the last panic was, whether or not it became an error.
static PANICKED: Mutex<String> = Mutex::new(String::new());

/// What was seen of a target.
#[derive(Default)]
struct Report {
    runs: u64,
    accepted: u64,
    outcomes: HashSet<String>,
    most_bytes: usize,
    longest: Duration,
    time: Duration,
}

/// Saves a finding's input, and says where.
fn keep(target: &str, what: &str, input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts");
    let path = format!("{dir}/{target}-{what}-{hash:016x}");
    match std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, input)) {
        Ok(()) => path,
        Err(error) => format!("{path}: {error}"),
    }
}

/// Writes down what is being parsed: the target's name, a line feed, the input.
fn leave(target: &str, input: &[u8]) -> std::io::Result<()> {
    let Ok(mut left) = LEFT.lock() else { return Ok(()) };
    let Some(file) = left.as_mut() else { return Ok(()) };
    let bytes = [target.as_bytes(), b"\n", input].concat();
    file.rewind()?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)
}

/// The words of a message without names and numbers.
fn outcome(message: &str) -> String {
    let mut words = String::new();
    let mut quoted = false;
    for c in message.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '0'..='9' if words.ends_with('#') => {}
            '0'..='9' => words.push('#'),
            _ => words.push(c),
        }
    }
    words.chars().take(120).collect()
}

/// Parses one input.
///
/// # Errors
/// A finding.
fn one(target: &Target, input: &[u8], report: &mut Report) -> Result<String, String> {
    if let Ok(mut current) = CURRENT.lock() {
        *current = Some(Current { start: Instant::now(), target: target.name, input: input.to_vec() });
    }
    leave(target.name, input).map_err(|error| format!("the file for the parent: {error}"))?;
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let time = start.elapsed();
    let panicked = PANICKED.lock().map(|mut at| std::mem::take(&mut *at)).unwrap_or_default();
    let bytes = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    if let Ok(mut current) = CURRENT.lock() {
        *current = None;
    }
    report.runs += 1;
    report.time += time;
    report.most_bytes = report.most_bytes.max(bytes);
    report.longest = report.longest.max(time);
    let found = |what: &str, detail: String| {
        Err(format!("{}: {detail}: {}", target.name, keep(target.name, what, input)))
    };
    let message = match result {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            return found("panic", format!("panic at {panicked}: {}", text.unwrap_or_default()));
        }
        Ok(_) if !panicked.is_empty() => {
            return found("panic", format!("a panic that is caught, at {panicked}"));
        }
        Ok(Err(error)) if error.kind() == ErrorKind::Internal => return found("internal", error.to_string()),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) => {
            report.accepted += 1;
            String::new()
        }
    };
    if bytes > MAX_BYTES {
        return found("memory", format!("{bytes} bytes for an input of {}", input.len()));
    }
    if time > MAX_TIME {
        return found("slow", format!("{:.1} s for an input of {} bytes", time.as_secs_f64(), input.len()));
    }
    Ok(outcome(&message))
}

struct Arguments {
    runs: u64,
    seconds: u64,
    seed: u64,
    target: Option<String>,
    files: Vec<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { runs: 100_000, seconds: u64::MAX, seed: 1, target: None, files: Vec::new() };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        if !argument.starts_with("--") {
            parsed.files.push(argument);
            continue;
        }
        let value = rest.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|_| USAGE.to_owned());
        match argument.as_str() {
            "--runs" => parsed.runs = number()?,
            "--seconds" => parsed.seconds = number()?,
            "--seed" => parsed.seed = number()?,
            "--target" => parsed.target = Some(value),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let child = std::env::var_os(VARIABLE);
    let result = arguments().and_then(|arguments| match child {
        Some(path) => limit(path.as_ref()).and_then(|()| {
            let done = clawdbot_core::fuzz_support::on_large_stack(|| fuzz(&arguments));
            done.unwrap_or_else(|error| Err(error.to_string()))
        }),
        None => in_child(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again with the same arguments, as the child.
///
/// # Errors
/// The child's findings, or the input that ended it.
fn in_child() -> Result<(), String> {
    let path = std::env::temp_dir().join(format!("clawdbot-fuzz-input-{}", std::process::id()));
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, &path).status();
    let left = std::fs::read(&path).unwrap_or_default();
    // What cannot be removed is left to the system.
    let _ = std::fs::remove_file(&path);
    let status = status.map_err(|error| error.to_string())?;
    match status.code() {
        Some(0) => Ok(()),
        Some(_) => Err("there are findings, or the arguments are wrong: see above".to_owned()),
        None => {
            let end = left.iter().position(|&byte| byte == b'\n').unwrap_or(left.len());
            let (target, input) =
                (String::from_utf8_lossy(&left[..end]), left.get(end + 1..).unwrap_or_default());
            Err(format!("{target}: {status}: {}", keep(&target, "abort", input)))
        }
    }
}

/// In the child: limits its address space, and opens the file for its input.
fn limit(path: &std::path::Path) -> Result<(), String> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if let Ok(mut left) = LEFT.lock() {
        *left = Some(file);
    }
    #[cfg(target_os = "linux")]
    {
        let limit = libc::rlimit { rlim_cur: MAX_ADDRESS_SPACE, rlim_max: MAX_ADDRESS_SPACE };
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both are valid for the time of their call.
        let set = unsafe {
            libc::setrlimit(libc::RLIMIT_AS, &raw const limit)
                | libc::setrlimit(libc::RLIMIT_CORE, &raw const none)
        };
        if set != 0 {
            return Err(format!("setrlimit: {}", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn fuzz(arguments: &Arguments) -> Result<(), String> {
    let wanted = |target: &&Target| arguments.target.as_ref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("{USAGE}\n\ntargets: {}", names.join(", ")));
    }
    // Panics are reported with their input.
    std::panic::set_hook(Box::new(|info| {
        if let (Ok(mut at), Some(location)) = (PANICKED.lock(), info.location()) {
            *at = location.to_string();
        }
    }));
    std::thread::spawn(watch);
    let mut reports: BTreeMap<&str, Report> = BTreeMap::new();
    let mut findings = Vec::new();
    if !arguments.files.is_empty() {
        for file in &arguments.files {
            let input = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            for target in &targets {
                let outcome = one(target, &input, reports.entry(target.name).or_default());
                println!("{file}: {outcome:?}");
                findings.extend(outcome.err());
            }
        }
        return if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) };
    }
    let mut corpora: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut counts = Vec::new();
    for target in &targets {
        let seeds = (target.seeds)();
        counts.push(seeds.len());
        let report = reports.entry(target.name).or_default();
        for (number, seed) in seeds.iter().enumerate() {
            let outcome = one(target, seed, report)?;
            if !outcome.is_empty() {
                return Err(format!("{}: seed {number} is refused: {outcome}", target.name));
            }
            report.outcomes.insert(outcome);
        }
        corpora.push(seeds);
    }
    let shares: u32 = targets.iter().map(|target| target.share).sum();
    let mut rng = Rng(arguments.seed);
    let (start, mut shown) = (Instant::now(), Instant::now());
    for run in 0..arguments.runs {
        let mut place = rng.below(shares as usize) as u32;
        let chosen = targets.iter().position(|target| {
            let here = place < target.share;
            place = place.saturating_sub(target.share);
            here
        });
        let chosen = chosen.unwrap_or(0);
        let (target, corpus) = (targets[chosen], &mut corpora[chosen]);
        // From a seed as often as from what grew out of them.
        let from = if rng.one_in(2) { &corpus[..counts[chosen]] } else { corpus.as_slice() };
        let mut input = rng.pick(from).clone();
        let other = rng.pick(corpus).clone();
        mutate(&mut input, &other, &mut rng, target.text);
        let report = reports.entry(target.name).or_default();
        match one(target, &input, report) {
            Err(finding) => {
                // One of a kind is enough.
                if report.outcomes.insert(outcome(&finding)) {
                    println!("FOUND {finding}");
                    findings.push(finding);
                }
            }
            Ok(outcome) => {
                if report.outcomes.insert(outcome) && corpus.len() < MAX_CORPUS {
                    corpus.push(input);
                }
            }
        }
        if shown.elapsed() > Duration::from_secs(60) {
            shown = Instant::now();
            println!("{} runs, {:.0} s", run + 1, start.elapsed().as_secs_f64());
        }
        if run % 256 == 0 && start.elapsed().as_secs() >= arguments.seconds {
            break;
        }
    }
    println!(
        "{:12} {:>10} {:>9} {:>9} {:>9} {:>12} {:>11}",
        "target", "runs", "runs/s", "accepted", "outcomes", "most memory", "longest"
    );
    let mut all = 0;
    for (name, report) in &reports {
        all += report.runs;
        println!(
            "{name:12} {:10} {:9.0} {:9} {:9} {:8.1} MiB {:8.1} ms",
            report.runs,
            report.runs as f64 / report.time.as_secs_f64().max(1e-9),
            report.accepted,
            report.outcomes.len(),
            report.most_bytes as f64 / f64::from(1 << 20),
            report.longest.as_secs_f64() * 1e3
        );
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{all} runs in {seconds:.0} s, {:.0} a second; {} findings",
        all as f64 / seconds,
        findings.len()
    );
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// Ends the program when an input takes far too long: nothing else can.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let Ok(current) = CURRENT.lock() else { return };
        if let Some(Current { start, target, input }) = &*current
            && start.elapsed() > 2 * MAX_TIME
        {
            eprintln!("{target}: a hang: {}", keep(target, "hang", input));
            std::process::exit(1);
        }
    }
}
