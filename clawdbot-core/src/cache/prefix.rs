//! Pages that outlive their sequences, found by the tokens before them: a sequence that begins as an earlier one did shares
//! what is computed already.
//!
//! A *node* stands for a page full of tokens after all those of its parents, and holds its pages, one for each group. Keys
//! and values depend on nothing but the tokens up to their own and on what a [`Root`] says, so the pages of a node are those
//! that any sequence with the same tokens would compute, bit for bit. `prefix_tail` has pages that are not
//! full, and pages of which a sequence shares only the first tokens.
//!
//! Of recurrent layers, a node holds the state after its last token, if a pass took a snapshot there: at the last end of a page
//! in each pass over several tokens, or where the tokens part from those that are known, so that the next sequence which
//! begins like that can go on from there.
//!
//! Nodes without children go first when memory is needed, those used longest ago first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::prefix_key::{Key, Root, key_of};
use super::{Group, KvCache, PageId, PageTables, StateTable};
use crate::runtime::{Budget, Reservation};

/// Bytes of a node apart from its pages: its tokens, and its places in maps.
pub(super) const NODE_BYTES: u64 = 8 * PAGE_TOKENS as u64 + 256;

/// Number of a node; never used again.
pub(super) type NodeId = u64;

/// The nodes after a node, by their tokens.
pub(super) type Children = BTreeMap<Box<[u32]>, NodeId>;

/// A page of tokens, or fewer, and its cache.
#[derive(Debug)]
pub(super) struct Node {
    /// None below a root.
    pub(super) parent: Option<NodeId>,
    pub(super) root: Root,
    pub(super) tokens: Box<[u32]>,
    pub(super) children: Children,
    /// One for each group; `None`: no query after the node reads it, or no state was kept.
    pub(super) pages: Vec<Option<PageId>>,
    /// When it was used last.
    pub(super) used: u64,
    /// What it is found by in the swap space.
    pub(super) key: Key,
    reservation: Reservation,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    /// Most bytes of its pages and nodes.
    pub(super) limit: u64,
    pub(super) bytes: u64,
    pub(super) roots: HashMap<Root, Children>,
    pub(super) nodes: HashMap<NodeId, Node>,
    /// Nodes without children, by their last use.
    leaves: BTreeSet<(u64, NodeId)>,
    next: NodeId,
    pub(super) clock: u64,
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

    /// The nodes below `parent`, or below a root.
    pub(super) fn children(&self, root: Root, parent: Option<NodeId>) -> Option<&Children> {
        match parent {
            Some(parent) => self.nodes.get(&parent).map(|node| &node.children),
            None => self.roots.get(&root),
        }
    }

