//! The steps of sampling, their order, and which options belong to them.

use serde::{Deserialize, Serialize};

use super::declare::names;
use super::spec::out_of_range;
use crate::error::Result;

/// A step of sampling that the option `samplers` may name. The names are those of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Sampler {
    /// `repetition_penalty`, `presence_penalty` and `frequency_penalty`.
    #[serde(rename = "penalties")]
    Penalties,
    /// `dry_multiplier`, with its parameters.
    #[serde(rename = "dry")]
    Dry,
    /// `top_n_sigma`.
    #[serde(rename = "top_n_sigma")]
    TopNSigma,
    /// `temperature` and `dynatemp_range`.
    #[serde(rename = "temperature")]
    Temperature,
    /// `top_k`.
    #[serde(rename = "top_k")]
    TopK,
    /// `top_p`.
    #[serde(rename = "top_p")]
    TopP,
    /// `min_p`.
    #[serde(rename = "min_p")]
    MinP,
    /// `typical_p`.
    #[serde(rename = "typ_p")]
    TypicalP,
    /// `xtc_probability`, with its threshold.
    #[serde(rename = "xtc")]
    Xtc,
}

names!(Sampler: Penalties = "penalties", Dry = "dry", TopNSigma = "top_n_sigma", Temperature = "temperature",
    TopK = "top_k", TopP = "top_p", MinP = "min_p", TypicalP = "typ_p", Xtc = "xtc");

impl Sampler {
    /// Whether it changes logits by what was generated: such steps come first, and count without drawing too.
    fn penalizes(self) -> bool {
        matches!(self, Sampler::Penalties | Sampler::Dry)
    }

    /// Whether it chooses which tokens may be drawn.
    fn filters(self) -> bool {
        !self.penalizes() && self != Sampler::Temperature
    }
}

/// A sampler, one of its options, and whether that has a value that is not "off".
pub(super) type Asked = (Sampler, &'static str, bool);

/// The samplers of a request, in their order: those that are `given`, or all. With Mirostat, none that filters.
pub(super) fn samplers_in_force(given: Option<&[Sampler]>, mirostat: bool) -> Vec<Sampler> {
    match given {
        Some(samplers) => samplers.to_vec(),
        None if mirostat => Sampler::ALL.into_iter().filter(|sampler| !sampler.filters()).collect(),
        None => Sampler::ALL.to_vec(),
    }
}

/// Checks that each sampler is named once, that penalties come first, and that no option is without effect.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_samplers(given: Option<&[Sampler]>, mirostat: bool, asked: &[Asked]) -> Result<()> {
    let samplers = samplers_in_force(given, mirostat);
    for (place, sampler) in samplers.iter().enumerate() {
        let before = &samplers[..place];
        if before.contains(sampler) {
            return Err(out_of_range("samplers", "each name once", format!("{sampler} twice")));
        }
        let other = before.iter().find(|other| !other.penalizes());
        if let Some(other) = other.filter(|_| sampler.penalizes()) {
            let expected = "penalties and dry before the others";
            return Err(out_of_range("samplers", expected, format!("{sampler} after {other}")));
        }
        if mirostat && sampler.filters() {
            return Err(out_of_range("samplers", "no filters with mirostat_tau", *sampler));
        }
    }
    let idle = asked.iter().find(|(sampler, _, asked)| *asked && !samplers.contains(sampler));
    let Some((sampler, name, _)) = idle else { return Ok(()) };
    Err(match mirostat && sampler.filters() {
        true => out_of_range(name, "none with mirostat_tau, which is in its place", "one"),
        false => out_of_range("samplers", &format!("{sampler} too, as {name} is given"), "a list without it"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for sampler in Sampler::ALL {
            assert_eq!(json!(sampler), sampler.name());
        }
    }

    #[test]
    fn mirostat_is_in_place_of_the_filters() {
        let left = [Sampler::Penalties, Sampler::Dry, Sampler::Temperature];
        assert_eq!(samplers_in_force(None, true), left);
        assert_eq!(samplers_in_force(None, false), Sampler::ALL);
    }
}
