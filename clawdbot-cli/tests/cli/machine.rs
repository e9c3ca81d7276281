//! Machines that are busy, or that give the program less than it sees.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::skipped::{not_installed, skipped};
use crate::support::{Run, run};

const STORY: [&str; 8] =
    ["generate", "--prompt", "Once upon a time", "--max-tokens", "120", "--seed", "7", "--quiet"];
const BENCH: [&str; 7] = ["bench", "--prompt", "24", "--generate", "6", "--no-limits", "--json"];

/// Other work on the machine, until it is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn processes(count: usize) -> Self {
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Busy((0..count).map(|_| spin()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn the_text_is_the_same_on_a_busy_machine_and_with_too_many_threads() {
    let expected = run(&[&STORY[..], &["--threads", "1"]].concat()).text();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let _busy = Busy::processes(2 * cpus);
    for threads in [cpus, 3 * cpus + 1] {
        let found = run(&[&STORY[..], &["--threads", &threads.to_string()]].concat()).text();
        assert_eq!(found, expected, "{threads} threads");
    }
}

/// A control group with one CPU's worth of time, removed when dropped.
struct OneCpu(PathBuf);

impl OneCpu {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = format!("clawdbot-test-{}", std::process::id());
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (root, limits): (_, &[_]) = match controllers {
                "" => ("/sys/fs/cgroup", &[("cpu.max", "100000 100000")]),
                "cpu" | "cpu,cpuacct" => {
                    ("/sys/fs/cgroup/cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")])
                }
                _ => continue,
            };
            let parent = Path::new(root).join(path.trim_start_matches('/'));
            if !parent.join("cgroup.procs").exists() {
                continue;
            }
            let group = parent.join(&name);
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            let group = OneCpu(group);
            if limits.iter().all(|(file, value)| std::fs::write(group.0.join(file), value).is_ok()) {
                return Some(group);
            }
        }
        None
    }

    fn run(&self, args: &[&str]) -> Run {
        let procs = self.0.join("cgroup.procs");
        let script = r#"echo $$ > "$0" || exit 99; exec "$@""#;
        Command::new("sh")
            .args(["-c", script])
            .arg(procs)
            .arg(env!("CARGO_BIN_EXE_clawdbot"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into()
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // The group empties itself a moment after its last process has ended.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn a_quota_of_one_cpu_means_one_thread() {
    let Some(group) = OneCpu::new() else {
        return skipped("a quota of one CPU: control groups cannot be made here");
    };
    let found = group.run(&BENCH);
    if found.code == Some(99) {
        return skipped("a quota of one CPU: processes cannot be moved to another control group here");
    }
    assert_eq!(found.json()["threads"], 1);
    let expected = run(&[&STORY[..], &["--threads", "2"]].concat()).text();
    assert_eq!(group.run(&STORY).text(), expected);
    // More threads than the quota pays for are throttled, not wrong.
    assert_eq!(group.run(&[&STORY[..], &["--threads", "4"]].concat()).text(), expected);
}

#[test]
fn an_affinity_of_one_cpu_means_one_thread() {
    let output =
        Command::new("taskset").args(["-c", "0"]).arg(env!("CARGO_BIN_EXE_clawdbot")).args(BENCH).output();
    let Ok(output) = output else { return not_installed("an affinity of one CPU", "util-linux") };
    assert_eq!(Run::from(output).json()["threads"], 1);
}
