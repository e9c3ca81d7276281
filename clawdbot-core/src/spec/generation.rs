//! `generation_config.json`: defaults for the options of requests, and settings without effect here.

use serde_json::Value;

use super::config::ModelConfig;
use crate::error::Result;
use crate::options::{EarlyStopping, GenerationDefaults, MAX_BAD_WORDS, MAX_LISTED_IDS, MAX_STOPS};

/// How a key is used.
enum Use {
    /// A default of an option, or a token with a role.
    Read,
    /// Does not affect the tokens: caching, speed, what is returned, or only for models with an encoder.
    Idle,
    /// Matters only with groups of beams, as another key asks for beams.
    Beams,
    /// Must be null or one of these values, with which it has no effect; otherwise transformers would generate
    /// something else.
    Neutral(&'static [f64]),
}

use Use::{Beams, Idle, Neutral, Read};

/// The keys of transformers 5 and of earlier versions. `true` and `false` count as 1 and 0.
const KEYS: &[(&str, Use)] = &[
    ("do_sample", Read),
    ("temperature", Read),
    ("top_k", Read),
    ("top_p", Read),
    ("min_p", Read),
    ("typical_p", Read),
    ("repetition_penalty", Read),
    ("suppress_tokens", Read),
    ("begin_suppress_tokens", Read),
    ("bad_words_ids", Read),
    ("no_repeat_ngram_size", Read),
    ("stop_strings", Read),
    ("max_new_tokens", Read),
    ("max_length", Read),
    ("min_new_tokens", Read),
    ("min_length", Read),
    ("eos_token_id", Read),
    ("bos_token_id", Read),
    ("pad_token_id", Read),
    ("num_beams", Neutral(&[1.0])),
    ("early_stopping", Read),
    ("length_penalty", Read),
    ("num_beam_groups", Beams),
    ("diversity_penalty", Beams),
    ("num_return_sequences", Neutral(&[1.0])),
    ("penalty_alpha", Neutral(&[0.0])),
    ("top_h", Neutral(&[1.0])),
    ("epsilon_cutoff", Neutral(&[0.0])),
    ("eta_cutoff", Neutral(&[0.0])),
    ("encoder_repetition_penalty", Neutral(&[1.0])),
    ("encoder_no_repeat_ngram_size", Neutral(&[0.0])),
    ("forced_bos_token_id", Neutral(&[])),
    ("forced_eos_token_id", Neutral(&[])),
    ("force_words_ids", Neutral(&[])),
    ("constraints", Neutral(&[])),
    ("exponential_decay_length_penalty", Neutral(&[])),
    ("sequence_bias", Neutral(&[])),
    ("guidance_scale", Neutral(&[1.0])),
    ("watermarking_config", Neutral(&[])),
    ("dola_layers", Neutral(&[])),
    ("token_healing", Neutral(&[0.0])),
    ("remove_invalid_values", Neutral(&[0.0])),
    ("max_time", Neutral(&[])),
    // Drafts only change how fast tokens are generated.
    ("is_assistant", Idle),
    ("assistant_early_exit", Idle),
    ("assistant_ensemble_weight", Idle),
    ("num_assistant_tokens", Idle),
    ("num_assistant_tokens_schedule", Idle),
    ("assistant_confidence_threshold", Idle),
    ("assistant_lookbehind", Idle),
    ("target_lookbehind", Idle),
    ("speculation_type", Idle),
    ("prompt_lookup_num_tokens", Idle),
    ("max_matching_ngram_size", Idle),
    ("use_mtp", Idle),
    // Sampling normalizes in any case.
    ("renormalize_logits", Idle),
    ("decoder_start_token_id", Idle),
    ("use_cache", Idle),
    ("cache_implementation", Idle),
    ("cache_config", Idle),
    ("max_cache_len", Idle),
    ("low_memory", Idle),
    ("prefill_chunk_size", Idle),
    ("continuous_batching_config", Idle),
    ("compile_config", Idle),
    ("disable_compile", Idle),
    ("output_attentions", Idle),
    ("output_hidden_states", Idle),
    ("output_scores", Idle),
    ("output_logits", Idle),
    ("return_dict_in_generate", Idle),
    ("transformers_version", Idle),
    ("_from_model_config", Idle),
    ("_commit_hash", Idle),
];

/// Reads the settings that [`KEYS`] marks as read.
///
/// # Errors
/// `InvalidModel` if one of them has the wrong type or is out of range.
pub(crate) fn parse(config: &ModelConfig) -> Result<GenerationDefaults> {
    let ranged = |key: &str, expected: &str, holds: fn(f32) -> bool| match config.opt_f32(key)? {
        Some(value) if !holds(value) => Err(config.invalid(key, expected)),
        value => Ok(value),
    };
    let fraction = |value: f32| (0.0..=1.0).contains(&value);
    // Older configurations write -1 for no padding token.
    let no_pad = config.get("pad_token_id").and_then(Value::as_i64) == Some(-1);
    Ok(GenerationDefaults {
        do_sample: config.opt_bool("do_sample")?,
        temperature: ranged("temperature", "a number >= 0", |value| value >= 0.0)?,
        top_k: config.opt_usize("top_k")?,
        top_p: ranged("top_p", "a number from 0 to 1", fraction)?,
        min_p: ranged("min_p", "a number from 0 to 1", fraction)?,
        typical_p: ranged("typical_p", "a number > 0", |value| value > 0.0)?,
        repetition_penalty: ranged("repetition_penalty", "a number > 0", |value| value > 0.0)?,
        length_penalty: ranged("length_penalty", "a finite number", f32::is_finite)?,
        early_stopping: early_stopping(config)?,
        eos_token_id: config.token_ids("eos_token_id")?,
        bos_token_id: config.opt_token_id("bos_token_id")?,
        pad_token_id: if no_pad { None } else { config.opt_token_id("pad_token_id")? },
        max_new_tokens: config.opt_usize("max_new_tokens")?,
        max_length: config.opt_usize("max_length")?,
        min_new_tokens: config.opt_usize("min_new_tokens")?,
        min_length: config.opt_usize("min_length")?,
        suppress_tokens: listed(config, "suppress_tokens")?,
        begin_suppress_tokens: listed(config, "begin_suppress_tokens")?,
        bad_words_ids: sequences(config, "bad_words_ids")?,
        no_repeat_ngram_size: config.opt_usize("no_repeat_ngram_size")?,
        stop_strings: texts(config, "stop_strings")?,
    })
}

/// Messages about settings that have no effect here but would change the output.
pub(crate) fn without_effect(config: &ModelConfig) -> Vec<String> {
    let beams = config.get("num_beams").is_some_and(|beams| number(beams).is_some_and(|n| n > 1.0));
    let unheeded = |key: &str, value: &Value| match KEYS.iter().find(|(known, _)| *known == key) {
        Some((_, Read | Idle)) => false,
        Some((_, Beams)) => beams,
        Some((_, Neutral(values))) => !number(value).is_some_and(|number| values.contains(&number)),
        None => true,
    };
    let keys = config.keys().filter_map(|key| Some((key, config.get(key)?)));
    let keys = keys.filter(|(key, value)| unheeded(key, value));
    keys.map(|(key, value)| {
        let known = KEYS.iter().any(|(known, _)| *known == key);
        let why = match key {
            "num_beams" | "num_return_sequences" => "is for requests to ask for (num_beams, n)",
            _ if known => "is not supported",
            _ => "is not known",
        };
        format!("{}: {key} {} {why} and has no effect", config.file(), super::config::short(value))
    })
    .collect()
}

/// A number, or a boolean as one.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or(value.as_bool().map(|truth| f64::from(u8::from(truth))))
}

