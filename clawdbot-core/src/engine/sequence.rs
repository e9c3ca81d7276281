//! One sequence: its tokens, its pages, and the job it is working on.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Map;

use super::constrained::{Constrained, MaskTimes};
use super::entry::{Entry, HORIZON, SequenceId, Turn, Want};
use super::guess::Guesses;
use super::job_text::{JobText, Piece, Said, events_of_calls};
use super::mailbox::Sender;
use super::queue::{GroupKey, Rank};
use super::scores::{Next, PromptScores, Scores};
use super::swapped::Swapped;
use crate::cache::PageTables;
use crate::cancel::Ticket;
use crate::error::{Error, Result};
use crate::event::{Completion, Event, FinishReason, Usage};
use crate::forward::adapter::Adapter;
use crate::forward::pooling::Pooler;
use crate::metrics::{MAX_DRAFTS, Meter, Times};
use crate::options::{GenerateOptions, Resolved, SharedProcessor};
use crate::sampling::{BadWords, Logprobs, Rules, Sampled, State, TokenLogprob};

/// The tokens and the cached state of a conversation or of a single request.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// All tokens so far, prompt and output.
    pub(crate) tokens: Vec<u32>,
    /// Token types, for models that have them; empty: all 0.
    pub(crate) token_types: Vec<u32>,
    /// Number of tokens whose keys, values and states are in the cache.
    pub(crate) computed: usize,
    /// The pages with those.
    pub(crate) tables: PageTables,
    /// What it has in the swap space: then it has no pages.
    pub(crate) swapped: Option<Swapped>,
    /// Its LoRA adapter. Cached keys and values depend on it.
    pub(crate) adapter: Option<Arc<Adapter>>,
    /// Whether its cached keys use the long frequencies of LongRoPE.
    pub(crate) long: bool,
    /// Whether it is being saved.
    pub(crate) held: bool,
    /// Whether what is in its pages follows from what was read from a file, and was not computed here.
    pub(crate) restored: bool,
    /// Whether it serves a single request: its pages are freed when that ends.
    pub(crate) once: bool,
    /// The place of its request among others.
    pub(crate) rank: Rank,
    /// Its place in the order of turns.
    pub(crate) turn: Turn,
    /// Bytes charged to the budget for it, apart from its pages.
    pub(crate) charged: u64,
    /// The request that it is working on. Boxed, so that idle sequences are small.
    pub(crate) job: Option<Box<Job>>,
}

/// Why a sequence can spare its pages; those that are missed least come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spare {
    /// It has no work; the oldest first.
    Idle(u64),
    /// Its request is not admitted yet: the pages are left from earlier ones. The latest first.
    Waiting(Reverse<Rank>),
    /// Nobody reads its events; the latest first.
    Unread(Reverse<Rank>),
    /// It is being saved.
    Held,
}

/// A request that a sequence works on.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) options: Resolved,
    /// Tokens before this index are the prompt.
    pub(crate) prompt_end: usize,
    /// Tokens that were in the cache when the request came.
    pub(crate) cached: usize,
    /// Whether the swap space was searched for how it begins.
    pub(super) looked_up: bool,
    /// What is gathered of logits, if the request is for scores.
    pub(crate) scores: Option<Scores>,
    /// How likely its prompt is, if it is to say that.
    pub(crate) prompt_scores: Option<PromptScores>,
    /// Collector of hidden states, if the request is for a pooled vector.
    pub(crate) pooler: Option<Pooler>,
    /// Whether it is to compute its tokens, and gathers nothing.
    pub(super) fills: bool,
    /// What may follow its tokens, if it is a step of a beam search.
    pub(crate) next: Option<Next>,
    /// Whether only the completion is queued, and no event for each token.
    pub(crate) quiet: bool,
    text: Option<JobText>,
    /// Texts that its output never has.
    pub(crate) bad_words: Option<Arc<BadWords>>,
    /// What changes its logits.
    pub(crate) processor: Option<SharedProcessor>,
    /// All that was emitted so far.
    emitted: Said,
    logprobs: Vec<Logprobs>,
    /// What sampling keeps from token to token.
    pub(super) sampling: State,
    /// What its text is constrained to; not there while a token is drawn.
    pub(crate) constrained: Option<Box<Constrained>>,
    pub(crate) mailbox: Sender,
    pub(crate) ticket: Ticket,
    finished: bool,
    submitted: Instant,
    /// Most rows of its passes: it was admitted with so many, and might not have enough memory for more.
    pub(super) most_rows: usize,
    /// Whether it is part of a request that was admitted: it does not count as one that asks to begin.
    pub(crate) admitted: bool,
    /// Its group, among which passes are shared.
    pub(super) group: GroupKey,
    /// As how many tokens its group was charged for it; 0 once that is settled.
    pub(super) charged: usize,
    /// Most tokens that it has had in its pages.
    pub(super) reached: usize,
    /// When it ends at the latest.
    deadline: Option<Instant>,
    pub(crate) prefill_started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    pub(super) meter: Meter,
    pub(super) guesses: Guesses,
    /// Drafts that were computed.
    pub(super) drafts: usize,
    /// Those of them that were right, by their places in a pass.
    pub(super) accepted: [u32; MAX_DRAFTS],
    /// Of these, tokens that a constraint forced.
    pub(super) forced: usize,
}

