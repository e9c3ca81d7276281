//! The residual stream of a model after each layer, for comparison with another implementation: no public interface.
#![allow(missing_docs, reason = "for the tools of this repository only")]

use crate::cache::{KvCache, PageTables};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::Cpu;
use crate::forward::decoder::ForwardContext;
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::source::{Opened, Source};
use crate::options::{KvType, ModelOptions, RuntimeOptions, WeightType};
use crate::runtime::{Budget, Runtime};

/// Calls `each(n, states)` with the residual stream, `[tokens, hidden_size]`, after `n` layers, for n from all layers down
/// to none. After all layers it has gone through the last norm, as transformers gives it. All is computed in f32.
///
/// # Errors
/// As [`Runtime::load`]; `InvalidArgument` for tokens outside of the vocabulary.
pub fn trace(source: &Source, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    let runtime = Runtime::new(&RuntimeOptions::default())?;
    let opened = Opened::open_with(source, &ModelOptions::default(), &mut |_, _| true)?;
    let spec = opened.spec.clone();
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= spec.vocab_size) {
        let vocab = spec.vocab_size;
        return Err(Error::invalid_argument(format!("expected tokens below {vocab}, found {token}")));
    }
    let states = spec.layer_states();
    let builder = Builder {
        kernels: runtime.kernel_set(),
        pool: runtime.pool(),
        weights: &opened.weights,
        last: None,
        mapped: None,
        weight_type: WeightType::F32,
        progress: &mut |_, _| true,
        done: 0,
        total: 0,
        ready: Default::default(),
        vectors: Default::default(),
    };
    let mut decoder = { builder }.build(spec)?;
    loop {
        let mut cache = KvCache::new(KvType::F32, &states, &Budget::new(None))?;
        let mut tables = PageTables::default();
        cache.grow(&mut tables, tokens.len())?;
        let mut batch = Batch::new();
        batch.push(tokens, 0, 0, &tables);
        batch.state_rows.extend(0..tokens.len());
        let mut scratch = Scratch::default();
        runtime.pool().region(|region| {
            let ops = &Cpu { kernels: runtime.kernel_set(), region, adapters: None, watcher: None };
            let context = ForwardContext {
                ops,
                cache: &mut cache,
                scratch: &mut scratch,
                #[cfg(test)]
                trap: None,
            };
            decoder.forward(context, &batch)
        })??;
        each(decoder.layers.len(), &scratch.states[..tokens.len() * decoder.spec.hidden_size]);
        decoder.norm = None;
        if decoder.layers.pop().is_none() {
            return Ok(());
        }
    }
}
