//! The decoder: one forward pass for every family that [`DecoderSpec`] describes.
//!
//! ```text
//! x = embedding[token]
//! each layer:  x += o_proj(attention(rope(qkv_proj(norm(x)))))
//!              x += down_proj(act(gate_proj(norm(x))) * up_proj(norm(x)))      or experts
//! logits = lm_head(norm(x))      for the rows that are asked for
//! ```
//! Families differ in where the norms are and what is multiplied with what: `blocks.rs`. An encoder adds positions to the
//! embedding, lets tokens see each other both ways, norms the sums, and gives states instead of logits.
//!
//! Every row's result depends on its own sequence alone: the same bits in any batch, chunking and thread count.

use clawdbot_kernels::memory::zeros;
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Added, Epilogue, KernelSet, Lhs, PackedMatrix, QuantizedRows, gemm_columns};

use super::attention::WritePlan;
use super::batch::Batch;
use super::blocks::{GatedMlp, Mlp, norm_row};
use super::layer_inputs::{LayerInput, LayerInputs};
use super::mixers::{MixContext, Mixer};
use super::rope::RopeTables;
use super::scratch::Scratch;
use crate::cache::KvCache;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::BatchAdapters;
use crate::spec::{DecoderSpec, HeadShape};

impl DecoderSpec {
    /// Elements of a token's queries, keys and values in layer `layer`.
    pub(crate) fn qkv_size(&self, layer: usize) -> usize {
        let HeadShape { num_key_value_heads, head_dim } = self.heads(layer);
        (self.num_attention_heads + 2 * num_key_value_heads) * head_dim
    }

    /// Bytes of all norms and biases, and of the small matrices that stay in f32.
    pub(crate) fn vectors_bytes(&self) -> u64 {
        self.tensors().vectors().map(|vector| 4 * vector.padded_len() as u64).sum()
    }
}

/// A matrix with its bias.
pub(crate) struct Linear {
    /// Name of the first of the tensors that it was packed from: what adapters know it by.
    pub(crate) name: String,
    pub(crate) weight: PackedMatrix,
    /// `[n]`
    pub(crate) bias: Option<Vec<f32>>,
}

/// Weights of one layer. Matrices that read the same input are packed side by side. Norms are `[hidden_size]`, and there as
/// the family has them, see `Names`.
pub(crate) struct DecoderLayer {
    /// Before attention
    pub(crate) input_norm: Option<Vec<f32>>,
    pub(crate) mixer: Mixer,
    /// To the residual stream
    pub(crate) o: Linear,
    /// Of what attention gives
    pub(crate) attention_out_norm: Option<Vec<f32>>,
    /// Of the sum with it
    pub(crate) attention_sum_norm: Option<Vec<f32>>,
    /// Before the MLP
    pub(crate) mlp_norm: Option<Vec<f32>>,
    pub(crate) mlp: Mlp,
    /// Of what the MLP gives
    pub(crate) mlp_out_norm: Option<Vec<f32>>,
    /// Of the sum with it
    pub(crate) mlp_sum_norm: Option<Vec<f32>>,
    /// Behind the MLP
    pub(crate) input: Option<LayerInput>,
    /// What the residual stream is multiplied with in the end
    pub(crate) scalar: Option<f32>,
}

impl DecoderLayer {
    /// Packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
        let mut matrices = self.mixer.matrices();
        matrices.push(&self.o.weight);
        let mlps: Vec<&GatedMlp> = match &self.mlp {
            Mlp::Dense(mlp) => vec![mlp],
            Mlp::Plain(mlp) => {
                matrices.extend([&mlp.up.weight, &mlp.down.weight]);
                Vec::new()
            }
            Mlp::Moe(moe) => {
                let dense = moe.parallel_mlp.as_ref().map(|parallel_mlp| &parallel_mlp.dense);
                moe.experts.iter().chain(&moe.shared).chain(dense).collect()
            }
        };
        for mlp in mlps {
            matrices.extend([&mlp.gate_up.weight, &mlp.down.weight]);
        }
        if let Some(input) = &self.input {
            matrices.extend([&input.gate.weight, &input.projection.weight]);
        }
        matrices
    }
}

