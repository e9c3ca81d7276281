//! How to generate: sampling, limits, stopping, what to report.

use std::collections::BTreeMap;

use super::constraint::{JsonSchema, MAX_CHOICES, at_most_one};
use super::declare::{options, whole};
use super::defaults::{MAX_BAD_WORDS, MAX_LISTED_IDS};
use super::early_stopping::EarlyStopping;
use super::load::Speculation;
use super::logprobs::LogprobsMode;
use super::processor::SharedProcessor;
use super::samplers::{Asked, Sampler, check_samplers, samplers_in_force};
use super::spec::{NumberRange, OptionType, out_of_range};
use crate::error::Result;
use crate::output::{AUTO, REASONING_FORMAT_NAMES, TOOL_FORMAT_NAMES};

/// Most stop strings of a request.
pub(crate) const MAX_STOPS: usize = 64;

/// Most texts that are never in the output.
const MAX_BAD_TEXTS: usize = 1024;

/// Most bytes of each.
const MAX_BAD_TEXT: usize = 128;

/// Most completions of a request.
const MAX_COMPLETIONS: u32 = 128;

/// Most beams of a search.
const MAX_BEAMS: u32 = 32;

/// Most bytes of the name of a group, which is remembered after its requests.
const MAX_GROUP_NAME: usize = 256;

/// Token ids.
const IDS: OptionType = OptionType::List { of: &OptionType::TokenId, most: MAX_LISTED_IDS };

const fn number(range: NumberRange) -> OptionType {
    OptionType::Number(range)
}

