//! Models: configuration -> `DecoderSpec` -> weights -> decoder, and the public handle to all of it.

mod adapter;
mod arch;
pub(crate) mod batch;
mod blocks;
pub(crate) mod build;
mod chat;
mod check;
pub(crate) mod config;
mod config_keys;
pub(crate) mod decoder;
mod delta_net;
mod embed;
pub(crate) mod embedding;
pub(crate) mod files;
mod generate;
pub(crate) mod generation;
mod gguf;
mod handle;
mod judge;
mod layer_inputs;
mod load;
mod load_cache;
mod mamba;
mod mixer;
mod mixer_names;
mod mla;
mod moe;
mod mxfp4;
mod name_pattern;
mod names;
mod pack;
mod parts;
mod plan;
pub(crate) mod pooling;
mod quantization;
mod recurrence;
pub(crate) mod registry;
pub(crate) mod rope_scaling;
mod routing;
mod score;
pub(crate) mod scratch;
mod short_conv;
pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod tensors;

pub(crate) use adapter::Adapter;
pub use chat::Chat;
pub use embed::{EmbeddingInfo, Embeddings, Faults};
#[cfg(feature = "hub")]
pub(crate) use files::MODEL_FILES;
pub(crate) use handle::{Loaded, last_event, no_tokenizer};
pub use handle::{Model, ModelInfo};
pub use plan::{Plan, StoredMatrices};
pub use source::Source;
#[cfg(test)]
mod study;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod trap;
