//! Memory nodes (NUMA) and their CPUs, and who runs and what lies where.

use std::collections::BTreeSet;
use std::io::ErrorKind::PermissionDenied;
use std::path::Path;

use clawdbot_kernels::Error as Refused;
use clawdbot_kernels::numa::{Placement, Seat};
use clawdbot_kernels::threads::ThreadPool;

use super::cpus::parse_list;
use crate::error::{Error, Result};
use crate::options::Numa;

/// Most nodes that are believed: as many as Linux can have.
const MAX_NODE: usize = 1 << 10;
/// Most bytes of a file of the system that are read.
const MAX_FILE: u64 = 1 << 20;

/// The nodes that have CPUs which this process may use, in ascending order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topology(Vec<Node>);

#[derive(Debug, PartialEq, Eq)]
struct Node {
    id: u32,
    /// Those of the process. Ascending.
    cpus: Vec<usize>,
    /// Whether it has memory that the process may use.
    memory: bool,
}

impl Topology {
    /// Asks the operating system.
    ///
    /// # Errors
    /// Where it has no nodes, or says something that cannot be, what that is.
    pub(super) fn detect() -> Result<Self, String> {
        if cfg!(target_os = "linux") {
            Self::read(Path::new("/"))
        } else {
            Err("only Linux lets programs choose nodes".to_owned())
        }
    }

    /// As [`detect`](Self::detect), of the system whose files are under `root`.
    fn read(root: &Path) -> Result<Self, String> {
        let read = |path: &str| read_text(&root.join(path)).map_err(|error| format!("/{path}: {error}"));
        let list = |path: &str| parse(&read(path)?).ok_or_else(|| format!("/{path} is no list of numbers"));
        // Of this thread: another runtime may hold the main thread to a node.
        let status = read("proc/thread-self/status")?;
        let allowed = |key: &str| {
            let text = status.lines().find_map(|line| line.strip_prefix(key));
            text.and_then(parse).ok_or_else(|| format!("/proc/thread-self/status has no {key} with a list"))
        };
        let (cpus, memory) = (allowed("Cpus_allowed_list:")?, allowed("Mems_allowed_list:")?);
        let online = list("sys/devices/system/node/online")?;
        let with_memory = list("sys/devices/system/node/has_memory")?;
        let (mut nodes, mut seen) = (Vec::new(), BTreeSet::new());
        for id in online {
            let path = format!("sys/devices/system/node/node{id}/cpulist");
            let own = list(&path)?;
            if let Some(cpu) = own.iter().find(|cpu| !seen.insert(**cpu)) {
                return Err(format!("/{path} has CPU {cpu}, which another node has too"));
            }
            let cpus: Vec<usize> = own.intersection(&cpus).copied().collect();
            if cpus.is_empty() {
                continue;
            }
            if id >= MAX_NODE {
                return Err(format!("/sys/devices/system/node has node {id}, which cannot be"));
            }
            let memory = memory.contains(&id) && with_memory.contains(&id);
            nodes.push(Node { id: id as u32, cpus, memory });
        }
        match nodes.is_empty() {
            true => Err("no node has CPUs that this process may use".to_owned()),
            false => Ok(Topology(nodes)),
        }
    }

    /// Who runs and what lies where, with `threads` threads; `None` where the system decides.
    ///
    /// # Errors
    /// What the machine lacks.
    fn placement(&self, numa: Numa, threads: usize) -> Result<Option<Placement>, String> {
        let Topology(nodes) = self;
        match numa {
            Numa::Off => Ok(None),
            Numa::Interleave => {
                let ids: Vec<u32> = nodes.iter().filter(|node| node.memory).map(|node| node.id).collect();
                match ids.is_empty() {
                    true => Err("no node has both CPUs and memory that this process may use".to_owned()),
                    false => Ok(Some(Placement::Interleaved(ids))),
                }
            }
            Numa::Local => {
                if let Some(node) = nodes.iter().find(|node| !node.memory) {
                    let id = node.id;
                    return Err(format!("node {id} has CPUs, but no memory that this process may use"));
                }
                let seat = |thread| {
                    let Node { id, cpus, .. } = self.node_of(thread, threads);
                    Seat { node: *id, cpus: cpus.clone() }
                };
                Ok(Some(Placement::Local((0..threads).map(seat).collect())))
            }
        }
    }

    /// The node of a thread. Neighbours share a node, and each node has threads in proportion to its CPUs.
    fn node_of(&self, thread: usize, threads: usize) -> &Node {
        let Topology(nodes) = self;
        let all: usize = nodes.iter().map(|node| node.cpus.len()).sum();
        let mut place = thread * all / threads;
        for node in nodes {
            match place.checked_sub(node.cpus.len()) {
                Some(rest) => place = rest,
                None => return node,
            }
        }
        &nodes[nodes.len() - 1]
    }
}

/// What the option asks for, of this machine.
///
/// # Errors
/// `InvalidArgument` where the machine cannot do it.
pub(super) fn placement(numa: Numa, threads: usize) -> Result<Option<Placement>> {
    if numa == Numa::Off {
        return Ok(None);
    }
    Topology::detect()
        .and_then(|topology| topology.placement(numa, threads))
        .map_err(|problem| impossible(numa, problem))
}

