//! The decoder: one forward pass for every family that [`DecoderSpec`] describes.
//!
//! ```text
//! x = embedding[token]
//! each layer:  x += o_proj(attention(rope(qkv_proj(norm(x)))))
//!              x += down_proj(act(gate_proj(norm(x))) * up_proj(norm(x)))      or experts
//! logits = lm_head(norm(x))      of the requested rows
//! ```
//! Families differ in their norms, mixers, MLPs and multipliers. An encoder adds positions to the embedding, attends in both
//! directions, norms the sums, and returns hidden states instead of logits.
//!
//! Every row's result depends on its own sequence alone: the same bits in any batch, chunking and thread count.

use clawdbot_kernels::PackedMatrix;
use clawdbot_kernels::memory::zeros;

use super::batch::Batch;
use super::blocks::{LowRank, Mlp, join};
use super::dense::Dense;
use super::head::Head;
use super::layer_inputs::{LayerInput, LayerInputBuffers, LayerInputs};
use super::linear::{GatedMlp, InputTables, Linear};
use super::mixers::{MixContext, Mixer};
use super::moe::{MoeBuffers, MoeInput};
use super::ops::{
    ActivatedMlp, AddedTables, Cache, Codes, Embedding, LayerRef, Memory, Norm, Ops, Rows, Shape, Store,
    WorkspaceOf,
};
use super::rope::RopeTables;
use super::scratch::{MlpScratch, MoeScratch, PassSize, Scratch};
use super::streams::{ActiveStream, LayerStreams, Streams};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{DecoderSpec, HeadShape};

impl DecoderSpec {
    /// Elements of a row of queries, keys and values in layer `layer`.
    pub(crate) fn qkv_size(&self, layer: usize) -> usize {
        let HeadShape { num_key_value_heads, head_dim } = self.heads(layer);
        (self.num_attention_heads + 2 * num_key_value_heads) * head_dim
    }

    /// Bytes of all norms and biases, and of the small matrices that stay in f32.
    pub(crate) fn vectors_bytes(&self) -> u64 {
        self.tensors().vectors().map(|vector| 4 * vector.padded_len() as u64).sum()
    }
}

/// Weights of one layer. Matrices that read the same input are packed as one. Norms are `[hidden_size]`; a norm that the
/// family does not have is `None`, see `Names`.
pub(crate) struct DecoderLayer {
    /// Before the mixer
    pub(crate) input_norm: Option<Vec<f32>>,
    pub(crate) mixer: Mixer,
    /// The output projection of the mixer
    pub(crate) o: Linear,
    /// Added to the mixer's result
    pub(crate) low_rank: Option<LowRank>,
    /// Of the mixer's result, before it is added
    pub(crate) attention_out_norm: Option<Vec<f32>>,
    /// Of the residual stream, after the mixer's result is added
    pub(crate) attention_sum_norm: Option<Vec<f32>>,
    /// Before the MLP
    pub(crate) mlp_norm: Option<Vec<f32>>,
    pub(crate) mlp: Mlp,
    /// Of the MLP's result, before it is added
    pub(crate) mlp_out_norm: Option<Vec<f32>>,
    /// Of the residual stream, after the MLP's result is added
    pub(crate) mlp_sum_norm: Option<Vec<f32>>,
    /// Where there are several residual streams
    pub(crate) streams: Option<LayerStreams>,
    /// Per-layer embeddings, added after the MLP
    pub(crate) input: Option<LayerInput>,
    /// Multiplier of the residual stream at the end of the layer
    pub(crate) scalar: Option<f32>,
}

