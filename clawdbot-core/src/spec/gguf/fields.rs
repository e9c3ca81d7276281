//! Fields of `config.json` that several families derive from their metadata.

use serde_json::json;

use super::keys::{
    Config, EXPERT_SIZE, FEED_FORWARD, GATING, Keys, LOCAL_THETA, PATTERN, SHARED_SIZE, WINDOW, extend,
};
use crate::error::Result;
use crate::spec::ChoiceWeights;

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

/// Llama and Mixtral, whose files have the same architecture.
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

/// `default`: where the file does not say.
pub(crate) fn experts(keys: &Keys<'_>, config: &mut Config, default: ChoiceWeights) -> Result<()> {
    let size = expert_size(keys, EXPERT_SIZE)?;
    extend(
        config,
        json!({
            "num_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "moe_intermediate_size": size,
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(default.are_normed()),
        }),
    );
    value_length(keys, config)
}

/// The size of experts: `key`, or else that of the dense MLP.
pub(crate) fn expert_size(keys: &Keys<'_>, key: &str) -> Result<u64> {
    keys.opt_u64(key)?.map_or_else(|| keys.u64(FEED_FORWARD), Ok)
}

/// Refuses routers that score experts otherwise than by sigmoids, for families that always do.
pub(crate) fn sigmoid(keys: &Keys<'_>) -> Result<()> {
    match keys.opt_u64(GATING)? {
        None | Some(0 | 2) => Ok(()),
        Some(_) => Err(keys.unsupported(GATING, "2, a sigmoid")),
    }
}

/// Experts with a shared one.
pub(crate) fn shared_experts(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.insert("shared_expert_intermediate_size".to_owned(), expert_size(keys, SHARED_SIZE)?.into());
    experts(keys, config, ChoiceWeights::Normed)
}

/// Default bases of rotations, in layers without and with a window.
pub(crate) struct DefaultThetas {
    pub(crate) global: f64,
    pub(crate) local: f64,
}

/// Another rotation in layers with a window.
pub(crate) fn two_rotations(keys: &Keys<'_>, config: &mut Config, thetas: DefaultThetas) -> Result<()> {
    let mut global = config["rope_parameters"].take();
    let theta = keys.opt_f64("rope.freq_base")?.unwrap_or(thetas.global);
    global["rope_theta"] = theta.into();
    let local = json!({
        "rope_type": "default", "rope_theta": keys.opt_f64(LOCAL_THETA)?.unwrap_or(thetas.local),
    });
    config
        .insert("rope_parameters".to_owned(), json!({"full_attention": global, "sliding_attention": local}));
    Ok(())
}

/// Which layers have windows: all but every n-th, or those that are listed.
pub(crate) fn pattern(keys: &Keys<'_>, config: &mut Config, default: u64) -> Result<()> {
    // Without a window size there are none, whatever the pattern.
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
