//! One file per architecture: `config.json` -> `DecoderSpec`.

pub(super) mod llama;
pub(super) mod mistral;
pub(super) mod qwen2;
pub(super) mod qwen3;