/// What is added to rows of the embedding, see `InputSpec`.
pub(crate) struct InputTables {
    /// `[positions, hidden_size]`
    pub(crate) positions: Option<Vec<f32>>,
    /// `[token types, hidden_size]`
    pub(crate) token_types: Option<Vec<f32>>,
    pub(crate) norm: Option<Vec<f32>>,
}

/// A layer after pooling, in f32.
pub(crate) struct Dense {
    pub(crate) linear: Linear,
    pub(crate) norm: Option<Vec<f32>>,
}

/// All weights of a model, packed.
pub(crate) struct Decoder {
    pub(crate) spec: DecoderSpec,
    /// `[vocab_size, hidden_size]`; the output layer too when the embeddings are tied
    pub(crate) embedding: PackedMatrix,
    pub(crate) input: InputTables,
    pub(crate) layer_inputs: Option<LayerInputs>,
    pub(crate) layers: Vec<DecoderLayer>,
    /// `[hidden_size]`
    pub(crate) norm: Option<Vec<f32>>,
    /// hidden_size -> vocab_size; `None` when tied
    pub(crate) lm_head: Option<PackedMatrix>,
    /// One for each of `DecoderSpec::dense_head`
    pub(crate) dense_head: Vec<Dense>,
}

/// What a forward pass computes with.
pub(crate) struct ForwardContext<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) region: &'a Region<'a>,
    pub(crate) cache: &'a mut KvCache,
    pub(crate) scratch: &'a mut Scratch,
    #[cfg(test)]
    pub(crate) trap: Option<&'a crate::forward::trap::Trap>,
}

/// How a forward pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// `scratch.logits` holds the logits asked for, `scratch.last` the states, and the cache the new keys and values.
    Done,
    /// The pass was abandoned; the cache rows of the batch's tokens are unspecified.
    Cancelled,
}

