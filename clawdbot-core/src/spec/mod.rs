//! `DecoderSpec`: everything that tells one decoder (or encoder) from another, as data, and how it is read from `config.json`.

mod check;
pub(crate) mod config;
mod config_keys;
pub(crate) mod embedding;
mod families;
pub(crate) mod generation;
pub(crate) mod gguf;
mod layer;
pub(crate) mod mixer_names;
mod moe;
pub(crate) mod names;
mod naming;
pub(crate) mod packing;
pub(crate) mod registry;
pub(crate) mod rope_scaling;
pub(crate) mod tensors;

use self::config::ModelConfig;
use self::embedding::Pooling;
use self::names::Names;
use self::rope_scaling::RopeSpec;
use crate::error::Result;
pub(crate) use clawdbot_kernels::Activation;
pub(crate) use layer::{
    AttentionSpec, DeltaNetSpec, DeltaStorage, HeadShape, KeySource, LayerSpec, MambaSpec, MixerKind,
    MlaSpec, NormSpec, PerLayerSpec, ShortConvSpec,
};
pub(crate) use moe::{ExpertGroups, ExpertStorage, MoeSpec, Scoring, SharedExpert};

/// A decoder-only transformer with rotary positions and gated MLPs, or an encoder. Fields are named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderSpec {
    /// Name in the registry, such as `LlamaForCausalLM`.
    pub(crate) architecture: &'static str,
    /// Tokens in the vocabulary: rows of the embedding.
    pub(crate) vocab_size: usize,
    /// Elements of the residual stream.
    pub(crate) hidden_size: usize,
    /// Elements between a dense MLP's projections.
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    /// Query heads per layer.
    pub(crate) num_attention_heads: usize,
    /// Key and value heads per layer; divides `num_attention_heads`.
    pub(crate) num_key_value_heads: usize,
    /// Elements per head, even. `num_attention_heads * head_dim` need not be `hidden_size`.
    pub(crate) head_dim: usize,
    /// Added to the mean square (or the variance) in every norm of the residual stream.
    pub(crate) rms_norm_eps: f32,
    /// Norms of the residual stream and of heads.
    pub(crate) norm: NormKind,
    /// RMSNorm of queries and keys before the rotation.
    pub(crate) qk_norm: Option<NormSpec>,
    /// RMSNorm of each head of values, without gains.
    pub(crate) value_norm: bool,
    /// The projections of q, k and v have biases.
    pub(crate) qkv_bias: bool,
    /// The output projection of attention has a bias.
    pub(crate) o_bias: bool,
    /// The three projections of the MLP have biases.
    pub(crate) mlp_bias: bool,
    /// The MLP has a gate next to its projection up.
    pub(crate) mlp_gate: bool,
    /// Applied to the gate projection, or to the only one.
    pub(crate) activation: Activation,
    pub(crate) attention: AttentionSpec,
    /// Multi-head latent attention: keys and values are kept compressed.
    pub(crate) mla: Option<MlaSpec>,
    /// Of the layers that are [`MixerKind::ShortConv`].
    pub(crate) short_conv: Option<ShortConvSpec>,
    /// Of the layers that are [`MixerKind::DeltaNet`].
    pub(crate) delta_net: Option<DeltaNetSpec>,
    /// Of the layers that are [`MixerKind::Mamba`].
    pub(crate) mamba: Option<MambaSpec>,
    /// The expert layers' MLPs.
    pub(crate) moe: Option<MoeSpec>,
    /// Every token sees all others of its sequence (or of its window), also those after it: an encoder, which generates
    /// nothing.
    pub(crate) bidirectional: bool,
    /// What is added to rows of the embedding.
    pub(crate) input: InputSpec,
    /// What becomes of a sequence's pooled state.
    pub(crate) dense_head: Vec<DenseSpec>,
    /// There is no output projection, though states are a decoder's: nothing is generated.
    pub(crate) headless: bool,
    /// The result of `dense_head` is a score, of states pooled like this.
    pub(crate) scores: Option<Pooling>,
    /// Rotations that layers choose from.
    pub(crate) ropes: Vec<RopeSpec>,
    /// One per layer, in order.
    pub(crate) layers: Vec<LayerSpec>,
    /// What rows of the embedding are multiplied with.
    pub(crate) embedding_multiplier: f32,
    /// What attention and MLP are multiplied with before they are added to the residual stream.
    pub(crate) residual_multiplier: f32,
    /// What logits are multiplied with.
    pub(crate) logit_scale: f32,
    /// Then `logit = cap * tanh(logit / cap)`.
    pub(crate) final_logit_softcapping: Option<f32>,
    /// A second embedding; each layer gets its own part.
    pub(crate) per_layer_inputs: Option<PerLayerSpec>,
    /// Each layer multiplies the residual stream with a number in the end.
    pub(crate) layer_scalars: bool,
    /// The output projection is the embedding.
    pub(crate) tie_word_embeddings: bool,
    /// Tokens that the model was made for.
    pub(crate) max_position_embeddings: usize,
    /// Beginning-of-sequence token as `config.json` has it.
    pub(crate) bos: Option<u32>,
    /// End-of-sequence tokens as `config.json` has them.
    pub(crate) eos: Vec<u32>,
    /// How the family names its tensors, and which norms it has where.
    pub(crate) names: Names,
}

