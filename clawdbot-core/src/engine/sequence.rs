//! One sequence: its tokens, where its state is, and the job it is working on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::SequenceId;
use super::scheduler::{Entry, HORIZON, Turn, Want};
use crate::cache::PageTables;
use crate::cancel::Ticket;
use crate::error::{Error, Result};
use crate::event::{Completion, Event, FinishReason, Usage};
use crate::forward::adapter::Adapter;
use crate::forward::pooling::Pooler;
use crate::options::Resolved;
use crate::sampling::{Logprobs, TokenLogprob};
use crate::tokenizer::{StopMatcher, StreamDecoder, Tokenizer};

/// A conversation's tokens and cache state.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// All tokens so far, prompt and output.
    pub(crate) tokens: Vec<u32>,
    /// Their kinds, where the model has them; empty: 0 for all.
    pub(crate) token_types: Vec<u32>,
    /// How many of them have their keys and values in the cache.
    pub(crate) computed: usize,
    /// Where those are.
    pub(crate) tables: PageTables,
    /// What changes the model for it. Keys and values were computed with it, so they are no other adapter's.
    pub(crate) adapter: Option<Arc<Adapter>>,
    /// Whether those are rotated as those of long sequences.
    pub(crate) long: bool,
    /// Nobody goes on from it once its job has ended.
    pub(crate) once: bool,
    /// When its job came, in requests.
    pub(crate) arrival: u64,
    /// When it takes part in passes.
    pub(crate) turn: Turn,
    /// Bytes that are counted for it, besides its pages.
    pub(crate) charged: u64,
    /// What it is working on.
    pub(crate) job: Option<Job>,
}

/// A request that a sequence works on.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) options: Resolved,
    /// Tokens before this index are the prompt.
    pub(crate) prompt_end: usize,
    /// Tokens that were in the cache when the request came.
    pub(crate) cached: usize,
    /// Logits of all rows, when they are what is wanted.
    pub(crate) scores: Option<Vec<f32>>,
    /// What gathers states, when they are what is wanted.
    pub(crate) pooler: Option<Pooler>,
    /// Whether nobody wants to see tokens one by one.
    pub(crate) quiet: bool,
    text: Option<JobText>,
    /// Everything that was emitted so far.
    emitted: String,
    logprobs: Vec<Logprobs>,
    pub(crate) events: VecDeque<Result<Event>>,
    pub(crate) ticket: Ticket,
    finished: bool,
    submitted: Instant,
    pub(crate) prefill_started: Option<Instant>,
    first_token: Option<Instant>,
}

/// A sequence whose consumer has this many events still to take waits.
const MAX_EVENTS: usize = 256;
/// Bytes of a sequence and a job that have nothing yet, with what they allocate.
const BASE_BYTES: usize = 2048;
/// Bytes of a stop text: here, in the matcher, and in the report of the options.
const STOP_BYTES: usize = 3;
/// Bytes of an entry of the bias of logits, in maps and in the report.
const BIAS_BYTES: usize = 128;
/// Tokens that the decoder sees of a prompt: enough to know how its text ends.
const CONTEXT_TOKENS: usize = 8;

/// Token ids to text, up to a stop text.
#[derive(Debug)]
pub(crate) struct JobText {
    /// `None` after the end.
    decoder: Option<StreamDecoder>,
    stop: StopMatcher,
    /// Ids from here on are padding of the model's vocabulary and have no text.
    id_limit: u32,
}

