//! What would be lost if memory ran out: arithmetic over numbers alone.
//!
//! As in the banker's algorithm, some of the admitted sequences can surely finish in some order: each finds what it may
//! still need in free memory and in what those before it gave back. If that is not all of them, the first of the
//! others, the *leader*, can finish only if the rest, its *guests*, lose their pages when it needs them. So what the
//! guests have computed is at risk. When the leader has ended, the first guest leads.
//!
//! Let `rows` be the tokens computed so far, and `lost` those of them that sequences lost. What guests may hold is
//! bounded by
//! ```text
//! lost + at_risk <= 3/10 * (rows - lost + growth)
//! ```
//! where `growth` is the number of tokens that the leader computes before it takes the first page from a guest. As the
//! leader grows, `rows + growth` stays the same. When a guest loses its pages, its tokens move from `at_risk` to
//! `lost`, and `growth` rises by at least as much as `rows - lost` falls. When a sequence ends, there is more room.
//! So the bound holds until pages are taken, when `growth` is 0, and hence `lost <= 3/10 * (rows - lost)`: **the
//! tokens computed in all are at most 1.3 times those of running one request after another**, whatever arrives and
//! whenever it ends. It cannot be much better: a scheduler that lets two requests of unknown length run together has to
//! discard one when both turn out to need everything.

use super::queue::Rank;
use crate::cache::Pages;

/// Bound on tokens computed again, as a fraction of tokens computed for the first time.
const MAX_LOST: (u64, u64) = (3, 10);
/// Counts are halved after this many tokens, so that losses of long ago matter less.
const HALVE_AFTER: u64 = 1 << 24;

/// Tokens computed since the engine was last without work.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Tokens of all passes.
    rows: u64,
    /// Tokens among them that sequences lost with their pages.
    lost: u64,
}

impl Work {
    pub(crate) fn compute(&mut self, tokens: usize) {
        self.rows += tokens as u64;
        if self.rows > HALVE_AFTER {
            (self.rows, self.lost) = (self.rows / 2, self.lost / 2);
        }
    }

    pub(crate) fn lose(&mut self, tokens: usize) {
        self.lost += tokens as u64;
    }

    /// Most tokens that may be at risk when `growth` more are computed before any is lost.
    fn allowance(&self, growth: u64) -> u64 {
        let first = self.rows.saturating_sub(self.lost).saturating_add(growth);
        (first.saturating_mul(MAX_LOST.0) / MAX_LOST.1).saturating_sub(self.lost)
    }
}

/// What an admitted sequence holds, and may come to hold. `held` and `most` are bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) rank: Rank,
    pub(super) held: u64,
    pub(super) most: u64,
    /// Tokens in the cache.
    pub(super) computed: usize,
    /// Tokens that it may compute in the next pass.
    pub(super) granted: usize,
    /// Most tokens that it may have in the cache, and most rows of its passes.
    pub(super) last: usize,
    pub(super) rows: usize,
    pub(super) open_ended: bool,
}

/// Which sequences can surely finish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Indices of the sequences that may lose pages or take them from others, in order of rank: the leader, then its
    /// guests.
    unsafe_ones: Vec<usize>,
    /// Tokens that guests have computed or may compute in the next pass.
    pub(super) at_risk: u64,
    /// Most tokens that may be at risk.
    allowance: u64,
    /// Whether a guest is not open-ended: such a request must never lose anything.
    bounded_guest: bool,
}

impl Standing {
    /// The standing of `demands` in a memory of `capacity` bytes.
    pub(super) fn new(demands: &[Demand], capacity: u64, pages: &impl Pages, work: &Work) -> Self {
        let held = |demand: &Demand| demand.held;
        let mut free = capacity.saturating_sub(demands.iter().map(held).fold(0, u64::saturating_add));
        let needs = |index: usize| demands[index].most.saturating_sub(demands[index].held);
        let mut order: Vec<usize> = (0..demands.len()).collect();
        order.sort_unstable_by_key(|&index| needs(index));
        let safe = order.iter().take_while(|&&index| {
            let fits = needs(index) <= free;
            free = free.saturating_add(demands[index].held);
            fits
        });
        let mut unsafe_ones = order.split_off(safe.count());
        unsafe_ones.sort_unstable_by_key(|&index| demands[index].rank);
        let Some((&leader, guests)) = unsafe_ones.split_first() else { return Standing::default() };
        let guests = || guests.iter().map(|&index| &demands[index]);
        let room = capacity.saturating_sub(guests().map(held).fold(0, u64::saturating_add));
        let allowance = work.allowance(growth(&demands[leader], room, pages));
        let at_risk = guests().map(|guest| (guest.computed + guest.granted) as u64).sum();
        let bounded_guest = guests().any(|guest| !guest.open_ended);
        Standing { unsafe_ones, at_risk, allowance, bounded_guest }
    }

