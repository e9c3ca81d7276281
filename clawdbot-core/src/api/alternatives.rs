//! Several completions of one prompt, which is computed once.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::loaded::Loaded;
use super::reply::Reply;
use super::session::{Delivery, Filled, Session, Stream, Wanted, check_vocabulary, no_beginning, overflow};
use crate::cancel::CancelHandle;
use crate::engine::PromptScores;
use crate::error::{Error, Result};
use crate::event::Completion;
use crate::options::GenerateOptions;

/// A request whose completions have begun.
pub(super) struct Alternatives {
    /// One for each completion.
    pub(super) streams: Vec<Stream>,
    pub(super) ending: Ending,
}

/// What makes a request's result of its completions.
pub(super) struct Ending {
    options: GenerateOptions,
    seed: u64,
    /// Of computing the prompt.
    filled: Filled,
}

impl Alternatives {
    /// Computes a prompt, and begins as many completions of it as `options` ask for. The prompt is not empty unless the model
    /// has a beginning-of-sequence token. The deadline counts from `called`.
    ///
    /// # Errors
    /// As [`Model::generate`](super::model::Model::generate).
    pub(super) fn begin(
        loaded: &Arc<Loaded>,
        mut tokens: Vec<u32>,
        options: &GenerateOptions,
        reply: &Reply,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<Self> {
        options.validate()?;
        if tokens.is_empty() {
            tokens.push(loaded.bos.ok_or_else(no_beginning)?);
        }
        check_vocabulary(loaded, &tokens)?;
        let wanted = Wanted::of(options);
        if wanted.at_least() > loaded.max_context.saturating_sub(tokens.len()) {
            return Err(overflow(tokens.len(), wanted, loaded.max_context));
        }
        let (options, seed) = options.seeded();
        // Each completion begins with the logits of the last token.
        let common = tokens.split_last().map_or(&[][..], |(_, common)| common);
        let scores = options.prompt_logprobs.map(|top| PromptScores::new(&tokens, top));
        let (base, filled) = Session::filled(Arc::clone(loaded), common, scores, &options, called, cancel)?;
        let begin = |index| {
            let own = options.of_completion(index, seed);
            let mut session = base.fork()?;
            session.request_from(
                Some(tokens.clone()),
                reply.clone(),
                &own,
                Delivery::of_a_part_since(called),
                cancel.ticket(),
            )
        };
        let streams = (0..options.completions()).map(begin).collect::<Result<_>>()?;
        Ok(Alternatives { streams, ending: Ending { options, seed, filled } })
    }

    /// Computes to the end.
    ///
    /// # Errors
    /// That of the first completion that fails.
    pub(super) fn finish(self) -> Result<Completion> {
        let completions = self.streams.into_iter().map(Stream::finish).collect::<Result<_>>()?;
        self.ending.choose(completions)
    }
}

/// The mean log-probability of the tokens that were generated.
fn mean_logprob(completion: &Completion) -> f64 {
    let logprobs = completion.logprobs.as_deref().unwrap_or_default();
    let sum: f64 = logprobs.iter().map(|entry| f64::from(entry.chosen.logprob)).sum();
    if logprobs.is_empty() { f64::NEG_INFINITY } else { sum / logprobs.len() as f64 }
}

impl Ending {
    /// The result, from all completions in their order.
    ///
    /// # Errors
    /// `Internal` without any.
    pub(super) fn choose(&self, mut completions: Vec<Completion>) -> Result<Completion> {
        let Ending { options, seed, filled: Filled { usage, prompt_logprobs } } = self;
        if options.best_of.is_some() {
            // Those that are equally good stay in the order of their seeds.
            completions.sort_by(|a, b| mean_logprob(b).total_cmp(&mean_logprob(a)));
            completions.truncate(options.n as usize);
        }
        for completion in &mut completions {
            if options.logprobs.is_none() {
                completion.logprobs = None;
                completion.options.insert("logprobs".to_owned(), Value::Null);
            }
        }
        let mut completions = completions.into_iter();
        let mut first =
            completions.next().ok_or_else(|| Error::internal("expected a completion, found none"))?;
        first.alternatives = completions.collect();
        first.prompt_logprobs.clone_from(prompt_logprobs);
        // The same options give all of it again.
        for (name, value) in [
            ("n", options.n.into()),
            ("best_of", options.best_of.into()),
            ("prompt_logprobs", options.prompt_logprobs.into()),
            ("seed", Value::from(*seed)),
        ] {
            first.options.insert(name.to_owned(), value);
        }
        first.usage.cached_tokens = usage.cached_tokens;
        first.usage.queue_seconds += usage.queue_seconds;
        first.usage.prefill_seconds += usage.prefill_seconds;
        Ok(first)
    }
}
