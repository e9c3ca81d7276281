//! The buffers of a forward pass: allocated once, grown when a larger batch comes, charged to the budget.

use std::sync::{Mutex, PoisonError};

use clawdbot_kernels::QuantizedRows;
use clawdbot_kernels::attention::Workspaces;
use clawdbot_kernels::memory::AlignedBuf;

use super::blocks::MlpBuffers;
use super::moe::Choice;
use super::routing::Choosing;
use crate::error::{Error, Result};
use crate::forward::adapter::{AdapterRows, AdapterScratch};
use crate::spec::DecoderSpec;

/// Buffers of a forward pass over `T` rows, row-major.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[T, hidden_size]`
    pub(crate) hidden: AlignedBuf<f32>,
    /// `[T, hidden_size]`
    pub(crate) normed: AlignedBuf<f32>,
    pub(crate) mixer: MixerScratch,
    /// `[T, as the layer's projection back wants it]`
    pub(crate) mixed: AlignedBuf<f32>,
    /// `[T, hidden_size]`: what a half of a layer gives, where it is not added as it is
    pub(crate) sublayer: AlignedBuf<f32>,
    pub(crate) mlp: MlpScratch,
    pub(crate) moe: MoeScratch,
    pub(crate) inputs: InputScratch,
    /// Of each rotation: `[T, rotary_dim / 2]` of cos, then as many of sin
    pub(crate) rope: AlignedBuf<f32>,
    /// `[rows of logits + rows of states, hidden_size]`: after the last norm
    pub(crate) last: AlignedBuf<f32>,
    /// `[rows of logits, vocab_size]`
    pub(crate) logits: AlignedBuf<f32>,
    /// int8 form of a layer's input
    pub(crate) quantized: QuantizedRows,
    /// Of adapters, which have reserved them.
    pub(crate) adapters: Mutex<AdapterScratch>,
}

/// Buffers of a layer's first half.
#[derive(Default)]
pub(crate) struct MixerScratch {
    /// `[T, (num_attention_heads + 2 num_key_value_heads) * head_dim]`
    pub(crate) qkv: AlignedBuf<f32>,
    /// of the threads
    pub(crate) workspaces: Workspaces,
    /// `[T, what the kind of mixer wants]` each
    pub(crate) wide: [AlignedBuf<f32>; 5],
    /// Of the threads, where heads have matrices of their own
    pub(crate) heads: Vec<HeadScratch>,
}

/// Buffers of the product of a head's rows with its matrix.
#[derive(Default)]
pub(crate) struct HeadScratch {
    /// `[T, inputs]`
    pub(crate) input: AlignedBuf<f32>,
    pub(crate) quantized: QuantizedRows,
}

/// Buffers of a gated MLP.
#[derive(Default)]
pub(crate) struct MlpScratch {
    /// `[T, intermediate_size]`, of the widest MLP
    activated: AlignedBuf<f32>,
    /// The int8 form of it
    codes: QuantizedRows,
}

impl MlpScratch {
    /// The buffers, and one for the int8 form of inputs.
    pub(crate) fn buffers<'a>(&'a mut self, quantized: &'a mut QuantizedRows) -> MlpBuffers<'a> {
        MlpBuffers { activated: &mut self.activated, quantized, codes: &mut self.codes }
    }
}

/// Buffers of expert layers.
#[derive(Default)]
pub(crate) struct MoeScratch {
    pub(crate) experts: ExpertScratch,
    /// `[T, hidden_size]` each, where they are next to a dense MLP
    pub(crate) parallel_mlp: [AlignedBuf<f32>; 2],
}

/// Buffers of second embeddings.
#[derive(Default)]
pub(crate) struct InputScratch {
    /// `[T, layers * size]`: what the layers get
    pub(crate) all: AlignedBuf<f32>,
    /// `[T, layers * size]`
    pub(crate) looked_up: AlignedBuf<f32>,
    /// `[T, size]`
    pub(crate) gates: AlignedBuf<f32>,
    /// `[T, size]`
    pub(crate) gated: AlignedBuf<f32>,
}

/// Buffers of experts.
#[derive(Default)]
pub(crate) struct ExpertScratch {
    /// `[T, experts + 1]`
    pub(crate) logits: AlignedBuf<f32>,
    /// int8 form of the layer's input
    pub(crate) quantized: QuantizedRows,
    /// `[T, hidden_size]`: the rows of an expert
    pub(crate) gathered: AlignedBuf<f32>,
    /// `[T, hidden_size]`: what it gives
    pub(crate) result: AlignedBuf<f32>,
    /// `[T * experts per token]`
    pub(crate) choices: Vec<Choice>,
    /// `[T]`: where each row is among those of an expert
    pub(crate) places: Vec<usize>,
    /// Of one row
    pub(crate) choosing: Choosing,
}

/// Elements of a pass's buffers, per row and per row of logits.
struct Widths {
    hidden: usize,
    qkv: usize,
    mixed: usize,
    wide: [usize; 5],
    head: usize,
    sublayer: usize,
    mlp: usize,
    router: usize,
    experts: usize,
    gathered: usize,
    parallel_mlp: usize,
    inputs: usize,
    input: usize,
    rope: usize,
    vocab: usize,
}

