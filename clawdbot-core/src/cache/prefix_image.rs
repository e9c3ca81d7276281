//! The index of prefixes as bytes, so that it survives a restart.
//!
//! Nodes come in an order in which parents are before their children, those that were used last first. A node:
//! ```text
//! parent u64: 0 for none, or 1 + its place in this order;  long frequencies of LongRoPE u8
//! number of tokens u8: fewer than a page only in a node without children;  tokens, u32 each
//! for each group u8, whether its page is there;  those pages
//! ```
//! Nodes of adapters are left out: adapters have no names that last.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Read, Write};

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::prefix::{Added, NODE_BYTES, Node, NodeId, PrefixIndex};
use super::prefix_key::Root;
use super::{KvCache, PageData, PageId};

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// All was read.
    AtTheEnd,
    /// There is no memory for more.
    NoRoom,
}

/// Most entries of a file.
const MAX_ENTRIES: u64 = 1 << 40;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl PrefixIndex {
    /// Nodes to be saved, in their order.
    fn saved(&self) -> Vec<(NodeId, &Node)> {
        let mut nodes: Vec<(NodeId, &Node)> = self
            .nodes
            .iter()
            .map(|(id, node)| (*id, node))
            .filter(|(_, node)| node.root.adapter.is_none())
            .collect();
        // Parents are used whenever their children are, and are older.
        nodes.sort_unstable_by_key(|(id, node)| (Reverse(node.used), *id));
        nodes
    }
}

impl KvCache {
    /// Number of entries that [`KvCache::write_prefixes`] writes.
    pub(crate) fn saved_prefixes(&self) -> usize {
        self.prefixes.as_ref().map_or(0, |prefixes| prefixes.saved().len())
    }

    /// Writes the entries.
    ///
    /// # Errors
    /// What the writer says.
    pub(crate) fn write_prefixes(&self, to: &mut dyn Write) -> io::Result<()> {
        let nodes = self.prefixes.as_ref().map(PrefixIndex::saved).unwrap_or_default();
        let mut places: HashMap<NodeId, u64> = HashMap::new();
        for (place, (id, node)) in (1..).zip(nodes) {
            let parent = match node.parent {
                Some(parent) => *places.get(&parent).ok_or_else(|| bad("a parent after its child"))?,
                None => 0,
            };
            places.insert(id, place);
            to.write_all(&parent.to_le_bytes())?;
            to.write_all(&[node.root.long.into(), node.tokens.len() as u8])?;
            let tokens: Vec<u8> = node.tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
            to.write_all(&tokens)?;
            let there: Vec<u8> = node.pages.iter().map(|page| page.is_some().into()).collect();
            to.write_all(&there)?;
            for (group, page) in self.groups.iter().zip(&node.pages) {
                let data = page.and_then(|page| group.pool.page(page));
                data.into_iter().flat_map(PageData::bytes).try_for_each(|part| to.write_all(part))?;
            }
        }
        Ok(())
    }

    /// Reads `count` entries into an empty index, as many as there is room for.
    ///
    /// # Errors
    /// What the reader says; `InvalidData` for what no index has written.
    pub(crate) fn read_prefixes(&mut self, count: u64, from: &mut dyn Read) -> io::Result<Stopped> {
        if count > MAX_ENTRIES {
            return Err(bad("more entries than there can be"));
        }
        // Longer ago, the later in the file.
        let mut clock = count;
        let mut ids: Vec<NodeId> = Vec::new();
        for _ in 0..count {
            let mut head = [0; 10];
            from.read_exact(&mut head)?;
            let [parent @ .., long, length] = head;
            let parent = match u64::from_le_bytes(parent) {
                0 => None,
                place => {
                    let id = usize::try_from(place - 1).ok().and_then(|place| ids.get(place));
                    Some(*id.ok_or_else(|| bad("an entry without its parent"))?)
                }
            };
            let root = Root { adapter: None, long: long == 1 };
            let length = usize::from(length);
            if !(1..=PAGE_TOKENS).contains(&length) {
                return Err(bad("an entry of no tokens, or of more than a page"));
            }
            let mut tokens = [0; 4 * PAGE_TOKENS];
            let tokens = &mut tokens[..4 * length];
            from.read_exact(tokens)?;
            let tokens: Vec<u32> = tokens.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
            let mut there = vec![0; self.groups.len()];
            from.read_exact(&mut there)?;
            if !self.may_add(parent, root, &tokens) || !there.contains(&1) {
                return Err(bad("an entry that is there already, or is empty"));
            }
            let Some(node) = self.read_node(&there, from)? else { return Ok(Stopped::NoRoom) };
            let Some(prefixes) = self.prefixes.as_mut() else { return Ok(Stopped::NoRoom) };
            prefixes.clock = clock;
            clock -= 1;
            ids.push(prefixes.add(parent, root, &tokens, node));
            prefixes.clock = count;
        }
        Ok(Stopped::AtTheEnd)
    }

