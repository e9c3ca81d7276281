//! The settings of a rotation: where `config.json` has them, and which it may have.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec::config::ModelConfig;
use crate::weights::quoted;

/// Rope types, and the keys that each reads in addition to [`COMMON_KEYS`].
const TYPES: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("linear", &["factor"]),
    ("proportional", &["factor"]),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor"]),
    (
        "yarn",
        &["factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"],
    ),
    ("longrope", LONGROPE_KEYS),
    // Name in the first checkpoints.
    ("su", LONGROPE_KEYS),
    ("factors", &["factors"]),
    ("dynamic", &["alpha"]),
];
const LONGROPE_KEYS: &[&str] = &["factor", "attention_factor", "short_factor", "long_factor"];
/// Keys allowed in `rope_parameters` and `rope_scaling` with every type.
const COMMON_KEYS: &[&str] =
    &["rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];
/// Further ones with [`Extras::growth`].
const GROWTH_KEYS: &[&str] = &["llama_4_scaling_beta", "max_position_embeddings"];
/// Further ones with [`Extras::sections`].
const SECTION_KEYS: &[&str] = &["mrope_section", "mrope_interleaved"];
/// Keys of `rope_parameters` that name kinds of layers.
const LAYER_TYPES: &[&str] = &["full_attention", "sliding_attention"];
/// `rope_theta` if the configuration has none, as in transformers.
pub(super) const DEFAULT_THETA: f64 = 10_000.0;

/// Where to find one of several rotations of a model: layers with a window have settings of their own.
pub(crate) struct LayerRope {
    /// Key in `rope_parameters`.
    pub(crate) layer_type: &'static str,
    /// Key of the base in the older notation.
    pub(crate) theta_key: &'static str,
    /// Base if there is none.
    pub(crate) default_theta: f64,
    /// Whether `rope_scaling` of the older notation applies to it.
    pub(crate) scaled: bool,
    pub(crate) extras: Extras,
}

/// Features that only some families have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    /// Whether queries may grow with their position, see [`super::QueryGrowth`].
    pub(crate) growth: bool,
    /// Whether positions have sections, which are equal for text.
    pub(crate) sections: bool,
    /// Whether the type `proportional` is allowed: part of a head is rotated, with the frequencies of the whole.
    pub(crate) proportional: bool,
    /// Whether the type `dynamic` is allowed, with a fixed `alpha` by which the base grows.
    pub(crate) alpha: bool,
}

impl Extras {
    /// No extra feature.
    pub(crate) const NONE: Extras =
        Extras { growth: false, sections: false, proportional: false, alpha: false };
}

/// The objects that may hold a setting: `rope_parameters`, `rope_scaling`, the configuration itself.
pub(super) struct Settings<'a> {
    pub(super) top: &'a ModelConfig,
    pub(super) nested: Vec<ModelConfig>,
    /// Key of the base in the configuration itself.
    pub(super) theta_key: &'static str,
    pub(super) default_theta: f64,
    pub(super) extras: Extras,
}

impl<'a> Settings<'a> {
    pub(super) fn new(top: &'a ModelConfig) -> Result<Self> {
        let mut nested = Vec::new();
        for key in ["rope_parameters", "rope_scaling"] {
            if let Some(object) = top.object(key)? {
                nested.push(object);
            }
        }
        Ok(Settings {
            top,
            nested,
            theta_key: "rope_theta",
            default_theta: DEFAULT_THETA,
            extras: Extras::NONE,
        })
    }

    /// The settings of one kind of layers, if `rope_parameters` has an object for each.
    pub(super) fn of_layers(top: &'a ModelConfig, layer: &LayerRope) -> Result<Self> {
        let LayerRope { layer_type, theta_key, default_theta, scaled, extras } = *layer;
        let mut nested = Vec::new();
        match top.object("rope_parameters")? {
            Some(all) => {
                all.only_keys(LAYER_TYPES)?;
                nested.extend(all.object(layer_type)?);
            }
            None if scaled => nested.extend(top.object("rope_scaling")?),
            None => {}
        }
        Ok(Settings { top, nested, theta_key, default_theta, extras })
    }

    /// The number `key` and its object; all objects that have it must agree.
    pub(super) fn find(&self, key: &str) -> Result<Option<(&ModelConfig, f64)>> {
        let mut found: Option<(&ModelConfig, f64)> = None;
        let top_key = if key == "rope_theta" { self.theta_key } else { key };
        let nested = self.nested.iter().map(|source| (source, key));
        for (source, key) in nested.chain(self.shared(key).map(|top| (top, top_key))) {
            let Some(value) = source.opt_f64(key)? else { continue };
            match found {
                Some((_, other)) if other != value => {
                    return Err(source.invalid(key, &format!("{other}, its value elsewhere in the file")));
                }
                _ => found = found.or(Some((source, value))),
            }
        }
        Ok(found)
    }

