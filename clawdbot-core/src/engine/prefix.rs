//! Sequences that begin as others did: they get the pages that are known, and wait for those that another one is computing.

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::SequenceId;
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

    /// After a pass that began after `before` tokens: keeps pages for others, and releases those that no later query sees.
    pub(super) fn settle(&mut self, cache: &mut KvCache, before: usize) {
        self.remember_prefix(cache, before);
        cache.release_passed(&mut self.tables, self.computed);
    }

    /// Whether it may begin with what is known: it has not begun, and needs nothing of the tokens that are.
    pub(super) fn may_attach(&self) -> bool {
        let generates = self.job.as_ref().is_some_and(|job| job.scores.is_none() && job.pooler.is_none());
        generates && self.is_plain() && !self.turn.admitted && self.makes_progress() && self.swapped.is_none()
    }
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

    /// Whether the next page of a sequence that has not begun is being read, or computed by another one, which came earlier or has
    /// begun: then it waits for that.
    pub(super) fn waits_for_prefix(&self, id: SequenceId) -> bool {
        if self.reads_prefix(id) {
            return true;
        }
        let Some(sequence) = self.sequences.get(&id) else { return false };
        let end = (sequence.computed / PAGE_TOKENS + 1) * PAGE_TOKENS;
        let begun = sequence.turn.admitted || sequence.swapped.is_some() || !sequence.is_plain();
        if begun || !self.cache.keeps_prefixes() || end >= sequence.tokens.len() {
            return false;
        }
        let wanted = &sequence.tokens[..end];
        self.sequences.values().any(|other| {
            // One of lower priority may be kept from computing.
            let earlier = other.rank < sequence.rank
                || other.turn.admitted && other.rank.priority <= sequence.rank.priority;
            earlier
                && other.computed < end
                && other.tokens.get(..end) == Some(wanted)
                && other.root() == sequence.root()
                && other.is_plain()
                && other.makes_progress()
        })
    }
}
