//! The previews of calls: what they say, and that it is what the calls say.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

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

/// Calls with arguments in JSON in the place of `$`, and how many.
const WITH_JSON: [(&str, &str, usize); 19] = [
    ("hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": $}\n</tool_call>", 1),
    ("hermes", "<tool_call>{\"function\": {\"name\": \"f\", \"arguments\": $}, \"x\": $}</tool_call>", 1),
    (
        "tool_calls",
        "<tool_calls>[{\"name\": \"f\", \"arguments\": $}, {\"name\": \"g\", \"arguments\": $}]</tool_calls>",
        2,
    ),
    (
        "granite",
        "<|tool_call|>[{\"name\": \"f\", \"arguments\": $} , {\"arguments\": $, \"name\": \"f\"}]",
        2,
    ),
    ("functools", "functools[{\"name\": \"f\", \"arguments\": $}]", 1),
    ("gigachat", "<|function_call|>{\"name\": \"f\", \"arguments\": $}", 1),
    ("llama3_json", "{\"name\": \"f\", \"parameters\": $}; {\"name\": \"g\", \"parameters\": $}", 2),
    ("llama3_json", "<|python_tag|>{\"name\": \"f\", \"parameters\": $}", 1),
    ("xlam", "```json\n[{\"name\": \"f\", \"arguments\": $}]\n```", 1),
    ("mistral", "[TOOL_CALLS]f[CALL_ID]abc[ARGS]$[TOOL_CALLS]g[ARGS]$", 2),
    ("mistral", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": $, \"id\": \"abc\"}]", 1),
    ("kimi_k2", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>$<|tool_call_end|>", 1),
    ("deepseek", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>$<｜tool▁call▁end｜>", 1),
    ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n$\n```<｜tool▁call▁end｜>", 1),
    (
        "command",
        "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": $}]<|END_ACTION|>",
        1,
    ),
    ("apertus", "<|tools_prefix|>[{\"f\": $}, {\"g\": $}]<|tools_suffix|>", 2),
    ("functionary", "<function=f>$</function>", 1),
    ("harmony", "<|start|>assistant to=functions.f<|message|>$<|call|>", 1),
    ("pythonic", "[{\"name\": \"f\", \"arguments\": $}]", 1),
];

/// Calls with a text in the place of `$` as argument `b`, and a list in JSON in that of `@` as argument `l`.
const WITH_VALUES: [(&str, &str); 7] = [
    (
        "qwen3_coder",
        "<tool_call>\n<function=f>\n<parameter=b>\n$\n</parameter>\n<parameter=l>\n@\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        "seed_oss",
        "<seed:tool_call><function=f><parameter=b>$</parameter><parameter=l>@</parameter></function></seed:tool_call>",
    ),
    (
        "glm",
        "<tool_call>f\n<arg_key>b</arg_key>\n<arg_value>$</arg_value>\n<arg_key>l</arg_key>\n<arg_value>@</arg_value>\n</tool_call>",
    ),
    (
        "minimax_m2",
        "<minimax:tool_call><invoke name=\"f\"><parameter name=\"b\">$</parameter><parameter name=\"l\">@</parameter></invoke></minimax:tool_call>",
    ),
    (
        "deepseek_dsml",
        "<｜DSML｜function_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"b\" string=\"true\">$</｜DSML｜parameter><｜DSML｜parameter name=\"l\" string=\"false\">@</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>",
    ),
    ("gemma4", "<|tool_call>call:f{b:<|\"|>$<|\"|>,l:[1,{},{k:<|\"|>$<|\"|>}]}<tool_call|>"),
    ("function_gemma", "<start_function_call>call:f{b:<escape>$<escape>,l:[]}<end_function_call>"),
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Exact, however it is read.
        (any::<i16>(), 0..8)
            .prop_map(|(number, shift)| Value::from(f64::from(number) / f64::from(1 << shift))),
        "(?s).{0,6}".prop_map(Value::from),
        prop::sample::select(PARTS.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(?s).{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A value in JSON with spaces and escapes, for which `random` decides.
fn spell(value: &Value, random: &mut impl FnMut(usize) -> usize, out: &mut String) {
    let space = |random: &mut dyn FnMut(usize) -> usize| [" ", "\n\t", "", "", "", ""][random(6)];
    out.push_str(space(random));
    match value {
        Value::String(text) => text_of(text, random, out),
        Value::Array(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                spell(value, random, out);
            }
            out.push_str(space(random));
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(space(random));
                text_of(key, random, out);
                out.push_str(space(random));
                out.push(':');
                spell(value, random, out);
            }
            out.push_str(space(random));
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(space(random));
}

fn text_of(text: &str, random: &mut impl FnMut(usize) -> usize, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || random(5) == 0 => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    }
}

/// Checks that `output`, in pieces of up to `longest` bytes, gives what it does as a whole and by the character.
fn in_pieces(tool: &str, output: &str, longest: usize, random: &mut impl FnMut(usize) -> usize) -> Read {
    let whole = read(tool, output);
    let (mut parser, mut found, mut rest) = (parser(tool, NONE, ""), Read::default(), output);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary((1 + random(longest)).min(rest.len())));
        found.add(parser.push(piece));
        rest = after;
    }
    found.add(parser.finish());
    assert_eq!(found, whole, "{tool} {output:?}");
    found
}

proptest! {
    /// Any arguments are in the deltas, in any format whose arguments are JSON, wherever the output is cut.
    #[test]
    fn deltas_are_any_arguments(
        which in 0..WITH_JSON.len(),
        members in prop::collection::vec(("(?s).{0,3}", value()), 0..4),
        seed in any::<u64>(),
        longest in 1_usize..40,
    ) {
        let (tool, output, calls) = WITH_JSON[which];
        let arguments = Value::Object(members.into_iter().collect::<Map<_, _>>());
        let (mut random, mut spelled) = (random(seed), String::new());
        spell(&arguments, &mut random, &mut spelled);
        let spelled = spelled.trim();
        let found = in_pieces(tool, &output.replace('$', spelled), longest, &mut random);
        let read: Vec<_> = found.calls().into_iter().map(|(_, arguments)| arguments).collect();
        prop_assert_eq!((&found.text, read), (&String::new(), vec![arguments; calls]), "{} {}", tool, spelled);
        // All of them come before the call ends.
        let mut begun = Read::default();
        begun.add(parser(tool, NONE, "").push(&format!("{}{spelled}", output.split_once('$').unwrap().0)));
        prop_assert_eq!(&begun.previews[&0].arguments, &found.calls[0].arguments, "{} {}", tool, spelled);
    }

    /// So are texts without quotes, and lists next to them.
    #[test]
    fn deltas_are_any_texts_and_lists(
        which in 0..WITH_VALUES.len(),
        text in "[^<]{0,8}",
        list in prop::collection::vec(value(), 0..4),
        seed in any::<u64>(),
        longest in 1_usize..40,
    ) {
        let (tool, output) = WITH_VALUES[which];
        let (list, mut random, mut spelled) = (Value::from(list), random(seed), String::new());
        spell(&list, &mut random, &mut spelled);
        let output = output.replace('$', "\u{1}").replace('@', &spelled).replace('\u{1}', &text);
        let found = in_pieces(tool, &output, longest, &mut random);
        let (name, arguments) = &found.calls()[0];
        prop_assert_eq!((found.text.as_str(), *name), ("", "f"));
        // One line end next to a tag may be the tag's.
        let same = |read: &Value| read == text.as_str() || (tool == "seed_oss" && text.contains('\n'));
        prop_assert!(same(&arguments["b"]), "{} {:?} {}", tool, text, arguments);
        prop_assert!(tool.contains("gemma") || arguments["l"] == list, "{} {} {}", tool, spelled, arguments);
    }

    /// Calls in Python's notation, with values that are JSON's or Python's own.
    #[test]
    fn deltas_are_any_values_of_python(
        values in prop::collection::vec(value(), 0..4),
        own in prop::sample::select(vec!["'x, y'", "\"\"\"a\", 'b\"\"\"", "'''it's, (x'''", "(1, None)", "{'k': [True]}", "'\\u00e9\\x41\\q'"]),
        seed in any::<u64>(),
        longest in 1_usize..40,
    ) {
        let (mut random, mut spelled) = (random(seed), String::new());
        for (at, value) in values.iter().enumerate() {
            spelled.push_str(&format!("v{at}="));
            spell(value, &mut random, &mut spelled);
            spelled.push_str(", ");
        }
        let output = format!("[f({spelled}own={own}), g(a=1)]");
        let found = in_pieces("pythonic", &output, longest, &mut random);
        prop_assert_eq!((found.text.as_str(), found.calls.len()), ("", 2), "{}", output);
    }
}
