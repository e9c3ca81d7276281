//! Calls of functions in the format of each family: whatever the grammar lets a model write is read back as calls of the
//! functions, with arguments of their schemas.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::tests::{Random, tokenizer_with};
use super::{Accepted, Auto, Grammar, Matcher, Source, Vocabulary};
use crate::output::{
    Function, OutputFormats, Piece, TOOL_FORMAT_NAMES, ToolCall, Tools, WrittenCalls, functions,
};

pub(crate) const END: u32 = 0;
/// Names of formats that are none.
const NOT_ENFORCED: [&str; 2] = ["auto", "none"];

pub(crate) fn tools() -> Value {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    json!([
        tool(
            "look",
            json!({
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "days": {"type": "integer", "minimum": 1, "maximum": 30},
                    "unit": {"enum": ["C", "K x"]},
                    "near": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
                },
                "required": ["place", "days"],
                "additionalProperties": false,
            })
        ),
        tool(
            "look_again",
            json!({
                "type": "object",
                "properties": {"where": {"$ref": "#/$defs/point"}, "note": {"type": ["string", "null"]}},
                "$defs": {"point": {
                    "type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": false,
                }},
                "additionalProperties": false,
            })
        ),
        tool(
            "edit",
            json!({
                "type": "object",
                "properties": {
                    "edits": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
                    "text": {"type": "string"},
                },
                "required": ["edits"],
                "additionalProperties": false,
            })
        ),
        tool("note", json!({"type": "object", "properties": {"any": {}, "list": {"type": "array"}}})),
        tool("stop", Value::Null),
    ])
}

/// Whether `arguments` are what the schemas above say.
pub(crate) fn valid(name: &str, arguments: &Map<String, Value>) -> bool {
    let has = |key: &str, is: &dyn Fn(&Value) -> bool| arguments.get(key).is_none_or(is);
    let only = |keys: &[&str]| arguments.keys().all(|key| keys.contains(&key.as_str()));
    match name {
        "look" => {
            only(&["place", "days", "unit", "near"])
                && arguments.get("place").is_some_and(Value::is_string)
                && arguments.get("days").and_then(Value::as_i64).is_some_and(|days| (1..=30).contains(&days))
                && has("unit", &|unit| unit == "C" || unit == "K x")
                && has("near", &|near| {
                    near.as_array().is_some_and(|near| near.len() <= 2 && near.iter().all(Value::is_boolean))
                })
        }
        "look_again" => {
            only(&["where", "note"])
                && has("where", &|point| {
                    point.as_object().is_some_and(|point| point.len() == 1 && point["x"].is_number())
                })
                && has("note", &|note| note.is_string() || note.is_null())
        }
        "edit" => {
            let texts =
                |edit: &Value| edit.as_object().is_some_and(|edit| edit.values().all(Value::is_string));
            only(&["edits", "text"])
                && arguments
                    .get("edits")
                    .and_then(Value::as_array)
                    .is_some_and(|edits| edits.iter().all(texts))
                && has("text", &Value::is_string)
        }
        "note" => has("list", &Value::is_array),
        "stop" => arguments.is_empty(),
        _ => false,
    }
}

/// Texts that would end or cut calls, but for quotes.
pub(crate) const MARKS: [&str; 13] = [
    "</function>",
    "</parameter>",
    "\n<parameter=text>",
    "<function=edit>",
    "</arg_value>",
    "</tool_call>",
    "<|end|>",
    "<|call|>",
    "```",
    "]",
    "'",
    "[{",
    // A number that is too large for floating point.
    "1e999",
];

