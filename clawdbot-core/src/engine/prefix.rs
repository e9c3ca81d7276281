//! Sequences that begin as others did: they get the pages that are known, and wait for those that another one is computing.

use std::cmp::Reverse;
use std::collections::HashMap;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::{Entry, SequenceId};
use super::queue::Rank;
use super::sequence::Sequence;
use crate::cache::{KvCache, LEAST_SHARED, Root};

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

    /// Whether it has computed its prompt, and no page after the prompt's last one is full.
    fn in_last_page_of_prompt(&self) -> bool {
        let end = self.job.as_ref().filter(|job| !job.is_finished()).map(|job| job.prompt_end);
        end.is_some_and(|end| {
            self.computed >= end
                && self.computed / PAGE_TOKENS == end / PAGE_TOKENS
                && self.tables.hold_pages()
        })
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
        self.attach_known();
        if self.share_last_pages() {
            self.attach_known();
        }
    }

    /// Keeps the last pages of sequences that have computed their prompts for others that go on like them. Returns whether there
    /// were any.
    fn share_last_pages(&mut self) -> bool {
        // Who shares a page copies it before it goes on, which takes memory. States are those of whole pages.
        if !self.cache.keeps_prefixes() || self.cache.state_bytes() > 0 || self.short {
            return false;
        }
        let mut wanted: HashMap<(Root, &[u32]), Vec<&[u32]>> = HashMap::new();
        for sequence in self.sequences.values().filter(|sequence| sequence.may_attach()) {
            let at = sequence.computed;
            let rest = sequence.tokens.get(at..sequence.tokens.len().saturating_sub(1));
            let rest = rest.filter(|rest| at.is_multiple_of(PAGE_TOKENS) && rest.len() >= LEAST_SHARED);
            if let Some(rest) = rest {
                wanted.entry((sequence.root(), &sequence.tokens[..at])).or_default().push(rest);
            }
        }
        if wanted.is_empty() {
            return false;
        }
        let common = |one: &[u32], other: &[u32]| one.iter().zip(other).take_while(|(a, b)| a == b).count();
        let shares = self.sequences.iter().filter(|(_, sequence)| {
            if !sequence.may_share() || !sequence.turn.admitted || !sequence.in_last_page_of_prompt() {
                return false;
            }
            let full = sequence.computed / PAGE_TOKENS * PAGE_TOKENS;
            let own = sequence.tokens.get(full..sequence.computed).unwrap_or_default();
            // These agree with it in its full pages already.
            let others = wanted.get(&(sequence.root(), sequence.tokens.get(..full).unwrap_or_default()));
            others.is_some_and(|others| others.iter().any(|other| common(other, own) >= LEAST_SHARED))
        });
        let ids: Vec<SequenceId> = shares.map(|(&id, _)| id).collect();
        for id in &ids {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.remember_tail(&mut self.cache);
            }
        }
        !ids.is_empty()
    }

    fn attach_known(&mut self) {
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
