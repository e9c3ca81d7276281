//! Machines whose memory is in several places (NUMA): on which CPUs threads run, and on which node the pages of weights lie.
//!
//! Thread `t` of `T` takes the `t`th of `T` equal shares of a product's columns (`threads.rs`), and panels lie in the order of
//! columns. So the thread that reads a part of a matrix is known before the matrix is packed, and its pages are asked for
//! where that thread runs, whoever touches them first. Pages stay where they are when a thread takes tasks of another.
#![cfg_attr(target_os = "linux", allow(unsafe_code, reason = "system calls that have no safe interface"))]

use std::io;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::memory::{AlignedBuf, HUGE_PAGE, Pod, bytes_of_mut};

/// Where the threads of a pool run, and where pages of weights lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The pages of each matrix alternate between these nodes. Threads run anywhere.
    Interleaved(Vec<u32>),
    /// Thread `t` runs where seat `t` says, and pages lie on the node of the thread that reads them.
    Local(Vec<Seat>),
}

/// Where a thread runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The node of these CPUs.
    pub node: u32,
    /// Any of them.
    pub cpus: Vec<usize>,
}

/// Which pages of a range belong to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// All, while it has free memory.
    Preferred,
    /// One after the other on each of several nodes.
    Interleaved,
}

impl Placement {
    /// Asks the system to do once what the placement needs.
    ///
    /// # Errors
    /// `Placement` with what it refuses.
    pub fn probe(&self) -> Result<()> {
        let mut pages = AlignedBuf::<u8>::zeroed(HUGE_PAGE)?;
        self.place(&mut pages)?;
        if let Placement::Local(seats) = self {
            for seat in seats {
                seat.take()?;
            }
        }
        Ok(())
    }

    /// Asks the system to place the pages of a matrix's array, which nobody has touched yet. An array below 2 MiB shares its
    /// pages with other data, and stays where the system puts it.
    ///
    /// # Errors
    /// `Placement` when the system refuses.
    pub(crate) fn place<T: Pod>(&self, buffer: &mut AlignedBuf<T>) -> Result<()> {
        if !buffer.is_mapped() {
            return Ok(());
        }
        let bytes = bytes_of_mut(buffer);
        let place = |bytes: &mut [u8], nodes: &[u32], policy| {
            bind(bytes, nodes, policy)
                .map_err(|error| Error::Placement { what: "to say on which node memory lies (mbind)", error })
        };
        match self {
            Placement::Interleaved(nodes) => place(bytes, nodes, Policy::Interleaved),
            Placement::Local(seats) => node_ranges(seats, bytes.len())
                .into_iter()
                .try_for_each(|(node, range)| place(&mut bytes[range], &[node], Policy::Preferred)),
        }
    }

    /// Moves the calling thread to where thread `thread` runs, until the result is dropped. Where these CPUs were taken from
    /// the process after [`probe`](Self::probe), it stays where it may run: results are the same, only later.
    pub(crate) fn seat(&self, thread: usize) -> Option<Seated> {
        match self {
            Placement::Local(seats) => seats[thread].take().ok(),
            Placement::Interleaved(_) => None,
        }
    }
}

/// The bytes of an array of `len` that belong to each node: whole huge pages, which a border inside would split.
fn node_ranges(seats: &[Seat], len: usize) -> Vec<(u32, Range<usize>)> {
    let border = |thread: usize| {
        let exact = len as u128 * thread as u128 / seats.len() as u128;
        (exact as usize).saturating_add(HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE
    };
    let mut ranges: Vec<(u32, Range<usize>)> = Vec::new();
    for (thread, seat) in seats.iter().enumerate() {
        let end = if thread + 1 == seats.len() { len } else { border(thread + 1).min(len) };
        match ranges.last_mut() {
            Some((node, range)) if *node == seat.node => range.end = end,
            _ => ranges.push((seat.node, border(thread).min(len)..end)),
        }
    }
    ranges.retain(|(_, range)| !range.is_empty());
    ranges
}

impl Seat {
    /// Moves the calling thread there, until the result is dropped.
    fn take(&self) -> Result<Seated> {
        let refused =
            |error| Error::Placement { what: "to choose a thread's CPUs (sched_setaffinity)", error };
        let before = affinity().map_err(refused)?;
        set_affinity(&mask(&self.cpus)).map_err(refused)?;
        Ok(Seated { before })
    }
}

/// The thread's CPUs are chosen. They become what they were when this is dropped; of these, the ones that the process may
/// still use.
#[derive(Debug)]
pub(crate) struct Seated {
    before: Vec<usize>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        // Refused only if these CPUs were taken away meanwhile: the thread then stays where it may run.
        let _ = set_affinity(&self.before);
    }
}

