//! Pages of which a sequence shares only the first tokens.
//!
//! The last page of a sequence that has ended is mostly not full. It stays as a *tail*: a node of fewer tokens than a page, which
//! has no children. A sequence that begins like a tail, or like the first tokens of any other page, shares that page, and copies it
//! before it writes its own next token there: so the next turn of a conversation computes its new tokens alone.
//!
//! Keys and values of the first tokens do not depend on those after them, but the states of recurrent layers do: models that
//! have such layers go on from a tail as a whole, or not at all.

use std::ops::Bound::{Excluded, Included, Unbounded};

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::prefix::{Children, NodeId, PrefixIndex};
use super::prefix_key::Root;
use super::{Group, KvCache, PageId, PageTables, StateTable};

/// Fewer common tokens than these are computed again: they are not worth a copy of their page.
pub(crate) const LEAST: usize = 8;

/// The child that has the most first tokens in common with `tokens`, and how many these are.
fn nearest(children: &Children, tokens: &[u32]) -> Option<(NodeId, usize)> {
    // In the order of their tokens, it is next to them.
    let before = children.range::<[u32], _>((Unbounded, Included(tokens))).next_back();
    let after = children.range::<[u32], _>((Excluded(tokens), Unbounded)).next();
    let common = |page: &[u32]| page.iter().zip(tokens).take_while(|(one, other)| one == other).count();
    let both = before.into_iter().chain(after);
    both.map(|(page, id)| (*id, common(page))).max_by_key(|(_, common)| *common)
}

/// The longest tail all of whose tokens are the first of `tokens`, and how many these are.
fn longest(children: &Children, tokens: &[u32]) -> Option<(NodeId, usize)> {
    let lengths = LEAST..tokens.len().min(PAGE_TOKENS - 1) + 1;
    lengths.rev().find_map(|length| Some((*children.get(&tokens[..length])?, length)))
}

impl PrefixIndex {
    /// The node whose first tokens come next in `tokens` after the full pages `found`, and how many these are. `as_a_whole`: all
    /// of its tokens.
    pub(super) fn part(
        &self,
        root: Root,
        found: &[NodeId],
        tokens: &[u32],
        as_a_whole: bool,
    ) -> Option<(NodeId, usize)> {
        let children = self.children(root, found.last().copied())?;
        let rest = tokens.get(found.len() * PAGE_TOKENS..)?;
        let part = if as_a_whole { longest(children, rest) } else { nearest(children, rest) };
        part.filter(|(_, common)| *common >= LEAST)
    }
}

impl PageTables {
    /// The page with the last of `computed` tokens; of a recurrent group, the state after them.
    fn last_page(&self, group: usize, computed: usize) -> Option<PageId> {
        let live = self.states.get(group).and_then(StateTable::live);
        let state = live.filter(|state| state.tokens == computed).map(|state| state.page);
        state.or_else(|| self.pages.get(group)?.get(computed / PAGE_TOKENS).copied().flatten())
    }
}

impl KvCache {
    /// Keeps the last page of a sequence that has ended, whose first `computed` tokens are in its pages, if it is not full. Its full
    /// pages are kept already.
    pub(crate) fn remember_tail(&mut self, root: Root, tokens: &[u32], tables: &PageTables, computed: usize) {
        let KvCache { prefixes: Some(prefixes), groups, .. } = self else { return };
        let at = computed / PAGE_TOKENS;
        let Some((full, tail)) = tokens.get(..computed).map(|known| known.split_at(at * PAGE_TOKENS)) else {
            return;
        };
        let mut path = prefixes.find(root, full);
        if path.len() < at {
            return;
        }
        if tail.is_empty() {
            path.last().into_iter().for_each(|&last| self.keep_states(last, tables, computed));
            return;
        }
        if tail.len() < LEAST {
            return;
        }
        let parent = path.last().copied();
        let known = prefixes.part(root, &path, &tokens[..computed], groups.iter().any(Group::is_recurrent));
        let known = known.filter(|(_, common)| *common == tail.len());
        path.extend(known.map(|(id, _)| id));
        prefixes.touch(&path);
        if known.is_some() {
            return;
        }
        let own: Vec<Option<PageId>> =
            (0..groups.len()).map(|group| tables.last_page(group, computed)).collect();
        if own.iter().all(Option::is_some) {
            self.keep_pages(parent, root, tail, &own);
        }
    }

