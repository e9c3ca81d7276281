//! Prompts, one or many in one call.

use std::borrow::Borrow;

use super::model::Model;
use super::session::{Delivery, Prompt, Session, Stream, Wanted, run_together};
use crate::cancel::{CancelHandle, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Completion;
use crate::options::{GenerateOptions, PromptKind};

/// Requests that are under way, in units of the sequences of a forward pass: enough that those that end are replaced.
const PASSES_AHEAD: usize = 2;

impl Model {
    /// Generates from `prompt`, event by event.
    ///
    /// # Errors
    /// `EmptyPrompt`, `ContextOverflow`, `InvalidArgument`, `Closed`, `ForkedRuntime`; as [`Model::session`].
    pub fn stream(&self, prompt: impl Into<Prompt>, options: &GenerateOptions) -> Result<Stream> {
        self.request(prompt.into(), options, Delivery::EachToken, Ticket::default())
    }

    fn request(
        &self,
        prompt: Prompt,
        options: &GenerateOptions,
        delivery: Delivery,
        ticket: Ticket,
    ) -> Result<Stream> {
        let mut session = Session::once(self.generating()?)?;
        let options = &options.for_prompt(PromptKind::Text);
        let add_special_tokens = options.add_special_tokens == Some(true);
        let cancel = CancelHandle::of(&ticket);
        session.extend_until(prompt, add_special_tokens, Wanted::of(options), &cancel)?;
        session.request(options, delivery, ticket)
    }

    /// Generates from `prompt`.
    ///
    /// # Errors
    /// As [`Model::stream`]; `OutOfBudget`, `NonFinite` while computing.
    pub fn generate(&self, prompt: impl Into<Prompt>, options: &GenerateOptions) -> Result<Completion> {
        self.generate_until(prompt, options, &CancelHandle::default())
    }

    /// Generates from several prompts, computed together. One result for each, in their order. However many there are,
    /// only some are under way at a time.
    ///
    /// # Errors
    /// Per prompt, as [`Model::generate`]; message and detail say which one it is, as `prompt`.
    pub fn generate_batch(&self, prompts: Vec<Prompt>, options: &GenerateOptions) -> Vec<Result<Completion>> {
        let requests = prompts.into_iter().map(|prompt| (prompt, options));
        self.generate_batch_with_progress(requests, |_, _| true)
    }

    /// As [`Model::generate`], until `cancel` is asked to stop: the completion then ends with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled), before the next layer of the forward pass.
    ///
    /// # Errors
    /// As [`Model::generate`]; `Cancelled` when it is asked before all of the prompt is tokens.
    pub fn generate_until(
        &self,
        prompt: impl Into<Prompt>,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<Completion> {
        self.request(prompt.into(), options, Delivery::AtTheEnd, cancel.ticket())?.finish()
    }

    /// As [`Model::generate_batch`], with options for each prompt, until `cancel` is asked to stop: what is under way then
    /// ends with [`FinishReason::Cancelled`](crate::FinishReason::Cancelled), before the next layer of the forward pass. A
    /// request that is an error already stays one.
    ///
    /// # Errors
    /// Per prompt, as [`Model::generate_batch`]; `Cancelled` for what had not begun, or was not tokens yet.
    pub fn generate_each<O: Borrow<GenerateOptions>, E: From<Error>>(
        &self,
        requests: impl ExactSizeIterator<Item = Result<(Prompt, O), E>>,
        cancel: &CancelHandle,
    ) -> Vec<Result<Completion, E>> {
        self.run_batch(requests, || cancel.ticket(), |_, _| !cancel.is_cancelled())
    }

    /// As [`Model::generate_batch`], with options for each prompt, and calls `progress(prompts done, prompts in all)` after
    /// each forward pass; false cancels what is not done.
    ///
    /// # Errors
    /// Per prompt, as [`Model::generate_batch`]; `Cancelled`.
    pub fn generate_batch_with_progress<O: Borrow<GenerateOptions>>(
        &self,
        requests: impl ExactSizeIterator<Item = (Prompt, O)>,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Vec<Result<Completion>> {
        self.run_batch(requests.map(Ok), Ticket::default, progress)
    }

    fn run_batch<O: Borrow<GenerateOptions>, E: From<Error>>(
        &self,
        requests: impl ExactSizeIterator<Item = Result<(Prompt, O), E>>,
        ticket: impl Fn() -> Ticket,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Vec<Result<Completion, E>> {
        let count = requests.len();
        let mut requests = requests.enumerate().peekable();
        let mut results: Vec<Option<Result<Completion, E>>> = (0..count).map(|_| None).collect();
        let mut running: Vec<(usize, Stream)> = Vec::new();
        let mut done = 0;
        let failed = |index: usize, error: Error| {
            E::from(error.context(format_args!("prompt[{index}]")).with("prompt", index))
        };
        // A closed model refuses each request.
        let most = self.loaded().map_or(1, |loaded| PASSES_AHEAD * loaded.options.max_batch as usize);
        loop {
            while running.len() < most
                && let Some((index, request)) = requests.peek()
            {
                let index = *index;
                let begun = request.as_ref().ok().map(|(prompt, options)| {
                    self.request(prompt.clone(), options.borrow(), Delivery::AtTheEnd, ticket())
                });
                let refused = match begun {
                    Some(Ok(stream)) => {
                        running.push((index, stream));
                        None
                    }
                    // It waits until others have ended.
                    Some(Err(error)) if error.kind() == ErrorKind::OutOfBudget && !running.is_empty() => {
                        break;
                    }
                    Some(Err(error)) => Some(failed(index, error)),
                    None => None,
                };
                let given = requests.next().and_then(|(_, request)| request.err());
                if let Some(error) = refused.or(given) {
                    results[index] = Some(Err(error));
                    done += 1;
                }
            }
            if running.is_empty() {
                break;
            }
            for (index, result) in run_together(&mut running) {
                results[index] = Some(result.map_err(|error| failed(index, error)));
                done += 1;
            }
            if !progress(done, count as u64) {
                break;
            }
        }
        let cancelled = || Err(E::from(Error::new(ErrorKind::Cancelled, "the work was cancelled")));
        results.into_iter().map(|result| result.unwrap_or_else(cancelled)).collect()
    }
}
