//! The configuration of a GGUF file, made from its metadata. What differs from Llama is a row in the file of each
//! family.
//!
//! Source: the converter and the model definitions of <https://github.com/ggml-org/llama.cpp>, and its `gguf` package.
//! GGUF files store gains with their offset added, and the tensors of all experts as one.

mod encoders;
mod family;
mod fields;
mod keys;
mod metadata;

pub(crate) use family::GgufFamily;
pub(crate) use fields::{
    DefaultThetas, dense, expert_size, experts, pattern, shared_experts, sigmoid, two_rotations, value_length,
};
pub(crate) use keys::{
    CLASSIFIER, Config, EXPERT_SIZE, FEED_FORWARD, GATING, Keys, LAYER_INPUT, LOCAL_THETA, PATTERN,
    PREDICTING_LAYERS, SHARED_KEYS, SHARED_SIZE, WINDOW, extend,
};
pub(crate) use metadata::{config_json, generation_json, is_read};

/// Norms before and after attention and MLP.
pub(crate) const SANDWICH: &[(&str, &str)] = &[("post_attention_layernorm", "post_attention_norm")];
