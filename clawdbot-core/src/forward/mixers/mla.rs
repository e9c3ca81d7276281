//! Multi-head latent attention (DeepSeek-V2, section 2.1, <https://arxiv.org/abs/2405.04434>).
//!
//! What is cached of a token is one key for all heads: `k_rope` (rotated) and the latent `c`. A head's keys `W_k c` and
//! values `W_v c` are never made: its query is taken to the space of `c` instead, and its result back from there:
//! ```text
//! q'_h = [q_rope_h ; W_k,h^T q_nope_h]     k' = [k_rope ; c]      v' = [0 ; c]
//! out_h = W_v,h (attention(q'_h, k', v') without its first part)
//! ```

use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Epilogue, PackedMatrix};

use super::MixContext;
use crate::error::{Error, Result};
use crate::forward::attention::{AttendBuffers, attend};
use crate::forward::decoder::{Linear, Ops};
use crate::forward::rope::rotate_heads;
use crate::forward::scratch::{HeadScratch, MixerScratch};
use crate::spec::{DecoderSpec, MlaSpec};

/// Added to the mean square in the norms of latents, whatever the configuration says of others, as in transformers.
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
    /// Of each head: qk_nope_head_dim -> kv_lora_rank
    pub(crate) key_up: Vec<PackedMatrix>,
    /// Of each head: kv_lora_rank -> v_head_dim
    pub(crate) value_up: Vec<PackedMatrix>,
}

impl MlaSpec {
    /// See [`DecoderSpec::wide_sizes`].
    pub(crate) fn wide_sizes(&self, spec: &DecoderSpec) -> [usize; 5] {
        let heads = spec.num_attention_heads;
        let queries = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim).max(self.v_head_dim);
        let down = self.q_lora_rank.unwrap_or(queries) + self.kv_lora_rank + self.qk_rope_head_dim;
        let latent = (heads * spec.head_dim).max(self.q_lora_rank.unwrap_or(0));
        [down, queries, latent, 0, 0]
    }

    /// Elements per row of the inputs of a head's projections.
    pub(crate) fn head_input(&self) -> usize {
        self.qk_nope_head_dim.max(self.kv_lora_rank)
    }
}

impl MlaWeights {
    /// Packed matrices, in the order of `MixerNames::packed`.
    pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
        let linears = std::iter::once(&self.down).chain(&self.q_up).map(|linear| &linear.weight);
        linears.chain(&self.key_up).chain(&self.value_up).collect()
    }

    /// See [`crate::forward::mixers::Mixer::forward`].
    pub(crate) fn forward(&self, context: &mut MixContext<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, plan, tables, scratch, quantized } = context;
        let mla = spec.mla.ok_or_else(|| Error::internal("latent attention without sizes"))?;
        let MlaSpec { kv_lora_rank: rank, qk_nope_head_dim: nope, qk_rope_head_dim: rope, .. } = mla;
        let (rows, heads, width) = (batch.rows(), spec.num_attention_heads, spec.head_dim);
        let MixerScratch { qkv, workspaces, wide, heads: of_heads } = &mut **scratch;
        let [down, query_buffer, latent, ..] = wide;

        let down_size = self.down.weight.n();
        let down = &mut down[..rows * down_size];
        ops.linear(x, rows, &self.down, down, false, quantized)?;
        let down = &*down;
        // Queries stand at the beginning of each row of `down`, or, with a projection in between, in rows of their own.
        let (queries, query_size) = match (&self.q_norm, &self.q_up) {
            (Some(norm), Some(up)) => {
                let normed = &mut latent[..rows * norm.len()];
                ops.by_rows(normed, norm.len(), |row, out| {
                    ops.kernels.rms_norm(&down[row * down_size..][..norm.len()], norm, LATENT_EPS, out);
                });
                let queries = &mut query_buffer[..rows * up.weight.n()];
                ops.linear(normed, rows, up, queries, false, quantized)?;
                (&*queries, up.weight.n())
            }
            _ => (down, down_size),
        };

        let row_size = spec.qkv_size(*layer);
        let qkv = &mut qkv[..rows * row_size];
        ops.by_rows(qkv, row_size, |row, out| {
            let (q, kv) = out.split_at_mut(heads * width);
            let from = queries[row * query_size..].chunks_exact(nope + rope);
            for (q, from) in q.chunks_exact_mut(width).zip(from) {
                q[..rope].copy_from_slice(&from[nope..]);
            }
            let from = &down[(row + 1) * down_size - rank - rope..][..rank + rope];
            let (key, value) = kv.split_at_mut(width);
            key[..rope].copy_from_slice(&from[rank..]);
            ops.kernels.rms_norm(&from[..rank], &self.kv_norm, LATENT_EPS, &mut key[rope..]);
            value[..rope].fill(0.0);
            value[rope..].copy_from_slice(&key[rope..]);
        });
        let input = HeadColumns { data: queries, stride: query_size, step: nope + rope, first: 0 };
        let taken = &mut latent[..heads * rows * rank];
        input.multiply(ops, rows, &self.key_up, taken, of_heads)?;
        let rotation = spec.layers[*layer].rope;
        ops.by_rows(qkv, row_size, |row, out| {
            for (head, out) in out[..heads * width].chunks_exact_mut(width).enumerate() {
                out[rope..].copy_from_slice(&taken[(head * rows + row) * rank..][..rank]);
            }
            rotate_heads(ops.kernels, (spec, *layer), None, tables.row(rotation, row), out);
        });
        let latent = &mut latent[..rows * heads * width];
        let buffers = AttendBuffers { qkv, out: latent, workspaces };
        attend(ops, (spec, *layer, None), cache, (batch, plan), buffers)?;
        let size = mla.v_head_dim;
        let input = HeadColumns { data: latent, stride: heads * width, step: width, first: rope };
        let values = &mut query_buffer[..heads * rows * size];
        input.multiply(ops, rows, &self.value_up, values, of_heads)?;
        ops.by_rows(out, heads * size, |row, out| {
            for (head, out) in out.chunks_exact_mut(size).enumerate() {
                out.copy_from_slice(&values[(head * rows + row) * size..][..size]);
            }
        });
        Ok(())
    }
}

