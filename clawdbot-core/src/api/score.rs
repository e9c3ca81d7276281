//! Logits and states of given tokens.

use super::model::Model;
use super::session::{Prompt, Session, Wanted, overflow};
use crate::cancel::{CancelHandle, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::zeroed_rows;
use crate::forward::pooling::Pooler;
use crate::tokenizer::AddSpecialTokens;

impl Model {
    /// Logits at every position of `tokens`: `[tokens.len(), vocab_size]`, row-major.
    ///
    /// # Errors
    /// `EmptyPrompt`, `ContextOverflow`, `InvalidArgument` for a token outside the vocabulary, `Closed`,
    /// `OutOfBudget`, `ForkedRuntime`.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.logits_with(tokens, None)
    }

    /// As [`Model::logits_with`], but stops when `cancel` is cancelled, within a layer of the model.
    ///
    /// # Errors
    /// As [`Model::logits_with`]; `Cancelled`.
    pub fn logits_until(
        &self,
        tokens: &[u32],
        adapter: Option<&str>,
        cancel: &CancelHandle,
    ) -> Result<Vec<f32>> {
        let adapter = self.loaded()?.adapter(adapter)?;
        let mut session = Session::once(self.generating()?)?;
        session.append(Prompt::Tokens(tokens.to_vec()), AddSpecialTokens::No)?;
        let mut scores = Vec::new();
        let no_memory = || {
            let vocab = self.info().vocab_size;
            let message = format!("there is no memory for the logits, {} x {vocab} floats", tokens.len());
            Error::new(ErrorKind::OutOfBudget, message)
        };
        let size = tokens.len().checked_mul(self.info().vocab_size).ok_or_else(no_memory)?;
        let _reservation = self.loaded()?.when_there_is_room(cancel, || {
            self.0.runtime.budget().reserve_growing(4 * size as u64, "the logits")
        })?;
        scores.try_reserve_exact(size).map_err(|_| no_memory())?;
        session.score(scores, size, adapter, cancel)
    }

    /// As [`Model::logits`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::logits`]; `InvalidArgument` for an adapter that is not loaded.
    pub fn logits_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Vec<f32>> {
        self.logits_until(tokens, adapter, &CancelHandle::default())
    }

    /// The states after the last norm at every position of `tokens`: `[tokens.len(), hidden_size]`, row-major. Of a model
    /// that generates, they are what the output head reads; of one that embeds, what is pooled.
    ///
    /// # Errors
    /// As [`Model::logits`].
    pub fn hidden_states(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.hidden_states_with(tokens, None)
    }

    /// As [`Model::hidden_states`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::logits_with`].
    pub fn hidden_states_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Vec<f32>> {
        let loaded = self.loaded()?;
        let adapter = loaded.adapter(adapter)?;
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::EmptyPrompt, "expected at least one token"));
        }
        if tokens.len() > loaded.max_context {
            return Err(overflow(tokens.len(), Wanted::Nothing, loaded.max_context));
        }
        let hidden = loaded.decoder.spec.hidden_size;
        // What overflows is refused here or by `floats`.
        let size = tokens.len().saturating_mul(hidden);
        let bytes = (size as u64).saturating_mul(4);
        let _reservation = loaded.when_there_is_room(&CancelHandle::default(), || {
            self.0.runtime.budget().reserve_growing(bytes, "the hidden states")
        })?;
        let mut room = zeroed_rows(tokens.len(), hidden)?;
        room.clear();
        let session = Session::once(loaded)?;
        let states = session
            .pool(tokens.to_vec(), Vec::new(), Pooler::every(room), adapter, Ticket::default())?
            .pooled()?;
        match states.len() == size {
            true => Ok(states),
            false => Err(Error::internal(format!("expected {size} states, found {}", states.len()))),
        }
    }
}
