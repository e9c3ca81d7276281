//! Pages that outlive their sequences, found by the tokens before them: a sequence that begins as an earlier one did shares
//! what is computed already.
//!
//! A *node* stands for a page full of tokens after all those of its parents, and holds its pages, one for each group. Keys
//! and values depend on nothing but the tokens up to their own and on what a [`Root`] says, so the pages of a node are those
//! that any sequence with the same tokens would compute, bit for bit.
//!
//! Nodes without children go first when memory is needed, those used longest ago first.

use std::collections::{BTreeSet, HashMap};

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::{Group, KvCache, PageId, PageTables};
use crate::runtime::Reservation;

/// Bytes of a node apart from its pages: its tokens, and its places in maps.
const NODE_BYTES: u64 = 8 * PAGE_TOKENS as u64 + 256;

/// What keys and values depend on apart from tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Root {
    /// Number of the adapter, if there is one.
    pub(crate) adapter: Option<u64>,
    /// Whether keys are rotated with the long frequencies of LongRoPE.
    pub(crate) long: bool,
}

/// Number of a node; never used again.
type NodeId = u64;

/// A page of tokens and its cache.
#[derive(Debug)]
struct Node {
    /// None below a root.
    parent: Option<NodeId>,
    root: Root,
    tokens: Box<[u32]>,
    children: HashMap<Box<[u32]>, NodeId>,
    /// One for each group; `None`: no query after the node reads it.
    pages: Vec<Option<PageId>>,
    /// When it was used last.
    used: u64,
    _reservation: Reservation,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    /// Most bytes of its pages and nodes.
    limit: u64,
    bytes: u64,
    roots: HashMap<Root, HashMap<Box<[u32]>, NodeId>>,
    nodes: HashMap<NodeId, Node>,
    /// Nodes without children, by their last use.
    leaves: BTreeSet<(u64, NodeId)>,
    next: NodeId,
    clock: u64,
}

impl PrefixIndex {
    /// An index of at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        PrefixIndex {
            limit,
            bytes: 0,
            roots: HashMap::new(),
            nodes: HashMap::new(),
            leaves: BTreeSet::new(),
            next: 0,
            clock: 0,
        }
    }

    /// The nodes of the longest known beginning of `tokens`.
    fn find(&self, root: Root, tokens: &[u32]) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut children = self.roots.get(&root);
        for page in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(&id) = children.and_then(|children| children.get(page.as_slice())) else { break };
            found.push(id);
            children = self.nodes.get(&id).map(|node| &node.children);
        }
        found
    }

    /// Marks nodes as used now.
    fn touch(&mut self, ids: &[NodeId]) {
        self.clock += 1;
        for &id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut node.used, self.clock);
            if self.leaves.remove(&(before, id)) {
                self.leaves.insert((self.clock, id));
            }
        }
    }

    /// Adds a node below `parent`.
    fn add(&mut self, parent: Option<NodeId>, root: Root, tokens: &[u32], node: Added) -> NodeId {
        self.next += 1;
        let id = self.next;
        let children = match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(node) => {
                self.leaves.remove(&(node.used, parent.unwrap_or_default()));
                &mut node.children
            }
            None => self.roots.entry(root).or_default(),
        };
        children.insert(tokens.into(), id);
        let Added { pages, bytes, reservation } = node;
        let (children, used, tokens) = (HashMap::new(), self.clock, tokens.into());
        self.bytes += bytes;
        self.leaves.insert((used, id));
        self.nodes
            .insert(id, Node { parent, root, tokens, children, pages, used, _reservation: reservation });
        id
    }

    /// Takes a node without children out.
    fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.leaves.remove(&(node.used, id));
        let siblings = match node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(parent) => Some(&mut parent.children),
            None => self.roots.get_mut(&node.root),
        };
        let siblings = siblings.map(|siblings| {
            siblings.remove(&node.tokens);
            siblings.len()
        });
        if siblings == Some(0) {
            match node.parent.and_then(|id| Some((self.nodes.get(&id)?.used, id))) {
                Some(leaf) => drop(self.leaves.insert(leaf)),
                None => drop(self.roots.remove(&node.root)),
            }
        }
        Some(node)
    }
}

/// What a new node holds.
struct Added {
    pages: Vec<Option<PageId>>,
    bytes: u64,
    reservation: Reservation,
}

impl KvCache {
    /// Keeps pages of sequences that end, at most `limit` bytes of them. Returns false for models with recurrent layers, whose
    /// states are not kept at the ends of pages.
    pub(crate) fn keep_prefixes(&mut self, limit: u64) -> bool {
        let recurrent = self.groups.iter().any(Group::is_recurrent);
        self.prefixes = (!recurrent).then(|| PrefixIndex::new(limit));
        !recurrent
    }

    /// Whether pages of sequences that end are kept.
    pub(crate) fn keeps_prefixes(&self) -> bool {
        self.prefixes.is_some()
    }

    /// Bytes that are kept, entries included.
    pub(crate) fn prefix_bytes(&self) -> u64 {
        self.prefixes.as_ref().map_or(0, |prefixes| prefixes.bytes)
    }