impl JobText {
    /// Text that continues `prompt`.
    pub(crate) fn new(tokenizer: &Tokenizer, options: &Resolved, prompt: &[u32]) -> Result<Self> {
        let mut decoder = StreamDecoder::new(tokenizer, options.skip_special_tokens.into());
        let id_limit = tokenizer.id_limit();
        // Whether a token's leading space is kept depends on whether something stands before it.
        let tail = &prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..];
        for &id in tail.iter().filter(|&&id| id < id_limit) {
            decoder.push(id)?;
        }
        Ok(JobText { decoder: Some(decoder), stop: StopMatcher::new(&options.stop)?, id_limit })
    }

    /// Takes a token (`None`: one without text) and says what text is certain now, and whether a stop text was found.
    fn push(&mut self, token: Option<u32>, last: bool) -> Result<(String, bool)> {
        let mut piece = String::new();
        if let (Some(decoder), Some(id)) = (&mut self.decoder, token.filter(|&id| id < self.id_limit)) {
            piece = decoder.push(id)?;
        }
        if let Some(decoder) = self.decoder.take_if(|_| last) {
            piece.push_str(&decoder.finish()?);
        }
        let outcome = self.stop.push(&piece);
        let mut text = outcome.emit;
        let stopped = outcome.stopped.is_some();
        if last && !stopped {
            text.push_str(&self.stop.flush());
        }
        Ok((text, stopped))
    }
}

impl Job {
    /// A request to generate. `text` is `None` for a model without a tokenizer.
    pub(crate) fn generate(options: Resolved, prompt_end: usize, text: Option<JobText>) -> Self {
        Job {
            options,
            prompt_end,
            cached: 0,
            scores: None,
            pooler: None,
            quiet: false,
            text,
            emitted: String::new(),
            logprobs: Vec::new(),
            events: VecDeque::new(),
            ticket: Ticket::default(),
            finished: false,
            submitted: Instant::now(),
            prefill_started: None,
            first_token: None,
        }
    }

    /// A request for the logits of all `tokens` tokens, which go into `scores`.
    pub(crate) fn score(tokens: usize, scores: Vec<f32>) -> Self {
        let mut job = Job::generate(Resolved::greedy(), tokens, None);
        job.scores = Some(scores);
        job.quiet = true;
        job
    }

    /// A request for the states of `tokens` tokens, as `pooler` gathers them.
    pub(crate) fn pool(tokens: usize, pooler: Pooler) -> Self {
        let mut job = Job::generate(Resolved::greedy(), tokens, None);
        job.pooler = Some(pooler);
        job.quiet = true;
        job
    }

    /// Bytes that it keeps.
    fn bytes(&self) -> usize {
        let report = |options: &Resolved| match options.logprobs {
            None => 0,
            Some(top) => size_of::<Logprobs>() + top as usize * size_of::<TokenLogprob>(),
        };
        let report = report(&self.options);
        // Of the events' texts, most are a few bytes long.
        let events = self.events.len() * (size_of::<Result<Event>>() + 32 + report);
        let stop: usize = self.options.stop.iter().map(String::len).sum();
        let options = STOP_BYTES * stop
            + BIAS_BYTES * self.options.logit_bias.len()
            + 2 * 4 * self.options.stop_token_ids.len();
        self.emitted.capacity() + self.logprobs.len() * report + events + options
    }

    /// Whether its last event is queued or taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        !self.finished && self.ticket.is_cancelled()
    }

    /// Queues an event; a quiet job keeps the last one alone.
    pub(crate) fn push(&mut self, event: Event) {
        if !self.quiet || matches!(event, Event::Done(_)) {
            self.events.push_back(Ok(event));
        }
    }

    /// Ends the job with an error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.finished = true;
        self.events.push_back(Err(error));
    }
}

