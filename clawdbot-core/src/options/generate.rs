//! How to generate: sampling, limits, stopping, what to report.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use serde_json::{Map, Value, json};

use super::defaults::{GenerationDefaults, MAX_BAD_WORDS, MAX_LISTED_IDS};
use super::{check_range, check_whole, options, out_of_range};
use crate::error::Result;

/// `top_k` of models that ask for sampling and do not say it, as in transformers.
const TOP_K: u32 = 50;
/// Most stop strings of a request.
pub(crate) const MAX_STOPS: usize = 64;

options! {
    /// How to generate. What is `None` comes from the model's `generation_config.json`; the options that were in
    /// force are echoed in the [`Completion`](crate::Completion).
    pub struct GenerateOptions {
        /// Name of a LoRA adapter that the model has loaded; `None`: the model as it is.
        adapter: Option<String> = None,
        /// Most tokens to generate; `None`: until the context is full.
        max_tokens: Option<u32> = None,
        /// 0 is greedy; logits are divided by it before the softmax.
        temperature: Option<f32> = None,
        /// Keep the `top_k` most likely tokens; 0 keeps all.
        top_k: Option<u32> = None,
        /// Keep the fewest most likely tokens whose probabilities add up to at least `top_p`; 1 keeps all.
        top_p: Option<f32> = None,
        /// Keep tokens at least `min_p` times as likely as the most likely one; 0 keeps all.
        min_p: Option<f32> = None,
        /// Keep the tokens whose surprise is nearest to what is expected, up to a probability of `typical_p` in all (locally
        /// typical sampling); 1 keeps all.
        typical_p: Option<f32> = None,
        /// Divide positive (multiply negative) logits of tokens that occurred in prompt or output; 1 is off.
        repetition_penalty: Option<f32> = None,
        /// Subtract from the logits of tokens that occurred in the output.
        presence_penalty: Option<f32> = None,
        /// Subtract from the logits of tokens in the output, once for each occurrence.
        frequency_penalty: Option<f32> = None,
        /// Tokens that are never generated.
        suppress_tokens: Option<Vec<u32>> = None,
        /// Tokens that are not generated first.
        begin_suppress_tokens: Option<Vec<u32>> = None,
        /// Sequences of tokens that are never generated; one that is an end-of-sequence token alone has no effect.
        bad_words_ids: Option<Vec<Vec<u32>>> = None,
        /// No sequence of this many tokens comes twice, that of the prompt included; 0 is off.
        no_repeat_ngram_size: Option<u32> = None,
        /// Tokens that end the generation are not generated before there are this many others.
        min_tokens: Option<u32> = None,
        /// Added to the logits of the tokens with these ids.
        logit_bias: BTreeMap<u32, f32> = BTreeMap::new(),
        /// Seed of the sampler; `None` draws one, which the completion reports.
        seed: Option<u64> = None,
        /// Texts that end the generation; they are not part of the completion's text. `None`: the model's own (`stop_strings`).
        stop: Option<Vec<String>> = None,
        /// Tokens that end the generation, besides the model's own.
        stop_token_ids: Vec<u32> = Vec::new(),
        /// Whether the model's own end-of-sequence tokens are taken as ordinary tokens.
        ignore_eos: bool = false,
        /// Report the log-probability of each token and of this many most likely ones.
        logprobs: Option<u32> = None,
        /// Whether a prompt gets the tokenizer's special tokens (such as BOS); `None`: a text yes, a chat no, whose template
        /// brings its own. A BOS that the prompt begins with is not doubled. A session says so when text is appended.
        add_special_tokens: Option<bool> = None,
        /// Whether special tokens are left out of the text.
        skip_special_tokens: bool = true,
    }
}

