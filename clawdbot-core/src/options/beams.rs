//! What a beam search does not go with.

use super::generate::GenerateOptions;
use super::load::Speculation;
use super::samplers::Sampler;
use super::spec::out_of_range;
use crate::error::Result;
use crate::output::{AUTO, NONE};

impl GenerateOptions {
    /// Whether the request is a beam search.
    pub(crate) fn has_beams(&self) -> bool {
        self.num_beams > 1
    }

    /// Checks that nothing is asked for that a beam search does not do.
    ///
    /// # Errors
    /// `InvalidArgument` that names both options.
    pub(super) fn check_beams(&self) -> Result<()> {
        if !self.has_beams() {
            return Ok(());
        }
        let beams = self.num_beams;
        let with = |expected: &str| format!("{expected} with num_beams {beams}");
        if self.n > beams {
            return Err(out_of_range("n", &format!("at most num_beams, {beams}"), self.n));
        }
        if let Some(best_of) = self.best_of {
            return Err(out_of_range("best_of", &with("none"), best_of));
        }
        if let Some(temperature) = self.temperature.filter(|&temperature| temperature > 0.0) {
            return Err(out_of_range("temperature", &with("0 or none"), temperature));
        }
        let asked = self.asked_of_samplers();
        let drawn = asked.iter().find(|(sampler, name, asked)| {
            *asked && !matches!(sampler, Sampler::Penalties | Sampler::Dry) && *name != "temperature"
        });
        if let Some((_, name, _)) = drawn {
            return Err(out_of_range(name, &with("none"), "one, which is for sampling"));
        }
        if let Some(tau) = self.mirostat_tau {
            return Err(out_of_range("mirostat_tau", &with("none"), tau));
        }
        if !self.samplers_in_force().contains(&Sampler::Temperature) {
            return Err(out_of_range("samplers", &with("temperature among them"), "a list without it"));
        }
        if let Some(name) = self.given_constraints().next() {
            return Err(out_of_range(name, &with("none"), "a constraint"));
        }
        if !matches!(self.tool_choice.as_str(), AUTO | NONE) {
            return Err(out_of_range("tool_choice", &with("auto or none"), &self.tool_choice));
        }
        if self.stop.as_ref().is_some_and(|stop| !stop.is_empty()) {
            return Err(out_of_range("stop", &with("none"), "texts"));
        }
        match self.speculation {
            None | Some(Speculation::None) => Ok(()),
            Some(speculation) => Err(out_of_range("speculation", &with("none"), speculation)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::ErrorKind;

    fn parse(value: Value) -> Result<GenerateOptions> {
        GenerateOptions::from_json(value.as_object().unwrap())
    }

    #[test]
    fn what_a_beam_search_does_not_do_is_an_error_that_names_both() {
        for (name, value) in [
            ("n", json!(5)),
            ("best_of", json!(4)),
            ("temperature", json!(0.5)),
            ("top_k", json!(3)),
            ("top_p", json!(0.5)),
            ("min_p", json!(0.5)),
            ("typical_p", json!(0.5)),
            ("top_n_sigma", json!(1)),
            ("xtc_probability", json!(0.5)),
            ("dynatemp_range", json!(0.5)),
            ("mirostat_tau", json!(5)),
            ("samplers", json!(["penalties"])),
            ("json_schema", json!({})),
            ("json_object", json!(true)),
            ("regex", json!("a")),
            ("grammar", json!("start: \"a\"")),
            ("choices", json!(["a"])),
            ("tool_choice", json!("required")),
            ("stop", json!(["x"])),
            ("speculation", json!("ngram")),
        ] {
            assert!(parse(json!({ name: value })).is_ok(), "{name}");
            let error = parse(json!({ name: value, "num_beams": 4 })).unwrap_err();
            assert_eq!((error.kind(), &error.detail()["option"]), (ErrorKind::InvalidArgument, &name.into()));
            assert!(error.message().contains("num_beams"), "{error}");
        }
        let fits = json!({
            "num_beams": 4, "n": 4, "temperature": 0, "top_k": 0, "top_p": 1, "stop": [], "speculation": "none",
            "repetition_penalty": 1.5, "dry_multiplier": 1, "samplers": ["penalties", "dry", "temperature"],
            "length_penalty": -0.5, "early_stopping": "never", "tool_choice": "none",
        });
        assert!(parse(fits).is_ok());
    }
}
