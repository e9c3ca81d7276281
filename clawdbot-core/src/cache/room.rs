//! How much cache memory sequences need, how much is available, and where a page comes from.

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::{KvCache, LayerState, PageId, PageTables};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Budget;

/// Bytes that the cache takes for a sequence.
pub(crate) trait Pages {
    /// Those of `length` positions, computed in passes of at most `rows` rows.
    fn bytes(&self, length: usize, rows: usize) -> u64;
}

impl Pages for KvCache {
    fn bytes(&self, length: usize, rows: usize) -> u64 {
        let of_group = |group: &super::Group| {
            let all = length.div_ceil(PAGE_TOKENS);
            let pages = match group.state {
                LayerState::Attention { window: None, .. } => all,
                // The window of a pass's first row, then the rows; the first position may be anywhere in its page.
                LayerState::Attention { window: Some(window), .. } => {
                    all.min(window.saturating_add(rows).saturating_sub(2).div_ceil(PAGE_TOKENS) + 1)
                }
                LayerState::Recurrent { .. } | LayerState::Shared { .. } => 1,
            };
            group.pool.page_bytes().saturating_mul(pages as u64)
        };
        self.groups.iter().map(of_group).fold(0, u64::saturating_add)
    }
}

impl KvCache {
    /// Bytes that all sequences can hold together: allocated pages, and what the budget still allows.
    pub(crate) fn capacity(&self) -> u64 {
        let own = self.allocated_bytes().saturating_add(self.entry_bytes());
        own.saturating_add(self.budget.left()).min(self.ceiling)
    }

    /// Bytes of pages in use and in reserve.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.pool.allocated_bytes()).sum()
    }

    /// Whether what is cached of a sequence has what is cached of its shorter beginnings.
    pub(crate) fn can_be_cut(&self) -> bool {
        self.groups.iter().all(|group| !group.is_recurrent() && group.window().is_none())
    }

    /// A page of a group.
    pub(super) fn take(&mut self, group: usize) -> Result<PageId> {
        loop {
            if let Ok(page) = self.groups[group].pool.take() {
                return Ok(page);
            }
            // Free pages of other groups can be returned to the budget.
            self.trim_reserve();
            let error = match self.groups[group].pool.take() {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            if self.forget_prefix() || self.forget_entries(group) {
                continue;
            }
            // The budget allowed it, but the system did not. What the budget has left now says nothing of that: others give back.
            if Budget::lacking(&error).is_none() {
                self.ceiling = self.allocated_bytes();
            }
            return Err(error);
        }
    }

    /// Forgets an entry of the index of prefixes, if entries alone are in the way of a page.
    fn forget_entries(&mut self, group: usize) -> bool {
        let missing = self.groups[group].pool.page_bytes().saturating_sub(self.budget.left());
        (1..=self.entry_bytes()).contains(&missing) && (self.let_go() || self.let_stored_go())
    }

    /// Bytes that a sequence holds, without its snapshots.
    pub(crate) fn held(&self, tables: &PageTables) -> u64 {
        let pages = self.groups.iter().zip(&tables.pages);
        let pages =
            pages.map(|(group, table)| group.pool.page_bytes() * table.iter().flatten().count() as u64);
        let states = self.groups.iter().zip(&tables.states);
        let states = states.map(|(group, table)| group.pool.page_bytes() * u64::from(table.holds_pages()));
        pages.chain(states).sum()
    }

    /// Releases the snapshots of a sequence. Returns whether there were any.
    pub(crate) fn drop_snapshots(&mut self, tables: &mut PageTables) -> bool {
        let mut freed = false;
        for (group, states) in self.groups.iter_mut().zip(&mut tables.states) {
            freed |= states.drop_snapshots(&mut group.pool);
        }
        freed
    }

    /// The error for a sequence of `length` tokens that does not fit, with at most `rows` tokens in a pass. It holds `held`
    /// bytes.
    pub(crate) fn refusal(&self, length: usize, rows: usize, held: u64) -> Error {
        let bytes = self.bytes(length, rows).saturating_sub(held);
        let there =
            if held > 0 { format!(", beyond the {held} bytes that they have,") } else { String::new() };
        let purpose = format!("the keys and values of {length} tokens{there}");
        match self.budget.reserve_growing(bytes, &purpose) {
            Err(error) => error,
            Ok(_) => Error::new(ErrorKind::OutOfBudget, format!("the system has no memory for {purpose}"))
                .with("needed", bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::options::KvType;

    /// What is counted beforehand is what is taken, in any chunks.
    #[test]
    fn bytes_are_those_of_the_pages_that_are_taken() {
        let attention = |window| LayerState::Attention { window, kv_heads: 1, head_dim: 16 };
        let budget = Budget::new(Some(1 << 20));
        let layers = [attention(None), attention(Some(100)), LayerState::Recurrent { floats: 8 }];
        let mut cache = KvCache::new(KvType::F32, &layers, &budget).unwrap();
        for rows in [1, 7, 64, 200] {
            let mut tables = PageTables::default();
            let (mut most, mut last) = (0, 0);
            for end in (rows..1000).step_by(rows) {
                cache.grow(&mut tables, end).unwrap();
                let held = cache.held(&tables);
                assert!(held <= cache.bytes(end, rows), "{held} at {end} by {rows}");
                (most, last) = (most.max(held), end);
                cache.release_passed(&mut tables, end);
            }
            assert!(cache.bytes(last, rows) - most <= 2 * cache.groups[1].pool.page_bytes(), "{rows}");
            assert_eq!(cache.capacity(), 1 << 20);
            cache.release_all(&mut tables);
            assert_eq!((cache.held(&tables), cache.capacity()), (0, 1 << 20));
        }
        let error = cache.refusal(1 << 20, 1, 0);
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert!(error.message().contains("1048576 tokens"), "{error}");
    }

    #[test]
    fn what_others_take_for_a_moment_is_no_limit_for_ever() {
        let budget = Budget::new(Some(1 << 16));
        let layers = [LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 }];
        let mut cache = KvCache::new(KvType::F32, &layers, &budget).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(budget.reserve_growing(1 << 16, "another's"));
                }
            });
            for _ in 0..20_000 {
                if let Ok(page) = cache.take(0) {
                    cache.groups[0].pool.give_back(page);
                    cache.trim_reserve();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(cache.capacity(), 1 << 16);
    }
}