impl Widths {
    fn of(spec: &DecoderSpec) -> Self {
        let moe = spec.moe.filter(|_| spec.layers.iter().any(|layer| layer.moe));
        let parallel_mlp = moe.is_some_and(|moe| moe.parallel_mlp);
        let layers = 0..spec.layers.len();
        let dense = layers.clone().filter(|&layer| parallel_mlp || !spec.layers[layer].moe);
        let dense = dense.map(|layer| spec.dense_size(layer)).max();
        let input = spec.per_layer_inputs.map_or(0, |inputs| inputs.size);
        let shared = moe.and_then(|moe| moe.shared).map(|shared| shared.intermediate_size);
        let widths = dense.into_iter().chain(moe.map(|moe| moe.intermediate_size)).chain(shared);
        Widths {
            hidden: spec.hidden_size,
            qkv: layers.map(|layer| spec.qkv_size(layer)).max().unwrap_or(0),
            mixed: spec.widest_mixed(),
            wide: spec.wide_sizes(),
            head: spec.mla.map_or(0, |mla| mla.head_input()),
            sublayer: if spec.needs_sublayer() { spec.hidden_size } else { 0 },
            mlp: widths.max().unwrap_or(0),
            router: moe.map_or(0, |moe| moe.num_experts + 1),
            experts: moe.map_or(0, |moe| moe.num_experts_per_tok),
            gathered: moe.map_or(0, |_| spec.hidden_size),
            parallel_mlp: if parallel_mlp { spec.hidden_size } else { 0 },
            inputs: input * spec.layers.len(),
            input,
            rope: spec.ropes.iter().map(|rope| rope.rotary_dim).sum(),
            vocab: spec.vocab_size,
        }
    }
}

/// Elements per head in some layers.
fn head_dims(spec: &DecoderSpec) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..spec.layers.len()).map(|layer| spec.heads(layer).head_dim).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl Scratch {
    /// Makes room for what the adapters of `rows` rows need.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn reserve_adapters(&mut self, rows: usize, adapters: &[AdapterRows<'_>]) -> Result<()> {
        self.adapters.get_mut().unwrap_or_else(PoisonError::into_inner).reserve(rows, adapters)
    }

    /// Makes room for `rows` rows, `logits` rows of logits and `states` of states, computed on `threads` threads.
    pub(crate) fn reserve(
        &mut self,
        spec: &DecoderSpec,
        rows: usize,
        (logits, states): (usize, usize),
        threads: usize,
    ) -> Result<()> {
        let widths = Widths::of(spec);
        self.hidden.reserve(rows * widths.hidden)?;
        self.normed.reserve(rows * widths.hidden)?;
        self.mixer.qkv.reserve(rows * widths.qkv)?;
        for head_dim in head_dims(spec) {
            self.mixer.workspaces.reserve(threads, head_dim)?;
        }
        for (buffer, width) in self.mixer.wide.iter_mut().zip(widths.wide) {
            buffer.reserve(rows * width)?;
        }
        if widths.head > 0 {
            self.mixer.heads.resize_with(threads, HeadScratch::default);
            for head in &mut self.mixer.heads {
                head.input.reserve(rows * widths.head)?;
            }
        }
        self.mixed.reserve(rows * widths.mixed)?;
        self.sublayer.reserve(rows * widths.sublayer)?;
        self.mlp.activated.reserve(rows * widths.mlp)?;
        let ExpertScratch { logits: router, gathered, result, .. } = &mut self.moe.experts;
        router.reserve(rows * widths.router)?;
        gathered.reserve(rows * widths.gathered)?;
        result.reserve(rows * widths.gathered)?;
        for buffer in &mut self.moe.parallel_mlp {
            buffer.reserve(rows * widths.parallel_mlp)?;
        }
        let InputScratch { all, looked_up, gates, gated } = &mut self.inputs;
        for (buffer, width) in
            [(all, widths.inputs), (looked_up, widths.inputs), (gates, widths.input), (gated, widths.input)]
        {
            buffer.reserve(rows * width)?;
        }
        self.rope.reserve(rows * widths.rope)?;
        self.last.reserve((logits + states) * widths.hidden)?;
        Ok(self.logits.reserve(logits * widths.vocab)?)
    }

    /// Bytes that [`Scratch::reserve`] takes at most, the int8 form included.
    ///
    /// # Errors
    /// `InvalidModel` when the product overflows.
    pub(crate) fn bytes(spec: &DecoderSpec, rows: usize, logits: usize, threads: usize) -> Result<u64> {
        let widths = Widths::of(spec);
        // int8 codes with their scales and sums take less than two bytes an element, bf16 two.
        let wide: usize = widths.wide.iter().sum();
        let widest = widths.hidden.max(widths.mlp).max(widths.mixed).max(wide);
        let moe = widths.router + 2 * widths.gathered + 6 * widths.experts + 2 * widths.parallel_mlp;
        let moe = moe + widths.gathered.div_ceil(2) + 2 * widths.inputs + 2 * widths.input;
        let heads = (widths.head + widths.head.div_ceil(2)).saturating_mul(threads);
        // The states of all rows may be wanted.
        let per_row =
            3 * widths.hidden + widths.qkv + widths.mixed + wide + widths.sublayer + widths.mlp + moe;
        let floats = (per_row + heads + widths.rope + widest.div_ceil(2) + widths.mlp.div_ceil(2))
            .checked_mul(rows)
            .zip((spec.hidden_size + spec.vocab_size).checked_mul(logits))
            .and_then(|(a, b)| a.checked_add(b)?.checked_mul(4))
            .and_then(|bytes| {
                // Those of one shape make room for others.
                let workspaces = head_dims(spec).into_iter().map(|size| Workspaces::bytes(threads, size));
                bytes.checked_add(workspaces.max().unwrap_or(0))
            });
        floats
            .map(|bytes| bytes as u64)
            .ok_or_else(|| Error::invalid_model("scratch exceeds the address space"))
    }
}
