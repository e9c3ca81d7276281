//! How many rows of a pass prompts get while other sequences decode, so that those have their next tokens in time: arithmetic
//! over measured passes.
//!
//! A pass takes `base + rows * row` seconds: `base` with decoding sequences alone, and `row` more for each row of a prompt.
//! Both are measured, as running means. A row that is measured in small passes seems dear, as it bears more of what a pass costs
//! in any case; so the rows of a pass grow and shrink from one pass to the next until a pass takes as long as it may. Passes
//! computed with more or fewer rows give the same bits.

/// Rows that prompts get in any case, so that they always advance: the fewest that are computed as a matrix.
const FLOOR: usize = 16;
/// Weight of the latest pass in a mean.
const WEIGHT: f64 = 0.3;

/// What passes cost, and how long one may take.
#[derive(Debug, Clone, Default)]
pub(super) struct Pacing {
    /// Seconds; none: as long as it likes.
    target: Option<f64>,
    /// Seconds of a pass without rows of prompts.
    base: Option<f64>,
    /// Seconds of a row of a prompt.
    row: Option<f64>,
}

impl Pacing {
    /// Lets passes with decoding sequences take `milliseconds`.
    pub(super) fn new(milliseconds: Option<u32>) -> Self {
        Pacing { target: milliseconds.map(|ms| f64::from(ms) / 1000.0), ..Pacing::default() }
    }

    /// Most rows of prompts in the next pass, in which `decoding` sequences get a token. `most`: of any pass.
    pub(super) fn prompt_rows(&self, decoding: usize, most: usize) -> usize {
        let floor = FLOOR.min(most);
        match (self.target, self.row) {
            (None, _) => most,
            (Some(_), _) if decoding == 0 => most,
            // The first pass is a careful one.
            (Some(_), None) => floor,
            (Some(target), Some(row)) => {
                let rows = (target - self.base.unwrap_or(0.0)) / row;
                // The cast saturates.
                (rows as usize).clamp(floor, most)
            }
        }
    }

    /// The part of a pass of `seconds` that its decoding sequences account for, of `rows` rows with `prompt_rows` of prompts.
    pub(super) fn decode_share(&self, prompt_rows: usize, rows: usize, seconds: f64) -> f64 {
        match (rows.saturating_sub(prompt_rows), prompt_rows, self.base) {
            (0, ..) => 0.0,
            (_, 0, _) => 1.0,
            // What such a pass takes without prompts.
            (_, _, Some(base)) if seconds > 0.0 => (base / seconds).min(1.0),
            (decoding, ..) => decoding as f64 / rows as f64,
        }
    }

    /// A pass with so many rows of prompts took `seconds`.
    pub(super) fn measure(&mut self, prompt_rows: usize, seconds: f64) {
        let mean = |mean: &mut Option<f64>, value: f64| {
            *mean = Some(mean.map_or(value, |mean| mean + WEIGHT * (value - mean)));
        };
        match prompt_rows {
            0 => mean(&mut self.base, seconds),
            // A pass with prompts takes no less than one without.
            _ if self.base.is_some_and(|base| seconds < base) => mean(&mut self.base, seconds),
            rows => {
                // Never nothing, however uneven the clock is.
                let rest = (seconds - self.base.unwrap_or(0.0)).max(seconds / 100.0).max(1e-9);
                mean(&mut self.row, rest / rows as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine on which passes cost so much.
    #[derive(Debug, Clone, Copy)]
    struct Machine {
        base: f64,
        decoding_row: f64,
        row: f64,
    }

    impl Machine {
        fn seconds(&self, decoding: usize, rows: usize) -> f64 {
            self.base + self.decoding_row * decoding as f64 + self.row * rows as f64
        }

        /// Seconds of `passes` passes, and rows of prompts in each.
        fn run(&self, pacing: &mut Pacing, decoding: usize, passes: usize) -> Vec<(f64, usize)> {
            let pass = |_| {
                let rows = pacing.prompt_rows(decoding, 512);
                let seconds = self.seconds(decoding, rows);
                pacing.measure(rows, seconds);
                (seconds, rows)
            };
            (0..passes).map(pass).collect()
        }
    }

    #[test]
    fn without_a_target_or_without_somebody_who_waits_passes_are_full() {
        let mut pacing = Pacing::new(None);
        pacing.measure(512, 100.0);
        assert_eq!(pacing.prompt_rows(8, 512), 512);
        let mut pacing = Pacing::new(Some(10));
        pacing.measure(512, 100.0);
        assert_eq!((pacing.prompt_rows(0, 512), pacing.prompt_rows(1, 512)), (512, FLOOR));
        assert_eq!(pacing.prompt_rows(1, 5), 5);
    }

    #[test]
    fn passes_with_both_are_divided() {
        let mut pacing = Pacing::new(None);
        let share = |pacing: &Pacing, prompts| pacing.decode_share(prompts, 10, 0.2);
        assert_eq!([0, 10, 9].map(|prompts| share(&pacing, prompts)), [1.0, 0.0, 0.1]);
        pacing.measure(0, 0.05);
        assert_eq!([0, 10, 9].map(|prompts| share(&pacing, prompts)), [1.0, 0.0, 0.25]);
        assert_eq!(pacing.decode_share(9, 10, 0.01), 1.0);
    }

    #[test]
    fn odd_clocks_are_borne() {
        let mut pacing = Pacing::new(Some(10));
        pacing.measure(0, 5.0);
        for seconds in [0.0, 1.0, 0.0] {
            pacing.measure(64, seconds);
            assert!((FLOOR..=512).contains(&pacing.prompt_rows(3, 512)));
        }
    }

    #[test]
    fn a_machine_that_slows_down_is_noticed() {
        let fast = Machine { base: 0.01, decoding_row: 0.0, row: 0.0001 };
        let slow = Machine { row: 0.001, ..fast };
        let mut pacing = Pacing::new(Some(50));
        let rows = |passes: Vec<(f64, usize)>| passes.last().map_or(0, |pass| pass.1);
        let before = rows(fast.run(&mut pacing, 4, 60));
        assert!((350..=410).contains(&before), "{before}");
        let after = rows(slow.run(&mut pacing, 4, 60));
        assert!((35..=45).contains(&after), "{after}");
        assert!(rows(fast.run(&mut pacing, 4, 200)) > 340);
    }

    proptest! {
        /// On any machine passes soon take as long as they may, or as long as the floor takes, and prompts always advance.
        #[test]
        fn passes_take_as_long_as_they_may(
            base in 0.001_f64..0.2,
            decoding_row in 0.0_f64..0.002,
            row in 0.00001_f64..0.01,
            decoding in 1_usize..64,
            target in 1_u32..500,
            alone in 0_usize..3,
        ) {
            let machine = Machine { base, decoding_row, row };
            let mut pacing = Pacing::new(Some(target));
            (0..alone).for_each(|_| pacing.measure(0, machine.seconds(decoding, 0)));
            let passes = machine.run(&mut pacing, decoding, 400);
            let may = (f64::from(target) / 1000.0).max(machine.seconds(decoding, FLOOR));
            for (pass, &(seconds, rows)) in passes.iter().enumerate() {
                prop_assert!((FLOOR..=512).contains(&rows));
                // It comes from below.
                prop_assert!(seconds <= may * 1.05, "pass {pass}: {seconds} of {may}");
            }
            let &(seconds, rows) = passes.last().unwrap();
            prop_assert!(rows == 512 || seconds >= may * 0.9, "{seconds} of {may} with {rows}");
        }
    }
}