impl Decoder {
    /// Runs `batch` through all layers and leaves the logits in `scratch.logits`, `[logits_rows, vocab_size]`, and in
    /// `scratch.last` the states after the last norm, `[state_rows, hidden_size]`. The region's `Stop` abandons the pass:
    /// within a layer, no further task begins.
    ///
    /// # Errors
    /// `OutOfBudget` when scratch memory cannot be had.
    pub(crate) fn forward(&self, context: &mut ForwardContext<'_>, batch: &Batch<'_>) -> Result<Pass> {
        let spec = &self.spec;
        let (rows, hidden) = (batch.rows(), spec.hidden_size);
        let wanted = (batch.logits_rows.len(), batch.state_rows.len());
        context.scratch.reserve(spec, rows, wanted, context.region.threads())?;
        let plan = WritePlan::new(context.cache, batch)?;
        context.scratch.reserve_adapters(rows, &batch.adapters)?;
        let Scratch {
            hidden: x,
            normed,
            mixer,
            mixed,
            sublayer,
            mlp,
            moe,
            inputs,
            rope,
            last,
            logits,
            quantized,
            adapters,
        } = &mut *context.scratch;
        let adapters = BatchAdapters::new(&batch.adapters, adapters);
        let ops = Ops { kernels: context.kernels, region: context.region, adapters: adapters.as_ref() };
        let mut x = &mut x[..rows * hidden];
        let mut normed = &mut normed[..rows * hidden];
        let sublayer = &mut sublayer[..if spec.needs_sublayer() { rows * hidden } else { 0 }];

        let kernels = ops.kernels;
        ops.by_rows(x, hidden, |row, out| {
            self.embedding.read_row(kernels, batch.tokens[row] as usize, out);
            if spec.embedding_multiplier != 1.0 {
                kernels.scale_and_cap(spec.embedding_multiplier, None, out);
            }
            self.add_tables(kernels, batch, row, out);
        });
        if let Some(norm) = &self.input.norm {
            ops.input(spec, x, Some(norm), normed);
            std::mem::swap(&mut x, &mut normed);
        }
        if let Some(weights) = &self.layer_inputs {
            weights.forward(&ops, spec, batch, x, inputs, quantized)?;
        }
        let tables = RopeTables::fill(&spec.ropes, batch, rope);

        for (index, layer) in self.layers.iter().enumerate() {
            if ops.region.stop().is_set() {
                return Ok(Pass::Cancelled);
            }
            let input = match &layer.input_norm {
                Some(gains) => {
                    ops.input(spec, x, Some(gains), normed);
                    &*normed
                }
                None => &*x,
            };
            let mixed = &mut mixed[..rows * layer.o.weight.k()];
            let mut mix = MixContext {
                ops: &ops,
                spec,
                layer: index,
                cache: &mut *context.cache,
                batch,
                plan: &plan,
                tables: &tables,
                scratch: &mut *mixer,
                quantized: &mut *quantized,
            };
            layer.mixer.forward(&mut mix, input, mixed)?;
            #[cfg(test)]
            context.trap.map_or(Ok(()), |trap| trap(crate::forward::trap::Place::Layer(index)))?;
            if spec.adds_directly(layer.attention_out_norm.as_ref()) {
                ops.linear(mixed, rows, &layer.o, x, true, quantized)?;
            } else {
                ops.linear(mixed, rows, &layer.o, sublayer, false, quantized)?;
                ops.join(spec, sublayer, layer.attention_out_norm.as_deref(), x);
            }

            if let Some(gains) = &layer.attention_sum_norm {
                ops.input(spec, x, Some(gains), normed);
                std::mem::swap(&mut x, &mut normed);
            }

            // A plain MLP may read the stream itself, and a parallel block's reads what its attention read.
            let itself = layer.mlp_norm.is_none() && matches!(layer.mlp, Mlp::Plain(_));
            if layer.mlp_norm.is_some() || (layer.input_norm.is_none() && !itself) {
                ops.input(spec, x, layer.mlp_norm.as_deref(), normed);
            }
            let direct = spec.adds_directly(layer.mlp_out_norm.as_ref());
            match &layer.mlp {
                Mlp::Dense(weights) => {
                    let mut buffers = mlp.buffers(quantized);
                    let out = if direct { (&mut *x, true) } else { (&mut *sublayer, false) };
                    weights.forward(&ops, spec.activation, (normed, rows), out, &mut buffers)?;
                }
                Mlp::Plain(weights) => {
                    let mut buffers = mlp.buffers(quantized);
                    let input = (!itself).then_some(&*normed);
                    weights.forward(&ops, spec.activation, (input, rows), (&mut *x, true), &mut buffers)?;
                }
                Mlp::Moe(weights) => {
                    weights.forward(&ops, spec, (x, normed, rows), sublayer, (mlp, moe), quantized)?;
                }
            }
            if !direct || matches!(layer.mlp, Mlp::Moe(_)) {
                ops.join(spec, sublayer, layer.mlp_out_norm.as_deref(), x);
            }
            if let Some(gains) = &layer.mlp_sum_norm {
                ops.input(spec, x, Some(gains), normed);
                std::mem::swap(&mut x, &mut normed);
            }
            if let Some(input) = &layer.input {
                input.forward(&ops, (spec, index), (x, rows), sublayer, inputs, quantized)?;
            }
            if let Some(scalar) = layer.scalar {
                ops.by_rows(x, hidden, |_, row| ops.kernels.scale_and_cap(scalar, None, row));
            }
        }
        let wanted = &batch.logits_rows;
        let (states, last) = last.split_at_mut(batch.state_rows.len() * hidden);
        let last = &mut last[..wanted.len() * hidden];
        for (out, rows) in [(states, &batch.state_rows), (&mut *last, wanted)] {
            ops.by_rows(out, hidden, |row, out| {
                let x = &x[rows[row] * hidden..][..hidden];
                match &self.norm {
                    Some(gains) => norm_row(kernels, spec, x, gains, out),
                    None => out.copy_from_slice(x),
                }
            });
        }
        if wanted.is_empty() {
            return Ok(ops.outcome());
        }
        let logits = &mut logits[..wanted.len() * spec.vocab_size];
        let head = self.lm_head.as_ref().unwrap_or(&self.embedding);
        ops.matmul(last, wanted.len(), head, logits, Epilogue::default(), quantized)?;
        if spec.logit_scale != 1.0 || spec.final_logit_softcapping.is_some() {
            ops.by_rows(logits, spec.vocab_size, |_, row| {
                ops.kernels.scale_and_cap(spec.logit_scale, spec.final_logit_softcapping, row);
            });
        }
        Ok(ops.outcome())
    }
}

