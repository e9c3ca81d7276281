//! Routing: the experts of a token and their weights, from the router's logits.

use std::cmp::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::spec::{ExpertGroups, MoeSpec, Scoring};

/// A row, one of its experts, and that expert's weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    pub(crate) row: usize,
    /// Factor of the expert's input.
    pub(crate) input: f32,
    /// Factor of the expert's result.
    pub(crate) weight: f32,
}

/// One of a token's experts, and the weight of its result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WeightedExpert {
    pub(crate) expert: usize,
    pub(crate) weight: f32,
}

/// The choices of all rows of a pass, with the buffers that choosing needs.
#[derive(Default)]
pub(crate) struct Choices {
    choices: Vec<Choice>,
    choosing: Choosing,
}

impl Choices {
    /// Forgets all choices, and makes room for those of `rows` rows.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn begin(&mut self, rows: usize, moe: &MoeSpec) -> Result<()> {
        self.choices.clear();
        let count = rows * moe.num_experts_per_tok;
        self.choices.try_reserve(count).map_err(|_| {
            Error::new(
                ErrorKind::OutOfBudget,
                format!("there is no memory for the choice of {count} experts"),
            )
        })
    }

    /// Adds the experts of row `row`, see [`MoeSpec::choose`]; `scales` multiply the experts' weights.
    pub(crate) fn choose(
        &mut self,
        moe: &MoeSpec,
        row: usize,
        logits: &[f32],
        correction: Option<&[f32]>,
        scales: Option<&[f32]>,
    ) {
        let chosen = moe.choose(logits, correction, &mut self.choosing);
        self.choices.extend(chosen.iter().map(|&WeightedExpert { expert, weight }| {
            let weight = weight * scales.map_or(1.0, |scales| scales[expert]);
            let (input, weight) = if moe.scaled_input { (weight, 1.0) } else { (1.0, weight) };
            Choice { expert, row, input, weight }
        }));
    }

    /// Puts the choices in ascending order of experts, then rows.
    pub(crate) fn sort(&mut self) {
        self.choices.sort_unstable_by_key(|choice| (choice.expert, choice.row));
    }

    /// The choices of one expert after the other.
    pub(crate) fn by_expert(&self) -> impl Iterator<Item = &[Choice]> {
        self.choices.chunk_by(|a, b| a.expert == b.expert)
    }
}

/// `1 / (1 + exp(-x))`
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

/// Buffers of [`MoeSpec::choose`].
#[derive(Default)]
pub(crate) struct Choosing {
    /// `[experts]`
    scores: Vec<f32>,
    /// `[experts]`: scores with corrections, by which experts are chosen
    preference: Vec<f32>,
    ranking: Ranking,
    chosen: Vec<WeightedExpert>,
}

impl MoeSpec {
    /// The experts of a token by the router's logits, `[experts]`, best first, with their weights. Ties go to the lower index.
    pub(crate) fn choose<'a>(
        &self,
        logits: &[f32],
        correction: Option<&[f32]>,
        buffers: &'a mut Choosing,
    ) -> &'a [WeightedExpert] {
        let Choosing { scores, preference, ranking, chosen } = buffers;
        scores.clear();
        match self.scoring {
            Scoring::Softmax => {
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.extend(logits.iter().map(|&x| libm::expf(x - max)));
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|x| *x /= sum);
            }
            Scoring::Sigmoid | Scoring::SigmoidOfLargest => scores.extend(logits.iter().map(|&x| sigmoid(x))),
        }
        preference.clear();
        // The sigmoid of large logits is 1.
        let largest = self.scoring == Scoring::SigmoidOfLargest;
        preference.extend_from_slice(if largest { logits } else { scores });
        for (preference, correction) in preference.iter_mut().zip(correction.unwrap_or_default()) {
            *preference += correction;
        }
        if let Some(groups) = self.groups {
            // A group counts by its two best experts in DeepSeek-V3, by its best in V2.
            let counted = if self.scoring == Scoring::Sigmoid { 2 } else { 1 };
            keep_best_groups(groups, counted, preference, ranking);
        }
        chosen.clear();
        let best = ranking.best(preference, self.num_experts_per_tok);
        chosen.extend(best.iter().map(|&expert| WeightedExpert { expert, weight: scores[expert] }));
        if self.norm_topk_prob {
            let sum: f32 = chosen.iter().map(|chosen| chosen.weight).sum();
            // As in DeepSeek; the sum of a softmax is never 0.
            let sum = if self.scoring == Scoring::Sigmoid { sum + 1e-20 } else { sum };
            chosen.iter_mut().for_each(|chosen| chosen.weight /= sum);
        }
        chosen.iter_mut().for_each(|chosen| chosen.weight *= self.routed_scaling_factor);
        chosen
    }
}