    /// Whether there is no entry of these tokens yet, and `parent` is a full page of the same root.
    fn may_add(&self, parent: Option<NodeId>, root: Root, tokens: &[u32]) -> bool {
        let Some(prefixes) = &self.prefixes else { return false };
        let full = |node: &Node| node.root == root && node.tokens.len() == PAGE_TOKENS;
        let is_its = |parent| prefixes.nodes.get(&parent).is_some_and(full);
        parent.is_none_or(is_its)
            && prefixes.children(root, parent).is_none_or(|siblings| !siblings.contains_key(tokens))
    }

    /// Reads the pages of an entry. `None` without room for them: what requests hold is not touched.
    fn read_node(&mut self, there: &[u8], from: &mut dyn Read) -> io::Result<Option<Added>> {
        let sizes = self.groups.iter().zip(there).filter(|(_, there)| **there == 1);
        let bytes = sizes.map(|(group, _)| group.pool.page_bytes()).sum::<u64>() + NODE_BYTES;
        let fits = self
            .prefixes
            .as_ref()
            .is_some_and(|prefixes| prefixes.bytes.saturating_add(bytes) <= prefixes.limit);
        let reserved = self.budget.reserve_growing(NODE_BYTES, "an entry of the prefix cache").ok();
        let Some(reservation) = reserved.filter(|_| fits) else { return Ok(None) };
        let mut pages: Vec<Option<PageId>> = vec![None; self.groups.len()];
        let mut outcome = Ok(true);
        for ((group, page), there) in self.groups.iter_mut().zip(&mut pages).zip(there) {
            if *there != 1 || !matches!(outcome, Ok(true)) {
                continue;
            }
            let Ok(id) = group.pool.take() else {
                outcome = Ok(false);
                continue;
            };
            *page = Some(id);
            for data in group.pool.pages_mut(&[id]) {
                let read = data.bytes_mut().into_iter().try_for_each(|part| from.read_exact(part));
                outcome = match read {
                    Ok(()) if data.is_finite() => Ok(true),
                    Ok(()) => Err(bad("numbers that are not finite")),
                    Err(error) => Err(error),
                };
                if outcome.is_err() {
                    // It may be used again.
                    data.bytes_mut().into_iter().for_each(|part| part.fill(0));
                }
            }
        }
        if matches!(outcome, Ok(true)) {
            return Ok(Some(Added { pages, bytes, reservation }));
        }
        for (group, page) in self.groups.iter_mut().zip(pages) {
            page.into_iter().for_each(|page| group.pool.give_back(page));
        }
        outcome.map(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayerState, PageTables};
    use super::*;
    use crate::options::KvType;
    use crate::runtime::Budget;

    fn cache(limit: u64) -> KvCache {
        let attention = |window| LayerState::Attention { window, kv_heads: 1, head_dim: 16 };
        let layers = [attention(None), attention(Some(70)), LayerState::Recurrent { floats: 8 }];
        let mut cache = KvCache::new(KvType::Bf16, &layers, &Budget::new(None)).unwrap();
        cache.keep_prefixes(limit);
        cache
    }

    fn tokens(length: usize, salt: u32) -> Vec<u32> {
        (0..length as u32).map(|i| i * 7 + salt).collect()
    }

    /// A sequence of `tokens` that has ended.
    fn remember(cache: &mut KvCache, tokens: &[u32]) {
        let mut tables = PageTables::default();
        let known = cache.attach(Root::default(), tokens, &mut tables, 0);
        cache.grow(&mut tables, tokens.len()).unwrap();
        cache.own(&mut tables, known).unwrap();
        cache.remember(Root::default(), tokens, &mut tables, tokens.len());
        cache.release_passed(&mut tables, tokens.len());
        cache.remember_tail(Root::default(), tokens, &tables, tokens.len());
        cache.release_all(&mut tables);
    }

    fn saved(cache: &KvCache) -> (u64, Vec<u8>) {
        let mut bytes = Vec::new();
        cache.write_prefixes(&mut bytes).unwrap();
        (cache.saved_prefixes() as u64, bytes)
    }

    fn known(cache: &mut KvCache, tokens: &[u32]) -> usize {
        let mut tables = PageTables::default();
        let known = cache.attach(Root::default(), tokens, &mut tables, 0);
        cache.release_all(&mut tables);
        known
    }

    #[test]
    fn an_index_comes_back() {
        let mut first = cache(u64::MAX);
        let lists: Vec<Vec<u32>> =
            vec![tokens(300, 1), [tokens(128, 1), tokens(100, 9)].concat(), tokens(200, 5)];
        lists.iter().for_each(|list| remember(&mut first, list));
        // The first one is used again: it comes before the others.
        known(&mut first, &lists[0]);
        let (count, bytes) = saved(&first);
        // Full pages, and the last ones: of 44 and 36 tokens, and of 8.
        assert_eq!(count, (4 + 1 + 3) + 3);
        let mut second = cache(u64::MAX);
        assert_eq!(second.read_prefixes(count, &mut bytes.as_slice()).unwrap(), Stopped::AtTheEnd);
        assert_eq!((saved(&second), second.prefix_bytes()), ((count, bytes.clone()), first.prefix_bytes()));
        for list in &lists {
            assert_eq!(known(&mut second, list), known(&mut first, list));
        }
        // With less room, those that were used last.
        let mut small = cache(first.prefix_bytes() / 24 * 10);
        assert_eq!(small.read_prefixes(count, &mut bytes.as_slice()).unwrap(), Stopped::NoRoom);
        assert_eq!(
            (known(&mut small, &lists[0]), known(&mut small, &lists[2])),
            (known(&mut first, &lists[0]), 0)
        );
        for cache in [&mut first, &mut second, &mut small] {
            cache.forget_prefixes();
            cache.trim();
            assert_eq!((cache.usage(), cache.budget.used()), ((0, 0), 0));
        }
    }

    #[test]
    fn what_no_index_has_written_is_refused() {
        let mut first = cache(u64::MAX);
        remember(&mut first, &tokens(300, 1));
        let (count, bytes) = saved(&first);
        let read = |count: u64, bytes: &[u8]| {
            let mut cache = cache(u64::MAX);
            let outcome = cache.read_prefixes(count, &mut &bytes[..]);
            cache.forget_prefixes();
            cache.trim();
            assert_eq!((cache.usage(), cache.budget.used()), ((0, 0), 0));
            outcome.map_err(|error| error.kind())
        };
        assert_eq!(read(count, &bytes[..bytes.len() - 1]), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(u64::MAX, &bytes), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(1 << 30, &bytes), Err(io::ErrorKind::UnexpectedEof));
        let mut later_parent = bytes.clone();
        later_parent[0] = 3;
        assert_eq!(read(count, &later_parent), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(2, &[bytes.as_slice(), &bytes].concat()), Ok(Stopped::AtTheEnd));
        let twice = [&bytes[..], &bytes].concat();
        assert_eq!(read(2 * count, &twice), Err(io::ErrorKind::InvalidData));
        let mut empty = bytes.clone();
        empty[10 + 4 * PAGE_TOKENS..][..3].fill(0);
        assert_eq!(read(count, &empty), Err(io::ErrorKind::InvalidData));
        let mut infinite = bytes.clone();
        infinite[10 + 4 * PAGE_TOKENS + 3..][..400].fill(0xff);
        assert_eq!(read(count, &infinite), Err(io::ErrorKind::InvalidData));
        let mut below_a_tail = twice.clone();
        below_a_tail[bytes.len()..][..8].copy_from_slice(&count.to_le_bytes());
        assert_eq!(read(count + 1, &below_a_tail), Err(io::ErrorKind::InvalidData));
        for length in [0, PAGE_TOKENS as u8 + 1, 255] {
            let mut other = bytes.clone();
            other[9] = length;
            assert_eq!(read(count, &other), Err(io::ErrorKind::InvalidData));
        }
    }
}
