//! DeepSeek-V2 and V3 and their relatives (V2-Lite, V2.5, R1, Kimi K2, Moonlight): latent attention, and experts, maybe in
//! groups, next to a shared one on all but the first layers.
//! Source: transformers 5, `models/deepseek_v{2,3}/configuration_*.py` and `modeling_*.py`; of V2, the scale of scores that
//! goes with YaRN, which transformers leaves out, is that of the checkpoints' own `modeling_deepseek.py`.

use super::llama::Keys;
use super::{Family, architecture, one_of, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{
    AttentionSpec, DecoderSpec, ExpertGroups, LayerSpec, MlaSpec, MoeSpec, Scoring, SharedExpert,
};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("DeepseekV2ForCausalLM", "deepseek_v2", parse_v2),
        architecture("DeepseekV3ForCausalLM", "deepseek_v3", parse),
    ],
    gguf: &[GgufFamily {
        name: "deepseek2",
        architecture: "DeepseekV3ForCausalLM",
        partial: true,
        keys: &[
            gguf::EXPERT_SIZE,
            "attention.q_lora_rank",
            "attention.kv_lora_rank",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "leading_dense_block_count",
            "expert_shared_count",
            "expert_weights_scale",
            "expert_weights_norm",
            "expert_gating_func",
            "expert_group_count",
            "expert_group_used_count",
            "rope.scaling.yarn_log_multiplier",
        ],
        fields: gguf::deepseek2,
        ..GgufFamily::PLAIN
    }],
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

const METHOD: &str = "topk_method";

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // How the router chooses: what the published code has besides this belongs to other models.
    expect(config, "scoring_func", "sigmoid")?;
    expect(config, METHOD, "noaux_tc")?;
    let moe = MoeSpec { scoring: Scoring::Sigmoid, groups: groups(config)?, ..experts(config, true)? };
    latent(config, moe, DEFAULT_DENSE_LAYERS)
}

/// Experts by a softmax over all of them, the best ones of the groups with the best single experts.
fn parse_v2(config: &ModelConfig) -> Result<DecoderSpec> {
    expect(config, "scoring_func", "softmax")?;
    let groups = match config.opt_str(METHOD)? {
        None | Some("greedy") => None,
        Some("group_limited_greedy") => match groups(config)? {
            None => return Err(config.invalid("n_group", "a number, as experts are chosen by groups")),
            groups => groups,
        },
        Some(_) => return Err(config.unsupported(METHOD, "greedy or group_limited_greedy")),
    };
    let moe = MoeSpec { groups, ..experts(config, false)? };
    if moe.norm_topk_prob {
        // No model has it, and the published implementations make different things of it.
        return Err(config.unsupported("norm_topk_prob", "false"));
    }
    latent(config, moe, 0)
}

fn expect(config: &ModelConfig, key: &str, value: &str) -> Result<()> {
    match config.opt_str(key)? {
        Some(found) if found != value => Err(config.unsupported(key, &format!("{value:?}"))),
        _ => Ok(()),
    }
}

/// Latent attention, and experts from a layer on; `dense`: which, where the configuration does not say.
fn latent(config: &ModelConfig, moe: MoeSpec, dense: usize) -> Result<DecoderSpec> {
    if config.opt_usize("moe_layer_freq")?.is_some_and(|frequency| frequency != 1) {
        return Err(config.unsupported("moe_layer_freq", "1"));
    }
    only(config, "attention_sink_bias", false)?;
    only(config, "mlp_bias", false)?;
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
    let first_moe = config.opt_usize("first_k_dense_replace")?.unwrap_or(dense);
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
        moe: Some(moe),
        ropes: vec![RopeSpec { interleaved: config.bool_or("rope_interleave", true)?, ..rope }],
        layers: (0..plain.num_hidden_layers)
            .map(|i| LayerSpec { moe: i >= first_moe, ..LayerSpec::default() })
            .collect(),
        names: NAMES,
        ..plain
    })
}

/// `norm`: whether weights are divided by their sum where the configuration does not say.
fn experts(config: &ModelConfig, norm: bool) -> Result<MoeSpec> {
    let size = config.usize("moe_intermediate_size")?;
    let shared = match config.opt_usize("n_shared_experts")?.unwrap_or(0) {
        0 => None,
        count => Some(SharedExpert { intermediate_size: size.saturating_mul(count), gated: false }),
    };
    Ok(MoeSpec {
        num_experts: one_of(config, &["n_routed_experts", "num_experts", "num_local_experts"])?,
        num_experts_per_tok: config.usize("num_experts_per_tok")?,
        intermediate_size: size,
        routed_scaling_factor: config.opt_f32("routed_scaling_factor")?.unwrap_or(1.0),
        shared,
        ..MoeSpec::softmax(config.bool_or("norm_topk_prob", norm)?)
    })
}

fn groups(config: &ModelConfig) -> Result<Option<ExpertGroups>> {
    match (config.opt_usize("n_group")?, config.opt_usize("topk_group")?) {
        (Some(n_group), Some(topk_group)) => Ok(Some(ExpertGroups { n_group, topk_group })),
        (None, None) => Ok(None),
        _ => Err(config.invalid("topk_group", "a number beside n_group, or neither")),
    }
}