/// Finds the largest values: linear time, plus sorting the ones found.
#[derive(Default)]
struct Ranking(Vec<usize>);

impl Ranking {
    /// The indices of the `count` largest values, descending. Ties go to the lower index. A value replaces the best so far only if
    /// it is larger, and comparisons with NaN are false: that is the order in which NaN is ranked.
    fn best(&mut self, values: &[f32], count: usize) -> &[usize] {
        let order = &mut self.0;
        let count = count.min(values.len());
        order.clear();
        if values.iter().any(|value| value.is_nan()) {
            let mut numbers: Vec<usize> =
                (0..values.len()).filter(|&index| !values[index].is_nan()).collect();
            numbers.sort_unstable_by(|a, b| descending(values, a, b));
            let mut taken = vec![false; values.len()];
            let (mut numbers, mut first) = (numbers.into_iter(), 0);
            while order.len() < count {
                while taken[first] {
                    first += 1;
                }
                // If the first value left is NaN, no other is larger than it.
                let next = if values[first].is_nan() { first } else { numbers.next().unwrap_or(first) };
                taken[next] = true;
                order.push(next);
            }
            return order;
        }
        order.extend(0..values.len());
        if count < order.len() && count > 0 {
            order.select_nth_unstable_by(count - 1, |a, b| descending(values, a, b));
        }
        order.truncate(count);
        order.sort_unstable_by(|a, b| descending(values, a, b));
        order
    }
}

/// Descending order; equal numbers by their index.
fn descending(values: &[f32], a: &usize, b: &usize) -> Ordering {
    values[*b].partial_cmp(&values[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b))
}

