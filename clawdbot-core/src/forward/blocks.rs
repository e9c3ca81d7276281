//! What a layer is put together from: MLPs, and how the results of a layer's halves are added to the residual stream.

use super::linear::{GatedMlp, Linear};
use super::moe::MoeWeights;
use super::ops::{MlpBuffers, Ops, Rows, Shape, Store};
use crate::error::Result;
use crate::spec::{Activation, DecoderSpec};

/// The second half of a layer.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
pub(crate) enum Mlp {
    Dense(GatedMlp),
    Plain(PlainMlp),
    Moe(Box<MoeWeights>),
    /// The layer has none.
    None,
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
        norms.is_some() || self.residual_multiplier != 1.0 || inputs || moe
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
