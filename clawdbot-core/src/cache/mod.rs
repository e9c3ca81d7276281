//! What layers remember of each sequence, in pages.
//!
//! Layers with the same kind of state form a *group*; each group has its own page pool, and each sequence one page
//! table per group. The kinds are full attention, sliding-window attention (whose pages are released once every query
//! has moved past them), and recurrent layers, whose state is a page by itself: see `states`.
//!
//! A page holds `PAGE_TOKENS` consecutive positions of one sequence, aligned to absolute positions, for all layers
//! of its group:
//! ```text
//! page:  [layer of group][kv head] { K, V }
//! ```
//! The layout of K and V is that of `clawdbot_kernels::attention`: 16 keys are interleaved, so that the scores of 16 keys
//! are one vector and need no horizontal sums.

mod block_pool;
mod drafts;
mod image;
mod lent;
mod prefix;
mod prefix_image;
mod prefix_key;
mod prefix_store;
mod prefix_swap;
mod prefix_tail;
mod room;
mod shape;
mod sharing;
mod states;

pub(crate) use block_pool::{BlockPool, PageData, PageId, PageLen};
pub(crate) use image::{LoosePages, StoredPage};
pub(crate) use lent::Lent;
use lent::Loans;
use prefix::PrefixIndex;
pub(crate) use prefix_image::Stopped;
pub(crate) use prefix_key::Root;
use prefix_store::StoredNodes;
pub(crate) use prefix_swap::LooseNodes;
pub(crate) use prefix_tail::LEAST as LEAST_SHARED;
pub(crate) use room::Pages;
pub(crate) use shape::KvShape;
pub(crate) use states::{State, StateTable};

use clawdbot_kernels::attention::PAGE_TOKENS;

use crate::error::{Error, Result};
use crate::options::KvType;
use crate::runtime::Budget;

/// What a layer keeps per sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerState {
    /// Keys and values of all positions, or of the last `window` ones.
    Attention {
        /// Positions that a query sees, its own included; `None`: all.
        window: Option<usize>,
        /// Number of key and value heads.
        kv_heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// No state of its own: the layer reads the keys and values of an earlier layer.
    Shared {
        /// Index of the earlier layer.
        layer: usize,
    },
    /// A state of fixed size, after the last position.
    Recurrent {
        /// Number of f32 values.
        floats: usize,
    },
}

/// Layers with the same kind of state.
#[derive(Debug)]
struct Group {
    state: LayerState,
    /// Shape of keys and values; empty in a recurrent group.
    shape: KvShape,
    pool: BlockPool,
}

impl Group {
    fn is_recurrent(&self) -> bool {
        matches!(self.state, LayerState::Recurrent { .. })
    }

    /// Positions that a query sees; `None`: all.
    fn window(&self) -> Option<usize> {
        match self.state {
            LayerState::Attention { window, .. } => window,
            LayerState::Recurrent { .. } | LayerState::Shared { .. } => None,
        }
    }
}

/// Where a layer's keys and values are, or its states.
#[derive(Debug, Clone, Copy)]
struct LayerPlace {
    group: usize,
    /// Index inside the group.
    index: usize,
}

/// The cache of a model: a page pool for each group, and the group of each layer.
#[derive(Debug)]
pub(crate) struct KvCache {
    kv_type: KvType,
    groups: Vec<Group>,
    layers: Vec<LayerPlace>,
    budget: Budget,
    /// Bytes of pages at which the system refused another.
    ceiling: u64,
    /// Pages that callers have.
    loans: Loans,
    /// Pages of earlier sequences, if they are kept.
    prefixes: Option<PrefixIndex>,
    /// Those in the swap space.
    stored: Option<StoredNodes>,
}

/// The pages of one sequence, one table per group. Entry `i` covers positions `i * PAGE_TOKENS ..`; `None` is a page
/// that no query will read again. A recurrent group has its states instead.
#[derive(Debug, Default)]
pub(crate) struct PageTables {
    pages: Vec<Vec<Option<PageId>>>,
    states: Vec<StateTable>,
    /// How many of the sequence's first tokens are known, the states after them maybe not.
    parts_at: usize,
}

impl PageTables {
    /// Whether the sequence holds any page.
    pub(crate) fn hold_pages(&self) -> bool {
        self.pages.iter().flatten().any(Option::is_some) || self.states.iter().any(StateTable::holds_pages)
    }

