//! Nodes of the index of prefixes that come back from the swap space.
//!
//! Who wants them gets [`LooseNodes`], reads them without the cache, and adds them again.

use std::io::Read;
use std::sync::Arc;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::KvCache;
use super::block_pool::Page;
use super::prefix::{Added, NODE_BYTES, NodeId};
use super::prefix_key::{Key, Root, key_of};
use super::prefix_store::{StoredNodes, SwapReport};
use crate::runtime::{Extent, Reservation, SwapSpace};

/// A node on its way back. `pages`: one for each group, where it has one.
#[derive(Debug)]
struct LooseNode {
    key: Key,
    extent: Arc<Extent>,
    pages: Vec<Option<Page>>,
    reservation: Reservation,
}

/// Nodes on their way back, and pages for them that are in no pool: who has them fills them without the cache.
#[derive(Debug)]
pub(crate) struct LooseNodes {
    root: Root,
    /// All tokens up to the end of the last one.
    tokens: Vec<u32>,
    nodes: Vec<LooseNode>,
    /// How many of them are what was written; those after them are not.
    sound: usize,
}

impl LooseNodes {
    /// Bytes of their pages.
    pub(crate) fn bytes(&self) -> u64 {
        self.nodes.iter().map(|node| node.extent.bytes()).sum()
    }

    /// Reads them, up to the first one that cannot be read, or is not `wanted`.
    pub(crate) fn read(&mut self, wanted: &dyn Fn() -> bool) {
        let read = |node: &mut LooseNode| {
            if !wanted() {
                return false;
            }
            let mut reader = node.extent.reader();
            let mut parts = node.pages.iter_mut().flatten().flat_map(|page| page.data.bytes_mut());
            parts.try_for_each(|part| reader.read_exact(part)).is_ok() && reader.is_sound()
        };
        self.sound = self.nodes.iter_mut().map(read).take_while(|sound| *sound).count();
    }
}

impl KvCache {
    /// Lets nodes of the index that have to go leave their pages in `space`.
    pub(crate) fn swap_prefixes_to(&mut self, space: SwapSpace) {
        self.stored = Some(StoredNodes::new(space));
    }

    /// Bytes of a node of the index, states left out.
    pub(crate) fn node_bytes(&self) -> u64 {
        self.bytes_per_token() * PAGE_TOKENS as u64
    }

    /// Says whether writing nodes and reading them back costs less than computing them.
    pub(crate) fn set_swapping_pays(&mut self, pays: bool) {
        self.stored.iter_mut().for_each(|stored| stored.pays = pays);
    }

    /// What was written since this was last asked.
    pub(crate) fn swap_report(&mut self) -> SwapReport {
        self.stored.as_mut().map(StoredNodes::report).unwrap_or_default()
    }