impl GenerateOptions {
    /// These options, with `add_special_tokens` as the caller takes it where it is not given.
    pub(crate) fn with_special_tokens(&self, default: bool) -> Self {
        let given = self.add_special_tokens.unwrap_or(default);
        self.clone().add_special_tokens(given)
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
            ("seed", self.seed.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// Checks every value that can be checked without a model.
    pub(crate) fn validate(&self) -> Result<()> {
        check_whole("max_tokens", self.max_tokens)?;
        check_whole("logprobs", self.logprobs)?;
        check_range("temperature", self.temperature, "a finite number, 0 or more", |x| x >= 0.0)?;
        check_range("top_p", self.top_p, "more than 0, at most 1", |x| x > 0.0 && x <= 1.0)?;
        check_range("min_p", self.min_p, "0 to 1", |x| (0.0..=1.0).contains(&x))?;
        check_range("typical_p", self.typical_p, "more than 0, at most 1", |x| x > 0.0 && x <= 1.0)?;
        check_range("repetition_penalty", self.repetition_penalty, "a finite number above 0", |x| x > 0.0)?;
        check_range("presence_penalty", self.presence_penalty, "a finite number", |_| true)?;
        check_range("frequency_penalty", self.frequency_penalty, "a finite number", |_| true)?;
        for &bias in self.logit_bias.values() {
            check_range("logit_bias", Some(bias), "finite numbers", |_| true)?;
        }
        let stop = self.stop.as_deref().unwrap_or_default();
        if stop.len() > MAX_STOPS {
            return Err(out_of_range("stop", &format!("at most {MAX_STOPS} texts"), stop.len()));
        }
        for (name, list) in [
            ("suppress_tokens", &self.suppress_tokens),
            ("begin_suppress_tokens", &self.begin_suppress_tokens),
        ] {
            if let Some(list) = list.as_ref().filter(|list| list.len() > MAX_LISTED_IDS) {
                return Err(out_of_range(name, &format!("at most {MAX_LISTED_IDS} token ids"), list.len()));
            }
        }
        let words = self.bad_words_ids.as_deref().unwrap_or_default();
        if words.len() > MAX_BAD_WORDS || words.iter().map(Vec::len).sum::<usize>() > MAX_LISTED_IDS {
            let expected = format!("at most {MAX_BAD_WORDS} lists, of {MAX_LISTED_IDS} token ids in all");
            return Err(out_of_range("bad_words_ids", &expected, words.len()));
        }
        if words.iter().any(Vec::is_empty) {
            return Err(out_of_range("bad_words_ids", "lists that are not empty", "an empty list"));
        }
        if stop.iter().any(String::is_empty) {
            return Err(out_of_range("stop", "texts that are not empty", "an empty text"));
        }
        Ok(())
    }
}

/// What the model contributes to the options in force.
pub(crate) struct ResolveContext<'a> {
    pub(crate) defaults: &'a GenerationDefaults,
    pub(crate) eos: &'a [u32],
    pub(crate) vocab_size: usize,
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Most tokens the sequence may still grow by.
    pub(crate) room: u32,
}

/// The options in force: nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) adapter: Option<String>,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f32,
    pub(crate) top_k: u32,
    pub(crate) top_p: f32,
    pub(crate) min_p: f32,
    pub(crate) typical_p: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) suppress_tokens: Vec<u32>,
    pub(crate) begin_suppress_tokens: Vec<u32>,
    pub(crate) bad_words_ids: Vec<Vec<u32>>,
    pub(crate) no_repeat_ngram_size: u32,
    pub(crate) min_tokens: u32,
    pub(crate) logit_bias: BTreeMap<u32, f32>,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    /// Tokens that end the generation, the model's own included unless ignored.
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) ignore_eos: bool,
    pub(crate) logprobs: Option<u32>,
    /// `None` where a session was continued, whose texts are there already.
    pub(crate) add_special_tokens: Option<bool>,
    pub(crate) skip_special_tokens: bool,
}

