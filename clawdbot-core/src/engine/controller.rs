//! How many drafts pay: what passes cost, and how often guesses are right, as it was measured.
//!
//! A pass computes more tokens per second with some drafts than without if the tokens that it will probably have found, divided
//! by what a pass of so many rows takes, are more. Drafts that are likelier to be right come first, whatever sequence they are
//! of. What is decided here changes times, never results.

use std::time::Duration;

use crate::metrics::MAX_DRAFTS;

/// Most rows of passes whose times are kept; larger ones have no drafts.
const MAX_ROWS: usize = 128;
/// How often guesses of each class (see where they come from) are thought to be right before that is known: of n-grams, of a
/// draft model, of a head for multi-token prediction, which is trained for the first one, of a constraint.
const PRIORS: [f64; CLASSES] =
    [0.3, 0.42, 0.54, 0.66, 0.78, 0.9, 0.6, 0.6, 0.6, 0.6, 0.75, 0.55, 0.45, 0.4, 0.95];
/// Classes of guesses.
const CLASSES: usize = 15;
/// The class of tokens that a constraint forces.
pub(super) const FORCED: usize = CLASSES - 1;
/// The first class of each drafter's.
const OF_DRAFTERS: [usize; Drafter::COUNT] = [6, 10];
const _: () = assert!(OF_DRAFTERS[1] == OF_DRAFTERS[0] + 1 + MAX_DRAFTS.ilog2() as usize);
const _: () = assert!(FORCED == OF_DRAFTERS[1] + 1 + MAX_DRAFTS.ilog2() as usize);
/// What a pass of a drafter is thought to cost before that is known, as a part of the model's.
const DRAFT_STEP: f64 = 0.15;
/// Weight of the latest time in the mean, and what it counts at most, as a multiple of the mean.
const WEIGHT: f64 = 0.2;
const MOST: f64 = 2.0;
/// What a further row is thought to cost before that is known, as a part of what each of the others does.
const FURTHER_ROW: f64 = 0.25;
/// Least gain for which drafts are computed.
const LEAST_GAIN: f64 = 1.02;
/// Passes without drafts after which some are tried, at first and at most; the number doubles as long as it does not pay.
const PROBE_AFTER: (u32, u32) = (32, 512);
/// Drafts that are tried then.
const PROBE: usize = 3;
/// Passes with drafts after which one has none, so that its time is known.
const PLAIN_AFTER: u32 = 128;
/// How many guesses of before count, of a request and of a model.
const MEMORY: (f64, f64) = (50.0, 500.0);
/// As how many guesses of a request count those of others.
const OTHERS: f64 = 4.0;

/// What computes guesses, in passes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drafter {
    /// Another model.
    Model,
    /// The model's head for multi-token prediction.
    Mtp,
}

impl Drafter {
    pub(super) const COUNT: usize = 2;
    pub(super) const ALL: [Drafter; Self::COUNT] = [Drafter::Model, Drafter::Mtp];

    /// The class of its guess number `at`.
    pub(super) fn class(self, at: usize) -> usize {
        OF_DRAFTERS[self as usize] + (at + 1).ilog2() as usize
    }
}

/// How often guesses of each class were right; old ones count less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Acceptance {
    right: [f64; CLASSES],
    tried: [f64; CLASSES],
    memory: f64,
}

impl Acceptance {
    /// Of a request, before its first guess.
    pub(super) const fn of_request() -> Self {
        Acceptance { right: [0.0; CLASSES], tried: [0.0; CLASSES], memory: MEMORY.0 }
    }

    /// A guess of `class` was right, or wrong.
    fn count(&mut self, class: usize, right: bool) {
        let keep = 1.0 - 1.0 / self.memory;
        self.tried[class] = keep * self.tried[class] + 1.0;
        self.right[class] = keep * self.right[class] + f64::from(u8::from(right));
    }

    /// How likely a guess of `class` is right if nothing else speaks for `before`, which counts as `weight` guesses.
    fn rate(&self, class: usize, before: f64, weight: f64) -> f64 {
        (self.right[class] + weight * before) / (self.tried[class] + weight)
    }
}

/// Mean seconds of passes, by rows.
#[derive(Debug)]
struct Costs([f64; MAX_ROWS + 1]);

impl Costs {
    fn measure(&mut self, rows: usize, seconds: f64) {
        let Some(mean) = self.0.get_mut(rows) else { return };
        *mean = match *mean {
            0.0 => seconds,
            mean => mean + WEIGHT * (seconds.min(MOST * mean) - mean),
        };
    }

    /// What a pass of `rows` rows takes; `None` without a measurement of fewer.
    fn of(&self, rows: usize) -> Option<f64> {
        let known = |rows: &usize| self.0[*rows] > 0.0;
        let below = (1..=rows.min(MAX_ROWS)).rev().find(known)?;
        let cost = self.0[below];
        let further = (rows - below) as f64;
        Some(match (rows + 1..=MAX_ROWS).find(known) {
            Some(above) => cost + further * (self.0[above] - cost) / (above - below) as f64,
            None => cost * (1.0 + further * FURTHER_ROW / below as f64),
        })
    }
}