/// Numbers as bits of words.
fn mask(numbers: &[usize]) -> Vec<usize> {
    const BITS: usize = usize::BITS as usize;
    let words = numbers.iter().max().map_or(0, |most| most / BITS + 1);
    let mut mask = vec![0; words];
    for number in numbers {
        mask[number / BITS] |= 1 << (number % BITS);
    }
    mask
}

#[cfg(target_os = "linux")]
use linux::{affinity, bind, set_affinity};

#[cfg(target_os = "linux")]
mod linux {
    use super::{Policy, io, mask};

    /// Most words of a mask of CPUs: more CPUs than any kernel has.
    const MASK_WORDS: usize = (1 << 16) / usize::BITS as usize;

    fn done(result: libc::c_long) -> io::Result<usize> {
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// The CPUs of the calling thread, as bits of words.
    pub(super) fn affinity() -> io::Result<Vec<usize>> {
        let mut mask = vec![0_usize; MASK_WORDS];
        let (pointer, bytes) = (mask.as_mut_ptr(), size_of_val(mask.as_slice()));
        // SAFETY: the system writes at most `bytes` bytes, which `mask` has; 0 is the calling thread.
        let written = done(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, bytes, pointer) })?;
        mask.truncate(written.div_ceil(size_of::<usize>()));
        Ok(mask)
    }

    /// Lets the calling thread run on the CPUs of `mask`, as far as the process may.
    pub(super) fn set_affinity(mask: &[usize]) -> io::Result<()> {
        let bytes = size_of_val(mask);
        // SAFETY: the system reads `bytes` bytes of `mask`; 0 is the calling thread.
        done(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, mask.as_ptr()) }).map(drop)
    }

    /// Says on which of `nodes` the whole pages of `memory` shall lie once they are touched.
    pub(super) fn bind(memory: &mut [u8], nodes: &[u32], policy: Policy) -> io::Result<()> {
        // SAFETY: the call accesses no memory of this process.
        let page = done(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
        let before = memory.as_ptr().align_offset(page);
        let Some(bytes) = memory.len().checked_sub(before).map(|bytes| bytes / page * page) else {
            return Ok(());
        };
        let nodes = mask(&nodes.iter().map(|&node| node as usize).collect::<Vec<_>>());
        // The system reads whole words of all arguments.
        let mode = libc::c_long::from(match policy {
            Policy::Preferred => libc::MPOL_PREFERRED,
            Policy::Interleaved => libc::MPOL_INTERLEAVE,
        });
        // The system reads one bit less than it is given.
        let bits = nodes.len() * usize::BITS as usize + 1;
        let start = memory.as_mut_ptr().wrapping_add(before);
        // SAFETY: the pages are inside `memory`, which is borrowed exclusively, and the call changes no bytes of them; the
        // system reads `bits - 1` bits of `nodes`.
        let result =
            unsafe { libc::syscall(libc::SYS_mbind, start, bytes, mode, nodes.as_ptr(), bits, 0_usize) };
        done(result).map(drop)
    }
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> io::Result<Vec<usize>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn set_affinity(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn bind(_: &mut [u8], _: &[u32], _: Policy) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(nodes: &[u32]) -> Vec<Seat> {
        nodes.iter().map(|&node| Seat { node, cpus: vec![0] }).collect()
    }

    #[test]
    fn masks_are_bits_of_words() {
        assert_eq!(mask(&[]), Vec::<usize>::new());
        assert_eq!(mask(&[0, 5]), [0b10_0001]);
        let wide = mask(&[64, 1]);
        assert_eq!(wide.iter().map(|word| word.count_ones()).sum::<u32>(), 2);
        assert_eq!(wide.len(), 64 / usize::BITS as usize + 1);
    }

    #[test]
    fn pages_belong_to_the_node_of_their_reader() {
        const H: usize = HUGE_PAGE;
        assert_eq!(node_ranges(&seats(&[3, 3]), 5 * H + 7), [(3, 0..5 * H + 7)]);
        assert_eq!(node_ranges(&seats(&[0, 0, 1, 1]), 8 * H), [(0, 0..4 * H), (1, 4 * H..8 * H)]);
        // Three threads on two nodes read unequal parts.
        assert_eq!(node_ranges(&seats(&[0, 0, 1]), 9 * H + 64), [(0, 0..6 * H), (1, 6 * H..9 * H + 64)]);
        // A border inside a huge page goes to the nearer end.
        assert_eq!(node_ranges(&seats(&[0, 1]), 3 * H - 2), [(0, 0..H), (1, H..3 * H - 2)]);
        assert_eq!(node_ranges(&seats(&[0, 1]), 3 * H), [(0, 0..2 * H), (1, 2 * H..3 * H)]);
        // More nodes than huge pages.
        assert_eq!(node_ranges(&seats(&[0, 1, 2, 3]), H), [(1, 0..H)]);
        for threads in 1..70 {
            let nodes: Vec<u32> = (0..threads).map(|thread| thread * 8 / threads).collect();
            for len in [H, H + 64, 7 * H - 64, 100 * H + 4096] {
                let ranges = node_ranges(&seats(&nodes), len);
                let end = ranges.iter().fold(0, |end, (_, range)| {
                    assert!(range.start == end && range.end > end, "{ranges:?}");
                    range.end
                });
                assert_eq!(end, len);
            }
        }
    }

    #[cfg(target_os = "linux")]
    mod on_linux {
        use super::*;

        /// Flags of `get_mempolicy`: the node instead of the policy, and of an address.
        const F_NODE: i32 = 1;
        const F_ADDR: i32 = 2;

        /// The policy of a page and, once it is touched, its node.
        fn page(byte: &u8) -> io::Result<(i32, i32)> {
            let (mut policy, mut node) = (0_i32, 0_i32);
            let at: *const u8 = byte;
            let none = std::ptr::null_mut::<usize>();
            let ask = |to: &mut i32, flags: i32| {
                let to: *mut i32 = to;
                // SAFETY: the system writes one number to `to`, and no mask.
                match unsafe { libc::syscall(libc::SYS_get_mempolicy, to, none, 0, at, flags) } {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            };
            ask(&mut policy, F_ADDR)?;
            ask(&mut node, F_ADDR | F_NODE)?;
            Ok((policy, node))
        }

        /// A node that this process may use, and the CPUs of this thread.
        fn here() -> Option<Seat> {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let nodes = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
            let node = nodes.trim().split([',', '-']).next()?.parse().ok()?;
            let bits = usize::BITS as usize;
            let mask = affinity().ok()?;
            let cpus = (0..mask.len() * bits).filter(|cpu| mask[cpu / bits] >> (cpu % bits) & 1 == 1);
            Some(Seat { node, cpus: cpus.collect() })
        }

        /// Whether this system lets processes place memory; some containers do not.
        fn may_place() -> bool {
            let mut buffer = AlignedBuf::<u8>::zeroed(HUGE_PAGE).unwrap();
            buffer[0] = 1;
            let may = here().is_some() && page(&buffer[0]).is_ok();
            if !may {
                crate::skipped::skipped("placing of pages: the system refuses get_mempolicy");
            }
            may
        }

        #[test]
        fn pages_are_placed() {
            let Some(seat) = here().filter(|_| may_place()) else { return };
            for (placement, policy) in [
                (Placement::Local(vec![seat.clone(); 3]), libc::MPOL_PREFERRED),
                (Placement::Interleaved(vec![seat.node]), libc::MPOL_INTERLEAVE),
            ] {
                placement.probe().unwrap();
                let mut buffer = AlignedBuf::<u16>::zeroed(3 * HUGE_PAGE / 2 + 70).unwrap();
                placement.place(&mut buffer).unwrap();
                buffer.fill(7);
                for at in [0, buffer.len() / 2, buffer.len() - 4096] {
                    let byte = &bytes_of_mut(&mut buffer)[2 * at];
                    assert_eq!(page(byte).unwrap(), (policy, seat.node as i32), "{placement:?}");
                }
                // Not of a buffer of its own pages.
                let mut small = AlignedBuf::<u8>::zeroed(4096).unwrap();
                placement.place(&mut small).unwrap();
                assert_eq!(page(&small[0]).unwrap().0, libc::MPOL_DEFAULT);
            }
        }

        /// The nodes with memory that this process may use; one, on most machines.
        fn nodes() -> Option<Vec<u32>> {
            let numbers = |text: &str| {
                let parts = text.trim().split(',').map(|part| {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    Some(first.parse().ok()?..=last.parse().ok()?)
                });
                Some(parts.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect::<Vec<u32>>())
            };
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let allowed = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
            let there = std::fs::read_to_string("/sys/devices/system/node/has_memory").ok()?;
            let (allowed, there) = (numbers(allowed)?, numbers(&there)?);
            Some(there.into_iter().filter(|node| allowed.contains(node)).collect())
        }

        #[test]
        fn every_page_is_on_its_readers_node() {
            let Some((seat, nodes)) = here().zip(nodes()).filter(|_| may_place()) else { return };
            let len = 8 * nodes.len() * HUGE_PAGE;
            let seats: Vec<Seat> = nodes.iter().map(|&node| Seat { node, ..seat.clone() }).collect();
            let mut buffer = AlignedBuf::<u8>::zeroed(len).unwrap();
            Placement::Local(seats).place(&mut buffer).unwrap();
            buffer.fill(1);
            for (at, byte) in buffer.iter().enumerate().step_by(HUGE_PAGE / 2) {
                assert_eq!(page(byte).unwrap().1, nodes[at / (8 * HUGE_PAGE)] as i32, "byte {at}");
            }
            let mut buffer = AlignedBuf::<u8>::zeroed(len).unwrap();
            Placement::Interleaved(nodes.clone()).place(&mut buffer).unwrap();
            buffer.fill(1);
            let on = |node: u32| {
                buffer.iter().step_by(HUGE_PAGE).filter(|byte| page(byte).unwrap().1 == node as i32).count()
            };
            assert!(nodes.iter().all(|&node| on(node) == 8), "{nodes:?}");
        }

        #[test]
        fn nodes_and_cpus_that_do_not_exist_are_errors() {
            let Some(Seat { node, cpus }) = here().filter(|_| may_place()) else { return };
            let before = affinity().unwrap();
            for placement in [
                Placement::Interleaved(vec![1000]),
                Placement::Local(vec![Seat { node: 1000, cpus }]),
                Placement::Local(vec![Seat { node, cpus: vec![60_000] }]),
                Placement::Local(vec![Seat { node, cpus: vec![] }]),
            ] {
                let error = placement.probe().unwrap_err();
                assert!(matches!(error, Error::Placement { .. }), "{placement:?}: {error}");
            }
            assert_eq!(affinity().unwrap(), before);
        }

        #[test]
        fn a_seat_is_left_again() {
            let Some(Seat { node, cpus }) = here() else { return };
            let before = affinity().unwrap();
            let one = cpus[cpus.len() - 1];
            let seated = Seat { node, cpus: vec![one] }.take().unwrap();
            let now = affinity().unwrap();
            assert_eq!(now.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
            assert_eq!(now[one / usize::BITS as usize], 1 << (one % usize::BITS as usize));
            drop(seated);
            assert_eq!(affinity().unwrap(), before);
        }
    }
}
