//! The buffers of a forward pass: allocated once, grown when a larger batch comes, charged to the budget.

use crate::error::{Error, Result};
use crate::kernels::QuantizedRows;
use crate::kernels::attention::Workspaces;
use crate::memory::AlignedBuf;
use crate::model::spec::DecoderSpec;

/// Buffers of a forward pass over `T` rows, row-major.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[T, hidden_size]`
    pub(crate) hidden: AlignedBuf<f32>,
    /// `[T, hidden_size]`
    pub(crate) normed: AlignedBuf<f32>,
    /// `[T, (num_attention_heads + 2 num_key_value_heads) * head_dim]`
    pub(crate) qkv: AlignedBuf<f32>,
    /// `[T, num_attention_heads * head_dim]`
    pub(crate) attended: AlignedBuf<f32>,
    /// of the threads
    pub(crate) workspaces: Workspaces,
    /// `[T, intermediate_size]`
    pub(crate) activated: AlignedBuf<f32>,
    /// `[T, rotary_dim / 2]` of cos, then as many of sin
    pub(crate) rope: AlignedBuf<f32>,
    /// `[rows of logits, hidden_size]`
    pub(crate) last: AlignedBuf<f32>,
    /// `[rows of logits, vocab_size]`
    pub(crate) logits: AlignedBuf<f32>,
    /// int8 form of a layer's input
    pub(crate) quantized: QuantizedRows,
}

impl Scratch {
    /// Makes room for `rows` rows and `logits` rows of logits, computed on `threads` threads.
    pub(crate) fn reserve(
        &mut self,
        spec: &DecoderSpec,
        rows: usize,
        logits: usize,
        threads: usize,
    ) -> Result<()> {
        let heads = spec.num_attention_heads * spec.head_dim;
        self.hidden.reserve(rows * spec.hidden_size)?;
        self.normed.reserve(rows * spec.hidden_size)?;
        self.qkv.reserve(rows * spec.qkv_size())?;
        self.attended.reserve(rows * heads)?;
        self.workspaces.reserve(threads, spec.head_dim)?;
        self.activated.reserve(rows * spec.intermediate_size)?;
        self.rope.reserve(rows * spec.rope.rotary_dim)?;
        self.last.reserve(logits * spec.hidden_size)?;
        self.logits.reserve(logits * spec.vocab_size)
    }

    /// Bytes that [`Scratch::reserve`] takes at most, the int8 form included.
    ///
    /// # Errors
    /// `InvalidModel` when the product overflows.
    pub(crate) fn bytes(spec: &DecoderSpec, rows: usize, logits: usize, threads: usize) -> Result<u64> {
        let heads = spec.num_attention_heads * spec.head_dim;
        // int8 codes with their scales and sums take less than two bytes an element, bf16 two.
        let widest = spec.hidden_size.max(spec.intermediate_size).max(heads);
        let per_row = 2 * spec.hidden_size + spec.qkv_size() + heads + spec.intermediate_size;
        let floats = (per_row + spec.rope.rotary_dim + widest.div_ceil(2))
            .checked_mul(rows)
            .zip((spec.hidden_size + spec.vocab_size).checked_mul(logits))
            .and_then(|(a, b)| a.checked_add(b)?.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(Workspaces::bytes(threads, spec.head_dim)));
        floats
            .map(|bytes| bytes as u64)
            .ok_or_else(|| Error::invalid_model("scratch exceeds the address space"))
    }
}
