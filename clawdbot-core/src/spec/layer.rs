//! What a layer is made of: attention and the other token mixers.

/// RMSNorm: `x * gain / sqrt(mean(x^2) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) eps: f32,
    /// Over all heads at once, with a gain for each element, instead of over each head.
    pub(crate) whole: bool,
}

/// What differs in the softmax of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionSpec {
    /// Scores are divided by it.
    pub(crate) divisor: f32,
    /// Then `score = cap * tanh(score / cap)`.
    pub(crate) softcap: Option<f32>,
    /// Each head has a further score, which has no value.
    pub(crate) sinks: bool,
    /// Each element of what heads give is multiplied by the sigmoid of a projection, which is stored with the queries'.
    pub(crate) gate: bool,
}

impl AttentionSpec {
    /// Scores divided by `sqrt(width)`.
    pub(crate) fn of_width(width: f64) -> Self {
        AttentionSpec { divisor: libm::sqrt(width) as f32, softcap: None, sinks: false, gate: false }
    }
}

/// Multi-head latent attention (DeepSeek-V2, <https://arxiv.org/abs/2405.04434>). What is kept of a token is one key of
/// `qk_rope_head_dim + kv_lora_rank` elements, for all heads. So for attention itself there is one key head, and
/// `head_dim` is that sum: queries and outputs are projected to and from the compressed space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MlaSpec {
    /// Elements between the two projections of queries; `None`: one projection.
    pub(crate) q_lora_rank: Option<usize>,
    /// Elements of what keys and values are projected from.
    pub(crate) kv_lora_rank: usize,
    /// Elements of a head that are not rotated.
    pub(crate) qk_nope_head_dim: usize,
    /// Elements of a head that are, of keys the same for all heads.
    pub(crate) qk_rope_head_dim: usize,
    /// Elements of a head's values.
    pub(crate) v_head_dim: usize,
}

/// A gated convolution over the last tokens (LFM2): `out(C * conv(B * x))`, `B`, `C` and `x` projected from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortConvSpec {
    /// Tokens that it sees, the current one included.
    pub(crate) kernel_size: usize,
    /// The convolution and the projections have biases.
    pub(crate) bias: bool,
}

/// Gated delta net (<https://arxiv.org/abs/2412.06464>) as Qwen3-Next has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaNetSpec {
    /// Tokens that the convolution before it sees, the current one included.
    pub(crate) kernel_size: usize,
    pub(crate) num_key_heads: usize,
    /// A multiple of `num_key_heads`.
    pub(crate) num_value_heads: usize,
    pub(crate) key_head_dim: usize,
    pub(crate) value_head_dim: usize,
    /// Value head `h` belongs to key head `h % num_key_heads`, not to `h / (num_value_heads / num_key_heads)`.
    pub(crate) tiled: bool,
    /// How its projections are stored.
    pub(crate) storage: DeltaStorage,
}

/// How the projections of a delta net are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaStorage {
    /// Queries, keys, values and gates in one, the heads of one key head together; corrections and decays likewise.
    Grouped,
    /// Queries, keys and values in one, and the others by themselves.
    Apart,
}

/// Mamba-2 (<https://arxiv.org/abs/2405.21060>) as Granite 4 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MambaSpec {
    /// Tokens that the convolution before it sees, the current one included.
    pub(crate) kernel_size: usize,
    /// The convolution has a bias.
    pub(crate) conv_bias: bool,
    pub(crate) num_heads: usize,
    pub(crate) head_dim: usize,
    /// Of `B` and `C`; divides `num_heads`.
    pub(crate) num_groups: usize,
    pub(crate) state_size: usize,
}

/// Per-layer embeddings, as Gemma 4 has them: what a layer gets for a token is a part of a second embedding and of a
/// projection of the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerLayerSpec {
    /// Tokens in the second embedding.
    pub(crate) vocab_size: usize,
    /// Elements for each layer.
    pub(crate) size: usize,
}

/// What lets a layer's tokens see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MixerKind {
    /// Softmax attention.
    #[default]
    Attention,
    /// See [`ShortConvSpec`].
    ShortConv,
    /// See [`DeltaNetSpec`].
    DeltaNet,
    /// See [`MambaSpec`].
    Mamba,
}

/// Heads of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadShape {
    /// Divides `num_attention_heads`.
    pub(crate) num_key_value_heads: usize,
    /// Elements per head, even.
    pub(crate) head_dim: usize,
}

/// Where a layer's keys and values are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum KeySource {
    /// Projections of their own.
    #[default]
    Own,
    /// One projection: values are keys as they are before their norm.
    KeysAsValues,
    /// An earlier layer's, with the same heads and the same window.
    Layer(usize),
}

/// What may differ from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// With `Some(w)`, the query at position `p` sees the keys at positions `p - w + 1 ..= p` (the last `w`, itself
    /// included); without, all up to `p`. As transformers has it: `kv_idx > q_idx - sliding_window`
    /// (`masking_utils.py`, `sliding_window_overlay`). Of an encoder it also sees those at `p + 1 ..= p + w - 1`.
    pub(crate) window: Option<usize>,
    /// Index in [`DecoderSpec::ropes`]; `None`: no rotation.
    pub(crate) rope: Option<usize>,
    /// The MLP is [`DecoderSpec::moe`].
    pub(crate) moe: bool,
    pub(crate) mixer: MixerKind,
    /// The first half has the family's norm before it, if there is one.
    pub(crate) input_norm: bool,
    /// Heads that are not as the model has them.
    pub(crate) heads: Option<HeadShape>,
    pub(crate) keys: KeySource,
    /// Elements between a dense MLP's projections, where they are not as many as the model has.
    pub(crate) intermediate_size: Option<usize>,
}

impl Default for LayerSpec {
    fn default() -> Self {
        LayerSpec {
            window: None,
            rope: Some(0),
            moe: false,
            mixer: MixerKind::Attention,
            heads: None,
            keys: KeySource::Own,
            intermediate_size: None,
            input_norm: true,
        }
    }
}
