//! LFM2: short convolutions on most layers, attention with norms on heads on the others.
//! Source: transformers 5, `models/lfm2/configuration_lfm2.py` and `modeling_lfm2.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, layer_types, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::attention::Attention;
use crate::spec::mixers::short_conv::ShortConvSpec;
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec, MixerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Lfm2ForCausalLM", "lfm2", parse)],
    gguf: &[GgufFamily {
        name: "lfm2",
        architecture: "Lfm2ForCausalLM",
        eps: ("attention.layer_norm_rms_epsilon", "norm_eps"),
        names: &[
            ("operator_norm", "attn_norm"),
            ("ffn_norm", "ffn_norm"),
            ("model.embedding_norm", "output_norm"),
            ("self_attn.out_proj", "attn_output"),
            ("self_attn.q_layernorm", "attn_q_norm"),
            ("self_attn.k_layernorm", "attn_k_norm"),
            ("feed_forward.w1", "ffn_gate"),
            ("feed_forward.w3", "ffn_up"),
            ("feed_forward.w2", "ffn_down"),
            ("conv.in_proj", "shortconv.in_proj"),
            ("conv.out_proj", "shortconv.out_proj"),
            ("conv.conv", "shortconv.conv"),
        ],
        renamed: &[("output_norm", "token_embd_norm")],
        keys: &["shortconv.l_cache"],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    input_norm: Some("operator_norm"),
    mlp_norm: Some("ffn_norm"),
    final_norm: Some("model.embedding_norm"),
    o: "self_attn.out_proj",
    q_norm: "self_attn.q_layernorm",
    k_norm: "self_attn.k_layernorm",
    mlp: MlpModules { gate_up: &["feed_forward.w1", "feed_forward.w3"], down: "feed_forward.w2" },
    ..names::LLAMA
};

/// The first checkpoints use the first key.
const SIZES: &[&str] = &["block_ff_dim", "intermediate_size"];

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    only(config, "use_pos_enc", true)?;
    // Other keys in the first checkpoints.
    let tied = config.bool_or("tie_embedding", true)?;
    let plain = DecoderSpec::with_keys(
        config,
        &Keys { eps: "norm_eps", intermediate_size: SIZES, activation: None, tied, ..Keys::LLAMA },
    )?;
    let rope = RopeDefaults { theta: 1e6, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        intermediate_size: intermediate_size(config, plain.intermediate_size)?,
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: layers(config, plain.num_hidden_layers)?,
        names: NAMES,
        ..plain
    })
}

/// `layer_types`, or attention on the layers in `full_attn_idxs`.
fn layers(config: &ModelConfig, count: usize) -> Result<Vec<LayerSpec>> {
    let sizes = ShortConvSpec {
        kernel_size: config.opt_usize("conv_L_cache")?.unwrap_or(3),
        bias: config.bool_or("conv_bias", false)?,
    };
    let layer = |conv: bool| LayerSpec {
        mixer: if conv { MixerSpec::ShortConv(sizes) } else { MixerSpec::Attention(Attention) },
        ..LayerSpec::default()
    };
    if let Some(types) = layer_types(config, count, &["conv", "full_attention"])? {
        return Ok(types.into_iter().map(|kind| layer(kind == "conv")).collect());
    }
    let attention = config.opt_usizes("full_attn_idxs")?;
    let conv = |i: &usize| attention.as_ref().is_some_and(|attention| !attention.contains(i));
    Ok((0..count).map(|i| layer(conv(&i))).collect())
}

/// Two thirds of the configured size, times a factor, rounded up to a multiple.
fn intermediate_size(config: &ModelConfig, size: usize) -> Result<usize> {
    if !config.bool_or("block_auto_adjust_ff_dim", true)? {
        return Ok(size);
    }
    let factor = config.opt_f64("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    if !(factor > 0.0 && factor <= 100.0) {
        return Err(config.invalid("block_ffn_dim_multiplier", "a number > 0, up to 100"));
    }
    let multiple = config.opt_usize("block_multiple_of")?.unwrap_or(256);
    if multiple == 0 || multiple > 1 << 20 {
        return Err(config.invalid("block_multiple_of", "an integer from 1 to 1048576"));
    }
    // Sizes are far below 2^53.
    let size = (factor * (2 * size / 3) as f64) as usize;
    Ok(size.next_multiple_of(multiple))
}

/// Layers without key heads are convolutions.
fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    const HEADS: &str = "attention.head_count_kv";
    let heads = keys.per_layer(HEADS)?.unwrap_or_default();
    if heads.len() as u64 != keys.u64("block_count")? {
        return Err(keys.invalid(HEADS, "one integer for each layer"));
    }
    let kinds = heads.iter().map(|&heads| if heads == 0 { "conv" } else { "full_attention" });
    gguf::extend(
        config,
        json!({
            "layer_types": kinds.collect::<Vec<_>>(),
            "conv_L_cache": keys.u64("shortconv.l_cache")?,
            "conv_bias": keys.has("blk.0.shortconv.conv.bias"),
            "block_auto_adjust_ff_dim": false,
            "tie_embedding": config["tie_word_embeddings"],
        }),
    );
    gguf::dense(keys, config)
}
