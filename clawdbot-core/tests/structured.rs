//! Output that follows a constraint, from models with random weights, which write nothing of the kind on their own.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use clawdbot_core::{
    Completion, Driver, ErrorKind, FinishReason, GenerateOptions, JsonSchema, Model, ModelOptions, Prompt,
    Runtime, RuntimeOptions, Source, Speculation,
};
use serde_json::{Value, json};

fn load(source: &Source, driver: Driver, speculation: Speculation) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver);
    let options = ModelOptions::default().speculation(speculation);
    Runtime::new(&runtime).unwrap().load(source, &options).unwrap()
}

fn sources() -> Vec<Source> {
    let families = ["llama", "gemma3", "qwen3_5"].map(|family| Source::Path(support::family(family)));
    [Source::Builtin].into_iter().chain(families).collect()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["red", "green", null]}, "maxItems": 3}
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false
    })
}

/// Whether `text` is an instance of [`schema`].
fn is_valid(text: &str) -> bool {
    let Ok(Value::Object(found)) = serde_json::from_str(text) else { return false };
    let names: Vec<&String> = found.keys().collect();
    let tag = |tag: &Value| tag.is_null() || tag == "red" || tag == "green";
    names.len() == 3
        && found["name"].as_str().is_some_and(|name| name.chars().count() <= 12)
        && found["age"].as_u64().is_some_and(|age| age <= 150)
        && found["tags"].as_array().is_some_and(|tags| tags.len() <= 3 && tags.iter().all(tag))
}

/// A constraint, and what says whether a text satisfies it.
type Way = (GenerateOptions, fn(&str) -> bool);

fn ways() -> Vec<Way> {
    let base = GenerateOptions::default().max_tokens(60_u32).logprobs(1_u32);
    let sampled = base.clone().temperature(1.5).seed(3_u64);
    let object = |text: &str| serde_json::from_str(text).is_ok_and(|value: Value| value.is_object());
    let word = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let choice = |text: &str| ["yes", "no", "I do not know"].contains(&text);
    let sum = |text: &str| {
        text.split('+').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    vec![
        (base.clone().temperature(0.0).json_schema(JsonSchema::from(schema())), is_valid),
        (sampled.clone().json_schema(JsonSchema::from(schema())), is_valid),
        (sampled.clone().json_object(true), object),
        (sampled.clone().regex("[a-z]{8}".to_owned()), word),
        (base.temperature(0.0).choices(vec!["yes".into(), "no".into(), "I do not know".into()]), choice),
        (sampled.grammar("start: N (\"+\" N)*\nN: /[0-9]{1,4}/".to_owned()), sum),
    ]
}

fn bits(done: &Completion) -> (String, Vec<u32>, Vec<u32>) {
    let all = done.logprobs.iter().flatten().flat_map(|entry| &entry.top);
    (done.text.clone(), done.token_ids.clone(), all.map(|top| top.logprob.to_bits()).collect())
}

#[test]
fn the_text_is_complete_and_has_the_same_bits_however_it_is_computed() {
    for source in sources() {
        let plain = load(&source, Driver::Caller, Speculation::None);
        let guessing = load(&source, Driver::Thread, Speculation::Ngram);
        let mut streams = Vec::new();
        let mut expected = Vec::new();
        for (options, holds) in ways() {
            let done = plain.generate("Once upon a time", &options).unwrap();
            assert!(holds(&done.text), "{source:?} {:?}", done.text);
            assert!(done.usage.first_mask_seconds > 0.0 && done.usage.mask_p99_seconds > 0.0);
            streams.push(guessing.stream("Once upon a time", &options).unwrap());
            expected.push(done);
        }
        // One that is free, in the same batch.
        let free = GenerateOptions::default().max_tokens(20_u32).temperature(0.0).logprobs(1_u32);
        streams.push(guessing.stream("Once upon a time", &free).unwrap());
        expected.push(plain.generate("Once upon a time", &free).unwrap());
        assert_eq!(expected.last().unwrap().usage.first_mask_seconds, 0.0);
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(bits(&stream.finish().unwrap()), bits(expected), "{source:?}");
        }
    }
}

#[test]
fn json_is_complete_with_any_number_of_tokens_or_refused_at_once() {
    for source in sources() {
        let model = load(&source, Driver::Caller, Speculation::None);
        let (mut refused, mut cut) = (0, 0);
        for max_tokens in 1..48 {
            let options = GenerateOptions::default()
                .max_tokens(max_tokens)
                .temperature(2.0)
                .seed(u64::from(max_tokens));
            let found = model.generate("Hello", &options.json_schema(JsonSchema::from(schema())));
            match found {
                Ok(done) => {
                    assert!(is_valid(&done.text), "{max_tokens} {:?}", done.text);
                    assert!(done.token_ids.len() <= max_tokens as usize);
                    cut += usize::from(done.finish_reason == FinishReason::Length);
                }
                Err(error) => {
                    assert_eq!(cut, 0, "{error}");
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                    let needed = error.detail()["needed"].as_u64().unwrap();
                    assert!(needed > u64::from(max_tokens), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 3 && cut > 0, "{source:?} {refused} {cut}");
    }
}

#[test]
fn a_text_without_end_tokens_ends_where_nothing_may_follow() {
    let model = load(&Source::Builtin, Driver::Caller, Speculation::None);
    let options = GenerateOptions::default().max_tokens(50_u32).ignore_eos(true).seed(1_u64);
    let done = model.generate("Hello", &options.clone().regex("[ab]{5}".to_owned())).unwrap();
    assert_eq!((done.finish_reason, done.text.len()), (FinishReason::Stop, 5));
    // What may go on goes on.
    let done = model.generate("Hello", &options.regex("[ab]+".to_owned())).unwrap();
    assert_eq!((done.finish_reason, done.token_ids.len()), (FinishReason::Length, 50));
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    let model = load(&Source::Builtin, Driver::Caller, Speculation::None);
    let ask = |options: &GenerateOptions| model.generate("Hello", options).unwrap_err();
    let options = GenerateOptions::default();
    let error =
        ask(&options.clone().json_schema(JsonSchema::from(json!({"type": "array", "uniqueItems": true}))));
    assert_eq!(error.kind(), ErrorKind::InvalidConstraint);
    assert!(error.message().contains("uniqueItems"), "{error}");
    let error = ask(&options.clone().regex("(".to_owned()));
    assert_eq!(error.kind(), ErrorKind::InvalidConstraint);
    let error = ask(&options.clone().regex("a".to_owned()).json_object(true));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    // The model serves others afterwards.
    assert!(model.generate("Hello", &options.max_tokens(3_u32)).is_ok());
}

#[test]
fn sessions_are_constrained_one_answer_at_a_time() {
    let model = load(&Source::Path(support::family("llama")), Driver::Caller, Speculation::None);
    let mut session = model.session().unwrap();
    for round in 0..3 {
        session.append(Prompt::Tokens(vec![5 + round, 7, 9]), clawdbot_core::AddSpecialTokens::No).unwrap();
        let options = GenerateOptions::default().max_tokens(60_u32).temperature(1.0).seed(u64::from(round));
        let done = session.generate(&options.json_schema(JsonSchema::from(schema()))).unwrap();
        assert!(is_valid(&done.text), "{:?}", done.text);
    }
}
