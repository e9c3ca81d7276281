//! Rounds a block of columns of 16 rows, one row in each lane.

use super::GROUP;
use crate::simd::LANES;
use crate::{Kernel, Simd};

/// Scales that are tried: `+-amax` by these.
const DIVISORS: [f32; 7] = [6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0];
/// How often the scale that fits the best codes is tried after them.
const REFITS: usize = 2;

/// A row's weight in each lane.
type Lanes = [f32; LANES];

/// A block of columns of 16 rows. All but `factors` and `scales` are by column.
pub(crate) struct BlockArgs<'a> {
    pub(super) weights: &'a [Lanes],
    /// What the errors of earlier blocks add to the weights.
    pub(super) corrections: &'a [Lanes],
    /// `[columns, columns]`: at `[j, i]`, what the error of column `i < j` adds to column `j`, by the error.
    pub(super) factors: &'a [f32],
    /// What a squared rounding error costs.
    pub(super) importance: &'a [f32],
    /// 0..=15.
    pub(super) codes: &'a mut [[i8; LANES]],
    /// Weights less what they are rounded to.
    pub(super) errors: &'a mut [Lanes],
    /// bf16, of each group.
    pub(super) scales: &'a mut [[u16; LANES]],
}

/// Chooses scales and codes: of the scales tried, each lane takes the one whose codes, with the feedback within the group,
/// cost least.
pub(crate) struct RoundBlock;
impl Kernel for RoundBlock {
    type Args<'a> = BlockArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: BlockArgs<'_>) {
        let BlockArgs { weights, corrections, factors, importance, codes, errors, scales } = args;
        let columns = weights.len();
        assert!(corrections.len() == columns && importance.len() == columns && codes.len() == columns);
        assert!(errors.len() == columns && factors.len() == columns * columns);
        assert_eq!(scales.len(), columns.div_ceil(GROUP));
        for (g, scale) in scales.iter_mut().enumerate() {
            let start = g * GROUP;
            let end = (start + GROUP).min(columns);
            let mut wanted = [[0.0; LANES]; GROUP];
            let (before, own) = errors.split_at_mut(start);
            for (j, wanted) in (start..end).zip(&mut wanted) {
                let mut sum = s.add(s.load(&weights[j]), s.load(&corrections[j]));
                for (error, &factor) in before.iter().zip(&factors[j * columns..]) {
                    sum = s.fma(s.load(error), s.splat(factor), sum);
                }
                s.store(sum, wanted);
            }
            let mut group = Group {
                weights: &weights[start..end],
                wanted: &wanted[..end - start],
                factors: &factors[start * columns + start..],
                stride: columns,
                importance: &importance[start..end],
                errors: &mut own[..end - start],
            };
            let best = group.search(s);
            group.round(s, &best, Some(&mut codes[start..end]));
            *scale = best.map(|scale| (scale.to_bits() >> 16) as u16);
        }
    }
}

/// The columns of a group.
struct Group<'a> {
    weights: &'a [Lanes],
    /// The weights with the corrections of earlier groups.
    wanted: &'a [Lanes],
    /// As in [`BlockArgs`], from the group's first row and column on
    factors: &'a [f32],
    stride: usize,
    importance: &'a [f32],
    errors: &'a mut [Lanes],
}

/// What a scale does in each lane.
struct Outcome {
    cost: Lanes,
    /// The factor by which another scale would fit the codes better.
    refit: Lanes,
}

/// The best scale of each lane, so far.
struct Best {
    scale: Lanes,
    cost: Lanes,
    refit: Lanes,
}

impl Group<'_> {
    /// The best scale of each lane, a bf16; 0 where weights are too small for one.
    #[inline(always)]
    fn search<S: Simd>(&mut self, s: S) -> Lanes {
        let mut amax = s.zero();
        for wanted in self.wanted {
            amax = s.max(amax, s.abs(s.load(wanted)));
        }
        let mut extreme = [0.0; LANES];
        s.store(amax, &mut extreme);
        let zero = [0.0; LANES];
        let Outcome { cost, refit } = self.round(s, &zero, None);
        let mut best = Best { scale: zero, cost, refit };
        for divisor in DIVISORS {
            for sign in [1.0, -1.0] {
                let tried = extreme.map(|amax| usable(sign * amax / divisor, amax));
                self.attempt(s, &tried, &mut best);
            }
        }
        for _ in 0..REFITS {
            let tried =
                std::array::from_fn(|lane| usable(best.scale[lane] * best.refit[lane], extreme[lane]));
            self.attempt(s, &tried, &mut best);
        }
        best.scale
    }

    /// Tries a scale in each lane, and keeps those that cost less.
    #[inline(always)]
    fn attempt<S: Simd>(&mut self, s: S, tried: &Lanes, best: &mut Best) {
        let found = self.round(s, tried, None);
        for lane in 0..LANES {
            if tried[lane] != 0.0 && found.cost[lane] < best.cost[lane] {
                best.scale[lane] = tried[lane];
                best.cost[lane] = found.cost[lane];
                best.refit[lane] = found.refit[lane];
            }
        }
    }

    /// Rounds the columns in order and leaves their errors.
    #[inline(always)]
    fn round<S: Simd>(&mut self, s: S, scale: &Lanes, mut codes: Option<&mut [[i8; LANES]]>) -> Outcome {
        let inverse = scale.map(|scale| if scale == 0.0 { 0.0 } else { 1.0 / scale });
        let (scale, inverse) = (s.load(scale), s.load(&inverse));
        let (mut cost, mut wq, mut qq) = (s.zero(), s.zero(), s.zero());
        for j in 0..self.weights.len() {
            let mut wanted = s.load(&self.wanted[j]);
            let factors = &self.factors[j * self.stride..][..j];
            for (error, &factor) in self.errors.iter().zip(factors) {
                wanted = s.fma(s.load(error), s.splat(factor), wanted);
            }
            let ratio = s.mul(wanted, inverse);
            let code = s.round_to_i32(s.min(s.max(ratio, s.splat(-8.0)), s.splat(7.0)));
            let q = s.i32_to_f32(code);
            let rounded = s.mul(q, scale);
            let difference = s.sub(wanted, rounded);
            let importance = s.splat(self.importance[j]);
            cost = s.fma(s.mul(difference, difference), importance, cost);
            let weighted = s.mul(q, importance);
            wq = s.fma(ratio, weighted, wq);
            qq = s.fma(q, weighted, qq);
            s.store(s.sub(s.load(&self.weights[j]), rounded), &mut self.errors[j]);
            if let Some(codes) = &mut codes {
                s.store_i8(s.add_i32(code, s.splat_i32(8)), &mut codes[j]);
            }
        }
        let mut outcome = Outcome { cost: [0.0; LANES], refit: [0.0; LANES] };
        s.store(cost, &mut outcome.cost);
        s.store(s.div(wq, s.max(qq, s.splat(f32::MIN_POSITIVE))), &mut outcome.refit);
        outcome
    }
}

/// The nearest bf16, if it is a finite scale for weights of at most `amax`, with a finite reciprocal; else 0.
#[inline(always)]
fn usable(scale: f32, amax: f32) -> f32 {
    let bits = scale.to_bits();
    let rounded = f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
    let large = amax / 16.0 >= f32::MIN_POSITIVE && rounded.abs() >= amax / 16.0;
    if large && rounded.is_finite() { rounded } else { 0.0 }
}