/// Bytes of a sequence without a job, and of the heap allocations of an empty job.
const BASE_BYTES: usize = 2048;
// An entry of a map in which nodes are half full, with as much again for the heap.
const _: () = assert!(4 * size_of::<Sequence>() <= BASE_BYTES);
/// Copies of a stop text: in the options, in the matcher, and in the completion.
const STOP_BYTES: usize = 3;
/// Bytes of an entry of `logit_bias`, in maps and in the completion.
const BIAS_BYTES: usize = 128;

impl Job {
    /// A request to generate. `text` is `None` for a model without a tokenizer.
    pub(crate) fn generate(options: Resolved, prompt_end: usize, text: Option<JobText>) -> Self {
        let submitted = Instant::now();
        let mut job = Job {
            options,
            prompt_end,
            cached: 0,
            looked_up: false,
            scores: None,
            prompt_scores: None,
            pooler: None,
            fills: false,
            next: None,
            quiet: false,
            text,
            bad_words: None,
            processor: None,
            emitted: Said::default(),
            logprobs: Vec::new(),
            sampling: State::default(),
            constrained: None,
            mailbox: Sender::default(),
            ticket: Ticket::default(),
            finished: false,
            submitted,
            most_rows: usize::MAX,
            admitted: false,
            group: GroupKey::default(),
            charged: 0,
            reached: 0,
            deadline: None,
            prefill_started: None,
            first_token: None,
            last_token: None,
            meter: Meter::default(),
            guesses: Guesses::default(),
            drafts: 0,
            accepted: [0; MAX_DRAFTS],
            forced: 0,
        };
        job.count_deadline_from(submitted);
        job
    }

    /// Lets its deadline count from `since`, not from when it was made.
    pub(crate) fn count_deadline_from(&mut self, since: Instant) {
        // None that is further away than the clock can tell.
        let deadline = self.options.deadline_ms.map(Duration::from_millis);
        self.deadline = deadline.and_then(|after| since.checked_add(after));
    }

    /// A request for the scores of `tokens` tokens, which go into `scores`.
    pub(crate) fn score(tokens: usize, scores: Scores) -> Self {
        let mut job = Job::generate(Resolved::greedy(), tokens, None);
        job.scores = Some(scores);
        job.quiet = true;
        job
    }

    /// A request for the hidden states of `tokens` tokens, collected by `pooler`.
    pub(crate) fn pool(tokens: usize, pooler: Pooler) -> Self {
        let mut job = Job::generate(Resolved::greedy(), tokens, None);
        job.pooler = Some(pooler);
        job.quiet = true;
        job
    }

    /// A request to compute `tokens` tokens, with the priority, group and deadline of `options`.
    pub(crate) fn fill(tokens: usize, options: &GenerateOptions) -> Self {
        let (priority, group, deadline_ms) = (options.priority, options.group.clone(), options.deadline_ms);
        let resolved = Resolved { priority, group, deadline_ms, ..Resolved::greedy() };
        let mut job = Job::generate(resolved, tokens, None);
        job.fills = true;
        job.quiet = true;
        job
    }

