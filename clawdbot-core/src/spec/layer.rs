//! What layers are made of.

use super::heads::{HeadShape, KeySource};
use super::mixers::MixerSpec;
use super::mixers::attention::Attention;

/// RMSNorm: `x * gain / sqrt(mean(x^2) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) eps: f32,
    /// Whether it covers all heads at once, with a gain for each element, instead of each head separately.
    pub(crate) whole: bool,
    /// Whether it follows the rotation instead of preceding it.
    pub(crate) rotated: bool,
    /// Whether it has gains.
    pub(crate) gains: bool,
}

impl NormSpec {
    /// Of each head separately, before the rotation.
    pub(crate) const fn of_heads(eps: f32) -> Self {
        NormSpec { eps, whole: false, rotated: false, gains: true }
    }
}

/// Details of the softmax of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionSpec {
    /// Scores are divided by this.
    pub(crate) divisor: f32,
    /// Soft cap: scores become `cap * tanh(score / cap)`.
    pub(crate) softcap: Option<f32>,
    /// Whether each head has an extra score without a value (an attention sink).
    pub(crate) sinks: bool,
    /// Whether the output of the heads is multiplied elementwise by the sigmoid of a projection, which is stored with
    /// the queries'.
    pub(crate) gate: bool,
}

impl AttentionSpec {
    /// Divides scores by `sqrt(width)`.
    pub(crate) fn of_width(width: f64) -> Self {
        AttentionSpec { divisor: libm::sqrt(width) as f32, softcap: None, sinks: false, gate: false }
    }
}

/// Per-layer embeddings of Gemma 3n and 4: the input of a layer for a token is a slice of a second embedding plus a slice of a
/// projection of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerLayerSpec {
    /// Rows of the second embedding.
    pub(crate) vocab_size: usize,
    /// Elements for each layer.
    pub(crate) size: usize,
    /// Whether it may have fewer rows than the first: tokens beyond them have its row 0.
    pub(crate) partial: bool,
}

/// Settings that may differ between layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerSpec {
    /// `Some(w)`: the query at position `p` sees the keys at positions `p - w + 1 ..= p` (the last `w`, itself
    /// included), as in transformers: `kv_idx > q_idx - sliding_window` (`masking_utils.py`, `sliding_window_overlay`).
    /// In an encoder it also sees those at `p + 1 ..= p + w - 1`. `None`: all keys up to `p`.
    pub(crate) window: Option<usize>,
    /// Whether the window is a chunk: the query sees the keys from the last multiple of `w` on instead.
    pub(crate) chunked: bool,
    /// Index in [`DecoderSpec::ropes`]; `None`: no rotation.
    pub(crate) rope: Option<usize>,
    /// Whether queries and keys have the family's norms, if there are any.
    pub(crate) qk_norm: bool,
    /// Whether the MLP is [`DecoderSpec::moe`].
    pub(crate) moe: bool,
    pub(crate) mixer: MixerSpec,
    /// Whether the family's norm, if there is one, comes before the first half.
    pub(crate) input_norm: bool,
    /// Heads that differ from the model's.
    pub(crate) heads: Option<HeadShape>,
    pub(crate) keys: KeySource,
    /// Elements between the projections of a dense MLP, if they differ from the model's.
    pub(crate) intermediate_size: Option<usize>,
    /// Of each row of a dense MLP's gate, only what is more than this many standard deviations above the mean passes, less
    /// that much; `None`: all.
    pub(crate) cutoff: Option<f32>,
    /// Set where checkpoints count the two halves of a layer as layers.
    pub(crate) halves: Option<Halves>,
}

/// The numbers of a layer's halves in checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halves {
    pub(crate) mixer: usize,
    /// `None`: the layer has no MLP.
    pub(crate) mlp: Option<usize>,
}

impl Default for LayerSpec {
    fn default() -> Self {
        LayerSpec {
            window: None,
            chunked: false,
            rope: Some(0),
            qk_norm: true,
            moe: false,
            mixer: MixerSpec::Attention(Attention),
            heads: None,
            keys: KeySource::Own,
            intermediate_size: None,
            cutoff: None,
            halves: None,
            input_norm: true,
        }
    }
}
