//! Rotary frequencies: the rope types of `config.json` in both notations.
//!
//! Formulas: transformers 5, `modeling_rope_utils.py`. Computed in f64, with our own `pow` and `log` so that they are
//! the same everywhere, and rounded to f32 at the end.

mod formulas;
mod settings;

use self::formulas::{Llama3, LongRopeScaling, Yarn};
use self::settings::{DEFAULT_THETA, Settings};
pub(crate) use self::settings::{Extras, LayerRope};
use super::config::ModelConfig;
use crate::error::{Error, Result};

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

/// Queries at position `p` are multiplied by `1 + beta * ln(1 + floor((p + first) / length))`, as in Llama 4 and
/// Ministral 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueryGrowth {
    pub(crate) beta: f32,
    pub(crate) length: usize,
    /// Number of the first position.
    pub(crate) first: usize,
}

impl QueryGrowth {
    /// Factor of queries at `position`.
    pub(crate) fn at(self, position: usize) -> f32 {
        1.0 + self.beta * libm::log1pf((position.saturating_add(self.first) / self.length) as f32)
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

impl RopeSpec {
    /// No rotation, for layers whose queries grow.
    pub(crate) fn growth_alone(growth: QueryGrowth) -> RopeSpec {
        RopeSpec {
            inv_freq: Vec::new(),
            attention_scaling: 1.0,
            rotary_dim: 0,
            interleaved: false,
            score_scale: 1.0,
            long: None,
            growth: Some(growth),
        }
    }
}

impl Settings<'_> {
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
            "dynamic" => {
                let alpha = self.required("alpha", |alpha| alpha > 0.0, "a number > 0")?;
                // As if the base were the product with alpha^(d / (d - 2)).
                let width = rotary_dim as f64;
                let growth = libm::pow(alpha, width / (width - 2.0));
                let grown = |(i, freq): (usize, &mut f64)| *freq /= libm::pow(growth, exponent(i));
                inv_freq.iter_mut().enumerate().for_each(grown);
            }
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

    fn query_growth(&self) -> Result<Option<QueryGrowth>> {
        let beta = self.checked("llama_4_scaling_beta", |beta| (0.0..=100.0).contains(&beta), "up to 100")?;
        let Some(beta) = beta.filter(|_| self.extras.growth) else { return Ok(None) };
        let length = self.original_max_position_embeddings()? as usize;
        Ok(Some(QueryGrowth { beta: beta as f32, length, first: 0 }))
    }
}

#[cfg(test)]
mod tests;
