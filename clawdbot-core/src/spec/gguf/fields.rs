//! What the metadata of each architecture says beyond Llama's.

use serde_json::json;

use super::metadata::{EXPERT_SIZE, FEED_FORWARD, Keys, extend};
use super::{Config, LOCAL_THETA, PATTERN, SHARED_SIZE, WINDOW};
use crate::error::{Error, Result};

/// No experts; values as long as keys.
pub(crate) fn dense(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    for key in ["expert_count", "expert_used_count"] {
        if keys.opt_u64(key)?.is_some_and(|count| count != 0) {
            return Err(keys.unsupported(key, "no experts"));
        }
    }
    value_length(keys, config)
}

pub(crate) fn value_length(keys: &Keys<'_>, config: &Config) -> Result<()> {
    let head_dim = &config["head_dim"];
    match keys.opt_u64("attention.value_length")? {
        Some(length) if *head_dim != length => {
            Err(keys.unsupported("attention.value_length", &format!("{head_dim}, as keys have")))
        }
        _ => Ok(()),
    }
}

/// Mixtral's files say that they are Llama's, with experts.
pub(crate) fn llama(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let Some(experts) = keys.opt_u64("expert_count")?.filter(|&count| count != 0) else {
        return dense(keys, config);
    };
    extend(
        config,
        json!({
            "architectures": ["MixtralForCausalLM"],
            "num_local_experts": experts,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
        }),
    );
    value_length(keys, config)
}

/// `norm` where the file does not say whether weights are divided by their sum.
pub(crate) fn experts(keys: &Keys<'_>, config: &mut Config, norm: bool) -> Result<()> {
    let size = size(keys, EXPERT_SIZE)?;
    extend(
        config,
        json!({
            "num_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "moe_intermediate_size": size,
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(norm),
        }),
    );
    value_length(keys, config)
}

pub(crate) fn qwen2moe(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.insert("shared_expert_intermediate_size".to_owned(), size(keys, SHARED_SIZE)?.into());
    config.insert("qkv_bias".to_owned(), keys.has("blk.0.attn_q.bias").into());
    experts(keys, config, false)
}

pub(crate) fn qwen3moe(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    experts(keys, config, true)
}

/// The size of experts that have `key`, or else are as large as a dense MLP.
pub(crate) fn size(keys: &Keys<'_>, key: &str) -> Result<u64> {
    keys.opt_u64(key)?.map_or_else(|| keys.u64(FEED_FORWARD), Ok)
}

pub(crate) fn qwen3next(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    delta_nets(keys, config)?;
    shared_experts(keys, config)
}

/// Experts next to one that all tokens use.
pub(crate) fn shared_experts(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.insert("shared_expert_intermediate_size".to_owned(), size(keys, SHARED_SIZE)?.into());
    experts(keys, config, true)
}

pub(crate) fn delta_nets(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let heads = keys.u64("ssm.time_step_rank")?;
    let inner = keys.u64("ssm.inner_size")?;
    if heads == 0 || !inner.is_multiple_of(heads) {
        return Err(
            keys.invalid("ssm.inner_size", &format!("a multiple of ssm.time_step_rank, which is {heads}"))
        );
    }
    extend(
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

pub(crate) fn gemma(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.remove("hidden_act");
    config.insert("hidden_activation".to_owned(), "gelu_pytorch_tanh".into());
    dense(keys, config)
}

pub(crate) fn gemma2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    gemma(keys, config)?;
    // Gemma 2 27B divides scores by something else than the others do, and its files do not say so.
    scores(keys, config, 46)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = keys.opt_f64(key)? {
            config.insert(key.to_owned(), cap.into());
        }
    }
    Ok(())
}

pub(crate) fn gemma3(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    gemma(keys, config)?;
    // As Gemma 3 27B does.
    scores(keys, config, 62)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        let cap = keys.opt_f64(key)?.filter(|&cap| cap != 0.0);
        config.insert(key.to_owned(), cap.into());
    }
    two_rotations(keys, config, (1e6, 1e4))?;
    pattern(keys, config, 6)
}

/// Another rotation on layers with a window. `thetas`: the bases where the file has none.
pub(crate) fn two_rotations(keys: &Keys<'_>, config: &mut Config, thetas: (f64, f64)) -> Result<()> {
    let mut global = config["rope_parameters"].take();
    let theta = keys.opt_f64("rope.freq_base")?.unwrap_or(thetas.0);
    global["rope_theta"] = theta.into();
    let local = json!({
        "rope_type": "default", "rope_theta": keys.opt_f64(LOCAL_THETA)?.unwrap_or(thetas.1),
    });
    config
        .insert("rope_parameters".to_owned(), json!({"full_attention": global, "sliding_attention": local}));
    Ok(())
}