/// A list of token ids. Negative ids are skipped: no token has them, in transformers neither.
fn listed(config: &ModelConfig, key: &str) -> Result<Vec<u32>> {
    let expected = format!("a list of at most {MAX_LISTED_IDS} token ids");
    let Some(value) = config.get(key) else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| list.len() <= MAX_LISTED_IDS);
    let ids = list.and_then(|list| list.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>());
    let ids = ids.ok_or_else(|| config.invalid(key, &expected))?;
    Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}

/// A list of sequences of token ids.
fn sequences(config: &ModelConfig, key: &str) -> Result<Vec<Vec<u32>>> {
    let expected = format!("a list of at most {MAX_BAD_WORDS} lists of token ids, none empty");
    let Some(value) = config.get(key) else { return Ok(Vec::new()) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let sequence = |value: &Value| -> Option<Vec<u32>> {
        let ids: Vec<u32> = value.as_array()?.iter().map(id).collect::<Option<_>>()?;
        (!ids.is_empty()).then_some(ids)
    };
    let list = value.as_array().filter(|list| list.len() <= MAX_BAD_WORDS);
    let found: Option<Vec<Vec<u32>>> = list.and_then(|list| list.iter().map(sequence).collect());
    let found = found.filter(|list| list.iter().map(Vec::len).sum::<usize>() <= MAX_LISTED_IDS);
    found.ok_or_else(|| config.invalid(key, &expected))
}

/// True, false or "never".
fn early_stopping(config: &ModelConfig) -> Result<Option<EarlyStopping>> {
    let Some(value) = config.get("early_stopping") else { return Ok(None) };
    let found = serde_json::from_value(value.clone());
    found.map(Some).map_err(|_| config.invalid("early_stopping", "true, false or \"never\""))
}

/// A string, or a list of strings, none empty.
fn texts(config: &ModelConfig, key: &str) -> Result<Vec<String>> {
    let found = match config.get(key) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => Some(vec![text.clone()]),
        Some(value) => serde_json::from_value::<Vec<String>>(value.clone()).ok(),
    };
    let found = found.filter(|texts| texts.len() <= MAX_STOPS && !texts.iter().any(String::is_empty));
    found.ok_or_else(|| config.invalid(key, &format!("at most {MAX_STOPS} strings, none empty")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    fn config(value: &Value) -> ModelConfig {
        ModelConfig::parse(value.to_string().as_bytes(), "generation_config.json").unwrap()
    }

    #[test]
    fn every_key_is_handled() {
        let quiet = json!({
            "do_sample": true, "num_beams": 1, "length_penalty": 2.0, "early_stopping": true, "typical_p": 1.0,
            "encoder_repetition_penalty": 1, "forced_eos_token_id": null, "token_healing": false, "use_cache": false,
            "transformers_version": "5", "num_assistant_tokens": 20, "guidance_scale": 1.0, "max_length": 20,
        });
        assert_eq!(without_effect(&config(&quiet)), Vec::<String>::new());
        for (key, value) in [
            ("num_beams", json!(4)),
            ("penalty_alpha", json!(0.6)),
            ("epsilon_cutoff", json!(3e-4)),
            ("eta_cutoff", json!(3e-4)),
            ("encoder_repetition_penalty", json!(1.2)),
            ("encoder_no_repeat_ngram_size", json!(3)),
            ("forced_bos_token_id", json!(0)),
            ("forced_eos_token_id", json!([1, 2])),
            ("exponential_decay_length_penalty", json!([5, 1.1])),
            ("sequence_bias", json!([[[1], 2.0]])),
            ("guidance_scale", json!(1.5)),
            ("watermarking_config", json!({"bias": 2.5})),
            ("dola_layers", json!("low")),
            ("token_healing", json!(true)),
            ("remove_invalid_values", json!(true)),
            ("max_time", json!(5.0)),
            ("num_return_sequences", json!(2)),
            ("chat_format", json!("chatml")),
        ] {
            let found = without_effect(&config(&json!({ key: value })));
            assert_eq!(found.len(), 1, "{key}: {found:?}");
            assert!(found[0].contains(key) && found[0].contains("no effect"), "{found:?}");
        }
        let beams = json!({"num_beams": 4, "length_penalty": 2.0, "diversity_penalty": 0.5});
        assert_eq!(without_effect(&config(&beams)).len(), 2);
    }

    #[test]
    fn lists_are_typed() {
        let parse = |value: Value| super::parse(&config(&value));
        let mut found = parse(json!({
            "suppress_tokens": [-1, 3, 9], "begin_suppress_tokens": [4], "bad_words_ids": [[1], [2, 9], [2, 3]],
            "no_repeat_ngram_size": 3, "stop_strings": "end", "min_new_tokens": 2, "min_length": 7, "max_length": 50,
        }))
        .unwrap();
        assert_eq!(found.suppress_tokens, [3, 9]);
        assert_eq!(found.keep_below(9), ["suppress_tokens", "bad_words_ids"]);
        let expected = GenerationDefaults {
            suppress_tokens: vec![3],
            begin_suppress_tokens: vec![4],
            bad_words_ids: vec![vec![1], vec![2, 3]],
            no_repeat_ngram_size: Some(3),
            stop_strings: vec!["end".into()],
            min_new_tokens: Some(2),
            min_length: Some(7),
            max_length: Some(50),
            ..GenerationDefaults::default()
        };
        assert_eq!(found, expected);
        let none = json!({"suppress_tokens": null, "begin_suppress_tokens": [], "bad_words_ids": null, "stop_strings": []});
        assert_eq!(parse(none).unwrap(), GenerationDefaults::default());
        for (key, bad) in [
            ("suppress_tokens", json!(7)),
            ("suppress_tokens", json!([1.5])),
            ("begin_suppress_tokens", json!(["a"])),
            ("bad_words_ids", json!([1])),
            ("bad_words_ids", json!([[]])),
            ("bad_words_ids", json!([[-1]])),
            ("bad_words_ids", json!(vec![[1]; MAX_BAD_WORDS + 1])),
            ("no_repeat_ngram_size", json!(-1)),
            ("stop_strings", json!([""])),
            ("stop_strings", json!({})),
            ("min_new_tokens", json!("many")),
        ] {
            let error = parse(json!({ key: bad })).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{key}");
            assert!(error.message().contains(key), "{error}");
        }
    }
}
