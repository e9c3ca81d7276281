//! The options of a request that are in force, with what the model says where the request does not.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::constraint::JsonSchema;
use super::defaults::GenerationDefaults;
use super::early_stopping::EarlyStopping;
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
    pub(crate) num_beams: u32,
    #[serde(serialize_with = "shortest")]
    pub(crate) length_penalty: f32,
    pub(crate) early_stopping: EarlyStopping,
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
        let mut resolved = Resolved {
            adapter: options.adapter.clone(),
            priority: options.priority,
            group: options.group.clone(),
            deadline_ms: options.deadline_ms,
            speculation: options.speculation.unwrap_or(context.speculation),
            n: options.n,
            best_of: options.best_of,
            num_beams: options.num_beams,
            length_penalty: options.length_penalty.or(defaults.length_penalty).unwrap_or(1.0),
            early_stopping: options.early_stopping.or(defaults.early_stopping).unwrap_or_default(),
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
        if options.has_beams() {
            resolved.search_beams()?;
        }
        if resolved.mirostat_tau.is_some() && resolved.temperature == 0.0 {
            return Err(out_of_range("mirostat_tau", "a temperature above 0 with it", "temperature 0"));
        }
        Ok(resolved)
    }

    /// Turns off what is the model's own and does not go with a beam search: sampling and speculation.
    ///
    /// # Errors
    /// `InvalidArgument` for stop texts of the model.
    fn search_beams(&mut self) -> Result<()> {
        if !self.stop.is_empty() {
            let expected = "1, or stop without texts, as the model has stop texts of its own";
            return Err(out_of_range("num_beams", expected, self.num_beams));
        }
        self.speculation = Speculation::None;
        (self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p) = (0.0, 0, 1.0, 0.0, 1.0);
        Ok(())
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
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
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
#[path = "tests_resolved.rs"]
mod tests;