options! {
    /// How to generate. Options that are not given come from the model's `generation_config.json`. The
    /// completion reports the values that were used.
    pub struct GenerateOptions for "generating", checked by texts_and_lists {
        /// Name of the loaded LoRA adapter to use.
        adapter: Option<String> [OptionType::Name] = None, "none";
        /// Requests of higher priority are served first, with `driver` thread those of other models too; among equals, groups share.
        priority: u32 [whole(0, 100)] = 50;
        /// Name of the group of requests (a user, a job) that this one belongs to. Groups get equal shares, however many requests
        /// each has.
        group: Option<String> [OptionType::Name] = None, "none: requests without one share a group";
        /// Milliseconds from now after which the request ends, with the finish reason `deadline` and what it has generated.
        deadline_ms: Option<u64> = None, "none";
        /// How tokens are guessed before they are computed, as for a model. Changes speed, not results.
        speculation: Option<Speculation> = None, "the model's";
        /// How many completions of the prompt to generate; the further ones have the seeds after `seed`. Streams and sessions give one.
        n: u32 [whole(1, MAX_COMPLETIONS)] = 1;
        /// Generate this many, and give the `n` whose tokens have the highest mean log-probability, best first.
        best_of: Option<u32> [whole(1, MAX_COMPLETIONS)] = None, "`n`, in the order of their seeds";
        /// Beams of a beam search, which keeps so many of the most likely texts while it generates; 1 is off. The best `n` are given,
        /// best first.
        num_beams: u32 [whole(1, MAX_BEAMS)] = 1;
        /// The score of a text in a beam search is its log-probability, divided by its length to this power: above 0, longer texts
        /// gain.
        length_penalty: Option<f32> = None, "the model's, or 1";
        /// When a beam search ends: `true`, with `num_beams` finished texts; `false`, when better ones are unlikely; `never`, when there
        /// can be none.
        early_stopping: Option<EarlyStopping> = None, "the model's, or false";
        /// Maximum number of tokens to generate.
        max_tokens: Option<u32> [whole(1, u32::MAX)] = None, "the model's, or until the context is full";
        /// Logits are divided by this before the softmax: lower values favor likely tokens. 0 is greedy: always the most likely
        /// token.
        temperature: Option<f32> [number(NumberRange::NonNegative)] = None, "the model's (or 1) with `do_sample`, 0 without";
        /// Sample only from this many of the most likely tokens; 0 is off.
        top_k: Option<u32> = None, "the model's, or else 50 with `do_sample` and 0 without";
        /// Sample only from the smallest set of most likely tokens whose probabilities add up to this (nucleus sampling); 1 is off.
        top_p: Option<f32> [number(NumberRange::PositiveUnit)] = None, "the model's, or 1";
        /// Sample only from tokens at least this many times as likely as the most likely token; 0 is off.
        min_p: Option<f32> [number(NumberRange::Unit)] = None, "the model's, or 0";
        /// Sample only from tokens whose surprisal is closest to the entropy, until their probabilities add up to this (locally
        /// typical sampling); 1 is off.
        typical_p: Option<f32> [number(NumberRange::PositiveUnit)] = None, "the model's, or 1";
        /// Sample only from tokens whose logits are at most this many standard deviations below the largest one; 0 is off.
        top_n_sigma: Option<f32> [number(NumberRange::NonNegative)] = None, "0";
        /// How often (0 to 1) likely tokens are left out: of those at least as likely as `xtc_threshold`, only the least likely stays
        /// (exclude top choices); 0 is off.
        xtc_probability: Option<f32> [number(NumberRange::Unit)] = None, "0";
        /// Probability from which on `xtc_probability` leaves tokens out.
        xtc_threshold: Option<f32> [number(NumberRange::PositiveUnit)] = None, "0.1";
        /// By how much the temperature may be higher or lower: higher where many tokens are likely, lower where few are; 0 is off.
        dynatemp_range: Option<f32> [number(NumberRange::NonNegative)] = None, "0";
        /// Power of the normalized entropy that says where in `dynatemp_range` the temperature is.
        dynatemp_exponent: Option<f32> [number(NumberRange::Positive)] = None, "1";
        /// Keep the surprisal of the text near so many bits per token (Mirostat 2), in place of `top_k`, `top_p` and the other
        /// filters.
        mirostat_tau: Option<f32> [number(NumberRange::Positive)] = None, "off";
        /// How fast Mirostat learns.
        mirostat_eta: Option<f32> [number(NumberRange::Positive)] = None, "0.1";
        /// The steps of sampling and their order. Those that are left out are not taken.
        samplers: Option<Vec<Sampler>> = None, "penalties, dry, top_n_sigma, temperature, top_k, top_p, min_p, typ_p, xtc";
        /// Divide positive logits of tokens that occur in the prompt or the output by this, and multiply negative ones; 1 is
        /// off.
        repetition_penalty: Option<f32> [number(NumberRange::Positive)] = None, "the model's, or 1";
        /// Subtract this from the logits of tokens that occur in the output.
        presence_penalty: Option<f32> = None, "0";
        /// Subtract this from the logits of tokens in the output, once for each occurrence.
        frequency_penalty: Option<f32> = None, "0";
        /// Weight of the penalty for tokens that would continue a repetition (DRY); 0 is off.
        dry_multiplier: Option<f32> [number(NumberRange::NonNegative)] = None, "0";
        /// The DRY penalty grows by this factor with each repeated token.
        dry_base: Option<f32> [number(NumberRange::AtLeastOne)] = None, "1.75";
        /// Repetitions of fewer tokens than this get no DRY penalty.
        dry_allowed_length: Option<u32> [whole(1, u32::MAX)] = None, "2";
        /// How many of the latest tokens DRY looks for repetitions in.
        dry_penalty_last_n: Option<u32> [whole(1, u32::MAX)] = None, "all, those of the prompt included";
        /// Texts that end a repetition for DRY: tokens that have one of them in their text are not compared, and get no penalty.
        dry_sequence_breakers: Option<Vec<String>> [OptionType::List { of: &OptionType::Text, most: MAX_STOPS }] = None, "a line break, `:`, `\"` and `*`";
        /// The only tokens that are generated. Without an end-of-sequence token among them, the text ends at `max_tokens`.
        allowed_token_ids: Option<Vec<u32>> [IDS] = None, "all";
        /// Tokens that are never generated.
        suppress_tokens: Option<Vec<u32>> [IDS] = None, "the model's";
        /// Tokens that are never generated as the first token.
        begin_suppress_tokens: Option<Vec<u32>> [IDS] = None, "the model's";
        /// Sequences of tokens that are never generated. One that is only an end-of-sequence token has no effect.
        bad_words_ids: Option<Vec<Vec<u32>>> [OptionType::List { of: &IDS, most: MAX_BAD_WORDS }] = None, "the model's";
        /// Texts that are never in the output, whatever tokens spell them.
        bad_words: Option<Vec<String>> [OptionType::List { of: &OptionType::Text, most: MAX_BAD_TEXTS }] = None, "none";
        /// No sequence of this many tokens occurs twice, counting the prompt; 0 is off.
        no_repeat_ngram_size: Option<u32> = None, "the model's, or 0";
        /// Generate at least this many tokens before one that ends the generation.
        min_tokens: Option<u32> = None, "the model's, or 0";
        /// Numbers to add to the logits of tokens, by token id.
        logit_bias: BTreeMap<u32, f32> = BTreeMap::new(), "none";
        /// Seed of the random numbers.
        seed: Option<u64> = None, "random; the completion reports it";
        /// Texts that end the generation. They are left out of the completion's text.
        stop: Option<Vec<String>> [OptionType::List { of: &OptionType::Text, most: MAX_STOPS }] = None, "the model's";
        /// Tokens that end the generation, in addition to the model's end-of-sequence tokens.
        stop_token_ids: Vec<u32> [OptionType::List { of: &OptionType::TokenId, most: usize::MAX }] = Vec::new(), "none";
        /// Treat the model's end-of-sequence tokens as ordinary tokens.
        ignore_eos: bool = false;
        /// Generate JSON that is an instance of this JSON Schema.
        json_schema: Option<JsonSchema> = None, "none";
        /// Generate a JSON object.
        json_object: bool = false;
        /// Generate text that this regular expression matches as a whole.
        regex: Option<String> [OptionType::Text] = None, "none";
        /// Generate text of the language of this grammar, in Lark's syntax.
        grammar: Option<String> [OptionType::Text] = None, "none";
        /// Generate one of these texts.
        choices: Option<Vec<String>> [OptionType::List { of: &OptionType::Text, most: MAX_CHOICES }] = None, "none";
        /// Report the log-probability of each generated token, and of this many most likely tokens.
        logprobs: Option<u32> [whole(0, 64)] = None, "nothing is reported";
        /// Which distribution `logprobs` are of: `raw`, the model's own; `masked`, the same over the tokens that masks and the
        /// constraint allow.
        logprobs_mode: LogprobsMode = LogprobsMode::Raw, "raw";
        /// Report the log-probability of each token of the prompt but the first, and of this many most likely tokens. What is cached
        /// of the prompt is computed again.
        prompt_logprobs: Option<u32> [whole(0, 64)] = None, "nothing is reported";
        /// Add the tokenizer's special tokens, such as BOS, to the prompt. A BOS that is already there is not doubled.
        /// Sessions take this when text is appended.
        add_special_tokens: Option<bool> = None, "true for text, false for a chat, whose template adds its own";
        /// Leave special tokens out of the completion's text.
        skip_special_tokens: bool = true;
        /// In a chat with tools: `auto`, the model decides; `none`, no calls; `required`, at least one; or the name of the function
        /// to call. What is required is enforced, with the schemas.
        tool_choice: String [OptionType::Name] = AUTO.to_owned(), "auto";
        /// Whether an answer may have several tool calls.
        parallel_tool_calls: bool = true;
        /// Format in which tool calls are read from the output. `auto`: that of the chat template, in a chat with tools.
        tool_format: String [OptionType::Choice(TOOL_FORMAT_NAMES)] = AUTO.to_owned(), "auto";
        /// Format in which reasoning is told from the answer. `auto`: that of the chat template, in a chat.
        reasoning_format: String [OptionType::Choice(REASONING_FORMAT_NAMES)] = AUTO.to_owned(), "auto";
    } without a value {
        /// A function that may change the logits of each token before it is sampled.
        logits_processor: Option<SharedProcessor> = None;
    }
}