/// Excludes experts whose group is not among the best, by the sum of each group's `counted` best.
fn keep_best_groups(groups: ExpertGroups, counted: usize, preference: &mut [f32], ranking: &mut Ranking) {
    let size = preference.len() / groups.n_group;
    let sums: Vec<f32> = preference
        .chunks_exact(size)
        .map(|group| ranking.best(group, counted).iter().map(|&index| group[index]).sum())
        .collect();
    let mut kept = vec![false; groups.n_group];
    ranking.best(&sums, groups.topk_group).iter().for_each(|&group| kept[group] = true);
    for (group, kept) in preference.chunks_exact_mut(size).zip(kept) {
        if !kept {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::ExpertStorage;

    fn spec(scoring: Scoring, norm_topk_prob: bool, groups: Option<ExpertGroups>) -> MoeSpec {
        MoeSpec {
            num_experts: 4,
            num_experts_per_tok: 2,
            intermediate_size: 8,
            scoring,
            norm_topk_prob,
            scaled_input: false,
            routed_scaling_factor: 1.0,
            groups,
            router_bias: false,
            gate: true,
            expert_bias: false,
            shared: None,
            parallel_mlp: false,
            storage: ExpertStorage::Separate,
        }
    }

    fn choose(spec: MoeSpec, logits: &[f32], correction: Option<&[f32]>) -> Vec<(usize, f32)> {
        let mut buffers = Choosing::default();
        let chosen = spec.choose(logits, correction, &mut buffers);
        chosen.iter().map(|chosen| (chosen.expert, chosen.weight)).collect()
    }

    fn close(found: Vec<(usize, f32)>, expected: &[(usize, f32)]) {
        assert_eq!(found.len(), expected.len());
        for ((expert, weight), (same, close)) in found.iter().zip(expected) {
            assert!(expert == same && (weight - close).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn a_softmax_chooses_the_largest() {
        let logits = [1.0_f32.ln(), 4.0_f32.ln(), 2.0_f32.ln(), 3.0_f32.ln()];
        close(choose(spec(Scoring::Softmax, false, None), &logits, None), &[(1, 0.4), (3, 0.3)]);
        let normed = spec(Scoring::Softmax, true, None);
        close(choose(normed, &logits, None), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        let scaled = MoeSpec { routed_scaling_factor: 7.0, ..normed };
        close(choose(scaled, &logits, None), &[(1, 4.0), (3, 3.0)]);
        close(choose(normed, &[0.0; 4], None), &[(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn corrections_and_groups_count_for_the_choice_alone() {
        let odds = |p: f32| (p / (1.0 - p)).ln();
        let logits = [odds(0.5), odds(0.6), odds(0.7), odds(0.2)];
        let sigmoid = spec(Scoring::Sigmoid, false, None);
        close(choose(sigmoid, &logits, None), &[(2, 0.7), (1, 0.6)]);
        close(choose(sigmoid, &logits, Some(&[0.3, 0.0, 0.0, 0.0])), &[(0, 0.5), (2, 0.7)]);
        let grouped = spec(Scoring::Sigmoid, true, Some(ExpertGroups { n_group: 2, topk_group: 1 }));
        close(choose(grouped, &logits, None), &[(1, 6.0 / 11.0), (0, 5.0 / 11.0)]);
        // A correction below 0 does not let an expert of another group in.
        close(choose(grouped, &logits, Some(&[-2.0, 0.0, -2.0, -2.0])), &[(1, 6.0 / 11.0), (0, 5.0 / 11.0)]);
    }

    #[test]
    fn groups_of_a_softmax_go_by_their_best() {
        let logits = [4.0_f32.ln(), 1.0_f32.ln(), 3.0_f32.ln(), 2.5_f32.ln()];
        let groups = Some(ExpertGroups { n_group: 2, topk_group: 1 });
        // The second group has the larger sum, but the first has the best.
        let scaled = MoeSpec { routed_scaling_factor: 10.5, ..spec(Scoring::Softmax, false, groups) };
        close(choose(scaled, &logits, None), &[(0, 4.0), (1, 1.0)]);
        let greedy = MoeSpec { groups: None, ..scaled };
        close(choose(greedy, &logits, None), &[(0, 4.0), (2, 3.0)]);
    }

    #[test]
    fn a_sigmoid_of_the_largest_weighs_inputs() {
        let largest = spec(Scoring::SigmoidOfLargest, false, None);
        // The sigmoids of all are 1.
        close(choose(largest, &[30.0, 40.0, 50.0, 35.0], None), &[(2, 1.0), (1, 1.0)]);
        let moe = MoeSpec { scaled_input: true, num_experts_per_tok: 1, ..largest };
        let mut choices = Choices::default();
        choices.begin(1, &moe).unwrap();
        choices.choose(&moe, 0, &[-1.0, 0.0, -2.0, -3.0], None, None);
        assert_eq!(choices.choices, [Choice { expert: 1, row: 0, input: 0.5, weight: 1.0 }]);
    }

    #[test]
    fn what_is_not_a_number_is_passed_on() {
        let found = choose(spec(Scoring::Softmax, true, None), &[f32::NAN; 4], None);
        assert_eq!(found.len(), 2);
        assert!(found[0].0 != found[1].0 && found.iter().all(|(_, weight)| weight.is_nan()));
    }

    /// As the choice is defined: the largest that is left, time and again.
    fn one_by_one(values: &[f32], count: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < count.min(values.len()) {
            let left = (0..values.len()).filter(|index| !chosen.contains(index));
            let next = left.reduce(|best, index| if values[index] > values[best] { index } else { best });
            chosen.extend(next);
        }
        chosen
    }

    proptest! {
        #[test]
        fn the_best_are_those_found_one_by_one(
            values in proptest::collection::vec(
                prop_oneof![Just(0.0), Just(-0.0), Just(f32::NAN), Just(f32::NEG_INFINITY), Just(1.0), -2.0_f32..2.0],
                0..40,
            ),
            numbers in proptest::collection::vec(prop_oneof![Just(0.0), Just(-0.0), -1.0_f32..1.0], 0..40),
            count in 0_usize..50,
        ) {
            let mut ranking = Ranking::default();
            for values in [values, numbers] {
                prop_assert_eq!(ranking.best(&values, count), one_by_one(&values, count));
            }
        }
    }
}
