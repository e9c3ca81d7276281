//! GLM-4.5 to 4.7: experts as DeepSeek-V3 has them, and softmax attention that rotates half of each head.
//! Source: transformers 5, `models/glm4_moe/configuration_glm4_moe.py` and `modeling_glm4_moe.py`.

use serde_json::json;

use super::deepseek_v3::{NAMES, experts, groups};
use super::llama::Keys;
use super::{Family, architecture};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{ChoiceWeights, DecoderSpec, LayerSpec, MoeSpec, NormSpec, Scoring};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Glm4MoeForCausalLM", "glm4_moe", parse)],
    gguf: &[GgufFamily {
        name: "glm4moe",
        architecture: "Glm4MoeForCausalLM",
        partial: true,
        names: gguf::SANDWICH,
        keys: &[
            gguf::EXPERT_SIZE,
            gguf::PREDICTING_LAYERS,
            gguf::GATING,
            "leading_dense_block_count",
            "expert_shared_count",
            "expert_weights_scale",
            "expert_weights_norm",
            "expert_group_count",
            "expert_group_used_count",
        ],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

/// Default of `first_k_dense_replace`, as in transformers.
const DEFAULT_DENSE_LAYERS: usize = 1;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Where it is missing there is a shared expert, otherwise than in DeepSeek-V3.
    config.usize("n_shared_experts")?;
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let experts = experts(config, ChoiceWeights::Normed)?;
    let norm = config.bool_or("use_qk_norm", false)?;
    let rope = RopeDefaults { partial: Some(0.5), ..RopeDefaults::LLAMA };
    let first_moe = config.opt_usize("first_k_dense_replace")?.unwrap_or(DEFAULT_DENSE_LAYERS);
    Ok(DecoderSpec {
        qk_norm: norm.then(|| NormSpec::of_heads(plain.rms_norm_eps)),
        qkv_bias: config.bool_or("attention_bias", false)?,
        moe: Some(MoeSpec { scoring: Scoring::Sigmoid, groups: groups(config)?, ..experts }),
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: (0..plain.num_hidden_layers)
            .map(|i| LayerSpec { moe: i >= first_moe, ..LayerSpec::default() })
            .collect(),
        names: NAMES,
        ..plain
    })
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::sigmoid(keys)?;
    gguf::extend(
        config,
        json!({
            "n_routed_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "n_shared_experts": keys.opt_u64("expert_shared_count")?.unwrap_or(0),
            "moe_intermediate_size": keys.u64(gguf::EXPERT_SIZE)?,
            "first_k_dense_replace": keys.opt_u64("leading_dense_block_count")?.unwrap_or(0),
            "routed_scaling_factor": keys.opt_f64("expert_weights_scale")?.unwrap_or(1.0),
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(false),
            "n_group": keys.opt_u64("expert_group_count")?.unwrap_or(1),
            "topk_group": keys.opt_u64("expert_group_used_count")?.unwrap_or(1),
            "use_qk_norm": keys.some(".attn_q_norm.weight"),
        }),
    );
    gguf::value_length(keys, config)
}
