//! What the metadata of Gemma 4 says.

use serde_json::{Value, json};

use super::fields::value_length;
use super::metadata::{EXPERT_SIZE, FEED_FORWARD, Keys, extend};
use super::{Config, PATTERN};
use crate::error::Result;

pub(crate) const GEMMA4_NAMES: &[(&str, &str)] = &[
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
pub(crate) fn gemma4(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
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
