//! Attention: queries, keys and values of each token, with norms and rotations of heads, over the pages of the cache.

use clawdbot_kernels::PackedMatrix;

use super::MixContext;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{HeadOps, Ops, Rows, Shape, Store};
use crate::forward::scratch::MixerScratch;

/// Weights of attention.
pub(crate) struct AttentionWeights {
    /// hidden_size -> queries, keys, values; without those that the layer shares
    pub(crate) qkv: Linear,
    /// hidden_size -> heads * head_dim
    pub(crate) gate: Option<Linear>,
    /// Norms of queries and keys: `[head_dim]` each, or over all heads
    pub(crate) qk_norms: Option<(Vec<f32>, Vec<f32>)>,
    /// Ones, `[head_dim]`, where values are normed
    pub(crate) value_norm: Option<Vec<f32>>,
    /// `[heads]`
    pub(crate) sinks: Option<Vec<f32>>,
}

impl AttentionWeights {
    /// Packed matrices, in the order of `MixerNames::packed`.
    pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
        std::iter::once(&self.qkv).chain(&self.gate).map(|linear| &linear.weight).collect()
    }

    /// See [`crate::forward::mixers::Mixer::forward`].
    pub(crate) fn forward<O: Ops>(
        &self,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let layer = context.layer();
        let MixContext { ops, spec, cache, batch, plan, tables, scratch, codes, workspace, .. } = context;
        let (rows, rope) = (batch.rows(), spec.layers[layer.layer].rope);
        let MixerScratch { qkv, wide: [own, ..] } = scratch;
        let width = self.qkv.weight.n();
        if width == spec.qkv_size(layer.layer) {
            ops.linear(x, rows, &self.qkv, Store::Overwrite, qkv, codes)?;
        } else {
            ops.linear(x, rows, &self.qkv, Store::Overwrite, own, codes)?;
            ops.complete_heads(own, width, layer, rows, qkv);
        }
        if rope.is_some() || self.qk_norms.is_some() || self.value_norm.is_some() {
            let (qk_norms, value_norm) = (self.qk_norms.as_ref(), self.value_norm.as_deref());
            ops.rotate_heads(HeadOps { layer, qk_norms, value_norm, tables, rope }, rows, qkv);
        }
        ops.attend(layer, self.sinks.as_deref(), cache, batch, plan, qkv, out, workspace)?;
        let Some(gate) = &self.gate else { return Ok(()) };
        let gates = own;
        ops.linear(x, rows, gate, Store::Overwrite, gates, codes)?;
        ops.sigmoid_mul(gates, Shape { rows, width: gate.weight.n() }, out);
        Ok(())
    }
}
