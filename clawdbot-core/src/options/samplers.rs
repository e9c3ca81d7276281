//! The steps of sampling, their order, and which options belong to them.

use serde::{Deserialize, Serialize};

use super::declare::names;
use super::generate::GenerateOptions;
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

    /// One of its options, if it has a value that is not "off".
    fn asked_for(self, options: &GenerateOptions) -> Option<&'static str> {
        let set = |value: Option<f32>, off: f32| value.is_some_and(|value| value != off);
        let asked: &[(&str, bool)] = match self {
            Sampler::Penalties => &[
                ("repetition_penalty", set(options.repetition_penalty, 1.0)),
                ("presence_penalty", set(options.presence_penalty, 0.0)),
                ("frequency_penalty", set(options.frequency_penalty, 0.0)),
            ],
            Sampler::Dry => &[("dry_multiplier", set(options.dry_multiplier, 0.0))],
            Sampler::TopNSigma => &[("top_n_sigma", set(options.top_n_sigma, 0.0))],
            Sampler::Temperature => &[
                ("temperature", set(options.temperature, 1.0)),
                ("dynatemp_range", set(options.dynatemp_range, 0.0)),
            ],
            Sampler::TopK => &[("top_k", options.top_k.is_some_and(|k| k > 0))],
            Sampler::TopP => &[("top_p", set(options.top_p, 1.0))],
            Sampler::MinP => &[("min_p", set(options.min_p, 0.0))],
            Sampler::TypicalP => &[("typical_p", set(options.typical_p, 1.0))],
            Sampler::Xtc => &[("xtc_probability", set(options.xtc_probability, 0.0))],
        };
        asked.iter().find(|(_, asked)| *asked).map(|(name, _)| *name)
    }
}

/// The samplers of a request, in their order: those that it names, or all. With Mirostat, none that filters.
pub(super) fn samplers_in_force(options: &GenerateOptions) -> Vec<Sampler> {
    match &options.samplers {
        Some(samplers) => samplers.clone(),
        None if options.mirostat_tau.is_some() => {
            Sampler::ALL.into_iter().filter(|sampler| !sampler.filters()).collect()
        }
        None => Sampler::ALL.to_vec(),
    }
}

/// Checks that each of `samplers` is named once, that penalties come first, and that no option is without effect.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_samplers(options: &GenerateOptions) -> Result<()> {
    let samplers = samplers_in_force(options);
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
        if options.mirostat_tau.is_some() && sampler.filters() {
            return Err(out_of_range("samplers", "no filters with mirostat_tau", *sampler));
        }
    }
    for sampler in Sampler::ALL.into_iter().filter(|sampler| !samplers.contains(sampler)) {
        let Some(name) = sampler.asked_for(options) else { continue };
        return Err(match options.mirostat_tau {
            Some(_) if sampler.filters() => {
                out_of_range(name, "none with mirostat_tau, which is in its place", "one")
            }
            _ => out_of_range("samplers", &format!("{sampler} too, as {name} is given"), "a list without it"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    fn parse(value: &serde_json::Value) -> Result<GenerateOptions> {
        GenerateOptions::from_json(value.as_object().unwrap())
    }

    #[test]
    fn names_are_those_of_json() {
        for sampler in Sampler::ALL {
            assert_eq!(json!(sampler), sampler.name());
        }
    }

    #[test]
    fn an_order_is_kept_and_an_option_without_effect_is_an_error() {
        let order = json!({"samplers": ["dry", "penalties", "top_p", "temperature"], "top_p": 0.5});
        let expected = [Sampler::Dry, Sampler::Penalties, Sampler::TopP, Sampler::Temperature];
        assert_eq!(samplers_in_force(&parse(&order).unwrap()), expected);
        assert!(parse(&json!({"samplers": []})).is_ok());
        assert!(parse(&json!({"samplers": ["top_k"], "top_p": 1, "min_p": 0, "temperature": 1})).is_ok());
        for (bad, words) in [
            (
                json!({"samplers": ["top_k", "dry"]}),
                "penalties and dry before the others, found dry after top_k",
            ),
            (json!({"samplers": ["xtc", "xtc"]}), "each name once, found xtc twice"),
            (json!({"samplers": ["top_k"], "top_p": 0.5}), "top_p too, as top_p is given"),
            (json!({"samplers": ["top_k"], "temperature": 0}), "temperature too, as temperature is given"),
            (
                json!({"samplers": ["top_k"], "presence_penalty": 1}),
                "penalties too, as presence_penalty is given",
            ),
            (json!({"samplers": ["top_k"], "dry_multiplier": 1}), "dry too, as dry_multiplier is given"),
            (json!({"samplers": ["top_k"], "mirostat_tau": 5}), "no filters with mirostat_tau, found top_k"),
            (json!({"top_k": 5, "mirostat_tau": 5}), "option top_k: expected none with mirostat_tau"),
            (json!({"xtc_probability": 0.5, "mirostat_tau": 5}), "option xtc_probability: expected none"),
            (json!({"samplers": ["nothing"]}), "a list of names, each one of penalties, dry, "),
        ] {
            let error = parse(&bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(words), "{error}");
        }
    }
}
