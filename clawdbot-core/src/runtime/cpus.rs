//! How many threads are worth having: CPU quota, affinity and physical cores.

use std::collections::BTreeSet;
use std::path::Path;

/// What this process may compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cpus {
    /// CPUs the process may run on, limited by the cgroup's CPU quota (rounded down, at least 1).
    pub available: usize,
    /// Physical cores among the CPUs of the affinity mask; `None` where the system does not say.
    pub physical: Option<usize>,
}

impl Cpus {
    /// Asks the operating system.
    pub fn detect() -> Self {
        // The standard library reads affinity and cgroup quotas (v1 and v2).
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        Cpus { available, physical: physical_cores() }
    }

    /// The default number of threads: one per physical core that the quota and the affinity allow.
    pub fn threads(&self) -> usize {
        self.available.min(self.physical.unwrap_or(usize::MAX)).max(1)
    }
}

#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    count_cores(&parse_list(list)?, Path::new("/sys/devices/system/cpu"))
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// Number of distinct groups of sibling threads among `cpus`.
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "sysfs exists on Linux alone; tests use it everywhere")
)]
fn count_cores(cpus: &BTreeSet<usize>, sysfs: &Path) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for cpu in cpus {
        let siblings =
            std::fs::read_to_string(sysfs.join(format!("cpu{cpu}/topology/thread_siblings_list"))).ok()?;
        cores.insert(parse_list(&siblings)?.first().copied()?);
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Parses the kernel's list format, such as `0-3,8`.
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "sysfs exists on Linux alone; tests use it everywhere")
)]
pub(super) fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    /// Beyond any kernel's limit: a list that claims more is not believed.
    const MAX_CPU: usize = 1 << 16;
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok()?;
        if first > last || last > MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parse_list("0-2,5\n").unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2, 5]);
        for bad in ["", "a", "3-1", "0-99999999"] {
            assert!(parse_list(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn at_least_one_thread() {
        assert!(Cpus::detect().threads() >= 1);
        assert_eq!(Cpus { available: 8, physical: Some(4) }.threads(), 4);
        assert_eq!(Cpus { available: 2, physical: Some(4) }.threads(), 2);
        assert_eq!(Cpus { available: 2, physical: None }.threads(), 2);
    }
}