/// Scores are divided by the root of a number: the size of a head, or, in the model of `layers` layers, the width divided
/// by the number of heads.
pub(crate) fn scores(keys: &Keys<'_>, config: &mut Config, layers: u64) -> Result<()> {
    let scalar = match keys.u64("block_count")? == layers {
        true => json!(keys.u64("embedding_length")? as f64 / keys.u64("attention.head_count")? as f64),
        false => config["head_dim"].clone(),
    };
    config.insert("query_pre_attn_scalar".to_owned(), scalar);
    Ok(())
}

/// Which layers have windows: all but every n-th, or those that are marked.
pub(crate) fn pattern(keys: &Keys<'_>, config: &mut Config, default: u64) -> Result<()> {
    // Without a size there are none, whatever the pattern.
    if keys.opt_u64(WINDOW)?.is_none_or(|window| window == 0) {
        return Ok(());
    }
    match keys.per_layer(PATTERN)?.as_deref() {
        None => config.insert("sliding_window_pattern".to_owned(), default.into()),
        Some([every]) => config.insert("sliding_window_pattern".to_owned(), (*every).into()),
        Some(marks) => {
            let name = |&mark: &u64| if mark == 0 { "full_attention" } else { "sliding_attention" };
            config.insert("layer_types".to_owned(), marks.iter().map(name).collect())
        }
    };
    Ok(())
}

pub(crate) fn granite(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    multipliers(keys, config)?;
    dense(keys, config)
}

pub(crate) fn multipliers(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    for (key, field) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        let value = keys.opt_f64(key)?.ok_or_else(|| keys.invalid(key, "a number"))?;
        config.insert(field.to_owned(), value.into());
    }
    Ok(())
}

pub(crate) fn cohere2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    const SCALE: &str = "logit_scale";
    let scale = keys.opt_f64(SCALE)?.ok_or_else(|| keys.invalid(SCALE, "a number"))?;
    config.insert(SCALE.to_owned(), scale.into());
    dense(keys, config)?;
    pattern(keys, config, 4)
}

pub(crate) fn gpt_oss(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    if let Some(size) = keys.opt_u64(EXPERT_SIZE)? {
        config.insert("intermediate_size".to_owned(), size.into());
    }
    extend(
        config,
        json!({
            "num_local_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
        }),
    );
    // The released models do not round the ends of the ramp, and files do not say so.
    if config["rope_parameters"]["rope_type"] == "yarn" {
        config["rope_parameters"]["truncate"] = false.into();
    }
    value_length(keys, config)
}

pub(crate) fn deepseek2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let rotated = keys.u64("rope.dimension_count")?;
    let (key, value) = match keys.opt_u64("attention.key_length_mla")? {
        Some(key) => (key, keys.u64("attention.value_length_mla")?),
        // Older files have keys and values as they are before they are compressed.
        None => (keys.u64("attention.key_length")?, keys.u64("attention.value_length")?),
    };
    let Some(fixed) = key.checked_sub(rotated) else {
        return Err(keys.invalid("rope.dimension_count", &format!("at most {key}, the elements of a head")));
    };
    const GATING: &str = "expert_gating_func";
    let softmax = match keys.opt_u64(GATING)? {
        // The first files of V2 do not say.
        None | Some(0 | 1) => true,
        Some(2) => false,
        Some(_) => return Err(keys.unsupported(GATING, "1, a softmax, or 2, a sigmoid")),
    };
    let groups = |key: &str| Ok::<_, Error>(keys.opt_u64(key)?.filter(|&groups| groups > 0));
    let groups = match (groups("expert_group_count")?, groups("expert_group_used_count")?) {
        // Nor how the largest one chooses.
        (None, None) if softmax && keys.u64("expert_count")? == 160 => (Some(8), Some(3)),
        groups => groups,
    };
    if softmax {
        let grouped = groups.0.is_some_and(|groups| groups > 1);
        extend(
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
    extend(
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
            "moe_intermediate_size": keys.u64(EXPERT_SIZE)?,
            "routed_scaling_factor": keys.opt_f64("expert_weights_scale")?.unwrap_or(1.0),
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(false),
            "n_group": groups.0,
            "topk_group": groups.1,
        }),
    );
    Ok(())
}

/// Layers without key heads are convolutions.
pub(crate) fn lfm2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    const HEADS: &str = "attention.head_count_kv";
    let heads = keys.per_layer(HEADS)?.unwrap_or_default();
    if heads.len() as u64 != keys.u64("block_count")? {
        return Err(keys.invalid(HEADS, "one integer for each layer"));
    }
    let kinds = heads.iter().map(|&heads| if heads == 0 { "conv" } else { "full_attention" });
    extend(
        config,
        json!({
            "layer_types": kinds.collect::<Vec<_>>(),
            "conv_L_cache": keys.u64("shortconv.l_cache")?,
            "conv_bias": keys.has("blk.0.shortconv.conv.bias"),
            "block_auto_adjust_ff_dim": false,
            "tie_embedding": config["tie_word_embeddings"],
        }),
    );
    dense(keys, config)
}