    /// The configuration itself, for keys that may be there. (Others, such as `factor`, would mean something else.)
    fn shared(&self, key: &str) -> Option<&ModelConfig> {
        const TOP_LEVEL: &[&str] =
            &["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];
        TOP_LEVEL.contains(&key).then_some(self.top)
    }

    /// `factors`: `count` positive numbers.
    pub(super) fn factors(&self, count: usize) -> Result<Vec<f64>> {
        const KEY: &str = "factors";
        let source = self.nested.iter().find(|source| source.get(KEY).is_some()).unwrap_or(self.top);
        let list = source.get(KEY).and_then(Value::as_array);
        let factors = list.and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
        let usable = |factors: &Vec<f64>| {
            factors.len() == count && factors.iter().all(|factor| factor.is_finite() && *factor > 0.0)
        };
        factors.filter(usable).ok_or_else(|| source.invalid(KEY, &format!("{count} positive numbers")))
    }

    /// The rope type, one of `TYPES`. Keys that it does not read have no effect, as in transformers, and are noted.
    pub(super) fn rope_type(&self) -> Result<&'static str> {
        let mut found: Option<(&ModelConfig, &'static str, &str)> = None;
        for source in &self.nested {
            for key in ["rope_type", "type"] {
                let Some(value) = source.opt_str(key)? else { continue };
                match found {
                    Some((.., other)) if other != value => {
                        let expected = format!("{}, its value elsewhere in the file", quoted(other));
                        return Err(source.invalid(key, &expected));
                    }
                    _ => found = found.or(Some((source, key, value))),
                }
            }
        }
        let (source, key, name) = found.unwrap_or((self.top, "rope_type", "default"));
        let allowed = |name: &str| match name {
            "proportional" => self.extras.proportional,
            "dynamic" => self.extras.alpha,
            _ => true,
        };
        let types = || TYPES.iter().filter(|(known, _)| allowed(known));
        let Some(&(rope_type, keys)) = types().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = types().map(|&(name, _)| name).collect();
            return Err(source.unsupported(key, &format!("one of {}", names.join(", "))));
        };
        let growth = if self.extras.growth { GROWTH_KEYS } else { &[] };
        let sections = if self.extras.sections { SECTION_KEYS } else { &[] };
        let known = [COMMON_KEYS, keys, growth, sections].concat();
        for source in &self.nested {
            let unused: Vec<&str> =
                source.keys().filter(|key| !known.contains(key) && source.get(key).is_some()).collect();
            for key in unused {
                source.note(key, &format!("the rope type {rope_type} does not use it, as in transformers"));
            }
        }
        Ok(rope_type)
    }

    pub(super) fn checked(&self, key: &str, holds: fn(f64) -> bool, expected: &str) -> Result<Option<f64>> {
        match self.find(key)? {
            Some((source, value)) if !holds(value) => Err(source.invalid(key, expected)),
            found => Ok(found.map(|(_, value)| value)),
        }
    }

    pub(super) fn number_or(
        &self,
        key: &str,
        default: f64,
        holds: fn(f64) -> bool,
        expected: &str,
    ) -> Result<f64> {
        Ok(self.checked(key, holds, expected)?.unwrap_or(default))
    }

    pub(super) fn required(&self, key: &str, holds: fn(f64) -> bool, expected: &str) -> Result<f64> {
        self.checked(key, holds, expected)?.ok_or_else(|| self.invalid(key, expected))
    }

    /// `InvalidModel` about `key` where it is, or where it should be.
    pub(super) fn invalid(&self, key: &str, expected: &str) -> Error {
        let holder = self.nested.iter().find(|source| source.get(key).is_some());
        holder.or(self.nested.first()).unwrap_or(self.top).invalid(key, expected)
    }

    pub(super) fn factor(&self) -> Result<f64> {
        self.required("factor", |factor| factor >= 1.0, "a number >= 1")
    }

    /// Context length of the training before it was extended.
    pub(super) fn original_max_position_embeddings(&self) -> Result<f64> {
        const KEY: &str = "original_max_position_embeddings";
        match self.checked(KEY, |length| length >= 1.0 && length.fract() == 0.0, "a positive integer")? {
            Some(length) => Ok(length),
            None => Ok(self.top.usize("max_position_embeddings")? as f64),
        }
    }
}
