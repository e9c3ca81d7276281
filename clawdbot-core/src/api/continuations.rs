//! How likely given continuations of a prompt are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::generate::waits_for_others;
use super::items::Item;
use super::loaded::Loaded;
use super::model::Model;
use super::session::{Prompt, Session, Stream, Wanted, check_vocabulary, no_beginning, overflow};
use crate::cancel::{CancelHandle, cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::options::GenerateOptions;
use crate::tokenizer::AddSpecialTokens;

/// Continuations that are under way, in units of the sequences of a forward pass.
const PASSES_AHEAD: usize = 2;

/// How likely a continuation is after its prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ContinuationScore {
    /// The tokens of the continuation.
    pub token_ids: Vec<u32>,
    /// The natural logarithm of the probability of each, after the prompt and the tokens before it; by the model's own
    /// distribution, as `logprobs` of a completion.
    pub logprobs: Vec<f32>,
    /// Whether each is the most likely token there: that which greedy sampling takes.
    pub greedy: Vec<bool>,
    /// The sum of `logprobs`.
    pub logprob: f64,
    /// Whether all are: greedy sampling gives the continuation.
    pub is_greedy: bool,
    /// Its part of the probability of all continuations of the call: the softmax of their `logprob`. So that continuations are
    /// classes, none should begin with another.
    pub probability: f64,
}

/// A continuation with what is before it.
struct Whole {
    tokens: Vec<u32>,
    /// Tokens before this index are the prompt.
    first: usize,
}

impl Model {
    /// How likely each of `continuations` is after `prompt`, in their order. The prompt is computed once. All is to the bit what
    /// [`Model::logits`] of prompt and continuation gives.
    ///
    /// A prompt that is text gets the tokenizer's special tokens. A continuation that is text is tokenized together with such a
    /// prompt: where the last token of the prompt and the beginning of the continuation become one token, the continuation begins
    /// with that token. An empty prompt is the model's beginning-of-sequence token.
    ///
    /// # Errors
    /// `EmptyPrompt` for a continuation without tokens, and for an empty prompt if the model has no beginning-of-sequence token;
    /// `ContextOverflow`, `InvalidArgument` for a token outside the vocabulary, `NonFinite`, `OutOfBudget`, `Closed`,
    /// `ForkedRuntime`. Which continuation it is about stands in the message, and in the detail as `continuation`.
    pub fn score(
        &self,
        prompt: impl Into<Prompt>,
        continuations: &[Prompt],
    ) -> Result<Vec<ContinuationScore>> {
        self.score_until(prompt, continuations, None, &CancelHandle::default())
    }

