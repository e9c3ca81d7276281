//! Equal shares for groups in the places of passes: what each has computed, and whose turn is next.
//!
//! Of those who wait for a place, the sequence comes first whose group has computed the fewest tokens, those that come before it
//! in its group included. A group that asks for little gets little credit: while none of its sequences waits, it counts as at most
//! [`CREDIT`] tokens less than the least of the groups that wait.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use super::entry::{Entry, TURN, TurnOrder};
use super::queue::GroupKey;

/// Most groups that are remembered while nothing of them has work.
const MAX_AWAY: usize = 1024;

/// Most tokens that a group can get later because it has computed fewer than others: turns are not cut, so that a group of one
/// sequence, which has a turn or waits for one, needs some.
const CREDIT: u64 = 8 * TURN as u64;

/// What groups have computed since there was enough for all.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Tokens.
    served: BTreeMap<GroupKey, u64>,
    /// For each priority, the fewest of a group with something that waits.
    least: BTreeMap<u32, u64>,
    names: RandomState,
}

impl Groups {
    /// The key of a group. Two names with the same number would share.
    pub(super) fn key(&self, priority: u32, name: Option<&str>) -> GroupKey {
        (priority, self.names.hash_one(name))
    }

    /// Says in `entries` what their groups have computed.
    pub(super) fn tell(&self, entries: &mut [Entry]) {
        for entry in entries {
            let least = self.least.get(&entry.group.0).copied().unwrap_or(0);
            entry.served = self.served.get(&entry.group).copied().unwrap_or(least);
        }
    }

    /// After a pass: how many tokens of each sequence with work it computes, 0 of those that wait.
    pub(super) fn serve(&mut self, entries: &[(GroupKey, u64)]) {
        let mut waits: BTreeMap<GroupKey, bool> = BTreeMap::new();
        for &(group, tokens) in entries {
            let least = self.least.get(&group.0).copied().unwrap_or(0);
            let served = self.served.entry(group).or_insert(least);
            *served = served.saturating_add(tokens);
            *waits.entry(group).or_default() |= tokens == 0;
        }
        self.least.clear();
        for (group, _) in waits.iter().filter(|(_, waits)| **waits) {
            let served = self.served.get(group).copied().unwrap_or(0);
            let least = self.least.entry(group.0).or_insert(served);
            *least = served.min(*least);
        }
        // Others begin there when they come, and where there is enough for all, all begin together.
        self.served.retain(|group, served| {
            let Some(least) = self.least.get(&group.0) else { return false };
            if waits.get(group) == Some(&false) {
                *served = (*served).max(least.saturating_sub(CREDIT));
            }
            waits.contains_key(group) || *served > *least
        });
        if self.served.len() > waits.len() + MAX_AWAY {
            self.served.retain(|group, _| waits.contains_key(group));
        }
    }

    /// There is no work any more.
    pub(super) fn rest(&mut self) {
        self.served.clear();
        self.least.clear();
    }
}

/// A place in the order in which sequences get the places of a pass.
type Place = (Reverse<u32>, bool, u64, TurnOrder);

/// Puts sequences into the order in which they get the places of a pass: those in their turn, then by groups.
pub(super) fn in_turn<T>(sequences: Vec<(&Entry, T)>) -> Vec<(&Entry, T)> {
    let of = |entry: &Entry| (entry.rank.priority, entry.turn.order(entry.rank));
    let mut sequences = sequences;
    sequences.sort_by_key(|(entry, _)| (of(entry), entry.group));
    let mut ahead: BTreeMap<GroupKey, u64> = BTreeMap::new();
    let place = |(entry, other)| {
        let entry: &Entry = entry;
        let (priority, order) = of(entry);
        let ahead = ahead.entry(entry.group).or_insert(entry.served);
        let waits = !matches!(order, TurnOrder::InTurn { .. });
        let place: Place = (priority, waits, if waits { *ahead } else { 0 }, order);
        *ahead = ahead.saturating_add(expected(entry));
        (place, (entry, other))
    };
    let mut placed: Vec<(Place, (&Entry, T))> = sequences.into_iter().map(place).collect();
    placed.sort_by(|(a, _), (b, _)| a.cmp(b));
    placed.into_iter().map(|(_, sequence)| sequence).collect()
}

/// Tokens that it computes in its turn.
fn expected(entry: &Entry) -> u64 {
    let passes = TURN.saturating_sub(entry.turn.passes).max(1);
    entry.left() as u64 + u64::from(passes) - 1
}

