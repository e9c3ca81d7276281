//! The states of a sequence's recurrent layers: the live one, and snapshots of earlier ones.
//!
//! A state cannot be rewound. A sequence that is truncated continues from a snapshot, and recomputes the tokens in between.
//! A pass over several tokens takes a snapshot before its last token: when the same prompt is sent again, only that token is
//! computed, for its logits. A pass with drafts takes one before each draft, and the state before the first wrong one stays.

use super::{BlockPool, KvCache, PageData, PageId, PageTables};
use crate::error::Result;

use clawdbot_kernels::attention::PAGE_TOKENS;

/// Most snapshots of a sequence.
const MAX_SNAPSHOTS: usize = 2;

/// A state and the number of tokens it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) tokens: usize,
    pub(crate) page: PageId,
}

/// The states of one sequence in one group. All groups of a sequence have theirs at the same positions.
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    live: Option<State>,
    /// The snapshot that the current pass takes.
    pending: Option<State>,
    /// The snapshots that a pass with drafts takes: after each token but the last, from the first draft on. Ascending.
    trials: Vec<State>,
    /// Pages for the trials of later passes.
    spare: Vec<PageId>,
    /// Ascending.
    snapshots: Vec<State>,
}

impl StateTable {
    /// The state after `tokens` tokens, in a page that is the table's.
    pub(super) fn after(tokens: usize, page: PageId) -> Self {
        StateTable { live: Some(State { tokens, page }), ..StateTable::default() }
    }

    /// The live state.
    pub(crate) fn live(&self) -> Option<State> {
        self.live
    }

    /// The snapshot that the pass is to take.
    pub(crate) fn snapshot(&self) -> Option<State> {
        self.pending
    }

    /// All snapshots that the pass is to take, ascending.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = State> {
        self.pending.iter().chain(&self.trials).copied()
    }

    #[cfg(test)]
    pub(super) fn clone_snapshots(&self) -> Vec<State> {
        self.snapshots.clone()
    }

    pub(super) fn holds_pages(&self) -> bool {
        self.live.is_some()
    }

    /// The pass has ended after `tokens` tokens.
    pub(super) fn settle(&mut self, tokens: usize, pool: &mut BlockPool) {
        if let Some(live) = &mut self.live {
            live.tokens = tokens;
        }
        self.snapshots.extend(self.pending.take());
        if self.snapshots.len() > MAX_SNAPSHOTS {
            pool.give_back(self.snapshots.remove(0).page);
        }
    }

    /// The pass was abandoned: the live state and its snapshot are invalid.
    pub(super) fn spoil(&mut self, pool: &mut BlockPool) {
        let spoiled = self.live.take().into_iter().chain(self.pending.take()).chain(self.trials.drain(..));
        spoiled.for_each(|state| pool.give_back(state.page));
        self.live = self.snapshots.pop();
    }

    /// Prepares snapshots after `certain` tokens and each one after it, up to before the last of `length`, as far as there are
    /// free pages. Returns the length up to which a pass can go.
    pub(super) fn try_out(&mut self, certain: usize, length: usize, pool: &mut BlockPool) -> usize {
        self.spare.extend(self.trials.drain(..).map(|state| state.page));
        for tokens in certain..length {
            let Some(page) = self.spare.pop().or_else(|| pool.take().ok()) else { return tokens };
            self.trials.push(State { tokens, page });
        }
        length
    }

    /// The pass with drafts has ended, and its first `tokens` tokens stay: the live state is the one after these.
    pub(super) fn choose(&mut self, tokens: usize) {
        let right = self.trials.iter_mut().find(|trial| trial.tokens == tokens);
        if let (Some(live), Some(right)) = (&mut self.live, right) {
            std::mem::swap(&mut live.page, &mut right.page);
        }
        self.spare.extend(self.trials.drain(..).map(|state| state.page));
    }

    /// Releases the pages for trials.
    pub(super) fn drop_trials(&mut self, pool: &mut BlockPool) -> bool {
        let all = self.trials.drain(..).map(|state| state.page).chain(self.spare.drain(..));
        all.map(|page| pool.give_back(page)).count() > 0
    }

    /// Goes back to the latest state that has seen at most `tokens` tokens. Returns how many it has seen.
    pub(super) fn rewind(&mut self, tokens: usize, pool: &mut BlockPool) -> usize {
        while let Some(late) = self.live.filter(|state| state.tokens > tokens) {
            pool.give_back(late.page);
            self.live = self.snapshots.pop();
        }
        self.live.map_or(0, |state| state.tokens)
    }

    /// The same states, shared; not those that a pass was to write.
    pub(super) fn fork(&self, pool: &mut BlockPool) -> Self {
        let mut share = |state: &State| State { page: pool.share(state.page), ..*state };
        let live = self.live.as_ref().map(&mut share);
        StateTable { live, snapshots: self.snapshots.iter().map(share).collect(), ..StateTable::default() }
    }

    /// The live state's page.
    pub(super) fn live_page(&mut self) -> Option<&mut PageId> {
        self.live.as_mut().map(|state| &mut state.page)
    }

    /// Releases the snapshots. Returns whether there were any.
    pub(super) fn drop_snapshots(&mut self, pool: &mut BlockPool) -> bool {
        let trials = self.drop_trials(pool);
        let all = self.pending.take().into_iter().chain(self.snapshots.drain(..));
        all.map(|state| pool.give_back(state.page)).count() > 0 || trials
    }

    pub(super) fn release(&mut self, pool: &mut BlockPool) {
        self.drop_trials(pool);
        let all = self.live.take().into_iter().chain(self.pending.take()).chain(self.snapshots.drain(..));
        all.for_each(|state| pool.give_back(state.page));
    }
}