impl Decoder {
    /// Adds to a row of the embedding what belongs to its position and kind.
    fn add_tables(&self, kernels: &KernelSet, batch: &Batch<'_>, row: usize, out: &mut [f32]) {
        let hidden = self.spec.hidden_size;
        let first = self.spec.input.positions.map_or(0, |positions| positions.first);
        let token_type = batch.token_types.get(row).map_or(0, |&token_type| token_type as usize);
        let tables =
            [(&self.input.token_types, token_type), (&self.input.positions, first + batch.positions[row])];
        for (table, index) in tables {
            if let Some(table) = table {
                kernels.add_scaled(&table[index * hidden..][..hidden], 1.0, out);
            }
        }
    }

    /// What becomes of pooled states, `[rows, hidden_size]`: `[rows, pooled_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn finish_pooled(&self, ops: &Ops<'_>, states: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        let (mut x, mut quantized) = (states, QuantizedRows::default());
        for (spec, dense) in self.spec.dense_head.iter().zip(&self.dense_head) {
            let mut out = zeroed_rows(rows, spec.outputs)?;
            ops.linear(&x, rows, &dense.linear, &mut out, false, &mut quantized)?;
            if let Some(activation) = spec.activation {
                ops.by_rows(&mut out, spec.outputs, |_, row| ops.kernels.activate_in_place(activation, row));
            }
            if let Some(gains) = &dense.norm {
                x = zeroed_rows(rows, spec.outputs)?;
                let rows = out.chunks_exact(spec.outputs).zip(x.chunks_exact_mut(spec.outputs));
                rows.for_each(|(row, normed)| norm_row(ops.kernels, &self.spec, row, gains, normed));
            } else {
                x = out;
            }
        }
        Ok(x)
    }
}

/// Room for `rows` rows of `width`.
///
/// # Errors
/// `OutOfBudget` without memory.
pub(crate) fn zeroed_rows(rows: usize, width: usize) -> Result<Vec<f32>> {
    rows.checked_mul(width).and_then(zeros).ok_or_else(|| {
        Error::new(ErrorKind::OutOfBudget, format!("there is no memory for {rows} rows of {width} floats"))
    })
}

/// The operations the decoder is written in, on the threads of a region.
pub(crate) struct Ops<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) region: &'a Region<'a>,
    /// Of the batch's rows.
    pub(crate) adapters: Option<&'a BatchAdapters<'a>>,
}

