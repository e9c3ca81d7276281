//! Whether memory suffices for what sequences may come to need: arithmetic over numbers alone.

/// Bytes that the cache takes for a sequence.
pub(crate) trait Pages {
    /// For `length` positions, where passes have up to `rows` of them.
    fn bytes(&self, length: usize, rows: usize) -> u64;
}

/// What a sequence holds, and may come to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) held: u64,
    pub(super) most: u64,
}

/// Whether all can come to their ends without anybody losing what it holds: there is an order in which each finds what it
/// still needs in what is free and what those before it gave back.
pub(super) fn is_safe(free: u64, demands: &[Demand]) -> bool {
    let mut order: Vec<(u64, u64)> =
        demands.iter().map(|demand| (demand.most.saturating_sub(demand.held), demand.held)).collect();
    order.sort_unstable();
    let mut free = free;
    order.into_iter().all(|(needs, held)| {
        let fits = needs <= free;
        free = free.saturating_add(held);
        fits
    })
}

/// A sequence that grows by a token in each pass until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Future {
    pub(super) tokens: usize,
    pub(super) last: usize,
    /// Most rows of its passes.
    pub(super) rows: usize,
}

/// More sequences than this are not followed one by one.
const MANY: usize = 256;

/// Most bytes that all will hold at the same time, each at most `capacity`: those that end early make room for what the
/// others become.
pub(super) fn peak(futures: &[Future], pages: &impl Pages, capacity: u64) -> u64 {
    let bytes = |future: &Future, later: usize| {
        pages.bytes((future.tokens + later).min(future.last), future.rows).min(capacity)
    };
    if futures.len() > MANY {
        return futures.iter().map(|future| bytes(future, usize::MAX / 2)).fold(0, u64::saturating_add);
    }
    let left = |future: &Future| future.last.saturating_sub(future.tokens);
    let ends = futures.iter().map(left).chain([0]);
    let at = |end: usize| {
        let there = futures.iter().filter(|future| left(future) >= end);
        there.map(|future| bytes(future, end)).fold(0, u64::saturating_add)
    };
    ends.map(at).max().unwrap_or(0)
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

    #[test]
    fn safe_is_what_can_end_in_some_order() {
        let safe = |free, all: &[(u64, u64)]| {
            let demands: Vec<Demand> = all.iter().map(|&(held, most)| Demand { held, most }).collect();
            is_safe(free, &demands)
        };
        assert!(safe(0, &[]) && safe(0, &[(5, 5)]) && !safe(0, &[(5, 6)]));
        // The second ends first and makes room.
        assert!(safe(1, &[(2, 7), (5, 6)]) && !safe(1, &[(2, 9), (5, 6)]));
        assert!(!safe(0, &[(2, 7), (5, 6)]));
    }

    #[test]
    fn the_peak_counts_what_ends_before() {
        let peak = |all: &[(usize, usize)], capacity| {
            let future = |&(tokens, last): &(usize, usize)| Future { tokens, last, rows: 1 };
            peak(&all.iter().map(future).collect::<Vec<_>>(), &OfTen, capacity)
        };
        assert_eq!(peak(&[], 99), 0);
        assert_eq!(peak(&[(10, 100)], 99), 10);
        assert_eq!(peak(&[(10, 100)], 7), 7);
        // 10 + 2 pages when the first ends, then up to 10.
        assert_eq!(peak(&[(90, 100), (10, 100)], 99), 12);
        assert_eq!(peak(&[(10, 100); 3], 99), 30);
        assert_eq!(peak(&[(10, 100); 300], 99), 3000);
    }
}
