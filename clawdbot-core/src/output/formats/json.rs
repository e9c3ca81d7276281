//! Calls as JSON between marks: `{"name", "arguments"}`, or a list of those.

use crate::output::call::Calls;
use crate::output::format::{Block, End, Grammar, Quotes, ToolFormat};
use crate::output::tools::Tools;
use crate::output::value;
use crate::output::writing::{Writing, with_arguments, with_parameters};

fn read(text: &str, _: &Tools) -> Calls {
    value::calls(text)
}

const fn between(open: &'static str, close: &'static str) -> Block {
    Block::between(open, close, Quotes::Json, read, value::begin_calls)
}

pub(in crate::output) const HERMES: ToolFormat = ToolFormat {
    name: "hermes",
    models: "Hermes 2 and 3, Qwen 2.5 and 3, QwQ, SmolLM3, Granite 4, EXAONE 4, MiMo, Bielik, ERNIE 4.5",
    example: r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#,
    template: &[&["<tool_call>"]],
    inner: &[],
    writing: Writing::blocks(
        ["<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"],
        "<tool_call>",
        with_arguments,
    ),
    grammar: Grammar::Blocks { blocks: &[between("<tool_call>", "</tool_call>")], dropped: &[] },
};

pub(in crate::output) const TOOL_CALLS: ToolFormat = ToolFormat {
    name: "tool_calls",
    models: "Apriel, Hunyuan, Jamba, MiniMax M1",
    example: r#"<tool_calls>[{"name": "f", "arguments": {"a": 1}}]</tool_calls>"#,
    template: &[&["<tool_calls>"]],
    inner: &[],
    writing: Writing::blocks(["<tool_calls>[", ", ", "]</tool_calls>"], "<tool_calls>", with_arguments),
    grammar: Grammar::Blocks { blocks: &[between("<tool_calls>", "</tool_calls>")], dropped: &[] },
};

pub(in crate::output) const NEMOTRON: ToolFormat = ToolFormat {
    name: "nemotron",
    models: "Nemotron Nano v2",
    example: r#"<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>"#,
    template: &[&["<TOOLCALL>"]],
    inner: &[],
    writing: Writing::blocks(["<TOOLCALL>[", ", ", "]</TOOLCALL>"], "<TOOLCALL>", with_arguments),
    grammar: Grammar::Blocks { blocks: &[between("<TOOLCALL>", "</TOOLCALL>")], dropped: &[] },
};

pub(in crate::output) const LONGCAT: ToolFormat = ToolFormat {
    name: "longcat",
    models: "LongCat Flash",
    example: r#"<longcat_tool_call>{"name": "f", "arguments": {"a": 1}}</longcat_tool_call>"#,
    template: &[&["<longcat_tool_call>"]],
    inner: &[],
    writing: Writing::blocks(
        ["<longcat_tool_call>", "</longcat_tool_call>\n<longcat_tool_call>", "</longcat_tool_call>"],
        "<longcat_tool_call>",
        with_arguments,
    ),
    grammar: Grammar::Blocks {
        blocks: &[between("<longcat_tool_call>", "</longcat_tool_call>")],
        dropped: &[],
    },
};

pub(in crate::output) const GRANITE: ToolFormat = ToolFormat {
    name: "granite",
    models: "Granite 3, Phi-4-mini",
    example: r#"<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]"#,
    template: &[&["<|tool_call|>"]],
    inner: &[],
    writing: Writing::blocks(["<|tool_call|>[", ", ", "]"], "<|tool_call|>", with_arguments),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::value("<|tool_call|>", read, value::begin_calls).special(),
            between("<tool_call>", "</tool_call>"),
        ],
        dropped: &["<|/tool_call|>"],
    },
};

pub(in crate::output) const FUNCTOOLS: ToolFormat = ToolFormat {
    name: "functools",
    models: "Firefunction 2, Phi-4-mini",
    example: r#"functools[{"name": "f", "arguments": {"a": 1}}]"#,
    template: &[&["functools["], &["functools", "tool_calls"]],
    inner: &[],
    writing: Writing::blocks(["functools[", ", ", "]"], "functools[", with_arguments),
    grammar: Grammar::Blocks { blocks: &[Block::value("functools", read, value::begin_calls)], dropped: &[] },
};

pub(in crate::output) const INTERNLM: ToolFormat = ToolFormat {
    name: "internlm",
    models: "InternLM 2 and 2.5",
    example: r#"<|action_start|><|plugin|>{"name": "f", "parameters": {"a": 1}}<|action_end|>"#,
    template: &[&["<|action_start|>"]],
    inner: &["<|plugin|>"],
    writing: Writing::single(
        "<|action_start|><|plugin|>\n",
        "<|action_end|>",
        "<|action_start|>",
        with_parameters,
    ),
    grammar: Grammar::Blocks {
        blocks: &[between("<|action_start|><|plugin|>", "<|action_end|>").special()],
        dropped: &[],
    },
};

pub(in crate::output) const GIGACHAT: ToolFormat = ToolFormat {
    name: "gigachat",
    models: "GigaChat 3",
    example: r#"<|function_call|>{"name": "f", "arguments": {"a": 1}}"#,
    template: &[&["<|function_call|>"], &["function call", "<|role_sep|>"]],
    inner: &["<|role_sep|>"],
    writing: Writing::single("<|function_call|>", "", "<|function_call|>", with_arguments),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::value("<|function_call|>", read, value::begin_calls).special(),
            Block::value("function call<|role_sep|>", read, value::begin_calls).special(),
        ],
        dropped: &["<|message_sep|>"],
    },
};

pub(in crate::output) const XLAM: ToolFormat = ToolFormat {
    name: "xlam",
    models: "xLAM 2",
    example: r#"[{"name": "f", "arguments": {"a": 1}}]"#,
    template: &[&["Output the function call in the format", "[{\"name\":"], &["xLAM"]],
    inner: &[],
    writing: Writing::blocks(["[", ", ", "]"], "[", with_arguments),
    grammar: Grammar::Blocks {
        blocks: &[
            Block::whole("[", read, value::begin_calls),
            Block {
                end: End::Mark("```"),
                quotes: Quotes::Json,
                ..Block::whole("```json", read, value::begin_calls)
            },
            between("<tool_call>", "</tool_call>"),
            Block::value("[TOOL_CALLS]", read, value::begin_calls),
        ],
        dropped: &[],
    },
};
