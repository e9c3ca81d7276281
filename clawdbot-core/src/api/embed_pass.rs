//! Texts on their way through the model.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::items::{Faults, Item};
use super::loaded::Loaded;
use super::session::{Session, Stream};
use crate::cancel::{CancelHandle, Progress, cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::zeroed_rows;
use crate::forward::pooling::Pooler;

/// Sequences that are under way, in units of those of a forward pass.
const PASSES_AHEAD: usize = 2;

/// Tokens whose states become one.
pub(super) struct Input {
    pub(super) tokens: Vec<u32>,
    /// Empty: 0 for all.
    pub(super) types: Vec<u32>,
    pub(super) pooler: Pooler,
}

/// What becomes of the other texts when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFault {
    /// They are given up.
    Stop,
    /// They are computed.
    Continue,
}

/// Texts on their way through the model, and what went wrong with some.
pub(super) struct Pass<'a, E> {
    pub(super) loaded: &'a Arc<Loaded>,
    /// What errors call the text at a place.
    pub(super) item: fn(usize) -> Item,
    pub(super) on_fault: OnFault,
    pub(super) cancel: &'a CancelHandle,
    pub(super) faults: Faults<E>,
}

impl<E: From<Error>> Pass<'_, E> {
    /// The pooled state of each input, `[count, hidden_size]`; zeros for those that fail. Some are under way at a time, so
    /// that they share forward passes.
    pub(super) fn all(
        &mut self,
        mut inputs: impl Iterator<Item = Result<Result<Input>, E>>,
        count: usize,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<f32>> {
        let hidden = self.loaded.decoder.spec.hidden_size;
        let mut states = zeroed_rows(count, hidden)?;
        let most = PASSES_AHEAD * self.loaded.bounds.max_batch() as usize;
        let mut running: VecDeque<Option<Stream>> = VecDeque::new();
        // With a bounded queue, no more than may wait: the others begin as these end.
        let most = self.loaded.options.max_queue.map_or(most, |queue| most.min(queue as usize));
        let mut started = 0;
        for (done, out) in states.chunks_exact_mut(hidden).enumerate() {
            while running.len() < most
                && let Some(input) = inputs.next()
            {
                let begun = input.and_then(|input| self.begin(started, input));
                running.push_back(begun.map_err(|error| self.faults.insert(started, error)).ok());
                started += 1;
                if self.is_over() {
                    return Ok(states);
                }
            }
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            let Some(next) = running.pop_front() else { break };
            if let Some(stream) = next {
                match stream.pooled() {
                    // A handle stops all of them.
                    Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                    Ok(pooled) if pooled.len() == hidden => out.copy_from_slice(&pooled),
                    Ok(pooled) => {
                        return Err(Error::internal(format!(
                            "expected a state of {hidden}, found {}",
                            pooled.len()
                        )));
                    }
                    Err(error) => self.fail(done, error),
                }
            }
            if self.is_over() {
                return Ok(states);
            }
            let now = Progress { done: done as u64 + 1, total: count as u64, stage: None };
            if progress(now).is_break() {
                return Err(cancelled());
            }
        }
        Ok(states)
    }

    pub(super) fn begin(&self, index: usize, input: Result<Input>) -> Result<Stream, E> {
        let begun = input.and_then(|Input { tokens, types, pooler }| {
            Session::once(Arc::clone(self.loaded))?.pool(tokens, types, pooler, None, self.cancel.ticket())
        });
        begun.map_err(|error| E::from(error.of_item((self.item)(index))))
    }

    pub(super) fn is_over(&self) -> bool {
        self.on_fault == OnFault::Stop && !self.faults.is_empty()
    }

    pub(super) fn fail(&mut self, index: usize, error: Error) {
        self.faults.insert(index, E::from(error.of_item((self.item)(index))));
    }

    /// What text `index` gives: NaN, if it failed or is not finite.
    pub(super) fn check(&mut self, index: usize, values: &mut [f32]) {
        if self.faults.get(index).is_none() && !values.iter().all(|x| x.is_finite()) {
            let message = "the model gave values that are not finite numbers";
            self.fail(index, Error::new(ErrorKind::NonFinite, message));
        }
        if self.faults.get(index).is_some() {
            values.fill(f32::NAN);
        }
    }
}