impl Sequence {
    /// Whether it has a job that is not finished.
    pub(crate) fn is_running(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.finished)
    }

    /// Whether it has a job that is not finished and whose consumer keeps up.
    pub(crate) fn makes_progress(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.finished && job.events.len() < MAX_EVENTS)
    }

    /// Bytes that it keeps besides its pages, a completion of its job included.
    pub(crate) fn bytes(&self) -> u64 {
        let generated = self.job.as_ref().map_or(0, |job| self.tokens.len().saturating_sub(job.prompt_end));
        let tokens = 4 * (self.tokens.capacity() + self.token_types.capacity() + generated);
        let bytes = (BASE_BYTES + tokens + self.job.as_ref().map_or(0, Job::bytes)) as u64;
        // The completion has what the job had, until somebody takes it.
        let waits = self.job.as_ref().is_some_and(|job| job.finished && !job.events.is_empty());
        if waits { bytes.max(self.charged) } else { bytes }
    }

    /// Whether others may have its pages: it has no work, or nobody takes what it gives, or it has not begun, so that they are
    /// what earlier requests left. Those that are missed least come first.
    pub(crate) fn spares_pages(&self) -> Option<(u8, u64)> {
        match (&self.job, self.makes_progress()) {
            (Some(_), true) if self.turn.begun => None,
            (Some(_), true) => Some((1, u64::MAX - self.arrival)),
            (Some(job), false) if !job.finished => Some((2, u64::MAX - self.arrival)),
            _ => Some((0, self.arrival)),
        }
    }

    /// What the scheduler knows of it, if it has work. `max_context`: most tokens that it may have.
    pub(crate) fn entry(&self, id: SequenceId, max_context: usize) -> Option<Entry> {
        let tokens = self.tokens.len();
        let job = self.job.as_ref().filter(|_| self.makes_progress() && self.computed < tokens)?;
        let (want, end) = match (&job.pooler, &job.scores) {
            (Some(_), _) => (Want::States, tokens),
            (None, Some(_)) => (Want::Scores, tokens),
            (None, None) => {
                (Want::Token, job.prompt_end.saturating_add(job.options.max_tokens as usize).min(max_context))
            }
        };
        // The last token that is generated is not computed.
        let (last, open) = (end.saturating_sub(1).max(tokens), end > job.prompt_end.saturating_add(HORIZON));
        let (arrival, computed, turn) = (self.arrival, self.computed, self.turn);
        Some(Entry { id, arrival, tokens, computed, last, open, want, turn, held: 0 })
    }

    /// Takes a sampled token: text, stop conditions, events.
    pub(crate) fn accept(&mut self, id: u32, logprobs: Option<Logprobs>, max_context: usize) {
        self.tokens.push(id);
        let Some(job) = self.job.as_mut() else { return };
        job.first_token.get_or_insert_with(Instant::now);
        let generated = self.tokens.len() - job.prompt_end;
        let mut reason = None;
        if job.options.stop_token_ids.contains(&id) {
            reason = Some(FinishReason::Stop);
        } else if generated >= job.options.max_tokens as usize || self.tokens.len() >= max_context {
            reason = Some(FinishReason::Length);
        }
        let mut text = String::new();
        if let Some(job_text) = &mut job.text {
            // A stop token ends the text before itself.
            let token = (reason != Some(FinishReason::Stop)).then_some(id);
            match job_text.push(token, reason.is_some()) {
                Ok((piece, stopped)) => {
                    text = piece;
                    reason = if stopped { Some(FinishReason::Stop) } else { reason };
                }
                Err(error) => return job.fail(error),
            }
        }
        job.emitted.push_str(&text);
        job.logprobs.extend(logprobs.clone());
        job.push(Event::Token { id, text, logprobs });
        if let Some(reason) = reason {
            self.finish(reason);
        }
    }

    /// Ends the job and queues its completion.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        let Some(job) = self.job.as_mut() else { return };
        let now = Instant::now();
        let first_token = job.first_token.unwrap_or(now);
        let prefill_started = job.prefill_started.unwrap_or(first_token);
        job.finished = true;
        let completion = Completion {
            text: std::mem::take(&mut job.emitted),
            token_ids: self.tokens.get(job.prompt_end..).unwrap_or(&[]).to_vec(),
            finish_reason: reason,
            usage: Usage {
                prompt_tokens: job.prompt_end,
                cached_tokens: job.cached,
                completion_tokens: self.tokens.len().saturating_sub(job.prompt_end),
                queue_seconds: (prefill_started - job.submitted).as_secs_f64(),
                prefill_seconds: (first_token - prefill_started).as_secs_f64(),
                decode_seconds: (now - first_token).as_secs_f64(),
            },
            logprobs: job.options.logprobs.map(|_| std::mem::take(&mut job.logprobs)),
            options: job.options.to_json(),
        };
        job.push(Event::Done(Box::new(completion)));
    }
}
