//! Rotary frequencies: the rope types of `config.json` in both notations.
//!
//! Formulas: transformers 5, `modeling_rope_utils.py`. Computed in f64, with our own `pow` and `log` so that they are
//! the same everywhere, and rounded to f32 at the end.

mod formulas;

use serde_json::Value;

use self::formulas::{Llama3, LongRopeScaling, Yarn};
use super::config::ModelConfig;
use crate::error::{Error, Result};
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
const DEFAULT_THETA: f64 = 10_000.0;

/// Rotary position embedding: the pair `(x[i], x[i + rotary_dim / 2])` of a head is rotated by the angle `position *
/// inv_freq[i]`, and cosine and sine are multiplied by `attention_scaling`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeSpec {
    /// Radians per token, `[rotary_dim / 2]`.
    pub(crate) inv_freq: Vec<f32>,
    /// 1.0 except for YaRN.
    pub(crate) attention_scaling: f32,
    /// Leading elements of a head that are rotated.
    pub(crate) rotary_dim: usize,
    /// Whether pairs are `(x[2i], x[2i + 1])` instead.
    pub(crate) interleaved: bool,
    /// Additional factor of attention scores, in families that have one: DeepSeek's, for YaRN's `mscale_all_dim`.
    pub(crate) score_scale: f32,
    /// Other frequencies for long sequences.
    pub(crate) long: Option<LongRope>,
    /// Queries grow with their position.
    pub(crate) growth: Option<QueryGrowth>,
}

/// Queries at position `p` are multiplied by `1 + beta * ln(1 + floor(p / length))`, as in Llama 4 and Ministral 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueryGrowth {
    pub(crate) beta: f32,
    pub(crate) length: usize,
}

impl QueryGrowth {
    /// Factor of queries at `position`.
    pub(crate) fn at(self, position: usize) -> f32 {
        1.0 + self.beta * libm::log1pf((position / self.length) as f32)
    }
}

/// LongRoPE (<https://arxiv.org/abs/2402.13753>): a sequence of more than `from` tokens uses other frequencies for all
/// its positions, so what was cached before it became that long is recomputed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LongRope {
    pub(crate) from: usize,
    /// Radians per token, `[rotary_dim / 2]`.
    pub(crate) inv_freq: Vec<f32>,
}

impl RopeSpec {
    /// The frequencies for a sequence of `length` tokens.
    pub(crate) fn inv_freq(&self, length: usize) -> &[f32] {
        match &self.long {
            Some(long) if length > long.from => &long.inv_freq,
            _ => &self.inv_freq,
        }
    }
}

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
    /// Whether queries may grow with their position, see [`QueryGrowth`].
    pub(crate) growth: bool,
    /// Whether positions have sections, which are equal for text.
    pub(crate) sections: bool,
    /// Whether the type `proportional` is allowed: part of a head is rotated, with the frequencies of the whole.
    pub(crate) proportional: bool,
}

impl Extras {
    /// No extra feature.
    pub(crate) const NONE: Extras = Extras { growth: false, sections: false, proportional: false };
}

/// Values for settings that are missing.
#[derive(Clone, Copy)]
pub(crate) struct RopeDefaults {
    pub(crate) theta: f64,
    /// Fraction of a head that is rotated; `None`: always all of it.
    pub(crate) partial: Option<f64>,
    pub(crate) extras: Extras,
}

impl RopeDefaults {
    /// Llama's.
    pub(crate) const LLAMA: RopeDefaults =
        RopeDefaults { theta: DEFAULT_THETA, partial: None, extras: Extras::NONE };
}

