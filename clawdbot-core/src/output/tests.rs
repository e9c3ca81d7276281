//! Every format: whole, cut anywhere, in garbage.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::format::{Grammar, ReasoningFormat};
use super::reasoning::REASONING_FORMATS;
use super::table::TOOL_FORMATS;
use super::*;
use crate::api::tests::support;
use crate::tokenizer::{ChatTemplate, LocalTime, SpecialTokens};

/// All that a parser gave.
#[derive(Debug, Default, PartialEq, Clone)]
pub(super) struct Read {
    pub(super) text: String,
    reasoning: String,
    pub(super) calls: Vec<ToolCall>,
    pub(super) warnings: Vec<String>,
    /// The deltas of calls, put together, by index.
    pub(super) previews: BTreeMap<usize, ToolCall>,
}

impl Read {
    pub(super) fn add(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.text.push_str(&text),
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Delta(delta) => self.preview(delta),
                Piece::Call(call) => {
                    assert_eq!(self.previews.get(&call.index), Some(&call), "{self:?}");
                    self.calls.push(call);
                }
                Piece::Warning(warning) => self.warnings.push(warning),
            }
        }
    }

    fn preview(&mut self, delta: ToolCallDelta) {
        let ToolCallDelta { index, id, name, arguments } = delta;
        assert!(!arguments.is_empty() && self.calls.iter().all(|call| call.index != index), "{self:?}");
        match self.previews.get_mut(&index) {
            Some(call) => {
                assert_eq!((id, name), (None, None));
                call.arguments.push_str(&arguments);
            }
            None => {
                let (id, name) = (id.unwrap(), name.unwrap());
                self.previews.insert(index, ToolCall { index, id, name, arguments });
            }
        }
    }

    /// Name and arguments of each call.
    pub(super) fn calls(&self) -> Vec<(&str, Value)> {
        let arguments = |call: &ToolCall| serde_json::from_str(&call.arguments).unwrap();
        self.calls.iter().map(|call| (call.name.as_str(), arguments(call))).collect()
    }
}

fn tools() -> Tools {
    let properties = json!({"a": {"type": "integer"}, "b": {"type": "string"}, "l": {"type": "array"}});
    Tools::new(Some(&json!([
        {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}},
        {"name": "g"},
    ])))
}

pub(super) fn parser(tool: &str, reasoning: &str, tail: &str) -> OutputParser {
    OutputFormats::new(tool, reasoning).unwrap().unwrap().parser(tools(), 7, tail)
}

/// Reads `pieces` in turn.
fn read_pieces<'a>(mut parser: OutputParser, pieces: impl Iterator<Item = &'a str>) -> Read {
    let mut read = Read::default();
    pieces.for_each(|piece| read.add(parser.push(piece)));
    read.add(parser.finish());
    assert!(parser.finish().is_empty());
    read
}

/// Reads `output`, whole and by the character.
fn read_after(tail: &str, tool: &str, reasoning: &str, output: &str) -> Read {
    let whole = read_pieces(parser(tool, reasoning, tail), std::iter::once(output));
    let chars = output.char_indices().map(|(at, c)| &output[at..at + c.len_utf8()]);
    assert_eq!(read_pieces(parser(tool, reasoning, tail), chars), whole, "{tool} {output:?}");
    whole
}

pub(super) fn read(tool: &str, output: &str) -> Read {
    read_after("", tool, "none", output)
}

#[test]
fn each_format_reads_its_example() {
    for format in TOOL_FORMATS {
        let found = read(format.name, format.example);
        let calls = found.calls();
        let first = calls.first().map(|(name, _)| *name);
        assert_eq!(first, Some("f"), "{}: {found:?}", format.name);
        assert_eq!(calls[0].1["a"], 1, "{}", format.name);
        assert_eq!((found.text.as_str(), found.warnings.len()), ("", 0), "{}: {found:?}", format.name);
        // With text before it, where that is allowed.
        let whole = matches!(format.grammar, Grammar::Blocks { blocks, .. } if blocks.iter().any(|block| block.maybe));
        if !whole {
            let found = read(format.name, &format!("Let me see.\n\n{}", format.example));
            assert_eq!((found.text.as_str(), found.calls()), ("Let me see.", calls), "{}", format.name);
        }
    }
}

