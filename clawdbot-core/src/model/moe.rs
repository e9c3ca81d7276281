//! Expert layers: a router chooses some experts for each token, and their results are added up by weight.
//!
//! Tokens are grouped by expert, and each expert that is chosen at all is one product over its rows. Of a single token
//! only the chosen experts' weights are read. A token's experts are added in ascending order, whatever else is in the
//! batch, so its result has the same bits in every batch.

use super::blocks::GatedMlp;
use super::decoder::Ops;
use super::scratch::{ExpertScratch, MlpScratch, MoeScratch};
use super::spec::{DecoderSpec, ExpertGroups, MoeSpec, Scoring};
use crate::error::{Error, Result};
use crate::kernels::{Epilogue, Lhs, PackedMatrix, QuantizedRows, gemm};

/// Weights of an expert layer.
pub(crate) struct MoeWeights {
    /// f32, `[experts, hidden_size]`; a further row is the gate of the shared expert
    pub(crate) router: PackedMatrix,
    /// `[experts]`, and 0 for the gate
    pub(crate) router_bias: Option<Vec<f32>>,
    /// `[experts]`: added for the choice alone
    pub(crate) correction: Option<Vec<f32>>,
    pub(crate) experts: Vec<GatedMlp>,
    pub(crate) shared: Option<GatedMlp>,
    pub(crate) beside: Option<BesideWeights>,
}

/// Of an expert layer beside a dense MLP, see [`MoeSpec::beside_dense`]. Norms are `[hidden_size]`.
pub(crate) struct BesideWeights {
    pub(crate) dense: GatedMlp,
    /// Of what the dense MLP gives
    pub(crate) dense_out_norm: Vec<f32>,
    /// Of what experts read
    pub(crate) expert_norm: Vec<f32>,
    /// Of what they give
    pub(crate) expert_out_norm: Vec<f32>,
    /// Of what the router reads
    pub(crate) router_norm: Vec<f32>,
    /// `[experts]`: what their weights are multiplied with
    pub(crate) expert_scale: Vec<f32>,
}

/// A token's row, one of its experts, and that one's weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    expert: usize,
    pub(super) row: usize,
    weight: f32,
}

/// No row of the group.
const ABSENT: usize = usize::MAX;

