//! Pooling: from the hidden states of a text's tokens to one vector, or all of them.

use std::ops::Range;

use crate::options::Pooling;

/// Collects the hidden states of one text in the order of positions, whatever passes they come from. Sums are in f64.
#[derive(Debug)]
pub(crate) struct Pooler {
    /// `None`: all are kept.
    pooling: Option<Pooling>,
    /// Number of leading positions that are not pooled: those of a prompt.
    skip: usize,
    /// `[hidden_size]`, empty before the first row.
    sums: Vec<f64>,
    /// Sum of the rows' weights.
    weight: f64,
    /// States that are kept, `[positions, hidden_size]`.
    every: Vec<f32>,
}

impl Pooler {
    /// Pools positions from `skip` on.
    pub(crate) fn new(pooling: Pooling, skip: usize) -> Self {
        Pooler { pooling: Some(pooling), skip, sums: Vec::new(), weight: 0.0, every: Vec::new() }
    }

    /// Keeps the hidden states of all positions in `room`, which is empty and has the capacity.
    pub(crate) fn every(room: Vec<f32>) -> Self {
        Pooler { pooling: None, skip: 0, sums: Vec::new(), weight: 0.0, every: room }
    }

    /// The positions among `start .. start + rows`, of a text of `total` tokens, that are pooled.
    pub(crate) fn wanted(&self, start: usize, rows: usize, total: usize) -> Range<usize> {
        let all = match self.pooling {
            Some(Pooling::Cls) => self.skip..self.skip + 1,
            Some(Pooling::Last) => total.saturating_sub(1)..total,
            Some(Pooling::Mean | Pooling::Max | Pooling::WeightedMean | Pooling::MeanSqrtLen) | None => {
                self.skip..total
            }
        };
        let first = all.start.clamp(start, start + rows);
        first..all.end.clamp(first, start + rows)
    }

    /// Adds the hidden state of a position that [`Pooler::wanted`] names.
    pub(crate) fn add(&mut self, position: usize, state: &[f32]) {
        let Some(pooling) = self.pooling else { return self.every.extend_from_slice(state) };
        let weight = if pooling == Pooling::WeightedMean { (position + 1) as f64 } else { 1.0 };
        let max = pooling == Pooling::Max;
        if self.sums.is_empty() {
            self.sums.resize(state.len(), if max { f64::NEG_INFINITY } else { 0.0 });
        }
        for (sum, &x) in self.sums.iter_mut().zip(state) {
            let x = f64::from(x);
            // NaN must not be lost.
            if !max {
                *sum += weight * x;
            } else if x > *sum || x.is_nan() {
                *sum = x;
            }
        }
        self.weight += weight;
    }

    /// Forgets all states.
    pub(crate) fn clear(&mut self) {
        self.sums.clear();
        self.weight = 0.0;
        self.every.clear();
    }

    /// The vector, `[hidden_size]`, or empty if no position was pooled; where all are kept, `[positions, hidden_size]`.
    pub(crate) fn finish(self) -> Vec<f32> {
        let Some(pooling) = self.pooling else { return self.every };
        let divisor = match pooling {
            Pooling::Mean | Pooling::WeightedMean => self.weight,
            Pooling::MeanSqrtLen => self.weight.sqrt(),
            Pooling::Cls | Pooling::Last | Pooling::Max => 1.0,
        };
        self.sums.into_iter().map(|sum| (sum / divisor) as f32).collect()
    }
}

/// Scales a vector to length 1. Zeros stay zeros.
pub(crate) fn normalize(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let length = squares.sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [[f32; 2]; 4] = [[1.0, -2.0], [3.0, 5.0], [-4.0, 0.5], [2.0, 2.0]];

    fn pooled(pooling: Pooling, skip: usize, chunk: usize) -> Vec<f32> {
        let mut pooler = Pooler::new(pooling, skip);
        for start in (0..4).step_by(chunk) {
            let rows = chunk.min(4 - start);
            pooler.wanted(start, rows, 4).for_each(|position| pooler.add(position, &STATES[position]));
        }
        pooler.finish()
    }

    #[test]
    fn kinds_are_those_of_the_formulas_in_any_chunks() {
        for (pooling, expected, without_first) in [
            (Pooling::Cls, [1.0, -2.0], [3.0, 5.0]),
            (Pooling::Mean, [0.5, 1.375], [1.0 / 3.0, 2.5]),
            (Pooling::Max, [3.0, 5.0], [3.0, 5.0]),
            (Pooling::Last, [2.0, 2.0], [2.0, 2.0]),
            (Pooling::WeightedMean, [0.3, 1.75], [2.0 / 9.0, 19.5 / 9.0]),
            (Pooling::MeanSqrtLen, [1.0, 2.75], [1.0 / 3_f32.sqrt(), 7.5 / 3_f32.sqrt()]),
        ] {
            for chunk in 1..=4 {
                assert_eq!(pooled(pooling, 0, chunk), expected, "{pooling}");
                assert_eq!(pooled(pooling, 1, chunk), without_first, "{pooling}");
            }
        }
        assert!(pooled(Pooling::Mean, 4, 2).is_empty());
    }

    #[test]
    fn every_state_is_kept_in_order_and_gathered_anew_after_an_eviction() {
        let mut pooler = Pooler::every(Vec::with_capacity(8));
        pooler.add(0, &STATES[3]);
        pooler.clear();
        for start in [0, 3] {
            let rows = if start == 0 { 3 } else { 1 };
            pooler.wanted(start, rows, 4).for_each(|position| pooler.add(position, &STATES[position]));
        }
        assert_eq!(pooler.finish(), STATES.as_flattened());
    }

    #[test]
    fn vectors_get_length_one_and_what_is_not_a_number_shows() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
        for pooling in Pooling::ALL {
            let mut pooler = Pooler::new(pooling, 0);
            pooler.add(0, &[f32::NAN]);
            assert!(pooler.finish()[0].is_nan(), "{pooling}");
        }
    }
}
