//! The latest architectures: Qwen3.5, Gemma 4, OLMo 3, Ministral 3, Granite 4. See `families.rs`.

use serde_json::{Value, json};

use super::config::{EXPERT_SIZE, FEED_FORWARD, Keys, extend};
use super::families::{Config, PATTERN, SHARED_SIZE, WINDOW};
use super::fields::{delta_nets, dense, multipliers, pattern, shared_experts, two_rotations, value_length};
use crate::error::Result;

pub(super) const GEMMA4_NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("router.proj", "ffn_gate_inp"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
];

pub(super) fn qwen35(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    tiled_delta_nets(keys, config)?;
    dense(keys, config)
}

pub(super) fn qwen35moe(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    tiled_delta_nets(keys, config)?;
    shared_experts(keys, config)
}

/// Delta nets whose value heads are stored with those of all key heads in turn.
fn tiled_delta_nets(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    delta_nets(keys, config)?;
    config.insert("linear_value_heads_tiled".to_owned(), true.into());
    if let Some(marks) = keys.per_layer("attention.recurrent_layers")? {
        let kind = |mark: &u64| if *mark == 0 { "full_attention" } else { "linear_attention" };
        // Those that predict are behind the others.
        let layers = config["num_hidden_layers"].as_u64().unwrap_or_default();
        let layers = usize::try_from(layers).unwrap_or(usize::MAX);
        config.insert("layer_types".to_owned(), marks.iter().take(layers).map(kind).collect());
    }
    Ok(())
}

pub(super) fn olmo2(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    if keys.opt_u64(WINDOW)?.is_some_and(|window| window > 0) {
        let theta = keys.opt_f64("rope.freq_base")?.unwrap_or(5e5);
        two_rotations(keys, config, (theta, theta))?;
        pattern(keys, config, 4)?;
    }
    dense(keys, config)
}

pub(super) fn mistral3(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
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

pub(super) fn granite_hybrid(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
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

pub(super) fn gemma4(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    value_length(keys, config)?;
    let layers = keys.u64("block_count")?;
    let Some(windowed) = keys.per_layer(PATTERN)?.filter(|marks| marks.len() as u64 == layers) else {
        return Err(keys.invalid(PATTERN, "one bool for each layer"));
    };
    if windowed.last().is_none_or(|&last| last != 0) {
        return Err(keys.unsupported(PATTERN, "a last layer without a window"));
    }
    let shared = keys.opt_u64("attention.shared_kv_layers")?.unwrap_or(0);
    let own = layers.saturating_sub(shared);
    let kind = |&mark: &u64| if mark == 0 { "full_attention" } else { "sliding_attention" };
    let full = |index: &usize| windowed[*index] == 0 && (*index as u64) < own;
    let as_values =
        (0..windowed.len()).find(full).is_some_and(|i| !keys.has(&format!("blk.{i}.attn_v.weight")));
    let inputs = keys.opt_u64("embedding_length_per_layer_input")?.unwrap_or(0);
    extend(
        config,
        json!({
            "layer_types": windowed.iter().map(kind).collect::<Vec<_>>(),
            "per_layer_config": heads(keys, config, &windowed)?,
            "rope_parameters": rotations(keys, config)?,
            "use_double_wide_mlp": wide(keys, own)?,
            "num_kv_shared_layers": shared,
            "attention_k_eq_v": as_values,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size_per_layer_input": inputs,
            "vocab_size_per_layer_input": keys.shape("per_layer_token_embd.weight").first(),
            "final_logit_softcapping": keys.opt_f64("final_logit_softcapping")?.filter(|&cap| cap != 0.0),
        }),
    );
    config.remove("hidden_act");
    if let Some(experts) = keys.opt_u64("expert_count")?.filter(|&count| count > 0) {
        extend(
            config,
            json!({
                "enable_moe_block": true,
                "num_experts": experts,
                "top_k_experts": keys.u64("expert_used_count")?,
                "moe_intermediate_size": keys.u64(EXPERT_SIZE)?,
            }),
        );
    }
    Ok(())
}

/// Sizes of heads and how many have keys and values, layer by layer.
fn heads(keys: &Keys<'_>, config: &Config, windowed: &[u64]) -> Result<Value> {
    let global = config["head_dim"].as_u64().unwrap_or_default();
    let local = keys.opt_u64("attention.key_length_swa")?.unwrap_or(global);
    for key in ["attention.value_length_swa", "rope.dimension_count_swa"] {
        if keys.opt_u64(key)?.is_some_and(|size| size != local) {
            return Err(keys.unsupported(key, &format!("{local}, as keys have")));
        }
    }
    let kv_heads = keys.per_layer("attention.head_count_kv")?.unwrap_or_default();
    let mut layers = json!({});
    for (layer, mark) in windowed.iter().enumerate() {
        layers[layer.to_string()] = json!({
            "head_dim": if *mark == 0 { global } else { local },
            "num_key_value_heads": kv_heads.get(layer).or(kv_heads.first()).map_or(config["num_key_value_heads"].clone(), |&heads| heads.into()),
        });
    }
    Ok(layers)
}

/// Whether the layers that have no keys of their own, those from `own` on, have MLPs of twice the size.
fn wide(keys: &Keys<'_>, own: u64) -> Result<bool> {
    let sizes = keys.per_layer(FEED_FORWARD)?.unwrap_or_default();
    let Some(&first) = sizes.first() else { return Ok(false) };
    let factor = |size: &u64| if *size == first { 1 } else { 2 };
    let factors: Vec<u64> = sizes.iter().map(factor).collect();
    let wide = factors.contains(&2);
    let fits = (0..).zip(&sizes).all(|(layer, &size)| {
        let factor = if wide && layer >= own { 2 } else { 1 };
        first.checked_mul(factor) == Some(size)
    });
    match fits {
        true => Ok(wide),
        false => {
            Err(keys.unsupported(FEED_FORWARD, "the same in all layers, or twice that in those without keys"))
        }
    }
}

/// The rotations of layers without and with a window. Those without turn the first part of each head: what divides the
/// other frequencies makes nothing of them.
fn rotations(keys: &Keys<'_>, config: &Config) -> Result<Value> {
    const NOTHING: f64 = 1e20;
    let whole = &config["rope_parameters"];
    let mut factors: Vec<f64> = Vec::new();
    match whole["rope_type"].as_str() {
        Some("default") => {}
        Some("factors") => {
            factors.extend(whole["factors"].as_array().into_iter().flatten().flat_map(Value::as_f64));
        }
        _ => return Err(keys.unsupported("rope.scaling.type", "none")),
    }
    let turned = factors.iter().take_while(|&&factor| factor == 1.0).count();
    if factors.iter().skip(turned).any(|&factor| factor < NOTHING) || (turned == 0 && !factors.is_empty()) {
        return Err(keys.unsupported("rope_freqs.weight", "ones, then 1e30"));
    }
    // The product with the frequencies is rounded down: half of one keeps it from falling below.
    let part = if turned == factors.len() { 1.0 } else { (turned as f64 + 0.5) / factors.len() as f64 };
    let global = keys.opt_f64("rope.freq_base")?.unwrap_or(1e6);
    let local = keys.opt_f64("rope.freq_base_swa")?.unwrap_or(1e4);
    Ok(json!({
        "full_attention": {"rope_type": "proportional", "rope_theta": global, "partial_rotary_factor": part},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }))
}
