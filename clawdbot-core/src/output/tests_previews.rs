//! The previews of calls: what they say, and that it is what the calls say.

use proptest::prelude::*;
use serde_json::json;

use super::NONE;
use super::table::TOOL_FORMATS;
use super::tests::{Read, parser, read};

/// What is certain of the calls in the beginnings of outputs.
#[test]
fn arguments_come_while_they_are_written() {
    let tag = "｜DSML｜";
    let dsml = format!(
        "<{tag}function_calls><{tag}invoke name=\"f\"><{tag}parameter name=\"b\" string=\"true\">x</{tag}parameter>"
    );
    for (tool, output, name, arguments) in [
        ("hermes", "<tool_call>\n{\"name\": \"f\", \"arg", "", ""),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"b\" : \"x\\n\\u00e", "f", "{\"b\":\"x\\n"),
        ("hermes", "<tool_call>```json\n[{\"name\": \"f\", \"arguments\": {\"a\": 1.", "f", "{\"a\":"),
        (
            "hermes",
            "<tool_call>{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 10 ,",
            "f",
            "{\"a\":10,",
        ),
        ("hermes", "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"", "", ""),
        ("granite", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": [1,", "f", "{\"a\":[1,"),
        ("llama3_json", "{\"name\": \"f\", \"parameters\": {\"b\": \"Dear", "f", "{\"b\":\"Dear"),
        ("llama3_json", "{\"name\": \"Ann\", \"parameters\": {\"b\": \"Dear", "", ""),
        ("llama3_json", "<|python_tag|>web.call(query=\"x\", n=", "web", "{\"query\":\"x\""),
        ("xlam", "[{\"name\": \"f\", \"arguments\": {\"b\": \"x", "f", "{\"b\":\"x"),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"b\": \"x", "f", "{\"b\":\"x"),
        ("mistral", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"b\": \"x", "f", "{\"b\":\"x"),
        (
            "kimi_k2",
            "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"b\": \"x",
            "f",
            "{\"b\":\"x",
        ),
        ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"b\": \"x", "f", "{\"b\":\"x"),
        ("command", "<|START_ACTION|>[{\"tool_name\": \"f\", \"parameters\": {\"b\": \"x", "f", "{\"b\":\"x"),
        ("apertus", "<|tools_prefix|>[{\"f\": {\"b\": \"x", "f", "{\"b\":\"x"),
        ("functionary", "<function=f>{\"b\": \"x", "f", "{\"b\":\"x"),
        ("harmony", "<|channel|>commentary to=functions.f<|message|>{\"b\": \"x", "f", "{\"b\":\"x"),
        (
            "qwen3_coder",
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx",
            "f",
            "{\"a\":1",
        ),
        ("qwen3_coder", "<function=f>\n<parameter=a>\n1\n<parameter=b>\nx", "f", "{\"a\":1"),
        ("glm", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value><arg", "f", "{\"a\":1"),
        (
            "minimax_m2",
            "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">1</parameter>",
            "f",
            "{\"a\":1",
        ),
        ("deepseek_dsml", &dsml, "f", "{\"b\":\"x\""),
        ("gemma4", "<|tool_call>call:f{b:<|\"|>a,}<|\"|>,a:1", "f", "{\"b\":\"a,}\""),
        ("pythonic", "[f(a=[1, 2], b='x, y', c=1", "f", "{\"a\":[1,2],\"b\":\"x, y\""),
        ("gemma3", "```tool_code\nprint(f(a=2, b=\"", "f", "{\"a\":2"),
    ] {
        let mut parser = parser(tool, NONE, "");
        let mut found = Read::default();
        found.add(parser.push(output));
        let expected = (!name.is_empty()).then_some((name, arguments));
        let found = found.previews.get(&0).map(|call| (call.name.as_str(), call.arguments.as_str()));
        assert_eq!(found, expected, "{tool} {output}");
    }
}

#[test]
fn a_call_that_comes_to_nothing_keeps_its_index() {
    let broken = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}, }</tool_call>";
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 2}}</tool_call>";
    let found = read("hermes", &format!("{broken}{call}"));
    assert_eq!(
        (found.text.as_str(), found.calls(), found.calls[0].index),
        (broken, vec![("f", json!({"a": 2}))], 1)
    );
    assert_eq!((found.warnings.len(), found.previews[&0].arguments.as_str()), (1, "{\"a\":1}"));
    assert_ne!(found.previews[&0].id, found.calls[0].id);
    let message = |text: &str| format!("<|start|>assistant to=functions.f<|message|>{text}<|call|>");
    let found = read("harmony", &format!("{}{}", message("{\"a\": 1, }"), message("{\"a\": 2}")));
    assert_eq!((found.calls[0].index, found.previews[&0].arguments.as_str()), (1, "{\"a\":1,"));
}

