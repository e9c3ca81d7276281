//! Models as data: configuration -> `DecoderSpec` -> tensor names.

mod arch;
mod config;
mod registry;
mod rope_scaling;
mod spec;
mod tensors;

#[cfg(test)]
mod tests;
