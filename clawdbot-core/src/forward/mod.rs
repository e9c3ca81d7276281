//! The forward pass: a batch of tokens through all layers, over packed weights and the pages of the cache.

pub(crate) mod adapter;
pub(crate) mod attention;
pub(crate) mod batch;
pub(crate) mod blocks;
pub(crate) mod decoder;
pub(crate) mod layer_inputs;
pub(crate) mod mixers;
pub(crate) mod moe;
pub(crate) mod pooling;
pub(crate) mod rope;
pub(crate) mod routing;
pub(crate) mod scratch;
pub(crate) mod states;
#[cfg(test)]
pub(crate) mod trap;