/// A pool whose threads and pages are placed so.
///
/// # Errors
/// `InvalidArgument` where the system refuses.
pub(super) fn pool(numa: Numa, threads: usize, placement: Placement) -> Result<ThreadPool> {
    ThreadPool::placed(threads, placement).map_err(|error| match error {
        Refused::Placement { error: ref reason, .. } if reason.kind() == PermissionDenied => {
            // Docker's profile of system calls says so.
            impossible(numa, format_args!("{error}; containers must be allowed to (CAP_SYS_NICE)"))
        }
        Refused::Placement { .. } => impossible(numa, error),
        other => other.into(),
    })
}

/// The error about a value that this machine cannot do.
fn impossible(numa: Numa, problem: impl std::fmt::Display) -> Error {
    const EXPECTED: &str = "a value that this machine can do";
    Error::invalid_argument(format!("option numa: expected {EXPECTED}, found {numa}: {problem}"))
        .with("option", "numa")
        .with("expected", EXPECTED)
        .with("found", numa.name())
}

/// In words, for the log.
pub(super) fn describe(placement: &Placement) -> String {
    match placement {
        Placement::Interleaved(nodes) => format!("pages of weights alternate between nodes {nodes:?}"),
        Placement::Local(seats) => {
            let parts = seats.chunk_by(|a, b| a.node == b.node);
            let parts = parts.map(|seats| format!("{} threads on node {}", seats.len(), seats[0].node));
            parts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A list of the kernel's, which may be empty.
fn parse(text: &str) -> Option<BTreeSet<usize>> {
    if text.trim().is_empty() { Some(BTreeSet::new()) } else { parse_list(text) }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A machine: files of the system under a directory that goes with the value.
    struct Machine(std::path::PathBuf);

    impl Machine {
        /// `nodes`: number and list of CPUs.
        fn new(nodes: &[(usize, &str)]) -> Self {
            static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
            let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("clawdbot-topology-{}-{next}", std::process::id());
            let machine = Machine(std::env::temp_dir().join(name));
            let ids: Vec<String> = nodes.iter().map(|(id, _)| id.to_string()).collect();
            let ids = ids.join(",");
            for (id, cpus) in nodes {
                machine.write(&format!("sys/devices/system/node/node{id}/cpulist"), format!("{cpus}\n"));
            }
            machine.write("sys/devices/system/node/online", format!("{ids}\n"));
            machine.write("sys/devices/system/node/has_memory", format!("{ids}\n"));
            machine.allow("0-255", "0-63");
            machine
        }

        fn allow(&self, cpus: &str, nodes: &str) {
            let status = format!(
                "Name:\tx\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\nMems_allowed_list:\t{nodes}\n"
            );
            self.write("proc/thread-self/status", &status);
        }

        fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn read(&self) -> Result<Topology, String> {
            Topology::read(&self.0)
        }

        fn error(&self) -> String {
            self.read().unwrap_err()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn node(id: u32, cpus: &[usize], memory: bool) -> Node {
        Node { id, cpus: cpus.to_vec(), memory }
    }

    /// The nodes of the threads.
    fn seats(topology: &Topology, threads: usize) -> Vec<u32> {
        match topology.placement(Numa::Local, threads).unwrap() {
            Some(Placement::Local(seats)) => seats.iter().map(|seat| seat.node).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn interleaved(topology: &Topology) -> Vec<u32> {
        match topology.placement(Numa::Interleave, 4).unwrap() {
            Some(Placement::Interleaved(nodes)) => nodes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_node() {
        let topology = Machine::new(&[(0, "0-3")]).read().unwrap();
        assert_eq!(topology, Topology(vec![node(0, &[0, 1, 2, 3], true)]));
        assert_eq!((seats(&topology, 3), interleaved(&topology)), (vec![0; 3], vec![0]));
        assert_eq!(topology.placement(Numa::Off, 3), Ok(None));
    }

    #[test]
    fn two_nodes_of_four_cpus() {
        let topology = Machine::new(&[(0, "0-3"), (1, "4-7")]).read().unwrap();
        assert_eq!(topology, Topology(vec![node(0, &[0, 1, 2, 3], true), node(1, &[4, 5, 6, 7], true)]));
        assert_eq!(seats(&topology, 8), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(seats(&topology, 2), [0, 1]);
        assert_eq!(seats(&topology, 3), [0, 0, 1]);
        assert_eq!(seats(&topology, 1), [0]);
        // More threads than CPUs.
        assert_eq!(seats(&topology, 16), [[0; 8], [1; 8]].concat());
        assert_eq!(interleaved(&topology), [0, 1]);
        let Some(Placement::Local(seats)) = topology.placement(Numa::Local, 8).unwrap() else { panic!() };
        assert_eq!(seats[7], Seat { node: 1, cpus: vec![4, 5, 6, 7] });
        assert_eq!(describe(&Placement::Local(seats)), "4 threads on node 0, 4 threads on node 1");
    }

    #[test]
    fn sparse_numbers_and_siblings_apart() {
        let topology = Machine::new(&[(1, "0-1,8-9"), (8, "2-3,10-11")]).read().unwrap();
        assert_eq!(topology, Topology(vec![node(1, &[0, 1, 8, 9], true), node(8, &[2, 3, 10, 11], true)]));
        assert_eq!(seats(&topology, 4), [1, 1, 8, 8]);
    }

    #[test]
    fn nodes_that_are_memory_alone_do_not_count() {
        // Of CXL, or of an accelerator.
        let topology = Machine::new(&[(0, "0-3"), (1, "4-7"), (2, ""), (3, "")]).read().unwrap();
        assert_eq!((interleaved(&topology), seats(&topology, 4)), (vec![0, 1], vec![0, 0, 1, 1]));
    }

    #[test]
    fn only_what_the_process_may_use() {
        // CPUs that are offline are in no node's list, though the process might use them.
        let machine = Machine::new(&[(0, "0-3"), (1, "4,6-7")]);
        machine.allow("1-5", "0-1");
        let topology = machine.read().unwrap();
        assert_eq!(topology, Topology(vec![node(0, &[1, 2, 3], true), node(1, &[4], true)]));
        assert_eq!(seats(&topology, 4), [0, 0, 0, 1]);
        // All of one node.
        machine.allow("6-7", "0-1");
        assert_eq!(machine.read().unwrap(), Topology(vec![node(1, &[6, 7], true)]));
        // CPUs of both, memory of one.
        machine.allow("0-7", "0");
        let topology = machine.read().unwrap();
        assert_eq!(interleaved(&topology), [0]);
        let error = topology.placement(Numa::Local, 4).unwrap_err();
        assert_eq!(error, "node 1 has CPUs, but no memory that this process may use");
        machine.allow("0-7", "9");
        assert!(machine.read().unwrap().placement(Numa::Interleave, 4).is_err());
        machine.allow("200-201", "0-1");
        assert_eq!(machine.error(), "no node has CPUs that this process may use");
    }

    #[test]
    fn a_node_without_memory() {
        let machine = Machine::new(&[(0, "0-3"), (1, "4-7")]);
        machine.write("sys/devices/system/node/has_memory", "1\n");
        let topology = machine.read().unwrap();
        assert_eq!(interleaved(&topology), [1]);
        assert!(topology.placement(Numa::Local, 2).is_err());
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        assert!(
            Machine(std::env::temp_dir().join("clawdbot-no-such-machine"))
                .error()
                .contains("/proc/thread-self/status")
        );
        let dir = "sys/devices/system/node";
        for (file, text, words) in [
            ("online", &b""[..], "no node has CPUs"),
            ("online", b"0-99999999999999999999", "no list"),
            ("online", b"zero", "no list"),
            ("online", b"1-0", "no list"),
            ("online", b"0\0", "no list"),
            ("online", b"\xff\xfe", "UTF-8"),
            // Its directory is not there.
            ("online", b"0-2", "node2/cpulist"),
            ("online", b"0-65536", "node2/cpulist"),
            ("has_memory", b"-", "no list"),
            ("node1/cpulist", b"3-7", "CPU 3, which another node has too"),
            ("node1/cpulist", b"4-7,", "no list"),
            ("node0/cpulist", b"0-70000", "no list"),
        ] {
            let machine = Machine::new(&[(0, "0-3"), (1, "4-7")]);
            machine.write(&format!("{dir}/{file}"), text);
            let error = machine.error();
            assert!(error.contains(words), "{file} {text:?}: {error}");
        }
        let machine = Machine::new(&[(0, "0-3"), (2000, "4-7")]);
        assert!(machine.error().contains("node 2000"));
        let machine = Machine::new(&[(0, "0-3")]);
        machine.write("proc/thread-self/status", "Cpus_allowed_list:\t0-3\n");
        assert!(machine.error().contains("Mems_allowed_list:"));
        machine.write(&format!("{dir}/online"), vec![b'0'; 2 << 20]);
        assert!(machine.read().is_err());
        let error = impossible(Numa::Local, machine.error());
        assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &"numa".into()));
        let start =
            "option numa: expected a value that this machine can do, found local: /proc/thread-self/status";
        assert!(error.message().starts_with(start), "{error}");
    }

    #[test]
    fn every_thread_has_a_seat_and_every_node_its_share() {
        let topology = Machine::new(&[(0, "0-5"), (1, "6-7"), (4, "8-15")]).read().unwrap();
        for threads in 1..=64 {
            let seats = seats(&topology, threads);
            assert!(seats.is_sorted() && seats.len() == threads, "{seats:?}");
            for (id, cpus) in [(0, 6), (1, 2), (4, 8)] {
                let found = seats.iter().filter(|&&node| node == id).count();
                let exact = threads * cpus / 16;
                assert!(found.abs_diff(exact) <= 1, "{threads} threads: {found} on node {id}");
            }
        }
    }
}