    /// Table of a group.
    pub(crate) fn of_group(&self, group: usize) -> &[Option<PageId>] {
        self.pages.get(group).map_or(&[], Vec::as_slice)
    }

    /// States of a recurrent group.
    pub(crate) fn states(&self, group: usize) -> Option<&StateTable> {
        self.states.get(group)
    }
}

impl KvCache {
    /// An empty cache; pages are allocated as sequences grow, against `budget`.
    pub(crate) fn new(kv_type: KvType, states: &[LayerState], budget: &Budget) -> Result<Self> {
        let mut kinds: Vec<(LayerState, usize)> = Vec::new();
        let mut layers: Vec<LayerPlace> = Vec::with_capacity(states.len());
        for &state in states {
            if let LayerState::Shared { layer } = state {
                let source = layers.get(layer).copied();
                layers.push(source.ok_or_else(|| Error::internal("a layer shares what comes later"))?);
                continue;
            }
            let group = kinds.iter().position(|(kind, _)| *kind == state).unwrap_or_else(|| {
                kinds.push((state, 0));
                kinds.len() - 1
            });
            layers.push(LayerPlace { group, index: kinds[group].1 });
            kinds[group].1 += 1;
        }
        let groups = kinds.into_iter().map(|(state, count)| {
            let (shape, pool) = match state {
                LayerState::Attention { kv_heads, head_dim, .. } => {
                    let shape = KvShape { kv_heads, head_dim, kv_type };
                    (shape, BlockPool::new(shape.page_len(count), shape.page_bytes(count)?, kv_type, budget))
                }
                LayerState::Recurrent { floats } => {
                    let len = floats.checked_mul(count).filter(|len| len.checked_mul(4).is_some());
                    let len = len.ok_or_else(|| Error::invalid_model("a state exceeds the address space"))?;
                    let pool = BlockPool::new(
                        PageLen { elements: len, scales: 0 },
                        4 * len as u64,
                        KvType::F32,
                        budget,
                    );
                    (KvShape { kv_heads: 0, head_dim: 0, kv_type }, pool)
                }
                LayerState::Shared { .. } => return Err(Error::internal("a layer that shares has no pages")),
            };
            Ok(Group { state, shape, pool })
        });
        let groups = groups.collect::<Result<_>>()?;
        let budget = budget.clone();
        let (ceiling, loans) = (u64::MAX, Loans::default());
        Ok(KvCache { kv_type, groups, layers, budget, ceiling, loans, prefixes: None, stored: None })
    }

    /// Type of the cached keys and values.
    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Shape of `layer`'s keys and values.
    pub(crate) fn shape(&self, layer: usize) -> KvShape {
        self.groups[self.layers[layer].group].shape
    }

