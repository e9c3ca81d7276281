//! Model families, one per file: from `config.json` to a `DecoderSpec`.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_gemma3n;
#[cfg(test)]
mod tests_plain_mlps;
#[cfg(test)]
mod tests_text_models;

use super::architecture::{Architecture, architecture, text_of};
use super::config::ModelConfig;
use super::gguf::GgufFamily;
use super::{Activation, KeySource, LayerSpec, activation};
use crate::error::Result;

/// A family: what a file of this folder defines.
pub(crate) struct Family {
    pub(crate) architectures: &'static [Architecture],
    /// How GGUF files store them.
    pub(crate) gguf: &'static [GgufFamily],
}

macro_rules! families {
    ($($family:ident,)+) => {
        $(mod $family;)+
        /// All families.
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
    gemma3n,
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
    ernie4_5,
    starcoder2,
    phi,
    gpt2,
    apertus,
    hunyuan,
    glm4_moe,
    minimax_m2,
    qwen3_vl,
    nemotron_h,
    llama4,
}

/// `sliding_window` if the configuration does not have the key (null means none), as in transformers.
const DEFAULT_SLIDING_WINDOW: usize = 4096;

/// The window of layers that have one, in tokens.
fn sliding_window(config: &ModelConfig) -> Result<Option<usize>> {
    const KEY: &str = "sliding_window";
    if config.has(KEY) { config.opt_usize(KEY) } else { Ok(Some(DEFAULT_SLIDING_WINDOW)) }
}

/// As [`sliding_window`], but none unless `use_sliding_window`.
fn switched_window(config: &ModelConfig) -> Result<Option<usize>> {
    // Marks the key as read in any case.
    config.has("sliding_window");
    if config.bool_or("use_sliding_window", false)? { sliding_window(config) } else { Ok(None) }
}

/// The kinds of layers in `layer_types`, one per layer and each one of `kinds`; `None` without that list.
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

/// As [`layer_types`], for the list `key`.
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

/// The sliding window of a configuration.
struct Window {
    /// In tokens; `None`: no layer has one.
    size: Option<usize>,
    /// What `sliding_window` is expected to be if `layer_types` has windows and there is no size.
    expected: &'static str,
}

/// Layers with a window where `layer_types` says so; without that list, where `windowed` does.
fn windows(
    config: &ModelConfig,
    num_hidden_layers: usize,
    window: Window,
    windowed: impl Fn(usize) -> bool,
) -> Result<Vec<LayerSpec>> {
    let layer =
        |windowed: bool| LayerSpec { window: window.size.filter(|_| windowed), ..LayerSpec::default() };
    match layer_types(config, num_hidden_layers, &["full_attention", "sliding_attention"])? {
        None => Ok((0..num_hidden_layers).map(|i| layer(windowed(i))).collect()),
        Some(types) if window.size.is_none() && types.contains(&"sliding_attention") => {
            Err(config.invalid("sliding_window", window.expected))
        }
        Some(types) => Ok(types.into_iter().map(|kind| layer(kind == "sliding_attention")).collect()),
    }
}

/// As [`windows`], with no window on every `sliding_window_pattern`-th layer.
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
    let window = Window { size: sliding_window(config)?, expected: "an integer, as layer_types has windows" };
    windows(config, num_hidden_layers, window, |i| (i + 1) % pattern != 0)
}

/// Gives the last `num_kv_shared_layers` layers the keys and values of the last layer of their kind (with or without a
/// window) before all of them. Returns how many layers have their own.
///
/// # Errors
/// `InvalidModel` where there is no such layer.
fn share_keys(config: &ModelConfig, layers: &mut [LayerSpec], default: usize) -> Result<usize> {
    const KEY: &str = "num_kv_shared_layers";
    let (count, shared) = (layers.len(), config.opt_usize(KEY)?.unwrap_or(default));
    let Some(own) = count.checked_sub(shared).filter(|&own| own > 0) else {
        return Err(config.invalid(KEY, &format!("fewer than num_hidden_layers, which is {count}")));
    };
    let (sources, sharing) = layers.split_at_mut(own);
    for layer in sharing {
        let source = sources.iter().rposition(|source| source.window.is_some() == layer.window.is_some());
        layer.keys = KeySource::Layer(
            source
                .ok_or_else(|| config.invalid(KEY, "to leave layers of each kind with keys of their own"))?,
        );
    }
    Ok(own)
}

/// The size under one of `keys`; several must agree.
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

/// Refuses another value of a switch than the family's.
fn only(config: &ModelConfig, key: &str, value: bool) -> Result<()> {
    match config.opt_bool(key)? {
        Some(found) if found != value => Err(config.unsupported(key, &value.to_string())),
        _ => Ok(()),
    }
}

/// Refuses another name under `key` than the family's.
fn only_str(config: &ModelConfig, key: &str, value: &str) -> Result<()> {
    match config.opt_str(key)? {
        Some(found) if found != value => Err(config.unsupported(key, &format!("{value:?}"))),
        _ => Ok(()),
    }
}

/// The activation named by `key`; GELU if the key is missing.
fn gelu_unless(config: &ModelConfig, key: &str) -> Result<Activation> {
    if config.has(key) { activation(config, key) } else { Ok(Activation::Gelu) }
}

/// Refuses classifiers with more than one label: the score of a pair.
fn labels(config: &ModelConfig) -> Result<()> {
    const LABELS: &str = "id2label";
    const NUMBER: &str = "num_labels";
    let labels = config.object(LABELS)?.map(|labels| labels.keys().count());
    match labels.or(config.opt_usize(NUMBER)?) {
        Some(1) => Ok(()),
        _ => Err(config.unsupported(if labels.is_some() { LABELS } else { NUMBER }, "one label: a score")),
    }
}