#[test]
fn each_reasoning_format_is_told_from_the_answer() {
    for format in REASONING_FORMATS.iter().filter(|format| !format.messages) {
        let ReasoningFormat { name, open, close, .. } = format;
        let output = format!("{}\nWell < 3.\n\nOr?\n{close}\n\nYes. ", open[0]);
        let found = read_after("", "none", name, &output);
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Well < 3.\n\nOr?", "Yes. "), "{name}");
        // The prompt has opened it.
        let tail = format!("<|assistant|>{}\n", open[0]);
        let found = read_after(&tail, "none", name, &output[open[0].len()..]);
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Well < 3.\n\nOr?", "Yes. "), "{name}");
        let found = read_after("", "none", name, &format!("{close}\nYes. {close}"));
        assert_eq!((found.reasoning.as_str(), found.text), ("", format!("Yes. {close}")), "{name}");
        let found = read_after(&tail, "none", name, "Well");
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Well", ""), "{name}");
    }
}

#[test]
fn reasoning_answer_and_calls_follow_each_other() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let output = format!("<think>\nHm.\n</think>\n\nI call.\n{call}\n{call}\nDone.\n");
    let found = read_after("", "hermes", "think", &output);
    assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Hm.", "I call.Done.\n"));
    assert_eq!(found.calls(), vec![("f", json!({"a": 1})); 2]);
    assert_eq!(found.calls.iter().map(|call| call.index).collect::<Vec<_>>(), [0, 1]);
    assert_ne!(found.calls[0].id, found.calls[1].id);
    // Reasoning after the answer has begun is part of it; a special token is not.
    let found = read_after("", "none", "think", "a <think> b </think>");
    assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("", "a <think> b </think>"));
    let found = read_after("", "none", "mistral", "a[THINK]b[/THINK]c");
    assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("b", "ac"));
    // A call within reasoning ends it, if its mark is a special token.
    let found = read_after("<think>", "kimi_k2", "think", &format!("Hm.{}", TOOL_FORMATS[1].example));
    assert_eq!((found.reasoning.as_str(), found.calls()), ("Hm.", vec![("f", json!({"a": 1}))]));
    let found = read_after("<think>", "hermes", "think", "Hm <tool_call> is a mark");
    assert_eq!((found.reasoning.as_str(), found.calls.len()), ("Hm <tool_call> is a mark", 0));
}

#[test]
fn marks_in_json_are_text() {
    for (tool, output) in [
        ("functionary", "<function=f>{\"l\": [\"</function>\\\"\"]}</function>"),
        (
            "harmony",
            "<|channel|>commentary to=f<|message|> {\"l\": [\"</function>\\\"\"], \"b\": \"<|call|><|end|>\"}<|call|>",
        ),
        (
            "qwen3_coder",
            "<tool_call>\n<function=f>\n<parameter=l>\n[\"</function>\\\"\"]\n</parameter>\n<parameter=b>\n\"</parameter>\n</function>\n</tool_call>",
        ),
        ("qwen3_coder", "<function=f><parameter=l>[\"</function>\\\"\"]</parameter></function>"),
        (
            "glm",
            "<tool_call>f\n<arg_key>l</arg_key>\n<arg_value>[\"</function>\\\"\"]</arg_value>\n</tool_call>",
        ),
        (
            "minimax_m2",
            "<minimax:tool_call>\n<invoke name=\"f\"><parameter name=\"l\">[\"</function>\\\"\"]</parameter></invoke></minimax:tool_call>",
        ),
        (
            "deepseek_dsml",
            "<｜DSML｜function_calls><｜DSML｜invoke name=\"g\"><｜DSML｜parameter name=\"l\" string=\"false\">[\"</function>\\\"\"]</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>",
        ),
    ] {
        let marks =
            ["</function>", "</parameter>", "</arg_value>", "</tool_call>", "</｜DSML｜function_calls>"];
        for mark in marks.into_iter().chain(["</minimax:tool_call>", "<|start|>", "\n<parameter=b>"]) {
            let output = output.replace("[\"</function>", &format!("[\"{}", mark.replace('\n', "\\n")));
            let found = read(tool, &output);
            let calls = found.calls();
            assert_eq!(
                (calls.len(), &calls[0].1["l"]),
                (1, &json!([format!("{mark}\"")])),
                "{tool} {found:?}"
            );
        }
    }
    let found = read("qwen3_coder", "<function=f>\n<parameter=b>\n<parameter=a>\n</parameter>\n</function>");
    assert_eq!(found.calls(), [("f", json!({"b": "<parameter=a>"}))], "{found:?}");
    // JSON that does not end holds back no further message.
    let broken = "<|channel|>commentary to=f<|message|>{\"a<|call|>";
    let found = read("harmony", &format!("{broken}<|start|>assistant<|channel|>final<|message|>x"));
    assert_eq!((found.text, found.calls.len(), found.warnings.len()), (format!("{broken}\nx"), 0, 1));
}