impl RopeSpec {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`, for heads of `head_dim` elements.
    ///
    /// # Errors
    /// `UnsupportedModel` for other rope types, and for partial rotation in families without it; `InvalidModel` if a
    /// value is missing, out of range, or given twice with different values.
    pub(crate) fn parse(config: &ModelConfig, head_dim: usize, defaults: RopeDefaults) -> Result<RopeSpec> {
        let settings =
            Settings { default_theta: defaults.theta, extras: defaults.extras, ..Settings::new(config)? };
        let Some(partial) = defaults.partial else { return settings.whole_heads(head_dim) };
        let in_range = |factor| factor > 0.0 && factor <= 1.0;
        let factor =
            settings.number_or("partial_rotary_factor", partial, in_range, "a number > 0, up to 1")?;
        // Exact, as heads are short.
        let rotary_dim = (head_dim as f64 * factor) as usize;
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let expected = format!("an even part of the heads' {head_dim} elements");
            return Err(settings.invalid("partial_rotary_factor", &expected));
        }
        settings.spec(rotary_dim)
    }

    /// As [`RopeSpec::parse`], for the layers of kind `layer`.
    ///
    /// # Errors
    /// As [`RopeSpec::parse`].
    pub(crate) fn parse_layers(config: &ModelConfig, head_dim: usize, layer: &LayerRope) -> Result<RopeSpec> {
        Settings::of_layers(config, layer)?.whole_heads(head_dim)
    }
}

/// The objects that may hold a setting: `rope_parameters`, `rope_scaling`, the configuration itself.
struct Settings<'a> {
    top: &'a ModelConfig,
    nested: Vec<ModelConfig>,
    /// Key of the base in the configuration itself.
    theta_key: &'static str,
    default_theta: f64,
    extras: Extras,
}

impl<'a> Settings<'a> {
    fn new(top: &'a ModelConfig) -> Result<Self> {
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
    fn of_layers(top: &'a ModelConfig, layer: &LayerRope) -> Result<Self> {
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

    /// The rotation of whole heads.
    fn whole_heads(&self, head_dim: usize) -> Result<RopeSpec> {
        match self.find("partial_rotary_factor")? {
            // The other elements are not rotated but count for the frequencies.
            Some(_) if self.rope_type()? == "proportional" => self.spec(head_dim),
            Some((source, factor)) if factor != 1.0 => Err(source.unsupported("partial_rotary_factor", "1")),
            _ => self.spec(head_dim),
        }
    }

    /// The rotation of `rotary_dim` elements.
    fn spec(&self, rotary_dim: usize) -> Result<RopeSpec> {
        let theta = self.number_or("rope_theta", self.default_theta, |theta| theta > 1.0, "a number > 1")?;
        let rope_type = self.rope_type()?;
        let exponent = |i: usize| 2.0 * i as f64 / rotary_dim as f64;
        let mut inv_freq: Vec<f64> =
            (0..rotary_dim / 2).map(|i| 1.0 / libm::pow(theta, exponent(i))).collect();
        let (mut attention_scaling, mut score_scale, mut long) = (1.0, 1.0, None);
        match rope_type {
            "default" => {}
            "linear" => {
                let factor = self.factor()?;
                inv_freq.iter_mut().for_each(|freq| *freq /= factor);
            }
            "proportional" => {
                let in_range = |factor| factor > 0.0 && factor <= 1.0;
                let part = self.number_or("partial_rotary_factor", 1.0, in_range, "a number > 0, up to 1")?;
                let factor = self.number_or("factor", 1.0, |factor| factor >= 1.0, "a number >= 1")?;
                // Exact, as heads are short.
                let turned = (part * rotary_dim as f64 / 2.0) as usize;
                inv_freq.iter_mut().for_each(|freq| *freq /= factor);
                inv_freq.iter_mut().skip(turned).for_each(|freq| *freq = 0.0);
            }
            // Not a type of transformers: GGUF files store the divisors themselves.
            "factors" => {
                let factors = self.factors(inv_freq.len())?;
                inv_freq.iter_mut().zip(factors).for_each(|(freq, factor)| *freq /= factor);
            }
            "llama3" => Llama3::parse(self)?.scale(&mut inv_freq),
            "yarn" => {
                let yarn = Yarn::parse(self)?;
                yarn.scale(theta, rotary_dim, &mut inv_freq);
                (attention_scaling, score_scale) = (yarn.attention_factor, yarn.score_scale);
            }
            "longrope" | "su" => {
                let scaling = LongRopeScaling::parse(self, rotary_dim / 2)?;
                let scaled = |factors: &[f64]| -> Vec<f32> {
                    inv_freq.iter().zip(factors).map(|(freq, factor)| (freq / factor) as f32).collect()
                };
                long = Some(LongRope { from: scaling.from, inv_freq: scaled(&scaling.long) });
                inv_freq.iter_mut().zip(&scaling.short).for_each(|(freq, factor)| *freq /= factor);
                attention_scaling = scaling.attention_factor;
            }
            // A type that only `TYPES` has.
            _ => return Err(Error::internal(format!("the rope type {rope_type} is not implemented"))),
        }
        let inv_freq: Vec<f32> = inv_freq.into_iter().map(|freq| freq as f32).collect();
        let (attention_scaling, score_scale) = (attention_scaling as f32, score_scale as f32);
        let long_freq = long.iter().flat_map(|long: &LongRope| &long.inv_freq);
        if !inv_freq
            .iter()
            .chain(long_freq)
            .chain([&attention_scaling, &score_scale])
            .all(|x| x.is_finite() && *x >= 0.0)
        {
            let message = format!("rope type {rope_type}: expected finite frequencies >= 0, found others");
            return Err(Error::invalid_model(message).context(self.top.file()));
        }
        let growth = self.query_growth()?;
        Ok(RopeSpec {
            inv_freq,
            attention_scaling,
            rotary_dim,
            interleaved: false,
            score_scale,
            long,
            growth,
        })
    }

    /// The number `key` and its object; all objects that have it must agree.
    fn find(&self, key: &str) -> Result<Option<(&ModelConfig, f64)>> {
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
    fn factors(&self, count: usize) -> Result<Vec<f64>> {
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
    fn rope_type(&self) -> Result<&'static str> {
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
        let types = || TYPES.iter().filter(|(known, _)| self.extras.proportional || *known != "proportional");
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

    fn checked(&self, key: &str, holds: fn(f64) -> bool, expected: &str) -> Result<Option<f64>> {
        match self.find(key)? {
            Some((source, value)) if !holds(value) => Err(source.invalid(key, expected)),
            found => Ok(found.map(|(_, value)| value)),
        }
    }

    fn number_or(&self, key: &str, default: f64, holds: fn(f64) -> bool, expected: &str) -> Result<f64> {
        Ok(self.checked(key, holds, expected)?.unwrap_or(default))
    }

    fn required(&self, key: &str, holds: fn(f64) -> bool, expected: &str) -> Result<f64> {
        self.checked(key, holds, expected)?.ok_or_else(|| self.invalid(key, expected))
    }

    /// `InvalidModel` about `key` where it is, or where it should be.
    fn invalid(&self, key: &str, expected: &str) -> Error {
        let holder = self.nested.iter().find(|source| source.get(key).is_some());
        holder.or(self.nested.first()).unwrap_or(self.top).invalid(key, expected)
    }

    fn query_growth(&self) -> Result<Option<QueryGrowth>> {
        let beta = self.checked("llama_4_scaling_beta", |beta| (0.0..=100.0).contains(&beta), "up to 100")?;
        let Some(beta) = beta.filter(|_| self.extras.growth) else { return Ok(None) };
        let length = self.original_max_position_embeddings()? as usize;
        Ok(Some(QueryGrowth { beta: beta as f32, length }))
    }

    fn factor(&self) -> Result<f64> {
        self.required("factor", |factor| factor >= 1.0, "a number >= 1")
    }

    /// Context length of the training before it was extended.
    fn original_max_position_embeddings(&self) -> Result<f64> {
        const KEY: &str = "original_max_position_embeddings";
        match self.checked(KEY, |length| length >= 1.0 && length.fract() == 0.0, "a positive integer")? {
            Some(length) => Ok(length),
            None => Ok(self.top.usize("max_position_embeddings")? as f64),
        }
    }
}

#[cfg(test)]
mod tests;