    /// The nodes of the longest known beginning of `tokens`, in full pages.
    pub(super) fn find(&self, root: Root, tokens: &[u32]) -> Vec<NodeId> {
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
    pub(super) fn touch(&mut self, ids: &[NodeId]) {
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
    pub(super) fn add(&mut self, parent: Option<NodeId>, root: Root, tokens: &[u32], node: Added) -> NodeId {
        self.next += 1;
        let id = self.next;
        let before = parent.and_then(|parent| self.nodes.get(&parent)).map(|parent| parent.key);
        let key = key_of(before.as_ref(), root, tokens);
        let children = match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(node) => {
                self.leaves.remove(&(node.used, parent.unwrap_or_default()));
                &mut node.children
            }
            None => self.roots.entry(root).or_default(),
        };
        children.insert(tokens.into(), id);
        let Added { pages, bytes, reservation } = node;
        let (children, used, tokens) = (Children::new(), self.clock, tokens.into());
        self.bytes += bytes;
        self.leaves.insert((used, id));
        self.nodes.insert(id, Node { parent, root, tokens, children, pages, used, key, reservation });
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

impl PageTables {
    /// Page `at` of a group; of a recurrent one, the state after that page that the pass which has just ended has taken.
    fn page(&self, group: usize, at: usize) -> Option<PageId> {
        let snapshot = self.states.get(group).and_then(StateTable::snapshot);
        let state = snapshot.filter(|state| state.tokens == (at + 1) * PAGE_TOKENS);
        state.map(|state| state.page).or_else(|| self.pages.get(group)?.get(at).copied().flatten())
    }
}

/// What a new node holds.
pub(super) struct Added {
    pub(super) pages: Vec<Option<PageId>>,
    pub(super) bytes: u64,
    pub(super) reservation: Reservation,
}

impl KvCache {
    /// Keeps pages of sequences that end, at most `limit` bytes of them.
    pub(crate) fn keep_prefixes(&mut self, limit: u64) {
        self.prefixes = Some(PrefixIndex::new(limit));
    }

    /// Whether pages of sequences that end are kept.
    pub(crate) fn keeps_prefixes(&self) -> bool {
        self.prefixes.is_some()
    }

    /// Bytes that are kept, entries included.
    pub(crate) fn prefix_bytes(&self) -> u64 {
        self.prefixes.as_ref().map_or(0, |prefixes| prefixes.bytes)
    }

    /// Gives a sequence of `tokens`, whose first `computed` are in its pages, those that are known in place of its own, if these
    /// are more. Returns how many tokens are in its pages then: the last one is always left, since something has to be computed.
    pub(crate) fn attach(
        &mut self,
        root: Root,
        tokens: &[u32],
        tables: &mut PageTables,
        computed: usize,
    ) -> usize {
        let KvCache { prefixes: Some(prefixes), groups, .. } = self else { return computed };
        let most = &tokens[..tokens.len().saturating_sub(1)];
        let mut found = prefixes.find(root, most);
        let full = found.len();
        tables.parts_at = full * PAGE_TOKENS;
        let part = prefixes.part(root, &found, most, groups.iter().any(Group::is_recurrent));
        found.extend(part.map(|(id, _)| id));
        let count = |nodes: usize| match part {
            Some((_, more)) if nodes > full => full * PAGE_TOKENS + more,
            _ => nodes * PAGE_TOKENS,
        };
        // What the next query does not see may be missing, and states are needed after the last token alone.
        let first = |group: &Group, nodes: usize| match (group.is_recurrent(), group.window()) {
            (true, _) => nodes.saturating_sub(1),
            (false, None) => 0,
            (false, Some(window)) => ((count(nodes) + 1).saturating_sub(window) / PAGE_TOKENS).min(nodes),
        };
        let page = |prefixes: &PrefixIndex, id: &NodeId, group: usize| prefixes.nodes.get(id)?.pages[group];
        let whole = |found: &[NodeId]| {
            groups.iter().enumerate().all(|(index, group)| {
                found[first(group, found.len())..].iter().all(|id| page(prefixes, id, index).is_some())
            })
        };
        while !whole(&found) {
            found.pop();
        }
        let count = count(found.len());
        if count <= computed {
            return computed;
        }
        prefixes.touch(&found);
        let mut known = PageTables { parts_at: tables.parts_at, ..PageTables::default() };
        for (index, group) in groups.iter_mut().enumerate() {
            let seen = first(group, found.len());
            let recurrent = group.is_recurrent();
            let mut shared = found.iter().enumerate().map(|(at, id)| {
                let page = page(prefixes, id, index).filter(|_| at >= seen)?;
                Some(group.pool.share(page))
            });
            let (pages, state) = match recurrent {
                true => (Vec::new(), shared.by_ref().last().flatten()),
                false => (shared.collect(), None),
            };
            known.pages.push(pages);
            known.states.push(state.map_or_else(StateTable::default, |page| StateTable::after(count, page)));
        }
        self.release_all(&mut std::mem::replace(tables, known));
        count
    }

    /// Keeps the full pages of a sequence whose first `computed` tokens are in its pages. Where the same page was kept of
    /// another sequence, the two share that one from now on.
    pub(crate) fn remember(&mut self, root: Root, tokens: &[u32], tables: &mut PageTables, computed: usize) {
        let Some(prefixes) = self.prefixes.as_mut() else { return };
        let full = tokens.get(..computed / PAGE_TOKENS * PAGE_TOKENS).unwrap_or_default();
        let known = prefixes.find(root, full);
        prefixes.touch(&known);
        for (index, group) in self.groups.iter_mut().enumerate() {
            for (at, id) in known.iter().enumerate() {
                let own = tables.page(index, at);
                let Some(node) = prefixes.nodes.get_mut(id) else { continue };
                match (node.pages[index], own) {
                    (Some(kept), Some(page)) if kept != page => {
                        if let Some(own) = tables.pages[index].get_mut(at) {
                            *own = Some(group.pool.share(kept));
                            group.pool.give_back(page);
                        }
                    }
                    // It was out of the window of the one that was kept, or no snapshot was taken there.
                    (None, Some(page)) if prefixes.bytes + group.pool.page_bytes() <= prefixes.limit => {
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
        let own: Vec<Option<PageId>> = (0..self.groups.len()).map(|group| tables.page(group, at)).collect();
        self.keep_pages(parent, root, tokens, &own)
    }

    /// Adds a node of a sequence's pages, one for each group, below `parent`; none where there is no room.
    pub(super) fn keep_pages(
        &mut self,
        parent: Option<NodeId>,
        root: Root,
        tokens: &[u32],
        own: &[Option<PageId>],
    ) -> Option<NodeId> {
        if own.iter().all(Option::is_none) {
            return None;
        }
        self.drop_tail_of(parent, root, tokens);
        let there = self.groups.iter().zip(own).filter(|(_, page)| page.is_some());
        let bytes = there.map(|(group, _)| group.pool.page_bytes()).sum::<u64>() + NODE_BYTES;
        if !self.fit_node(parent, bytes) {
            return None;
        }
        let reservation = self.reserve_entry(parent)?;
        let groups = self.groups.iter_mut().zip(own);
        let pages = groups.map(|(group, page)| page.map(|page| group.pool.share(page))).collect();
        Some(self.prefixes.as_mut()?.add(parent, root, tokens, Added { pages, bytes, reservation }))
    }

    /// Makes room within the limit for a node of `bytes` bytes below `parent`. Returns whether there is.
    pub(super) fn fit_node(&mut self, parent: Option<NodeId>, bytes: u64) -> bool {
        let fits = |prefixes: &PrefixIndex| prefixes.bytes.saturating_add(bytes) <= prefixes.limit;
        while !self.prefixes.as_ref().is_some_and(fits) {
            // Not the parent: its pages are the sequence's.
            if !self.forget(parent) {
                return false;
            }
        }
        true
    }

    /// Memory for an entry. Nodes make room for it, but not `spared`.
    pub(super) fn reserve_entry(&mut self, spared: Option<NodeId>) -> Option<Reservation> {
        let reserve =
            |budget: &Budget| budget.reserve_growing(NODE_BYTES, "an entry of the prefix cache").ok();
        loop {
            if let Some(reservation) = reserve(&self.budget) {
                return Some(reservation);
            }
            // What nodes have given back is in reserve.
            self.trim_reserve();
            let reserved = reserve(&self.budget);
            if reserved.is_some() || !self.forget(spared) {
                return reserved;
            }
        }
    }

    /// Gives back pages that only the index holds, of the node that was used longest ago, but not `spared`. Returns whether
    /// there were any.
    fn forget(&mut self, spared: Option<NodeId>) -> bool {
        let KvCache { prefixes: Some(prefixes), groups, .. } = self else { return false };
        let unshared = |id: &NodeId| {
            let pages = prefixes.nodes.get(id).map(|node| node.pages.as_slice()).unwrap_or_default();
            let mut pages = groups.iter().zip(pages).filter_map(|(group, page)| Some((group, (*page)?)));
            pages.any(|(group, page)| !group.pool.is_shared(page))
        };
        let empty =
            |id: &NodeId| prefixes.nodes.get(id).is_some_and(|node| node.pages.iter().all(Option::is_none));
        let mut leaves = prefixes.leaves.iter().map(|&(_, id)| id).filter(|id| Some(*id) != spared);
        if let Some(id) = leaves.find(|id| unshared(id) || empty(id)) {
            self.drop_node(id, true);
            return true;
        }
        // Those that running sequences have left, of nodes whose other pages they use.
        let nodes = prefixes.nodes.iter().filter(|(id, _)| unshared(id));
        let Some(id) = nodes.min_by_key(|(_, node)| node.used).map(|(&id, _)| id) else { return false };
        let Some(node) = prefixes.nodes.get_mut(&id) else { return false };
        for (group, page) in groups.iter_mut().zip(&mut node.pages) {
            if let Some(page) = page.take_if(|page| !group.pool.is_shared(*page)) {
                prefixes.bytes -= group.pool.page_bytes();
                group.pool.give_back(page);
            }
        }
        true
    }

    /// Takes a node without children out of the index, and gives its pages back. `stores`: they may be left in the swap space,
    /// where full pages alone are found.
    pub(super) fn drop_node(&mut self, id: NodeId, stores: bool) {
        let KvCache { prefixes: Some(prefixes), groups, stored, .. } = self else { return };
        let Some(Node { key, tokens, pages, reservation, .. }) = prefixes.remove(id) else { return };
        prefixes.bytes -= NODE_BYTES;
        if let Some(stored) = stored.as_mut().filter(|_| stores && tokens.len() == PAGE_TOKENS) {
            stored.store(groups, key, &pages, reservation);
        }
        for (group, page) in groups.iter_mut().zip(pages) {
            if let Some(page) = page {
                prefixes.bytes -= group.pool.page_bytes();
                group.pool.give_back(page);
            }
        }
    }

    /// Takes the node without children that was used longest ago out of the index, though sequences use its pages: then they
    /// may be theirs alone. Returns whether there was one.
    pub(super) fn let_go(&mut self) -> bool {
        let oldest = self.prefixes.as_ref().and_then(|prefixes| prefixes.leaves.first().copied());
        oldest.into_iter().for_each(|(_, id)| self.drop_node(id, false));
        oldest.is_some()
    }

    /// Bytes of the index's entries, which go when their pages do.
    pub(crate) fn entry_bytes(&self) -> u64 {
        let nodes = self.prefixes.as_ref().map_or(0, |prefixes| prefixes.nodes.len() as u64);
        let stored = self.stored.as_ref().map_or(0, |stored| stored.len() as u64);
        NODE_BYTES * (nodes + stored)
    }

    /// Gives back pages that only the index holds, those that were used longest ago. Returns whether there were any.
    pub(crate) fn forget_prefix(&mut self) -> bool {
        self.forget(None)
    }

    /// Gives back all pages of the index.
    pub(crate) fn forget_prefixes(&mut self) {
        while self.let_stored_go() {}
        let Some(prefixes) = self.prefixes.as_mut() else { return };
        let nodes = std::mem::replace(prefixes, PrefixIndex::new(prefixes.limit)).nodes;
        for node in nodes.into_values() {
            for (group, page) in self.groups.iter_mut().zip(node.pages) {
                page.into_iter().for_each(|page| group.pool.give_back(page));
            }
        }
    }
}
