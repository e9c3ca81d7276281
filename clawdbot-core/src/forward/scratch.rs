//! The buffers of a forward pass: allocated once, grown for larger batches, counted in the budget.

use super::cpu::Host;
use super::ops::{Buffer, Memory, MlpBuffers, Workspace};
use super::routing::Choices;
use crate::error::{Error, Result};
use crate::spec::{DecoderSpec, StreamsSpec};
use clawdbot_kernels::memory::AlignedBuf;

/// Buffers of a forward pass over `T` rows, row-major.
pub(crate) struct Scratch<M: Memory = Host> {
    /// `[T, hidden_size]`
    pub(crate) hidden: M::Rows,
    /// `[T, hidden_size]`
    pub(crate) normed: M::Rows,
    pub(crate) mixer: MixerScratch<M>,
    /// `[T, inputs of the layer's output projection]`
    pub(crate) mixed: M::Rows,
    /// Where there are several residual streams; `hidden` is then the active one within a layer
    pub(crate) streams: StreamScratch<M>,
    /// `[T, DecoderSpec::low_rank]`
    pub(crate) low_rank: M::Rows,
    /// `[T, hidden_size]`: the result of a layer's half, where it is not added as it is
    pub(crate) sublayer: M::Rows,
    pub(crate) mlp: MlpScratch<M>,
    pub(crate) moe: MoeScratch<M>,
    pub(crate) inputs: InputScratch<M>,
    /// `[T, 2 * hidden_size]`: embeddings and states, of a head for multi-token prediction alone
    pub(crate) joined: M::Rows,
    /// For each rotation `[T, rotary_dim / 2]` of cos, then as many of sin; on the host
    pub(crate) rope: AlignedBuf<f32>,
    /// `[rows of states, hidden_size]`: hidden states after the last norm, of the requested rows
    pub(crate) states: M::Rows,
    /// `[rows of logits, hidden_size]`: after the last norm
    pub(crate) last: M::Rows,
    /// `[rows of logits, vocab_size]`
    pub(crate) logits: M::Rows,
    /// A product's input, quantized
    pub(crate) codes: M::Codes,
    pub(crate) workspace: M::Workspace,
}

impl<M: Memory> Default for Scratch<M> {
    fn default() -> Self {
        Scratch {
            hidden: M::Rows::default(),
            normed: M::Rows::default(),
            mixer: MixerScratch { qkv: M::Rows::default(), wide: Default::default() },
            mixed: M::Rows::default(),
            streams: StreamScratch::default(),
            low_rank: M::Rows::default(),
            sublayer: M::Rows::default(),
            mlp: MlpScratch {
                gate_up: M::Rows::default(),
                activated: M::Rows::default(),
                codes: M::Codes::default(),
            },
            moe: MoeScratch {
                experts: ExpertScratch {
                    logits: M::Rows::default(),
                    codes: M::Codes::default(),
                    gathered: M::Rows::default(),
                    result: M::Rows::default(),
                    choices: Choices::default(),
                },
                parallel_mlp: Default::default(),
            },
            inputs: InputScratch {
                all: M::Rows::default(),
                looked_up: M::Rows::default(),
                gates: M::Rows::default(),
                gated: M::Rows::default(),
            },
            joined: M::Rows::default(),
            rope: AlignedBuf::default(),
            states: M::Rows::default(),
            last: M::Rows::default(),
            logits: M::Rows::default(),
            codes: M::Codes::default(),
            workspace: M::Workspace::default(),
        }
    }
}

/// Buffers of a layer's first half.
pub(crate) struct MixerScratch<M: Memory> {
    /// `[T, (num_attention_heads + 2 num_key_value_heads) * head_dim]`
    pub(crate) qkv: M::Rows,
    /// `[T, DecoderSpec::wide_sizes]` each
    pub(crate) wide: [M::Rows; 5],
}

/// Buffers of the streams. None where there is one stream.
pub(crate) struct StreamScratch<M: Memory> {
    /// One for each stream, `[T, hidden_size]`
    pub(crate) now: Vec<M::Rows>,
    /// What a layer predicts of each
    pub(crate) predicted: Vec<M::Rows>,
    /// `[T, streams]`
    pub(crate) routed: M::Rows,
    /// `[T, streams * streams]`
    pub(crate) coefficients: M::Rows,
}

impl<M: Memory> Default for StreamScratch<M> {
    fn default() -> Self {
        StreamScratch {
            now: Vec::new(),
            predicted: Vec::new(),
            routed: M::Rows::default(),
            coefficients: M::Rows::default(),
        }
    }
}

impl<M: Memory> StreamScratch<M> {
    /// Makes room for `rows` rows.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    fn reserve(&mut self, spec: &DecoderSpec, rows: usize) -> Result<()> {
        let Some(StreamsSpec { count, .. }) = spec.streams else { return Ok(()) };
        for streams in [&mut self.now, &mut self.predicted] {
            streams.resize_with(count, M::Rows::default);
            streams.iter_mut().try_for_each(|stream| stream.reserve(rows * spec.hidden_size))?;
        }
        self.routed.reserve(rows * count)?;
        self.coefficients.reserve(rows * count * count)
    }

    /// Values of a row in all buffers together.
    fn width(spec: &DecoderSpec) -> usize {
        spec.streams.map_or(0, |StreamsSpec { count, .. }| count * (2 * spec.hidden_size + 1 + count))
    }
}

