//! Output that follows a constraint, from models with random weights, which write nothing of the kind on their own.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use clawdbot_core::{
    Chat, Completion, Driver, ErrorKind, Event, FinishReason, GenerateOptions, JsonSchema, Model,
    ModelOptions, Prompt, Runtime, RuntimeOptions, Source, Speculation, ToolCall,
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
    let mut forced = 0;
    for source in sources() {
        let plain = load(&source, Driver::Caller, Speculation::None);
        let guessing = load(&source, Driver::Thread, Speculation::Ngram);
        let mut streams = Vec::new();
        let mut expected = Vec::new();
        for (options, holds) in ways() {
            let done = plain.generate("Once upon a time", &options).unwrap();
            assert!(holds(&done.text), "{source:?} {:?}", done.text);
            assert!(done.usage.first_mask_seconds > 0.0 && done.usage.mask_p99_seconds > 0.0);
            // Tokens that are forced come several in a pass, with the bits that they have alone.
            forced += done.usage.forced_tokens;
            let tokens = Prompt::Tokens(done.token_ids.clone());
            let scores = plain.score("Once upon a time", &[tokens]).unwrap().remove(0);
            let found = done.logprobs.iter().flatten().map(|entry| entry.chosen.logprob.to_bits());
            assert!(found.eq(scores.logprobs.iter().map(|logprob| logprob.to_bits())), "{source:?}");
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
    assert!(forced > 20, "{forced}");
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
    // End tokens that are suppressed are none, and a minimum gives way where the text must end.
    let ends: Vec<u32> = (0..3).collect();
    let other = GenerateOptions::default().max_tokens(50_u32).seed(1_u64);
    for options in [other.clone().suppress_tokens(ends), other.min_tokens(20_u32)] {
        let done = model.generate("Hello", &options.regex("[ab]{5}".to_owned())).unwrap();
        assert_eq!((done.finish_reason, done.text.len()), (FinishReason::Stop, 5));
    }
    // Nothing is begun that would not be complete.
    let pairs = options.clone().max_tokens(7_u32).regex("[ab]{5}(:[ab]{5})*".to_owned());
    let done = model.generate("Hello", &pairs).unwrap();
    assert_eq!((done.finish_reason, done.text.len()), (FinishReason::Stop, 5), "{done:?}");
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

/// The built-in model with a template that offers functions in the way of `format`.
fn with_template(end: &str, speculation: Speculation) -> Model {
    let template = format!(
        "{{% for m in messages %}}{{{{ m.content }}}} {{% endfor %}}{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{end}"
    );
    let options = ModelOptions::default().speculation(speculation).chat_template(template);
    Runtime::new(&RuntimeOptions::default().threads(2_u32)).unwrap().load(&Source::Builtin, &options).unwrap()
}

const HERMES: &str = "{% if false %}<tool_call>{% endif %}";
const REASONS: &str = "{% if false %}<tool_call>{% endif %}<think>\n";

fn question(strict: bool) -> Chat {
    let parameters = json!({
        "type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 30}}, "required": ["days"],
        "additionalProperties": false,
    });
    let named = |name| json!({"type": "function", "function": {"name": name, "strict": strict, "parameters": parameters}});
    Chat::new(json!([{"role": "user", "content": "Once upon a time"}]))
        .tools(json!([named("ask"), named("tell")]))
}

/// The names of the calls, whose arguments follow their schema.
fn names(done: &Completion) -> Vec<&str> {
    for call in &done.tool_calls {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        assert!(arguments["days"].as_u64().is_some_and(|days| (1..=30).contains(&days)), "{arguments}");
    }
    assert!(done.warnings.is_empty(), "{:?}", done.warnings);
    done.tool_calls.iter().map(|call| call.name.as_str()).collect()
}

fn of_call(event: &Event) -> Option<&ToolCall> {
    if let Event::ToolCall(call) = event { Some(call) } else { None }
}

/// The calls of deltas, put together as a client does, in JSON as in other languages.
fn deltas(events: &[Event]) -> Vec<ToolCall> {
    let mut calls: Vec<Value> = Vec::new();
    for event in events {
        let Event::ToolCallDelta(delta) = event else { continue };
        match delta.name {
            Some(_) => calls.push(delta.to_json().into()),
            None => {
                let call = calls.iter_mut().find(|call| call["index"] == delta.index).unwrap();
                call["arguments"] =
                    format!("{}{}", call["arguments"].as_str().unwrap(), delta.arguments).into();
            }
        }
    }
    calls.iter().map(|call| ToolCall::from_json(call.as_object().unwrap()).unwrap()).collect()
}

#[test]
fn calls_that_are_required_come_and_follow_their_schemas() {
    for end in [HERMES, REASONS] {
        let (plain, guessing) =
            (with_template(end, Speculation::None), with_template(end, Speculation::Ngram));
        for seed in 0..6_u64 {
            let options = GenerateOptions::default().max_tokens(150_u32).temperature(1.3).seed(seed);
            let required = options.clone().tool_choice("required");
            let done = plain.chat(&question(false), &required).unwrap();
            assert!(!names(&done).is_empty() && done.text.is_empty(), "{done:?}");
            assert_eq!(done.options["tool_choice"], "required");
            assert_eq!(guessing.chat(&question(false), &required).unwrap().token_ids, done.token_ids);
            let named = options.clone().tool_choice("tell").parallel_tool_calls(false);
            assert_eq!(names(&plain.chat(&question(false), &named).unwrap()), ["tell"]);
            let one = required.clone().parallel_tool_calls(false);
            let events: Vec<Event> =
                plain.chat_stream(&question(true), &one).unwrap().map(Result::unwrap).collect();
            let calls: Vec<&ToolCall> = events.iter().filter_map(of_call).collect();
            assert_eq!((calls.len(), deltas(&events)), (1, vec![calls[0].clone()]));
            // A model that does not know of calls answers with text.
            let free = plain.chat(&question(true), &options).unwrap();
            assert!(free.tool_calls.is_empty(), "{free:?}");
        }
        let several =
            GenerateOptions::default().max_tokens(150_u32).temperature(1.3).n(2_u32).tool_choice("ask");
        let done = plain.chat(&question(false), &several).unwrap();
        for one in done.alternatives.iter().chain([&done]) {
            assert!(names(one).iter().all(|name| *name == "ask") && !one.tool_calls.is_empty());
        }
    }
}

#[test]
fn answers_are_constrained_after_their_reasoning() {
    let model = with_template(REASONS, Speculation::None);
    let chat = Chat::new(json!([{"role": "user", "content": "Once upon a time"}]));
    for seed in 0..4_u64 {
        let options = GenerateOptions::default().max_tokens(120_u32).temperature(1.0).seed(seed);
        let done = model.chat(&chat, &options.clone().json_schema(JsonSchema::from(schema()))).unwrap();
        assert!(is_valid(&done.text) && !done.reasoning.is_empty(), "{done:?}");
        // Nothing is taken for reasoning: the constraint is for all of it.
        let whole = options.clone().reasoning_format("none").json_schema(JsonSchema::from(schema()));
        let done = model.chat(&chat, &whole).unwrap();
        assert!(is_valid(&done.text) && done.reasoning.is_empty(), "{done:?}");
        // With functions, an answer is one or the other.
        let either = options.json_schema(JsonSchema::from(schema()));
        let done = model.chat(&question(false), &either).unwrap();
        assert_eq!(is_valid(&done.text), names(&done).is_empty(), "{done:?}");
    }
}

#[test]
fn strict_functions_are_enforced_where_calls_have_no_mark() {
    let model = with_template(HERMES, Speculation::None);
    let sampled = GenerateOptions::default().max_tokens(200_u32).temperature(1.0).tool_format("llama3_json");
    let mut called = 0;
    for seed in 0..6_u64 {
        // The brace is the first token of a call.
        let brace = model.tokenizer().unwrap().token_to_id("{").unwrap();
        let options =
            sampled.clone().seed(seed).logit_bias([(brace, if seed % 2 == 0 { 100.0 } else { -100.0 })]);
        let done = model.chat(&question(true), &options).unwrap();
        assert_eq!(names(&done).is_empty(), seed % 2 == 1, "{done:?}");
        called += names(&done).len();
    }
    assert_eq!(called, 3);
}

#[test]
fn choices_of_tools_that_cannot_be_are_refused() {
    let model = with_template(HERMES, Speculation::None);
    let options = GenerateOptions::default().max_tokens(40_u32).temperature(0.0);
    let ask = |chat: &Chat, options: &GenerateOptions| model.chat(chat, options).unwrap_err();
    let named = |error: clawdbot_core::Error, part: &str| {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains(part), "{error}");
    };
    let required = options.clone().tool_choice("required");
    named(ask(&Chat::new(json!([{"role": "user", "content": "Hi"}])), &required), "expected tools");
    named(model.generate("Hi", &required).unwrap_err(), "expected a chat with tools");
    named(ask(&question(false), &options.clone().tool_choice("other")), "one of the tools (ask, tell)");
    named(ask(&question(false), &required.clone().json_object(true)), "json_object");
    named(ask(&question(false), &required.clone().max_tokens(5_u32)), "found 5");
    let bad =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]);
    let error = ask(&question(false).tools(bad), &required);
    assert_eq!(error.kind(), ErrorKind::InvalidConstraint);
    assert!(error.message().contains("function \"f\"") && error.message().contains("not"), "{error}");
    let odd = json!([{"type": "function", "function": {"name": "f", "strict": 1}}]);
    named(ask(&question(false).tools(odd), &options), "strict");
    // No calls: the functions are not shown to the model.
    let without = model.chat(&question(false).tools(None), &options).unwrap();
    let none = model.chat(&question(false), &options.clone().tool_choice("none")).unwrap();
    assert_eq!(none.token_ids, without.token_ids);
    assert_eq!(none.options["tool_format"], "none");
}