    /// What says which of its tokens may come, besides options and constraint.
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules { bad_words: self.bad_words.as_deref(), processor: self.processor.as_ref(), allowed: None }
    }

    /// Bytes that it keeps.
    fn bytes(&self) -> usize {
        let report = |options: &Resolved| match options.logprobs {
            None => 0,
            Some(top) => size_of::<Logprobs>() + top as usize * size_of::<TokenLogprob>(),
        };
        let report = report(&self.options);
        // Most texts of events are a few bytes long.
        let events = self.mailbox.len() * (size_of::<Result<Event>>() + 32 + report);
        let stop: usize = self.options.stop.iter().map(String::len).sum();
        let options = STOP_BYTES * stop
            + BIAS_BYTES * self.options.logit_bias.len()
            + 2 * 4 * self.options.stop_token_ids.len()
            + 2 * 4 * self.options.allowed_token_ids.as_ref().map_or(0, Vec::len)
            + 2 * self.options.dry_sequence_breakers.iter().map(String::len).sum::<usize>()
            + 2 * self.options.bad_words.iter().map(String::len).sum::<usize>();
        let text = self.text.as_ref().map_or(0, JobText::bytes);
        let constrained = self.constrained.as_ref().map_or(0, |constrained| constrained.bytes());
        let bad_words = self.bad_words.as_ref().map_or(0, |bad_words| bad_words.size());
        let prompt = self.prompt_scores.as_ref().map_or(0, PromptScores::bytes);
        self.emitted.bytes()
            + prompt
            + text
            + constrained
            + bad_words
            + self.logprobs.len() * report
            + events
            + options
    }

    /// Most tokens that may come after `tokens` of them.
    pub(super) fn left(&self, tokens: usize, max_context: usize) -> usize {
        let end = self.prompt_end.saturating_add(self.options.max_tokens as usize);
        end.min(max_context).saturating_sub(tokens)
    }

    /// Whether its last event is queued or already read.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Its deadline, until it has ended.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.finished)
    }

    /// Why it ends now, before it has generated all, if it does.
    pub(crate) fn stopped(&self) -> Option<FinishReason> {
        match (self.finished, self.ticket.is_cancelled()) {
            (true, _) => None,
            (false, true) => Some(FinishReason::Cancelled),
            (false, false) => {
                let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                late.then_some(FinishReason::Deadline)
            }
        }
    }

    /// Queues an event; a quiet job queues the last one only.
    pub(crate) fn push(&mut self, event: Event) {
        if !self.quiet || matches!(event, Event::Done(_)) {
            self.mailbox.push(Ok(event));
        }
    }

    /// Ends the job with an error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.finished = true;
        if self.next.is_none() {
            self.meter.count(|metrics| metrics.requests.failed += 1);
        }
        self.mailbox.push(Err(error));
    }
}