/// A text that `matcher` allows, of at most `more` tokens more than the shortest. It has `marks` wherever it may.
fn written(
    format: &str,
    mut matcher: Matcher,
    vocabulary: &Vocabulary,
    marks: &[&str],
    more: usize,
    random: &mut Random,
) -> String {
    let most = matcher.shortest_completion_tokens().expect("a way") + more;
    let (mut bytes, mut left) = (Vec::new(), most);
    loop {
        if left == 0 {
            assert!(matcher.is_complete().expect("runs"), "{}", String::from_utf8_lossy(&bytes));
            break;
        }
        if random.below(4) == 0 {
            for byte in marks[random.below(marks.len())].bytes() {
                // The token of the byte.
                let id = u32::from(byte) + 1;
                let fits = left > 0 && matcher.mask(Some(left)).is_ok_and(|mask| mask.allows(id));
                if !fits || matcher.accept(id, Some(left)).expect("allowed") == Accepted::Refused {
                    break;
                }
                bytes.push(byte);
                left -= 1;
            }
            continue;
        }
        let mask = matcher.mask(Some(left)).unwrap_or_else(|error| {
            panic!("{format}: {error} after {:?} of {}", String::from_utf8_lossy(&bytes), bytes.len())
        });
        let allowed: Vec<u32> = mask.ids().collect();
        let id = allowed[random.below(allowed.len())];
        match matcher.accept(id, Some(left)).expect("allowed") {
            Accepted::Yes if id == END => break,
            Accepted::Yes => bytes.extend(vocabulary.text_of(id)),
            // Tried again with one token fewer: enough for the text to end.
            Accepted::Refused => {}
        }
        left -= 1;
    }
    String::from_utf8(bytes).expect("text")
}

fn read(format: &str, text: &str) -> Vec<ToolCall> {
    let formats = OutputFormats::new(format, "none").expect("known").expect("a format");
    let tail = if format == "harmony" { "<|start|>assistant" } else { "" };
    let mut parser = formats.parser(Tools::new(Some(&tools())), 0, tail);
    let mut pieces = parser.push(text);
    pieces.extend(parser.finish());
    let (mut calls, mut previews) = (Vec::new(), Vec::<String>::new());
    for piece in pieces {
        match piece {
            Piece::Delta(delta) => {
                previews.resize(previews.len().max(delta.index + 1), String::new());
                previews[delta.index].push_str(&delta.arguments);
            }
            Piece::Call(call) => calls.push(call),
            other => panic!("{format}: {text:?} has {other:?}"),
        }
    }
    // No preview is void.
    let arguments: Vec<&str> = calls.iter().map(|call| call.arguments.as_str()).collect();
    assert_eq!(previews, arguments, "{format}: {text:?}");
    calls
}

pub(crate) fn vocabulary(calls: &WrittenCalls, special: bool) -> Arc<Vocabulary> {
    let mut marks = calls.marks.clone();
    marks.retain(|mark| mark.len() > 3 && !mark.contains(' '));
    marks.sort_unstable();
    marks.dedup();
    let tokenizer = tokenizer_with(if special { &marks } else { &[] });
    let known = calls.marks.iter().filter_map(|mark| {
        let id = tokenizer.token_to_id(mark).filter(|id| tokenizer.is_special(*id))?;
        Some(((*mark).to_owned(), id))
    });
    Arc::new(Vocabulary::with_marks(&tokenizer, &known.collect::<Vec<_>>()).expect("supported"))
}

fn list() -> Vec<Function> {
    functions(&tools()).expect("functions").into_iter().map(|(function, _)| function).collect()
}