impl DecoderLayer {
    /// Packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
        let mut matrices = self.mixer.matrices();
        matrices.push(&self.o.weight);
        if let Some(block) = &self.low_rank {
            matrices.extend([&block.left.weight, &block.right.weight]);
        }
        let mlps: Vec<&GatedMlp> = match &self.mlp {
            Mlp::Dense(mlp) => vec![mlp],
            Mlp::Sparse(mlp) => {
                matrices.extend([&mlp.gate_up.weight, &mlp.down.weight]);
                Vec::new()
            }
            Mlp::Plain(mlp) => {
                matrices.extend([&mlp.up.weight, &mlp.down.weight]);
                Vec::new()
            }
            Mlp::Moe(moe) => {
                let dense = moe.parallel_mlp.as_ref().map(|parallel_mlp| &parallel_mlp.dense);
                moe.experts.iter().chain(&moe.shared).chain(dense).collect()
            }
            Mlp::None => Vec::new(),
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

/// All weights of a model, packed.
pub(crate) struct Decoder {
    pub(crate) spec: DecoderSpec,
    /// `[vocab_size, hidden_size]`; the output layer too when the embeddings are tied
    pub(crate) embedding: PackedMatrix,
    pub(crate) input: InputTables,
    pub(crate) layer_inputs: Option<LayerInputs>,
    pub(crate) streams: Option<Streams>,
    pub(crate) layers: Vec<DecoderLayer>,
    /// `[hidden_size]`
    pub(crate) norm: Option<Vec<f32>>,
    /// hidden_size -> vocab_size; `None` when tied
    pub(crate) lm_head: Option<PackedMatrix>,
    /// `[vocab_size]`
    pub(crate) lm_head_bias: Option<Vec<f32>>,
    /// One for each of `DecoderSpec::dense_head`
    pub(crate) dense_head: Vec<Dense>,
}

/// What a forward pass computes with.
pub(crate) struct ForwardContext<'a, O: Ops> {
    pub(crate) ops: &'a O,
    pub(crate) cache: &'a mut Cache<O>,
    pub(crate) scratch: &'a mut Scratch<O::Memory>,
    #[cfg(test)]
    pub(crate) trap: Option<&'a crate::forward::trap::Trap>,
}

/// How a forward pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// `scratch.logits` holds the logits asked for, `scratch.states` the hidden states, and the cache the new keys and values.
    Done,
    /// The pass was abandoned; the cache rows of the batch's tokens are unspecified.
    Cancelled,
}

/// The residual stream, `[rows, hidden_size]`, and room for its norm.
struct Stream<'a, R> {
    x: &'a mut R,
    normed: &'a mut R,
}

impl<R> Stream<'_, R> {
    fn active(&mut self) -> ActiveStream<'_, R> {
        ActiveStream { x: &mut *self.x, normed: &mut *self.normed }
    }

    /// `normed = norm(x)`, or a copy of `x`.
    fn norm<O: Ops<Memory: Memory<Rows = R>>>(
        &mut self,
        ops: &O,
        spec: &DecoderSpec,
        gains: Option<&[f32]>,
        shape: Shape,
    ) {
        match gains {
            Some(gains) => ops.norm(self.x, Norm::of(spec, gains), shape, self.normed),
            None => ops.copy(self.x, shape, self.normed),
        }
    }

    /// `x = norm(x)`, where there is a norm.
    fn replace<O: Ops<Memory: Memory<Rows = R>>>(
        &mut self,
        ops: &O,
        spec: &DecoderSpec,
        gains: Option<&[f32]>,
        shape: Shape,
    ) {
        if gains.is_some() {
            self.norm(ops, spec, gains, shape);
            std::mem::swap(self.x, self.normed);
        }
    }
}

impl Decoder {
    /// Runs `batch` through all layers and leaves the logits in `scratch.logits`, `[logits_rows, vocab_size]`, and in
    /// `scratch.states` the hidden states after the last norm, `[state_rows, hidden_size]`. [`Ops::stopped`] abandons the
    /// pass.
    ///
    /// # Errors
    /// `OutOfBudget` when scratch memory cannot be had.
    pub(crate) fn forward<O: Ops>(&self, context: ForwardContext<'_, O>, batch: &Batch<'_>) -> Result<Pass> {
        let ForwardContext {
            ops,
            cache,
            scratch,
            #[cfg(test)]
            trap,
        } = context;
        let spec = &self.spec;
        self.embed(ops, batch, scratch)?;
        let layers = Layers { spec, layers: &self.layers, first: 0 };
        let context = ForwardContext {
            ops,
            cache,
            scratch: &mut *scratch,
            #[cfg(test)]
            trap,
        };
        if layers.forward(context, batch)? == Pass::Cancelled {
            return Ok(Pass::Cancelled);
        }

        if let Some(weights) = &self.streams {
            let Scratch { hidden, sublayer, streams, codes, .. } = &mut *scratch;
            let shape = Shape { rows: batch.rows(), width: spec.hidden_size };
            weights.merge(ops, ActiveStream { x: hidden, normed: sublayer }, shape, streams, codes)?;
        }
        let norm = self.norm.as_ref().map(|gains| Norm::of(spec, gains));
        ops.take_rows(&scratch.hidden, &batch.state_rows, norm, spec.hidden_size, &mut scratch.states);
        self.head(self.norm.as_deref()).forward(ops, &batch.logits_rows, scratch)?;
        Ok(if ops.stopped() { Pass::Cancelled } else { Pass::Done })
    }

    /// The output layer after a norm with the gains `norm`.
    pub(crate) fn head<'a>(&'a self, norm: Option<&'a [f32]>) -> Head<'a> {
        let weight = self.lm_head.as_ref().unwrap_or(&self.embedding);
        Head { spec: &self.spec, norm, weight, bias: self.lm_head_bias.as_deref() }
    }