impl KvCache {
    /// Gives a new sequence a state of zeros.
    pub(super) fn begin_states(&mut self, group: usize, table: &mut StateTable) -> Result<()> {
        if table.live.is_none() {
            let page = self.take(group)?;
            if let [PageData::F32(state)] = self.groups[group].pool.pages_mut(&[page]).as_mut_slice() {
                state.fill(0.0);
            }
            table.live = Some(State { tokens: 0, page });
        }
        Ok(())
    }

    /// After how many tokens a pass that ends after `length` takes a snapshot: before its last token, so that only that one is
    /// computed when the same prompt is sent again; where prefixes are kept, at the end of a page. That is where the tokens
    /// part from those that are known, or else the last one in the pass.
    pub(super) fn snapshot_after(&self, tables: &PageTables, group: usize, length: usize) -> usize {
        let done = tables.states[group].live.map_or(0, |state| state.tokens);
        let last = length.saturating_sub(1);
        let border = match tables.parts_at {
            known if known > done && known <= last => known,
            _ => last / PAGE_TOKENS * PAGE_TOKENS,
        };
        if self.keeps_prefixes() && border > done { border } else { last }
    }

    /// Takes a page for a snapshot after `after` tokens of a pass that ends after `length`, if one is due and there is room.
    /// Without it, a truncated sequence continues from an older snapshot.
    pub(super) fn prepare_snapshot(
        &mut self,
        group: usize,
        table: &mut StateTable,
        length: usize,
        after: usize,
    ) {
        let done = table.live.map_or(0, |state| state.tokens);
        let page = table.pending.take().map(|state| state.page);
        if length > done + 1 {
            let page = page.or_else(|| self.take(group).ok());
            table.pending = page.map(|page| State { tokens: after, page });
        } else if let Some(page) = page {
            self.groups[group].pool.give_back(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayerState, PageTables};
    use super::*;
    use crate::options::KvType;
    use crate::runtime::Budget;

    fn cache(budget: &Budget) -> KvCache {
        let states = [
            LayerState::Recurrent { floats: 8 },
            LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 },
            LayerState::Recurrent { floats: 8 },
        ];
        KvCache::new(KvType::F32, &states, budget).unwrap()
    }

    fn pass(cache: &mut KvCache, tables: &mut PageTables, length: usize) {
        cache.grow(tables, length).unwrap();
        cache.release_passed(tables, length);
    }

    fn tokens(tables: &PageTables) -> Option<usize> {
        tables.states(0).unwrap().live().map(|state| state.tokens)
    }

    #[test]
    fn layers_share_states_and_states_do_not_grow() {
        let budget = Budget::new(None);
        let mut cache = cache(&budget);
        assert_eq!((cache.state_bytes(), cache.bytes_per_token()), (64, 2 * 16 * 4));
        assert_eq!(
            [0, 1, 2].map(|layer| (cache.group_of(layer), cache.index_of(layer))),
            [(0, 0), (1, 0), (0, 1)]
        );
        let mut tables = PageTables::default();
        cache.grow(&mut tables, 1).unwrap();
        let state = tables.states(0).unwrap();
        assert_eq!((state.live().map(|state| state.tokens), state.snapshot()), (Some(0), None));
        cache.release_passed(&mut tables, 1);
        assert_eq!(tokens(&tables), Some(1));
        cache.release_all(&mut tables);
        assert!(!tables.hold_pages());
        assert_eq!(cache.usage().0, 0);
    }

    #[test]
    fn a_shorter_sequence_goes_on_from_a_snapshot() {
        let budget = Budget::new(None);
        let mut cache = cache(&budget);
        let mut tables = PageTables::default();
        for length in [10, 20, 30, 31, 32] {
            pass(&mut cache, &mut tables, length);
        }
        // The state, two snapshots, and a page of keys.
        assert_eq!(cache.usage().0, 4);
        assert_eq!(cache.truncate(&mut tables, 31), 29);
        assert_eq!(cache.truncate(&mut tables, 29), 29);
        pass(&mut cache, &mut tables, 31);
        assert_eq!(cache.truncate(&mut tables, 25), 19);
        assert_eq!(cache.truncate(&mut tables, 18), 0, "older snapshots are gone");
        assert_eq!(cache.usage().0, 0);
    }

    #[test]
    fn an_abandoned_pass_goes_back() {
        let budget = Budget::new(None);
        let mut cache = cache(&budget);
        let mut tables = PageTables::default();
        pass(&mut cache, &mut tables, 10);
        cache.grow(&mut tables, 20).unwrap();
        assert_eq!(cache.abandon(&mut tables, 10), 9);
        assert_eq!(tokens(&tables), Some(9));
        cache.grow(&mut tables, 20).unwrap();
        assert_eq!(cache.abandon(&mut tables, 9), 0);
        assert_eq!((tables.hold_pages(), cache.usage().0), (false, 0));
    }

    #[test]
    fn snapshots_make_room() {
        // A state and a page of keys, and room for one more state.
        let budget = Budget::new(Some(64 + 64 * 2 * 16 * 4 + 64));
        let mut cache = cache(&budget);
        let mut tables = PageTables::default();
        pass(&mut cache, &mut tables, 20);
        assert_eq!(cache.usage().0, 3);
        pass(&mut cache, &mut tables, 40);
        assert_eq!((cache.usage().0, tables.states(0).unwrap().snapshots.len()), (3, 1));
        // A second page of keys does not fit, even without the snapshot.
        assert!(cache.grow(&mut tables, 65).is_err());
        assert_eq!((cache.usage().0, tokens(&tables)), (2, Some(40)));
        assert_eq!(cache.truncate(&mut tables, 39), 0);
    }
}
