//! Takes a text through layers one after another, some whole sequences at a time.

use std::ops::Range;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::calibration::Text;
use crate::cache::{KvCache, LayerState, PageTables};
use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::{Cpu, Watcher};
use crate::forward::decoder::{DecoderLayer, ForwardContext, Layers, Pass};
use crate::forward::scratch::Scratch;
use crate::options::KvType;
use crate::runtime::Runtime;
use crate::spec::{DecoderSpec, KeySource};

/// The passes of a text through a layer. Their keys, values and states are those of one layer at a time.
pub(crate) struct Passes {
    cache: KvCache,
    tables: Vec<PageTables>,
    /// Tokens of a sequence, and sequences
    length: usize,
    count: usize,
    /// Sequences of a pass
    at_once: usize,
}

impl Passes {
    /// Passes of at most `most` tokens, or a sequence.
    ///
    /// # Errors
    /// `UnsupportedModel` for layers that read more than the layer before them; as [`KvCache::new`].
    pub(crate) fn new(
        runtime: &Runtime,
        spec: &DecoderSpec,
        kv: KvType,
        text: &Text,
        most: usize,
    ) -> Result<Self> {
        if spec.per_layer_inputs.is_some()
            || spec.streams.is_some()
            || spec.layers.iter().any(|layer| matches!(layer.keys, KeySource::Layer(_)))
        {
            return Err(Error::unsupported_model(
                "expected layers that read the layer before them alone; this architecture's layers share more",
            ));
        }
        Ok(Passes {
            cache: KvCache::new(kv, &in_one_place(&spec.layer_states()), runtime.budget())?,
            tables: Vec::new(),
            length: text.length,
            count: text.tokens.len() / text.length,
            at_once: (most / text.length).max(1),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.div_ceil(self.at_once)
    }

    /// Tokens of a pass, at most.
    pub(crate) fn most_tokens(&self) -> usize {
        self.at_once.min(self.count) * self.length
    }

    /// The tokens of pass `index`.
    pub(crate) fn tokens(&self, index: usize) -> Range<usize> {
        let first = index * self.at_once;
        first * self.length..(first + self.at_once).min(self.count) * self.length
    }

    /// Bytes of keys, values and states; none on overflow.
    pub(crate) fn cache_bytes(&self) -> Option<u64> {
        let tokens = self.length.checked_next_multiple_of(PAGE_TOKENS)? as u64;
        let sequence =
            self.cache.bytes_per_token().checked_mul(tokens)?.checked_add(self.cache.state_bytes())?;
        sequence.checked_mul(self.at_once.min(self.count) as u64)
    }

    /// Calls `f` with the tokens of pass `index`.
    ///
    /// # Errors
    /// As `f`; `OutOfBudget` for pages.
    pub(crate) fn run<R>(
        &mut self,
        runtime: &Runtime,
        text: &Text,
        index: usize,
        f: impl FnOnce(InPass<'_>) -> Result<R>,
    ) -> Result<R> {
        let tokens = self.tokens(index);
        if self.cache.state_bytes() > 0 {
            // Every pass begins with states of zeros.
            self.tables.drain(..).for_each(|mut tables| self.cache.release_all(&mut tables));
        }
        while self.tables.len() < tokens.len() / self.length {
            let mut tables = PageTables::default();
            self.cache.grow(&mut tables, self.length)?;
            self.tables.push(tables);
        }
        let mut batch = Batch::new();
        for (tokens, tables) in text.tokens[tokens].chunks_exact(self.length).zip(&self.tables) {
            batch.push_of(self.length, tokens, 0, 0, tables);
        }
        let (kernels, cache) = (runtime.kernel_set(), &mut self.cache);
        runtime.pool().region(|region| {
            let ops = &Cpu { kernels, region, adapters: None, watcher: None };
            f(InPass { ops, batch: &batch, cache })
        })?
    }
}

/// States of layers that are never there at the same time: those of one kind share a place.
fn in_one_place(states: &[LayerState]) -> Vec<LayerState> {
    let first = |state: &LayerState| states.iter().position(|other| other == state);
    states
        .iter()
        .enumerate()
        .map(|(layer, state)| match first(state) {
            Some(first) if first < layer => LayerState::Shared { layer: first },
            _ => *state,
        })
        .collect()
}

/// Some sequences on their way through a layer, inside a region of the thread pool.
pub(crate) struct InPass<'a> {
    pub(crate) ops: &'a Cpu<'a>,
    pub(crate) batch: &'a Batch<'a>,
    cache: &'a mut KvCache,
}

impl InPass<'_> {
    /// Runs the residual stream in `scratch.hidden` through the layer with number `number`.
    ///
    /// # Errors
    /// `Cancelled`; as [`Layers::forward`].
    pub(crate) fn through(
        &mut self,
        spec: &DecoderSpec,
        number: usize,
        layer: &DecoderLayer,
        watcher: Option<&dyn Watcher>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let ops = &Cpu { watcher, adapters: None, ..*self.ops };
        let layers = Layers { spec, layers: std::slice::from_ref(layer), first: number };
        let context = ForwardContext {
            ops,
            cache: &mut *self.cache,
            scratch,
            #[cfg(test)]
            trap: None,
        };
        match layers.forward(context, self.batch)? {
            Pass::Done => Ok(()),
            Pass::Cancelled => Err(cancelled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_one_kind_share_a_place() {
        let full = LayerState::Attention { window: None, kv_heads: 2, head_dim: 16 };
        let local = LayerState::Attention { window: Some(8), kv_heads: 2, head_dim: 16 };
        let state = LayerState::Recurrent { floats: 4 };
        let states = in_one_place(&[local, full, local, state, full, state]);
        let shared = |layer| LayerState::Shared { layer };
        assert_eq!(states, [local, full, shared(0), state, shared(1), shared(3)]);
    }
}
