//! The parsers of untrusted files as fuzz targets, their seeds, and mutations.

pub mod mutate;
pub mod pipelines;
pub mod rng;
pub mod seeds;
pub mod shapes;

use clawdbot_core::{Result, fuzz_support as core};

/// A parser under test.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> Result<()>,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Of 100 runs over all targets, this many.
    pub share: u32,
    /// Whether inputs are text.
    pub text: bool,
}

/// Every parser: the only list.
pub const TARGETS: &[Target] = &[
    Target { name: "gguf", run: core::gguf, seeds: seeds::gguf, share: 25, text: false },
    Target { name: "safetensors", run: core::safetensors, seeds: seeds::safetensors, share: 12, text: false },
    Target { name: "index", run: core::index, seeds: seeds::index, share: 8, text: true },
    Target { name: "config", run: core::config, seeds: seeds::config, share: 17, text: true },
    Target { name: "tokenizer", run: core::tokenizer, seeds: seeds::tokenizer, share: 5, text: true },
    Target { name: "pipeline", run: pipelines::run, seeds: pipelines::seeds, share: 5, text: false },
    Target { name: "packed", run: core::packed, seeds: seeds::packed, share: 13, text: false },
    Target { name: "session", run: core::session, seeds: seeds::session, share: 2, text: false },
    Target { name: "tables", run: core::tables, seeds: seeds::tables, share: 3, text: false },
    Target { name: "template", run: core::template, seeds: seeds::template, share: 5, text: true },
    Target { name: "output", run: core::output, seeds: core::output_seeds, share: 5, text: true },
];