impl Resolved {
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
        Ok(Resolved {
            adapter: options.adapter.clone(),
            max_tokens: options.max_tokens.or(default_tokens).unwrap_or(context.room),
            temperature: options.temperature.unwrap_or(temperature),
            top_k: options.top_k.or(top_k).unwrap_or(0),
            // transformers takes 0 as "off" in a configuration.
            top_p: options.top_p.or(defaults.top_p.filter(|&p| p > 0.0)).unwrap_or(1.0),
            min_p: options.min_p.or(defaults.min_p).unwrap_or(0.0),
            typical_p: options.typical_p.or(defaults.typical_p).unwrap_or(1.0).min(1.0),
            repetition_penalty: options.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            presence_penalty: options.presence_penalty.unwrap_or(0.0),
            frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
            suppress_tokens: options.suppress_tokens.as_ref().unwrap_or(&defaults.suppress_tokens).clone(),
            begin_suppress_tokens: options
                .begin_suppress_tokens
                .as_ref()
                .unwrap_or(&defaults.begin_suppress_tokens)
                .clone(),
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
            logprobs: options.logprobs,
            add_special_tokens: options.add_special_tokens,
            skip_special_tokens: options.skip_special_tokens,
        })
    }

    /// Greedy, without limits: for work that samples nothing.
    pub(crate) fn greedy() -> Self {
        Resolved {
            adapter: None,
            max_tokens: u32::MAX,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            bad_words_ids: Vec::new(),
            no_repeat_ngram_size: 0,
            min_tokens: 0,
            logit_bias: BTreeMap::new(),
            seed: 0,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            add_special_tokens: None,
            skip_special_tokens: true,
        }
    }

    /// The echo in the completion: the names of [`GenerateOptions`], nothing `null` but `adapter`, `logprobs` and
    /// `add_special_tokens`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let object = json!({
            "adapter": self.adapter, "max_tokens": self.max_tokens, "temperature": shortest(self.temperature), "top_k": self.top_k, "top_p": shortest(self.top_p),
            "min_p": shortest(self.min_p), "typical_p": shortest(self.typical_p), "repetition_penalty": shortest(self.repetition_penalty),
            "presence_penalty": shortest(self.presence_penalty), "frequency_penalty": shortest(self.frequency_penalty),
            "suppress_tokens": self.suppress_tokens, "begin_suppress_tokens": self.begin_suppress_tokens,
            "bad_words_ids": self.bad_words_ids, "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "min_tokens": self.min_tokens, "logit_bias": self.logit_bias, "seed": self.seed, "stop": self.stop,
            "stop_token_ids": self.stop_token_ids, "ignore_eos": self.ignore_eos, "logprobs": self.logprobs,
            "add_special_tokens": self.add_special_tokens, "skip_special_tokens": self.skip_special_tokens,
        });
        match object {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The f64 that is written as the f32 is: 0.7, and not 0.699999988079071.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

/// A seed nobody chose: the standard library's per-process random keys, hashed.
fn draw_seed() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u8(0);
    // 53 bits survive a trip through JavaScript and JSON floats.
    hasher.finish() >> 11
}

#[cfg(test)]
mod tests {
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
            ("repetition_penalty", json!(0)),
            ("logprobs", json!(65)),
            ("stop", json!([""])),
            ("stop", json!("text")),
            ("suppress_tokens", json!([-1])),
            ("begin_suppress_tokens", json!(3)),
            ("bad_words_ids", json!([[]])),
            ("bad_words_ids", json!([3])),
            ("no_repeat_ngram_size", json!(-1)),
            ("min_tokens", json!(1.5)),
            ("logit_bias", json!({"x": 1})),
            ("seed", json!(-1)),
        ] {
            let error = parse(json!({ name: bad })).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
            assert!(error.message().contains(name), "{error}");
            assert!(error.message().contains(", found "), "{error}");
            // The words of all languages, not Rust's.
            for word in ["u32", "u64", "f32", "sequence", "map,", "invalid type", "string"] {
                assert!(!error.message().contains(word), "{error}");
            }
        }
    }

    #[test]
    fn every_option_is_echoed() {
        let given = json!({
            "adapter": "a", "max_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75,
            "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25, "suppress_tokens": [1],
            "begin_suppress_tokens": [2], "bad_words_ids": [[1, 3]], "no_repeat_ngram_size": 4, "min_tokens": 2,
            "logit_bias": {"7": -1.5}, "seed": 9, "stop": ["x"], "stop_token_ids": [4], "ignore_eos": true, "logprobs": 2,
            "add_special_tokens": false, "skip_special_tokens": false,
        });
        let defaults = GenerationDefaults::default();
        let context = ResolveContext { defaults: &defaults, eos: &[2], vocab_size: 10, prompt: 0, room: 99 };
        let unset = GenerateOptions::default().to_json();
        for &name in GenerateOptions::NAMES {
            assert_ne!(given[name], unset[name], "{name}: expected another value than its default");
        }
        let options = parse(given.clone()).unwrap();
        assert_eq!(Value::Object(Resolved::new(&options, &context).unwrap().to_json()), given);
        let options = GenerateOptions::default().with_special_tokens(true);
        assert_eq!(Resolved::new(&options, &context).unwrap().to_json()["add_special_tokens"], true);
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
    fn defaults_come_from_the_model() {
        let defaults = GenerationDefaults {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_k: Some(20),
            ..GenerationDefaults::default()
        };
        let context = ResolveContext { defaults: &defaults, eos: &[2], vocab_size: 10, prompt: 0, room: 99 };
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
        let context = ResolveContext { defaults: &defaults, eos: &[2], vocab_size: 10, prompt: 20, room: 99 };
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
