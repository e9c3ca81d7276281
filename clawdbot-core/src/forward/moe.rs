//! Expert layers: a router chooses some experts for each token, and their results are added by weight.
//!
//! Tokens are grouped by expert: each chosen expert computes all of its rows at once, and the weights of other experts are not
//! read. A token's experts are added in ascending order, whatever else is in the batch, so its result has the same bits in
//! every batch.

use clawdbot_kernels::PackedMatrix;

use super::linear::GatedMlp;
use super::ops::{
    ActivatedMlp, Codes, Columns, ExpertBuffers, ExpertInput, Norm, Ops, Rows, Shape, Store, WorkspaceOf,
};
use super::scratch::{ExpertScratch, MlpScratch, MoeScratch};
use crate::error::{Error, Result};
use crate::spec::DecoderSpec;

/// Weights of an expert layer.
pub(crate) struct MoeWeights {
    /// f32, `[experts, hidden_size]`; where the shared expert has a gate, it is one more row
    pub(crate) router: PackedMatrix,
    /// `[experts]`, and 0 for the gate of the shared expert
    pub(crate) router_bias: Option<Vec<f32>>,
    /// `[experts]`: added to the scores when experts are chosen, but not to their weights
    pub(crate) correction: Option<Vec<f32>>,
    pub(crate) experts: Vec<GatedMlp>,
    pub(crate) shared: Option<GatedMlp>,
    pub(crate) parallel_mlp: Option<ParallelMlpWeights>,
}

/// Weights of a dense MLP that runs in parallel with the experts, see `MoeSpec::parallel_mlp`. Norms are `[hidden_size]`.
pub(crate) struct ParallelMlpWeights {
    pub(crate) dense: GatedMlp,
    /// Of the dense MLP's result
    pub(crate) dense_out_norm: Vec<f32>,
    /// Of the experts' input
    pub(crate) expert_norm: Vec<f32>,
    /// Of the experts' result
    pub(crate) expert_out_norm: Vec<f32>,
    /// Of the router's input
    pub(crate) router_norm: Vec<f32>,
    /// `[experts]`: multiplier of each expert's weight
    pub(crate) expert_scale: Vec<f32>,
}

/// Buffers of an expert layer.
pub(crate) struct MoeBuffers<'a, O: Ops> {
    pub(crate) mlp: &'a mut MlpScratch<O::Memory>,
    pub(crate) moe: &'a mut MoeScratch<O::Memory>,
    pub(crate) codes: &'a mut Codes<O>,
    pub(crate) workspace: &'a mut WorkspaceOf<O>,
}

/// Buffers of the experts.
struct ExpertLayerBuffers<'a, O: Ops> {
    mlp: &'a mut MlpScratch<O::Memory>,
    scratch: &'a mut ExpertScratch<O::Memory>,
    codes: &'a mut Codes<O>,
    workspace: &'a mut WorkspaceOf<O>,
}

/// What the router and the experts read, `[rows, hidden_size]` each.
#[derive(Clone, Copy)]
struct RoutedInput<'a, R> {
    router: &'a R,
    experts: &'a R,
}

/// What an expert layer reads, `[rows, hidden_size]` each.
#[derive(Clone, Copy)]
pub(crate) struct MoeInput<'a, R> {
    /// The residual stream
    pub(crate) stream: &'a R,
    /// The residual stream, normed
    pub(crate) normed: &'a R,
}

impl MoeWeights {
    /// `out = sum of weight * expert(x) over the chosen experts, plus the shared one`, `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        input: MoeInput<'_, Rows<O>>,
        rows: usize,
        out: &mut Rows<O>,
        buffers: MoeBuffers<'_, O>,
    ) -> Result<()> {
        let MoeBuffers { mlp, moe, codes, workspace } = buffers;
        let MoeScratch { experts: scratch, parallel_mlp: [routed, normed] } = moe;
        let buffers = ExpertLayerBuffers { mlp: &mut *mlp, scratch, codes: &mut *codes, workspace };
        let Some(parallel_mlp) = &self.parallel_mlp else {
            let x = RoutedInput { router: input.normed, experts: input.normed };
            return self.experts(ops, spec, x, rows, out, buffers);
        };
        let (eps, shape) = (spec.rms_norm_eps, Shape { rows, width: spec.hidden_size });
        ops.norm(input.stream, Norm::of(spec, &parallel_mlp.router_norm), shape, routed);
        ops.norm(input.stream, Norm::of(spec, &parallel_mlp.expert_norm), shape, normed);
        self.experts(ops, spec, RoutedInput { router: routed, experts: normed }, rows, out, buffers)?;
        let dense = routed;
        let weights = ActivatedMlp { weights: &parallel_mlp.dense, activation: spec.activation };
        ops.gated_mlp(weights, input.normed, rows, Store::Overwrite, dense, mlp.buffers(codes))?;
        ops.norm_in_place(dense, &parallel_mlp.dense_out_norm, eps, shape);
        ops.norm_in_place(out, &parallel_mlp.expert_out_norm, eps, shape);
        ops.add_scaled(dense, 1.0, shape, out);
        Ok(())
    }

    /// `out = sum of weight * expert(x) over the experts that the router chooses, plus the shared one`.
    fn experts<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        input: RoutedInput<'_, Rows<O>>,
        rows: usize,
        out: &mut Rows<O>,
        buffers: ExpertLayerBuffers<'_, O>,
    ) -> Result<()> {
        let ExpertLayerBuffers { mlp, scratch, codes, workspace } = buffers;
        let (x, activation) = (input.experts, spec.activation);
        let moe = spec.moe.as_ref().ok_or_else(|| Error::internal("an expert layer without experts"))?;
        let shape = Shape { rows, width: spec.hidden_size };
        let ExpertScratch { logits, codes: layer_codes, gathered, result, choices } = scratch;
        let width = self.router.n();
        ops.matmul_f32(input.router, rows, &self.router, self.router_bias.as_deref(), logits);
        let column = |first: usize| Columns { rows: &*logits, stride: width, first };
        let scales = self.parallel_mlp.as_ref().map(|parallel_mlp| &parallel_mlp.expert_scale[..]);
        ops.choose_experts(moe, column(0), rows, self.correction.as_deref(), scales, choices)?;
        if ops.stopped() {
            return Ok(());
        }

        ops.zero(out, shape);
        ops.clear_codes(layer_codes);
        for taken in choices.by_expert() {
            if ops.stopped() {
                return Ok(());
            }
            let expert = ActivatedMlp { weights: &self.experts[taken[0].expert], activation };
            let buffers = ExpertBuffers { mlp: mlp.buffers(codes), layer_codes, gathered };
            ops.expert(expert, ExpertInput { x, shape, taken }, result, buffers)?;
            ops.scatter_add(result, taken, shape, out, workspace);
        }
        let Some(shared) = &self.shared else { return Ok(()) };
        let shared = ActivatedMlp { weights: shared, activation };
        ops.gated_mlp(shared, x, rows, Store::Overwrite, result, mlp.buffers(codes))?;
        let gate = (width > moe.num_experts).then(|| column(moe.num_experts));
        ops.add_shared_expert(result, gate, shape, out);
        Ok(())
    }
}