pub(crate) fn qwen35(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    tiled_delta_nets(keys, config)?;
    dense(keys, config)
}

pub(crate) fn qwen35moe(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    tiled_delta_nets(keys, config)?;
    shared_experts(keys, config)
}

/// Delta nets whose value heads are stored with those of all key heads in turn.
fn tiled_delta_nets(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    delta_nets(keys, config)?;
    config.insert("linear_value_heads_tiled".to_owned(), true.into());
    if let Some(marks) = keys.per_layer("attention.recurrent_layers")? {
        let kind = |mark: &u64| if *mark == 0 { "full_attention" } else { "linear_attention" };
        // Those that predict are after the others.
        let layers = config["num_hidden_layers"].as_u64().unwrap_or_default();
        let layers = usize::try_from(layers).unwrap_or(usize::MAX);
        config.insert("layer_types".to_owned(), marks.iter().take(layers).map(kind).collect());
    }
    Ok(())
}

pub(crate) fn olmo2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    if keys.opt_u64(WINDOW)?.is_some_and(|window| window > 0) {
        let theta = keys.opt_f64("rope.freq_base")?.unwrap_or(5e5);
        two_rotations(keys, config, (theta, theta))?;
        pattern(keys, config, 4)?;
    }
    dense(keys, config)
}

pub(crate) fn mistral3(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let rope = &mut config["rope_parameters"];
    if let Some(multiplier) = keys.opt_f64("rope.scaling.yarn_log_multiplier")?.filter(|&x| x != 0.0)
        && rope["rope_type"] == "yarn"
    {
        rope["mscale"] = 1.0.into();
        rope["mscale_all_dim"] = multiplier.into();
    }
    if let Some(beta) = keys.opt_f64("attention.temperature_scale")?.filter(|&beta| beta != 0.0) {
        rope["llama_4_scaling_beta"] = beta.into();
        rope["original_max_position_embeddings"] = keys.u64("rope.scaling.original_context_length")?.into();
        config.insert("architectures".to_owned(), json!(["Ministral3ForCausalLM"]));
    }
    dense(keys, config)
}

pub(crate) fn granite_hybrid(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    const HEADS: &str = "attention.head_count_kv";
    const INNER: &str = "ssm.inner_size";
    let kv_heads = keys.per_layer(HEADS)?.unwrap_or_default();
    if kv_heads.len() as u64 != keys.u64("block_count")? {
        return Err(keys.invalid(HEADS, "one integer for each layer"));
    }
    let kinds = kv_heads.iter().map(|&heads| if heads == 0 { "mamba" } else { "attention" });
    let (inner, heads) = (keys.u64(INNER)?, keys.u64("ssm.time_step_rank")?);
    let hidden = keys.u64("embedding_length")?;
    for (name, divisor) in [("ssm.time_step_rank", heads), ("embedding_length", hidden)] {
        if divisor == 0 || !inner.is_multiple_of(divisor) {
            return Err(keys.invalid(INNER, &format!("a multiple of {name}, which is {divisor}")));
        }
    }
    let experts = keys.opt_u64("expert_count")?.unwrap_or(0);
    let shared = match keys.opt_u64(SHARED_SIZE)? {
        None if experts == 0 => config["intermediate_size"].clone(),
        None => keys.u64(SHARED_SIZE)?.into(),
        Some(size) => size.into(),
    };
    // Files say so of models that are not rotated.
    let rotated = keys.opt_bool("rope.scaling.finetuned")?.unwrap_or(true);
    extend(
        config,
        json!({
            "layer_types": kinds.collect::<Vec<_>>(),
            "position_embedding_type": if rotated { "rope" } else { "nope" },
            "num_local_experts": experts,
            "num_experts_per_tok": keys.opt_u64("expert_used_count")?.unwrap_or(0),
            "shared_intermediate_size": shared,
            "mamba_d_conv": keys.u64("ssm.conv_kernel")?,
            "mamba_d_state": keys.u64("ssm.state_size")?,
            "mamba_n_groups": keys.u64("ssm.group_count")?,
            "mamba_n_heads": heads,
            "mamba_d_head": inner / heads,
            "mamba_expand": inner / hidden,
            "mamba_conv_bias": keys.some(".ssm_conv1d.bias"),
        }),
    );
    multipliers(keys, config)?;
    value_length(keys, config)
}
