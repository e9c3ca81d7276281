//! Whose turn it is on the driver thread: arithmetic over times that were measured.
//!
//! Models that have work get turns in proportion to their shares, by start-time fair queueing
//! (<https://doi.org/10.1145/248157.248171>): the next turn is that of the one whose last turn ended first, in a time that
//! passes for each in inverse proportion to its share. One that comes back to work begins where the others are, so that it
//! makes up for nothing. This is so among those whose work is of the same priority; a higher one goes first.

use std::time::{Duration, Instant};

/// When there may be more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Next {
    Now,
    At(Instant),
    /// When somebody says so.
    Woken,
}

/// One that takes turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns {
    share: u32,
    next: Next,
    /// When its last turn ended, in seconds of its own time.
    end: f64,
}

impl Turns {
    /// One that may have work.
    pub(super) fn new(share: u32) -> Self {
        Turns { share, next: Next::Now, end: 0.0 }
    }

    /// It may have work.
    pub(super) fn wake(&mut self) {
        self.next = Next::Now;
    }

    /// Its turn took so long, and it has more work when `next` says; `begin`: what [`choose`] said.
    pub(super) fn took(&mut self, begin: f64, time: Duration, next: Next) {
        self.end = begin + time.as_secs_f64() / f64::from(self.share.max(1));
        self.next = next;
    }
}

/// Whose turn it is at `now`, and when that begins in its own time; or else when the next one may be. `all`: with the priority
/// of the work of each. `clock`: when the last turn began.
pub(super) fn choose<'a>(
    all: impl Iterator<Item = (&'a Turns, u32)>,
    clock: f64,
    now: Instant,
) -> Result<(usize, f64), Next> {
    let mut earliest = Next::Woken;
    let mut chosen: Option<(usize, u32, f64)> = None;
    for (index, (turns, priority)) in all.enumerate() {
        let due = match turns.next {
            Next::Now => true,
            Next::At(time) => time <= now,
            Next::Woken => false,
        };
        if !due {
            earliest = earliest.min(turns.next);
            continue;
        }
        let begin = turns.end.max(clock);
        if chosen.is_none_or(|(_, most, first)| priority > most || (priority == most && begin < first)) {
            chosen = Some((index, priority, begin));
        }
    }
    chosen.map(|(index, _, begin)| (index, begin)).ok_or(earliest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of the same priority.
    fn same(all: &[Turns]) -> impl Iterator<Item = (&Turns, u32)> {
        all.iter().map(|turns| (turns, 50))
    }

    #[test]
    fn a_higher_priority_goes_first() {
        let now = Instant::now();
        let mut all = [Turns::new(1), Turns::new(1), Turns::new(9)];
        all[1].took(0.0, Duration::from_secs(100), Next::Now);
        let priorities = |all: &[Turns], of: [u32; 3]| choose(all.iter().zip(of), 0.0, now);
        assert_eq!(priorities(&all, [50, 51, 50]), Ok((1, 100.0)));
        assert_eq!(priorities(&all, [50, 50, 50]), Ok((0, 0.0)));
        // One that has no work does not hold others up.
        all[1].took(0.0, Duration::from_secs(100), Next::Woken);
        assert_eq!(priorities(&all, [50, 51, 51]), Ok((2, 0.0)));
    }

    /// Seconds that each gets in `turns` turns; `cost`: seconds of a turn of each; `busy`: whether it has work in a turn.
    fn run(shares: &[u32], costs: &[f64], turns: usize, busy: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let now = Instant::now();
        let mut all: Vec<Turns> = shares.iter().map(|&share| Turns::new(share)).collect();
        let (mut got, mut clock) = (vec![0.0; shares.len()], 0.0);
        for turn in 0..turns {
            for (index, turns) in all.iter_mut().enumerate() {
                turns.next = if busy(index, turn) { Next::Now } else { Next::Woken };
            }
            let Ok((index, begin)) = choose(same(&all), clock, now) else { continue };
            clock = begin;
            got[index] += costs[index];
            all[index].took(begin, Duration::from_secs_f64(costs[index]), Next::Now);
        }
        got
    }

    #[test]
    fn one_that_comes_back_makes_up_for_nothing() {
        let got = run(&[1, 1], &[0.1, 0.1], 200, |index, turn| index == 0 || turn >= 100);
        assert!((got[0] - 15.0).abs() < 0.25 && (got[1] - 5.0).abs() < 0.25, "{got:?}");
    }

    #[test]
    fn who_sleeps_is_not_chosen() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut all = [Turns::new(1), Turns::new(1)];
        all[0].took(0.0, Duration::ZERO, Next::Woken);
        assert_eq!(choose(same(&all), 0.0, now), Ok((1, 0.0)));
        all[1].took(0.0, Duration::ZERO, Next::At(later));
        assert_eq!(choose(same(&all), 0.0, now), Err(Next::At(later)));
        assert_eq!(choose(same(&all), 0.0, later), Ok((1, 0.0)));
        all[0].wake();
        assert_eq!(choose(same(&all), 0.0, now), Ok((0, 0.0)));
        assert_eq!(choose(same(&[]), 0.0, now), Err(Next::Woken));
    }

    proptest! {
        /// Those that always have work get time in proportion to their shares, whatever a turn of each takes.
        #[test]
        fn time_is_shared(
            models in prop::collection::vec((1_u32..20, 0.001_f64..0.2), 1..8),
        ) {
            let (shares, costs): (Vec<u32>, Vec<f64>) = models.into_iter().unzip();
            let got = run(&shares, &costs, 5000, |_, _| true);
            let all: f64 = got.iter().sum();
            let sum: u32 = shares.iter().sum();
            let longest = costs.iter().copied().fold(0.0, f64::max);
            for (index, &share) in shares.iter().enumerate() {
                let fair = all * f64::from(share) / f64::from(sum);
                prop_assert!((got[index] - fair).abs() <= longest * 1.01 * f64::from(share.max(1)) + costs[index], "{index}: {} of {fair}", got[index]);
            }
        }
    }
}
