//! The options of a request that are in force, with what the model says where the request does not.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::constraint::JsonSchema;
use super::defaults::GenerationDefaults;
use super::generate::GenerateOptions;
use super::load::Speculation;
use super::logprobs::LogprobsMode;
use super::samplers::Sampler;
use super::spec::out_of_range;
use crate::error::Result;
use crate::output::{AUTO, NONE};

/// `top_k` of models that ask for sampling and do not say it, as in transformers.
const TOP_K: u32 = 50;

/// The texts that end a repetition, as in text-generation-webui and llama.cpp.
const DRY_SEQUENCE_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// What the model contributes to the options in force.
pub(crate) struct ResolveContext<'a> {
    pub(crate) defaults: &'a GenerationDefaults,
    pub(crate) eos: &'a [u32],
    pub(crate) vocab_size: usize,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Most tokens the sequence may still grow by.
    pub(crate) room: u32,
    /// How the model guesses tokens, unless the request says otherwise.
    pub(crate) speculation: Speculation,
}

/// The options in force: nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Resolved {
    pub(crate) adapter: Option<String>,
    pub(crate) priority: u32,
    pub(crate) group: Option<String>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) speculation: Speculation,
    pub(crate) n: u32,
    pub(crate) best_of: Option<u32>,
    pub(crate) max_tokens: u32,
    #[serde(serialize_with = "shortest")]
    pub(crate) temperature: f32,
    pub(crate) top_k: u32,
    #[serde(serialize_with = "shortest")]
    pub(crate) top_p: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) min_p: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) typical_p: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) top_n_sigma: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) xtc_probability: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) xtc_threshold: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) dynatemp_range: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) dynatemp_exponent: f32,
    #[serde(serialize_with = "shortest_if_any")]
    pub(crate) mirostat_tau: Option<f32>,
    #[serde(serialize_with = "shortest")]
    pub(crate) mirostat_eta: f32,
    /// In their order; of those left out, the options are off.
    pub(crate) samplers: Vec<Sampler>,
    #[serde(serialize_with = "shortest")]
    pub(crate) repetition_penalty: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) presence_penalty: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) frequency_penalty: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) dry_multiplier: f32,
    #[serde(serialize_with = "shortest")]
    pub(crate) dry_base: f32,
    pub(crate) dry_allowed_length: u32,
    /// `None`: all tokens.
    pub(crate) dry_penalty_last_n: Option<u32>,
    pub(crate) dry_sequence_breakers: Vec<String>,
    /// The tokens that those texts are in, sorted.
    #[serde(skip)]
    pub(crate) dry_breakers: Arc<[u32]>,
    /// Sorted.
    pub(crate) allowed_token_ids: Option<Vec<u32>>,
    pub(crate) suppress_tokens: Vec<u32>,
    pub(crate) begin_suppress_tokens: Vec<u32>,
    pub(crate) bad_words: Vec<String>,
    pub(crate) bad_words_ids: Vec<Vec<u32>>,
    pub(crate) no_repeat_ngram_size: u32,
    pub(crate) min_tokens: u32,
    pub(crate) logit_bias: BTreeMap<u32, f32>,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    /// Tokens that end the generation, the model's own included unless ignored.
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) ignore_eos: bool,
    pub(crate) json_schema: Option<JsonSchema>,
    pub(crate) json_object: bool,
    pub(crate) regex: Option<String>,
    pub(crate) grammar: Option<String>,
    pub(crate) choices: Option<Vec<String>>,
    pub(crate) logprobs: Option<u32>,
    pub(crate) logprobs_mode: LogprobsMode,
    pub(crate) prompt_logprobs: Option<u32>,
    /// `None` where a session was continued, whose texts are there already.
    pub(crate) add_special_tokens: Option<bool>,
    pub(crate) skip_special_tokens: bool,
    pub(crate) tool_choice: String,
    pub(crate) parallel_tool_calls: bool,
    /// The format of calls, or `none`.
    pub(crate) tool_format: String,
    /// The format of reasoning, or `none`.
    pub(crate) reasoning_format: String,
}

impl GenerateOptions {
    /// The texts that end a repetition for DRY.
    pub(crate) fn dry_breaker_texts(&self) -> Vec<String> {
        let given = self.dry_sequence_breakers.clone();
        given.unwrap_or_else(|| DRY_SEQUENCE_BREAKERS.map(str::to_owned).to_vec())
    }

