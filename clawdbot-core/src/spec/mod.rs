//! `DecoderSpec`: a decoder or encoder as data, and how it is read from `config.json`.

mod architecture;
mod check;
pub(crate) mod config;
mod config_keys;
pub(crate) mod embedding;
mod expect;
mod families;
pub(crate) mod generation;
pub(crate) mod gguf;
mod heads;
mod layer;
pub(crate) mod mixers;
mod moe;
pub(crate) mod mtp;
pub(crate) mod names;
mod naming;
pub(crate) mod packing;
pub(crate) mod registry;
pub(crate) mod rope_scaling;
mod streams;
mod tensor_name;
pub(crate) mod tensors;

use self::config::ModelConfig;
use self::names::Names;
use self::rope_scaling::RopeSpec;
use crate::error::Result;
use crate::options::Pooling;
pub(crate) use clawdbot_kernels::Activation;
pub(crate) use heads::{HeadShape, KeySource};
pub(crate) use layer::{AttentionSpec, Halves, LayerSpec, NormSpec, PerLayerSpec};
pub(crate) use mixers::MixerSpec;
pub(crate) use moe::{ChoiceWeights, ExpertGroups, ExpertStorage, MoeSpec, Scoring, SharedExpert};
pub(crate) use streams::StreamsSpec;

/// A decoder-only transformer with rotary positions and gated MLPs, or an encoder. Fields have the names of
/// `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderSpec {
    /// Name in the registry, such as `LlamaForCausalLM`.
    pub(crate) architecture: &'static str,
    /// Tokens in the vocabulary: rows of the embedding.
    pub(crate) vocab_size: usize,
    /// Elements of the residual stream.
    pub(crate) hidden_size: usize,
    /// Elements between the projections of a dense MLP.
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
    /// RMSNorm of queries and keys.
    pub(crate) qk_norm: Option<NormSpec>,
    /// Whether each head of values has an RMSNorm without gains.
    pub(crate) value_norm: bool,
    /// Whether the projections of q, k and v have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub(crate) o_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub(crate) mlp_bias: bool,
    /// Whether the MLP has a gate projection in addition to its up projection.
    pub(crate) mlp_gate: bool,
    /// Whether the projections of attention and MLP are stored as `[inputs, outputs]`.
    pub(crate) transposed: bool,
    /// Activation of the gate projection, or of the up projection if there is no gate.
    pub(crate) activation: Activation,
    /// Whether the activation is xIELU instead, whose parameters each layer stores; for MLPs without a gate.
    pub(crate) xielu: bool,
    pub(crate) attention: AttentionSpec,
    /// The MLPs of expert layers.
    pub(crate) moe: Option<MoeSpec>,
    /// Whether every token sees all others of its sequence (or of its window), later ones included: an encoder, which
    /// generates nothing.
    pub(crate) bidirectional: bool,
    /// Embeddings added to those of the tokens.
    pub(crate) input: InputSpec,
    /// Dense head: layers applied to the pooled state.
    pub(crate) dense_head: Vec<DenseSpec>,
    /// Whether the model has no output projection although it is a decoder, so that it generates nothing.
    pub(crate) headless: bool,
    /// Whether `dense_head` gives a score, and with which pooling.
    pub(crate) scores: Option<Pooling>,
    /// The rotations that layers select from.
    pub(crate) ropes: Vec<RopeSpec>,
    /// One per layer, in order.
    pub(crate) layers: Vec<LayerSpec>,
    /// Factor of the embedding.
    pub(crate) embedding_multiplier: f32,
    /// Factor of what attention and MLP add to the residual stream.
    pub(crate) residual_multiplier: f32,
    /// Factor of the logits.
    pub(crate) logit_scale: f32,
    /// Soft cap of the logits: `cap * tanh(logit / cap)`.
    pub(crate) final_logit_softcapping: Option<f32>,
    /// A second embedding. Each layer gets its own slice of a row.
    pub(crate) per_layer_inputs: Option<PerLayerSpec>,
    /// Residual streams, if there are several.
    pub(crate) streams: Option<StreamsSpec>,
    /// Rank of a block next to the mixer, if layers have one (Laurel): its result and what it read are added to the sum of
    /// the residual stream and the mixer's result, and the sum is divided by the root of 2.
    pub(crate) low_rank: Option<usize>,
    /// Whether each layer multiplies the residual stream by a stored scalar at its end.
    pub(crate) layer_scalars: bool,
    /// Whether the output projection is the embedding.
    pub(crate) tie_word_embeddings: bool,
    /// Whether the output projection has a bias.
    pub(crate) lm_head_bias: bool,
    /// Most tokens of a sequence that the model was made for.
    pub(crate) max_position_embeddings: usize,
    /// Beginning-of-sequence token in `config.json`.
    pub(crate) bos: Option<u32>,
    /// End-of-sequence tokens in `config.json`.
    pub(crate) eos: Vec<u32>,
    /// The family's tensor names, and with them the places of its norms.
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
        /// Whether there is a bias.
        bias: bool,
    },
}

/// Embeddings added to those of the tokens before the first layer; encoders have these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InputSpec {
    /// A learned embedding for each position.
    pub(crate) positions: Option<PositionSpec>,
    /// Number of token types: 0, and 1 for the second text of a pair.
    pub(crate) token_types: Option<usize>,
    /// Whether the sum is normalized.
    pub(crate) norm: bool,
}

/// Learned positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PositionSpec {
    pub(crate) rows: usize,
    /// Row of position 0.
    pub(crate) first: usize,
}

/// A layer of the dense head: `norm(activation(weight * x + bias))`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseSpec {
    /// Module of its tensors.
    pub(crate) module: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bias: bool,
    pub(crate) activation: Option<Activation>,
    /// Module of a norm of the model's kind.
    pub(crate) norm: Option<&'static str>,
}

impl NormKind {
    /// The offset added to stored gains.
    pub(crate) fn offset(self) -> f32 {
        match self {
            NormKind::Rms { offset } => offset,
            NormKind::Layer { .. } => 0.0,
        }
    }
}

impl DecoderSpec {
    /// Most tokens of a sequence before it uses the long frequencies, for all its positions.
    pub(crate) fn longrope_from(&self) -> Option<usize> {
        self.ropes.iter().filter_map(|rope| rope.long.as_ref()).map(|long| long.from).min()
    }

    /// Whether it generates text.
    pub(crate) fn generates(&self) -> bool {
        !self.bidirectional && self.scores.is_none() && !self.headless
    }

    /// What it can be used for: names of functions.
    pub(crate) fn tasks(&self) -> Vec<&'static str> {
        match self.scores {
            Some(_) => vec!["rerank"],
            None if self.generates() => vec!["generate", "embed"],
            None => vec!["embed"],
        }
    }

    /// Elements of a pooled vector, after the dense head.
    pub(crate) fn pooled_size(&self) -> usize {
        self.dense_head.last().map_or(self.hidden_size, |dense| dense.outputs)
    }

    /// Whether the output projection is tied to the embedding unless the file has one.
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
    ("relu2", Activation::SquaredRelu),
];

/// The activation named by `key` of `config.json`.
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
