//! `DecoderSpec`: everything that tells one decoder (or encoder) from another, as data, and how it is read from `config.json`.

pub(crate) mod config;
mod config_keys;
pub(crate) mod embedding;
mod families;
pub(crate) mod generation;
pub(crate) mod mixer_names;
pub(crate) mod names;
pub(crate) mod registry;
pub(crate) mod rope_scaling;
pub(crate) mod tensors;

use self::config::ModelConfig;
use self::embedding::Pooling;
use self::names::Names;
use self::rope_scaling::RopeSpec;
use crate::error::{Error, Result};
pub(crate) use clawdbot_kernels::Activation;

/// Most experts (and heads that are projected each by itself) of all layers together that are taken for a real model's:
/// the names of their tensors take up to 60 MB.
const MAX_EXPERTS: usize = 1 << 15;

/// Largest sizes of latent attention and recurrent layers that are taken for a real model's: products of three fit.
const MAX_MIXER_SIZE: usize = 1 << 16;

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
    /// The MLP has a gate beside its projection up.
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
    /// Every token sees all others of its sequence (or of its window), also those behind it: an encoder, which generates
    /// nothing.
    pub(crate) bidirectional: bool,
    /// What is added to rows of the embedding.
    pub(crate) input: InputSpec,
    /// What becomes of a sequence's pooled state.
    pub(crate) chain: Vec<DenseSpec>,
    /// There is no output projection, though states are a decoder's: nothing is generated.
    pub(crate) headless: bool,
    /// The result of `chain` is a score, of states pooled like this.
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
    /// A second embedding, of which each layer gets a part of its own.
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

/// A layer behind the pooling: `norm(activation(weight * x + bias))`.
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
    pub(crate) taps: usize,
    /// The convolution and the projections have biases.
    pub(crate) bias: bool,
}

/// Gated delta net (<https://arxiv.org/abs/2412.06464>) as Qwen3-Next has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaNetSpec {
    /// Tokens that the convolution before it sees, the current one included.
    pub(crate) taps: usize,
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
    pub(crate) taps: usize,
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

/// An MLP of which each token uses some parts only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MoeSpec {
    pub(crate) num_experts: usize,
    /// Experts of each token.
    pub(crate) num_experts_per_tok: usize,
    /// Elements between an expert's projections.
    pub(crate) intermediate_size: usize,
    /// What makes weights of the router's logits.
    pub(crate) scoring: Scoring,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub(crate) norm_topk_prob: bool,
    /// What they are multiplied with then.
    pub(crate) routed_scaling_factor: f32,
    /// Experts in `n_group` groups, of which the best `topk_group` may be chosen from.
    pub(crate) groups: Option<ExpertGroups>,
    /// The router has a bias.
    pub(crate) router_bias: bool,
    /// Experts have biases.
    pub(crate) expert_bias: bool,
    /// An MLP that all tokens use.
    pub(crate) shared: Option<SharedExpert>,
    /// The experts are beside a dense MLP and read the residual stream by norms of their own, as does the router.
    pub(crate) beside_dense: bool,
    /// How experts are stored.
    pub(crate) storage: ExpertStorage,
}

/// See [`MoeSpec::scoring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scoring {
    /// Over all experts.
    Softmax,
    /// Of each expert by itself, with a correction that counts for the choice alone.
    Sigmoid,
}

/// See [`MoeSpec::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpertGroups {
    pub(crate) n_group: usize,
    pub(crate) topk_group: usize,
}

/// See [`MoeSpec::shared`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedExpert {
    pub(crate) intermediate_size: usize,
    /// Multiplied by the sigmoid of a projection of its own.
    pub(crate) gated: bool,
}

/// How the experts of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertStorage {
    /// Three matrices for each.
    Separate,
    /// All in one tensor, `[experts, outputs, inputs]`, gate before up.
    JoinedRows,
    /// All in one tensor, `[experts, inputs, outputs]`, with gate and up in turn.
    Joined,
    /// As `Joined`, but `[experts, outputs, inputs]` in MXFP4 blocks with scales.
    JoinedMxfp4,
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

