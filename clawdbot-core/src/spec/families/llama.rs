//! Llama: the decoder that the others differ from.
//! Source: transformers 5, `models/llama/configuration_llama.py` and `modeling_llama.py`.

use super::{Family, architecture, one_of};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{self, Activation, AttentionSpec, DecoderSpec, InputSpec, LayerSpec, NormKind, names};

pub(super) const FAMILY: Family =
    Family { architectures: &[architecture("LlamaForCausalLM", "llama", parse)], gguf: &[GgufFamily::LLAMA] };

pub(super) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..DecoderSpec::plain(config)?
    })
}

/// The keys of a family's settings, and their defaults.
pub(super) struct Keys {
    pub(super) hidden_size: &'static str,
    pub(super) num_hidden_layers: &'static str,
    pub(super) num_attention_heads: &'static str,
    pub(super) max_position_embeddings: &'static str,
    /// Key of the norms' epsilon.
    pub(super) eps: &'static str,
    /// Default epsilon.
    pub(super) default_eps: Option<f32>,
    /// Keys of the MLP's size.
    pub(super) intermediate_size: &'static [&'static str],
    /// Its multiple of `hidden_size` if there is no key; `None`: a key is required.
    pub(super) intermediate_multiple: Option<usize>,
    /// Key of the activation; `None`: SiLU, unless the family changes it.
    pub(super) activation: Option<&'static str>,
    /// Whether the output projection is tied to the embedding by default.
    pub(super) tied: bool,
}

impl Keys {
    /// Those of Llama.
    pub(super) const LLAMA: Keys = Keys {
        hidden_size: "hidden_size",
        num_hidden_layers: "num_hidden_layers",
        num_attention_heads: "num_attention_heads",
        max_position_embeddings: "max_position_embeddings",
        eps: "rms_norm_eps",
        default_eps: None,
        intermediate_size: &["intermediate_size"],
        intermediate_multiple: None,
        activation: Some("hidden_act"),
        tied: false,
    };
}

impl DecoderSpec {
    /// The settings common to families like Llama: no biases, no norms on heads, no windows.
    pub(super) fn plain(config: &ModelConfig) -> Result<DecoderSpec> {
        let plain = Self::with_keys(config, &Keys::LLAMA)?;
        Ok(DecoderSpec {
            ropes: vec![RopeSpec::parse(config, plain.head_dim, RopeDefaults::LLAMA)?],
            ..plain
        })
    }

    /// As [`DecoderSpec::plain`], without a rotation, for families with other keys.
    pub(super) fn with_keys(config: &ModelConfig, keys: &Keys) -> Result<DecoderSpec> {
        Self::with_layers(config, keys, config.usize(keys.num_hidden_layers)?)
    }

    /// As [`DecoderSpec::with_keys`], for families whose number of layers has no key.
    pub(super) fn with_layers(
        config: &ModelConfig,
        keys: &Keys,
        num_hidden_layers: usize,
    ) -> Result<DecoderSpec> {
        let hidden_size = config.usize(keys.hidden_size)?;
        let num_attention_heads = config.usize(keys.num_attention_heads)?;
        let head_dim = match config.opt_usize("head_dim")? {
            Some(head_dim) => head_dim,
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                let expected =
                    format!("a divisor of hidden_size, which is {hidden_size}, as there is no head_dim");
                return Err(config.invalid(keys.num_attention_heads, &expected));
            }
        };
        Ok(DecoderSpec {
            architecture: "LlamaForCausalLM",
            vocab_size: config.usize("vocab_size")?,
            hidden_size,
            intermediate_size: match keys.intermediate_multiple {
                Some(multiple) if keys.intermediate_size.iter().all(|key| config.get(key).is_none()) => {
                    hidden_size.saturating_mul(multiple)
                }
                _ => one_of(config, keys.intermediate_size)?,
            },
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: config.opt_usize("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            rms_norm_eps: match (config.opt_f32(keys.eps)?, keys.default_eps) {
                (None, Some(eps)) => eps,
                _ => config.f32(keys.eps)?,
            },
            norm: NormKind::Rms { offset: 0.0 },
            qk_norm: None,
            value_norm: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            mlp_gate: true,
            transposed: false,
            activation: match keys.activation {
                Some(key) => spec::activation(config, key)?,
                None => Activation::Silu,
            },
            xielu: false,
            attention: AttentionSpec::of_width(head_dim as f64),
            moe: None,
            bidirectional: false,
            input: InputSpec::default(),
            dense_head: Vec::new(),
            scores: None,
            headless: false,
            ropes: Vec::new(),
            layers: vec![LayerSpec::default(); num_hidden_layers],
            embedding_multiplier: 1.0,
            residual_multiplier: 1.0,
            logit_scale: 1.0,
            final_logit_softcapping: None,
            per_layer_inputs: None,
            streams: None,
            low_rank: None,
            layer_scalars: false,
            tie_word_embeddings: config.bool_or("tie_word_embeddings", keys.tied)?,
            lm_head_bias: false,
            max_position_embeddings: config.usize(keys.max_position_embeddings)?,
            bos: config.opt_token_id("bos_token_id")?,
            eos: config.token_ids("eos_token_id")?,
            names: names::LLAMA,
        })
    }
}
