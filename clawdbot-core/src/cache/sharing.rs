//! Sequences that share pages: reading is free, and who writes first copies.

use super::{KvCache, PageTables};
use crate::error::Result;

use clawdbot_kernels::attention::PAGE_TOKENS;

impl KvCache {
    /// The tables of a sequence that begins as that of `tables` is: the same pages, shared.
    pub(crate) fn fork(&mut self, tables: &PageTables) -> PageTables {
        let groups = self.groups.iter_mut().zip(&tables.pages);
        let pages = groups.map(|(group, table)| {
            let share = |page: &Option<_>| page.map(|id| group.pool.share(id));
            table.iter().map(share).collect()
        });
        let pages = pages.collect();
        let groups = self.groups.iter_mut().zip(&tables.states);
        let states = groups.map(|(group, states)| states.fork(&mut group.pool)).collect();
        PageTables { pages, states, parts_at: tables.parts_at }
    }

    /// Makes the pages of positions from `position` on, and the live states, the sequence's own, so that a pass can write to
    /// them: those it shares are copied. After an error everything cached is still there.
    ///
    /// # Errors
    /// `OutOfBudget` when a page cannot be had.
    pub(crate) fn own(&mut self, tables: &mut PageTables, position: usize) -> Result<()> {
        for group in 0..self.groups.len() {
            let pages = tables.pages.get_mut(group).into_iter().flatten();
            let live = tables.states.get_mut(group).and_then(|states| states.live_page());
            for id in pages.skip(position / PAGE_TOKENS).flatten().chain(live) {
                while self.groups[group].pool.is_shared(*id) {
                    match self.take(group) {
                        Ok(own) => {
                            self.groups[group].pool.copy(*id, own);
                            self.groups[group].pool.give_back(std::mem::replace(id, own));
                        }
                        // Maybe nobody but the index of prefixes shares it.
                        Err(error) if !self.let_go() => return Err(error),
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayerState, PageData, PageId};
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

    fn fill(cache: &mut KvCache, group: usize, page: PageId, value: f32) {
        if let [PageData::F32(data)] = cache.groups[group].pool.pages_mut(&[page]).as_mut_slice() {
            data.fill(value);
        }
    }

    fn first(cache: &KvCache, group: usize, page: PageId) -> f32 {
        match cache.groups[group].pool.page(page) {
            Some(PageData::F32(data)) => data[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages_are_copied_by_who_writes_to_them() {
        let budget = Budget::new(None);
        let mut cache = cache(&budget);
        let mut one = PageTables::default();
        cache.grow(&mut one, 100).unwrap();
        cache.release_passed(&mut one, 100);
        let (last, state) = (one.pages[0][1].unwrap(), one.states[1].live().unwrap().page);
        fill(&mut cache, 0, last, 1.0);
        fill(&mut cache, 1, state, 2.0);
        // Two pages of keys, a state, and its snapshot.
        assert_eq!(cache.usage().0, 4);
        let mut two = cache.fork(&one);
        assert_eq!((cache.usage().0, two.states[1].live()), (4, one.states[1].live()));
        cache.grow(&mut two, 101).unwrap();
        cache.own(&mut two, 100).unwrap();
        // The last page of keys, and the state; a pass over one token takes no snapshot.
        assert_eq!(cache.usage().0, 6);
        assert_eq!((two.pages[0][0], two.pages[0][1] != Some(last)), (one.pages[0][0], true));
        let (own, own_state) = (two.pages[0][1].unwrap(), two.states[1].live().unwrap().page);
        assert_eq!((first(&cache, 0, own), first(&cache, 1, own_state)), (1.0, 2.0));
        fill(&mut cache, 0, own, 3.0);
        assert_eq!(first(&cache, 0, last), 1.0);
        // Now nobody shares these.
        cache.own(&mut one, 64).unwrap();
        assert_eq!((one.pages[0][1], cache.usage().0), (Some(last), 6));
        cache.release_all(&mut one);
        assert_eq!(cache.usage().0, 4);
        cache.own(&mut two, 0).unwrap();
        cache.release_all(&mut two);
        assert_eq!(cache.usage().0, 0);
    }

    #[test]
    fn a_copy_that_does_not_fit_changes_nothing() {
        let page = 64 * 2 * 16 * 4;
        let budget = Budget::new(Some(page + 3 * 32));
        let mut cache = cache(&budget);
        let mut one = PageTables::default();
        cache.grow(&mut one, 10).unwrap();
        cache.release_passed(&mut one, 10);
        let mut two = cache.fork(&one);
        assert!(cache.own(&mut two, 9).is_err());
        assert_eq!(two.pages, one.pages);
        cache.release_all(&mut one);
        cache.own(&mut two, 9).unwrap();
        cache.release_all(&mut two);
        assert_eq!(cache.usage().0, 0);
    }
}
