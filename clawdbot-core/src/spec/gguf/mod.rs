//! The configuration in the metadata of GGUF files. What of each architecture differs from Llama is a row in its family's
//! file.
//!
//! Source: the converter and the model definitions of <https://github.com/ggml-org/llama.cpp>, and its `gguf` package.
//! Gains that checkpoints store less one are stored whole, tensors of experts one after another.

mod encoders;
mod fields;
mod gemma4;
mod metadata;

use serde_json::{Map, Value};

pub(crate) use encoders::*;
pub(crate) use fields::*;
pub(crate) use gemma4::*;
pub(crate) use metadata::{
    EXPERT_SIZE, GgufFamily, PREDICTING_LAYERS, config_json, extend, generation_json, is_read,
};

pub(crate) type Config = Map<String, Value>;

/// Norms on both sides of attention.
pub(crate) const SANDWICH: &[(&str, &str)] = &[("post_attention_layernorm", "post_attention_norm")];

pub(crate) const SHARED_SIZE: &str = "expert_shared_feed_forward_length";
pub(crate) const WINDOW: &str = "attention.sliding_window";
pub(crate) const PATTERN: &str = "attention.sliding_window_pattern";
/// Base of the rotation on layers with a window.
pub(crate) const LOCAL_THETA: &str = "rope.freq_base_swa";
