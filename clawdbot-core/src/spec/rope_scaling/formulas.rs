//! Frequencies of the rope types.

use std::f64::consts::PI;

use super::settings::Settings;
use crate::error::{Error, Result};

/// Llama 3.1: frequencies of long wavelengths are divided by `factor`, those of short ones kept, those between
/// interpolated.
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low_freq_factor: f64,
    pub(super) high_freq_factor: f64,
    pub(super) original_length: f64,
}

impl Llama3 {
    pub(super) fn parse(settings: &Settings<'_>) -> Result<Self> {
        let positive = |key| settings.required(key, |factor| factor > 0.0, "a number > 0");
        let (low_freq_factor, high_freq_factor) =
            (positive("low_freq_factor")?, positive("high_freq_factor")?);
        if high_freq_factor < low_freq_factor {
            let expected = format!("at least low_freq_factor, which is {low_freq_factor}");
            return Err(settings.invalid("high_freq_factor", &expected));
        }
        let original_length = settings.original_max_position_embeddings()?;
        Ok(Llama3 { factor: settings.factor()?, low_freq_factor, high_freq_factor, original_length })
    }

    pub(super) fn scale(&self, inv_freq: &mut [f64]) {
        for freq in inv_freq {
            let wavelength = 2.0 * PI / *freq;
            if wavelength > self.original_length / self.low_freq_factor {
                *freq /= self.factor;
            } else if wavelength >= self.original_length / self.high_freq_factor
                // Llama 4 has a step instead of a ramp.
                && self.high_freq_factor > self.low_freq_factor
            {
                let smooth = (self.original_length / wavelength - self.low_freq_factor)
                    / (self.high_freq_factor - self.low_freq_factor);
                *freq = (1.0 - smooth) * *freq / self.factor + smooth * *freq;
            }
        }
    }
}

/// YaRN: dimensions that rotate often within the original length are kept, those that rotate seldom are divided by
/// `factor`, with a linear ramp between them. Paper: <https://arxiv.org/abs/2309.00071>.
pub(super) struct Yarn {
    pub(super) factor: f64,
    pub(super) attention_factor: f64,
    pub(super) score_scale: f64,
    /// Rotations within the original length from which on a dimension is kept.
    pub(super) beta_fast: f64,
    /// Rotations below which a dimension is interpolated.
    pub(super) beta_slow: f64,
    pub(super) original_length: f64,
    /// Whether the ends of the ramp are rounded outwards to whole dimensions.
    pub(super) truncate: bool,
}

impl Yarn {
    pub(super) fn parse(settings: &Settings<'_>) -> Result<Self> {
        let original_length = settings.original_max_position_embeddings()?;
        let factor = settings.factor()?;
        let not_negative = |key| settings.checked(key, |x| x >= 0.0, "a number >= 0");
        // Zero counts as absent for these, as in transformers.
        let optional = |key| Ok::<_, Error>(not_negative(key)?.filter(|&x| x != 0.0));
        let mscale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * libm::log(factor) + 1.0 };
        let inferred = match (optional("mscale")?, optional("mscale_all_dim")?) {
            (Some(numerator), Some(denominator)) => mscale(numerator) / mscale(denominator),
            _ => mscale(1.0),
        };
        let (beta_fast, beta_slow) =
            (optional("beta_fast")?.unwrap_or(32.0), optional("beta_slow")?.unwrap_or(1.0));
        if beta_fast < beta_slow {
            let expected = format!("at least beta_slow, which is {beta_slow}");
            return Err(settings.invalid("beta_fast", &expected));
        }
        let mut truncate = None;
        for source in &settings.nested {
            let value = source.opt_bool("truncate")?;
            if let (Some(a), Some(b)) = (truncate, value)
                && a != b
            {
                return Err(source.invalid("truncate", &format!("{a}, its value elsewhere in the file")));
            }
            truncate = truncate.or(value);
        }
        Ok(Yarn {
            factor,
            attention_factor: not_negative("attention_factor")?.unwrap_or(inferred),
            score_scale: optional("mscale_all_dim")?.map_or(1.0, |weight| mscale(weight) * mscale(weight)),
            beta_fast,
            beta_slow,
            original_length,
            truncate: truncate.unwrap_or(true),
        })
    }

    pub(super) fn scale(&self, theta: f64, head_dim: usize, inv_freq: &mut [f64]) {
        let dim = head_dim as f64;
        // The dimension that makes `turns` rotations within the original length.
        let dimension = |turns: f64| {
            dim * libm::log(self.original_length / (turns * 2.0 * PI)) / (2.0 * libm::log(theta))
        };
        let (mut low, mut high) = (dimension(self.beta_fast), dimension(self.beta_slow));
        if self.truncate {
            (low, high) = (libm::floor(low), libm::ceil(high));
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        for (i, freq) in inv_freq.iter_mut().enumerate() {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            *freq = *freq / self.factor * ramp + *freq * (1.0 - ramp);
        }
    }
}

/// Divisors of all frequencies, for short and for long sequences.
pub(super) struct LongRopeScaling {
    pub(super) short: Vec<f64>,
    pub(super) long: Vec<f64>,
    pub(super) attention_factor: f64,
    pub(super) from: usize,
}

impl LongRopeScaling {
    pub(super) fn parse(settings: &Settings<'_>, count: usize) -> Result<Self> {
        let original = settings.original_max_position_embeddings()?;
        let factor = match settings.checked("factor", |factor| factor >= 1.0, "a number >= 1")? {
            Some(factor) => factor,
            None => settings.top.usize("max_position_embeddings")? as f64 / original,
        };
        let inferred =
            if factor <= 1.0 { 1.0 } else { libm::sqrt(1.0 + libm::log(factor) / libm::log(original)) };
        let given = settings.checked("attention_factor", |factor| factor > 0.0, "a number > 0")?;
        let factors = |key: &str| {
            let mut found = None;
            for source in &settings.nested {
                found = found.or(source.opt_f64s(key)?);
            }
            match found.filter(|list: &Vec<f64>| list.len() == count && list.iter().all(|&x| x > 0.0)) {
                Some(list) => Ok(list),
                None => Err(settings.invalid(key, &format!("{count} numbers > 0"))),
            }
        };
        Ok(LongRopeScaling {
            short: factors("short_factor")?,
            long: factors("long_factor")?,
            attention_factor: given.unwrap_or(inferred),
            from: original as usize,
        })
    }
}