    /// Bytes of nodes in the swap space.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored.as_ref().map_or(0, StoredNodes::bytes)
    }

    /// Makes room in the swap space for what is not of the index. Returns whether there is some now.
    pub(crate) fn let_stored_go(&mut self) -> bool {
        self.stored.as_mut().is_some_and(StoredNodes::remove_oldest)
    }

    /// The node at which what is known of `tokens` ends, its key, and how many pages come before its end.
    fn known(&self, root: Root, tokens: &[u32]) -> (Option<NodeId>, Option<Key>, usize) {
        let Some(prefixes) = &self.prefixes else { return (None, None, 0) };
        let known = prefixes.find(root, tokens);
        let last = known.last().copied();
        (last, last.and_then(|id| prefixes.nodes.get(&id)).map(|node| node.key), known.len())
    }

    /// The nodes in the swap space that come next in `tokens` after those that are known. The last token is left out, since
    /// something has to be computed. Returns their number and their bytes.
    pub(crate) fn stored_after(&self, root: Root, tokens: &[u32]) -> (usize, u64) {
        let keys = self.stored_keys(root, tokens);
        let bytes = |key| self.stored.as_ref()?.bytes_of(key);
        (keys.len(), keys.iter().filter_map(bytes).sum())
    }

    fn stored_keys(&self, root: Root, tokens: &[u32]) -> Vec<Key> {
        let Some(stored) = self.stored.as_ref().filter(|stored| stored.len() > 0) else { return Vec::new() };
        let tokens = &tokens[..tokens.len().saturating_sub(1)];
        let (_, mut parent, known) = self.known(root, tokens);
        let mut keys = Vec::new();
        for page in tokens.as_chunks::<PAGE_TOKENS>().0.iter().skip(known) {
            let key = key_of(parent.as_ref(), root, page);
            if stored.bytes_of(&key).is_none() {
                break;
            }
            keys.push(key);
            parent = Some(key);
        }
        keys
    }

    /// Pages for the nodes of [`KvCache::stored_after`], as many as there is room for. Other nodes make room, sequences do not.
    pub(crate) fn loose_nodes(&mut self, root: Root, tokens: &[u32]) -> Option<LooseNodes> {
        let keys = self.stored_keys(root, tokens);
        let (_, _, known) = self.known(root, &tokens[..tokens.len().saturating_sub(1)]);
        let mut nodes = Vec::new();
        for key in keys {
            let opened = self.stored.as_mut().and_then(|stored| stored.open(&key));
            let Some((extent, there)) = opened else { break };
            let Some(reservation) = self.reserve_entry(None) else { break };
            let pages: Option<Vec<Option<Page>>> = there
                .into_iter()
                .enumerate()
                .map(|(group, there)| match there {
                    true => self.loose_page(group).ok().map(Some),
                    false => Some(None),
                })
                .collect();
            let Some(pages) = pages else { break };
            nodes.push(LooseNode { key, extent, pages, reservation });
        }
        let end = (known + nodes.len()) * PAGE_TOKENS;
        (!nodes.is_empty()).then(|| LooseNodes { root, tokens: tokens[..end].to_vec(), nodes, sound: 0 })
    }

    /// Adds nodes that were read to the index. Returns how many were as they were written, and whether all were.
    pub(crate) fn add_loose(&mut self, loose: LooseNodes) -> (usize, bool) {
        let LooseNodes { root, tokens, nodes, sound } = loose;
        let all = sound == nodes.len();
        if let (Some(stored), Some(bad)) = (self.stored.as_mut(), nodes.get(sound)) {
            stored.remove(&bad.key);
        }
        let first = tokens.len() / PAGE_TOKENS - nodes.len();
        let (mut parent, _, known) = self.known(root, &tokens);
        // What comes before them may be gone, and others may have computed some meanwhile.
        if known >= first {
            let pages = tokens.as_chunks::<PAGE_TOKENS>().0.iter().skip(first);
            for (node, page) in nodes.into_iter().take(sound).zip(pages).skip(known - first) {
                parent = self.add_node(parent, root, page, node);
                if parent.is_none() {
                    break;
                }
            }
        }
        // Also those before them: a node is never used without them.
        if let Some(prefixes) = self.prefixes.as_mut() {
            let path = prefixes.find(root, &tokens);
            prefixes.touch(&path);
        }
        (sound, all)
    }

    /// Adds a node below `parent`, which stays; none without room.
    fn add_node(
        &mut self,
        parent: Option<NodeId>,
        root: Root,
        tokens: &[u32],
        node: LooseNode,
    ) -> Option<NodeId> {
        let bytes = node.extent.bytes() + NODE_BYTES;
        if !self.fit_node(parent, bytes) {
            return None;
        }
        let groups = self.groups.iter_mut().zip(node.pages);
        let pages = groups.map(|(group, page)| page.map(|page| group.pool.put(page))).collect();
        let added = Added { pages, bytes, reservation: node.reservation };
        Some(self.prefixes.as_mut()?.add(parent, root, tokens, added))
    }
}
