//! Qwen3-Next: gated DeltaNet on three of four layers, gated attention on the fourth, experts with a shared one.
//! Source: transformers 5, `models/qwen3_next/configuration_qwen3_next.py` and `modeling_qwen3_next.py`.

use serde_json::json;

use super::llama::Keys;
use super::qwen2_moe::with_experts;
use super::{Family, architecture, layer_types, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::attention::Attention;
use crate::spec::mixers::delta_net::{DeltaNetSpec, DeltaStorage};
use crate::spec::rope_scaling::{Extras, RopeDefaults, RopeSpec};
use crate::spec::{
    AttentionSpec, ChoiceWeights, DecoderSpec, LayerSpec, MixerSpec, NormKind, NormSpec, SharedExpert,
};

/// How GGUF files store it.
pub(super) const GGUF: GgufFamily = GgufFamily {
    name: "qwen3next",
    architecture: "Qwen3NextForCausalLM",
    partial: true,
    names: gguf::SANDWICH,
    keys: &[
        gguf::EXPERT_SIZE,
        gguf::SHARED_SIZE,
        "expert_weights_norm",
        "full_attention_interval",
        "ssm.conv_kernel",
        "ssm.inner_size",
        "ssm.state_size",
        "ssm.time_step_rank",
        "ssm.group_count",
    ],
    fields: gguf_fields,
    ..GgufFamily::PLAIN
};

pub(super) const FAMILY: Family =
    Family { architectures: &[architecture("Qwen3NextForCausalLM", "qwen3_next", parse)], gguf: &[GGUF] };

/// Default interval of layers with attention, as in transformers.
const DEFAULT_INTERVAL: usize = 4;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    with_shared_expert(config, with_delta_nets(config, &Keys::LLAMA, DeltaStorage::Grouped)?)
}

/// Everything but the experts.
pub(super) fn with_delta_nets(
    config: &ModelConfig,
    keys: &Keys,
    storage: DeltaStorage,
) -> Result<DecoderSpec> {
    // Not derived from hidden_size in this family, so it must be given.
    config.usize("head_dim")?;
    only(config, "attn_output_gate", true)?;
    let plain = DecoderSpec::with_keys(config, keys)?;
    let bias = config.bool_or("attention_bias", false)?;
    let delta = DeltaNetSpec {
        kernel_size: config.usize("linear_conv_kernel_dim")?,
        num_key_heads: config.usize("linear_num_key_heads")?,
        num_value_heads: config.usize("linear_num_value_heads")?,
        key_head_dim: config.usize("linear_key_head_dim")?,
        value_head_dim: config.usize("linear_value_head_dim")?,
        // Not a key of transformers: GGUF files have the heads in this order.
        tiled: config.bool_or("linear_value_heads_tiled", false)?,
        storage,
    };
    let extras = Extras { sections: storage == DeltaStorage::Apart, ..Extras::NONE };
    let rope = RopeDefaults { partial: Some(0.25), extras, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        norm: NormKind::Rms { offset: 1.0 },
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        qkv_bias: bias,
        o_bias: bias,
        attention: AttentionSpec { gate: true, ..plain.attention },
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: layers(config, plain.num_hidden_layers, MixerSpec::DeltaNet(delta))?,
        ..plain
    })
}

/// Experts with a shared one, on the layers of `dense`.
pub(super) fn with_shared_expert(config: &ModelConfig, dense: DecoderSpec) -> Result<DecoderSpec> {
    let size = config.usize("shared_expert_intermediate_size")?;
    let shared = SharedExpert { intermediate_size: size, gated: true };
    with_experts(config, dense, Some(shared), ChoiceWeights::Normed)
}

/// `layer_types`, or attention on every `full_attention_interval`-th layer; `delta` on the others.
fn layers(config: &ModelConfig, count: usize, delta: MixerSpec) -> Result<Vec<LayerSpec>> {
    let layer = |recurrent: bool| LayerSpec {
        mixer: if recurrent { delta } else { MixerSpec::Attention(Attention) },
        ..LayerSpec::default()
    };
    if let Some(types) = layer_types(config, count, &["linear_attention", "full_attention"])? {
        return Ok(types.into_iter().map(|kind| layer(kind == "linear_attention")).collect());
    }
    let interval = config.opt_usize("full_attention_interval")?.unwrap_or(DEFAULT_INTERVAL);
    if interval == 0 {
        return Err(config.invalid("full_attention_interval", "a positive integer"));
    }
    Ok((0..count).map(|i| layer(!(i + 1).is_multiple_of(interval))).collect())
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_delta_nets(keys, config)?;
    gguf::shared_experts(keys, config)
}

pub(super) fn gguf_delta_nets(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    let heads = keys.u64("ssm.time_step_rank")?;
    let inner = keys.u64("ssm.inner_size")?;
    if heads == 0 || !inner.is_multiple_of(heads) {
        return Err(
            keys.invalid("ssm.inner_size", &format!("a multiple of ssm.time_step_rank, which is {heads}"))
        );
    }
    gguf::extend(
        config,
        json!({
            "full_attention_interval": keys.opt_u64("full_attention_interval")?.unwrap_or(4),
            "linear_conv_kernel_dim": keys.u64("ssm.conv_kernel")?,
            "linear_key_head_dim": keys.u64("ssm.state_size")?,
            "linear_value_head_dim": inner / heads,
            "linear_num_key_heads": keys.u64("ssm.group_count")?,
            "linear_num_value_heads": heads,
        }),
    );
    Ok(())
}