    /// Keeps the states of a sequence after `computed` tokens, which end with those of a node, if the node has none: passes over
    /// single tokens take no snapshots at the ends of pages.
    fn keep_states(&mut self, id: NodeId, tables: &PageTables, computed: usize) {
        let KvCache { prefixes: Some(prefixes), groups, .. } = self else { return };
        let Some(node) = prefixes.nodes.get_mut(&id) else { return };
        for (index, group) in groups.iter_mut().enumerate().filter(|(_, group)| group.is_recurrent()) {
            let live = tables.states.get(index).and_then(StateTable::live);
            let Some(state) = live.filter(|state| state.tokens == computed) else { continue };
            let bytes = group.pool.page_bytes();
            if node.pages[index].is_none() && prefixes.bytes + bytes <= prefixes.limit {
                node.pages[index] = Some(group.pool.share(state.page));
                prefixes.bytes += bytes;
            }
        }
    }

    /// Removes the tail below `parent` whose tokens `tokens` begins with: a node of `tokens` is about to be added.
    pub(super) fn drop_tail_of(&mut self, parent: Option<NodeId>, root: Root, tokens: &[u32]) {
        // States after fewer tokens are not those after more.
        if self.groups.iter().any(Group::is_recurrent) {
            return;
        }
        let children = self.prefixes.as_ref().and_then(|prefixes| prefixes.children(root, parent));
        // Others that begin like the tail would have let it go.
        let before = children
            .and_then(|children| children.range::<[u32], _>((Unbounded, Excluded(tokens))).next_back())
            .filter(|(page, _)| tokens.starts_with(page))
            .map(|(_, id)| *id);
        before.into_iter().for_each(|tail| self.drop_node(tail, false));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayerState, PageData};
    use super::*;
    use crate::options::KvType;
    use crate::runtime::Budget;

