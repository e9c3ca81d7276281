//! The forward pass: a batch of tokens through all layers, over packed weights and the pages of the cache.

pub(crate) mod adapter;
pub(crate) mod batch;
pub(crate) mod blocks;
pub(crate) mod cpu;
pub(crate) mod decoder;
pub(crate) mod dense;
pub(crate) mod head;
pub(crate) mod layer_inputs;
pub(crate) mod linear;
pub(crate) mod mixers;
pub(crate) mod moe;
pub(crate) mod mtp;
pub(crate) mod ops;
pub(crate) mod pooling;
pub(crate) mod recurrence;
pub(crate) mod rope;
pub(crate) mod routing;
pub(crate) mod scratch;
pub(crate) mod streams;
#[cfg(test)]
pub(crate) mod trap;
