//! Beam search on a model: a session for each running text, and steps that all of them take together.

use std::sync::Arc;
use std::time::Instant;

use super::loaded::Loaded;
use super::reply::Reply;
use super::session::{
    Filled, Session, Stream, Wanted, check_vocabulary, dry_breakers, no_beginning, overflow, resolve,
    text_after,
};
use crate::cancel::CancelHandle;
use crate::engine::{Job, PromptScores, Said};
use crate::error::{Error, Result};
use crate::event::{Completion, FinishReason, Usage};
use crate::forward::adapter::Adapter;
use crate::metrics::{Meter, Outcomes, Times};
use crate::options::{GenerateOptions, Resolved};
use crate::output::Tools;
use crate::runtime::Reservation;
use crate::sampling::{BadWords, BeamSearch, Continuations, Ended};

/// Bytes in steps of which the texts of a search are reserved; the first step is part of what loading has reserved.
const STEP: u64 = 64 << 10;

/// A search that has begun.
pub(super) struct Beams {
    loaded: Arc<Loaded>,
    prompt: Vec<u32>,
    /// As they were given.
    given: GenerateOptions,
    /// Those in force.
    options: Resolved,
    tools: Tools,
    bad_words: Option<Arc<BadWords>>,
    adapter: Option<Arc<Adapter>>,
    cancel: CancelHandle,
    called: Instant,
    search: BeamSearch,
    /// One for each running text, in their order.
    sessions: Vec<Session>,
    /// What the step has found for each of them so far, or why it was stopped.
    found: Vec<Option<std::result::Result<Continuations, FinishReason>>>,
    /// Of the texts.
    memory: Option<Reservation>,
    /// Of computing the prompt.
    filled: Filled,
    /// When that was done.
    began: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    tally: Tally,
}

/// What comes after a stream has ended.
pub(super) enum Next {
    /// The ends of others.
    Waits,
    /// These, in place of those before.
    Steps(Vec<Stream>),
    /// Nothing: this is the result.
    Done(Box<Completion>),
}

/// Counts a request, once: as cancelled if nothing else was said of it.
struct Tally {
    meter: Meter,
    counted: bool,
}