    /// The options that choose among tokens, when nothing is drawn because the model's default is greedy.
    pub(crate) fn without_effect(&self, resolved: &Resolved) -> Vec<&'static str> {
        if self.temperature.is_some() || resolved.temperature > 0.0 {
            return Vec::new();
        }
        let given = [
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
            ("typical_p", self.typical_p.is_some()),
            ("top_n_sigma", self.top_n_sigma.is_some()),
            ("xtc_probability", self.xtc_probability.is_some()),
            ("dynatemp_range", self.dynatemp_range.is_some()),
            ("seed", self.seed.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

impl Resolved {
    /// The tokens that end the generation and may be drawn. A constrained text that none of them may end ends where nothing may
    /// follow.
    pub(crate) fn ends(&self) -> Vec<u32> {
        let allowed = |id: &u32| self.allowed_token_ids.as_ref().is_none_or(|ids| ids.contains(id));
        let ends = self.stop_token_ids.iter().filter(|id| !self.suppress_tokens.contains(id));
        ends.copied().filter(allowed).collect()
    }

    /// Fills what `options` leaves open.
    ///
    /// # Errors
    /// `InvalidArgument` for a value out of range or a token id outside the vocabulary.
    pub(crate) fn new(options: &GenerateOptions, context: &ResolveContext<'_>) -> Result<Self> {
        options.validate()?;
        let vocabulary = format!("ids below the vocabulary size {}", context.vocab_size);
        let check_id = |name: &str, id: u32| match (id as usize) < context.vocab_size {
            true => Ok(()),
            false => Err(out_of_range(name, &vocabulary, id)),
        };
        options.logit_bias.keys().try_for_each(|&id| check_id("logit_bias", id))?;
        options.stop_token_ids.iter().try_for_each(|&id| check_id("stop_token_ids", id))?;
        for (name, list) in [
            ("allowed_token_ids", &options.allowed_token_ids),
            ("suppress_tokens", &options.suppress_tokens),
            ("begin_suppress_tokens", &options.begin_suppress_tokens),
        ] {
            list.iter().flatten().try_for_each(|&id| check_id(name, id))?;
        }
        options.bad_words_ids.iter().flatten().flatten().try_for_each(|&id| check_id("bad_words_ids", id))?;
        let defaults = context.defaults;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // A model that does not ask for sampling is greedy, as in transformers.
        let temperature = match defaults.do_sample {
            Some(true) => defaults.temperature.unwrap_or(1.0),
            _ => 0.0,
        };
        let top_k = defaults.top_k.map(small).or((defaults.do_sample == Some(true)).then_some(TOP_K));
        // Of a prompt that is as long already, a limit of the whole says nothing.
        let rest =
            defaults.max_length.and_then(|length| length.checked_sub(context.prompt)).filter(|&n| n > 0);
        let default_tokens = defaults.max_new_tokens.or(rest).map(|n| small(n).min(context.room));
        let rest = defaults.min_length.map(|length| length.saturating_sub(context.prompt));
        let min_tokens = options.min_tokens.or(defaults.min_new_tokens.or(rest).map(small)).unwrap_or(0);
        let mut bad_words_ids = options.bad_words_ids.as_ref().unwrap_or(&defaults.bad_words_ids).clone();
        bad_words_ids.retain(|sequence| !matches!(sequence[..], [id] if context.eos.contains(&id)));
        let mut stop_token_ids = options.stop_token_ids.clone();
        if !options.ignore_eos {
            stop_token_ids.extend_from_slice(context.eos);
        }
        stop_token_ids.sort_unstable();
        stop_token_ids.dedup();
        let mut allowed_token_ids = options.allowed_token_ids.clone();
        if let Some(allowed) = &mut allowed_token_ids {
            allowed.sort_unstable();
            allowed.dedup();
        }
        let samplers = options.samplers_in_force();
        // A model's own filters give way to the samplers that are asked for.
        let off = |sampler: Sampler| !samplers.contains(&sampler);
        let temperature =
            if off(Sampler::Temperature) { 1.0 } else { options.temperature.unwrap_or(temperature) };
        let resolved = Resolved {
            adapter: options.adapter.clone(),
            priority: options.priority,
            group: options.group.clone(),
            deadline_ms: options.deadline_ms,
            speculation: options.speculation.unwrap_or(context.speculation),
            n: options.n,
            best_of: options.best_of,
            max_tokens: options.max_tokens.or(default_tokens).unwrap_or(context.room),
            temperature,
            top_k: options.top_k.or(top_k).filter(|_| !off(Sampler::TopK)).unwrap_or(0),
            // transformers takes 0 as "off" in a configuration.
            top_p: options
                .top_p
                .or(defaults.top_p.filter(|&p| p > 0.0))
                .filter(|_| !off(Sampler::TopP))
                .unwrap_or(1.0),
            min_p: options.min_p.or(defaults.min_p).filter(|_| !off(Sampler::MinP)).unwrap_or(0.0),
            typical_p: options
                .typical_p
                .or(defaults.typical_p)
                .filter(|_| !off(Sampler::TypicalP))
                .unwrap_or(1.0)
                .min(1.0),
            top_n_sigma: options.top_n_sigma.unwrap_or(0.0),
            xtc_probability: options.xtc_probability.unwrap_or(0.0),
            xtc_threshold: options.xtc_threshold.unwrap_or(0.1),
            dynatemp_range: options.dynatemp_range.unwrap_or(0.0),
            dynatemp_exponent: options.dynatemp_exponent.unwrap_or(1.0),
            mirostat_tau: options.mirostat_tau,
            mirostat_eta: options.mirostat_eta.unwrap_or(0.1),
            repetition_penalty: options
                .repetition_penalty
                .or(defaults.repetition_penalty)
                .filter(|_| !off(Sampler::Penalties))
                .unwrap_or(1.0),
            presence_penalty: options.presence_penalty.unwrap_or(0.0),
            frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
            dry_multiplier: options.dry_multiplier.unwrap_or(0.0),
            dry_base: options.dry_base.unwrap_or(1.75),
            dry_allowed_length: options.dry_allowed_length.unwrap_or(2),
            dry_penalty_last_n: options.dry_penalty_last_n,
            dry_sequence_breakers: options.dry_breaker_texts(),
            dry_breakers: Arc::default(),
            allowed_token_ids,
            suppress_tokens: options.suppress_tokens.as_ref().unwrap_or(&defaults.suppress_tokens).clone(),
            begin_suppress_tokens: options
                .begin_suppress_tokens
                .as_ref()
                .unwrap_or(&defaults.begin_suppress_tokens)
                .clone(),
            bad_words: options.bad_words.clone().unwrap_or_default(),
            bad_words_ids,
            no_repeat_ngram_size: options
                .no_repeat_ngram_size
                .or(defaults.no_repeat_ngram_size.map(small))
                .unwrap_or(0),
            min_tokens,
            logit_bias: options.logit_bias.clone(),
            seed: options.seed.unwrap_or_else(draw_seed),
            stop: options.stop.as_ref().unwrap_or(&defaults.stop_strings).clone(),
            stop_token_ids,
            ignore_eos: options.ignore_eos,
            json_schema: options.json_schema.clone(),
            json_object: options.json_object,
            regex: options.regex.clone(),
            grammar: options.grammar.clone(),
            choices: options.choices.clone(),
            logprobs: options.logprobs,
            logprobs_mode: options.logprobs_mode,
            prompt_logprobs: options.prompt_logprobs,
            add_special_tokens: options.add_special_tokens,
            skip_special_tokens: options.skip_special_tokens,
            tool_choice: options.tool_choice.clone(),
            parallel_tool_calls: options.parallel_tool_calls,
            tool_format: named(&options.tool_format),
            reasoning_format: named(&options.reasoning_format),
            samplers,
        };
        if resolved.mirostat_tau.is_some() && resolved.temperature == 0.0 {
            return Err(out_of_range("mirostat_tau", "a temperature above 0 with it", "temperature 0"));
        }
        Ok(resolved)
    }

    /// Greedy, without limits: for work that samples nothing.
    pub(crate) fn greedy() -> Self {
        Resolved {
            adapter: None,
            priority: 50,
            group: None,
            deadline_ms: None,
            speculation: Speculation::None,
            n: 1,
            best_of: None,
            max_tokens: u32::MAX,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            mirostat_tau: None,
            mirostat_eta: 0.1,
            samplers: Sampler::ALL.to_vec(),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            dry_sequence_breakers: Vec::new(),
            dry_breakers: Arc::default(),
            allowed_token_ids: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            bad_words: Vec::new(),
            bad_words_ids: Vec::new(),
            no_repeat_ngram_size: 0,
            min_tokens: 0,
            logit_bias: BTreeMap::new(),
            seed: 0,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            json_schema: None,
            json_object: false,
            regex: None,
            grammar: None,
            choices: None,
            logprobs: None,
            logprobs_mode: LogprobsMode::Raw,
            prompt_logprobs: None,
            add_special_tokens: None,
            skip_special_tokens: true,
            tool_choice: AUTO.to_owned(),
            parallel_tool_calls: true,
            tool_format: NONE.to_owned(),
            reasoning_format: NONE.to_owned(),
        }
    }

    /// What the completion reports: the names of [`GenerateOptions`], nothing `null` but the constraints, `adapter`, `group`,
    /// `deadline_ms`, `best_of`, `mirostat_tau`, `dry_penalty_last_n`, `allowed_token_ids`, `logprobs` and `add_special_tokens`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }
}

/// A format: none, where nothing has chosen one.
fn named(format: &str) -> String {
    if format == AUTO { NONE.to_owned() } else { format.to_owned() }
}

/// As the f64 that is written as the f32 is: 0.7, and not 0.699999988079071.
fn shortest<S: Serializer>(x: &f32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64(x.to_string().parse().unwrap_or_else(|_| f64::from(*x)))
}

/// As [`shortest`]; null where there is none.
fn shortest_if_any<S: Serializer>(x: &Option<f32>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match x {
        Some(x) => shortest(x, serializer),
        None => serializer.serialize_none(),
    }
}

/// A seed nobody chose: the standard library's per-process random keys, hashed.
pub(super) fn draw_seed() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u8(0);
    // 53 bits survive a trip through JavaScript and JSON floats.
    hasher.finish() >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::options::PromptKind;

    fn parse(value: Value) -> Result<GenerateOptions> {
        GenerateOptions::from_json(value.as_object().unwrap())
    }

    #[test]
    fn every_option_is_echoed() {
        // Too long for the macro.
        let given = r#"{
            "adapter": "a", "priority": 70, "group": "b", "deadline_ms": 900, "speculation": "ngram", "n": 2, "best_of": 3, "max_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75,
            "top_n_sigma": 1.5, "xtc_probability": 0.5, "xtc_threshold": 0.2, "dynatemp_range": 0.25, "dynatemp_exponent": 2.0,
            "mirostat_tau": null, "mirostat_eta": 0.2,
            "samplers": ["dry", "penalties", "top_k", "typ_p", "top_p", "min_p", "xtc", "top_n_sigma", "temperature"],
            "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25,
            "dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": 3, "dry_penalty_last_n": 90,
            "dry_sequence_breakers": ["x"], "allowed_token_ids": [3, 5], "suppress_tokens": [1],
            "begin_suppress_tokens": [2], "bad_words": ["x"], "bad_words_ids": [[1, 3]], "no_repeat_ngram_size": 4, "min_tokens": 2,
            "logit_bias": {"7": -1.5}, "seed": 9, "stop": ["x"], "stop_token_ids": [4], "ignore_eos": true, "logprobs": 2, "logprobs_mode": "masked", "prompt_logprobs": 3,
            "add_special_tokens": false, "skip_special_tokens": false, "tool_choice": "required", "parallel_tool_calls": false, "tool_format": "hermes", "reasoning_format": "think"
        }"#;
        let given: Value = serde_json::from_str(given).unwrap();
        let defaults = GenerationDefaults::default();
        let context = ResolveContext {
            defaults: &defaults,
            eos: &[2],
            vocab_size: 10,
            prompt: 0,
            room: 99,
            speculation: Speculation::None,
        };
        // Of these, one at a time.
        let constraints = serde_json::json!({
            "json_schema": {"type": "object"}, "json_object": true, "regex": "a", "grammar": "start: \"a\"",
            "choices": ["a"],
        });
        let constraints = constraints.as_object().unwrap();
        let unset = GenerateOptions::default().to_json();
        // Mirostat is instead of others.
        for &name in GenerateOptions::NAMES.iter().filter(|name| **name != "mirostat_tau") {
            let given = constraints.get(name).unwrap_or(&given[name]);
            assert_ne!(*given, unset[name], "{name}: expected another value than its default");
        }
        for (name, value) in constraints {
            let mut given = given.clone();
            for other in constraints.keys() {
                given[other] = unset[other].clone();
            }
            given[name] = value.clone();
            let options = parse(given.clone()).unwrap();
            assert_eq!(Value::Object(Resolved::new(&options, &context).unwrap().to_json()), given);
        }
        let options = GenerateOptions::default().for_prompt(PromptKind::Text);
        assert_eq!(Resolved::new(&options, &context).unwrap().to_json()["add_special_tokens"], true);
        let mirostat = GenerateOptions::default().temperature(0.5).mirostat_tau(5.0);
        assert_eq!(Resolved::new(&mirostat, &context).unwrap().to_json()["mirostat_tau"], 5.0);
        // What is echoed may be given again.
        for options in [GenerateOptions::default(), mirostat] {
            let echoed = Resolved::new(&options, &context).unwrap().to_json();
            let again = Resolved::new(&GenerateOptions::from_json(&echoed).unwrap(), &context).unwrap();
            assert_eq!(again.to_json(), echoed);
        }
    }

    #[test]
    fn defaults_come_from_the_model() {
        let defaults = GenerationDefaults {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_k: Some(20),
            ..GenerationDefaults::default()
        };
        let context = ResolveContext {
            defaults: &defaults,
            eos: &[2],
            vocab_size: 10,
            prompt: 0,
            room: 99,
            speculation: Speculation::None,
        };
        let resolved = Resolved::new(&GenerateOptions::default().top_k(5), &context).unwrap();
        assert_eq!((resolved.temperature, resolved.top_k, resolved.max_tokens), (0.6, 5, 99));
        // The defaults of transformers' `generate`, where the file says nothing.
        let silent = GenerationDefaults { top_k: None, temperature: None, ..defaults.clone() };
        let silent = ResolveContext { defaults: &silent, ..context };
        let resolved_silent = Resolved::new(&GenerateOptions::default(), &silent).unwrap();
        assert_eq!((resolved_silent.temperature, resolved_silent.top_k), (1.0, 50));
        assert_eq!(resolved.stop_token_ids, [2]);
        assert!(GenerateOptions::default().top_k(5).without_effect(&resolved).is_empty());
        let greedy = ResolveContext { defaults: &GenerationDefaults::default(), ..context };
        let options = GenerateOptions::default().top_k(5).top_p(0.5).seed(3);
        let resolved = Resolved::new(&options, &greedy).unwrap();
        assert_eq!(options.without_effect(&resolved), ["top_k", "top_p", "seed"]);
        assert!(options.temperature(0.0).without_effect(&resolved).is_empty());
        for options in [
            GenerateOptions::default().stop_token_ids([10]),
            GenerateOptions::default().suppress_tokens(vec![10]),
            GenerateOptions::default().begin_suppress_tokens(vec![3, 10]),
            GenerateOptions::default().bad_words_ids(vec![vec![1, 10]]),
        ] {
            let error = Resolved::new(&options, &context).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn what_is_given_replaces_the_models_own() {
        let defaults = GenerationDefaults {
            max_length: Some(30),
            min_length: Some(25),
            suppress_tokens: vec![4],
            begin_suppress_tokens: vec![5],
            bad_words_ids: vec![vec![2], vec![2, 3], vec![6]],
            no_repeat_ngram_size: Some(3),
            stop_strings: vec!["end".into()],
            ..GenerationDefaults::default()
        };
        let context = ResolveContext {
            defaults: &defaults,
            eos: &[2],
            vocab_size: 10,
            prompt: 20,
            room: 99,
            speculation: Speculation::None,
        };
        let found = Resolved::new(&GenerateOptions::default(), &context).unwrap();
        assert_eq!((found.max_tokens, found.min_tokens, found.no_repeat_ngram_size), (10, 5, 3));
        assert_eq!((found.suppress_tokens, found.begin_suppress_tokens), (vec![4], vec![5]));
        assert_eq!((found.bad_words_ids, found.stop), (vec![vec![2, 3], vec![6]], vec!["end".to_owned()]));
        let given = GenerateOptions::default()
            .suppress_tokens(Vec::new())
            .begin_suppress_tokens(vec![1])
            .bad_words_ids(Vec::new())
            .no_repeat_ngram_size(0)
            .min_tokens(1)
            .stop(Vec::new());
        let found = Resolved::new(&given, &context).unwrap();
        assert_eq!((found.suppress_tokens, found.begin_suppress_tokens), (vec![], vec![1]));
        assert_eq!((found.bad_words_ids, found.stop), (Vec::<Vec<u32>>::new(), Vec::<String>::new()));
        assert_eq!((found.min_tokens, found.no_repeat_ngram_size), (1, 0));
        // A prompt that is as long already is not stopped at once.
        let long = ResolveContext { prompt: 40, ..context };
        let found = Resolved::new(&GenerateOptions::default(), &long).unwrap();
        assert_eq!((found.max_tokens, found.min_tokens), (99, 0));
    }
}