    /// As [`Model::score`], with an adapter or without; stops when `cancel` is cancelled, within a layer of the model.
    ///
    /// # Errors
    /// As [`Model::score`]; `InvalidArgument` for an adapter that is not loaded; `Cancelled`.
    pub fn score_until(
        &self,
        prompt: impl Into<Prompt>,
        continuations: &[Prompt],
        adapter: Option<&str>,
        cancel: &CancelHandle,
    ) -> Result<Vec<ContinuationScore>> {
        let loaded = self.generating()?;
        let adapter_of = loaded.adapter(adapter)?;
        let wholes = wholes(&loaded, &prompt.into(), continuations, cancel)?;
        // What all begin with, without the token whose logits are the first that count.
        let first = wholes.iter().map(|whole| whole.first).min().unwrap_or(0);
        let head = wholes.first().map_or(&[][..], |whole| whole.tokens.as_slice());
        let common = wholes.iter().map(|whole| common_length(&whole.tokens, head)).min().unwrap_or(0);
        let common = &head[..common.min(first.saturating_sub(1))];
        let options = GenerateOptions::default().adapter(adapter.map(str::to_owned));
        let (base, _) = Session::filled(Arc::clone(&loaded), common, None, &options, Instant::now(), cancel)?;
        let most = PASSES_AHEAD * loaded.bounds.max_batch() as usize;
        let most = loaded.options.max_queue.map_or(most, |queue| most.min(queue as usize)).max(1);
        let mut running: VecDeque<Stream> = VecDeque::new();
        let mut scores = Vec::new();
        let mut waiting = wholes.iter().enumerate().peekable();
        for (index, whole) in wholes.iter().enumerate() {
            while running.len() < most
                && let Some(&(next, whole)) = waiting.peek()
            {
                let begun = base.fork().and_then(|session| {
                    session.score_next(&whole.tokens, whole.first, adapter_of.clone(), cancel)
                });
                match begun {
                    Ok(stream) => running.push_back(stream),
                    Err(error) if waits_for_others(&error) && !running.is_empty() => break,
                    Err(error) => return Err(error.of_item(Item::Continuation(next))),
                }
                waiting.next();
            }
            if cancel.is_cancelled() {
                return Err(cancelled());
            }
            let Some(stream) = running.pop_front() else { break };
            let found = stream.scores().map_err(|error| match error.kind() {
                ErrorKind::Cancelled | ErrorKind::Closed => error,
                _ => error.of_item(Item::Continuation(index)),
            })?;
            let logprobs: Vec<f32> = found.iter().map(|score| score.logprob).collect();
            let greedy: Vec<bool> = found.iter().map(|score| score.greedy).collect();
            scores.push(ContinuationScore {
                token_ids: whole.tokens[whole.first..].to_vec(),
                logprob: logprobs.iter().map(|&logprob| f64::from(logprob)).sum(),
                is_greedy: greedy.iter().all(|&greedy| greedy),
                probability: 0.0,
                logprobs,
                greedy,
            });
        }
        share(&mut scores);
        Ok(scores)
    }
}

/// Sets the probabilities: `exp(logprob) / sum of exp(logprob)`, less the largest one in each exponent.
fn share(scores: &mut [ContinuationScore]) {
    let largest = scores.iter().map(|score| score.logprob).fold(f64::NEG_INFINITY, f64::max);
    let weight = |score: &ContinuationScore| libm::exp(score.logprob - largest);
    let sum: f64 = scores.iter().map(weight).sum();
    scores.iter_mut().for_each(|score| score.probability = weight(score) / sum);
}

/// How many tokens both begin with.
fn common_length(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Prompt and continuation as tokens, for each continuation.
fn wholes(
    loaded: &Loaded,
    prompt: &Prompt,
    continuations: &[Prompt],
    cancel: &CancelHandle,
) -> Result<Vec<Whole>> {
    let encode = |text: &str, special: AddSpecialTokens, before: usize| {
        loaded.encode(text, special, before, Wanted::Nothing, cancel)
    };
    let own = match prompt {
        Prompt::Tokens(tokens) => tokens.clone(),
        Prompt::Text(text) => encode(text, AddSpecialTokens::Yes, 0)?,
    };
    check_vocabulary(loaded, &own)?;
    let whole = |continuation: &Prompt| -> Result<Whole> {
        let (mut tokens, mut first) = match (prompt, continuation) {
            (_, Prompt::Tokens(next)) => ([&own[..], next.as_slice()].concat(), own.len()),
            (Prompt::Tokens(_), Prompt::Text(text)) => {
                ([&own[..], encode(text, AddSpecialTokens::No, own.len())?.as_slice()].concat(), own.len())
            }
            (Prompt::Text(before), Prompt::Text(text)) => {
                let tokens = encode(&format!("{before}{text}"), AddSpecialTokens::Yes, 0)?;
                let first = common_length(&own, &tokens);
                (tokens, first)
            }
        };
        check_vocabulary(loaded, &tokens)?;
        if tokens.len() == first {
            return Err(Error::new(
                ErrorKind::EmptyPrompt,
                "expected a continuation with at least one token",
            ));
        }
        if first == 0 {
            tokens.insert(0, loaded.bos.ok_or_else(no_beginning)?);
            first = 1;
        }
        match tokens.len() <= loaded.max_context {
            true => Ok(Whole { tokens, first }),
            false => Err(overflow(tokens.len(), Wanted::Nothing, loaded.max_context)),
        }
    };
    let wholes = continuations.iter().enumerate();
    wholes.map(|(index, one)| whole(one).map_err(|error| error.of_item(Item::Continuation(index)))).collect()
}
