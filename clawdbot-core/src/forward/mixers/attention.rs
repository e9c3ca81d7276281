//! Attention: queries, keys and values of each token, with norms and rotations of heads, over the pages of the cache.

use clawdbot_kernels::PackedMatrix;

use super::{MixContext, MixerWeights, ReadWeights};
use crate::cache::LayerState;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{HeadOps, LayerRef, Ops, Rows, Shape, Store};
use crate::forward::scratch::MixerScratch;
use crate::spec::mixers::attention::{Attention, AttentionNames};
use crate::spec::{HeadShape, KeySource};

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

/// The norms of queries and keys without gains: ones, `[head_dim]`.
fn unit_norms(LayerRef { spec: model, layer }: LayerRef<'_>) -> Option<(Vec<f32>, Vec<f32>)> {
    let ones = vec![1.0; model.heads(layer).head_dim];
    let unit = model.qk_norm.is_some_and(|norm| !norm.gains) && model.layers[layer].qk_norm;
    unit.then(|| (ones.clone(), ones))
}

impl MixerWeights for AttentionWeights {
    type Spec = Attention;
    type Names = AttentionNames;

    fn read(
        _: &Attention,
        layer: LayerRef<'_>,
        names: &AttentionNames,
        weights: &mut impl ReadWeights,
    ) -> Result<Self> {
        let q_norm = weights.optional(names.q_norm.as_ref())?;
        // A layer without keys of its own has no norm for them, and no values either.
        let k_norm = weights.optional(names.k_norm.as_ref())?;
        Ok(AttentionWeights {
            qkv: weights.linear(&names.qkv)?,
            gate: weights.optional_linear(&names.gate)?,
            value_norm: k_norm.as_ref().filter(|_| layer.spec.value_norm).map(|k| vec![1.0; k.len()]),
            qk_norms: match q_norm {
                Some(q) => Some((q, k_norm.unwrap_or_default())),
                None => unit_norms(layer),
            },
            sinks: weights.optional(names.sinks.as_ref())?,
        })
    }

    fn state(_: &Attention, LayerRef { spec: model, layer: index }: LayerRef<'_>) -> LayerState {
        let layer = &model.layers[index];
        let HeadShape { num_key_value_heads: kv_heads, head_dim } = model.heads(index);
        match layer.keys {
            KeySource::Layer(layer) => LayerState::Shared { layer },
            // An encoder's pass has whole sequences, and no later pass reads their keys: all layers share one layer's pages.
            _ if model.bidirectional && index > 0 => LayerState::Shared { layer: 0 },
            _ if model.bidirectional => LayerState::Attention { window: None, kv_heads, head_dim },
            _ => LayerState::Attention { window: layer.window, kv_heads, head_dim },
        }
    }

    /// Queries, keys and values that are computed in parts, or the gate.
    fn wide_sizes(_: &Attention, LayerRef { spec: model, layer }: LayerRef<'_>) -> [usize; 5] {
        match model.layers[layer].keys {
            KeySource::Own if !model.attention.gate => [0; 5],
            _ => [model.qkv_size(layer), 0, 0, 0, 0],
        }
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        std::iter::once(&self.qkv).chain(&self.gate).map(|linear| &linear.weight).collect()
    }

    fn forward<O: Ops>(
        &self,
        _: &Attention,
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