#[test]
fn what_is_no_call_is_text_with_a_warning() {
    for (tool, output) in [
        ("hermes", "See: <tool_call>{\"name\": \"f\"</tool_call> so."),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>"),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": "),
        ("hermes", "<tool_call>"),
        ("hermes", "<tool_call>{\"city\": 1}</tool_call>"),
        ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\n1"),
        ("glm", "<tool_call>f\n<arg_key>a</arg_key></tool_call>"),
        ("kimi_k2", "<|tool_call_begin|>functions.f:0<|tool_call_end|>"),
        ("deepseek", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{]<｜tool▁call▁end｜>"),
        ("mistral", "[TOOL_CALLS]f[ARGS]"),
        ("gemma4", "<|tool_call>call:f{a:<|\"|>x<tool_call|>"),
        ("lfm2", "<|tool_call_start|>[f(1)]<|tool_call_end|>"),
        ("minimax_m2", "<minimax:tool_call><invoke name=\"f\"></minimax:tool_call>"),
        ("harmony", "<|start|>assistant to=functions.f<|message|>no<|call|>"),
    ] {
        let found = read(tool, output);
        assert_eq!(
            (found.text.as_str(), found.calls.len(), found.warnings.len()),
            (output, 0, 1),
            "{found:?}"
        );
        assert!(found.warnings[0].ends_with("it is in the text"), "{found:?}");
    }
    let many = "<tool_call></tool_call>x".repeat(100);
    let found = read("hermes", &many);
    assert_eq!((found.text, found.warnings.len()), (many, 16));
}

#[test]
fn json_answers_are_no_calls() {
    for answer in ["{\"name\": \"Ann\", \"parameters\": {}}", "{\"a\": 1}", "{ not JSON", "[1, 2]", "{}"] {
        for tool in ["llama3_json", "xlam", "pythonic"] {
            let found = read(tool, answer);
            assert_eq!(
                (found.text.as_str(), found.calls.len(), found.warnings.len()),
                (answer, 0, 0),
                "{tool}"
            );
        }
    }
    let two = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}";
    assert_eq!(read("llama3_json", two).calls(), [("f", json!({"a": 1})), ("g", json!({}))]);
    let call = "<|python_tag|>brave_search.call(query=\"x y\")";
    assert_eq!(read("llama3_json", call).calls(), [("brave_search", json!({"query": "x y"}))]);
}

#[test]
fn variants_of_formats() {
    for (tool, output, arguments) in [
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}", json!({"a": 1})),
        ("hermes", "<tool_call>[{\"function\": {\"name\": \"f\"}}]</tool_call>", json!({})),
        (
            "hermes",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"b\": \"</tool_call>\"}}</tool_call>",
            json!({"b": "</tool_call>"}),
        ),
        (
            "qwen3_coder",
            "<function=f>\n<parameter=b>\n1\n\n2\n</parameter>\n</function>\n</tool_call>",
            json!({"b": "1\n\n2"}),
        ),
        (
            "qwen3_coder",
            "<tool_call><function=f><parameter=b>x\n<parameter=a>\n2\n</function></tool_call>",
            json!({"b": "x", "a": 2}),
        ),
        (
            "mistral",
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 2}, \"id\": \"x\"}]",
            json!({"a": 2}),
        ),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]x[ARGS]{\"a\": 2}", json!({"a": 2})),
        ("mistral", "[TOOL_CALLS]f{\"b\": \"}\"}", json!({"b": "}"})),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 2}\n```<｜tool▁call▁end｜>",
            json!({"a": 2}),
        ),
        (
            "deepseek_dsml",
            "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"b\" string=\"true\">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
            json!({"b": "2"}),
        ),
        (
            "glm",
            "<tool_call>f<arg_key>a</arg_key><arg_value>2</arg_value><arg_key>b</arg_key><arg_value>2</arg_value></tool_call>",
            json!({"a": 2, "b": "2"}),
        ),
        (
            "gemma4",
            "<|tool_call>call:f{b:<|\"|>a}, <tool_call|>b<|\"|>,l:[1,{x:true}],o:{}}<tool_call|>",
            json!({"b": "a}, <tool_call|>b", "l": [1, {"x": true}], "o": {}}),
        ),
        ("gemma3", "```tool_code\nprint(f(a=2))\n```", json!({"a": 2})),
        (
            "lfm2",
            "<|tool_call_start|>[f(b='<|tool_call_end|>')]<|tool_call_end|>",
            json!({"b": "<|tool_call_end|>"}),
        ),
        (
            "granite",
            "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 2}}]<|/tool_call|>",
            json!({"a": 2}),
        ),
        (
            "command_r",
            "Action:```json\n[{\"tool_name\": \"f\", \"parameters\": {\"a\": 2}}]\n```",
            json!({"a": 2}),
        ),
        ("xlam", "```json\n[{\"name\": \"f\", \"arguments\": {\"a\": 2}}]\n```", json!({"a": 2})),
    ] {
        let found = read(tool, output);
        assert_eq!(
            (found.calls(), found.text.as_str()),
            (vec![("f", arguments)], ""),
            "{tool} {output}: {found:?}"
        );
    }
    let kimi =
        read("kimi_k2", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>");
    assert_eq!(kimi.calls[0].id, "functions.f:0");
    assert_eq!(read("mistral", "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{}").calls[0].id, "abc");
}