    const FULL: LayerState = LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 };
    const WINDOW: LayerState = LayerState::Attention { window: Some(70), kv_heads: 1, head_dim: 16 };
    const RECURRENT: LayerState = LayerState::Recurrent { floats: 8 };

    fn cache(layers: &[LayerState]) -> KvCache {
        let mut cache = KvCache::new(KvType::F32, layers, &Budget::new(None)).unwrap();
        cache.keep_prefixes(u64::MAX);
        cache
    }

    fn tokens(length: usize, salt: u32) -> Vec<u32> {
        (0..length as u32).map(|i| i * 7 + salt).collect()
    }

    /// A sequence of `tokens` that begins with what is known, and how many tokens that are.
    fn begin(cache: &mut KvCache, tokens: &[u32]) -> (PageTables, usize) {
        let mut tables = PageTables::default();
        let known = cache.attach(Root::default(), tokens, &mut tables, 0);
        (tables, known)
    }

    fn known(cache: &mut KvCache, tokens: &[u32]) -> usize {
        let (mut tables, known) = begin(cache, tokens);
        cache.release_all(&mut tables);
        known
    }

    /// A sequence that computes all of `tokens` and ends.
    fn run(cache: &mut KvCache, tokens: &[u32]) -> usize {
        let (mut tables, known) = begin(cache, tokens);
        let length = tokens.len();
        cache.own(&mut tables, known).unwrap();
        cache.grow(&mut tables, length).unwrap();
        cache.remember(Root::default(), tokens, &mut tables, length);
        cache.release_passed(&mut tables, length);
        cache.remember_tail(Root::default(), tokens, &tables, length);
        cache.release_all(&mut tables);
        known
    }

    fn is_empty(cache: &mut KvCache) -> bool {
        cache.forget_prefixes();
        cache.trim();
        (cache.usage(), cache.budget.used()) == ((0, 0), 0)
    }

    #[test]
    fn the_next_turn_computes_its_own_tokens() {
        for layers in [&[FULL][..], &[FULL, WINDOW], &[WINDOW], &[FULL, RECURRENT], &[WINDOW, RECURRENT]] {
            let mut cache = cache(layers);
            let mut turns = tokens(100, 1);
            assert_eq!(run(&mut cache, &turns), 0);
            // One ends with a page.
            for length in [140, 150, 192, 200, 300] {
                let before = turns.len();
                turns = tokens(length, 1);
                assert_eq!(run(&mut cache, &turns), before, "{layers:?}");
            }
            assert!(is_empty(&mut cache));
        }
    }

    #[test]
    fn pages_are_shared_in_part_and_copied_before_they_change() {
        let mut cache = cache(&[FULL]);
        run(&mut cache, &tokens(220, 1));
        let value = |cache: &KvCache, page: PageId| match cache.groups[0].pool.page(page) {
            Some(PageData::F32(data)) => data[0],
            other => panic!("{other:?}"),
        };
        // Of a full page, of a tail, and too few.
        for (common, expected) in [(100, 100), (210, 210), (64 + LEAST, 64 + LEAST), (64 + LEAST - 1, 64)] {
            let other = [tokens(common, 1), tokens(50, 99_999)].concat();
            assert_eq!(known(&mut cache, &other), expected, "{common}");
        }
        let other = [tokens(100, 1), tokens(50, 99_999)].concat();
        let (mut tables, computed) = begin(&mut cache, &other);
        let shared = tables.pages[0][1].unwrap();
        cache.own(&mut tables, computed).unwrap();
        let own = tables.pages[0][1].unwrap();
        assert_ne!(own, shared);
        if let [PageData::F32(data)] = cache.groups[0].pool.pages_mut(&[own]).as_mut_slice() {
            data.fill(3.0);
        }
        assert_eq!((value(&cache, own), value(&cache, shared)), (3.0, 0.0));
        cache.release_all(&mut tables);
        assert!(is_empty(&mut cache));
    }

    #[test]
    fn a_tail_goes_when_a_longer_page_begins_with_it() {
        let mut plain = cache(&[FULL]);
        let mut hybrid = cache(&[FULL, RECURRENT]);
        for cache in [&mut plain, &mut hybrid] {
            for length in [80, 90, 110, 110, 100, 128] {
                run(cache, &tokens(length, 1));
            }
        }
        let nodes = |cache: &KvCache| cache.prefixes.as_ref().unwrap().nodes.len();
        assert_eq!(nodes(&plain), 2);
        // States after fewer tokens are of use of their own: those after 80, 90, 100 and 110.
        assert_eq!(nodes(&hybrid), 2 + 4);
        let parts = |cache: &mut KvCache, common: usize| {
            known(cache, &[tokens(common, 1), tokens(50, 99_999)].concat())
        };
        assert_eq!([80, 99, 100, 120].map(|common| parts(&mut plain, common)), [80, 99, 100, 120]);
        assert_eq!([80, 99, 100, 120].map(|common| parts(&mut hybrid, common)), [80, 90, 100, 110]);
        assert!(is_empty(&mut plain) && is_empty(&mut hybrid));
    }

    /// Whatever the sequences, what is shared is the longest common beginning that is worth it.
    #[test]
    fn the_longest_common_beginning_is_found() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let mut cache = cache(&[FULL]);
            let mut ended: Vec<Vec<u32>> = Vec::new();
            for _ in 0..12 {
                let mut list: Vec<u32> = match ended.get(draw(ended.len() as u64 + 1) as usize) {
                    Some(other) => other[..=draw(other.len() as u64) as usize].to_vec(),
                    None => Vec::new(),
                };
                let more = 9 + draw(150);
                list.extend((0..more).map(|_| draw(2) as u32));
                let common = |other: &Vec<u32>| other.iter().zip(&list).take_while(|(a, b)| a == b).count();
                let most = ended.iter().map(common).max().unwrap_or(0).min(list.len() - 1);
                let most = if most % PAGE_TOKENS < LEAST { most / PAGE_TOKENS * PAGE_TOKENS } else { most };
                // Tails of fewer tokens are not kept.
                assert_eq!(run(&mut cache, &list), most);
                if list.len() % PAGE_TOKENS < LEAST {
                    list.truncate(list.len() / PAGE_TOKENS * PAGE_TOKENS);
                }
                if !list.is_empty() {
                    ended.push(list);
                }
            }
            assert!(is_empty(&mut cache));
        }
    }
}