/// That of a sequence in tests without groups.
#[cfg(test)]
pub(super) const NO_GROUP: GroupKey = (0, 0);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::Limits;
    use super::super::scheduler::plan_step;
    use super::super::simulation::{Fake, entry};
    use super::*;

    /// Tokens that each group gets in `passes` passes of `places` places, in which each has so many sequences that never end.
    fn share(sequences: &[usize], places: usize, passes: u64) -> Vec<u64> {
        let limits = Limits { rows: 512, sequences: places, whole: false, prompts: usize::MAX };
        let mut groups = Groups::default();
        let of_group = |(group, &count)| (0..count).map(move |_| (50, group));
        let mut entries: Vec<Entry> = (0..)
            .zip((0_u64..).zip(sequences).flat_map(of_group))
            .map(|(id, group)| Entry { group, ..entry(id, 100, 99, id) })
            .collect();
        let mut tokens = vec![0; sequences.len()];
        for pass in 0..passes {
            groups.tell(&mut entries);
            let plan = plan_step::<Fake>(entries.clone(), &limits, None);
            let mut served = Vec::new();
            for entry in &mut entries {
                let takes_part = plan.parts.iter().any(|part| part.id == entry.id);
                if takes_part {
                    entry.turn.take_part();
                } else {
                    entry.turn.sit_out(pass);
                }
                tokens[entry.group.1 as usize] += u64::from(takes_part);
                served.push((entry.group, u64::from(takes_part)));
            }
            groups.serve(&served);
        }
        tokens
    }

    /// Tokens in each pass, where no group gets more than its share before all others have theirs, or want no more.
    fn equal_shares(sequences: &[usize], places: usize) -> Vec<f64> {
        let mut shares = vec![0.0; sequences.len()];
        let mut left = places as f64;
        while left > 1e-9 {
            let wanting: Vec<usize> = (0..sequences.len())
                .filter(|&group| shares[group] + 1e-9 < sequences[group] as f64)
                .collect();
            let room = wanting.iter().map(|&group| sequences[group] as f64 - shares[group]);
            let Some(room) = room.reduce(f64::min) else { break };
            let more = room.min(left / wanting.len() as f64);
            wanting.iter().for_each(|&group| shares[group] += more);
            left -= more * wanting.len() as f64;
        }
        shares
    }

    #[test]
    fn ten_streams_get_no_more_than_one_or_two() {
        assert_eq!(share(&[10, 1], 2, 2000), [2000, 2000]);
        for (sequences, places) in [([10, 2], 2), ([2, 10], 2), ([10, 3], 3), ([1, 10], 1)] {
            let tokens = share(&sequences, places, 2000);
            let half = 1000 * places as u64;
            assert!(tokens.iter().all(|tokens| tokens.abs_diff(half) <= 32), "{sequences:?} {tokens:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the numbers of sequences and of places, groups have equal shares within a few turns.
        #[test]
        fn groups_have_equal_shares(
            sequences in prop::collection::vec(1_usize..12, 1..5),
            places in 1_usize..9,
        ) {
            let passes = 3000;
            let tokens = share(&sequences, places, passes);
            for (found, expected) in tokens.iter().zip(equal_shares(&sequences, places)) {
                let difference = *found as f64 - expected * passes as f64;
                let most = f64::from(2 * TURN) * places as f64 + CREDIT as f64;
                prop_assert!(difference.abs() <= most, "{sequences:?} {places}: {tokens:?}");
            }
        }
    }

    #[test]
    fn a_group_that_comes_later_begins_where_the_others_are() {
        let mut groups = Groups::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| groups.key(50, Some(name)));
        assert_ne!(a, groups.key(50, None));
        (0..100).for_each(|_| groups.serve(&[(a, 1), (a, 0)]));
        let served = |groups: &Groups, group| {
            let mut entries = [Entry { group, ..entry(0, 1, 0, 0) }];
            groups.tell(&mut entries);
            entries[0].served
        };
        assert_eq!([a, b].map(|group| served(&groups, group)), [100, 100]);
        // Nothing of it waits, so it has no claim to much more later.
        (0..100).for_each(|_| groups.serve(&[(a, 3), (a, 0), (b, 1)]));
        assert_eq!([a, b, c].map(|group| served(&groups, group)), [400, 400 - CREDIT, 400]);
        // What it had more than its share is remembered while it is away.
        groups.serve(&[(a, 10), (a, 0), (b, CREDIT + 90)]);
        groups.serve(&[(a, 1), (a, 0)]);
        assert_eq!([a, b].map(|group| served(&groups, group)), [411, 490]);
        // With enough for all, nothing is.
        groups.serve(&[(a, 1), (b, 1)]);
        assert_eq!([a, b].map(|group| served(&groups, group)), [0, 0]);
        assert!(groups.served.is_empty() && groups.least.is_empty());
    }
}
