//! From logits to token ids: penalties, masks, temperature, filters, draw, log-probabilities.
//!
//! The order is that of transformers, unless the option `samplers` says another one: bias, penalties, DRY, masks, top-n-sigma,
//! temperature, top-k, top-p, min-p, typical-p, XTC, draw. All arithmetic is portable (no platform `exp`), so a seed gives the
//! same tokens wherever the logits are the same.

mod bad_words;
mod beam_search;
mod chain;
mod continuations;
mod dry;
mod filters;
mod masks;
mod mirostat;
mod rng;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::options::{LogprobsMode, Resolved, Sampler, SharedProcessor};

pub(crate) use bad_words::BadWords;
pub(crate) use beam_search::{BeamSearch, Ended};
pub(crate) use continuations::{Continuations, continuations};
pub(crate) use masks::{Drawable, History};

/// What says which tokens may come, besides options.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules<'a> {
    /// Texts that are left out.
    pub(crate) bad_words: Option<&'a BadWords>,
    /// The host's own function.
    pub(crate) processor: Option<&'a SharedProcessor>,
    /// What a constraint allows, as bits: `id % 32` of word `id / 32`.
    pub(crate) allowed: Option<&'a [u32]>,
}

/// The log-probability of a token under the model's own distribution (before penalties and temperature).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What was drawn, and how likely it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logprobs {
    /// The token that was chosen.
    #[serde(flatten)]
    pub chosen: TokenLogprob,
    /// The most likely tokens, most likely first; ties by lower id.
    pub top: Vec<TokenLogprob>,
}

/// A sampled token.
#[derive(Debug, PartialEq)]
pub(crate) struct Sampled {
    pub(crate) id: u32,
    /// Set if the request asks for log-probabilities.
    pub(crate) logprobs: Option<Logprobs>,
}

/// What sampling keeps from one token of a request to the next. What a draft has changed in it is forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct State {
    /// Mirostat's threshold, in bits; `None` before the first token.
    mirostat_mu: Option<f64>,
}

/// The random numbers of a token: functions of the request's seed and of the token's place.
#[derive(Debug, Clone, Copy)]
struct Random {
    seed: u64,
    step: u64,
}

impl Random {
    /// Says which token is drawn.
    fn token(self) -> f64 {
        rng::uniform(self.seed, self.step)
    }

    /// Says whether XTC leaves tokens out. Of a sequence of its own, so that the others stay as they are without it.
    fn xtc(self) -> f64 {
        const XTC: u64 = 0x5854_4353_4545_4421;
        rng::uniform(self.seed ^ XTC, self.step)
    }
}

/// Most bytes that sampling a token needs apart from the logits: a copy of them, sorted ids (twice for typical-p),
/// weights and distances, and the tokens that penalties look at, with what DRY knows of each.
pub(crate) fn bytes(vocab_size: usize, max_context: usize) -> u64 {
    const PER_ID: u64 = 4 + 4 + 4 + 4 + 8 + 8;
    const PER_TOKEN: u64 = 4 + 24 + 12;
    PER_ID * vocab_size as u64 + PER_TOKEN * max_context as u64
}

/// Samples the next token. Overwrites `logits`, and changes `state` as that token does. Log-probabilities are those of the model's
/// own distribution, or of that over the tokens that no mask forbids, as `logprobs_mode` says.
///
/// # Errors
/// `NonFinite` when a logit is NaN or infinite, `InvalidArgument` when the options leave no token; those of the processor.
pub(crate) fn sample(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    state: &mut State,
    rules: Rules<'_>,
) -> Result<Sampled> {
    check_finite(logits)?;
    let raw = options.logprobs.map(|n| (logits.to_vec(), n as usize));
    let id = choose(logits, drawable, options, history, state, rules)?;
    let logprobs = raw.map(|(mut raw, n)| {
        if options.logprobs_mode == LogprobsMode::Masked {
            mask_as(&mut raw, drawable.of_tokens(logits));
        }
        report(&raw, drawable, id, n)
    });
    Ok(Sampled { id, logprobs })
}

/// The next token, as [`sample`] chooses it, without log-probabilities.
///
/// # Errors
/// As [`sample`].
pub(crate) fn sample_id(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    state: &mut State,
) -> Result<u32> {
    check_finite(logits)?;
    choose(logits, drawable, options, history, state, Rules::default())
}

/// Masks what is masked in `logits`, and what is beyond their end.
fn mask_as(raw: &mut [f32], logits: &[f32]) {
    let masked = logits.iter().map(|&logit| logit == f32::NEG_INFINITY).chain(std::iter::repeat(true));
    raw.iter_mut().zip(masked).filter(|(_, masked)| *masked).for_each(|(raw, _)| *raw = f32::NEG_INFINITY);
}

/// The next token, from logits that are finite.
fn choose(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    state: &mut State,
    rules: Rules<'_>,
) -> Result<u32> {
    let logits = drawable.of_tokens(logits);
    process(logits, drawable, options, history, rules)?;
    let best = argmax(logits);
    if logits[best as usize] == f32::NEG_INFINITY {
        return Err(no_token());
    }
    if options.temperature == 0.0 {
        return Ok(best);
    }
    let random = Random { seed: options.seed, step: history.output.len() as u64 };
    Ok(chain::draw(logits, options, random, state))
}

/// The error of masks that forbid all tokens.
fn no_token() -> Error {
    Error::invalid_argument(
        "logits_processor, suppress_tokens, begin_suppress_tokens, bad_words, bad_words_ids, no_repeat_ngram_size, min_tokens, allowed_token_ids and the \
         constraint leave no token to sample",
    )
}

