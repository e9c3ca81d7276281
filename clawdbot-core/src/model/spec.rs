//! `DecoderSpec`: everything that tells one decoder from another, as data.

use super::config::ModelConfig;
use super::rope_scaling::RopeSpec;
use crate::error::{Error, Result};
pub(crate) use crate::kernels::Activation;

/// A decoder-only transformer with pre-norm blocks, rotary positions and a gated MLP. Fields are named as in
/// `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderSpec {
    /// Name in the registry, such as `LlamaForCausalLM`.
    pub(crate) architecture: &'static str,
    /// Tokens in the vocabulary: rows of the embedding.
    pub(crate) vocab_size: usize,
    /// Elements of the residual stream.
    pub(crate) hidden_size: usize,
    /// Elements between the MLP's projections.
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    /// Query heads per layer.
    pub(crate) num_attention_heads: usize,
    /// Key and value heads per layer; divides `num_attention_heads`.
    pub(crate) num_key_value_heads: usize,
    /// Elements per head, even. `num_attention_heads * head_dim` need not be `hidden_size`.
    pub(crate) head_dim: usize,
    /// Added to the mean square in every RMSNorm of the residual stream.
    pub(crate) rms_norm_eps: f32,
    /// RMSNorm of each query and key head, `[head_dim]`, before the rotation.
    pub(crate) qk_norm: Option<NormSpec>,
    /// The projections of q, k and v have biases.
    pub(crate) qkv_bias: bool,
    /// The output projection of attention has a bias.
    pub(crate) o_bias: bool,
    /// The three projections of the MLP have biases.
    pub(crate) mlp_bias: bool,
    /// Applied to the gate projection.
    pub(crate) activation: Activation,
    pub(crate) rope: RopeSpec,
    /// One per layer, in order.
    pub(crate) layers: Vec<LayerSpec>,
    /// The output projection is the embedding.
    pub(crate) tie_word_embeddings: bool,
    /// Tokens that the model was made for.
    pub(crate) max_position_embeddings: usize,
    /// Beginning-of-sequence token as `config.json` has it.
    pub(crate) bos: Option<u32>,
    /// End-of-sequence tokens as `config.json` has them.
    pub(crate) eos: Vec<u32>,
}

/// RMSNorm: `x * gain / sqrt(mean(x^2) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) eps: f32,
}

/// What may differ from layer to layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// With `Some(w)`, the query at position `p` sees the keys at positions `p - w + 1 ..= p` (the last `w`, itself
    /// included); without, all up to `p`. As transformers has it: `kv_idx > q_idx - sliding_window`
    /// (`masking_utils.py`, `sliding_window_overlay`).
    pub(crate) window: Option<usize>,
}

impl Activation {
    /// `hidden_act` -> activation.
    const NAMES: &[(&str, Activation)] = &[("silu", Activation::Silu), ("swish", Activation::Silu)];

    /// The activation that `config.json` names by `key`.
    ///
    /// # Errors
    /// `UnsupportedModel` for any other name.
    pub(super) fn parse(config: &ModelConfig, key: &str) -> Result<Activation> {
        let found = config.str(key)?;
        let known = Self::NAMES.iter().find(|(name, _)| *name == found);
        known.map(|&(_, activation)| activation).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|&(name, _)| name).collect();
            config.unsupported(key, &format!("one of {}", names.join(", ")))
        })
    }
}

impl DecoderSpec {
    /// Checks what the fields must satisfy together.
    ///
    /// # Errors
    /// `InvalidModel` naming the field, expected and found.
    pub(super) fn check(&self) -> Result<()> {
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
        let heads = self.num_attention_heads;
        let divides = format!("a divisor of num_attention_heads, which is {heads}");
        let kv_heads = self.num_key_value_heads;
        expect(heads.is_multiple_of(kv_heads), "num_key_value_heads", &divides, kv_heads)?;
        expect(self.head_dim.is_multiple_of(2), "head_dim", "an even number", self.head_dim)?;
        let rotary = self.rope.rotary_dim;
        let fits = rotary <= self.head_dim && self.rope.inv_freq.len() * 2 == rotary;
        expect(fits, "rotary dimension", "at most head_dim", rotary)?;
        let eps = self.rms_norm_eps;
        expect(eps.is_finite() && eps >= 0.0, "rms_norm_eps", "a finite number >= 0", eps)?;
        expect(
            self.layers.len() == self.num_hidden_layers,
            "layers",
            "num_hidden_layers",
            self.layers.len(),
        )?;
        for layer in &self.layers {
            expect(layer.window != Some(0), "sliding_window", "a positive integer", 0)?;
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

    /// Elements in all matrices; `None` if absurd, or if one matrix alone exceeds `usize`.
    fn parameters(&self) -> Option<u64> {
        let product = |a: usize, b: usize| a.checked_mul(b).map(|product| product as u64);
        let q = product(self.num_attention_heads, self.head_dim)?;
        let kv = product(self.num_key_value_heads, self.head_dim)?;
        let hidden = self.hidden_size as u64;
        let attention = q.checked_add(kv)?.checked_mul(2)?.checked_mul(hidden)?;
        let mlp = product(self.intermediate_size, self.hidden_size)?.checked_mul(3)?;
        let layers = attention.checked_add(mlp)?.checked_mul(self.num_hidden_layers as u64)?;
        let embeddings = product(self.vocab_size, self.hidden_size)?.checked_mul(2)?;
        layers.checked_add(embeddings).filter(|&total| total < 1 << 60)
    }
}

fn expect(holds: bool, key: &str, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    let message = format!("{key}: expected {expected}, found {found}");
    Err(Error::invalid_model(message).with("key", key).with("found", found.to_string()))
}
