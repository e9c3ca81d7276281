//! The order in which requests are served, and how many may wait.
//!
//! Requests of higher priority come first. Among equals, groups share: a request begins, in units of tokens, when those of its
//! group before it would have ended if all groups computed at the same rate (start-time fair queueing,
//! <https://doi.org/10.1145/248157.248171>). With one group that is the order of arrival.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Most groups that are remembered without need.
const MAX_GROUPS: usize = 1024;
/// Weight of the latest interval in the mean.
const WEIGHT: f64 = 0.2;

/// A priority, and the name of a group.
pub(super) type Group = (u32, Option<String>);

/// A priority, and a number for the name of a group.
pub(crate) type GroupKey = (u32, u64);

/// A request's place among others: those that come first are smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Rank {
    pub(super) priority: Reverse<u32>,
    /// When it begins, in tokens of its group.
    begins: u64,
    /// Its number, in order of arrival.
    pub(super) number: u64,
}

impl Rank {
    /// That of a request that has not begun, after others of its group have ended.
    pub(super) fn corrected(self, corrections: &Corrections) -> Rank {
        Rank { begins: corrections.of(self.begins), ..self }
    }

    /// That of the `number`th request, all else being equal.
    #[cfg(test)]
    pub(super) fn nth(number: u64) -> Self {
        Rank { number, ..Rank::default() }
    }
}

/// A request that has ended, whose group was charged for something else than what it has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Settled {
    begins: u64,
    charged: u64,
    computed: u64,
}

impl Settled {
    /// One of `rank`, for which its group was charged `charged` tokens, and which has computed `computed`.
    pub(super) fn new(rank: Rank, charged: usize, computed: usize) -> Self {
        Settled { begins: rank.begins, charged: charged as u64, computed: computed as u64 }
    }
}

/// When requests of a group begin, after others have ended: what came after one begins as much earlier or later as that has
/// computed fewer tokens or more than the group was charged. The order stays.
#[derive(Debug, Default)]
pub(super) struct Corrections(Vec<Correction>);

/// What begins after `after` begins `earlier` tokens earlier and `later` later, but not before `least`.
#[derive(Debug, Clone, Copy, Default)]
struct Correction {
    after: u64,
    earlier: u64,
    later: u64,
    least: u64,
}

impl Corrections {
    fn new(mut ended: Vec<Settled>) -> Self {
        ended.sort_unstable();
        let mut corrections = Corrections::default();
        for Settled { begins, charged, computed } in ended {
            let Correction { earlier, later, .. } = corrections.0.last().copied().unwrap_or_default();
            let least = corrections.of(begins);
            let (earlier, later) = (earlier.saturating_add(charged), later.saturating_add(computed));
            corrections.0.push(Correction { after: begins, earlier, later, least });
        }
        corrections
    }

    /// When that begins which was to begin at `time`.
    pub(super) fn of(&self, time: u64) -> u64 {
        let count = self.0.partition_point(|correction| correction.after < time);
        match count.checked_sub(1).and_then(|last| self.0.get(last)) {
            Some(one) => time.saturating_add(one.later).saturating_sub(one.earlier).max(one.least),
            None => time,
        }
    }
}

/// Ranks requests as they come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Number of the latest request.
    number: u64,
    /// When the latest one that began did so, in tokens of its group, for each priority.
    now: BTreeMap<u32, u64>,
    /// When the latest request of each group will have ended, for each priority.
    ends: BTreeMap<Group, u64>,
    last_end: Option<Instant>,
    /// Seconds from one request's end to the next, on average.
    interval: Option<f64>,
}

impl Queue {
    /// The rank of a request of `group` that computes about `tokens` tokens.
    pub(super) fn rank(&mut self, priority: u32, group: Option<&str>, tokens: usize) -> Rank {
        self.number += 1;
        let begins = self.charge(priority, group, tokens);
        Rank { priority: Reverse(priority), begins, number: self.number }
    }

