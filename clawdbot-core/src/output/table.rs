//! The table of formats: their names, and how a chat template tells which ones its model writes.

use super::format::{Block, Grammar, ReasoningFormat, ToolFormat};
use super::formats::{
    action, apertus, deepseek, function_tags, gemma, glm, invoke, json, kimi, llama, mistral, pythonic,
};
use super::harmony::{self, MARKS};
use super::reasoning::REASONING_FORMATS;
use super::writing::{Part, Writing};

/// gpt-oss.
const HARMONY: ToolFormat = ToolFormat {
    name: "harmony",
    models: "gpt-oss",
    example: "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
    template: &[&["<|channel|>", "functions."]],
    inner: &[],
    writing: Some(Writing {
        open: "<|channel|>commentary to=functions.",
        mark: "",
        before: harmony::messages_before,
        call: |function| {
            let open = Part::text(format!("{} <|constrain|>json<|message|>", function.name));
            Ok(vec![open, Part::Json(function.parameters.clone())])
        },
        between: None,
        close: "",
    }),
    grammar: Grammar::Messages,
};

/// Every format. Of those that a template has the marks of, the first one is its own.
pub(super) const TOOL_FORMATS: &[&ToolFormat] = &[
    &HARMONY,
    &kimi::KIMI,
    &invoke::DEEPSEEK_DSML,
    &invoke::MINIMAX_M2,
    &deepseek::DEEPSEEK,
    &gemma::GEMMA4,
    &gemma::FUNCTION_GEMMA,
    &mistral::MISTRAL,
    &action::COMMAND,
    &apertus::APERTUS,
    &pythonic::LFM2,
    &json::INTERNLM,
    &json::GIGACHAT,
    &function_tags::SEED_OSS,
    &glm::GLM,
    &function_tags::QWEN3_CODER,
    &json::NEMOTRON,
    &json::LONGCAT,
    &json::TOOL_CALLS,
    &pythonic::OLMO3,
    &json::GRANITE,
    &json::HERMES,
    &function_tags::FUNCTIONARY,
    &pythonic::PYTHONIC,
    &llama::LLAMA3,
    &json::FUNCTOOLS,
    &action::COMMAND_R,
    &json::XLAM,
    &pythonic::GEMMA3,
];

/// The value of both options that lets the chat template decide.
pub(crate) const AUTO: &str = "auto";
/// The value of both options that leaves the output as it is.
pub(crate) const NONE: &str = "none";

const TOOL_NAMES: [&str; TOOL_FORMATS.len() + 2] = {
    let mut names = [AUTO; TOOL_FORMATS.len() + 2];
    names[1] = NONE;
    let mut at = 0;
    while at < TOOL_FORMATS.len() {
        names[at + 2] = TOOL_FORMATS[at].name;
        at += 1;
    }
    names
};

const REASONING_NAMES: [&str; REASONING_FORMATS.len() + 2] = {
    let mut names = [AUTO; REASONING_FORMATS.len() + 2];
    names[1] = NONE;
    let mut at = 0;
    while at < REASONING_FORMATS.len() {
        names[at + 2] = REASONING_FORMATS[at].name;
        at += 1;
    }
    names
};

/// What the option `tool_format` takes.
pub(crate) const TOOL_FORMAT_NAMES: &[&str] = &TOOL_NAMES;
/// What the option `reasoning_format` takes.
pub(crate) const REASONING_FORMAT_NAMES: &[&str] = &REASONING_NAMES;

fn has(template: &str, marks: &[&[&str]]) -> bool {
    marks.iter().any(|all| all.iter().all(|mark| template.contains(mark)))
}

/// The name of the format in which the model of a chat template writes calls, or `none`.
pub(crate) fn tool_format_of(template: &str) -> &'static str {
    TOOL_FORMATS.iter().find(|format| has(template, format.template)).map_or(NONE, |format| format.name)
}

/// The name of the format in which the model of a chat template writes its reasoning, or `none`.
pub(crate) fn reasoning_format_of(template: &str) -> &'static str {
    REASONING_FORMATS.iter().find(|format| has(template, format.template)).map_or(NONE, |format| format.name)
}

/// Formats of calls and of reasoning that go together, with an output in them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn output_examples() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    TOOL_FORMATS.iter().enumerate().map(|(at, tool)| {
        let others = REASONING_FORMATS.iter().filter(|format| !format.messages);
        let reasoning = match tool.grammar {
            Grammar::Messages => REASONING_FORMATS.iter().find(|format| format.messages),
            Grammar::Blocks { .. } => others.cycle().nth(at),
        };
        let Some(reasoning) = reasoning else { return (tool.name, NONE, tool.example.to_owned()) };
        let open = reasoning.open.first().copied().unwrap_or_default();
        (tool.name, reasoning.name, format!("{open}Hm.{}{}", reasoning.close, tool.example))
    })
}

pub(super) fn tool_format(name: &str) -> Option<&'static ToolFormat> {
    TOOL_FORMATS.iter().find(|format| format.name == name).copied()
}

pub(super) fn reasoning_format(name: &str) -> Option<&'static ReasoningFormat> {
    REASONING_FORMATS.iter().find(|format| format.name == name).copied()
}

/// The marks of a format's calls, with the special tokens that they may be.
pub(super) fn marks_of(format: &'static ToolFormat) -> Vec<&'static str> {
    let mut marks = format.inner.to_vec();
    match format.grammar {
        Grammar::Blocks { blocks, dropped } => {
            marks.extend(blocks.iter().flat_map(Block::marks));
            marks.extend_from_slice(dropped);
        }
        Grammar::Messages => marks.extend_from_slice(MARKS),
    }
    with_tokens(marks)
}

/// `marks` that have text. Of a mark that goes on after a special token, this token too.
pub(super) fn with_tokens(mut marks: Vec<&'static str>) -> Vec<&'static str> {
    let tokens: Vec<&str> = marks.iter().filter_map(|mark| mark.get(..=mark.find('>')?)).collect();
    marks.extend(tokens);
    marks.retain(|mark| !mark.is_empty());
    marks
}
