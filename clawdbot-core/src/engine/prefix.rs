//! Sequences that begin as others did: they get the pages that are known, and wait for those that another one is computing.

use std::cmp::Reverse;
use std::collections::HashMap;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::Entry;
use super::queue::Rank;
use super::sequence::Sequence;
use crate::cache::{KvCache, Root};

impl Sequence {
    /// What its keys and values depend on apart from its tokens.
    pub(super) fn root(&self) -> Root {
        Root { adapter: self.adapter.as_ref().map(|adapter| adapter.id), long: self.long }
    }

    /// Whether its keys and values are those of its tokens alone.
    fn is_plain(&self) -> bool {
        self.token_types.is_empty()
    }

    /// Whether others may have its pages: not what somebody may have written into a file.
    fn may_share(&self) -> bool {
        self.is_plain() && !self.restored
    }

    /// Keeps the pages that it has filled since it had `before` tokens.
    fn remember_prefix(&mut self, cache: &mut KvCache, before: usize) {
        if self.may_share() && self.computed / PAGE_TOKENS > before / PAGE_TOKENS {
            let root = self.root();
            cache.remember(root, &self.tokens, &mut self.tables, self.computed);
        }
    }

    /// Keeps its last page for others when its job has ended.
    pub(super) fn remember_tail(&mut self, cache: &mut KvCache) {
        if self.may_share() && self.tables.hold_pages() {
            cache.remember_tail(self.root(), &self.tokens, &self.tables, self.computed);
        }
    }

    /// Tokens up to the end of the page that it computes next.
    fn page_end(&self) -> usize {
        (self.computed / PAGE_TOKENS + 1) * PAGE_TOKENS
    }

    /// What that page depends on, if it is to be full.
    fn next_page(&self) -> Option<(Root, &[u32])> {
        Some((self.root(), self.tokens.get(..self.page_end())?))
    }

    /// After a pass that began after `before` tokens: keeps pages for others, and releases those that no later query sees.
    pub(super) fn settle(&mut self, cache: &mut KvCache, before: usize) {
        self.remember_prefix(cache, before);
        cache.release_passed(&mut self.tables, self.computed);
    }

    /// Whether it may begin with what is known: it has not begun, and needs nothing of the tokens that are.
    pub(super) fn may_attach(&self) -> bool {
        let generates = self
            .job
            .as_ref()
            .is_some_and(|job| job.scores.is_none() && job.pooler.is_none() && job.prompt_scores.is_none());
        generates && self.is_plain() && !self.turn.admitted && self.makes_progress() && self.swapped.is_none()
    }
}

/// Who computes a page.
struct Computing {
    /// The rank of the one that came first.
    first: Rank,
    /// The highest priority of those that have begun.
    begun: Option<Reverse<u32>>,
}

impl Engine {
    /// Gives pages that are known to sequences that have not begun and have fewer.
    pub(super) fn attach_prefixes(&mut self) {
        for sequence in self.sequences.values_mut().filter(|sequence| sequence.may_attach()) {
            let root = sequence.root();
            let Sequence { tokens, tables, computed, .. } = sequence;
            *computed = self.cache.attach(root, tokens, tables, *computed);
            let computed = *computed;
            if let Some(job) = sequence.job.as_mut().filter(|job| job.prefill_started.is_none()) {
                job.cached = computed;
            }
        }
    }

    /// Those of `entries` that have not begun and whose next page is that of another sequence, which came earlier or has begun:
    /// they wait for it. Those whose prefix is being read wait as well.
    pub(super) fn wait_for_prefixes(&self, entries: &mut Vec<Entry>) {
        if !self.cache.keeps_prefixes() || entries.iter().all(|entry| entry.turn.admitted) {
            return;
        }
        let mut computing: HashMap<(Root, &[u32]), Computing> = HashMap::new();
        for sequence in self.sequences.values().filter(|one| one.may_share() && one.makes_progress()) {
            let Some(page) = sequence.next_page() else { continue };
            let Rank { priority, .. } = sequence.rank;
            let one = computing.entry(page).or_insert(Computing { first: sequence.rank, begun: None });
            one.first = one.first.min(sequence.rank);
            if sequence.turn.admitted {
                one.begun = Some(one.begun.map_or(priority, |other| other.min(priority)));
            }
        }
        entries.retain(|entry| {
            if self.reads_prefix(entry.id) {
                return false;
            }
            let sequence = self.sequences.get(&entry.id).filter(|sequence| {
                let begun = sequence.turn.admitted || sequence.swapped.is_some();
                // Its last token is computed in any case.
                !begun && sequence.is_plain() && sequence.page_end() < sequence.tokens.len()
            });
            let page = sequence.and_then(Sequence::next_page);
            let Some(Computing { first, begun }) = page.and_then(|page| computing.get(&page)) else {
                return true;
            };
            // One of lower priority may be kept from computing.
            *first >= entry.rank && begun.is_none_or(|priority| priority > entry.rank.priority)
        });
    }
}