/// What a sequence could guess.
#[derive(Debug, Clone, Default)]
pub(super) struct Prospect {
    /// How likely its guesses are right, each if those before it are.
    pub(super) rates: Vec<f64>,
    /// Whose pass each of them takes.
    pub(super) drafter: Option<Drafter>,
}

/// Decides how many drafts there are.
#[derive(Debug)]
pub(super) struct Controller {
    costs: Costs,
    all: Acceptance,
    /// Passes since the last one with drafts, and without, among those that could have had some.
    since_drafts: u32,
    since_plain: u32,
    probe_after: u32,
    /// Test hook: always this many for each sequence.
    #[cfg(test)]
    pub(super) fixed: Option<usize>,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            costs: Costs([0.0; MAX_ROWS + 1]),
            all: Acceptance { memory: MEMORY.1, ..Acceptance::of_request() },
            since_drafts: 0,
            since_plain: 0,
            probe_after: PROBE_AFTER.0,
            #[cfg(test)]
            fixed: None,
        }
    }
}

impl Controller {
    /// A pass of `rows` rows, all of them of sequences that decode, took so long.
    pub(super) fn measure(&mut self, rows: usize, time: Duration) {
        self.costs.measure(rows, time.as_secs_f64());
    }

    /// A guess of a request was right, or wrong.
    pub(super) fn count(&mut self, request: &mut Acceptance, class: usize, right: bool) {
        request.count(class, right);
        self.all.count(class, right);
    }

    /// How likely a guess of a request is right, given that those before it are.
    pub(super) fn rate(&self, request: &Acceptance, class: usize) -> f64 {
        request.rate(class, self.all.rate(class, PRIORS[class], OTHERS), OTHERS)
    }

    /// How many drafts each sequence of a pass has. `rows`: those of the pass without drafts, `most`: how many there may be,
    /// `steps`: seconds of a pass of each drafter, where they are known.
    pub(super) fn choose(
        &mut self,
        prospects: &[Prospect],
        rows: usize,
        most: usize,
        steps: [Option<f64>; Drafter::COUNT],
    ) -> Vec<usize> {
        let mut counts = vec![0; prospects.len()];
        #[cfg(test)]
        if let Some(fixed) = self.fixed {
            let mut left = most;
            for (count, prospect) in counts.iter_mut().zip(prospects) {
                *count = fixed.min(prospect.rates.len()).min(left);
                left -= *count;
            }
            return counts;
        }
        let mut likely: Vec<(f64, usize)> = Vec::new();
        for (index, prospect) in prospects.iter().enumerate() {
            let mut both = 1.0;
            for rate in &prospect.rates {
                both *= rate;
                likely.push((both, index));
            }
        }
        // Stable: the guesses of a sequence keep their order.
        likely.sort_by(|a, b| b.0.total_cmp(&a.0));
        likely.truncate(most.min(MAX_ROWS.saturating_sub(rows)));
        // Nothing is known of passes of so many rows.
        if likely.is_empty() || self.costs.0[rows] == 0.0 {
            return counts;
        }
        let passes = likely.iter().scan(counts.clone(), |depths, (_, index)| {
            depths[*index] += 1;
            Some(prospects[*index].drafter.map(|drafter| (drafter, depths[*index])))
        });
        let passes: Vec<Option<(Drafter, usize)>> = passes.collect();
        let count = self.best(&likely, &passes, rows, steps);
        for (_, index) in &likely[..count] {
            counts[*index] += 1;
        }
        counts
    }

