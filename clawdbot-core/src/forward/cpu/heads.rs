//! Rows of query, key and value heads: completed, normed and rotated; and those of latent attention.

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Epilogue, HeadNorms, KernelSet, PackedMatrix, QuantizedRows, RotateArgs};

use super::Cpu;
use super::products::matmul as product;
use crate::error::Result;
use crate::forward::ops::{HeadColumns, HeadOps, LatentInput, LayerRef};
use crate::forward::rope::Rotation;
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::{HeadShape, KeySource};

type Values = AlignedBuf<f32>;

/// Buffers of the product of a head's rows with its matrix.
#[derive(Default)]
pub(super) struct HeadScratch {
    /// `[rows, inputs]`
    input: Values,
    codes: QuantizedRows,
}

impl HeadScratch {
    pub(super) fn reserve(&mut self, len: usize) -> Result<()> {
        Ok(self.input.reserve(len)?)
    }
}

/// See [`crate::forward::ops::Ops::complete_heads`].
pub(super) fn complete(
    cpu: &Cpu<'_>,
    x: &[f32],
    width: usize,
    layer: LayerRef<'_>,
    rows: usize,
    qkv: &mut [f32],
) {
    let LayerRef { spec, layer } = layer;
    let (size, HeadShape { num_key_value_heads, head_dim }) = (spec.qkv_size(layer), spec.heads(layer));
    let keys_as_values = spec.layers[layer].keys == KeySource::KeysAsValues;
    cpu.by_rows(&mut qkv[..rows * size], size, |row, out| {
        let own = &x[row * width..][..width];
        out[..width].copy_from_slice(own);
        if keys_as_values {
            out[width..].copy_from_slice(&own[width - num_key_value_heads * head_dim..]);
        }
    });
}

/// See [`crate::forward::ops::Ops::rotate_heads`].
pub(super) fn rotate(cpu: &Cpu<'_>, heads: HeadOps<'_>, rows: usize, qkv: &mut [f32]) {
    let LayerRef { spec, layer } = heads.layer;
    let size = spec.qkv_size(layer);
    cpu.by_rows(&mut qkv[..rows * size], size, |row, out| {
        if let Some(ones) = heads.value_norm {
            let values = size - spec.heads(layer).num_key_value_heads * ones.len();
            for value in out[values..].chunks_exact_mut(ones.len()) {
                cpu.kernels.norm_in_place(value, ones, spec.rms_norm_eps);
            }
        }
        rotate_row(cpu.kernels, heads, heads.tables.row(heads.rope, row), out);
    });
}

/// Norms (where the family has them) and rotates the query and key heads of one token, in place.
///
/// `row` is `[num_attention_heads + 2 num_key_value_heads, head_dim]`: queries, keys, values, as in the layer; without
/// keys of its own it has queries alone.
fn rotate_row(kernels: &KernelSet, heads: HeadOps<'_>, rotation: Rotation<'_>, row: &mut [f32]) {
    let LayerRef { spec, layer } = heads.layer;
    let HeadShape { num_key_value_heads, head_dim } = spec.heads(layer);
    let queries = spec.num_attention_heads;
    let keys = if matches!(spec.layers[layer].keys, KeySource::Layer(_)) { 0 } else { num_key_value_heads };
    let norms = heads.qk_norms.zip(spec.qk_norm);
    let mut norms = norms.map(|((queries, keys), norm)| HeadNorms { queries, keys, eps: norm.eps });
    let after = norms.take_if(|_| spec.qk_norm.is_some_and(|norm| norm.rotated));
    let row = &mut row[..(queries + keys) * head_dim];
    if spec.qk_norm.is_some_and(|norm| norm.whole)
        && let Some(norms) = norms.take()
    {
        let (queries, keys) = row.split_at_mut(queries * head_dim);
        kernels.norm_in_place(queries, norms.queries, norms.eps);
        kernels.norm_in_place(keys, norms.keys, norms.eps);
    }
    let Rotation { cos, sin, pairs, scale } = rotation;
    kernels.rotate_heads(RotateArgs { heads: row, head_dim, queries, norms, cos, sin, pairs });
    if let Some(HeadNorms { queries: of_queries, keys, eps }) = after {
        for (i, head) in row.chunks_exact_mut(head_dim).enumerate() {
            kernels.norm_in_place(head, if i < queries { of_queries } else { keys }, eps);
        }
    }
    if let Some(scale) = scale {
        kernels.scale_and_cap(scale, None, &mut row[..queries * head_dim]);
    }
}

