//! The buffers of a forward pass: allocated once, grown when a larger batch comes, charged to the budget.

use crate::error::{Error, Result};
use crate::kernels::QuantizedRows;
use crate::kernels::attention::Workspaces;
use crate::memory::AlignedBuf;
use crate::model::blocks::MlpBuffers;
use crate::model::moe::Choice;
use crate::model::spec::DecoderSpec;

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
    pub(crate) branch: AlignedBuf<f32>,
    pub(crate) mlp: MlpScratch,
    pub(crate) moe: MoeScratch,
    /// Of each rotation: `[T, rotary_dim / 2]` of cos, then as many of sin
    pub(crate) rope: AlignedBuf<f32>,
    /// `[rows of logits + rows of states, hidden_size]`: behind the last norm
    pub(crate) last: AlignedBuf<f32>,
    /// `[rows of logits, vocab_size]`
    pub(crate) logits: AlignedBuf<f32>,
    /// int8 form of a layer's input
    pub(crate) quantized: QuantizedRows,
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
    /// `[T, experts + 1]`
    pub(crate) logits: AlignedBuf<f32>,
    /// `[T, hidden_size]`: the rows of an expert
    pub(crate) gathered: AlignedBuf<f32>,
    /// `[T, hidden_size]`: what it gives
    pub(crate) result: AlignedBuf<f32>,
    /// `[T * experts per token]`
    pub(crate) choices: Vec<Choice>,
    /// `[T]`: where each row is among those of an expert
    pub(crate) places: Vec<usize>,
}

/// Elements of a pass's buffers, per row and per row of logits.
struct Widths {
    hidden: usize,
    qkv: usize,
    mixed: usize,
    wide: [usize; 5],
    branch: usize,
    mlp: usize,
    router: usize,
    experts: usize,
    gathered: usize,
    rope: usize,
    vocab: usize,
}

impl Widths {
    fn of(spec: &DecoderSpec) -> Self {
        let moe = spec.moe.filter(|_| spec.layers.iter().any(|layer| layer.moe));
        let dense = spec.layers.iter().any(|layer| !layer.moe).then_some(spec.intermediate_size);
        let shared = moe.and_then(|moe| moe.shared).map(|shared| shared.intermediate_size);
        let widths = dense.into_iter().chain(moe.map(|moe| moe.intermediate_size)).chain(shared);
        Widths {
            hidden: spec.hidden_size,
            qkv: spec.qkv_size(),
            mixed: spec.widest_mixed(),
            wide: spec.wide_sizes(),
            branch: if spec.needs_branch() { spec.hidden_size } else { 0 },
            mlp: widths.max().unwrap_or(0),
            router: moe.map_or(0, |moe| moe.num_experts + 1),
            experts: moe.map_or(0, |moe| moe.num_experts_per_tok),
            gathered: moe.map_or(0, |_| spec.hidden_size),
            rope: spec.ropes.iter().map(|rope| rope.rotary_dim).sum(),
            vocab: spec.vocab_size,
        }
    }
}

impl Scratch {
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
        self.mixer.workspaces.reserve(threads, spec.head_dim)?;
        for (buffer, width) in self.mixer.wide.iter_mut().zip(widths.wide) {
            buffer.reserve(rows * width)?;
        }
        self.mixed.reserve(rows * widths.mixed)?;
        self.branch.reserve(rows * widths.branch)?;
        self.mlp.activated.reserve(rows * widths.mlp)?;
        self.moe.logits.reserve(rows * widths.router)?;
        self.moe.gathered.reserve(rows * widths.gathered)?;
        self.moe.result.reserve(rows * widths.gathered)?;
        self.rope.reserve(rows * widths.rope)?;
        self.last.reserve((logits + states) * widths.hidden)?;
        self.logits.reserve(logits * widths.vocab)
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
        let moe = widths.router + 2 * widths.gathered + 6 * widths.experts;
        // The states of all rows may be wanted.
        let per_row = 3 * widths.hidden + widths.qkv + widths.mixed + wide + widths.branch + widths.mlp + moe;
        let floats = (per_row + widths.rope + widest.div_ceil(2) + widths.mlp.div_ceil(2))
            .checked_mul(rows)
            .zip((spec.hidden_size + spec.vocab_size).checked_mul(logits))
            .and_then(|(a, b)| a.checked_add(b)?.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(Workspaces::bytes(threads, spec.head_dim)));
        floats
            .map(|bytes| bytes as u64)
            .ok_or_else(|| Error::invalid_model("scratch exceeds the address space"))
    }
}