    /// When `tokens` more of a group begin.
    fn charge(&mut self, priority: u32, group: Option<&str>, tokens: usize) -> u64 {
        if self.ends.len() >= MAX_GROUPS {
            let now = &self.now;
            self.ends.retain(|(priority, _), end| *end > now.get(priority).copied().unwrap_or(0));
            // Too many that wait: some begin as new ones do.
            while self.ends.len() >= MAX_GROUPS {
                self.ends.pop_first();
            }
        }
        let now = self.now.get(&priority).copied().unwrap_or(0);
        let end = self.ends.entry((priority, group.map(str::to_owned))).or_default();
        let begins = now.max(*end);
        *end = begins.saturating_add(tokens.max(1) as u64);
        begins
    }

    /// Requests of a group have ended. Those that wait in it are to be corrected, too.
    pub(super) fn settle(&mut self, group: &Group, ended: Vec<Settled>) -> Corrections {
        let corrections = Corrections::new(ended);
        if let Some(end) = self.ends.get_mut(group) {
            *end = corrections.of(*end);
        }
        corrections
    }

    /// A request has begun.
    pub(super) fn begin(&mut self, rank: Rank) {
        let now = self.now.entry(rank.priority.0).or_default();
        *now = rank.begins.max(*now);
    }

    /// There are no requests any more: what groups have used does not matter, nor how long nobody came.
    pub(super) fn rest(&mut self) {
        self.now.clear();
        self.ends.clear();
        self.last_end = None;
    }