impl Sequence {
    /// Whether it has a job that is not finished.
    pub(crate) fn is_running(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.finished)
    }

    /// Whether it has an unfinished job whose consumer keeps up.
    pub(crate) fn makes_progress(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.finished && !job.mailbox.is_full())
    }

    /// Bytes that it keeps apart from its pages, with the completion of its job.
    pub(crate) fn bytes(&self) -> u64 {
        let generated = self.job.as_ref().map_or(0, |job| self.tokens.len().saturating_sub(job.prompt_end));
        let tokens = 4 * (self.tokens.capacity() + self.token_types.capacity() + generated);
        let job = self.job.as_ref().map_or(0, |job| size_of::<Job>() + job.bytes());
        let bytes = (BASE_BYTES + tokens + job) as u64;
        // A completion keeps the job's text and tokens until it is read.
        let waits = self.job.as_ref().is_some_and(|job| job.finished && job.mailbox.len() > 0);
        if waits { bytes.max(self.charged) } else { bytes }
    }

    /// Whether others may take its pages, and before which others. `None`: it works with them.
    pub(crate) fn spare(&self) -> Option<Spare> {
        match (&self.job, self.makes_progress()) {
            (Some(_), true) if self.turn.admitted => None,
            (Some(_), true) => Some(Spare::Waiting(Reverse(self.rank))),
            (Some(job), false) if !job.finished => Some(Spare::Unread(Reverse(self.rank))),
            _ if self.held => Some(Spare::Held),
            _ => Some(Spare::Idle(self.rank.number)),
        }
    }

    /// Its entry for the scheduler, if it has work. `max_context`: most tokens that it may have.
    pub(crate) fn entry(&self, id: SequenceId, max_context: usize) -> Option<Entry> {
        let tokens = self.tokens.len();
        let job = self.job.as_ref().filter(|_| self.makes_progress() && self.reach() < tokens)?;
        let (want, end) = match (&job.pooler, &job.scores) {
            _ if job.fills => (Want::States, tokens),
            _ if job.next.is_some() => (Want::Token, tokens),
            (Some(_), _) => (Want::States, tokens),
            (None, Some(_)) => (Want::Scores, tokens),
            (None, None) => {
                (Want::Token, job.prompt_end.saturating_add(job.options.max_tokens as usize).min(max_context))
            }
        };
        // The last generated token is never computed.
        let (last, open_ended) =
            (end.saturating_sub(1).max(tokens), end > job.prompt_end.saturating_add(HORIZON));
        let (rank, computed, turn) = (self.rank, self.reach(), self.turn);
        let most_rows = job.most_rows;
        let unsaid = job.prompt_scores.as_ref().is_some_and(|scores| !scores.wanted().is_empty());
        let want = if unsaid { Want::Scores } else { want };
        let (group, served, held) = (job.group, 0, 0);
        Some(Entry {
            id,
            rank,
            group,
            served,
            tokens,
            computed,
            last,
            open_ended,
            most_rows,
            want,
            turn,
            held,
        })
    }

    /// Appends a sampled token: text, stop conditions, events.
    pub(crate) fn accept(&mut self, sampled: Sampled, max_context: usize) {
        let Sampled { id, logprobs } = sampled;
        self.tokens.push(id);
        let Some(job) = self.job.as_mut() else { return };
        let now = Instant::now();
        let before = job.last_token.replace(now);
        job.meter.token(before.is_none(), (now - before.unwrap_or(job.submitted)).as_secs_f64());
        job.first_token.get_or_insert(now);
        let generated = self.tokens.len() - job.prompt_end;
        let mut reason = None;
        let ends = job.options.stop_token_ids.contains(&id);
        if ends || job.constrained.as_ref().is_some_and(|constrained| constrained.is_over()) {
            reason = Some(FinishReason::Stop);
        } else if generated >= job.options.max_tokens as usize || self.tokens.len() >= max_context {
            reason = Some(FinishReason::Length);
        }
        let mut said = Said::default();
        if let Some(job_text) = &mut job.text {
            // The text ends before a stop token.
            let token = (!ends).then_some(id);
            let piece = match reason {
                None => job_text.push(token),
                Some(_) => job_text.finish(token),
            };
            match piece {
                Ok(piece) => {
                    reason = if piece.stopped { Some(FinishReason::Stop) } else { reason };
                    said = job_text.read(piece, reason.is_some());
                }
                Err(error) => return job.fail(error),
            }
        }
        job.emitted.extend(&said);
        job.logprobs.extend(logprobs.clone());
        let Said { text, reasoning, calls, deltas, .. } = said;
        if !reasoning.is_empty() {
            job.push(Event::Reasoning { text: reasoning });
        }
        job.push(Event::Token { id, text, logprobs });
        events_of_calls(deltas, calls).for_each(|event| job.push(event));
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
        if let Some(text) = &mut job.text {
            // Of a request that is stopped, what is held back of a call.
            let rest = text.read(Piece::default(), true);
            job.emitted.extend(&rest);
            events_of_calls(rest.deltas, rest.calls).for_each(|event| job.push(event));
        }
        let Said { text, reasoning, calls: tool_calls, warnings, .. } = std::mem::take(&mut job.emitted);
        let masks = job.constrained.take().map_or_else(MaskTimes::default, |constrained| constrained.times());
        let completion = Completion {
            text,
            reasoning,
            tool_calls,
            warnings,
            token_ids: self.tokens.get(job.prompt_end..).unwrap_or(&[]).to_vec(),
            finish_reason: reason,
            usage: Usage {
                prompt_tokens: job.prompt_end,
                cached_tokens: job.cached,
                completion_tokens: self.tokens.len().saturating_sub(job.prompt_end),
                draft_tokens: job.drafts,
                accepted_tokens: job.accepted.iter().map(|&count| count as usize).sum(),
                accepted_by_position: job.accepted,
                forced_tokens: job.forced,
                queue_seconds: (prefill_started - job.submitted).as_secs_f64(),
                prefill_seconds: (first_token - prefill_started).as_secs_f64(),
                decode_seconds: (now - first_token).as_secs_f64(),
                first_mask_seconds: masks.first,
                mask_p50_seconds: masks.p50,
                mask_p99_seconds: masks.p99,
            },
            prompt_logprobs: job.prompt_scores.take().map(|scores| scores.found),
            logprobs: job.options.logprobs.map(|_| std::mem::take(&mut job.logprobs)),
            alternatives: Vec::new(),
            // Those of a request are told by it, not by its parts.
            options: if job.is_part() { Map::new() } else { job.options.to_json() },
        };
        if job.is_part() {
            return job.push(Event::Done(Box::new(completion)));
        }
        let Usage { prompt_tokens, cached_tokens, .. } = completion.usage;
        job.meter.count(|metrics| {
            let outcomes = &mut metrics.requests;
            *match reason {
                FinishReason::Stop => &mut outcomes.stop,
                FinishReason::Length => &mut outcomes.length,
                FinishReason::Cancelled => &mut outcomes.cancelled,
                FinishReason::Deadline => &mut outcomes.deadline,
            } += 1;
            metrics.prompt_tokens += prompt_tokens as u64;
            metrics.cached_tokens += cached_tokens as u64;
        });
        if job.first_token.is_some() {
            let Usage { queue_seconds: queue, prefill_seconds: prefill, decode_seconds: decode, .. } =
                completion.usage;
            job.meter.times(Times { queue, prefill, decode });
        }
        job.push(Event::Done(Box::new(completion)));
    }
}
