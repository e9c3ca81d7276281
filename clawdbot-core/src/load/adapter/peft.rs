//! `adapter_config.json` as PEFT writes it.

use serde_json::Value;

use crate::error::Result;
use crate::load::name_pattern::{Limit, NamePattern, Part};
use crate::spec::config::ModelConfig;

/// Settings that change nothing of what an adapter computes, or that its tensors show.
const HARMLESS: [&str; 25] = [
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "bias",
    "ensure_weight_tying",
    "megatron_config",
    "megatron_core",
    "qalora_group_size",
    "eva_config",
    "runtime_config",
];
/// Ways to begin training that change the model's own weights.
const OTHER_BASES: [&str; 4] = ["pissa", "olora", "corda", "loftq"];
/// Most exceptions for modules.
const MAX_PATTERNS: usize = 10_000;

/// Ranks and scales of an adapter.
#[derive(Debug)]
pub(crate) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    /// Whether the scale is `alpha / sqrt(rank)` (<https://arxiv.org/abs/2312.03732>) instead of `alpha / rank`.
    square_root: bool,
    /// Exceptions: modules whose names end with a match.
    ranks: Vec<Exception<usize>>,
    alphas: Vec<Exception<f64>>,
}

/// Another value for some modules.
#[derive(Debug)]
struct Exception<T> {
    modules: NamePattern,
    value: T,
}

/// What an adapter has for one module.
pub(crate) struct RankAndScale {
    pub(crate) rank: usize,
    /// What `B (A x)` is multiplied with.
    pub(crate) scale: f32,
}

impl AdapterConfig {
    /// # Errors
    /// `UnsupportedModel` for other kinds of adapters and settings that change what they compute; `InvalidModel` for
    /// missing and malformed ones.
    pub(crate) fn parse(config: &ModelConfig) -> Result<Self> {
        if config.str("peft_type")? != "LORA" {
            return Err(config.unsupported("peft_type", "LORA"));
        }
        // Others have heads of their own.
        let task = config.opt_str("task_type")?.unwrap_or("CAUSAL_LM");
        if !["CAUSAL_LM", "FEATURE_EXTRACTION"].contains(&task) {
            return Err(config.unsupported("task_type", "CAUSAL_LM or FEATURE_EXTRACTION"));
        }
        if config.opt_str("bias")?.is_some_and(|bias| bias != "none") {
            return Err(config.unsupported("bias", "none"));
        }
        let init = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if OTHER_BASES.iter().any(|other| init.starts_with(other)) {
            return Err(
                config.unsupported("init_lora_weights", "a way that leaves the model's weights alone")
            );
        }
        // What is off is known, whatever it would do.
        let off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let mut others = config.keys().filter(|key| !HARMLESS.contains(key));
        if let Some(key) = others.find(|key| !config.get(key).is_none_or(off)) {
            return Err(config.unsupported(key, "null, false or nothing in it"));
        }
        let positive = |value: usize| match value {
            0 => Err(config.invalid("r", "a positive integer")),
            value => Ok(value),
        };
        let alpha = config.opt_f64("lora_alpha")?;
        let mut limit = Limit::default();
        let mut patterns = |key: &str| -> Result<Vec<Exception<Value>>> {
            let Some(patterns) = config.object(key)? else { return Ok(Vec::new()) };
            if patterns.keys().count() > MAX_PATTERNS {
                return Err(config.invalid(key, &format!("at most {MAX_PATTERNS} entries")));
            }
            let entries = patterns.keys().filter_map(|name| Some((name, patterns.get(name)?.clone())));
            let parse = |(name, value): (&str, Value)| {
                let modules = NamePattern::parse(name, Part::End, &mut limit)
                    .map_err(|expected| config.invalid(key, &expected))?;
                Ok(Exception { modules, value })
            };
            entries.map(parse).collect()
        };
        let rank = |Exception { modules, value }: Exception<Value>| {
            let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|&rank| rank > 0);
            rank.map(|value| Exception { modules, value })
                .ok_or_else(|| config.invalid("rank_pattern", "positive integers"))
        };
        let number = |Exception { modules, value }: Exception<Value>| {
            let number = value.as_f64().filter(|number| number.is_finite());
            number
                .map(|value| Exception { modules, value })
                .ok_or_else(|| config.invalid("alpha_pattern", "numbers"))
        };
        Ok(AdapterConfig {
            rank: positive(config.usize("r")?)?,
            alpha: alpha.ok_or_else(|| config.invalid("lora_alpha", "a number"))?,
            square_root: config.bool_or("use_rslora", false)?,
            ranks: patterns("rank_pattern")?.into_iter().map(rank).collect::<Result<_>>()?,
            alphas: patterns("alpha_pattern")?.into_iter().map(number).collect::<Result<_>>()?,
        })
    }

    /// Rank and scale for `module`. As in PEFT, the first pattern that matches counts.
    ///
    /// # Errors
    /// `InvalidModel` for a pattern that takes too long.
    pub(crate) fn rank_and_scale(&self, module: &str) -> Result<RankAndScale> {
        let rank = first(&self.ranks, module)?.unwrap_or(self.rank);
        let alpha = first(&self.alphas, module)?.unwrap_or(self.alpha);
        let divisor = if self.square_root { (rank as f64).sqrt() } else { rank as f64 };
        Ok(RankAndScale { rank, scale: (alpha / divisor) as f32 })
    }
}

fn first<T: Copy>(exceptions: &[Exception<T>], module: &str) -> Result<Option<T>> {
    for exception in exceptions {
        if exception.modules.matches(module)? {
            return Ok(Some(exception.value));
        }
    }
    Ok(None)
}