impl DecoderSpec {
    /// Checks what the fields must satisfy together.
    ///
    /// # Errors
    /// `InvalidModel` naming the field, expected and found.
    pub(crate) fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (key, size) in sizes {
            expect(size > 0, key, "a positive integer", size)?;
        }
        self.check_heads(HeadShape {
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        })?;
        let eps = self.rms_norm_eps;
        expect(eps.is_finite() && eps >= 0.0, "rms_norm_eps", "a finite number >= 0", eps)?;
        expect(
            self.layers.len() == self.num_hidden_layers,
            "layers",
            "num_hidden_layers",
            self.layers.len(),
        )?;
        for (index, layer) in self.layers.iter().enumerate() {
            self.check_keys(index)?;
            expect(layer.intermediate_size != Some(0), "intermediate_size", "a positive integer", 0)?;
            expect(layer.window != Some(0), "sliding_window", "a positive integer", 0)?;
            expect(
                layer.rope.is_none_or(|rope| rope < self.ropes.len()),
                "rope",
                "one of the model's",
                "another",
            )?;
            expect(!layer.moe || self.moe.is_some(), "experts", "some", "none")?;
            let described = match layer.mixer {
                MixerKind::Attention => true,
                MixerKind::ShortConv => self.short_conv.is_some(),
                MixerKind::DeltaNet => self.delta_net.is_some(),
                MixerKind::Mamba => self.mamba.is_some(),
            };
            expect(described, "recurrent layers", "their sizes", "none")?;
        }
        let multipliers = [
            ("embedding_multiplier", self.embedding_multiplier),
            ("residual_multiplier", self.residual_multiplier),
            ("logit_scale", self.logit_scale),
            ("attention_multiplier", self.attention.divisor),
            ("final_logit_softcapping", self.final_logit_softcapping.unwrap_or(1.0)),
            ("attn_logit_softcapping", self.attention.softcap.unwrap_or(1.0)),
        ];
        for (key, value) in multipliers {
            expect(value.is_finite() && value > 0.0, key, "a finite number > 0", value)?;
        }
        self.check_mixers()?;
        self.check_encoder()?;
        if let Some(moe) = &self.moe {
            moe.check()?;
            let all = self.layers.iter().filter(|layer| layer.moe).count().saturating_mul(moe.num_experts);
            expect(all <= MAX_EXPERTS, "experts of all layers", &format!("at most {MAX_EXPERTS}"), all)?;
        }
        for id in self.bos.iter().chain(&self.eos) {
            let vocab = format!("below vocab_size, which is {}", self.vocab_size);
            expect((*id as usize) < self.vocab_size, "bos_token_id or eos_token_id", &vocab, id)?;
        }
        self.parameters().map(|_| ()).ok_or_else(|| {
            Error::invalid_model(
                "the sizes of the model: expected a number of weights below 2^60, found more",
            )
        })
    }

    /// Tokens beyond which a sequence is rotated otherwise, from its beginning on.
    pub(crate) fn longrope_from(&self) -> Option<usize> {
        self.ropes.iter().filter_map(|rope| rope.long.as_ref()).map(|long| long.from).min()
    }

    fn check_encoder(&self) -> Result<()> {
        let fits = |rows: usize, width: usize| rows.checked_mul(width).is_some_and(|size| size < 1 << 31);
        if let Some(PositionSpec { rows, first }) = self.input.positions {
            let expected = "less than 2^31 weights in them";
            expect(fits(rows, self.hidden_size), "max_position_embeddings", expected, rows)?;
            let most = rows.saturating_sub(first);
            let expected = format!("at most the {most} positions that there are rows for");
            let found = self.max_position_embeddings;
            expect(found <= most, "max_position_embeddings", &expected, found)?;
        }
        let types = self.input.token_types.unwrap_or(1);
        let expected = format!("an integer from 1 to {MAX_MIXER_SIZE}");
        let few = types > 0 && types <= MAX_MIXER_SIZE && fits(types, self.hidden_size);
        expect(few, "type_vocab_size", &expected, types)?;
        let plain = self.layers.iter().all(|layer| layer.mixer == MixerKind::Attention && !layer.moe);
        let plain = plain && self.mla.is_none();
        expect(plain || !self.bidirectional, "layers of an encoder", "attention and MLPs", "others")?;
        let mut width = self.hidden_size;
        for dense in &self.chain {
            expect(dense.inputs == width, &dense.module, &format!("{width} inputs"), dense.inputs)?;
            width = dense.outputs;
            let few = width > 0 && fits(dense.inputs, width);
            expect(few, &dense.module, "some outputs, but less than 2^31 weights", width)?;
        }
        expect(self.scores.is_none() || width == 1, "number of labels", "1: a score", width)
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
        self.chain.last().map_or(self.hidden_size, |dense| dense.outputs)
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

    fn check_heads(&self, HeadShape { num_key_value_heads, head_dim }: HeadShape) -> Result<()> {
        let heads = self.num_attention_heads;
        let divides = format!("a divisor of num_attention_heads, which is {heads}");
        let fits = num_key_value_heads > 0 && heads.is_multiple_of(num_key_value_heads);
        expect(fits, "num_key_value_heads", &divides, num_key_value_heads)?;
        expect(head_dim > 0 && head_dim.is_multiple_of(2), "head_dim", "an even number", head_dim)
    }

    /// Checks a layer's heads, its rotation, and where its keys are from.
    fn check_keys(&self, index: usize) -> Result<()> {
        let (layer, heads) = (&self.layers[index], self.heads(index));
        self.check_heads(heads)?;
        if let Some(RopeSpec { rotary_dim, inv_freq, .. }) = layer.rope.and_then(|rope| self.ropes.get(rope))
        {
            let fits = *rotary_dim <= heads.head_dim && inv_freq.len() * 2 == *rotary_dim;
            expect(fits, "rotary dimension", "an even number up to head_dim", rotary_dim)?;
        }
        let KeySource::Layer(source) = layer.keys else { return Ok(()) };
        let shares = |other: &LayerSpec| {
            let same = self.heads(source) == heads && other.window == layer.window;
            same && other.mixer == MixerKind::Attention && !matches!(other.keys, KeySource::Layer(_))
        };
        let found = self.layers[..index].get(source).is_some_and(shares);
        expect(found, "num_kv_shared_layers", "layers of the same kind before", "none")
    }

    fn check_mixers(&self) -> Result<()> {
        let mut sizes = Vec::new();
        if let Some(mla) = &self.mla {
            let key = mla.qk_rope_head_dim.saturating_add(mla.kv_lora_rank);
            let fits = self.head_dim == key && self.num_key_value_heads == 1;
            expect(fits, "head_dim", "qk_rope_head_dim + kv_lora_rank", self.head_dim)?;
            let all = self.num_attention_heads.saturating_mul(self.num_hidden_layers);
            expect(all <= MAX_EXPERTS, "heads of all layers", &format!("at most {MAX_EXPERTS}"), all)?;
            sizes.extend([
                ("q_lora_rank", mla.q_lora_rank.unwrap_or(1)),
                ("kv_lora_rank", mla.kv_lora_rank),
                ("qk_nope_head_dim", mla.qk_nope_head_dim),
                ("qk_rope_head_dim", mla.qk_rope_head_dim),
                ("v_head_dim", mla.v_head_dim),
            ]);
        }
        if let Some(conv) = &self.short_conv {
            sizes.push(("conv_L_cache", conv.taps));
        }
        if let Some(delta) = &self.delta_net {
            sizes.extend([
                ("linear_conv_kernel_dim", delta.taps),
                ("linear_num_key_heads", delta.num_key_heads),
                ("linear_num_value_heads", delta.num_value_heads),
                ("linear_key_head_dim", delta.key_head_dim),
                ("linear_value_head_dim", delta.value_head_dim),
            ]);
        }
        if let Some(mamba) = &self.mamba {
            sizes.extend([
                ("mamba_d_conv", mamba.taps),
                ("mamba_n_heads", mamba.num_heads),
                ("mamba_d_head", mamba.head_dim),
                ("mamba_n_groups", mamba.num_groups),
                ("mamba_d_state", mamba.state_size),
            ]);
        }
        if let Some(inputs) = &self.per_layer_inputs {
            sizes.push(("hidden_size_per_layer_input", inputs.size));
            let (vocab, found) = (self.vocab_size, inputs.vocab_size);
            let expected = format!("at least vocab_size, which is {vocab}");
            expect(found >= vocab, "vocab_size_per_layer_input", &expected, found)?;
        }
        for (key, size) in sizes {
            let expected = format!("an integer from 1 to {MAX_MIXER_SIZE}");
            expect(size > 0 && size <= MAX_MIXER_SIZE, key, &expected, size)?;
        }
        if let Some(DeltaNetSpec { num_key_heads, num_value_heads, .. }) = self.delta_net {
            let divides = format!("a multiple of linear_num_key_heads, which is {num_key_heads}");
            let fits = num_value_heads.is_multiple_of(num_key_heads);
            expect(fits, "linear_num_value_heads", &divides, num_value_heads)?;
        }
        if let Some(MambaSpec { num_heads, num_groups, .. }) = self.mamba {
            let divides = format!("a divisor of mamba_n_heads, which is {num_heads}");
            expect(num_heads.is_multiple_of(num_groups), "mamba_n_groups", &divides, num_groups)?;
        }
        Ok(())
    }

    /// Elements in all matrices; `None` if absurd, or if one matrix alone exceeds `usize`.
    fn parameters(&self) -> Option<u64> {
        let product = |a: usize, b: usize| a.checked_mul(b).map(|product| product as u64);
        let widest = (0..self.layers.len()).map(|layer| self.heads(layer).head_dim).max()?;
        let q = product(self.num_attention_heads, widest)?;
        // As many as queries, at most.
        let kv = q;
        let hidden = self.hidden_size as u64;
        let attention = q.checked_add(kv)?.checked_mul(2)?.checked_mul(hidden)?;
        let widest = self.layers.iter().filter_map(|layer| layer.intermediate_size).max();
        let widest = widest.unwrap_or(0).max(self.intermediate_size);
        let mlp = product(widest, self.hidden_size)?.checked_mul(3)?;
        let experts = self.moe.map_or(Some(0), |moe| {
            let all = product(moe.num_experts, moe.intermediate_size)?;
            let shared = moe.shared.map_or(0, |shared| shared.intermediate_size as u64);
            all.checked_add(shared)?.checked_mul(3)?.checked_mul(hidden)
        })?;
        let layers =
            attention.checked_add(mlp)?.checked_add(experts)?.checked_mul(self.num_hidden_layers as u64)?;
        let inputs = self.per_layer_inputs.map_or(Some(0), |inputs| {
            let width = inputs.size.checked_mul(self.num_hidden_layers)?;
            product(width, inputs.vocab_size)?.checked_add(product(width, self.hidden_size)?.checked_mul(3)?)
        })?;
        let embeddings = product(self.vocab_size, self.hidden_size)?.checked_mul(2)?.checked_add(inputs)?;
        layers.checked_add(embeddings).filter(|&total| total < 1 << 60)
    }
}