#[test]
fn ways_to_complete_calls_are_found_in_any_state() {
    let mut random = Random(7);
    for format in ["hermes", "lfm2", "gemma4", "glm"] {
        for schema in [
            json!({"type": "number"}),
            json!({"type": "number", "minimum": 0.2, "maximum": 0.3}),
            json!({"type": "number", "minimum": 1.001, "maximum": 1.0012}),
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-20}),
            json!({"type": "integer", "multipleOf": 10, "minimum": 10, "maximum": 5000}),
        ] {
            let parameters = json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
            let function = Function { name: "f".into(), parameters };
            let calls = WrittenCalls::new(format, &[function], true).expect("enforced");
            let vocabulary = vocabulary(&calls, true);
            let source = Source { answer: None, header: "", calls: Some(calls), auto: Auto::None };
            let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect("compiles"));
            let most = Matcher::new(&grammar, &[END], false).expect("a matcher");
            let most = { most }.shortest_completion_tokens().expect("a way");
            for round in 0..4 {
                let matcher = Matcher::new(&grammar, &[END], false).expect("a matcher");
                written(format, matcher, &vocabulary, &["-0.0"], 20 * round, &mut random);
            }
            // No detours.
            assert!(most < 100, "{format} {schema}: {most}");
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut random = Random(5);
    for format in TOOL_FORMAT_NAMES.iter().filter(|name| !NOT_ENFORCED.contains(name)) {
        for special in [true, false] {
            for parallel in [true, false] {
                let calls = WrittenCalls::new(format, &list(), parallel).expect("enforced");
                let vocabulary = vocabulary(&calls, special);
                let marks = [&MARKS[..], &calls.marks].concat();
                let source = Source { answer: None, header: "", calls: Some(calls), auto: Auto::None };
                let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect(format));
                for round in 0..12 {
                    let matcher = Matcher::new(&grammar, &[END], false).expect("a matcher");
                    let text = written(format, matcher, &vocabulary, &marks, 40 * round, &mut random);
                    let found = read(format, &text);
                    assert!(
                        !found.is_empty() && (parallel || found.len() == 1),
                        "{format}: {text:?} {found:?}"
                    );
                    for call in found {
                        let arguments: Map<String, Value> =
                            serde_json::from_str(&call.arguments).expect("JSON");
                        assert!(valid(&call.name, &arguments), "{format}: {text:?} {call:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn names_that_are_no_formats_are_refused() {
    for format in NOT_ENFORCED {
        let error = WrittenCalls::new(format, &list(), true).expect_err("not enforced");
        assert!(error.contains(format), "{error}");
    }
}

/// Whether a call of `f` in `format` may be `text`.
fn accepts(format: &str, parameters: &Value, text: &str) -> bool {
    let function = Function { name: "f".into(), parameters: parameters.clone() };
    let calls = WrittenCalls::new(format, &[function], true).expect("enforced");
    let vocabulary = vocabulary(&calls, false);
    let source = Source { answer: None, header: "", calls: Some(calls), auto: Auto::None };
    let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect("compiles"));
    let mut matcher = Matcher::new(&grammar, &[END], false).expect("a matcher");
    for byte in text.bytes() {
        let id = u32::from(byte) + 1;
        if !matcher.allows(id).expect("runs") {
            return false;
        }
        matcher.accept(id, None).expect("allowed");
    }
    matcher.is_complete().expect("runs")
}

#[test]
fn values_between_marks_are_those_of_the_schema() {
    for least in 0..3 {
        for most in
            [None, Some(0), Some(1), Some(3)].into_iter().filter(|most| most.is_none_or(|most| most >= least))
        {
            let mut list = json!({"type": "array", "items": {"type": "integer"}, "minItems": least});
            if let Some(most) = most {
                list["maxItems"] = json!(most);
            }
            let schema = json!({"type": "object", "properties": {"a": list}, "required": ["a"]});
            for count in 0..5 {
                let items = vec!["7"; count].join(",");
                let fits = count >= least && most.is_none_or(|most| count <= most);
                let text = format!("<|tool_call>call:f{{a:[{items}]}}<tool_call|>");
                assert_eq!(accepts("gemma4", &schema, &text), fits, "{schema} {text}");
            }
        }
    }
    let schema = json!({"type": "object", "properties": {
        "e": {"enum": ["x", 3, null, [true], {"k": "v"}]},
        "o": {"type": "object", "properties": {"n": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["n"]},
        "u": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    }});
    for (arguments, valid) in [
        ("", true),
        ("e:<escape>x<escape>", true),
        ("e:3,o:{n:0.5}", true),
        ("e:[true],u:true", true),
        ("e:{k:<escape>v<escape>},u:<escape>a{,}<escape>", true),
        ("o:{n:2}", false),
        ("o:{}", false),
        ("u:<escape>a<escape>,e:3", false),
        ("e:<escape>y<escape>", false),
        ("u:3", false),
    ] {
        let text = format!("<start_function_call>call:f{{{arguments}}}<end_function_call>");
        assert_eq!(accepts("function_gemma", &schema, &text), valid, "{text}");
    }
}

#[test]
fn what_a_format_cannot_enforce_is_refused() {
    let function = |schema: Value| Function { name: "f".into(), parameters: schema };
    for (format, properties, named) in [
        ("glm", json!({"a": {"type": "string", "minLength": 3}}), "minLength"),
        ("qwen3_coder", json!({"a": {"type": "string", "pattern": "x"}}), "pattern"),
        ("minimax_m2", json!({"a": {"enum": ["a", "</parameter>"]}}), "</parameter>"),
        ("pythonic", json!({"a b": {"type": "integer"}}), "a b"),
        ("glm", json!({"a": {"$ref": "#/$defs/none"}}), "reference"),
        ("gemma4", json!({"a": {"type": "string", "maxLength": 3}}), "maxLength"),
        ("gemma4", json!({"a": {"type": "array", "items": {"type": "string"}, "maxItems": 900}}), "900"),
        ("gemma4", json!({"a:b": {"type": "null"}}), "a:b"),
        ("gemma4", json!({"a": {"enum": ["<|\"|>"]}}), "<|\"|>"),
        ("gemma4", json!({"a": {"type": "array", "items": {"$ref": "#/properties/a"}}}), "16 deep"),
    ] {
        let error =
            WrittenCalls::new(format, &[function(json!({"type": "object", "properties": properties}))], true);
        let error = error.expect_err("refused");
        assert!(error.contains(named) && error.contains("\"f\""), "{error}");
    }
    let more = function(json!({"type": "object", "minProperties": 1}));
    assert!(WrittenCalls::new("glm", &[more], true).expect_err("refused").contains("minProperties"));
    let properties: Map<String, Value> = (0..40).map(|at| (format!("a{at}"), json!({}))).collect();
    let many =
        |properties: &Map<String, Value>| function(json!({"type": "object", "properties": properties}));
    assert!(WrittenCalls::new("pythonic", &[many(&properties)], true).expect_err("refused").contains("32"));
    assert!(WrittenCalls::new("glm", &[many(&properties)], true).is_ok());
    let properties = (0..200).map(|at| (format!("a{at}"), json!({}))).collect();
    assert!(WrittenCalls::new("glm", &[many(&properties)], true).expect_err("refused").contains("128"));
    let too_many = vec![function(json!({"type": "object"})); 600];
    assert!(WrittenCalls::new("hermes", &too_many, true).expect_err("refused").contains("512"));
    for (format, key) in
        [("qwen3_coder", "</think>"), ("glm", " a"), ("minimax_m2", "\""), ("seed_oss", "\n")]
    {
        let properties = json!({key: {"type": "boolean"}});
        let error =
            WrittenCalls::new(format, &[function(json!({"type": "object", "properties": properties}))], true);
        assert!(error.expect_err("refused").contains("expected a name"), "{format}");
    }
    let twice = vec![function(json!({"type": "object"})); 2];
    assert!(WrittenCalls::new("hermes", &twice, true).expect_err("refused").contains("found two"));
    let spaced = Function { name: "\t x".into(), parameters: json!({"type": "object"}) };
    assert!(WrittenCalls::new("hermes", &[spaced], true).expect_err("refused").contains("white space"));
    for (tool, named) in [
        (json!({"name": "f", "input_schema": {}}), "input_schema"),
        (json!({"name": "f", "strict": 1}), "strict"),
        (json!({"type": "function", "strict": "yes", "function": {"name": "f"}}), "strict"),
        (json!({"name": "f", "parameters": 3}), "parameters"),
        (json!({"parameters": {}}), "name"),
    ] {
        assert!(functions(&json!([tool])).expect_err("refused").contains(named), "{named}");
    }
    let outer = json!([{"type": "function", "strict": true, "function": {"name": "f"}}]);
    assert!(functions(&outer).expect("a function")[0].1);
    let nameless = Function { name: "a b".into(), parameters: json!({"type": "object"}) };
    assert!(WrittenCalls::new("hermes", &[nameless], true).expect_err("refused").contains("a b"));
}

#[test]
fn errors_of_schemas_in_calls_have_their_place() {
    let schema = json!({"type": "object", "properties": {"a": {"oneOf": [{"minimum": 1}, {"maximum": 2}]}}});
    let function = Function { name: "f".into(), parameters: schema };
    let calls = WrittenCalls::new("hermes", &[function], true).expect("enforced");
    let vocabulary = vocabulary(&calls, false);
    let source = Source { answer: None, header: "", calls: Some(calls), auto: Auto::None };
    let error = Grammar::compile_source(&source, &vocabulary).expect_err("refused");
    assert!(
        error.message().starts_with("tools: oneOf at \"#/properties/a\": expected alternatives"),
        "{error}"
    );
    assert_eq!(
        (&error.detail()["option"], &error.detail()["place"]),
        (&json!("tools"), &json!("#/properties/a"))
    );
}