impl MoeWeights {
    /// `out = sum of weight * expert(x) over the chosen experts, plus the shared one`. The residual stream before its norm, `x`
    /// and `out` are `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward(
        &self,
        ops: &Ops<'_>,
        spec: &DecoderSpec,
        (stream, x, rows): (&[f32], &[f32], usize),
        out: &mut [f32],
        (mlp, scratch): (&mut MlpScratch, &mut MoeScratch),
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let MoeScratch { experts, beside: [routed, input] } = scratch;
        let Some(beside) = &self.beside else {
            return self.experts(ops, spec, (x, x, rows), out, (mlp, experts), quantized);
        };
        let (hidden, eps) = (spec.hidden_size, spec.rms_norm_eps);
        let (routed, input) = (&mut routed[..rows * hidden], &mut input[..rows * hidden]);
        ops.input(spec, stream, Some(&beside.router_norm), routed);
        ops.input(spec, stream, Some(&beside.expert_norm), input);
        self.experts(ops, spec, (routed, input, rows), out, (mlp, experts), quantized)?;
        let dense = routed;
        let mut buffers = mlp.buffers(quantized);
        beside.dense.forward(ops, spec.activation, (x, rows), (dense, false), &mut buffers)?;
        ops.by_rows(dense, hidden, |_, row| ops.kernels.norm_in_place(row, &beside.dense_out_norm, eps));
        ops.by_rows(out, hidden, |row, out| {
            ops.kernels.norm_in_place(out, &beside.expert_out_norm, eps);
            ops.kernels.add_scaled(&dense[row * hidden..][..hidden], 1.0, out);
        });
        Ok(())
    }

    /// `out = sum of weight * expert(x) over the experts that `routed` chooses, plus the shared one`.
    fn experts(
        &self,
        ops: &Ops<'_>,
        spec: &DecoderSpec,
        (routed, x, rows): (&[f32], &[f32], usize),
        out: &mut [f32],
        (mlp, scratch): (&mut MlpScratch, &mut ExpertScratch),
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let moe = spec.moe.as_ref().ok_or_else(|| Error::internal("an expert layer without experts"))?;
        let hidden = spec.hidden_size;
        let ExpertScratch { logits, quantized: all, gathered, result, choices, places } = scratch;
        let mut buffers = mlp.buffers(quantized);
        let width = self.router.n();
        let logits = &mut logits[..rows * width];
        let epilogue = Epilogue { bias: self.router_bias.as_deref(), ..Epilogue::default() };
        gemm(ops.kernels, ops.region, Lhs::F32(routed), rows, &self.router, logits, epilogue);
        choices.clear();
        for (row, logits) in logits.chunks_exact(width).enumerate() {
            let chosen = moe.choose(&logits[..moe.num_experts], self.correction.as_deref());
            choices.extend(chosen.into_iter().map(|(expert, weight)| {
                let scale = self.beside.as_ref().map_or(1.0, |beside| beside.expert_scale[expert]);
                Choice { expert, row, weight: weight * scale }
            }));
        }
        choices.sort_unstable_by_key(|choice| (choice.expert, choice.row));

        out.fill(0.0);
        places.clear();
        places.resize(rows, ABSENT);
        all.clear();
        for group in choices.chunk_by(|a, b| a.expert == b.expert) {
            let count = group.len();
            let result = &mut result[..count * hidden];
            let expert = &self.experts[group[0].expert];
            if let Some((size, rotated)) = expert.activations() {
                // Each row once, not once for each of its experts.
                if !all.are(rows, hidden, (size, rotated)) {
                    all.quantize(ops.kernels, ops.region, x, rows, hidden, size, rotated)?;
                }
                let input = (&*all, Some(group).filter(|_| count < rows), count);
                expert.forward_quantized(ops, spec.activation, input, result, &mut buffers)?;
            } else {
                let input = if count == rows {
                    x
                } else {
                    let gathered = &mut gathered[..count * hidden];
                    ops.by_rows(gathered, hidden, |place, to| {
                        to.copy_from_slice(&x[group[place].row * hidden..][..hidden]);
                    });
                    gathered
                };
                expert.forward(ops, spec.activation, (input, count), (result, false), &mut buffers)?;
            }
            group.iter().enumerate().for_each(|(place, choice)| places[choice.row] = place);
            ops.by_rows(out, hidden, |row, out| {
                if let Some(choice) = group.get(places[row]) {
                    ops.kernels.add_scaled(&result[places[row] * hidden..][..hidden], choice.weight, out);
                }
            });
            group.iter().for_each(|choice| places[choice.row] = ABSENT);
        }
        let Some(shared) = &self.shared else { return Ok(()) };
        let result = &mut result[..rows * hidden];
        shared.forward(ops, spec.activation, (x, rows), (result, false), &mut buffers)?;
        ops.by_rows(out, hidden, |row, out| {
            let gate = logits.get(row * width + moe.num_experts).filter(|_| width > moe.num_experts);
            let weight = gate.map_or(1.0, |&gate| sigmoid(gate));
            ops.kernels.add_scaled(&result[row * hidden..][..hidden], weight, out);
        });
        Ok(())
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

impl MoeSpec {
    /// The experts of a token by the router's logits, `[experts]`, best first, with their weights. Of equals the first.
    fn choose(&self, logits: &[f32], correction: Option<&[f32]>) -> Vec<(usize, f32)> {
        let scores: Vec<f32> = match self.scoring {
            Scoring::Softmax => {
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exps: Vec<f32> = logits.iter().map(|&x| libm::expf(x - max)).collect();
                let sum: f32 = exps.iter().sum();
                exps.into_iter().map(|x| x / sum).collect()
            }
            Scoring::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
        };
        let mut preference = scores.clone();
        for (preference, correction) in preference.iter_mut().zip(correction.unwrap_or_default()) {
            *preference += correction;
        }
        if let Some(groups) = self.groups {
            // DeepSeek-V3 goes by the two best of a group, V2 by the best.
            let counted = if self.scoring == Scoring::Sigmoid { 2 } else { 1 };
            keep_best_groups(groups, counted, &mut preference);
        }
        let mut chosen: Vec<(usize, f32)> = best(&preference, self.num_experts_per_tok)
            .into_iter()
            .map(|expert| (expert, scores[expert]))
            .collect();
        if self.norm_topk_prob {
            let sum: f32 = chosen.iter().map(|(_, weight)| weight).sum();
            // As DeepSeek has it; of a softmax the sum is never 0.
            let sum = if self.scoring == Scoring::Sigmoid { sum + 1e-20 } else { sum };
            chosen.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        chosen.iter_mut().for_each(|(_, weight)| *weight *= self.routed_scaling_factor);
        chosen
    }
}

/// The indices of the `count` largest, descending; of equals the first. NaN is never larger.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    while chosen.len() < count.min(values.len()) {
        let left = (0..values.len()).filter(|index| !chosen.contains(index));
        let next = left.reduce(|best, index| if values[index] > values[best] { index } else { best });
        chosen.extend(next);
    }
    chosen
}

