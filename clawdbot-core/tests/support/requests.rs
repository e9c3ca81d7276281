//! Models, prompts and what is compared of completions. Apart from `mod.rs`, which the library's own tests use too.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a module of each test crate, which exports nothing and uses some"
)]

use clawdbot_core::{Completion, GenerateOptions, Model, ModelOptions, Runtime, RuntimeOptions, Source};

/// A model on a runtime of its own, with a memory budget or without.
pub fn load(source: &Source, budget: Option<u64>, options: &ModelOptions) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).memory_budget(budget);
    Runtime::new(&runtime).unwrap().load(source, options).unwrap()
}

/// Tokens that every fixture has.
pub fn prompt(length: usize, salt: u32) -> Vec<u32> {
    (0..length as u32).map(|i| 3 + (i * 37 + salt * 101) % 500).collect()
}

/// So many tokens, and what [`bits`] compares.
pub fn greedy(tokens: u32) -> GenerateOptions {
    GenerateOptions::default().max_tokens(tokens).temperature(0.0).ignore_eos(true).logprobs(3_u32)
}

/// Tokens, and the bits of their log-probabilities.
pub fn bits(completion: &Completion) -> (Vec<u32>, Vec<u32>) {
    let logprobs = completion.logprobs.as_ref().unwrap();
    let all = logprobs.iter().flat_map(|entry| entry.top.iter().map(|top| top.logprob.to_bits()));
    (completion.token_ids.clone(), all.collect())
}
