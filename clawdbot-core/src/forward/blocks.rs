//! What a layer is put together from: MLPs, and how the results of a layer's halves are added to the residual stream.

use super::linear::{GatedMlp, Linear};
use super::moe::MoeWeights;
use super::ops::{Codes, MlpBuffers, Ops, Rows, Shape, Store};
use super::scratch::MlpScratch;
use crate::error::Result;
use crate::spec::{Activation, DecoderSpec};

/// The second half of a layer.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
pub(crate) enum Mlp {
    Dense(GatedMlp),
    Sparse(SparseMlp),
    Plain(PlainMlp),
    Moe(Box<MoeWeights>),
    /// The layer has none.
    None,
}

/// Weights of a gated MLP whose gate is cut off, see `LayerSpec::cutoff`.
pub(crate) struct SparseMlp {
    /// hidden_size -> the gate, then up, intermediate_size each
    pub(crate) gate_up: Linear,
    /// intermediate_size -> hidden_size
    pub(crate) down: Linear,
    /// In standard deviations
    pub(crate) cutoff: f32,
}

impl SparseMlp {
    /// `out = down(act(cut(gate(x))) * up(x))`, or `out += ...`; `x` and `out` are `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        activation: Activation,
        x: &Rows<O>,
        rows: usize,
        (store, out): (Store, &mut Rows<O>),
        (scratch, codes): (&mut MlpScratch<O::Memory>, &mut Codes<O>),
    ) -> Result<()> {
        let MlpScratch { gate_up, activated, .. } = scratch;
        let shape = Shape { rows, width: self.down.weight.k() };
        ops.linear(x, rows, &self.gate_up, Store::Overwrite, gate_up, codes)?;
        ops.cut_off_gate(gate_up, self.cutoff, activation, shape, activated);
        ops.linear(activated, rows, &self.down, store, out, codes)
    }
}

/// Weights of a low-rank block next to a mixer.
pub(crate) struct LowRank {
    /// hidden_size -> rank
    pub(crate) left: Linear,
    /// rank -> hidden_size
    pub(crate) right: Linear,
    /// `[hidden_size]`
    pub(crate) norm: Vec<f32>,
}

impl LowRank {
    /// `x = (x + normed + norm(right(left(normed)))) / sqrt(2)`, where the layer's mixer has read `normed` too, and its result
    /// is in `x`; both are `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        (normed, x): (&Rows<O>, &mut Rows<O>),
        rows: usize,
        [reduced, sublayer]: [&mut Rows<O>; 2],
        codes: &mut Codes<O>,
    ) -> Result<()> {
        let shape = Shape { rows, width: spec.hidden_size };
        ops.linear(normed, rows, &self.left, Store::Overwrite, reduced, codes)?;
        ops.linear(reduced, rows, &self.right, Store::Overwrite, sublayer, codes)?;
        ops.norm_in_place(sublayer, &self.norm, spec.rms_norm_eps, shape);
        ops.add_scaled(normed, 1.0, shape, sublayer);
        ops.add_scaled(sublayer, 1.0, shape, x);
        ops.scale_and_cap(x, std::f32::consts::FRAC_1_SQRT_2, None, shape);
        Ok(())
    }
}

/// Weights of an MLP without a gate.
pub(crate) struct PlainMlp {
    /// hidden_size -> intermediate_size
    pub(crate) up: Linear,
    /// intermediate_size -> hidden_size
    pub(crate) down: Linear,
    /// The layer's own, instead of the model's
    pub(crate) activation: Option<Activation>,
}

impl PlainMlp {
    /// `out += down(act(up(x)))`; without `x` the input is `out`. Both are `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        activation: Activation,
        x: Option<&Rows<O>>,
        rows: usize,
        out: &mut Rows<O>,
        buffers: MlpBuffers<'_, O::Memory>,
    ) -> Result<()> {
        let MlpBuffers { activated, codes, .. } = buffers;
        let shape = Shape { rows, width: self.down.weight.k() };
        ops.linear(x.unwrap_or(out), rows, &self.up, Store::Overwrite, activated, codes)?;
        ops.activate(activated, self.activation.unwrap_or(activation), shape);
        ops.linear(activated, rows, &self.down, Store::Add, out, codes)
    }
}

impl DecoderSpec {
    /// Whether the result of a layer's half can be added to the residual stream as it is.
    pub(crate) fn adds_directly(&self, out_norm: Option<&Vec<f32>>) -> bool {
        out_norm.is_none() && self.residual_multiplier == 1.0
    }

    /// Whether some half of a layer needs a buffer for its result.
    pub(crate) fn needs_sublayer(&self) -> bool {
        let norms = self.names.attention_out_norm.or(self.names.mlp_out_norm);
        let inputs = self.per_layer_inputs.is_some();
        let moe = self.layers.iter().any(|layer| layer.moe);
        let more = self.low_rank.is_some() || self.streams.is_some();
        norms.is_some() || more || self.residual_multiplier != 1.0 || inputs || moe
    }
}

/// `x += norm(sublayer) * residual_multiplier`; without gains `sublayer` as it is. It is normed in place. Both are
/// `[rows, hidden_size]`.
pub(crate) fn join<O: Ops>(
    ops: &O,
    spec: &DecoderSpec,
    sublayer: &mut Rows<O>,
    gains: Option<&[f32]>,
    rows: usize,
    x: &mut Rows<O>,
) {
    let shape = Shape { rows, width: spec.hidden_size };
    if let Some(gains) = gains {
        ops.norm_in_place(sublayer, gains, spec.rms_norm_eps, shape);
    }
    ops.add_scaled(sublayer, spec.residual_multiplier, shape, x);
}