    /// A request has ended.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(last) = self.last_end.replace(now) {
            let seconds = (now - last).as_secs_f64();
            self.interval = Some(self.interval.map_or(seconds, |mean| mean + WEIGHT * (seconds - mean)));
        }
    }

    /// The error for a request that finds `waiting` others, as many as may wait.
    pub(super) fn overloaded(&self, waiting: usize) -> Error {
        // One that waits begins when one that runs ends.
        let after = Duration::from_secs_f64(self.interval.unwrap_or(1.0).clamp(0.001, 3600.0));
        let milliseconds = after.as_millis() as u64;
        let message = format!(
            "expected fewer than {waiting} waiting requests (max_queue), found {waiting}; try again in {milliseconds} ms"
        );
        Error::new(ErrorKind::Overloaded, message)
            .with("option", "max_queue")
            .with("waiting", waiting)
            .with("retry_after_ms", milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_group_is_served_as_it_comes() {
        let mut queue = Queue::default();
        let ranks: Vec<Rank> = [5, 100, 1, 7].map(|tokens| queue.rank(50, None, tokens)).to_vec();
        assert!(ranks.is_sorted());
        let urgent = queue.rank(51, None, 1000);
        assert!(urgent < ranks[0]);
        assert!(queue.rank(49, None, 1) > ranks[3]);
    }

    #[test]
    fn a_group_that_asks_for_little_does_not_wait_for_one_that_asks_for_much() {
        let mut queue = Queue::default();
        let many: Vec<Rank> = (0..100).map(|_| queue.rank(50, Some("many"), 1000)).collect();
        queue.begin(many[0]);
        queue.begin(many[1]);
        let few: Vec<Rank> = (0..3).map(|_| queue.rank(50, Some("few"), 1000)).collect();
        // The next to begin is one of the other group; then they take turns.
        assert!(few[0] > many[0] && few[0] < many[2]);
        assert!(many[2] < few[1] && few[1] < many[3] && many[3] < few[2]);
        // What was not used before does not count.
        many.iter().for_each(|rank| queue.begin(*rank));
        assert!(queue.rank(50, Some("late"), 1) > many[98]);
    }

    #[test]
    fn groups_are_forgotten() {
        let mut queue = Queue::default();
        for group in 0..5000 {
            let rank = queue.rank(50, Some(&group.to_string()), 1);
            queue.begin(rank);
        }
        assert!(queue.ends.len() <= MAX_GROUPS);
        queue.rest();
        assert!(queue.ends.is_empty());
    }

    #[test]
    fn when_to_try_again() {
        let mut queue = Queue::default();
        let start = Instant::now();
        (0..9).for_each(|i| queue.end(start + Duration::from_millis(200 * i)));
        let error = queue.overloaded(7);
        assert_eq!((error.kind(), &error.detail()["retry_after_ms"]), (ErrorKind::Overloaded, &200.into()));
        assert_eq!(Queue::default().overloaded(1).detail()["retry_after_ms"], 1000);
    }

    proptest! {
        /// Requests that end together are as those that end one after the other, but for what nobody waited for in between;
        /// and the order stays.
        #[test]
        fn corrections_keep_the_order(
            ended in prop::collection::vec((0_u64..500, 0_u64..100, 0_u64..100), 0..20),
            times in prop::collection::vec(0_u64..1000, 1..20),
        ) {
            let settle = |(begins, charged, computed)| Settled { begins, charged, computed };
            let corrections = Corrections::new(ended.iter().copied().map(settle).collect());
            let mut times = times;
            times.sort_unstable();
            let found: Vec<u64> = times.iter().map(|&time| corrections.of(time)).collect();
            prop_assert!(found.is_sorted(), "{times:?} {found:?}");
            // With one, exactly.
            for &(begins, charged, computed) in &ended {
                let one = Corrections::new(vec![settle((begins, charged, computed))]);
                prop_assert_eq!(one.of(begins), begins);
                let after = begins + charged + 1;
                prop_assert_eq!(one.of(after), begins + computed + 1);
            }
        }

        /// Groups share by what their requests compute, whatever these said that it would be.
        #[test]
        fn groups_share_what_is_computed(
            costs in prop::collection::vec(((1_usize..1000, 1_usize..50), (1_usize..1000, 1_usize..50)), 1..60),
        ) {
            let mut queue = Queue::default();
            let mut waiting = Vec::new();
            for &(a, b) in &costs {
                for (group, (claimed, used)) in [("a", a), ("b", b)] {
                    waiting.push((queue.rank(50, Some(group), claimed), group, claimed, used));
                }
            }
            let mut computed = [0_i64; 2];
            while ["a", "b"].iter().all(|group| waiting.iter().any(|other| other.1 == *group)) {
                waiting.sort();
                let (rank, group, claimed, used) = waiting.remove(0);
                queue.begin(rank);
                computed[usize::from(group == "b")] += used as i64;
                let key = (50, Some(group.to_owned()));
                let corrections = queue.settle(&key, vec![Settled::new(rank, claimed, used)]);
                for (rank, ..) in waiting.iter_mut().filter(|(_, other, ..)| *other == group) {
                    *rank = rank.corrected(&corrections);
                }
                prop_assert!((computed[0] - computed[1]).abs() <= 100, "{computed:?}");
            }
            // The next one comes after all that were computed, and no later.
            let next = queue.charge(50, Some("a"), 1).max(queue.charge(50, Some("b"), 1));
            let left: usize = waiting.iter().map(|(_, _, claimed, _)| claimed).sum();
            prop_assert!(next <= computed[0].max(computed[1]) as u64 + left as u64);
        }

        /// Served in order, tokens of two groups that always ask differ by at most one request of each.
        #[test]
        fn groups_share(costs in prop::collection::vec((1_usize..50, 1_usize..50), 1..60)) {
            let mut queue = Queue::default();
            let mut ranked = Vec::new();
            for &(a, b) in &costs {
                ranked.push((queue.rank(50, Some("a"), a), a as i64));
                ranked.push((queue.rank(50, Some("b"), b), -(b as i64)));
            }
            ranked.sort();
            let ends = |group: &str| queue.ends[&(50, Some(group.to_owned()))];
            let both = ends("a").min(ends("b"));
            let mut difference = 0;
            for (rank, cost) in ranked {
                if rank.begins >= both {
                    break;
                }
                difference += cost;
                prop_assert!(difference.abs() <= 100, "{difference}");
            }
        }
    }
}
