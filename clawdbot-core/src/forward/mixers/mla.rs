//! Multi-head latent attention (DeepSeek-V2, section 2.1, <https://arxiv.org/abs/2405.04434>).
//!
//! The cache has one key per token for all heads: `k_rope` (rotated) and the latent `c`. A head's keys `W_k c` and values
//! `W_v c` are never computed. Instead, its query is projected to the space of `c`, and its result back:
//! ```text
//! q'_h = [q_rope_h ; W_k,h^T q_nope_h]     k' = [k_rope ; c]      v' = [0 ; c]
//! out_h = W_v,h (attention(q'_h, k', v') without its first part)
//! ```

use clawdbot_kernels::PackedMatrix;

use super::{MixContext, MixerWeights, ReadWeights};
use crate::cache::LayerState;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{Columns, HeadColumns, HeadOps, LatentInput, LayerRef, Ops, Rows, Shape, Store};
use crate::forward::scratch::MixerScratch;
use crate::spec::HeadShape;
use crate::spec::mixers::mla::{MlaNames, MlaSpec};

/// Epsilon of the norms of latents. As in transformers, it does not depend on `rms_norm_eps`.
const LATENT_EPS: f32 = 1e-6;

/// Weights of latent attention.
pub(crate) struct MlaWeights {
    /// hidden_size -> q_lora_rank (or queries), kv_lora_rank, qk_rope_head_dim
    pub(crate) down: Linear,
    /// `[q_lora_rank]`
    pub(crate) q_norm: Option<Vec<f32>>,
    /// q_lora_rank -> queries
    pub(crate) q_up: Option<Linear>,
    /// `[kv_lora_rank]`
    pub(crate) kv_norm: Vec<f32>,
    /// For each head: qk_nope_head_dim -> kv_lora_rank
    pub(crate) key_up: Vec<PackedMatrix>,
    /// For each head: kv_lora_rank -> v_head_dim
    pub(crate) value_up: Vec<PackedMatrix>,
}

impl MixerWeights for MlaWeights {
    type Spec = MlaSpec;
    type Names = MlaNames;

    fn read(_: &MlaSpec, _: LayerRef<'_>, names: &MlaNames, weights: &mut impl ReadWeights) -> Result<Self> {
        Ok(MlaWeights {
            down: weights.linear(&names.down)?,
            q_norm: weights.optional(names.q_norm.as_ref())?,
            q_up: weights.optional_linear(&names.q_up)?,
            kv_norm: weights.vector(&names.kv_norm)?,
            key_up: weights.matrices_of(&names.key_up)?,
            value_up: weights.matrices_of(&names.value_up)?,
        })
    }

    fn state(_: &MlaSpec, LayerRef { spec: model, layer }: LayerRef<'_>) -> LayerState {
        let HeadShape { num_key_value_heads: kv_heads, head_dim } = model.heads(layer);
        LayerState::Attention { window: model.layers[layer].window, kv_heads, head_dim }
    }

    fn wide_sizes(spec: &MlaSpec, LayerRef { spec: model, .. }: LayerRef<'_>) -> [usize; 5] {
        let heads = model.num_attention_heads;
        let queries = heads * (spec.qk_nope_head_dim + spec.qk_rope_head_dim).max(spec.v_head_dim);
        let down = spec.q_lora_rank.unwrap_or(queries) + spec.kv_lora_rank + spec.qk_rope_head_dim;
        let latent = (heads * model.head_dim).max(spec.q_lora_rank.unwrap_or(0));
        [down, queries, latent, 0, 0]
    }

    /// Inputs of the larger of a head's two projections.
    fn head_input(spec: &MlaSpec) -> usize {
        spec.qk_nope_head_dim.max(spec.kv_lora_rank)
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        let linears = std::iter::once(&self.down).chain(&self.q_up).map(|linear| &linear.weight);
        linears.chain(&self.key_up).chain(&self.value_up).collect()
    }

    fn forward<O: Ops>(
        &self,
        mla: &MlaSpec,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let layer = context.layer();
        let MixContext { ops, spec, cache, batch, plan, tables, scratch, codes, workspace, .. } = context;
        let MlaSpec { kv_lora_rank: rank, qk_nope_head_dim: nope, qk_rope_head_dim: rope, .. } = *mla;
        let (rows, heads, width) = (batch.rows(), spec.num_attention_heads, spec.head_dim);
        let MixerScratch { qkv, wide: [down, query_buffer, latent, ..] } = scratch;

        ops.linear(x, rows, &self.down, Store::Overwrite, down, codes)?;
        let stride = self.down.weight.n();
        let down = |first: usize| Columns { rows: &*down, stride, first };
        // Without a second projection, queries are the first columns of `down`.
        let queries = match (&self.q_norm, &self.q_up) {
            (Some(norm), Some(up)) => {
                ops.norm_columns(down(0), norm, LATENT_EPS, rows, latent);
                ops.linear(latent, rows, up, Store::Overwrite, query_buffer, codes)?;
                Columns { rows: &*query_buffer, stride: up.weight.n(), first: 0 }
            }
            _ => down(0),
        };
        let input = LatentInput {
            mla,
            heads,
            queries,
            latent: down(stride - rank - rope),
            kv_norm: &self.kv_norm,
            eps: LATENT_EPS,
        };
        ops.latent_heads(&input, rows, qkv);
        let columns = HeadColumns { columns: queries, step: nope + rope };
        ops.head_matmul(columns, rows, &self.key_up, latent, workspace)?;
        ops.place_latent_queries(latent, mla, heads, rows, qkv);
        let rotation = spec.layers[layer.layer].rope;
        let of_heads = HeadOps { layer, qk_norms: None, value_norm: None, tables, rope: rotation };
        ops.rotate_heads(of_heads, rows, qkv);
        ops.attend(layer, None, cache, batch, plan, qkv, latent, workspace)?;
        let columns = Columns { rows: &*latent, stride: heads * width, first: rope };
        let input = HeadColumns { columns, step: width };
        ops.head_matmul(input, rows, &self.value_up, query_buffer, workspace)?;
        ops.transpose_heads(query_buffer, heads, Shape { rows, width: mla.v_head_dim }, out);
        Ok(())
    }
}