    /// Bytes that one more token costs when all groups keep it, pages counted in full. States do not grow.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let attention = self.groups.iter().filter(|group| !group.is_recurrent());
        attention.map(|group| group.pool.page_bytes()).sum::<u64>() / PAGE_TOKENS as u64
    }

    /// Bytes of a sequence's recurrent states, whatever its length. Snapshots, kept while there is room, are not counted.
    pub(crate) fn state_bytes(&self) -> u64 {
        let recurrent = self.groups.iter().filter(|group| group.is_recurrent());
        recurrent.map(|group| group.pool.page_bytes()).sum()
    }

    /// Whether a group's layers are recurrent.
    pub(crate) fn is_recurrent(&self, group: usize) -> bool {
        self.groups[group].is_recurrent()
    }

    /// The pool of `layer`'s group.
    pub(crate) fn pool(&self, layer: usize) -> &BlockPool {
        &self.groups[self.layers[layer].group].pool
    }

    /// As [`KvCache::pool`], for writing.
    pub(crate) fn pool_mut(&mut self, layer: usize) -> &mut BlockPool {
        &mut self.groups[self.layers[layer].group].pool
    }

    /// The layer's index inside the pages of its group.
    pub(crate) fn index_of(&self, layer: usize) -> usize {
        self.layers[layer].index
    }

    /// Index of the group that `layer` belongs to, below [`KvCache::groups`].
    pub(crate) fn group_of(&self, layer: usize) -> usize {
        self.layers[layer].group
    }

    /// Number of groups.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Gives `tables` pages for positions up to `length`, and states for a pass that ends there. After an error
    /// everything cached is still there, and the pages taken so far stay in the table.
    ///
    /// # Errors
    /// `OutOfBudget` when a page cannot be had.
    pub(crate) fn grow(&mut self, tables: &mut PageTables, length: usize) -> Result<()> {
        tables.pages.resize_with(self.groups.len(), Vec::new);
        tables.states.resize_with(self.groups.len(), StateTable::default);
        if let Err(error) = self.grow_pages(tables, length) {
            // A sequence can do without snapshots.
            if !self.drop_snapshots(tables) {
                return Err(error);
            }
            self.grow_pages(tables, length)?;
        }
        for index in 0..self.groups.len() {
            if self.is_recurrent(index) {
                let after = self.snapshot_after(tables, index, length);
                self.prepare_snapshot(index, &mut tables.states[index], length, after);
            }
        }
        Ok(())
    }

    /// The pages and states that a pass needs.
    fn grow_pages(&mut self, tables: &mut PageTables, length: usize) -> Result<()> {
        for index in 0..self.groups.len() {
            if self.is_recurrent(index) {
                self.begin_states(index, &mut tables.states[index])?;
                continue;
            }
            while tables.pages[index].len() * PAGE_TOKENS < length {
                let page = self.take(index)?;
                tables.pages[index].push(Some(page));
            }
        }
        Ok(())
    }

    /// Called after a pass that ended at `position`: releases pages of sliding-window groups that no later query can see, and
    /// records the position of the states.
    pub(crate) fn release_passed(&mut self, tables: &mut PageTables, position: usize) {
        for (group, table) in self.groups.iter_mut().zip(&mut tables.pages) {
            let LayerState::Attention { window: Some(window), .. } = group.state else { continue };
            let first_seen = (position + 1).saturating_sub(window) / PAGE_TOKENS;
            for page in table.iter_mut().take(first_seen) {
                page.take().into_iter().for_each(|id| group.pool.give_back(id));
            }
        }
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            states.settle(position, &mut group.pool);
        }
    }

    /// Called after an abandoned pass that began at `position`: returns how many positions are still complete. Keys and values
    /// are intact, but states have changed, so the latest snapshot replaces them.
    pub(crate) fn abandon(&mut self, tables: &mut PageTables, position: usize) -> usize {
        if self.state_bytes() == 0 {
            return position;
        }
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            states.spoil(&mut group.pool);
        }
        self.truncate(tables, position)
    }

    /// Releases all pages of a sequence.
    pub(crate) fn release_all(&mut self, tables: &mut PageTables) {
        for (group, table) in self.groups.iter_mut().zip(&mut tables.pages) {
            table.drain(..).flatten().for_each(|id| group.pool.give_back(id));
        }
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            states.release(&mut group.pool);
        }
    }

    /// Keeps the pages for the first `length` positions. Returns how many positions are still complete: fewer than
    /// `length` when a sliding window has already released pages that they need, or when the last snapshot of the
    /// states is older.
    pub(crate) fn truncate(&mut self, tables: &mut PageTables, length: usize) -> usize {
        let mut length = length;
        // Repeated until all groups agree: one may lack a snapshot that another has.
        loop {
            let before = length;
            for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
                if group.is_recurrent() {
                    length = states.rewind(length, &mut group.pool);
                }
            }
            if length == before {
                break;
            }
        }
        for (group, table) in self.groups.iter_mut().zip(&mut tables.pages) {
            let keep = length.div_ceil(PAGE_TOKENS).min(table.len());
            table.drain(keep..).flatten().for_each(|id| group.pool.give_back(id));
        }
        let complete = self.groups.iter().zip(&tables.pages).all(|(group, table)| match group.state {
            LayerState::Attention { window, .. } => {
                let first = window.map_or(0, |window| (length + 1).saturating_sub(window) / PAGE_TOKENS);
                table.iter().skip(first).all(Option::is_some)
            }
            // States are rewound above; shared layers have no group.
            LayerState::Recurrent { .. } | LayerState::Shared { .. } => true,
        });
        if complete && length > 0 {
            return length;
        }
        self.release_all(tables);
        0
    }

    /// Frees the pages in reserve if no sequence uses the cache.
    pub(crate) fn trim(&mut self) {
        self.ceiling = u64::MAX;
        self.trim_reserve();
    }

    /// Frees the pages in reserve. Returns whether there were any.
    pub(crate) fn trim_reserve(&mut self) -> bool {
        self.groups.iter_mut().fold(false, |any, group| any | group.pool.trim())
    }

    /// Pages in use and pages allocated, over all groups.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> (usize, usize) {
        let pools = self.groups.iter().map(|group| &group.pool);
        pools.fold((0, 0), |(used, all), pool| (used + pool.used(), all + pool.allocated()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(windows: &[Option<usize>], budget: &Budget) -> KvCache {
        let layer = |&window| LayerState::Attention { window, kv_heads: 2, head_dim: 24 };
        let states: Vec<_> = windows.iter().map(layer).collect();
        KvCache::new(KvType::Bf16, &states, budget).unwrap()
    }

    #[test]
    fn layers_with_the_same_window_share_pages() {
        let budget = Budget::new(None);
        let mut cache = cache(&[None, Some(16), None, Some(16)], &budget);
        let page = 2 * (24 + 32) * 64 * 2 * 2;
        assert_eq!(cache.bytes_per_token(), 2 * page / 64);
        let mut tables = PageTables::default();
        cache.grow(&mut tables, 65).unwrap();
        assert_eq!(cache.usage(), (4, 4));
        assert_eq!(budget.used(), 4 * page);
        assert_eq!([0, 1, 2, 3].map(|layer| cache.group_of(layer)), [0, 1, 0, 1]);
        assert_eq!(tables.of_group(0).len(), 2);
        assert_eq!(cache.index_of(3), 1);
        cache.release_all(&mut tables);
        assert_eq!(cache.usage(), (0, 4));
        cache.trim();
        assert_eq!((cache.usage(), budget.used()), ((0, 0), 0));
    }

    #[test]
    fn layers_share_keys_and_may_differ_in_heads() {
        let budget = Budget::new(None);
        let small = LayerState::Attention { window: Some(16), kv_heads: 2, head_dim: 16 };
        let large = LayerState::Attention { window: Some(16), kv_heads: 1, head_dim: 32 };
        let states = [small, large, LayerState::Shared { layer: 0 }, LayerState::Shared { layer: 1 }, large];
        let cache = KvCache::new(KvType::F32, &states, &budget).unwrap();
        let places = [0, 1, 2, 3, 4].map(|layer| (cache.group_of(layer), cache.index_of(layer)));
        assert_eq!(places, [(0, 0), (1, 0), (0, 0), (1, 0), (1, 1)]);
        assert_eq!([0, 2, 3].map(|layer| cache.shape(layer).head_dim), [16, 16, 32]);
        assert_eq!(cache.bytes_per_token(), 3 * 2 * 32 * 4);
        assert!(KvCache::new(KvType::F32, &[LayerState::Shared { layer: 0 }], &budget).is_err());
    }

    #[test]
    fn windows_give_pages_back_and_truncation_notices() {
        let budget = Budget::new(None);
        let mut cache = cache(&[None, Some(16)], &budget);
        let mut tables = PageTables::default();
        cache.grow(&mut tables, 200).unwrap();
        cache.release_passed(&mut tables, 78);
        assert_eq!(cache.usage().0, 8, "position 78 still sees 63");
        cache.release_passed(&mut tables, 79);
        assert_eq!(cache.usage().0, 7);
        assert_eq!(cache.truncate(&mut tables, 100), 100);
        assert_eq!(cache.truncate(&mut tables, 70), 0, "position 70 needs 55, which is gone");
        assert_eq!(cache.usage().0, 0);
    }

    #[test]
    fn a_full_budget_keeps_what_was_there() {
        let budget = Budget::new(Some(3 * 2 * (24 + 32) * 64 * 2));
        let mut cache = cache(&[None], &budget);
        let mut tables = PageTables::default();
        cache.grow(&mut tables, 64).unwrap();
        assert!(cache.grow(&mut tables, 1000).is_err());
        assert_eq!(cache.usage().0, 3);
        assert_eq!(cache.truncate(&mut tables, 64), 64);
        assert_eq!(cache.usage().0, 1);
    }
}
