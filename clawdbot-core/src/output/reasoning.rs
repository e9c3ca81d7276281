//! The formats of reasoning.

use super::format::ReasoningFormat;

const THINK: ReasoningFormat = ReasoningFormat {
    name: "think",
    models: "DeepSeek, Qwen 3 and later, QwQ, GLM, Kimi, MiniMax, Nemotron, SmolLM3, Olmo 3, MiMo, Step",
    template: &[&["<think>"], &["</think>"]],
    open: &["<think>"],
    close: "</think>",
    anywhere: false,
    dropped: &[],
    messages: false,
};

const HUNYUAN: ReasoningFormat = ReasoningFormat {
    name: "hunyuan",
    models: "Hunyuan",
    template: &[&["<think>", "<answer>"]],
    dropped: &["<answer>", "</answer>"],
    ..THINK
};

const ERNIE: ReasoningFormat = ReasoningFormat {
    name: "ernie",
    models: "ERNIE 4.5 with thinking",
    template: &[&["<think>", "<response>"]],
    dropped: &["<response>", "</response>"],
    ..THINK
};

const SEED: ReasoningFormat = ReasoningFormat {
    name: "seed_oss",
    models: "Seed-OSS",
    template: &[&["<seed:think>"]],
    open: &["<seed:think>"],
    close: "</seed:think>",
    ..THINK
};

const THOUGHT: ReasoningFormat = ReasoningFormat {
    name: "thought",
    models: "EXAONE Deep",
    template: &[&["<thought>"]],
    open: &["<thought>"],
    close: "</thought>",
    ..THINK
};

const KIMI_VL: ReasoningFormat = ReasoningFormat {
    name: "kimi_vl",
    models: "Kimi-VL with thinking",
    template: &[&["◁think▷"]],
    open: &["◁think▷"],
    close: "◁/think▷",
    ..THINK
};

const MISTRAL: ReasoningFormat = ReasoningFormat {
    name: "mistral",
    models: "Magistral, Ministral 3 with reasoning",
    template: &[&["[THINK]"]],
    open: &["[THINK]"],
    close: "[/THINK]",
    anywhere: true,
    ..THINK
};

const GRANITE: ReasoningFormat = ReasoningFormat {
    name: "granite",
    models: "Granite 3.2",
    template: &[&["Here is my thought process:"]],
    open: &["Here is my thought process:", "Here's my thought process:"],
    close: "Here is my response:",
    ..THINK
};

const APRIEL: ReasoningFormat = ReasoningFormat {
    name: "apriel",
    models: "Apriel",
    template: &[&["[BEGIN FINAL RESPONSE]"]],
    open: &["Here are my reasoning steps:"],
    close: "[BEGIN FINAL RESPONSE]",
    dropped: &["[END FINAL RESPONSE]"],
    ..THINK
};

const GEMMA4: ReasoningFormat = ReasoningFormat {
    name: "gemma4",
    models: "Gemma 4",
    template: &[&["<|channel>thought"]],
    open: &["<|channel>thought\n", "<|channel>thought"],
    close: "<channel|>",
    anywhere: true,
    ..THINK
};

const COMMAND: ReasoningFormat = ReasoningFormat {
    name: "command",
    models: "Command A with reasoning",
    template: &[&["<|START_THINKING|>"]],
    open: &["<|START_THINKING|>"],
    close: "<|END_THINKING|>",
    anywhere: true,
    dropped: &["<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"],
    ..THINK
};

const APERTUS: ReasoningFormat = ReasoningFormat {
    name: "apertus",
    models: "Apertus",
    template: &[&["<|inner_prefix|>"]],
    open: &["<|inner_prefix|>"],
    close: "<|inner_suffix|>",
    anywhere: true,
    ..THINK
};

const HARMONY: ReasoningFormat = ReasoningFormat {
    name: "harmony",
    models: "gpt-oss",
    template: &[&["<|channel|>", "analysis"]],
    open: &[],
    close: "",
    messages: true,
    ..THINK
};

/// Every format. Of those that a template has the marks of, the first one is its own.
pub(super) const REASONING_FORMATS: &[&ReasoningFormat] = &[
    &HARMONY, &GEMMA4, &COMMAND, &APERTUS, &MISTRAL, &SEED, &APRIEL, &GRANITE, &KIMI_VL, &HUNYUAN, &ERNIE,
    &THOUGHT, &THINK,
];