    /// Tables for a sequence of `tokens`, with the pages that are known of them, and how many tokens these are: the last one is
    /// always left, since something has to be computed.
    pub(crate) fn attach(&mut self, root: Root, tokens: &[u32]) -> Option<(PageTables, usize)> {
        let KvCache { prefixes, groups, .. } = self;
        let prefixes = prefixes.as_mut()?;
        let most = tokens.len().saturating_sub(1) / PAGE_TOKENS * PAGE_TOKENS;
        let mut found = prefixes.find(root, &tokens[..most]);
        let windows: Vec<Option<usize>> = groups.iter().map(Group::window).collect();
        // What the next query does not see may be missing.
        let first = |count: usize, window: &Option<usize>| {
            window.map_or(0, |window| (count * PAGE_TOKENS + 1).saturating_sub(window) / PAGE_TOKENS)
        };
        let whole = |found: &[NodeId]| {
            windows.iter().enumerate().all(|(group, window)| {
                let seen = &found[first(found.len(), window).min(found.len())..];
                seen.iter().all(|id| prefixes.nodes.get(id).is_some_and(|node| node.pages[group].is_some()))
            })
        };
        while !whole(&found) {
            found.pop();
        }
        if found.is_empty() {
            return None;
        }
        prefixes.touch(&found);
        let pages = groups.iter_mut().zip(&windows).enumerate().map(|(index, (group, window))| {
            let seen = first(found.len(), window);
            let page = |(at, id): (usize, &NodeId)| {
                let page = prefixes.nodes.get(id).and_then(|node| node.pages[index])?;
                (at >= seen).then(|| group.pool.share(page))
            };
            found.iter().enumerate().map(page).collect()
        });
        let tables = PageTables { pages: pages.collect(), states: Vec::new() };
        Some((tables, found.len() * PAGE_TOKENS))
    }

    /// Keeps the full pages of a sequence whose first `computed` tokens are in its pages. Where the same page was kept of
    /// another sequence, the two share that one from now on.
    pub(crate) fn remember(&mut self, root: Root, tokens: &[u32], tables: &mut PageTables, computed: usize) {
        let Some(prefixes) = self.prefixes.as_mut() else { return };
        let full = tokens.get(..computed / PAGE_TOKENS * PAGE_TOKENS).unwrap_or_default();
        let known = prefixes.find(root, full);
        prefixes.touch(&known);
        for (index, (group, table)) in self.groups.iter_mut().zip(&mut tables.pages).enumerate() {
            for (id, own) in known.iter().zip(table) {
                let Some(node) = prefixes.nodes.get_mut(id) else { continue };
                match (node.pages[index], *own) {
                    (Some(kept), Some(page)) if kept != page => {
                        *own = Some(group.pool.share(kept));
                        group.pool.give_back(page);
                    }
                    // It was out of the window of the one that was kept.
                    (None, Some(page)) => {
                        node.pages[index] = Some(group.pool.share(page));
                        prefixes.bytes += group.pool.page_bytes();
                    }
                    _ => {}
                }
            }
        }
        let mut parent = known.last().copied();
        for (at, page) in full.as_chunks::<PAGE_TOKENS>().0.iter().enumerate().skip(known.len()) {
            let Some(id) = self.keep(parent, root, page, tables, at) else { break };
            parent = Some(id);
        }
    }

    /// Adds page `at` of a sequence below `parent`; none where there is no room.
    fn keep(
        &mut self,
        parent: Option<NodeId>,
        root: Root,
        tokens: &[u32],
        tables: &PageTables,
        at: usize,
    ) -> Option<NodeId> {
        let of_group = |table: &Vec<Option<PageId>>| table.get(at).copied().flatten();
        let own: Vec<Option<PageId>> = tables.pages.iter().map(of_group).collect();
        let there = self.groups.iter().zip(&own).filter(|(_, page)| page.is_some());
        let bytes = there.map(|(group, _)| group.pool.page_bytes()).sum::<u64>() + NODE_BYTES;
        while self.prefixes.as_ref()?.bytes.saturating_add(bytes) > self.prefixes.as_ref()?.limit {
            // Not the parent: its pages are the sequence's.
            if !self.forget(parent) {
                return None;
            }
        }
        let reservation = self.budget.reserve_growing(NODE_BYTES, "an entry of the prefix cache").ok()?;
        let groups = self.groups.iter_mut().zip(&own);
        let pages = groups.map(|(group, page)| page.map(|page| group.pool.share(page))).collect();
        Some(self.prefixes.as_mut()?.add(parent, root, tokens, Added { pages, bytes, reservation }))
    }

    /// Gives back the pages of the node that was used longest ago and whose pages no sequence uses, but not `spared`. Returns
    /// whether there was one.
    fn forget(&mut self, spared: Option<NodeId>) -> bool {
        let KvCache { prefixes: Some(prefixes), groups, .. } = self else { return false };
        let idle = |id: &NodeId| {
            let pages = prefixes.nodes.get(id).map(|node| node.pages.as_slice()).unwrap_or_default();
            let mut pages = groups.iter().zip(pages).filter_map(|(group, page)| Some((group, (*page)?)));
            pages.any(|(group, page)| !group.pool.is_shared(page))
        };
        let leaves = prefixes.leaves.iter().map(|&(_, id)| id).filter(|id| Some(*id) != spared);
        let Some(id) = leaves.into_iter().find(idle) else { return false };
        let Some(node) = prefixes.remove(id) else { return false };
        prefixes.bytes -= NODE_BYTES;
        for (group, page) in groups.iter_mut().zip(node.pages) {
            if let Some(page) = page {
                prefixes.bytes -= group.pool.page_bytes();
                group.pool.give_back(page);
            }
        }
        true
    }

    /// Gives back pages that only the index holds, those that were used longest ago. Returns whether there were any.
    pub(crate) fn forget_prefix(&mut self) -> bool {
        self.forget(None)
    }

    /// Gives back all pages of the index.
    pub(crate) fn forget_prefixes(&mut self) {
        let Some(prefixes) = self.prefixes.as_mut() else { return };
        let nodes = std::mem::replace(prefixes, PrefixIndex::new(prefixes.limit)).nodes;
        for node in nodes.into_values() {
            for (group, page) in self.groups.iter_mut().zip(node.pages) {
                page.into_iter().for_each(|page| group.pool.give_back(page));
            }
        }
    }
}