/// A kind of norm over a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NormKind {
    /// `x * gain / sqrt(mean(x^2) + eps)`; `offset` is added to the gains as they are stored.
    Rms {
        /// 0 or 1.
        offset: f32,
    },
    /// `(x - mean(x)) * gain / sqrt(var(x) + eps) + bias`.
    Layer {
        /// Whether there is one.
        bias: bool,
    },
}

/// What is added to rows of the embedding before the first layer; encoders have these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InputSpec {
    /// A learned row for each position.
    pub(crate) positions: Option<PositionSpec>,
    /// Rows for kinds of tokens: 0, or 1 in the second text of a pair.
    pub(crate) token_types: Option<usize>,
    /// The sum is normed.
    pub(crate) norm: bool,
}

/// Learned positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PositionSpec {
    pub(crate) rows: usize,
    /// Row of position 0.
    pub(crate) first: usize,
}

/// A layer after pooling: `norm(activation(weight * x + bias))`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseSpec {
    /// Of its tensors.
    pub(crate) module: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bias: bool,
    pub(crate) activation: Option<Activation>,
    /// Module of a norm of the model's kind.
    pub(crate) norm: Option<&'static str>,
}

impl NormKind {
    /// What is added to stored gains.
    pub(crate) fn offset(self) -> f32 {
        match self {
            NormKind::Rms { offset } => offset,
            NormKind::Layer { .. } => 0.0,
        }
    }
}

impl DecoderSpec {
    /// Tokens beyond which a sequence is rotated otherwise, from its beginning on.
    pub(crate) fn longrope_from(&self) -> Option<usize> {
        self.ropes.iter().filter_map(|rope| rope.long.as_ref()).map(|long| long.from).min()
    }

    /// Whether it can say what comes next.
    pub(crate) fn generates(&self) -> bool {
        !self.bidirectional && self.scores.is_none() && !self.headless
    }

    /// What it is for: the names of functions.
    pub(crate) fn tasks(&self) -> Vec<&'static str> {
        match self.scores {
            Some(_) => vec!["rerank"],
            None if self.generates() => vec!["generate", "embed"],
            None => vec!["embed"],
        }
    }

    /// Elements of what becomes of a pooled state.
    pub(crate) fn pooled_size(&self) -> usize {
        self.dense_head.last().map_or(self.hidden_size, |dense| dense.outputs)
    }

    /// Whether the embedding is to be the output projection, which a file may contradict.
    pub(crate) fn may_have_own_head(&self) -> bool {
        self.tie_word_embeddings && !self.headless && !self.bidirectional
    }

    /// Heads of layer `layer`.
    pub(crate) fn heads(&self, layer: usize) -> HeadShape {
        let (num_key_value_heads, head_dim) = (self.num_key_value_heads, self.head_dim);
        self.layers[layer].heads.unwrap_or(HeadShape { num_key_value_heads, head_dim })
    }
}

/// `hidden_act` -> activation.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu", Activation::Gelu),
    ("relu", Activation::Relu),
];

/// The activation that `config.json` names by `key`.
///
/// # Errors
/// `UnsupportedModel` for any other name.
pub(crate) fn activation(config: &ModelConfig, key: &str) -> Result<Activation> {
    let found = config.str(key)?;
    let known = ACTIVATIONS.iter().find(|(name, _)| *name == found);
    known.map(|&(_, activation)| activation).ok_or_else(|| {
        let names: Vec<&str> = ACTIVATIONS.iter().map(|&(name, _)| name).collect();
        config.unsupported(key, &format!("one of {}", names.join(", ")))
    })
}
