//! One file per architecture: `config.json` -> `DecoderSpec`.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_text_models;

use super::config::ModelConfig;
use super::gguf::GgufFamily;
use super::registry::{Architecture, architecture, text_of};
use super::{Activation, LayerSpec, activation};
use crate::error::Result;

/// What a file of this folder describes.
pub(crate) struct Family {
    pub(crate) architectures: &'static [Architecture],
    /// What GGUF files call them, and how they differ there.
    pub(crate) gguf: &'static [GgufFamily],
}

macro_rules! families {
    ($($family:ident,)+) => {
        $(mod $family;)+
        /// Every family.
        pub(crate) const FAMILIES: &[&Family] = &[$(&$family::FAMILY,)+];
    };
}

families! {
    llama,
    mistral,
    mixtral,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_next,
    qwen3_5,
    ministral3,
    gemma,
    gemma4,
    phi3,
    smollm3,
    granite,
    olmo2,
    cohere2,
    glm4,
    deepseek_v3,
    lfm2,
    bert,
    modernbert,
    gpt_oss,
    seed_oss,
    stablelm,
    exaone4,
}

/// `sliding_window` where the configuration does not have the key (null means none), as in transformers.
const DEFAULT_SLIDING_WINDOW: usize = 4096;

/// The window of the layers that have one, in tokens.
fn sliding_window(config: &ModelConfig) -> Result<Option<usize>> {
    const KEY: &str = "sliding_window";
    if config.has(KEY) { config.opt_usize(KEY) } else { Ok(Some(DEFAULT_SLIDING_WINDOW)) }
}

/// As [`sliding_window`], none unless `use_sliding_window`.
fn switched_window(config: &ModelConfig) -> Result<Option<usize>> {
    // Whatever it is, it is known.
    config.has("sliding_window");
    if config.bool_or("use_sliding_window", false)? { sliding_window(config) } else { Ok(None) }
}

/// The kinds of layers that `layer_types` lists, one per layer and each one of `kinds`; `None` without a list.
///
/// # Errors
/// `InvalidModel` for a list of another length, `UnsupportedModel` for other kinds.
fn layer_types<'a>(
    config: &'a ModelConfig,
    num_hidden_layers: usize,
    kinds: &[&str],
) -> Result<Option<Vec<&'a str>>> {
    layer_types_of(config, num_hidden_layers, "layer_types", kinds)
}

/// As [`layer_types`], of the list `key`.
fn layer_types_of<'a>(
    config: &'a ModelConfig,
    num_hidden_layers: usize,
    key: &str,
    kinds: &[&str],
) -> Result<Option<Vec<&'a str>>> {
    let Some(types) = config.opt_strings(key)? else { return Ok(None) };
    if types.len() != num_hidden_layers {
        let expected = format!("{num_hidden_layers} entries, one per layer, not {}", types.len());
        return Err(config.invalid(key, &expected));
    }
    match types.iter().all(|kind| kinds.contains(kind)) {
        true => Ok(Some(types)),
        false => Err(config.unsupported(key, &format!("only {}", kinds.join(" and ")))),
    }
}

/// Layers with `window` where `layer_types` says so, else where `windowed` does. `what` is expected of `sliding_window`
/// where the list has windows and there is none.
fn windows(
    config: &ModelConfig,
    num_hidden_layers: usize,
    (window, what): (Option<usize>, &str),
    windowed: impl Fn(usize) -> bool,
) -> Result<Vec<LayerSpec>> {
    let layer = |windowed: bool| LayerSpec { window: window.filter(|_| windowed), ..LayerSpec::default() };
    match layer_types(config, num_hidden_layers, &["full_attention", "sliding_attention"])? {
        None => Ok((0..num_hidden_layers).map(|i| layer(windowed(i))).collect()),
        Some(types) if window.is_none() && types.contains(&"sliding_attention") => {
            Err(config.invalid("sliding_window", what))
        }
        Some(types) => Ok(types.into_iter().map(|kind| layer(kind == "sliding_attention")).collect()),
    }
}

/// As [`windows`], where every `sliding_window_pattern`-th layer has none.
fn windows_by_pattern(
    config: &ModelConfig,
    num_hidden_layers: usize,
    default_pattern: usize,
) -> Result<Vec<LayerSpec>> {
    let mut pattern = None;
    // transformers writes the older key with an underscore.
    for key in ["sliding_window_pattern", "_sliding_window_pattern"] {
        pattern = pattern.or(config.opt_usize(key)?);
        if pattern == Some(0) {
            return Err(config.invalid(key, "a positive integer"));
        }
    }
    let pattern = pattern.unwrap_or(default_pattern);
    let window = (sliding_window(config)?, "an integer, as layer_types has windows");
    windows(config, num_hidden_layers, window, |i| (i + 1) % pattern != 0)
}

/// The size that the configuration gives under one of `keys`, or the same under several.
fn one_of(config: &ModelConfig, keys: &[&str]) -> Result<usize> {
    let mut found = None;
    for key in keys {
        match (found, config.opt_usize(key)?) {
            (Some(a), Some(b)) if a != b => {
                return Err(config.invalid(key, &format!("{a}, its value under another name")));
            }
            (_, value) => found = found.or(value),
        }
    }
    found.ok_or_else(|| config.invalid(keys[0], "an integer"))
}

/// Refuses a switch that is not as the family has it.
fn only(config: &ModelConfig, key: &str, value: bool) -> Result<()> {
    match config.opt_bool(key)? {
        Some(found) if found != value => Err(config.unsupported(key, &value.to_string())),
        _ => Ok(()),
    }
}

/// The activation that the configuration names under `key`, GELU where it does not.
fn gelu_unless(config: &ModelConfig, key: &str) -> Result<Activation> {
    if config.has(key) { activation(config, key) } else { Ok(Activation::Gelu) }
}

/// Refuses a classifier with other than one label: the score of a pair.
fn labels(config: &ModelConfig) -> Result<()> {
    const LABELS: &str = "id2label";
    const NUMBER: &str = "num_labels";
    let labels = config.object(LABELS)?.map(|labels| labels.keys().count());
    match labels.or(config.opt_usize(NUMBER)?) {
        Some(1) => Ok(()),
        _ => Err(config.unsupported(if labels.is_some() { LABELS } else { NUMBER }, "one label: a score")),
    }
}
