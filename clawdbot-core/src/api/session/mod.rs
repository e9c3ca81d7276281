//! Conversations: a session keeps its tokens and their cache between requests; a stream is one request's events.

mod branch;
mod prompt;
mod save;
mod slot;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::loaded::Loaded;
use super::reply::Reply;
use crate::cancel::{CancelHandle, Ticket};
use crate::constraint::{Guide, Lead};
use crate::engine::{Constrained, Job, JobText, PromptScores, Scores};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Completion, FinishReason};
use crate::forward::adapter::Adapter;
use crate::forward::pooling::Pooler;
use crate::options::GenerateOptions;
use crate::runtime::LogLevel;
use crate::tokenizer::AddSpecialTokens;

pub(crate) use branch::Filled;
pub use prompt::Prompt;
pub(crate) use prompt::{
    Wanted, check_vocabulary, dry_breakers, no_beginning, overflow, overflow_at_least, resolve, text_after,
};
use slot::Slot;
pub use stream::Stream;
pub(crate) use stream::run_together;
use stream::{last_event, next_event, stopped};

/// Which events a caller wants to see, and when it asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The completion alone.
    at_the_end: bool,
    /// From then on, its deadline counts.
    since: Instant,
    /// It is part of a request that was admitted.
    admitted: bool,
}

impl Delivery {
    /// All events, asked for now.
    pub(crate) fn each_token() -> Self {
        Delivery { at_the_end: false, ..Delivery::at_the_end() }
    }

    /// The completion alone, asked for now.
    pub(crate) fn at_the_end() -> Self {
        Delivery::at_the_end_since(Instant::now())
    }

    /// The completion alone, asked for at `since`.
    pub(crate) fn at_the_end_since(since: Instant) -> Self {
        Delivery { at_the_end: true, since, admitted: false }
    }

    /// As [`Delivery::at_the_end_since`], for a part of a request that was admitted: it begins, whatever waits.
    pub(crate) fn of_a_part_since(since: Instant) -> Self {
        Delivery { admitted: true, ..Delivery::at_the_end_since(since) }
    }
}

/// A conversation: its tokens, and their keys and values in the model's cache.
///
/// Dropping it gives its part of the cache back.
pub struct Session {
    slot: Arc<Slot>,
}

impl Session {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Result<Self> {
        let id = loaded.when_there_is_room(&CancelHandle::default(), || loaded.engine()?.open())?;
        Ok(Session { slot: Arc::new(Slot::new(loaded, id)) })
    }

    /// A session for one request: once that has ended, its part of the cache is given back.
    pub(crate) fn once(loaded: Arc<Loaded>) -> Result<Self> {
        let session = Session::new(loaded)?;
        session.slot.loaded.engine()?.idle(session.slot.id)?.once = true;
        Ok(session)
    }

    /// Adds to the conversation, and says how many tokens that was. Computation starts with the next request.
    ///
    /// `add_special_tokens`: whether text gets the tokenizer's special tokens, such as BOS; usually for the first text
    /// alone, and not for rendered chat templates, which bring their own. A BOS that the text begins with is not doubled.
    ///
    /// # Errors
    /// `InvalidArgument` for a token outside the vocabulary or while a stream is running, `ContextOverflow`.
    pub fn append(
        &mut self,
        prompt: impl Into<Prompt>,
        add_special_tokens: AddSpecialTokens,
    ) -> Result<usize> {
        self.append_until(prompt, add_special_tokens, &CancelHandle::default())
    }

    /// As [`Session::append`], but stops when `cancel` is cancelled; nothing is added then.
    ///
    /// # Errors
    /// As [`Session::append`]; `Cancelled`.
    pub fn append_until(
        &mut self,
        prompt: impl Into<Prompt>,
        add_special_tokens: AddSpecialTokens,
        cancel: &CancelHandle,
    ) -> Result<usize> {
        self.extend_until(prompt.into(), add_special_tokens, Wanted::Nothing, cancel)
    }

    /// As [`Session::append_until`], for a request that wants something: errors say what.
    pub(crate) fn extend_until(
        &mut self,
        prompt: Prompt,
        add_special_tokens: AddSpecialTokens,
        wanted: Wanted,
        cancel: &CancelHandle,
    ) -> Result<usize> {
        let Slot { loaded, id, .. } = &*self.slot;
        let tokens = match prompt {
            Prompt::Text(text) => {
                let before = loaded.engine()?.idle(*id)?.tokens.len();
                loaded.encode(&text, add_special_tokens, before, wanted, cancel)?
            }
            Prompt::Tokens(tokens) => tokens,
        };
        check_vocabulary(loaded, &tokens)?;
        let mut engine = loaded.engine()?;
        let sequence = engine.idle(*id)?;
        let length = sequence.tokens.len() + tokens.len();
        if length > loaded.max_context {
            return Err(overflow(length, wanted, loaded.max_context));
        }
        let within = add_special_tokens.is_yes()
            && !sequence.tokens.is_empty()
            && tokens.first().is_some_and(|first| Some(*first) == loaded.bos);
        drop(engine);
        loaded.when_there_is_room(cancel, || loaded.engine()?.append(*id, &tokens))?;
        if within {
            loaded.runtime.log(LogLevel::Warning, || {
                "a beginning-of-sequence token was appended within a session: append later texts without special tokens"
                    .to_owned()
            });
        }
        Ok(tokens.len())
    }