#[test]
fn messages_have_channels_and_recipients() {
    let output = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>analysis<|message|>So.<|end|>\
                  <|start|>assistant<|channel|>commentary<|message|>I call.<|end|>\
                  <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>\
                  <|start|>assistant to=functions.g<|channel|>commentary json<|message|>{}<|call|>\
                  <|start|>assistant<|channel|>final<|message|>Done < 1.<|return|>";
    for tail in ["<|start|>assistant", ""] {
        let found = read_after(tail, "harmony", "harmony", output);
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Hm.\nSo.", "I call.\nDone < 1."));
        assert_eq!(found.calls(), [("f", json!({"a": 1})), ("g", json!({}))]);
    }
    let found = read_after(
        "<|start|>assistant",
        "harmony",
        "harmony",
        " to=functions.f<|channel|>commentary<|message|>{}",
    );
    assert_eq!(found.calls(), [("f", json!({}))]);
    let found = read_after("<|start|>assistant<|channel|>analysis<|message|>", "none", "harmony", "a<|end|>");
    assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("a", ""));
    for text in ["Hello", "<", "to", "<|chan"] {
        let found = read_after("<|start|>assistant", "harmony", "harmony", text);
        assert_eq!(found.text, text);
    }
    let error = OutputFormats::new("harmony", "think").unwrap_err();
    assert_eq!(
        error.message(),
        "option reasoning_format: expected harmony or none with tool_format harmony, found think"
    );
}

#[test]
fn formats_have_names_of_their_own() {
    for names in [TOOL_FORMAT_NAMES, REASONING_FORMAT_NAMES] {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((sorted.len(), names[0], names[1]), (names.len(), AUTO, NONE));
    }
    assert!(OutputFormats::new(NONE, NONE).unwrap().is_none());
}

#[test]
fn the_documentation_has_every_format() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tools.md");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let tools = TOOL_FORMATS.iter().map(|format| (format.name, format.models));
    let reasoning = REASONING_FORMATS.iter().map(|format| (format.name, format.models));
    let expected = tools.chain(reasoning).map(|(name, models)| format!("| `{name}` | {models} |"));
    let documented: Vec<&str> = lines.into_iter().filter(|line| line.matches('|').count() == 3).collect();
    assert_eq!(documented, expected.collect::<Vec<_>>());
}

/// Ends of an assistant's turn.
const ENDS: [&str; 10] = [
    "<｜Assistant｜>",
    "<|im_end|>",
    "<|eot_id|>",
    "<｜end▁of▁sentence｜>",
    "<turn|>",
    "<|message_sep|>",
    "<|end|>",
    "</s>",
    "<|observation|>",
    "<|user|>",
];