impl Ops<'_> {
    /// Of a pass whose last task was handed out.
    fn outcome(&self) -> Pass {
        if self.region.stop().is_set() { Pass::Cancelled } else { Pass::Done }
    }

    /// Calls `f(row, values)` for each row of `data` (`[rows, width]`), some rows at a time on each thread.
    pub(crate) fn by_rows(&self, data: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = data.len() / width;
        let chunk = rows.div_ceil(4 * self.region.threads()).max(1);
        // Few rows are done sooner than another thread starts.
        let chunk = if rows < 4 { rows.max(1) } else { chunk };
        self.region.parallel_chunks_mut(data, chunk * width, |index, part| {
            for (offset, values) in part.chunks_exact_mut(width).enumerate() {
                f(index * chunk + offset, values);
            }
        });
    }

    /// `out = x * weight + bias`, or `out += ...` with `residual`, and what adapters add. `x` is `[rows, k]`, `out` is `[rows, n]`.
    pub(crate) fn linear(
        &self,
        x: &[f32],
        rows: usize,
        linear: &Linear,
        out: &mut [f32],
        residual: bool,
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let epilogue = Epilogue { residual, ..Epilogue::default() };
        self.adapted(x, rows, linear, out, epilogue, quantized)
    }

    pub(crate) fn matmul(
        &self,
        x: &[f32],
        rows: usize,
        weight: &PackedMatrix,
        out: &mut [f32],
        epilogue: Epilogue<'_>,
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let (mut first, mut before) = (0, None);
        for part in weight.segments() {
            let activations = part.format().activations();
            if let Some((group, rotated)) = activations
                && activations != before
            {
                quantized.quantize(self.kernels, self.region, x, rows, part.k(), group, rotated)?;
                before = activations;
            }
            let lhs = match activations {
                Some(_) => Lhs::Int8(quantized),
                None if self.kernels.rounds(part.format()) => {
                    quantized.rounded.round(self.kernels, self.region, x, rows, part.k())?;
                    Lhs::Bf16(&quantized.rounded)
                }
                None => Lhs::F32(x),
            };
            // A gated matrix has no parts.
            let width = if epilogue.gate.is_some() { out.len() / rows.max(1) } else { weight.n() };
            let count = if epilogue.gate.is_some() { width } else { part.n() };
            let columns = first..first + count;
            let bias = epilogue.bias.map(|bias| &bias[first..first + part.n()]);
            let added = epilogue.added.map(|added| Added { first: added.first + first, ..added });
            first = columns.end;
            let out = (&mut *out, columns, width);
            gemm_columns(
                self.kernels,
                self.region,
                lhs,
                rows,
                part,
                out,
                Epilogue { bias, added, ..epilogue },
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::api::model::Loaded;
    use crate::api::tests::support;
    use crate::cache::PageTables;
    use crate::load::source::Source;
    use crate::options::{KvType, ModelOptions, RuntimeOptions};
    use crate::runtime::{Budget, Runtime};

    /// How `loaded`'s pass over 40 tokens ends when the answer to question `at` is to stop, and how many were asked.
    fn stopped(loaded: &Loaded, at: usize) -> (Pass, usize) {
        let spec = &loaded.decoder.spec;
        let mut cache = KvCache::new(KvType::Bf16, &spec.layer_states(), &Budget::new(None)).unwrap();
        let mut tables = PageTables::default();
        cache.grow(&mut tables, 40).unwrap();
        let mut batch = Batch::new();
        batch.push(&[5; 40], 0, 1, &tables);
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) + 1 >= at;
        let found = loaded.runtime.pool().region_until(&stop, |region| {
            let scratch = &mut Scratch::default();
            let kernels = loaded.runtime.kernel_set();
            let mut context = ForwardContext { kernels, region, cache: &mut cache, scratch, trap: None };
            loaded.decoder.forward(&mut context, &batch)
        });
        (found.unwrap().unwrap(), asked.into_inner())
    }

    #[test]
    fn a_pass_is_abandoned_within_a_layer() {
        // Attention alone, experts, recurrent layers: (family, questions in a layer at the least).
        for (family, least) in [("llama", 8), ("mixtral", 20), ("qwen3_5", 10), ("deepseek_v3", 20)] {
            let dir = support::family(family);
            let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
            let model = runtime.load(&Source::Path(dir), &ModelOptions::default()).unwrap();
            let loaded = model.loaded().unwrap();
            let (outcome, all) = stopped(&loaded, usize::MAX);
            assert_eq!(outcome, Pass::Done, "{family}");
            let layers = loaded.decoder.spec.num_hidden_layers;
            assert!(all > least * layers, "{family}: {all} questions in {layers} layers");
            for at in [1, 2, 3, all / 3, all / 2, all - 1, all] {
                // Nothing more is asked, as nothing more is done.
                assert_eq!(stopped(&loaded, at), (Pass::Cancelled, at), "{family}");
            }
        }
    }
}