    /// Generates a continuation, event by event. The tokens become part of the conversation.
    ///
    /// # Errors
    /// `EmptyPrompt`, `ContextOverflow`, `InvalidArgument`.
    pub fn stream(&mut self, options: &GenerateOptions) -> Result<Stream> {
        self.request(options, Delivery::each_token(), Ticket::default())
    }

    pub(crate) fn loaded(&self) -> &Loaded {
        &self.slot.loaded
    }

    /// A request that `ticket` cancels.
    pub(crate) fn request(
        &mut self,
        options: &GenerateOptions,
        delivery: Delivery,
        ticket: Ticket,
    ) -> Result<Stream> {
        self.request_from(None, Reply::of(options)?, options, delivery, ticket)
    }

    /// A request from `whole` instead of the session's tokens, whose common head is kept with its cache. `reply`: what the answer
    /// may be.
    pub(crate) fn request_from(
        &mut self,
        whole: Option<Vec<u32>>,
        reply: Reply,
        options: &GenerateOptions,
        delivery: Delivery,
        ticket: Ticket,
    ) -> Result<Stream> {
        options.check_one()?;
        let Slot { loaded, id, .. } = &*self.slot;
        let adapter = loaded.adapter(options.adapter.as_deref())?;
        let breakers = dry_breakers(loaded, options)?;
        let began = Instant::now();
        let Reply { tools, source, free, refused } = reply;
        let constraints = &loaded.shared.constraints;
        let grammar = source
            .map(|source| constraints.grammar(source, loaded.text.as_ref(), loaded.runtime.budget()))
            .transpose()?;
        let words = options.bad_words.as_deref().unwrap_or_default();
        let spellings = &loaded.shared.spellings;
        let bad_words = spellings.bad_words(words, loaded.text.as_ref(), loaded.runtime.budget())?;
        let mut engine = loaded.engine()?;
        // Nothing of the session changes before everything is checked.
        if !delivery.admitted {
            engine.check_queue()?;
        }
        let sequence = engine.idle(*id)?;
        check_vocabulary(loaded, whole.as_deref().unwrap_or_default())?;
        let tokens = whole.as_ref().unwrap_or(&sequence.tokens);
        let whole = match tokens.is_empty() {
            true => Some(vec![loaded.bos.ok_or_else(no_beginning)?]),
            false => whole,
        };
        let tokens = whole.as_ref().unwrap_or(&sequence.tokens);
        let kept = tokens.iter().zip(&sequence.tokens).take_while(|(new, old)| new == old).count();
        let (length, context) = (tokens.len(), loaded.max_context);
        let wanted = Wanted::of(options);
        if wanted.at_least() > context.saturating_sub(length) {
            return Err(overflow(length, wanted, context));
        }
        let mut resolved = resolve(loaded, options, length, breakers)?;
        let prompt_scores = options.prompt_logprobs.map(|top| PromptScores::new(tokens, top));
        let idle = options.without_effect(&resolved);
        let text = text_after(loaded, options, &mut resolved, tokens, tools)?;
        let constrained = grammar.map(|grammar| {
            let (ends, left) = (&resolved.ends(), (context - length).min(resolved.max_tokens as usize));
            let reasoning = text.as_ref().and_then(JobText::reasoning_marks);
            let follows = text.as_ref().is_some_and(JobText::follows);
            let guide = Guide::new(&grammar, ends, follows, Lead { reasoning, free, refused })?;
            Constrained::new(guide, ends, left, began).map(Box::new)
        });
        let constrained = constrained.transpose()?;
        let mut job = Job::generate(resolved, length, text);
        (job.constrained, job.bad_words) = (constrained, bad_words);
        (job.prompt_scores, job.processor) = (prompt_scores, options.logits_processor.clone());
        (job.quiet, job.admitted) = (delivery.at_the_end, delivery.admitted);
        job.count_deadline_from(delivery.since);
        job.ticket = ticket;
        let replaced = whole.is_some();
        if let Some(whole) = whole {
            engine.truncate(*id, kept)?;
            engine.idle(*id)?.tokens.extend_from_slice(&whole[kept..]);
        }
        engine.adapt(*id, adapter)?;
        let stream = Stream::start(&self.slot, &mut engine, job).inspect_err(|_| {
            if replaced {
                // It is idle, and gets smaller.
                let _ = engine.truncate(*id, kept);
            }
        })?;
        // The hook is the host's: it is not called with the engine's lock.
        drop(engine);
        if !idle.is_empty() {
            let names = idle.join(", ");
            loaded.runtime.log(LogLevel::Warning, || {
                format!("{names}: without effect while temperature is 0, which is this model's default")
            });
        }
        Ok(stream.begun())
    }

