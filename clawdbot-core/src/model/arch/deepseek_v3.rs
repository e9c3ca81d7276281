//! DeepSeek-V3 and its relatives (R1, Kimi K2, Moonlight): latent attention, and experts in groups beside a shared one on all
//! but the first layers.
//! Source: transformers 5, `models/deepseek_v3/configuration_deepseek_v3.py` and `modeling_deepseek_v3.py`.

use super::llama::Keys;
use super::only;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::names::{self, MlpModules, MoeModules, Names};
use crate::model::rope_scaling::{RopeDefaults, RopeSpec};
use crate::model::spec::{
    AttentionSpec, DecoderSpec, ExpertGroups, LayerSpec, MlaSpec, MoeSpec, Scoring, SharedExpert,
};

const NAMES: Names = Names {
    moe: MoeModules {
        shared: MlpModules {
            gate_up: &["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"],
            down: "mlp.shared_experts.down_proj",
        },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};

/// `first_k_dense_replace` where the configuration has none, as in transformers.
const DEFAULT_DENSE_LAYERS: usize = 3;

pub(in crate::model) fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // How the router chooses: what the published code has beside this belongs to other models.
    for (key, value) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        if config.opt_str(key)?.is_some_and(|found| found != value) {
            return Err(config.unsupported(key, &format!("{value:?}")));
        }
    }
    if config.opt_usize("moe_layer_freq")?.is_some_and(|frequency| frequency != 1) {
        return Err(config.unsupported("moe_layer_freq", "1"));
    }
    only(config, "attention_sink_bias", false)?;
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let mla = MlaSpec {
        q_lora_rank: config.opt_usize("q_lora_rank")?,
        kv_lora_rank: config.usize("kv_lora_rank")?,
        qk_nope_head_dim: config.usize("qk_nope_head_dim")?,
        qk_rope_head_dim: config.usize("qk_rope_head_dim")?,
        v_head_dim: config.usize("v_head_dim")?,
    };
    let bias = config.bool_or("attention_bias", false)?;
    let rope = RopeSpec::parse(config, mla.qk_rope_head_dim, RopeDefaults::LLAMA)?;
    let first_moe = config.opt_usize("first_k_dense_replace")?.unwrap_or(DEFAULT_DENSE_LAYERS);
    let width = mla.qk_nope_head_dim.saturating_add(mla.qk_rope_head_dim);
    let scale = rope.score_scale;
    let AttentionSpec { divisor, .. } = AttentionSpec::of_width(width as f64);
    Ok(DecoderSpec {
        // For attention itself: one key of latent and rotated part for all heads.
        head_dim: mla.qk_rope_head_dim.saturating_add(mla.kv_lora_rank),
        num_key_value_heads: 1,
        qkv_bias: bias,
        o_bias: bias,
        attention: AttentionSpec { divisor: divisor / scale, ..plain.attention },
        mla: Some(mla),
        moe: Some(experts(config)?),
        ropes: vec![RopeSpec { interleaved: config.bool_or("rope_interleave", true)?, ..rope }],
        layers: (0..plain.num_hidden_layers)
            .map(|i| LayerSpec { moe: i >= first_moe, ..LayerSpec::default() })
            .collect(),
        names: NAMES,
        ..plain
    })
}

fn experts(config: &ModelConfig) -> Result<MoeSpec> {
    let size = config.usize("moe_intermediate_size")?;
    let shared = match config.opt_usize("n_shared_experts")?.unwrap_or(0) {
        0 => None,
        count => Some(SharedExpert { intermediate_size: size.saturating_mul(count), gated: false }),
    };
    let groups = match (config.opt_usize("n_group")?, config.opt_usize("topk_group")?) {
        (Some(n_group), Some(topk_group)) => Some(ExpertGroups { n_group, topk_group }),
        (None, None) => None,
        _ => return Err(config.invalid("topk_group", "a number beside n_group, or neither")),
    };
    Ok(MoeSpec {
        num_experts: config.usize("n_routed_experts")?,
        num_experts_per_tok: config.usize("num_experts_per_tok")?,
        intermediate_size: size,
        scoring: Scoring::Sigmoid,
        routed_scaling_factor: config.opt_f32("routed_scaling_factor")?.unwrap_or(1.0),
        groups,
        shared,
        ..MoeSpec::softmax(config.bool_or("norm_topk_prob", true)?)
    })
}