/// What a prompt is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptKind {
    /// A text, which gets the tokenizer's special tokens.
    Text,
    /// A conversation, whose template brings them.
    Chat,
}

impl GenerateOptions {
    /// These options, with the `add_special_tokens` of the prompt where it is not given.
    pub(crate) fn for_prompt(&self, prompt: PromptKind) -> Self {
        let given = self.add_special_tokens.unwrap_or(prompt == PromptKind::Text);
        self.clone().add_special_tokens(given)
    }

    /// The samplers in their order: those that are named, or all that the other options leave.
    pub(super) fn samplers_in_force(&self) -> Vec<Sampler> {
        samplers_in_force(self.samplers.as_deref(), self.mirostat_tau.is_some())
    }

    /// What is asked of each sampler.
    pub(super) fn asked_of_samplers(&self) -> [Asked; 12] {
        let set = |value: Option<f32>, off: f32| value.is_some_and(|value| value != off);
        [
            (Sampler::Penalties, "repetition_penalty", set(self.repetition_penalty, 1.0)),
            (Sampler::Penalties, "presence_penalty", set(self.presence_penalty, 0.0)),
            (Sampler::Penalties, "frequency_penalty", set(self.frequency_penalty, 0.0)),
            (Sampler::Dry, "dry_multiplier", set(self.dry_multiplier, 0.0)),
            (Sampler::TopNSigma, "top_n_sigma", set(self.top_n_sigma, 0.0)),
            (Sampler::Temperature, "temperature", set(self.temperature, 1.0)),
            (Sampler::Temperature, "dynatemp_range", set(self.dynatemp_range, 0.0)),
            (Sampler::TopK, "top_k", self.top_k.is_some_and(|k| k > 0)),
            (Sampler::TopP, "top_p", set(self.top_p, 1.0)),
            (Sampler::MinP, "min_p", set(self.min_p, 0.0)),
            (Sampler::TypicalP, "typical_p", set(self.typical_p, 1.0)),
            (Sampler::Xtc, "xtc_probability", set(self.xtc_probability, 0.0)),
        ]
    }