impl Tally {
    fn count(&mut self, outcome: impl FnOnce(&mut Outcomes)) {
        if !std::mem::replace(&mut self.counted, true) {
            self.meter.count(|metrics| outcome(&mut metrics.requests));
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.count(|outcomes| outcomes.cancelled += 1);
    }
}

impl Beams {
    /// Computes a prompt, and begins a beam search after it; the streams of its first step come with it. The prompt is not empty
    /// unless the model has a beginning-of-sequence token. The deadline counts from `called`.
    ///
    /// # Errors
    /// As [`Model::generate`](super::model::Model::generate).
    pub(super) fn begin(
        loaded: &Arc<Loaded>,
        mut prompt: Vec<u32>,
        given: &GenerateOptions,
        reply: Reply,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<(Self, Vec<Stream>)> {
        given.validate()?;
        if reply.source.is_some() {
            let enforced = "calls are enforced (strict, or parallel_tool_calls false)";
            let message = format!("option num_beams: expected 1 where {enforced}, found {}", given.num_beams);
            return Err(Error::invalid_argument(message).with("option", "num_beams"));
        }
        if prompt.is_empty() {
            prompt.push(loaded.bos.ok_or_else(no_beginning)?);
        }
        check_vocabulary(loaded, &prompt)?;
        let wanted = Wanted::of(given);
        if wanted.at_least() > loaded.max_context.saturating_sub(prompt.len()) {
            return Err(overflow(prompt.len(), wanted, loaded.max_context));
        }
        let adapter = loaded.adapter(given.adapter.as_deref())?;
        let breakers = dry_breakers(loaded, given)?;
        let words = given.bad_words.as_deref().unwrap_or_default();
        let budget = loaded.runtime.budget();
        let bad_words = loaded.shared.spellings.bad_words(words, loaded.text.as_ref(), budget)?;
        let mut options = resolve(loaded, given, prompt.len(), breakers)?;
        text_after(loaded, given, &mut options, &prompt, reply.tools.clone())?;
        // The first step begins with the logits of the last token.
        let common = prompt.split_last().map_or(&[][..], |(_, common)| common);
        let scores = given.prompt_logprobs.map(|top| PromptScores::new(&prompt, top));
        let (base, filled) = Session::filled(Arc::clone(loaded), common, scores, given, called, cancel)?;
        let meter = loaded.engine()?.meter().clone();
        let mut beams = Beams {
            loaded: Arc::clone(loaded),
            given: given.clone(),
            search: BeamSearch::new(&options),
            options,
            tools: reply.tools,
            bad_words,
            adapter,
            cancel: cancel.clone(),
            called,
            sessions: vec![base],
            found: Vec::new(),
            memory: None,
            filled,
            began: Instant::now(),
            first_token: None,
            last_token: None,
            // Until it has begun, nothing is counted.
            tally: Tally { meter, counted: true },
            prompt,
        };
        let last = beams.prompt.last().copied();
        let streams = beams.steps(last.into_iter().collect())?;
        beams.tally.counted = false;
        Ok((beams, streams))
    }

    /// Begins a step, with a token after each text.
    fn steps(&mut self, tokens: Vec<u32>) -> Result<Vec<Stream>> {
        self.found = self.sessions.iter().map(|_| None).collect();
        let step = |(session, token): (&Session, u32)| {
            let (options, bad_words) = (self.options.clone(), self.bad_words.clone());
            let mut job = Job::step(options, self.prompt.len(), bad_words, self.search.candidates());
            job.count_deadline_from(self.called);
            (job.ticket, job.processor) = (self.cancel.ticket(), self.given.logits_processor.clone());
            session.step(token, job, self.adapter.clone(), &self.cancel)
        };
        self.sessions.iter().zip(tokens).map(step).collect()
    }

    /// Takes the stream of text `place`, which has ended or is computed to its end.
    ///
    /// # Errors
    /// What happened while computing. The search has ended then.
    pub(super) fn take(&mut self, place: usize, stream: Stream) -> Result<Next> {
        self.advance(place, stream).inspect_err(|_| self.tally.count(|outcomes| outcomes.failed += 1))
    }

    fn advance(&mut self, place: usize, stream: Stream) -> Result<Next> {
        let found = stream.stepped()?;
        if let Some(slot) = self.found.get_mut(place) {
            *slot = Some(found);
        }
        if self.found.iter().any(Option::is_none) {
            return Ok(Next::Waits);
        }
        let found: std::result::Result<Vec<Continuations>, FinishReason> =
            std::mem::take(&mut self.found).into_iter().flatten().collect();
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                let texts = self.search.stop();
                return self.end(texts, Some(reason));
            }
        };
        let now = Instant::now();
        let before = self.last_token.replace(now);
        self.tally.meter.token(before.is_none(), (now - before.unwrap_or(self.called)).as_secs_f64());
        self.first_token.get_or_insert(now);
        let parents = self.search.step(&found)?;
        if parents.is_empty() {
            let texts = self.search.finish();
            return self.end(texts, None);
        }
        self.reserve()?;
        self.follow(&parents)?;
        let tokens = self.search.last_tokens().collect();
        Ok(Next::Steps(self.steps(tokens)?))
    }

    /// Sessions for texts that extend those of `parents`: a fork for each, or the session itself for the last one.
    fn follow(&mut self, parents: &[usize]) -> Result<()> {
        let mut before: Vec<Option<Session>> =
            std::mem::take(&mut self.sessions).into_iter().map(Some).collect();
        // Those that nobody extends make room first.
        for (index, session) in before.iter_mut().enumerate() {
            if !parents.contains(&index) {
                *session = None;
            }
        }
        for (place, &parent) in parents.iter().enumerate() {
            let last = !parents[place + 1..].contains(&parent);
            let session = before.get_mut(parent);
            let session = session
                .and_then(|one| if last { one.take().map(Ok) } else { one.as_ref().map(Session::fork) });
            self.sessions.push(session.ok_or_else(|| Error::internal("expected a text to go on from"))??);
        }
        Ok(())
    }

    /// Reserves what the texts take, and as much again for those of the next step.
    fn reserve(&mut self) -> Result<()> {
        let bytes = (2 * self.search.bytes()) / STEP * STEP;
        if bytes <= self.memory.as_ref().map_or(0, Reservation::bytes) {
            return Ok(());
        }
        let (loaded, purpose) = (Arc::clone(&self.loaded), "texts of a beam search");
        let memory = &mut self.memory;
        loaded.when_there_is_room(&self.cancel, || match memory {
            Some(memory) => memory.resize(bytes, purpose),
            None => {
                *memory = Some(loaded.runtime.budget().reserve_growing(bytes, purpose)?);
                Ok(())
            }
        })
    }