/// Takes experts out of the choice unless their group is among the best by the sum of its `counted` best.
fn keep_best_groups(groups: ExpertGroups, counted: usize, preference: &mut [f32]) {
    let size = preference.len() / groups.n_group;
    let sums: Vec<f32> = preference
        .chunks_exact(size)
        .map(|group| best(group, counted).into_iter().map(|index| group[index]).sum())
        .collect();
    let kept = best(&sums, groups.topk_group);
    for (index, group) in preference.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&index) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::ExpertStorage;

    fn spec(scoring: Scoring, norm_topk_prob: bool, groups: Option<ExpertGroups>) -> MoeSpec {
        MoeSpec {
            num_experts: 4,
            num_experts_per_tok: 2,
            intermediate_size: 8,
            scoring,
            norm_topk_prob,
            routed_scaling_factor: 1.0,
            groups,
            router_bias: false,
            expert_bias: false,
            shared: None,
            beside_dense: false,
            storage: ExpertStorage::Separate,
        }
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
        close(spec(Scoring::Softmax, false, None).choose(&logits, None), &[(1, 0.4), (3, 0.3)]);
        let normed = spec(Scoring::Softmax, true, None);
        close(normed.choose(&logits, None), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        let scaled = MoeSpec { routed_scaling_factor: 7.0, ..normed };
        close(scaled.choose(&logits, None), &[(1, 4.0), (3, 3.0)]);
        close(normed.choose(&[0.0; 4], None), &[(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn corrections_and_groups_count_for_the_choice_alone() {
        let odds = |p: f32| (p / (1.0 - p)).ln();
        let logits = [odds(0.5), odds(0.6), odds(0.7), odds(0.2)];
        let sigmoid = spec(Scoring::Sigmoid, false, None);
        close(sigmoid.choose(&logits, None), &[(2, 0.7), (1, 0.6)]);
        close(sigmoid.choose(&logits, Some(&[0.3, 0.0, 0.0, 0.0])), &[(0, 0.5), (2, 0.7)]);
        let grouped = spec(Scoring::Sigmoid, true, Some(ExpertGroups { n_group: 2, topk_group: 1 }));
        close(grouped.choose(&logits, None), &[(1, 6.0 / 11.0), (0, 5.0 / 11.0)]);
        // A correction below 0 does not let an expert of another group in.
        close(grouped.choose(&logits, Some(&[-2.0, 0.0, -2.0, -2.0])), &[(1, 6.0 / 11.0), (0, 5.0 / 11.0)]);
    }

    #[test]
    fn groups_of_a_softmax_go_by_their_best() {
        let logits = [4.0_f32.ln(), 1.0_f32.ln(), 3.0_f32.ln(), 2.5_f32.ln()];
        let groups = Some(ExpertGroups { n_group: 2, topk_group: 1 });
        // The second group has the larger sum, but the first has the best.
        let scaled = MoeSpec { routed_scaling_factor: 10.5, ..spec(Scoring::Softmax, false, groups) };
        close(scaled.choose(&logits, None), &[(0, 4.0), (1, 1.0)]);
        let greedy = MoeSpec { groups: None, ..scaled };
        close(greedy.choose(&logits, None), &[(0, 4.0), (2, 3.0)]);
    }

    #[test]
    fn what_is_not_a_number_is_passed_on() {
        let found = spec(Scoring::Softmax, true, None).choose(&[f32::NAN; 4], None);
        assert_eq!(found.len(), 2);
        assert!(found[0].0 != found[1].0 && found.iter().all(|(_, weight)| weight.is_nan()));
    }
}
