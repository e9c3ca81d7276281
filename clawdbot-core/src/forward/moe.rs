//! Expert layers: a router chooses some experts for each token, and their results are added up by weight.
//!
//! Tokens are grouped by expert, and each expert that is chosen at all is one product over its rows. Of a single token
//! only the chosen experts' weights are read. A token's experts are added in ascending order, whatever else is in the
//! batch, so its result has the same bits in every batch.

use clawdbot_kernels::{Epilogue, Lhs, PackedMatrix, QuantizedRows, gemm};

use super::blocks::GatedMlp;
use super::decoder::Ops;
use super::scratch::{ExpertScratch, MlpScratch, MoeScratch};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::DecoderSpec;

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
    pub(crate) parallel_mlp: Option<ParallelMlpWeights>,
}

/// Of an expert layer next to a dense MLP, see [`MoeSpec::parallel_mlp`]. Norms are `[hidden_size]`.
pub(crate) struct ParallelMlpWeights {
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
    pub(crate) row: usize,
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
        let MoeScratch { experts, parallel_mlp: [routed, input] } = scratch;
        let Some(parallel_mlp) = &self.parallel_mlp else {
            return self.experts(ops, spec, (x, x, rows), out, (mlp, experts), quantized);
        };
        let (hidden, eps) = (spec.hidden_size, spec.rms_norm_eps);
        let (routed, input) = (&mut routed[..rows * hidden], &mut input[..rows * hidden]);
        ops.input(spec, stream, Some(&parallel_mlp.router_norm), routed);
        ops.input(spec, stream, Some(&parallel_mlp.expert_norm), input);
        self.experts(ops, spec, (routed, input, rows), out, (mlp, experts), quantized)?;
        let dense = routed;
        let mut buffers = mlp.buffers(quantized);
        parallel_mlp.dense.forward(ops, spec.activation, (x, rows), (dense, false), &mut buffers)?;
        ops.by_rows(dense, hidden, |_, row| {
            ops.kernels.norm_in_place(row, &parallel_mlp.dense_out_norm, eps);
        });
        ops.by_rows(out, hidden, |row, out| {
            ops.kernels.norm_in_place(out, &parallel_mlp.expert_out_norm, eps);
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
        let ExpertScratch { logits, quantized: all, gathered, result, choices, places, choosing } = scratch;
        let mut buffers = mlp.buffers(quantized);
        let width = self.router.n();
        let logits = &mut logits[..rows * width];
        let epilogue = Epilogue { bias: self.router_bias.as_deref(), ..Epilogue::default() };
        gemm(ops.kernels, ops.region, Lhs::F32(routed), rows, &self.router, logits, epilogue);
        let stop = ops.region.stop();
        choices.clear();
        let count = rows * moe.num_experts_per_tok;
        choices.try_reserve(count).map_err(|_| {
            Error::new(
                ErrorKind::OutOfBudget,
                format!("there is no memory for the choice of {count} experts"),
            )
        })?;
        for (row, logits) in logits.chunks_exact(width).enumerate() {
            if stop.is_set() {
                return Ok(());
            }
            let chosen = moe.choose(&logits[..moe.num_experts], self.correction.as_deref(), choosing);
            choices.extend(chosen.iter().map(|&(expert, weight)| {
                let scale =
                    self.parallel_mlp.as_ref().map_or(1.0, |parallel_mlp| parallel_mlp.expert_scale[expert]);
                Choice { expert, row, weight: weight * scale }
            }));
        }
        choices.sort_unstable_by_key(|choice| (choice.expert, choice.row));

        out.fill(0.0);
        places.clear();
        places.resize(rows, ABSENT);
        all.clear();
        for group in choices.chunk_by(|a, b| a.expert == b.expert) {
            if stop.is_set() {
                return Ok(());
            }
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

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}
