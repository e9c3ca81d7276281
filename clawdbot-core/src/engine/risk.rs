//! What would be lost if memory ran out: arithmetic over numbers alone.
//!
//! Of the sequences that have begun, some can surely come to their ends, in some order: each finds what it may still need in
//! what is free and what those before it gave back. If that is not all of them, the first of the others, the *leader*, can
//! come to its end only if the rest of them, its *guests*, lose their pages when it needs them. So what the guests have
//! computed is at risk. When the leader has ended, the first of the guests leads.
//!
//! Of `rows` tokens that were computed, `again` were for sequences that lost them. What guests hold at most is bounded by
//! ```text
//! again + at risk <= 3/10 * (rows - again + growth)
//! ```
//! with the tokens that the leader computes before it takes the first page from a guest as `growth`. As the leader grows,
//! `rows + growth` stays the same; when a guest loses its pages, what was at risk moves to `again`, and `growth` gets larger
//! by as much at least as `rows - again` gets smaller; when a sequence ends, there is more room. So the bound holds until
//! pages are taken, when `growth` is 0. Hence `again <= 3/10 * (rows - again)`: **all that is computed is at most 1.3 times
//! what would have been computed for one request after another**, whatever comes and whenever it ends. It cannot be much
//! better: whoever lets two requests of unknown lengths run together has to throw one away when both turn out to need all.

use crate::cache::Pages;

/// How much may be computed again, of what is computed for the first time.
const MOST_AGAIN: (u64, u64) = (3, 10);
/// Counts are halved when so many tokens were computed: what was lost long ago matters less.
const MANY: u64 = 1 << 24;

/// What was computed since there has been work.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Tokens of all passes.
    rows: u64,
    /// Of them those that sequences lost with their pages.
    again: u64,
}

impl Work {
    pub(crate) fn compute(&mut self, tokens: usize) {
        self.rows += tokens as u64;
        if self.rows > MANY {
            (self.rows, self.again) = (self.rows / 2, self.again / 2);
        }
    }

    pub(crate) fn lose(&mut self, tokens: usize) {
        self.again += tokens as u64;
    }

    /// Tokens that may be at risk, when `growth` more will be computed before any is lost.
    fn allowance(&self, growth: u64) -> u64 {
        let first = self.rows.saturating_sub(self.again).saturating_add(growth);
        (first.saturating_mul(MOST_AGAIN.0) / MOST_AGAIN.1).saturating_sub(self.again)
    }
}

/// What a sequence that has begun holds, and may come to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) arrival: u64,
    pub(super) held: u64,
    pub(super) most: u64,
    /// Tokens in the cache.
    pub(super) computed: usize,
    /// Tokens that it may compute in the next pass.
    pub(super) granted: usize,
    /// Most tokens that it may have in the cache, and most rows of its passes.
    pub(super) last: usize,
    pub(super) rows: usize,
    pub(super) open: bool,
}

/// Who can come to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Indices of those that cannot without a loss, in the order in which they came: the leader and its guests.
    unsafe_ones: Vec<usize>,
    /// Tokens that the guests have computed, or may with the next pass.
    pub(super) at_risk: u64,
    /// Tokens that may be at risk.
    allowance: u64,
    /// Whether a guest's end is known: such requests are never to lose anything.
    known: bool,
}

impl Standing {
    /// Of `demands` for `capacity` bytes.
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
        unsafe_ones.sort_unstable_by_key(|&index| demands[index].arrival);
        let Some((&leader, guests)) = unsafe_ones.split_first() else { return Standing::default() };
        let guests = || guests.iter().map(|&index| &demands[index]);
        let room = capacity.saturating_sub(guests().map(held).fold(0, u64::saturating_add));
        let allowance = work.allowance(growth(&demands[leader], room, pages));
        let at_risk = guests().map(|guest| (guest.computed + guest.granted) as u64).sum();
        let known = guests().any(|guest| !guest.open);
        Standing { unsafe_ones, at_risk, allowance, known }
    }

    /// Whether no more is at risk than may be.
    pub(super) fn is_sound(&self) -> bool {
        !self.known && self.at_risk <= self.allowance
    }

    /// Whether `index` waits for nobody but its guests, of `count` sequences in all.
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
        let left = if self.known { 0 } else { self.allowance.saturating_sub(self.at_risk) };
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

    struct OfTen;
    impl Pages for OfTen {
        fn bytes(&self, length: usize, _: usize) -> u64 {
            length.div_ceil(10) as u64
        }
    }

    /// Of those that hold so many pages, and may come to hold so many; all full, in the order in which they came.
    fn standing(free: u64, all: &[(u64, u64)], work: Work) -> Standing {
        let demand = |(arrival, &(held, most)): (u64, &(u64, u64))| Demand {
            arrival,
            held,
            most,
            computed: 10 * held as usize,
            granted: 0,
            last: 10 * most as usize,
            rows: 1,
            open: true,
        };
        let demands: Vec<Demand> = (0..).zip(all).map(demand).collect();
        let capacity = free + all.iter().map(|(held, _)| held).sum::<u64>();
        Standing::new(&demands, capacity, &OfTen, &work)
    }

    #[test]
    fn safe_is_what_can_end_in_some_order() {
        let unsafe_ones =
            |free, all: &[(u64, u64)]| -> Vec<usize> { standing(free, all, Work::default()).unsafe_ones };
        let none = Vec::<usize>::new();
        assert_eq!(unsafe_ones(0, &[]), none);
        assert_eq!(unsafe_ones(0, &[(5, 5)]), none);
        // The second ends first and makes room.
        assert_eq!(unsafe_ones(1, &[(2, 7), (5, 6)]), none);
        assert_eq!(unsafe_ones(0, &[(2, 7), (5, 6)]), [0, 1]);
        // The third can end, but is not enough for the others.
        assert_eq!(unsafe_ones(1, &[(2, 7), (3, 7), (2, 3)]), [0, 1]);
    }

    #[test]
    fn guests_may_hold_what_can_be_computed_again() {
        let mut work = Work::default();
        work.compute(50);
        // The leader takes one more page, so that 60 tokens are computed before the guest loses 20.
        let found = standing(1, &[(3, 6), (2, 6)], work);
        assert_eq!((found.at_risk, found.allowance, found.is_sound()), (20, 18, false));
        assert!(found.leads_all(0, 2) && found.is_guest(1) && !found.is_guest(0));
        work.compute(20);
        let mut found = standing(1, &[(3, 6), (2, 6)], work);
        assert_eq!((found.allowance, found.is_sound()), (24, true));
        assert_eq!((found.risk(3), found.risk(3), found.risk(3)), (3, 1, 0));
        // What was lost counts twice: it is not there, and is to be computed again.
        work.lose(10);
        assert_eq!(standing(1, &[(3, 6), (2, 6)], work).allowance, (70 - 10 + 10) * 3 / 10 - 10);
    }

    #[test]
    fn work_of_long_ago_matters_less() {
        let mut work = Work::default();
        work.compute(1000);
        work.lose(100);
        let before = work.allowance(0);
        work.compute(MANY as usize);
        assert!(work.allowance(0) > before && work.rows <= MANY && work.again == 50);
    }
}