    /// Whether no more is at risk than allowed.
    pub(super) fn is_sound(&self) -> bool {
        !self.bounded_guest && self.at_risk <= self.allowance
    }

    /// Whether `index` leads all of `count` sequences, so that it waits only for its guests.
    pub(super) fn leads_all(&self, index: usize, count: usize) -> bool {
        self.unsafe_ones.len() == count && self.unsafe_ones.first() == Some(&index)
    }

    pub(super) fn is_guest(&self, index: usize) -> bool {
        self.unsafe_ones.get(1..).is_some_and(|guests| guests.contains(&index))
    }

    pub(super) fn has(&self, other: &Standing) -> bool {
        self.unsafe_ones == other.unsafe_ones
    }

    /// Lets a guest compute up to `rows` tokens in the pages that it has. Returns how many.
    pub(super) fn risk(&mut self, rows: usize) -> usize {
        let left = if self.bounded_guest { 0 } else { self.allowance.saturating_sub(self.at_risk) };
        let rows = rows.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.at_risk += rows as u64;
        rows
    }
}

/// Tokens that `leader` can compute within `room` bytes.
fn growth(leader: &Demand, room: u64, pages: &impl Pages) -> u64 {
    let fits = |length: usize| pages.bytes(length, leader.rows) <= room;
    let (mut fit, mut end) = (leader.computed, leader.last.max(leader.computed) + 1);
    while end - fit > 1 {
        let middle = fit + (end - fit) / 2;
        if fits(middle) { fit = middle } else { end = middle }
    }
    (fit - leader.computed) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TenTokenPages;
    impl Pages for TenTokenPages {
        fn bytes(&self, length: usize, _: usize) -> u64 {
            length.div_ceil(10) as u64
        }
    }

    /// Sequences given as (pages held, most pages), in order of rank; their pages are full.
    fn standing(free: u64, all: &[(u64, u64)], work: Work) -> Standing {
        let demand = |(number, &(held, most)): (u64, &(u64, u64))| Demand {
            rank: Rank::nth(number),
            held,
            most,
            computed: 10 * held as usize,
            granted: 0,
            last: 10 * most as usize,
            rows: 1,
            open_ended: true,
        };
        let demands: Vec<Demand> = (0..).zip(all).map(demand).collect();
        let capacity = free + all.iter().map(|(held, _)| held).sum::<u64>();
        Standing::new(&demands, capacity, &TenTokenPages, &work)
    }

    #[test]
    fn sequences_that_can_finish_in_some_order_are_safe() {
        let unsafe_ones =
            |free, all: &[(u64, u64)]| -> Vec<usize> { standing(free, all, Work::default()).unsafe_ones };
        let none = Vec::<usize>::new();
        assert_eq!(unsafe_ones(0, &[]), none);
        assert_eq!(unsafe_ones(0, &[(5, 5)]), none);
        // The second finishes first and makes room.
        assert_eq!(unsafe_ones(1, &[(2, 7), (5, 6)]), none);
        assert_eq!(unsafe_ones(0, &[(2, 7), (5, 6)]), [0, 1]);
        // The third can finish, but frees too little for the others.
        assert_eq!(unsafe_ones(1, &[(2, 7), (3, 7), (2, 3)]), [0, 1]);
    }

    #[test]
    fn guests_are_bounded_by_the_allowance() {
        let mut work = Work::default();
        work.compute(50);
        // The leader takes one more page: 60 tokens are computed before the guest loses its 20.
        let found = standing(1, &[(3, 6), (2, 6)], work);
        assert_eq!((found.at_risk, found.allowance, found.is_sound()), (20, 18, false));
        assert!(found.leads_all(0, 2) && found.is_guest(1) && !found.is_guest(0));
        work.compute(20);
        let mut found = standing(1, &[(3, 6), (2, 6)], work);
        assert_eq!((found.allowance, found.is_sound()), (24, true));
        assert_eq!((found.risk(3), found.risk(3), found.risk(3)), (3, 1, 0));
        // A lost token counts twice: it is no longer cached, and it has to be computed again.
        work.lose(10);
        assert_eq!(standing(1, &[(3, 6), (2, 6)], work).allowance, (70 - 10 + 10) * 3 / 10 - 10);
    }

    #[test]
    fn old_losses_count_less() {
        let mut work = Work::default();
        work.compute(1000);
        work.lose(100);
        let before = work.allowance(0);
        work.compute(HALVE_AFTER as usize);
        assert!(work.allowance(0) > before && work.rows <= HALVE_AFTER && work.lost == 50);
    }
}