    /// The result, from the texts that were found, best first. `cut`: why the search was stopped before its end.
    fn end(&mut self, texts: Vec<Ended>, cut: Option<FinishReason>) -> Result<Next> {
        self.sessions.clear();
        let (n, beams) = (self.options.n, self.options.num_beams);
        if cut.is_none() && texts.len() < n as usize {
            let expected =
                format!("at most {}, as masks leave no more texts to num_beams {beams}", texts.len());
            let error = Error::invalid_argument(format!("option n: expected {expected}, found {n}"));
            return Err(error.with("option", "n").with("expected", expected).with("found", n.to_string()));
        }
        let completions = texts.iter().take(n as usize).map(|text| self.completion(text, cut));
        let mut completions = completions.collect::<Result<Vec<_>>>()?.into_iter();
        let mut first =
            completions.next().ok_or_else(|| Error::internal("expected a completion, found none"))?;
        first.alternatives = completions.collect();
        let Filled { usage, prompt_logprobs } = &mut self.filled;
        first.prompt_logprobs = prompt_logprobs.take();
        first.usage.cached_tokens = usage.cached_tokens;
        first.usage.queue_seconds = usage.queue_seconds;
        let computed = self.first_token.unwrap_or_else(Instant::now) - self.began;
        first.usage.prefill_seconds = usage.prefill_seconds + computed.as_secs_f64();
        self.count(&first);
        Ok(Next::Done(Box::new(first)))
    }

    fn completion(&self, text: &Ended, cut: Option<FinishReason>) -> Result<Completion> {
        let mut options = self.options.clone();
        let says = text_after(&self.loaded, &self.given, &mut options, &self.prompt, self.tools.clone())?;
        let said = says.map(|says| says.whole(&text.tokens, text.stopped)).transpose()?.unwrap_or_default();
        let Said { text: answer, reasoning, calls: tool_calls, warnings, .. } = said;
        let own = if text.stopped { FinishReason::Stop } else { FinishReason::Length };
        let decode = self.first_token.map_or(0.0, |first| first.elapsed().as_secs_f64());
        Ok(Completion {
            text: answer,
            reasoning,
            tool_calls,
            warnings,
            token_ids: text.tokens.clone(),
            finish_reason: cut.unwrap_or(own),
            usage: Usage {
                prompt_tokens: self.prompt.len(),
                cached_tokens: self.prompt.len() - 1,
                completion_tokens: text.tokens.len(),
                decode_seconds: decode,
                ..Usage::default()
            },
            logprobs: options.logprobs.map(|_| text.logprobs()),
            prompt_logprobs: None,
            alternatives: Vec::new(),
            options: options.to_json(),
        })
    }

    /// Counts the request, which has ended with `first`.
    fn count(&mut self, first: &Completion) {
        self.tally.count(|outcomes| match first.finish_reason {
            FinishReason::Stop => outcomes.stop += 1,
            FinishReason::Length => outcomes.length += 1,
            FinishReason::Cancelled => outcomes.cancelled += 1,
            FinishReason::Deadline => outcomes.deadline += 1,
        });
        let Usage { prompt_tokens, cached_tokens, .. } = first.usage;
        self.tally.meter.count(|metrics| {
            metrics.prompt_tokens += prompt_tokens as u64;
            metrics.cached_tokens += cached_tokens as u64;
        });
        if self.first_token.is_some() {
            let Usage { queue_seconds: queue, prefill_seconds: prefill, decode_seconds: decode, .. } =
                first.usage;
            self.tally.meter.times(Times { queue, prefill, decode });
        }
    }

    /// Computes to the end, from the streams of the first step.
    ///
    /// # Errors
    /// As [`Beams::take`].
    pub(super) fn finish(mut self, mut streams: Vec<Stream>) -> Result<Completion> {
        loop {
            let mut next = Next::Waits;
            for (place, stream) in streams.into_iter().enumerate() {
                next = self.take(place, stream)?;
            }
            match next {
                Next::Steps(steps) => streams = steps,
                Next::Done(completion) => return Ok(*completion),
                Next::Waits => return Err(Error::internal("expected a step of a beam search, found none")),
            }
        }
    }
}
