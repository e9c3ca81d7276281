//! Texts on their way through the model.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::embed::Faults;
use super::model::Loaded;
use super::session::{Session, Stream};
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
/// Says which of the texts that errors call `name` it is about.
pub(super) fn at(name: &str, index: usize, error: Error) -> Error {
    error.context(format_args!("{name}[{index}]")).with("text", index)
}

/// Texts on their way through the model, and what went wrong with some.
pub(super) struct Pass<'a, E> {
    pub(super) loaded: &'a Arc<Loaded>,
    /// What errors call the texts.
    pub(super) name: &'static str,
    /// Whether the first error ends it.
    pub(super) first: bool,
    pub(super) faults: BTreeMap<usize, E>,
}

impl<E: From<Error>> Pass<'_, E> {
    /// The pooled state of each input, `[count, hidden_size]`; zeros for those that fail. Some are under way at a time, so
    /// that they share forward passes.
    pub(super) fn all(
        &mut self,
        mut inputs: impl Iterator<Item = Result<Result<Input>, E>>,
        count: usize,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Vec<f32>> {
        let hidden = self.loaded.decoder.spec.hidden_size;
        let mut states = zeroed_rows(count, hidden)?;
        let most = PASSES_AHEAD * self.loaded.options.max_batch as usize;
        let mut running: VecDeque<Option<Stream>> = VecDeque::new();
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
            let Some(next) = running.pop_front() else { break };
            if let Some(stream) = next {
                match stream.pooled() {
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
            if !progress(done as u64 + 1, count as u64) {
                return Err(Error::new(ErrorKind::Cancelled, "the work was cancelled"));
            }
        }
        Ok(states)
    }

    pub(super) fn begin(&self, index: usize, input: Result<Input>) -> Result<Stream, E> {
        let begun = input.and_then(|Input { tokens, types, pooler }| {
            Session::once(Arc::clone(self.loaded))?.pool(tokens, types, pooler, None)
        });
        begun.map_err(|error| E::from(at(self.name, index, error)))
    }

    pub(super) fn is_over(&self) -> bool {
        self.first && !self.faults.is_empty()
    }

    pub(super) fn fail(&mut self, index: usize, error: Error) {
        self.faults.insert(index, E::from(at(self.name, index, error)));
    }

    /// What text `index` gives: NaN, if it failed or is not finite.
    pub(super) fn check(&mut self, index: usize, values: &mut [f32]) {
        if !self.faults.contains_key(&index) && !values.iter().all(|x| x.is_finite()) {
            let message = "the model gave values that are not finite numbers";
            self.fail(index, Error::new(ErrorKind::NonFinite, message));
        }
        if self.faults.contains_key(&index) {
            values.fill(f32::NAN);
        }
    }

    pub(super) fn finish(self) -> Faults<E> {
        self.faults.into_iter().collect()
    }
}
