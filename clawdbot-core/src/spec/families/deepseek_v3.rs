//! DeepSeek-V2, V3 and models like them (V2-Lite, V2.5, R1, Kimi K2, Moonlight): latent attention, and experts, maybe
//! in groups, with a shared expert on all but the first layers.
//! Source: transformers 5, `models/deepseek_v{2,3}/configuration_*.py` and `modeling_*.py`. V2's scale of scores with YaRN,
//! which transformers omits, is that of the checkpoints' own `modeling_deepseek.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, one_of, only, only_str};
use crate::error::{Error, Result};
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{
    AttentionSpec, ChoiceWeights, DecoderSpec, ExpertGroups, LayerSpec, MixerSpec, MoeSpec, Scoring,
    SharedExpert,
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
            gguf::GATING,
            "expert_group_count",
            "expert_group_used_count",
            "rope.scaling.yarn_log_multiplier",
        ],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

pub(super) const NAMES: Names = Names {
    moe: MoeModules {
        shared: MlpModules {
            gate_up: &["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"],
            down: "mlp.shared_experts.down_proj",
        },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};

/// Default of `first_k_dense_replace`, as in transformers.
const DEFAULT_DENSE_LAYERS: usize = 3;

const METHOD: &str = "topk_method";

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Other methods of selecting experts in the published code belong to other models.
    only_str(config, "scoring_func", "sigmoid")?;
    only_str(config, METHOD, "noaux_tc")?;
    let moe = MoeSpec {
        scoring: Scoring::Sigmoid,
        groups: groups(config)?,
        ..experts(config, ChoiceWeights::Normed)?
    };
    latent(config, moe, DEFAULT_DENSE_LAYERS)
}

/// Experts by softmax over all of them; the groups with the best single experts are selected first.
fn parse_v2(config: &ModelConfig) -> Result<DecoderSpec> {
    only_str(config, "scoring_func", "softmax")?;
    let groups = match config.opt_str(METHOD)? {
        None | Some("greedy") => None,
        Some("group_limited_greedy") => match groups(config)? {
            None => return Err(config.invalid("n_group", "a number, as experts are chosen by groups")),
            groups => groups,
        },
        Some(_) => return Err(config.unsupported(METHOD, "greedy or group_limited_greedy")),
    };
    let moe = MoeSpec { groups, ..experts(config, ChoiceWeights::AsScored)? };
    if moe.norm_topk_prob {
        // No model has it, and the published implementations differ.
        return Err(config.unsupported("norm_topk_prob", "false"));
    }
    latent(config, moe, 0)
}

/// Latent attention, and experts from a layer on; `dense`: the default number of dense layers.
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
        // For attention itself: one key, latent and rotated part, for all heads.
        head_dim: mla.qk_rope_head_dim.saturating_add(mla.kv_lora_rank),
        num_key_value_heads: 1,
        qkv_bias: bias,
        o_bias: bias,
        attention: AttentionSpec { divisor: divisor / scale, ..plain.attention },
        moe: Some(moe),
        ropes: vec![RopeSpec { interleaved: config.bool_or("rope_interleave", true)?, ..rope }],
        layers: (0..plain.num_hidden_layers)
            .map(|i| LayerSpec { moe: i >= first_moe, mixer: MixerSpec::Mla(mla), ..LayerSpec::default() })
            .collect(),
        names: NAMES,
        ..plain
    })
}

/// `default`: where the configuration does not say.
pub(super) fn experts(config: &ModelConfig, default: ChoiceWeights) -> Result<MoeSpec> {
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
        norm_topk_prob: config.bool_or("norm_topk_prob", default.are_normed())?,
        ..MoeSpec::softmax()
    })
}

pub(super) fn groups(config: &ModelConfig) -> Result<Option<ExpertGroups>> {
    match (config.opt_usize("n_group")?, config.opt_usize("topk_group")?) {
        (Some(n_group), Some(topk_group)) => Ok(Some(ExpertGroups { n_group, topk_group })),
        (None, None) => Ok(None),
        _ => Err(config.invalid("topk_group", "a number together with n_group, or neither")),
    }
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    let rotated = keys.u64("rope.dimension_count")?;
    let (key, value) = match keys.opt_u64("attention.key_length_mla")? {
        Some(key) => (key, keys.u64("attention.value_length_mla")?),
        // Older files have the sizes of uncompressed keys and values.
        None => (keys.u64("attention.key_length")?, keys.u64("attention.value_length")?),
    };
    let Some(fixed) = key.checked_sub(rotated) else {
        return Err(keys.invalid("rope.dimension_count", &format!("at most {key}, the elements of a head")));
    };
    let softmax = match keys.opt_u64(gguf::GATING)? {
        // The first files of V2 do not say.
        None | Some(0 | 1) => true,
        Some(2) => false,
        Some(_) => return Err(keys.unsupported(gguf::GATING, "1, a softmax, or 2, a sigmoid")),
    };
    let groups = |key: &str| Ok::<_, Error>(keys.opt_u64(key)?.filter(|&groups| groups > 0));
    let groups = match (groups("expert_group_count")?, groups("expert_group_used_count")?) {
        // Nor how the largest model selects experts.
        (None, None) if softmax && keys.u64("expert_count")? == 160 => (Some(8), Some(3)),
        groups => groups,
    };
    if softmax {
        let grouped = groups.0.is_some_and(|groups| groups > 1);
        gguf::extend(
            config,
            json!({
                "architectures": ["DeepseekV2ForCausalLM"],
                "topk_method": if grouped { "group_limited_greedy" } else { "greedy" },
            }),
        );
    }
    let rope = &mut config["rope_parameters"];
    if let Some(rope) = rope.as_object_mut() {
        rope.remove("partial_rotary_factor");
    }
    if let Some(multiplier) = keys.opt_f64("rope.scaling.yarn_log_multiplier")?
        && rope["rope_type"] == "yarn"
    {
        // A tenth of it is stored, in f32.
        let mscale = f64::from((multiplier * 10.0) as f32);
        rope["mscale"] = mscale.into();
        rope["mscale_all_dim"] = mscale.into();
    }
    gguf::extend(
        config,
        json!({
            "q_lora_rank": keys.opt_u64("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            "kv_lora_rank": keys.u64("attention.kv_lora_rank")?,
            "qk_nope_head_dim": fixed,
            "qk_rope_head_dim": rotated,
            "v_head_dim": value,
            "num_key_value_heads": config["num_attention_heads"],
            "head_dim": rotated,
            "first_k_dense_replace": keys.opt_u64("leading_dense_block_count")?.unwrap_or(0),
            "n_routed_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "n_shared_experts": keys.opt_u64("expert_shared_count")?.unwrap_or(0),
            "moe_intermediate_size": keys.u64(gguf::EXPERT_SIZE)?,
            "routed_scaling_factor": keys.opt_f64("expert_weights_scale")?.unwrap_or(1.0),
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(false),
            "n_group": groups.0,
            "topk_group": groups.1,
        }),
    );
    Ok(())
}