/// Most experts of a token: published models have up to 22, and time and memory of a pass grow with them.
const MAX_EXPERTS_PER_TOK: usize = 256;

impl MoeSpec {
    fn check(&self) -> Result<()> {
        let sizes = [
            ("num_experts", self.num_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("moe_intermediate_size", self.intermediate_size),
            ("shared_expert_intermediate_size", self.shared.map_or(1, |shared| shared.intermediate_size)),
        ];
        for (key, size) in sizes {
            expect(size > 0, key, "a positive integer", size)?;
        }
        let (experts, chosen) = (self.num_experts, self.num_experts_per_tok);
        let at_most = format!("at most the number of experts, which is {experts}");
        expect(chosen <= experts, "num_experts_per_tok", &at_most, chosen)?;
        let at_most = format!("at most {MAX_EXPERTS_PER_TOK}");
        expect(chosen <= MAX_EXPERTS_PER_TOK, "num_experts_per_tok", &at_most, chosen)?;
        let factor = self.routed_scaling_factor;
        expect(factor.is_finite(), "routed_scaling_factor", "a finite number", factor)?;
        if let Some(ExpertGroups { n_group, topk_group }) = self.groups {
            let divides = format!("a divisor of the number of experts, which is {experts}");
            expect(n_group > 0 && experts.is_multiple_of(n_group), "n_group", &divides, n_group)?;
            let enough = format!("from 1 to {n_group}, with at least {chosen} experts in them");
            let fits = topk_group > 0 && topk_group <= n_group && experts / n_group * topk_group >= chosen;
            expect(fits, "topk_group", &enough, topk_group)?;
        }
        Ok(())
    }
}

fn expect(holds: bool, key: &str, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    let message = format!("{key}: expected {expected}, found {found}");
    Err(Error::invalid_model(message).with("key", key).with("found", found.to_string()))
}