#[test]
fn keys_that_come_twice_are_there_twice() {
    for (tool, output) in [
        (
            "hermes",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": {\"x\": 1, \"x\": 2}, \"a\": 3}}",
        ),
        ("functionary", "<function=f>{\"a\": 1, \"b\": {\"x\": 1, \"x\": 2}, \"a\": 3}</function>"),
    ] {
        let found = read(tool, output);
        assert_eq!(found.calls[0].arguments, "{\"a\":1,\"b\":{\"x\":1,\"x\":2},\"a\":3}");
        assert_eq!(found.calls(), [("f", json!({"a": 3, "b": {"x": 2}}))]);
    }
    let found = read("pythonic", "[f(a=1, b='x', a=3)]");
    assert_eq!(found.calls[0].arguments, "{\"a\":1,\"b\":\"x\",\"a\":3}");
    // Of other keys, the first one counts.
    let twice = "<tool_call>{\"id\": \"x\", \"name\": \"f\", \"name\": \"g\", \"arguments\": {\"a\": 1}, \"arguments\": {}, \"id\": \"y\"}";
    let found = read("hermes", twice);
    assert_eq!((found.calls(), found.calls[0].id.as_str()), (vec![("f", json!({"a": 1}))], "x"));
    // An id after the arguments comes too late.
    let found = read("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"id\": \"x\"}</tool_call>");
    assert_eq!(found.calls[0].id.len(), 9);
}

#[test]
fn direct_answers_next_to_calls_have_no_index() {
    let direct = "{\"tool_name\": \"directly_answer\", \"parameters\": {\"a\": 1}}";
    let call = "{\"tool_name\": \"f\", \"parameters\": {\"a\": 2}}";
    for list in [format!("{direct}, {call}"), format!("{call}, {direct}"), direct.to_owned()] {
        let found = read("command", &format!("<|START_ACTION|>[{list}]<|END_ACTION|>"));
        assert_eq!((found.calls.len(), found.calls[0].index, found.previews.len()), (1, 0, 1));
    }
}

/// Parts of calls in any format.
const PARTS: [&str; 46] = [
    " ",
    "\n",
    ",",
    ";",
    "é",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "'",
    "\\",
    "\\n",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "1",
    "-0.5e3",
    "1.",
    "null",
    "True",
    "\"b\": ",
    "\"b\": \"x\"",
    ", \"b\": {\"a\": 1, \"a\": [2]}",
    "b='x, y'",
    ", a=3",
    "b:<|\"|>x<|\"|>,",
    "<parameter=b>",
    "\n<parameter=l>\n[\"</parameter>",
    "</parameter>",
    "</function>",
    "<function=f>",
    "<arg_key>b</arg_key><arg_value>x</arg_value>",
    "<parameter name=\"l\">",
    "</invoke>",
    "\"function\": {",
    "\"id\": \"z\", ",
    "\"name\": \"g\", ",
    "\"arguments\": {\"a\": 5}, ",
    "{\"name\": \"g\", \"parameters\": {}}",
    "```json",
    "```",
    "print(",
    "=",
];

proptest! {
    /// Deltas are those of the call that comes, whatever is in it: `Read` compares them.
    #[test]
    fn deltas_are_those_of_the_call(
        tool in 0..TOOL_FORMATS.len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(PARTS.to_vec())), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut output = TOOL_FORMATS[tool].example.repeat(2);
        for (place, part) in places {
            let place = (0..=place.index(output.len() + 1)).rev().find(|&at| output.is_char_boundary(at));
            output.insert_str(place.unwrap(), part);
        }
        let whole = read(TOOL_FORMATS[tool].name, &output);
        let cut = (0..=cut.index(output.len() + 1)).rev().find(|&at| output.is_char_boundary(at)).unwrap();
        let begun = read(TOOL_FORMATS[tool].name, &output[..cut]);
        prop_assert!(begun.previews.len() >= begun.calls.len() && whole.previews.len() >= whole.calls.len());
    }
}