    /// The constraints that are given, by their names.
    pub(super) fn given_constraints(&self) -> impl Iterator<Item = &'static str> {
        let constraints = [
            ("json_schema", self.json_schema.is_some()),
            ("json_object", self.json_object),
            ("regex", self.regex.is_some()),
            ("grammar", self.grammar.is_some()),
            ("choices", self.choices.is_some()),
        ];
        constraints.into_iter().filter_map(|(name, given)| given.then_some(name))
    }
}

/// What is inside of texts and lists.
fn texts_and_lists(options: &GenerateOptions) -> Result<()> {
    let words = options.bad_words_ids.as_deref().unwrap_or_default();
    let ids: usize = words.iter().map(Vec::len).sum();
    if ids > MAX_LISTED_IDS {
        return Err(out_of_range(
            "bad_words_ids",
            &format!("at most {MAX_LISTED_IDS} token ids in all"),
            ids,
        ));
    }
    if words.iter().any(Vec::is_empty) {
        return Err(out_of_range("bad_words_ids", "lists that are not empty", "an empty list"));
    }
    if options.bad_words.iter().flatten().any(|text| !(1..=MAX_BAD_TEXT).contains(&text.len())) {
        let expected = format!("texts of 1 to {MAX_BAD_TEXT} bytes");
        return Err(out_of_range("bad_words", &expected, "an empty text or a longer one"));
    }
    if options.group.as_ref().is_some_and(|group| group.len() > MAX_GROUP_NAME) {
        return Err(out_of_range("group", &format!("at most {MAX_GROUP_NAME} bytes"), "more"));
    }
    if options.stop.iter().flatten().any(String::is_empty) {
        return Err(out_of_range("stop", "texts that are not empty", "an empty text"));
    }
    if options.dry_sequence_breakers.iter().flatten().any(String::is_empty) {
        return Err(out_of_range("dry_sequence_breakers", "texts that are not empty", "an empty text"));
    }
    if options.allowed_token_ids.as_ref().is_some_and(Vec::is_empty) {
        return Err(out_of_range("allowed_token_ids", "at least one token id", "an empty list"));
    }
    if let Some(best_of) = options.best_of.filter(|&best_of| best_of < options.n) {
        return Err(out_of_range("best_of", &format!("at least n, {}", options.n), best_of));
    }
    if options
        .choices
        .as_ref()
        .is_some_and(|choices| choices.is_empty() || choices.iter().any(String::is_empty))
    {
        return Err(out_of_range(
            "choices",
            "at least one text, and none that is empty",
            "none, or an empty text",
        ));
    }
    at_most_one(options.given_constraints())?;
    options.check_beams()?;
    check_samplers(options.samplers.as_deref(), options.mirostat_tau.is_some(), &options.asked_of_samplers())
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
    fn json_round_trip() {
        let options =
            parse(json!({"max_tokens": 5, "temperature": 0.5, "logit_bias": {"7": -1.5}, "stop": ["x"]}));
        let options = options.unwrap();
        assert_eq!(options.logit_bias[&7], -1.5);
        assert_eq!(GenerateOptions::from_json(&options.to_json()).unwrap(), options);
    }

    #[test]
    fn bad_options_name_themselves() {
        for (name, meant) in
            [("max_token", "max_tokens"), ("max_new_tokens", "max_tokens"), ("topp", "top_p")]
        {
            let error = parse(json!({name: 5})).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownOption);
            assert!(error.message().contains(&format!("did you mean {meant:?}?")), "{error}");
            assert_eq!(error.detail()["suggestion"], meant);
        }
        let error = parse(json!({"nonsense": 5})).unwrap_err();
        assert!(
            error.detail().get("suggestion").is_none() && error.message().contains("options: adapter"),
            "{error}"
        );
        for (name, bad) in [
            ("max_tokens", json!(0)),
            ("max_tokens", json!(-1)),
            ("max_tokens", json!(1.5)),
            ("temperature", json!(-0.1)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_p", json!(1.1)),
            ("min_p", json!(-1)),
            ("typical_p", json!(0)),
            ("typical_p", json!(1.1)),
            ("top_n_sigma", json!(-1)),
            ("n", json!(0)),
            ("n", json!(129)),
            ("best_of", json!(0)),
            ("num_beams", json!(0)),
            ("num_beams", json!(33)),
            ("length_penalty", json!("long")),
            ("early_stopping", json!("always")),
            ("early_stopping", json!(1)),
            ("xtc_probability", json!(1.1)),
            ("xtc_threshold", json!(0)),
            ("dynatemp_range", json!(-1)),
            ("dynatemp_exponent", json!(0)),
            ("mirostat_tau", json!(0)),
            ("mirostat_eta", json!(0)),
            ("samplers", json!(["top_k", "nonsense"])),
            ("samplers", json!(["top_k", "top_k"])),
            ("dry_multiplier", json!(-1)),
            ("dry_base", json!(0.5)),
            ("dry_allowed_length", json!(0)),
            ("dry_penalty_last_n", json!(0)),
            ("dry_sequence_breakers", json!([""])),
            ("allowed_token_ids", json!([])),
            ("repetition_penalty", json!(0)),
            ("logprobs", json!(65)),
            ("prompt_logprobs", json!(65)),
            ("logprobs_mode", json!("other")),
            ("stop", json!([""])),
            ("stop", json!("text")),
            ("suppress_tokens", json!([-1])),
            ("begin_suppress_tokens", json!(3)),
            ("bad_words", json!([""])),
            ("bad_words", json!(["x".repeat(129)])),
            ("bad_words_ids", json!([[]])),
            ("bad_words_ids", json!([3])),
            ("no_repeat_ngram_size", json!(-1)),
            ("min_tokens", json!(1.5)),
            ("logit_bias", json!({"x": 1})),
            ("seed", json!(-1)),
            ("tool_format", json!("other")),
            ("tool_format", json!(1)),
            ("reasoning_format", json!("hermes")),
        ] {
            let error = parse(json!({ name: bad })).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
            assert!(error.message().contains(name), "{error}");
            assert!(error.message().contains(", found "), "{error}");
            // The words of all languages, not Rust's.
            for word in ["u32", "u64", "f32", "sequence", "map,", "invalid type", "string"] {
                assert!(!error.message().replace(name, "").contains(word), "{error}");
            }
        }
    }

    #[test]
    fn whole_numbers_have_one_range() {
        for (name, range, outside) in [
            ("max_tokens", "1 to 4294967295", [json!(0), json!(-1), json!("x")]),
            ("logprobs", "0 to 64", [json!(65), json!(-1), json!(0.5)]),
        ] {
            for bad in outside {
                let error = parse(json!({ name: bad })).unwrap_err();
                let expected = format!("option {name}: expected a whole number from {range}, found ");
                assert!(error.message().starts_with(&expected), "{error}");
            }
        }
    }

    #[test]
    fn samplers_keep_their_order_and_an_option_without_effect_is_an_error() {
        let order = json!({"samplers": ["dry", "penalties", "top_p", "temperature"], "top_p": 0.5});
        let expected = [Sampler::Dry, Sampler::Penalties, Sampler::TopP, Sampler::Temperature];
        assert_eq!(parse(order).unwrap().samplers_in_force(), expected);
        assert!(parse(json!({"samplers": []})).is_ok());
        assert!(parse(json!({"samplers": ["top_k"], "top_p": 1, "min_p": 0, "temperature": 1})).is_ok());
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
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn schemas_are_values_or_text() {
        let schema = json!({"type": "object"});
        for given in [schema.clone(), schema.to_string().into()] {
            let options = parse(json!({ "json_schema": given })).expect("a schema");
            assert_eq!(options.json_schema.as_ref().map(JsonSchema::value), Some(&schema));
            assert_eq!(parse(Value::Object(options.to_json())).expect("its own JSON"), options);
        }
        for bad in [json!([]), json!(1), json!("{"), json!("3")] {
            let error = parse(json!({ "json_schema": bad })).expect_err("no schema");
            assert!(error.message().starts_with("option json_schema: expected a JSON Schema"), "{error}");
        }
    }

    #[test]
    fn there_is_one_at_most() {
        let error = parse(json!({"json_object": true, "regex": "a"})).expect_err("two");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.message(), "option regex: expected no other constraint, found json_object too");
        assert!(parse(json!({"json_object": false, "choices": ["a"]})).is_ok());
        for bad in [json!([]), json!([""]), json!("a")] {
            assert!(parse(json!({ "choices": bad })).is_err(), "{bad}");
        }
    }
}
