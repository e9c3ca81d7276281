//! What layers are made of: attention and the other token mixers.

/// RMSNorm: `x * gain / sqrt(mean(x^2) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) eps: f32,
    /// Whether it covers all heads at once, with a gain for each element, instead of each head separately.
    pub(crate) whole: bool,
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

/// Multi-head latent attention (DeepSeek-V2, <https://arxiv.org/abs/2405.04434>). The cache keeps one key of
/// `qk_rope_head_dim + kv_lora_rank` elements for each token, shared by all heads. So attention itself has one key
/// head, and `head_dim` is that sum: queries and outputs are projected to and from the compressed space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MlaSpec {
    /// Elements between the two projections of queries; `None`: a single projection.
    pub(crate) q_lora_rank: Option<usize>,
    /// Elements of the latent vector from which keys and values are projected.
    pub(crate) kv_lora_rank: usize,
    /// Elements of a head without rotation.
    pub(crate) qk_nope_head_dim: usize,
    /// Elements of a head with rotation; all heads share these elements of the keys.
    pub(crate) qk_rope_head_dim: usize,
    /// Elements of a head's values.
    pub(crate) v_head_dim: usize,
}

/// A gated convolution over the last tokens (LFM2): `out(C * conv(B * x))`, with `B`, `C` and `x` projected from the
/// input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortConvSpec {
    /// Tokens in the convolution's window, the current one included.
    pub(crate) kernel_size: usize,
    /// Whether convolution and projections have biases.
    pub(crate) bias: bool,
}

/// Gated DeltaNet (<https://arxiv.org/abs/2412.06464>) as in Qwen3-Next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaNetSpec {
    /// Tokens in the window of the convolution before it, the current one included.
    pub(crate) kernel_size: usize,
    pub(crate) num_key_heads: usize,
    /// A multiple of `num_key_heads`.
    pub(crate) num_value_heads: usize,
    pub(crate) key_head_dim: usize,
    pub(crate) value_head_dim: usize,
    /// Whether value head `h` uses key head `h % num_key_heads`, instead of `h / (num_value_heads / num_key_heads)`.
    pub(crate) tiled: bool,
    /// How its projections are stored.
    pub(crate) storage: DeltaStorage,
}

/// How the projections of a DeltaNet layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaStorage {
    /// Queries, keys, values and gates in one tensor, grouped by key head; corrections and decays likewise.
    Grouped,
    /// Queries, keys and values in one tensor, the others in one each.
    Apart,
}

/// Mamba-2 (<https://arxiv.org/abs/2405.21060>) as in Granite 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MambaSpec {
    /// Tokens in the window of the convolution before it, the current one included.
    pub(crate) kernel_size: usize,
    /// Whether the convolution has a bias.
    pub(crate) conv_bias: bool,
    pub(crate) num_heads: usize,
    pub(crate) head_dim: usize,
    /// Groups of `B` and `C`; divides `num_heads`.
    pub(crate) num_groups: usize,
    pub(crate) state_size: usize,
}

/// Per-layer embeddings of Gemma 4: the input of a layer for a token is a slice of a second embedding plus a slice of a
/// projection of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerLayerSpec {
    /// Rows of the second embedding.
    pub(crate) vocab_size: usize,
    /// Elements for each layer.
    pub(crate) size: usize,
}

/// The token mixer of a layer.
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

/// The source of a layer's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum KeySource {
    /// Projections of its own.
    #[default]
    Own,
    /// One projection: the values are the keys before their norm.
    KeysAsValues,
    /// Those of an earlier layer with the same heads and window.
    Layer(usize),
}

/// Settings that may differ between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// `Some(w)`: the query at position `p` sees the keys at positions `p - w + 1 ..= p` (the last `w`, itself
    /// included), as in transformers: `kv_idx > q_idx - sliding_window` (`masking_utils.py`, `sliding_window_overlay`).
    /// In an encoder it also sees those at `p + 1 ..= p + w - 1`. `None`: all keys up to `p`.
    pub(crate) window: Option<usize>,
    /// Index in [`DecoderSpec::ropes`]; `None`: no rotation.
    pub(crate) rope: Option<usize>,
    /// Whether the MLP is [`DecoderSpec::moe`].
    pub(crate) moe: bool,
    pub(crate) mixer: MixerKind,
    /// Whether the family's norm, if there is one, comes before the first half.
    pub(crate) input_norm: bool,
    /// Heads that differ from the model's.
    pub(crate) heads: Option<HeadShape>,
    pub(crate) keys: KeySource,
    /// Elements between the projections of a dense MLP, if they differ from the model's.
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
