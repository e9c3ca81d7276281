//! Qwen1.5-MoE, Qwen2-MoE and Qwen3-MoE: Qwen2 and Qwen3 with experts on most layers; Qwen2's have a shared expert as
//! well.
//! Source: transformers 5, `models/qwen2_moe/` and `models/qwen3_moe/`.

use super::{Family, architecture, one_of, qwen2, qwen3};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::{ChoiceWeights, DecoderSpec, LayerSpec, MoeSpec, SharedExpert};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Qwen2MoeForCausalLM", "qwen2_moe", parse_qwen2),
        architecture("Qwen3MoeForCausalLM", "qwen3_moe", parse_qwen3),
    ],
    gguf: &[
        GgufFamily {
            name: "qwen2moe",
            architecture: "Qwen2MoeForCausalLM",
            keys: &[gguf::EXPERT_SIZE, gguf::SHARED_SIZE, "expert_weights_norm"],
            fields: gguf_qwen2,
            ..GgufFamily::PLAIN
        },
        GgufFamily {
            name: "qwen3moe",
            architecture: "Qwen3MoeForCausalLM",
            keys: &[gguf::EXPERT_SIZE, "expert_weights_norm"],
            fields: gguf_qwen3,
            ..GgufFamily::PLAIN
        },
    ],
};

fn parse_qwen2(config: &ModelConfig) -> Result<DecoderSpec> {
    let shared =
        SharedExpert { intermediate_size: config.usize("shared_expert_intermediate_size")?, gated: true };
    let qkv_bias = config.bool_or("qkv_bias", true)?;
    with_experts(
        config,
        DecoderSpec { qkv_bias, ..qwen2::parse(config)? },
        Some(shared),
        ChoiceWeights::AsScored,
    )
}

fn parse_qwen3(config: &ModelConfig) -> Result<DecoderSpec> {
    with_experts(config, qwen3::parse_derived(config)?, None, ChoiceWeights::AsScored)
}

/// Replaces the MLP of every `decoder_sparse_step`-th layer of `dense` by experts, except in `mlp_only_layers`.
/// `default`: where the configuration does not say.
pub(super) fn with_experts(
    config: &ModelConfig,
    dense: DecoderSpec,
    shared: Option<SharedExpert>,
    default: ChoiceWeights,
) -> Result<DecoderSpec> {
    let step = config.opt_usize("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(config.invalid("decoder_sparse_step", "a positive integer"));
    }
    let dense_layers = config.opt_usizes("mlp_only_layers")?.unwrap_or_default();
    let moe = |i: usize| (i + 1).is_multiple_of(step) && !dense_layers.contains(&i);
    let norm_topk_prob = config.bool_or("norm_topk_prob", default.are_normed())?;
    Ok(DecoderSpec {
        moe: Some(MoeSpec {
            num_experts: one_of(config, &["num_experts", "num_local_experts"])?,
            num_experts_per_tok: config.usize("num_experts_per_tok")?,
            intermediate_size: config.usize("moe_intermediate_size")?,
            shared,
            norm_topk_prob,
            ..MoeSpec::softmax()
        }),
        layers: dense
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| LayerSpec { moe: moe(i), ..*layer })
            .collect(),
        ..dense
    })
}

fn gguf_qwen2(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    config.insert(
        "shared_expert_intermediate_size".to_owned(),
        gguf::expert_size(keys, gguf::SHARED_SIZE)?.into(),
    );
    config.insert("qkv_bias".to_owned(), keys.has("blk.0.attn_q.bias").into());
    gguf::experts(keys, config, ChoiceWeights::AsScored)
}

fn gguf_qwen3(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::experts(keys, config, ChoiceWeights::Normed)
}