/// Buffers of a gated MLP.
pub(crate) struct MlpScratch<M: Memory> {
    /// `[T, 2 * intermediate_size]`, of the widest MLP whose gate is cut off
    pub(crate) gate_up: M::Rows,
    /// `[T, intermediate_size]`, of the widest MLP
    pub(crate) activated: M::Rows,
    /// `activated`, quantized
    codes: M::Codes,
}

impl<M: Memory> MlpScratch<M> {
    /// The buffers, with one for the quantized input.
    pub(crate) fn buffers<'a>(&'a mut self, codes: &'a mut M::Codes) -> MlpBuffers<'a, M> {
        MlpBuffers { activated: &mut self.activated, codes, activated_codes: &mut self.codes }
    }
}

/// Buffers of expert layers.
pub(crate) struct MoeScratch<M: Memory> {
    pub(crate) experts: ExpertScratch<M>,
    /// `[T, hidden_size]` each, where there is a parallel dense MLP
    pub(crate) parallel_mlp: [M::Rows; 2],
}

/// Buffers of per-layer embeddings.
pub(crate) struct InputScratch<M: Memory> {
    /// `[T, layers * size]`: the vectors of all layers
    pub(crate) all: M::Rows,
    /// `[T, layers * size]`
    pub(crate) looked_up: M::Rows,
    /// `[T, size]`
    pub(crate) gates: M::Rows,
    /// `[T, size]`
    pub(crate) gated: M::Rows,
}

/// Buffers of experts.
pub(crate) struct ExpertScratch<M: Memory> {
    /// `[T, experts + 1]`
    pub(crate) logits: M::Rows,
    /// The layer's input, quantized
    pub(crate) codes: M::Codes,
    /// `[T, hidden_size]`: the rows of an expert
    pub(crate) gathered: M::Rows,
    /// `[T, hidden_size]`: an expert's result
    pub(crate) result: M::Rows,
    pub(crate) choices: Choices,
}

/// Elements of a pass's buffers, per row and per row of logits.
struct Widths {
    hidden: usize,
    qkv: usize,
    mixed: usize,
    wide: [usize; 5],
    sublayer: usize,
    mlp: usize,
    /// Of streams, low-rank blocks, and gates that are cut off
    extra: usize,
    low_rank: usize,
    gate_up: usize,
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
        let sparse = layers.clone().filter(|&layer| spec.layers[layer].cutoff.is_some());
        let gate_up = sparse.map(|layer| 2 * spec.dense_size(layer)).max().unwrap_or(0);
        let low_rank = spec.low_rank.unwrap_or(0);
        let input = spec.per_layer_inputs.map_or(0, |inputs| inputs.size);
        let shared = moe.and_then(|moe| moe.shared).map(|shared| shared.intermediate_size);
        let widths = dense.into_iter().chain(moe.map(|moe| moe.intermediate_size)).chain(shared);
        Widths {
            hidden: spec.hidden_size,
            qkv: layers.map(|layer| spec.qkv_size(layer)).max().unwrap_or(0),
            mixed: spec.widest_mixed(),
            wide: spec.wide_sizes(),
            sublayer: if spec.needs_sublayer() { spec.hidden_size } else { 0 },
            mlp: widths.max().unwrap_or(0),
            extra: low_rank + gate_up + StreamScratch::<Host>::width(spec),
            low_rank,
            gate_up,
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

impl DecoderSpec {
    /// The head sizes of its layers, ascending.
    pub(crate) fn head_dims(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = (0..self.layers.len()).map(|layer| self.heads(layer).head_dim).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Rows of a pass, and how many rows of logits and of hidden states are requested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassSize {
    pub(crate) rows: usize,
    pub(crate) logits: usize,
    pub(crate) states: usize,
}

impl<M: Memory> Scratch<M> {
    /// Makes room for a pass of this size, computed on `threads` threads.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn reserve(&mut self, spec: &DecoderSpec, size: PassSize, threads: usize) -> Result<()> {
        let (widths, rows) = (Widths::of(spec), size.rows);
        self.hidden.reserve(rows * widths.hidden)?;
        self.normed.reserve(rows * widths.hidden)?;
        self.mixer.qkv.reserve(rows * widths.qkv)?;
        self.workspace.reserve(spec, rows, threads)?;
        for (buffer, width) in self.mixer.wide.iter_mut().zip(widths.wide) {
            buffer.reserve(rows * width)?;
        }
        self.mixed.reserve(rows * widths.mixed)?;
        self.sublayer.reserve(rows * widths.sublayer)?;
        self.streams.reserve(spec, rows)?;
        self.low_rank.reserve(rows * widths.low_rank)?;
        self.mlp.gate_up.reserve(rows * widths.gate_up)?;
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
        Buffer::reserve(&mut self.rope, rows * widths.rope)?;
        self.states.reserve(size.states * widths.hidden)?;
        self.last.reserve(size.logits * widths.hidden)?;
        self.logits.reserve(size.logits * widths.vocab)
    }

    /// Bytes that [`Scratch::reserve`] takes at most, with the quantized rows.
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
        // Hidden states may be requested for all rows.
        let per_row = 3 * widths.hidden
            + widths.qkv
            + widths.mixed
            + wide
            + widths.sublayer
            + widths.mlp
            + widths.extra
            + moe;
        let floats = (per_row + widths.rope + widest.div_ceil(2) + widths.mlp.div_ceil(2))
            .checked_mul(rows)
            .zip((spec.hidden_size + spec.vocab_size).checked_mul(logits))
            .and_then(|(a, b)| a.checked_add(b)?.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(M::Workspace::bytes(spec, rows, threads)?));
        floats
            .map(|bytes| bytes as u64)
            .ok_or_else(|| Error::invalid_model("scratch exceeds the address space"))
    }
}