    /// Generates a continuation.
    ///
    /// # Errors
    /// As [`Session::stream`], and what may happen while computing: `OutOfBudget`, `NonFinite`.
    pub fn generate(&mut self, options: &GenerateOptions) -> Result<Completion> {
        self.request(options, Delivery::at_the_end(), Ticket::default())?.finish()
    }

    /// All tokens of the conversation, prompts and outputs.
    ///
    /// # Errors
    /// `ForkedRuntime`.
    pub fn tokens(&self) -> Result<Vec<u32>> {
        Ok(self.slot.loaded.engine()?.tokens(self.slot.id)?.to_vec())
    }

    /// A conversation of its own that begins as this one is. What is cached is shared, and copied page by page where one of
    /// the two goes on, so that a fork costs no computation and little memory.
    ///
    /// # Errors
    /// `InvalidArgument` while a stream is running, `OutOfBudget`, `Closed`, `ForkedRuntime`.
    pub fn fork(&self) -> Result<Session> {
        let Slot { loaded, id, .. } = &*self.slot;
        let fork = || loaded.engine()?.fork(*id);
        let id = loaded.when_there_is_room(&CancelHandle::default(), fork)?;
        Ok(Session { slot: Arc::new(Slot::new(Arc::clone(loaded), id)) })
    }

    /// Forgets all but the first `length` tokens.
    ///
    /// # Errors
    /// `InvalidArgument` when there are fewer, or while a stream is running.
    pub fn truncate(&mut self, length: usize) -> Result<()> {
        let mut engine = self.slot.loaded.engine()?;
        let found = engine.idle(self.slot.id)?.tokens.len();
        if length > found {
            let message =
                format!("expected a length of at most the session's {found} tokens, found {length}");
            return Err(Error::invalid_argument(message));
        }
        engine.truncate(self.slot.id, length)
    }

    /// Pools the states of `tokens`, of kinds `types` (empty: 0 for all), at most as many as the context holds, in a session
    /// of their own: see [`Stream::pooled`].
    pub(crate) fn pool(
        self,
        tokens: Vec<u32>,
        types: Vec<u32>,
        pooler: Pooler,
        adapter: Option<Arc<Adapter>>,
        ticket: Ticket,
    ) -> Result<Stream> {
        let Slot { loaded, id, .. } = &*self.slot;
        check_vocabulary(loaded, &tokens)?;
        let mut engine = loaded.engine()?;
        let sequence = engine.idle(*id)?;
        let length = tokens.len();
        (sequence.tokens, sequence.token_types) = (tokens, types);
        engine.adapt(*id, adapter)?;
        let mut job = Job::pool(length, pooler);
        job.ticket = ticket;
        let stream = Stream::start(&self.slot, &mut engine, job)?;
        drop(engine);
        Ok(stream.begun())
    }

    /// Logits at all tokens of the session, `expected` floats, in `scores`.
    pub(crate) fn score(
        self,
        scores: Vec<f32>,
        expected: usize,
        adapter: Option<Arc<Adapter>>,
        cancel: &CancelHandle,
    ) -> Result<Vec<f32>> {
        let Slot { loaded, id, .. } = &*self.slot;
        let mut engine = loaded.engine()?;
        let tokens = engine.idle(*id)?.tokens.len();
        if tokens == 0 {
            return Err(Error::new(ErrorKind::EmptyPrompt, "expected at least one token"));
        }
        engine.adapt(*id, adapter)?;
        let mut job = Job::score(tokens, Scores::Logits(scores));
        job.ticket = cancel.ticket();
        let ticket = engine.start(*id, job)?;
        drop(engine);
        let completion = last_event(|| next_event(loaded, *id, &ticket))?;
        if completion.finish_reason == FinishReason::Cancelled {
            return Err(stopped(loaded));
        }
        match loaded.engine()?.stop(*id, &ticket).and_then(|job| job.scores) {
            Some(Scores::Logits(scores)) if scores.len() == expected => Ok(scores),
            _ => Err(Error::internal(format!("expected {expected} logits, found others"))),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.slot.id).finish_non_exhaustive()
    }
}