/// See [`crate::forward::ops::Ops::latent_heads`].
pub(super) fn latent(cpu: &Cpu<'_>, input: &LatentInput<'_, Values>, rows: usize, qkv: &mut [f32]) {
    let MlaSpec { kv_lora_rank: rank, qk_nope_head_dim: nope, qk_rope_head_dim: rope, .. } = *input.mla;
    let (heads, width) = (input.heads, rank + rope);
    let size = (heads + 2) * width;
    cpu.by_rows(&mut qkv[..rows * size], size, |row, out| {
        let (q, kv) = out.split_at_mut(heads * width);
        let from = input.queries.of_row(row, heads * (nope + rope)).chunks_exact(nope + rope);
        for (q, from) in q.chunks_exact_mut(width).zip(from) {
            q[..rope].copy_from_slice(&from[nope..]);
        }
        let from = input.latent.of_row(row, rank + rope);
        let (key, value) = kv.split_at_mut(width);
        key[..rope].copy_from_slice(&from[rank..]);
        cpu.kernels.rms_norm(&from[..rank], input.kv_norm, input.eps, &mut key[rope..]);
        value[..rope].fill(0.0);
        value[rope..].copy_from_slice(&key[rope..]);
    });
}

/// See [`crate::forward::ops::Ops::place_latent_queries`].
pub(super) fn place_latent_queries(
    cpu: &Cpu<'_>,
    queries: &[f32],
    mla: &MlaSpec,
    heads: usize,
    rows: usize,
    qkv: &mut [f32],
) {
    let (rank, rope) = (mla.kv_lora_rank, mla.qk_rope_head_dim);
    let width = rank + rope;
    let size = (heads + 2) * width;
    cpu.by_rows(&mut qkv[..rows * size], size, |row, out| {
        for (head, out) in out[..heads * width].chunks_exact_mut(width).enumerate() {
            out[rope..].copy_from_slice(&queries[(head * rows + row) * rank..][..rank]);
        }
    });
}

/// See [`crate::forward::ops::Ops::head_matmul`]. A head is too little work for all threads, so each thread
/// computes some heads.
pub(super) fn matmul(
    cpu: &Cpu<'_>,
    input: HeadColumns<'_, Values>,
    rows: usize,
    weights: &[PackedMatrix],
    out: &mut [f32],
    scratch: &mut [HeadScratch],
) -> Result<()> {
    let out = &mut out[..rows * weights.iter().map(PackedMatrix::n).sum::<usize>()];
    let share = weights.len().div_ceil(scratch.len().max(1)).max(1);
    let of_share = share * out.len() / weights.len().max(1);
    let mut tasks: Vec<Share<'_>> = out
        .chunks_mut(of_share)
        .zip(scratch)
        .map(|(out, scratch)| Share { out, scratch, outcome: Ok(()) })
        .collect();
    let (kernels, stop) = (cpu.kernels, cpu.region.stop());
    let input = &input;
    cpu.region.parallel_chunks_mut(&mut tasks, 1, |index, shares| {
        let region = Region::alone(stop);
        let cpu = Cpu { kernels, region: &region, adapters: None, watcher: None };
        for share_of in shares {
            share_of.outcome = share_of.multiply(&cpu, input, rows, weights, index * share);
        }
    });
    tasks.into_iter().try_for_each(|share| share.outcome)
}

/// The products of some heads.
struct Share<'a> {
    /// `[heads, rows, n]`
    out: &'a mut [f32],
    scratch: &'a mut HeadScratch,
    outcome: Result<()>,
}

impl Share<'_> {
    /// Computes the products of the heads from `first` on, as many as fit into `out`.
    fn multiply(
        &mut self,
        cpu: &Cpu<'_>,
        input: &HeadColumns<'_, Values>,
        rows: usize,
        weights: &[PackedMatrix],
        first: usize,
    ) -> Result<()> {
        let HeadScratch { input: gathered, codes } = &mut *self.scratch;
        let mut rest = &mut *self.out;
        for (head, weight) in weights.iter().enumerate().skip(first) {
            let Some((out, others)) = rest.split_at_mut_checked(rows * weight.n()) else { break };
            rest = others;
            let k = weight.k();
            let gathered = &mut gathered[..rows * k];
            for (row, to) in gathered.chunks_exact_mut(k).enumerate() {
                let from = row * input.columns.stride + input.columns.first + head * input.step;
                to.copy_from_slice(&input.columns.rows[from..][..k]);
            }
            product(cpu, gathered, rows, weight, out, Epilogue::default(), codes)?;
        }
        Ok(())
    }
}
