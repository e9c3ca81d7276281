//! What options are in force, by the request and by the model.

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
        "adapter": "a", "priority": 70, "group": "b", "deadline_ms": 900, "speculation": "ngram", "n": 2, "best_of": 3, "num_beams": 1, "length_penalty": 0.6, "early_stopping": "never", "max_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75,
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
    // Mirostat is instead of others, and so are beams.
    for &name in GenerateOptions::NAMES.iter().filter(|name| !["mirostat_tau", "num_beams"].contains(name)) {
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
    let beams = GenerateOptions::default().num_beams(4_u32).n(2_u32);
    // What is echoed may be given again.
    for options in [GenerateOptions::default(), mirostat, beams] {
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
fn beams_are_greedy_whatever_the_model_says() {
    let defaults = GenerationDefaults {
        do_sample: Some(true),
        temperature: Some(0.6),
        top_k: Some(20),
        top_p: Some(0.9),
        length_penalty: Some(2.0),
        early_stopping: Some(EarlyStopping::Never),
        ..GenerationDefaults::default()
    };
    let context = ResolveContext {
        defaults: &defaults,
        eos: &[2],
        vocab_size: 10,
        prompt: 0,
        room: 99,
        speculation: Speculation::Ngram,
    };
    let options = GenerateOptions::default().num_beams(4_u32);
    let found = Resolved::new(&options, &context).unwrap();
    assert_eq!((found.temperature, found.top_k, found.top_p), (0.0, 0, 1.0));
    assert_eq!((found.length_penalty, found.early_stopping), (2.0, EarlyStopping::Never));
    assert_eq!(found.speculation, Speculation::None);
    let again = GenerateOptions::from_json(&found.to_json()).unwrap();
    assert_eq!(Resolved::new(&again, &context).unwrap(), found);
    let stops = GenerationDefaults { stop_strings: vec!["end".into()], ..GenerationDefaults::default() };
    let context = ResolveContext { defaults: &stops, ..context };
    let error = Resolved::new(&options, &context).unwrap_err();
    assert!(error.message().starts_with("option num_beams: expected 1, or stop without"), "{error}");
    assert!(Resolved::new(&options.stop(Vec::new()), &context).is_ok());
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