/// What published templates write for a call is read as this call.
#[test]
fn calls_of_published_templates_come_back() {
    let Some(folder) = support::shared("conformance/chat_templates") else { return };
    let folder = std::fs::read_dir(folder).unwrap();
    let now = LocalTime { year: 2026, month: 1, day: 2, hour: 3, minute: 4, second: 5, microsecond: 0 };
    let (mut same, mut without) = (0, Vec::new());
    for entry in folder {
        let file: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let source = file["chat_template"].as_str().unwrap();
        let cases = file["cases"].as_array().unwrap();
        let of_calls = |case: &&Value| case["messages"][1]["tool_calls"].is_array();
        let Some(case) = cases.iter().find(of_calls) else { continue };
        let template = ChatTemplate::new(source, &SpecialTokens::parse(case).unwrap()).unwrap();
        let render = |count: usize, open: bool| {
            let messages = Value::from(case["messages"].as_array().unwrap()[..count].to_vec());
            let variables = case["kwargs"].as_object().cloned().unwrap_or_default();
            template.render_at(&messages, Some(&case["tools"]), open.into(), &variables, now)
        };
        let (Ok(prompt), Ok(whole)) = (render(1, true), render(2, false)) else { continue };
        let name = file["name"].as_str().unwrap_or("?").to_owned();
        if !whole.contains("celsius") || !whole[prompt.rfind("Weather").unwrap_or(0)..].contains("celsius") {
            continue;
        }
        let common = prompt.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
        let start = (0..=common).rev().find(|&at| whole.is_char_boundary(at)).unwrap();
        // No mark is cut.
        let open = whole[..start].rfind('<').filter(|&open| !whole[open..start].contains('>'));
        let start = open.unwrap_or(start);
        let mut output = whole[start..].trim_end();
        while let Some(rest) = ENDS.iter().find_map(|end| output.strip_suffix(end)) {
            output = rest.trim_end();
        }
        let (tool, reasoning) = (tool_format_of(source), reasoning_format_of(source));
        let Some(formats) = OutputFormats::new(tool, reasoning).unwrap() else {
            without.push(format!("{name}: no format"));
            continue;
        };
        let parser = || formats.parser(Tools::new(Some(&case["tools"])), 0, &whole[..start]);
        let found = read_pieces(parser(), std::iter::once(output));
        let chars = output.char_indices().map(|(at, c)| &output[at..at + c.len_utf8()]);
        assert_eq!(read_pieces(parser(), chars), found, "{name}");
        let expected = json!({"city": "Zürich", "unit": "celsius"});
        match found.calls() == [("get_weather", expected)] && found.text.trim().is_empty() {
            true => same += 1,
            false => without.push(format!("{name} ({tool}, {reasoning}): {output:?}: {found:?}")),
        }
    }
    assert!(without.is_empty() && same >= 27, "{same} the same; not: {}", without.join("\n"));
}

/// Text with marks of all formats in it, and parts of them.
fn garbage() -> impl Strategy<Value = String> {
    let mut parts: Vec<String> =
        vec![" ".into(), "\n".into(), "é".into(), "{".into(), "}".into(), "\"".into()];
    parts.extend(["[", "]", "f", "a=1", "\\", "'", "(", ")", "to=functions.f", "x"].map(str::to_owned));
    for format in TOOL_FORMATS {
        parts.extend([format.example.to_owned(), format.example.chars().take(30).collect()]);
        let marks = OutputFormats::new(format.name, NONE).unwrap().unwrap().marks();
        parts.extend(marks.iter().map(|mark| (*mark).to_owned()));
        parts.extend(marks.iter().map(|mark| mark.chars().take(3).collect()));
    }
    parts.extend(REASONING_FORMATS.iter().flat_map(|format| [format.close, "<think>"]).map(str::to_owned));
    prop::collection::vec(prop::sample::select(parts), 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn cuts_make_no_difference(
        tool in 0..TOOL_FORMATS.len(),
        reasoning in 0..REASONING_FORMATS.len(),
        output in garbage(),
        inside in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let tool = TOOL_FORMATS[tool].name;
        let reasoning = REASONING_FORMATS[reasoning];
        let reasoning = if tool == "harmony" || reasoning.messages { NONE } else { reasoning.name };
        let tail = if inside { "<think>\n" } else { "<|start|>assistant" };
        let whole = read_pieces(parser(tool, reasoning, tail), std::iter::once(output.as_str()));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(output.len() + 1)).collect();
        places.retain(|&place| output.is_char_boundary(place));
        places.extend([0, output.len()]);
        places.sort_unstable();
        let pieces = places.windows(2).map(|pair| &output[pair[0]..pair[1]]);
        prop_assert_eq!(&read_pieces(parser(tool, reasoning, tail), pieces), &whole);
        // Nothing is written that the model did not write.
        prop_assert!(whole.text.len() + whole.reasoning.len() <= output.len() + whole.text.matches('\n').count());
        for call in &whole.calls {
            prop_assert!(serde_json::from_str::<serde_json::Map<String, Value>>(&call.arguments).is_ok());
        }
    }
}
