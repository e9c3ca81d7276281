//! Passes over drafts, which are guessed tokens. Those after the first wrong one are forgotten.

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::{KvCache, PageTables};

impl KvCache {
    /// Finds room for drafts in free memory alone: positions from `certain` up to `length`. The first `certain` positions have
    /// their room. Returns the length that there is room for.
    pub(crate) fn grow_drafts(&mut self, tables: &mut PageTables, certain: usize, length: usize) -> usize {
        let mut length = length;
        for (group, table) in self.groups.iter_mut().zip(&mut tables.pages) {
            if !group.is_recurrent() {
                while table.len() * PAGE_TOKENS < length
                    && let Ok(page) = group.pool.take()
                {
                    table.push(Some(page));
                }
                length = length.min(table.len() * PAGE_TOKENS);
            }
        }
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            if group.is_recurrent() {
                length = states.try_out(certain, length, &mut group.pool);
            }
        }
        if length <= certain {
            self.keep_drafts(tables, certain);
        }
        length.max(certain)
    }

    /// After a pass with drafts: keeps what belongs to the first `length` positions.
    pub(crate) fn keep_drafts(&mut self, tables: &mut PageTables, length: usize) {
        for (group, table) in self.groups.iter_mut().zip(&mut tables.pages) {
            let keep = length.div_ceil(PAGE_TOKENS).min(table.len());
            table.drain(keep..).flatten().for_each(|id| group.pool.give_back(id));
        }
        tables.states.iter_mut().for_each(|states| states.choose(length));
    }

    /// Releases what is kept for passes with drafts.
    pub(crate) fn drop_trials(&mut self, tables: &mut PageTables) {
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            states.drop_trials(&mut group.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LayerState;
    use super::*;
    use crate::options::KvType;
    use crate::runtime::Budget;

    fn cache(budget: &Budget) -> KvCache {
        let states = [
            LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 },
            LayerState::Recurrent { floats: 8 },
        ];
        KvCache::new(KvType::F32, &states, budget).unwrap()
    }

    fn begun(cache: &mut KvCache) -> PageTables {
        let mut tables = PageTables::default();
        for length in [60, 61, 62] {
            cache.grow(&mut tables, length).unwrap();
            cache.release_passed(&mut tables, length);
        }
        cache.grow(&mut tables, 63).unwrap();
        tables
    }

    #[test]
    fn the_state_before_the_first_wrong_draft_stays() {
        for (right, kept) in [(63, 1), (64, 1), (65, 2), (66, 2), (67, 2)] {
            let budget = Budget::new(None);
            let mut cache = cache(&budget);
            let mut tables = begun(&mut cache);
            assert_eq!(cache.grow_drafts(&mut tables, 63, 67), 67);
            let trials: Vec<_> = tables.states[1].snapshots().collect();
            assert_eq!(trials.iter().map(|trial| trial.tokens).collect::<Vec<_>>(), [63, 64, 65, 66]);
            let last = tables.states[1].live().unwrap().page;
            cache.keep_drafts(&mut tables, right);
            cache.release_passed(&mut tables, right);
            let live = tables.states[1].live().unwrap();
            let page = trials.iter().find(|trial| trial.tokens == right).map_or(last, |trial| trial.page);
            assert_eq!((live.tokens, live.page, tables.pages[0].len()), (right, page, kept));
            // What the trials were in is used again.
            let before = cache.usage();
            cache.grow(&mut tables, right + 1).unwrap();
            assert_eq!(cache.grow_drafts(&mut tables, right + 1, right + 5), right + 5);
            assert!(cache.usage().0 <= before.0 + 1);
            cache.keep_drafts(&mut tables, right + 1);
            cache.drop_trials(&mut tables);
            // The state, a snapshot of the prompt, and keys.
            assert_eq!(cache.usage().0, 2 + (right + 1).div_ceil(64));
            cache.release_all(&mut tables);
            assert_eq!(cache.usage().0, 0);
        }
    }

    #[test]
    fn drafts_take_free_memory_alone() {
        let page = 64 * 2 * 16 * 4;
        // A page of keys, a state, its snapshot, and two trials; then another page of keys as well.
        for (more, fits) in [(0, 63), (32, 64), (64, 64), (page, 63), (page + 64, 65)] {
            let budget = Budget::new(Some(page + 2 * 32 + more));
            let mut cache = cache(&budget);
            let mut tables = begun(&mut cache);
            let snapshots = tables.states[1].clone_snapshots();
            assert_eq!(cache.grow_drafts(&mut tables, 63, 70), fits, "{more}");
            assert_eq!(tables.states[1].clone_snapshots(), snapshots);
            if fits == 63 {
                assert_eq!(cache.usage().0, 3, "{more}");
            }
            cache.release_all(&mut tables);
        }
    }

    #[test]
    fn an_abandoned_pass_forgets_its_drafts() {
        let budget = Budget::new(None);
        let mut cache = cache(&budget);
        let mut tables = begun(&mut cache);
        cache.grow_drafts(&mut tables, 63, 67);
        assert_eq!(cache.abandon(&mut tables, 62), 59);
        assert_eq!(tables.states[1].live().map(|state| state.tokens), Some(59));
        cache.grow(&mut tables, 63).unwrap();
        assert_eq!(cache.grow_drafts(&mut tables, 63, 66), 66);
        assert!(cache.drop_snapshots(&mut tables));
        cache.release_all(&mut tables);
        assert_eq!(cache.usage().0, 0);
    }
}