/// Changes the logits of tokens as options and rules say: bias, penalties, the host's function, masks.
///
/// # Errors
/// Those of the function.
fn process(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    rules: Rules<'_>,
) -> Result<()> {
    for (&id, &bias) in &options.logit_bias {
        if let Some(x) = logits.get_mut(id as usize) {
            *x = bounded(*x + bias);
        }
    }
    for sampler in &options.samplers {
        match sampler {
            Sampler::Penalties => penalize(logits, options, history),
            Sampler::Dry => dry::penalize(logits, options, history),
            _ => {}
        }
    }
    if let Some(processor) = rules.processor {
        processor.process(history.prompt, history.output, logits)?;
    }
    masks::mask(logits, drawable, options, history, rules.allowed);
    if let Some(bad_words) = rules.bad_words {
        bad_words.forbid(history.output, |id| {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        });
    }
    if let Some(allowed) = rules.allowed {
        masks::keep(logits, allowed);
    }
    Ok(())
}

fn check_finite(logits: &[f32]) -> Result<()> {
    // x * 0 is 0 unless x is NaN or infinite. Sums keep the loop free of branches, and 16 of them let it vectorize.
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut poison = [0.0; 16];
    for chunk in chunks {
        for (poison, x) in poison.iter_mut().zip(chunk) {
            *poison += x * 0.0;
        }
    }
    if poison.iter().chain(rest).all(|x| x * 0.0 == 0.0) {
        return Ok(());
    }
    let (id, value) = logits.iter().enumerate().find(|(_, x)| !x.is_finite()).unwrap_or((0, &f32::NAN));
    Err(Error::new(
        ErrorKind::NonFinite,
        format!("the model's logit for token {id} is {value}: its weights or its configuration are wrong"),
    ))
}

/// The index of the largest logit; the first of equal ones.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    const PART: usize = 1024;
    let mut best = (0, f32::NEG_INFINITY);
    for (part, x) in logits.chunks(PART).enumerate() {
        let (chunks, rest) = x.as_chunks::<16>();
        let mut lanes = [f32::NEG_INFINITY; 16];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = if *x > *lane { *x } else { *lane };
            }
        }
        let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        if largest > best.1 {
            best = (part, largest);
        }
    }
    let first = best.0 * PART;
    let within = logits[first..].iter().position(|x| *x == best.1).unwrap_or(0);
    (first + within) as u32
}

/// Clamps to finite numbers: extreme penalties must not make infinities.
fn bounded(x: f32) -> f32 {
    x.clamp(f32::MIN, f32::MAX)
}

/// The penalties for tokens that occur: `repetition_penalty` (Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>), and those
/// of OpenAI's interface, which count occurrences in the output.
fn penalize(logits: &mut [f32], options: &Resolved, history: &History<'_>) {
    if options.repetition_penalty != 1.0 {
        let mut seen: Vec<u32> = history.prompt.iter().chain(history.output).copied().collect();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let Some(x) = logits.get_mut(id as usize) else { continue };
            *x = bounded(if *x < 0.0 {
                *x * options.repetition_penalty
            } else {
                *x / options.repetition_penalty
            });
        }
    }
    if options.presence_penalty != 0.0 || options.frequency_penalty != 0.0 {
        let mut counts = HashMap::new();
        history.output.iter().for_each(|&id| *counts.entry(id).or_insert(0_u32) += 1);
        for (id, count) in counts {
            let Some(x) = logits.get_mut(id as usize) else { continue };
            *x = bounded(*x - bounded(options.presence_penalty + options.frequency_penalty * count as f32));
        }
    }
}

/// ln(sum(exp(logit))), in double precision.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits[argmax(logits) as usize]);
    let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - max)).sum();
    max + libm::log(sum)
}

/// The log-probability of token `id`, with those of the `n` most likely ones, and whether it is the most likely one (the first of
/// equal ones).
///
/// # Errors
/// `NonFinite` when a logit is NaN or infinite, `Internal` when there is none of `id`.
pub(crate) fn logprob_of(logits: &[f32], drawable: &Drawable, id: u32, n: usize) -> Result<(Logprobs, bool)> {
    check_finite(logits)?;
    logits.get(id as usize).ok_or_else(|| Error::internal(format!("there is no logit of {id}")))?;
    Ok((report(logits, drawable, id, n), argmax(logits) == id))
}

/// Log-probabilities of token `id` and of the `n` most likely ones: the logits less their [`log_sum_exp`].
fn report(logits: &[f32], drawable: &Drawable, id: u32, n: usize) -> Logprobs {
    let normaliser = log_sum_exp(logits);
    let entry = |id: u32| TokenLogprob { id, logprob: (f64::from(logits[id as usize]) - normaliser) as f32 };
    Logprobs { chosen: entry(id), top: possible(logits, drawable, n).map(entry).collect() }
}

/// The `n` most likely tokens, as [`top`], without those that are masked.
fn possible(logits: &[f32], drawable: &Drawable, n: usize) -> impl Iterator<Item = u32> {
    let top = if n == 0 { Vec::new() } else { top(logits, drawable, n) };
    top.into_iter().filter(|&id| logits[id as usize] > f32::NEG_INFINITY)
}

/// The `n` most likely tokens, most likely first, ties by lower id.
fn top(logits: &[f32], drawable: &Drawable, n: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|&id| drawable.has(id)).collect();
    filters::sort_first(&mut ids, n, |id| logits[id as usize]);
    ids.truncate(n);
    ids
}

#[cfg(test)]
mod tests;