    /// Makes room for a pass over `batch`, and leaves the embeddings of its tokens in `scratch.hidden`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub(crate) fn embed<O: Ops>(
        &self,
        ops: &O,
        batch: &Batch<'_>,
        scratch: &mut Scratch<O::Memory>,
    ) -> Result<()> {
        let (spec, rows) = (&self.spec, batch.rows());
        let size = PassSize { rows, logits: batch.logits_rows.len(), states: batch.state_rows.len() };
        scratch.reserve(spec, size, ops.threads())?;
        let shape = Shape { rows, width: spec.hidden_size };
        let mut stream = Stream { x: &mut scratch.hidden, normed: &mut scratch.normed };
        let first_position = spec.input.positions.map_or(0, |positions| positions.first);
        let added = Some(AddedTables { tables: &self.input, first_position });
        let multiplier = spec.embedding_multiplier;
        ops.embed(&Embedding { table: &self.embedding, multiplier, added }, batch, stream.x);
        stream.replace(ops, spec, self.input.norm.as_deref(), shape);
        if let Some(weights) = &self.layer_inputs {
            weights.forward(ops, spec, batch, stream.x, &mut scratch.inputs, &mut scratch.codes)?;
        }
        if let Some(weights) = &self.streams {
            weights.spread(ops, stream.x, shape, &mut scratch.streams, &mut scratch.codes)?;
        }
        Ok(())
    }
}

/// Layers of a model that follow one another.
pub(crate) struct Layers<'a> {
    pub(crate) spec: &'a DecoderSpec,
    pub(crate) layers: &'a [DecoderLayer],
    /// Number of the first in the model
    pub(crate) first: usize,
}

impl Layers<'_> {
    /// Runs the residual stream in `scratch.hidden`, `[rows, hidden_size]`, through the layers. [`Decoder::embed`] has made
    /// room for the pass.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub(crate) fn forward<O: Ops>(&self, context: ForwardContext<'_, O>, batch: &Batch<'_>) -> Result<Pass> {
        let ForwardContext { ops, cache, scratch, .. } = context;
        let (spec, rows) = (self.spec, batch.rows());
        let plan = &ops.write_plan(cache, batch)?;
        let shape = Shape { rows, width: spec.hidden_size };
        let mut stream = Stream { x: &mut scratch.hidden, normed: &mut scratch.normed };
        let tables = &RopeTables::fill(&spec.ropes, batch, &mut scratch.rope);

        for (index, layer) in (self.first..).zip(self.layers) {
            if ops.stopped() {
                return Ok(Pass::Cancelled);
            }
            if let Some(streams) = &layer.streams {
                streams.predict(ops, spec, stream.active(), shape, &mut scratch.streams)?;
            }
            if layer.input_norm.is_some() {
                stream.norm(ops, spec, layer.input_norm.as_deref(), shape);
            }
            let mix = MixContext {
                ops,
                spec,
                layer: index,
                cache: &mut *cache,
                batch,
                plan,
                tables,
                scratch: &mut scratch.mixer,
                codes: &mut scratch.codes,
                workspace: &mut scratch.workspace,
            };
            let input = if layer.input_norm.is_some() { &*stream.normed } else { &*stream.x };
            layer.mixer.forward(mix, input, &mut scratch.mixed)?;
            #[cfg(test)]
            context.trap.map_or(Ok(()), |trap| trap(crate::forward::trap::Place::Layer(index)))?;
            let (x, sublayer, codes) = (&mut *stream.x, &mut scratch.sublayer, &mut scratch.codes);
            if spec.adds_directly(layer.attention_out_norm.as_ref()) {
                ops.linear(&scratch.mixed, rows, &layer.o, Store::Add, x, codes)?;
            } else {
                ops.linear(&scratch.mixed, rows, &layer.o, Store::Overwrite, sublayer, codes)?;
                join(ops, spec, sublayer, layer.attention_out_norm.as_deref(), rows, x);
            }
            if let Some(block) = &layer.low_rank {
                let buffers = [&mut scratch.low_rank, &mut scratch.sublayer];
                block.forward(ops, spec, (stream.normed, stream.x), rows, buffers, &mut scratch.codes)?;
            }
            stream.replace(ops, spec, layer.attention_sum_norm.as_deref(), shape);

            let buffers = MlpHalf {
                mlp: &mut scratch.mlp,
                moe: &mut scratch.moe,
                sublayer: &mut scratch.sublayer,
                codes: &mut scratch.codes,
                workspace: &mut scratch.workspace,
            };
            layer.mlp(ops, spec, &mut stream, rows, buffers)?;
            stream.replace(ops, spec, layer.mlp_sum_norm.as_deref(), shape);
            if let Some(streams) = &layer.streams {
                streams.correct(ops, spec, stream.active(), shape, &mut scratch.streams)?;
            }
            if let Some(input) = &layer.input {
                let of_layer = LayerRef { spec, layer: index };
                let buffers = LayerInputBuffers {
                    sublayer: &mut scratch.sublayer,
                    inputs: &mut scratch.inputs,
                    codes: &mut scratch.codes,
                };
                match &layer.streams {
                    None => input.forward(ops, of_layer, stream.x, rows, buffers)?,
                    Some(streams) => {
                        let scratch = &mut scratch.streams;
                        streams.add_input(ops, (of_layer, input), stream.normed, shape, scratch, buffers)?;
                    }
                }
            }
            if let Some(scalar) = layer.scalar {
                ops.scale_and_cap(stream.x, scalar, None, shape);
            }
        }
        Ok(Pass::Done)
    }
}