    /// How many of the drafts in `likely` pay. `passes`: how many passes each draft takes, and of which drafter.
    fn best(
        &mut self,
        likely: &[(f64, usize)],
        passes: &[Option<(Drafter, usize)>],
        rows: usize,
        steps: [Option<f64>; Drafter::COUNT],
    ) -> usize {
        let base = self.costs.0[rows];
        let steps = steps.map(|step| step.map_or(DRAFT_STEP, |step| step / base));
        let (mut best, mut gain, mut found) = (0, LEAST_GAIN, rows as f64);
        // Of each drafter; a pass is for all sequences.
        let mut most = [0; Drafter::COUNT];
        for (index, ((right, _), passes)) in likely.iter().zip(passes).enumerate() {
            found += right;
            if let Some((drafter, passes)) = *passes {
                most[drafter as usize] = passes.max(most[drafter as usize]);
            }
            let drafting: f64 = steps.iter().zip(most).map(|(step, passes)| step * passes as f64).sum();
            let cost = self.costs.of(rows + index + 1).unwrap_or(f64::INFINITY) / base + drafting;
            if found / rows as f64 / cost > gain {
                (best, gain) = (index + 1, found / rows as f64 / cost);
            }
        }
        if best > 0 && self.since_plain < PLAIN_AFTER {
            (self.since_drafts, self.probe_after) = (0, PROBE_AFTER.0);
            self.since_plain += 1;
            return best;
        }
        self.since_plain = 0;
        self.since_drafts += 1;
        if self.since_drafts < self.probe_after {
            return 0;
        }
        self.since_drafts = 0;
        self.probe_after = (2 * self.probe_after).min(PROBE_AFTER.1);
        PROBE.min(likely.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model whose passes take `base` and `row` for each row.
    fn measured(base: f64, row: f64, rows: &[usize]) -> Controller {
        let mut controller = Controller::default();
        for &rows in rows {
            controller.measure(rows, Duration::from_secs_f64(base + row * rows as f64));
        }
        controller
    }

    fn of(sequences: &[(f64, usize)]) -> Vec<Prospect> {
        let prospect = |&(rate, count)| Prospect { rates: vec![rate; count], drafter: None };
        sequences.iter().map(prospect).collect()
    }

    #[test]
    fn times_in_between_are_guessed() {
        let mut costs = Controller::default().costs;
        assert_eq!(costs.of(1), None);
        costs.measure(2, 10.0);
        assert_eq!((costs.of(1), costs.of(2), costs.of(4)), (None, Some(10.0), Some(12.5)));
        costs.measure(6, 20.0);
        assert_eq!((costs.of(4), costs.of(12)), (Some(15.0), Some(25.0)));
        // A pause of the machine does not count for much.
        costs.measure(2, 1e6);
        assert_eq!(costs.of(2), Some(12.0));
        costs.measure(MAX_ROWS + 1, 1.0);
        assert_eq!(costs.of(MAX_ROWS + 1).map(|cost| cost > 20.0), Some(true));
    }

    #[test]
    fn drafts_are_as_many_as_pay() {
        let sure = of(&[(0.9, 15)]);
        let doubtful = of(&[(0.2, 15)]);
        // A further row costs a tenth, or as much as the first.
        let mut cheap = measured(0.9, 0.1, &[1, 16]);
        let mut dear = measured(0.0, 1.0, &[1, 16]);
        let few = cheap.choose(&doubtful, 1, 15, [None; 2])[0];
        let many = cheap.choose(&sure, 1, 15, [None; 2])[0];
        assert!((1..4).contains(&few) && many > 6, "{few} {many}");
        assert_eq!(
            (dear.choose(&sure, 1, 15, [None; 2]), dear.choose(&doubtful, 1, 15, [None; 2])),
            (vec![0], vec![0])
        );
        // As many as may be.
        assert_eq!(
            (cheap.choose(&sure, 1, 2, [None; 2]), cheap.choose(&sure, 1, 0, [None; 2])),
            (vec![2], vec![0])
        );
        // Nothing is known of such passes.
        assert_eq!(cheap.choose(&sure, 2, 15, [None; 2]), [0]);
        // Passes of a drafter cost as well: drafts end where they are not worth one.
        for (drafter, steps) in
            Drafter::ALL.into_iter().zip([|step| [Some(step), Some(9.0)], |step| [Some(9.0), Some(step)]])
        {
            let drafted: Vec<Prospect> =
                sure.iter().map(|one| Prospect { drafter: Some(drafter), ..one.clone() }).collect();
            let fewer = cheap.choose(&drafted, 1, 15, steps(0.2))[0];
            assert!(fewer > 0 && fewer < many, "{fewer} {many}");
            assert_eq!(cheap.choose(&drafted, 1, 15, steps(2.0)), [0]);
        }
    }

    #[test]
    fn the_likeliest_come_first() {
        let mut controller = measured(0.9, 0.1, &[3, 18]);
        let counts = controller.choose(&of(&[(0.9, 4), (0.01, 4), (0.5, 4)]), 3, 15, [None; 2]);
        assert!(counts[0] > counts[2] && counts[2] > 0 && counts[1] == 0, "{counts:?}");
    }

    #[test]
    fn what_does_not_pay_is_tried_again_now_and_then() {
        let mut controller = measured(0.0, 1.0, &[1, 4]);
        let rates = of(&[(0.5, 15)]);
        let counts: Vec<usize> = (0..3000).map(|_| controller.choose(&rates, 1, 15, [None; 2])[0]).collect();
        let tried: Vec<usize> = (0..3000).filter(|&pass| counts[pass] > 0).collect();
        assert_eq!(tried[..3], [31, 95, 223]);
        assert!(tried.len() < 12, "{tried:?}");
        // Where it pays, a pass without drafts is measured now and then.
        let mut controller = measured(0.9, 0.1, &[1, 16]);
        let plain = (0..1000).filter(|_| controller.choose(&rates, 1, 15, [None; 2]) == [0]).count();
        assert!((1..10).contains(&plain), "{plain}");
    }

    #[test]
    fn rates_follow_what_happens() {
        let (mut controller, mut one) = (Controller::default(), Acceptance::of_request());
        let first = controller.rate(&one, 2);
        (0..40).for_each(|_| controller.count(&mut one, 2, false));
        let (own, other) = (controller.rate(&one, 2), controller.rate(&Acceptance::of_request(), 2));
        assert!(own < 0.05 && other < 0.2 && other > own && first > 0.4, "{own} {other} {first}");
        assert_eq!(controller.rate(&one, 3), controller.rate(&Acceptance::of_request(), 3));
        (0..100).for_each(|_| controller.count(&mut one, 2, true));
        assert!(controller.rate(&one, 2) > 0.8);
    }
}
