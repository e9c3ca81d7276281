//! How much memory sequences will need at one time: arithmetic over numbers alone.

use crate::cache::Pages;

/// A sequence that grows by a token in each pass until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Future {
    pub(super) tokens: usize,
    pub(super) last: usize,
    /// Most rows of one of its passes.
    pub(super) rows: usize,
}

/// Up to this many sequences, the peak is exact; with more, it is the sum of their ends.
const MAX_EXACT: usize = 256;

/// Most bytes that all will hold at one time, each at most `capacity`. Those that end early make room for the growth of
/// the others.
pub(super) fn peak(futures: &[Future], pages: &impl Pages, capacity: u64) -> u64 {
    let bytes = |future: &Future, later: usize| {
        pages.bytes((future.tokens + later).min(future.last), future.rows).min(capacity)
    };
    if futures.len() > MAX_EXACT {
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

    struct TenTokenPages;
    impl Pages for TenTokenPages {
        fn bytes(&self, length: usize, _: usize) -> u64 {
            length.div_ceil(10) as u64
        }
    }

    #[test]
    fn sequences_that_end_early_lower_the_peak() {
        let peak = |all: &[(usize, usize)], capacity| {
            let future = |&(tokens, last): &(usize, usize)| Future { tokens, last, rows: 1 };
            peak(&all.iter().map(future).collect::<Vec<_>>(), &TenTokenPages, capacity)
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