/// Columns of rows of `stride`, as many for each head as its matrix has inputs: those of head `h` from `h * step + first` on.
struct HeadColumns<'a> {
    data: &'a [f32],
    stride: usize,
    step: usize,
    first: usize,
}

impl HeadColumns<'_> {
    /// Their products with the heads' matrices, `[heads, rows, n]`. A head is too little for all threads: each has some.
    fn multiply(
        &self,
        ops: &Ops<'_>,
        rows: usize,
        weights: &[PackedMatrix],
        out: &mut [f32],
        scratch: &mut [HeadScratch],
    ) -> Result<()> {
        let share = weights.len().div_ceil(scratch.len().max(1)).max(1);
        let of_share = share * out.len() / weights.len().max(1);
        let mut tasks: Vec<(&mut [f32], &mut HeadScratch, Result<()>)> =
            out.chunks_mut(of_share).zip(scratch).map(|(out, scratch)| (out, scratch, Ok(()))).collect();
        let (kernels, stop) = (ops.kernels, ops.region.stop());
        ops.region.parallel_chunks_mut(&mut tasks, 1, |index, tasks| {
            let region = Region::alone(stop);
            let ops = Ops { kernels, region: &region, adapters: None };
            for (out, scratch, outcome) in tasks {
                *outcome = self.multiply_share(&ops, rows, (weights, index * share), out, scratch);
            }
        });
        tasks.into_iter().try_for_each(|(.., outcome)| outcome)
    }

    /// Of the heads from the given one on, as many as `out` has room for.
    fn multiply_share(
        &self,
        ops: &Ops<'_>,
        rows: usize,
        (weights, from): (&[PackedMatrix], usize),
        out: &mut [f32],
        HeadScratch { input, quantized }: &mut HeadScratch,
    ) -> Result<()> {
        let mut rest = out;
        for (head, weight) in weights.iter().enumerate().skip(from) {
            let Some((out, others)) = rest.split_at_mut_checked(rows * weight.n()) else { break };
            rest = others;
            let k = weight.k();
            let input = &mut input[..rows * k];
            for (row, to) in input.chunks_exact_mut(k).enumerate() {
                let from = row * self.stride + head * self.step + self.first;
                to.copy_from_slice(&self.data[from..][..k]);
            }
            ops.matmul(input, rows, weight, out, Epilogue::default(), quantized)?;
        }
        Ok(())
    }
}
