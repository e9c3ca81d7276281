//! Llama: the decoder that the others differ from.
//! Source: transformers 5, `models/llama/configuration_llama.py` and `modeling_llama.py`.

use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::rope_scaling::RopeSpec;
use crate::model::spec::{Activation, DecoderSpec, LayerSpec};

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..DecoderSpec::plain(config)?
    })
}

impl DecoderSpec {
    /// The settings that all of Llama's relatives have in common: no biases, no norms on heads, no windows.
    pub(super) fn plain(config: &ModelConfig) -> Result<DecoderSpec> {
        let hidden_size = config.usize("hidden_size")?;
        let num_hidden_layers = config.usize("num_hidden_layers")?;
        let num_attention_heads = config.usize("num_attention_heads")?;
        let head_dim = match config.opt_usize("head_dim")? {
            Some(head_dim) => head_dim,
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                let expected =
                    format!("a divisor of hidden_size, which is {hidden_size}, as there is no head_dim");
                return Err(config.invalid("num_attention_heads", &expected));
            }
        };
        Ok(DecoderSpec {
            architecture: "LlamaForCausalLM",
            vocab_size: config.usize("vocab_size")?,
            hidden_size,
            intermediate_size: config.usize("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: config.opt_usize("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            rms_norm_eps: config.f32("rms_norm_eps")?,
            qk_norm: None,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            activation: Activation::parse(config, "hidden_act")?,
            rope: RopeSpec::parse(config, head_dim)?,
            layers: vec![LayerSpec::default(); num_hidden_layers],
            tie_word_embeddings: config.bool_or("tie_word_embeddings", false)?,
            max_position_embeddings: config.usize("max_position_embeddings")?,
            bos: config.opt_token_id("bos_token_id")?,
            eos: config.token_ids("eos_token_id")?,
        })
    }
}
