//! Hostile cases in a process of their own, under limits: what would take the tests down with it is then one failed test.

use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set in the child to the name of its test.
const VARIABLE: &str = "CLAWDBOT_TEST_CHILD";
/// What the line begins with that says the child's peak.
const PEAK: &str = "peak of resident memory in MiB: ";
/// Tests run on machines that do other work too.
const PATIENCE: u32 = 4;

/// What a hostile case may take. The default suits an input that is refused.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Address space in MiB: allocations beyond it fail, and abort.
    pub address_space: u64,
    /// Peak of resident memory in MiB.
    pub peak: u64,
    /// CPU time in seconds.
    pub cpu: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { address_space: 3000, peak: 400, cpu: 5 }
    }
}

/// Runs `body`, a test of this test program, in a child process: the test fails if the child fails, is ended by a signal,
/// exceeds a limit or a multiple of the CPU time in wall-clock time, or writes to stderr. Under sanitizers: in this process.
///
/// To be called by the test itself, as its only statement: `in_child(Limits::default(), || { ... })`.
#[track_caller]
pub fn in_child<F: FnOnce()>(limits: Limits, body: F) {
    // Their memory is larger than any limit; they look for other mistakes.
    if std::env::var_os("CLAWDBOT_SANITIZER").is_some() {
        return body();
    }
    let name = test_name::<F>();
    if std::env::var_os(VARIABLE).is_some_and(|value| value == *name) {
        body();
        println!("\n{PEAK}{}", peak());
        return;
    }
    let mut stdout = file();
    let mut stderr = file();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, name).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    // SAFETY: the closure only calls setrlimit, which is async-signal-safe.
    unsafe { command.pre_exec(move || limit(limits)) };
    let child = command.spawn().unwrap();
    let status = wait(child, Duration::from_secs(limits.cpu) * PATIENCE);
    let (out, err) = (text(&mut stdout), text(&mut stderr));
    let status = status.unwrap_or_else(|| panic!("no end\n{out}\n{err}"));
    assert!(status.signal().is_none(), "ended by signal {:?}\n{out}\n{err}", status.signal());
    assert!(status.success(), "{status}\n{out}\n{err}");
    let peak = out.lines().find_map(|line| line.strip_prefix(PEAK)?.parse::<u64>().ok());
    let peak = peak.filter(|_| out.contains("1 passed"));
    let peak = peak.unwrap_or_else(|| panic!("the child ran no test {name:?}\n{out}\n{err}"));
    assert!(peak < limits.peak, "a peak of {peak} MiB, {} are allowed", limits.peak);
    assert!(err.is_empty(), "on stderr: {err}");
}

/// The path of the test that has the closure `F`, as the test program knows it.
fn test_name<F>() -> &'static str {
    let full = std::any::type_name::<F>();
    let inside = full.split_once("::").unwrap().1;
    inside.split("::{{closure}}").next().unwrap()
}

fn limit(limits: Limits) -> std::io::Result<()> {
    let set = |what, soft, hard| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limit` outlives the call.
        if unsafe { libc::setrlimit(what, &raw const limit) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    set(libc::RLIMIT_AS, limits.address_space << 20, limits.address_space << 20)?;
    set(libc::RLIMIT_CPU, limits.cpu, limits.cpu + 1)?;
    set(libc::RLIMIT_CORE, 0, 0)
}

/// Whether this process is a child that [`in_child`] began.
#[allow(dead_code, reason = "not every test program asks")]
pub fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The most resident memory so far, in MiB. Not what `wait4` says, which counts the parent's pages at the fork.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() >> 10
}

/// Waits for the child, but kills it after `patience`; `None` if it had to.
fn wait(mut child: Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file without a name.
fn file() -> std::fs::File {
    // SAFETY: the name is a C string; the flags are valid.
    let descriptor = unsafe { libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: `memfd_create` has just opened the descriptor, as asserted, and nothing else owns it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) }
}

fn text(file: &mut std::fs::File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