impl DecoderLayer {
    /// The second half of a layer: `x += mlp(norm(x))`.
    fn mlp<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        stream: &mut Stream<'_, Rows<O>>,
        rows: usize,
        buffers: MlpHalf<'_, O>,
    ) -> Result<()> {
        if matches!(self.mlp, Mlp::None) {
            return Ok(());
        }
        let activation = spec.activation;
        let MlpHalf { mlp, moe, sublayer, codes, workspace } = buffers;
        // A plain MLP may read the stream itself, and a parallel block's reads what its attention read.
        let itself =
            self.mlp_norm.is_none() && self.input_norm.is_none() && matches!(self.mlp, Mlp::Plain(_));
        if self.mlp_norm.is_some() || (self.input_norm.is_none() && !itself) {
            stream.norm(ops, spec, self.mlp_norm.as_deref(), Shape { rows, width: spec.hidden_size });
        }
        let Stream { x, normed } = stream;
        let direct = spec.adds_directly(self.mlp_out_norm.as_ref());
        match &self.mlp {
            Mlp::Dense(weights) => {
                let (out, store) =
                    if direct { (&mut **x, Store::Add) } else { (&mut *sublayer, Store::Overwrite) };
                let (weights, buffers) = (ActivatedMlp { weights, activation }, mlp.buffers(codes));
                ops.gated_mlp(weights, normed, rows, store, out, buffers)?;
            }
            Mlp::Sparse(weights) => {
                let out = if direct { (Store::Add, &mut **x) } else { (Store::Overwrite, &mut *sublayer) };
                weights.forward(ops, activation, normed, rows, out, (mlp, codes))?;
            }
            Mlp::Plain(weights) => {
                let input = (!itself).then_some(&**normed);
                weights.forward(ops, activation, input, rows, x, mlp.buffers(codes))?;
            }
            Mlp::Moe(weights) => {
                let input = MoeInput { stream: &**x, normed: &**normed };
                let buffers = MoeBuffers { mlp, moe, codes, workspace };
                weights.forward(ops, spec, input, rows, sublayer, buffers)?;
            }
            Mlp::None => {}
        }
        if !direct || matches!(self.mlp, Mlp::Moe(_)) {
            join(ops, spec, sublayer, self.mlp_out_norm.as_deref(), rows, x);
        }
        Ok(())
    }
}

/// The buffers of a layer's second half.
struct MlpHalf<'a, O: Ops> {
    mlp: &'a mut MlpScratch<O::Memory>,
    moe: &'a mut MoeScratch<O::Memory>,
    sublayer: &'a mut Rows<O>,
    codes: &'a mut Codes<O>,
    workspace: &'a mut WorkspaceOf<O>,
}

impl Decoder {
    /// The dense head's output for pooled hidden states, `[rows, hidden_size]`: `[rows, pooled_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn finish_pooled<O: Ops>(&self, ops: &O, mut x: Rows<O>, rows: usize) -> Result<Rows<O>> {
        for (spec, dense) in self.spec.dense_head.iter().zip(&self.dense_head) {
            x = dense.forward(ops, &self.spec, spec, &x, rows)?;
        }
        Ok(x)
    }
}

/// Zeros, `[rows, width]`.
///
/// # Errors
/// `OutOfBudget` without memory.
pub(crate) fn zeroed_rows(rows: usize, width: usize) -> Result<Vec<f32>> {
    rows.checked_mul(width).and_then(zeros).ok_or_else(|| {
        Error::new(ErrorKind::OutOfBudget, format!("there is no memory for {rows} rows of {width} floats"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::api::loaded::Loaded;
    use crate::api::tests::support;
    use crate::cache::{KvCache, PageTables};
    use crate::forward::cpu::Cpu;
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
            let ops = &Cpu { kernels, region, adapters: None, watcher: None };
            let context = ForwardContext { ops, cache: &mut cache, scratch, trap: None };
            loaded.decoder.forward(context, &batch)
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
