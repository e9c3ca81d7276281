//! How much memory this process can have: of the machine, of its cgroup, of its limits.

use std::path::{Path, PathBuf};

/// Values from here on say that there is no limit: cgroup v1 writes the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

/// Bytes of memory that this process can have: the least of the machine's memory, the limits of its cgroups, and what the
/// limits of its address space and data leave beyond what it has now. `None` where the system does not say.
pub(super) fn memory() -> Option<u64> {
    memory_in(Path::new("/"))
}

/// Address space that glibc reserves for each thread that allocates.
const ARENA: u64 = 64 << 20;

/// Bytes that the allocator may reserve for `threads` threads without using them: at most a quarter of what the process's
/// limits leave, 0 without such limits.
pub(super) fn reserved(threads: usize) -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let left = process(&read("/proc/self/limits"), &read("/proc/self/status"));
    left.map_or(0, |left| ARENA.saturating_mul(threads as u64).min(left / 4))
}

/// As [`memory`], of the system whose files are under `root`.
fn memory_in(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| machine(&text));
    let status = read("proc/self/status").unwrap_or_default();
    let process = read("proc/self/limits").and_then(|limits| process(&limits, &status));
    let groups = read("proc/self/cgroup").map_or_else(Vec::new, |text| group_files(&text));
    let groups = groups.into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        // "max" where there is no limit.
        text.trim().parse().ok().filter(|&bytes| bytes < UNLIMITED)
    });
    machine.into_iter().chain(process).chain(groups).filter(|&bytes| bytes > 0).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    kilobytes(text, "MemTotal:")
}

/// The value of `key`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// What the soft limits of address space and data in `/proc/self/limits` leave beyond what `/proc/self/status` says is in
/// use.
fn process(limits: &str, status: &str) -> Option<u64> {
    let left = |(name, used): (&str, &str)| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(limit.saturating_sub(kilobytes(status, used).unwrap_or(0)).max(1))
    };
    [("Max address space", "VmSize:"), ("Max data size", "VmData:")].into_iter().filter_map(left).min()
}

/// Files with limits of the cgroups that `/proc/self/cgroup` names, and of the groups around them, relative to the root.
fn group_files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.lines() {
        // hierarchy:controllers:path
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path may be that of the host, but the group's own files are at the top.
        files.extend(
            Path::new(path.trim_start_matches('/'))
                .ancestors()
                .map(|group| Path::new(mount).join(group).join(file)),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("clawdbot-memory-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = memory_in(&root);
        let _ = std::fs::remove_dir_all(root);
        found
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max data size             unlimited            unlimited            bytes     \n\
        Max address space         ";

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MEMINFO]), Some(16 << 20));
        let limited = |space: &str| system(&[MEMINFO, ("proc/self/limits", &format!("{LIMITS}{space}"))]);
        assert_eq!(limited("1000000   2000000    bytes"), Some(1_000_000));
        assert_eq!(limited("unlimited unlimited bytes"), Some(16 << 20));
        // What the process has already, it cannot have once more.
        let used = |used: &str| {
            let limits = format!("{LIMITS}1000000   2000000    bytes");
            let status = format!("Name:\tx\nVmSize:\t{used} kB\nVmData:\t9999999 kB\n");
            system(&[MEMINFO, ("proc/self/limits", &limits), ("proc/self/status", &status)])
        };
        assert_eq!([used("100"), used("2000")], [Some(1_000_000 - 102_400), Some(1)]);
    }

    #[test]
    fn groups_of_both_versions_and_those_around_them() {
        let second = |inner: &str, outer: &str| {
            system(&[
                MEMINFO,
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", inner),
                ("sys/fs/cgroup/a/memory.max", outer),
            ])
        };
        assert_eq!(second("max\n", "max\n"), Some(16 << 20));
        assert_eq!(second("5000\n", "max\n"), Some(5000));
        assert_eq!(second("5000\n", "4000\n"), Some(4000));
        let first = |limit: &str| {
            system(&[
                MEMINFO,
                ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/x\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
            ])
        };
        assert_eq!(first("7000\n"), Some(7000));
        assert_eq!(first("9223372036854771712\n"), Some(16 << 20));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        for text in ["", ":", "a:b", "0::", "0::/../../x", "x:memory"] {
            assert_eq!(system(&[MEMINFO, ("proc/self/cgroup", text)]), Some(16 << 20), "{text:?}");
        }
        assert_eq!(system(&[("proc/meminfo", "MemTotal: many kB")]), None);
        if cfg!(target_os = "linux") {
            assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
