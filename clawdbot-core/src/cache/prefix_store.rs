//! Nodes of the index of prefixes that are in the swap space.
//!
//! A node that has to go is written there, where that is worth it, and leaves its entry. It is found by a hash of all tokens up to
//! the end of its own. Those used longest ago go when there is no room.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::prefix_key::Key;
use super::{Group, PageData, PageId};
use crate::runtime::{Extent, Reservation, SwapSpace};

/// A node in the swap space.
#[derive(Debug)]
struct Stored {
    extent: Arc<Extent>,
    /// Which groups have a page in it.
    there: Vec<bool>,
    /// When it was used last.
    used: u64,
    /// Of its entry: that of the node.
    _reservation: Reservation,
}

/// What happened since it was last asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct SwapReport {
    /// Nodes that were written, their bytes, and how many seconds that took.
    pub(crate) nodes: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) failures: u64,
    /// Nodes that were not written because it was not worth it.
    pub(crate) refused: u64,
}

/// Nodes in the swap space.
#[derive(Debug)]
pub(super) struct StoredNodes {
    space: SwapSpace,
    /// Whether writing nodes and reading them back costs less than computing them.
    pub(super) pays: bool,
    nodes: HashMap<Key, Stored>,
    /// By their last use.
    order: BTreeSet<(u64, Key)>,
    bytes: u64,
    clock: u64,
    report: SwapReport,
}

impl StoredNodes {
    pub(super) fn new(space: SwapSpace) -> Self {
        let (nodes, order, report) = (HashMap::new(), BTreeSet::new(), SwapReport::default());
        StoredNodes { space, pays: false, nodes, order, bytes: 0, clock: 0, report }
    }

    fn touch(&mut self, key: &Key) {
        self.clock += 1;
        let Some(stored) = self.nodes.get_mut(key) else { return };
        self.order.remove(&(stored.used, *key));
        stored.used = self.clock;
        self.order.insert((self.clock, *key));
    }

    /// Lets a node go.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(stored) = self.nodes.remove(key) {
            self.order.remove(&(stored.used, *key));
            self.bytes -= stored.extent.bytes();
        }
    }

    /// Lets the node go that was used longest ago. Returns whether there was one.
    pub(super) fn remove_oldest(&mut self) -> bool {
        let oldest = self.order.first().copied();
        oldest.inspect(|(_, key)| self.remove(key)).is_some()
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes in the swap space.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A node, which counts as used now: its bytes, and which groups have a page in them.
    pub(super) fn open(&mut self, key: &Key) -> Option<(Arc<Extent>, Vec<bool>)> {
        self.touch(key);
        self.nodes.get(key).map(|stored| (Arc::clone(&stored.extent), stored.there.clone()))
    }

    /// Bytes of a node, if it is there.
    pub(super) fn bytes_of(&self, key: &Key) -> Option<u64> {
        self.nodes.get(key).map(|stored| stored.extent.bytes())
    }

    /// What happened since this was last asked.
    pub(super) fn report(&mut self) -> SwapReport {
        std::mem::take(&mut self.report)
    }

    /// Writes a node whose pages are about to be given back. `reservation`: of its entry.
    pub(super) fn store(
        &mut self,
        groups: &[Group],
        key: Key,
        pages: &[Option<PageId>],
        reservation: Reservation,
    ) {
        let there: Vec<bool> = pages.iter().map(Option::is_some).collect();
        if !there.contains(&true) || cfg!(target_endian = "big") {
            return;
        }
        // It was read back, and is there still.
        if self.nodes.get(&key).is_some_and(|stored| stored.there == there) {
            self.touch(&key);
            return;
        }
        if !self.pays {
            self.report.refused += 1;
            return;
        }
        self.remove(&key);
        let data = groups.iter().zip(pages).filter_map(|(group, page)| Some((group, (*page)?)));
        let bytes = data.clone().map(|(group, _)| group.pool.page_bytes()).sum();
        let mut writer = loop {
            match self.space.writer(bytes) {
                Some(writer) => break writer,
                None if self.remove_oldest() => {}
                None => return,
            }
        };
        let started = Instant::now();
        let mut parts = data.filter_map(|(group, page)| group.pool.page(page)).flat_map(PageData::bytes);
        let written = parts.try_for_each(|part| writer.write(part));
        match written.and_then(|()| writer.finish()) {
            Ok(extent) => {
                self.report.nodes += 1;
                self.report.bytes += bytes;
                self.report.seconds += started.elapsed().as_secs_f64();
                self.clock += 1;
                self.bytes += bytes;
                self.order.insert((self.clock, key));
                let extent = Arc::new(extent);
                let stored = Stored { extent, there, used: self.clock, _reservation: reservation };
                self.nodes.insert(key, stored);
            }
            Err(_) => self.report.failures += 1,
        }
    }
}
