//! Sessions that begin with the same tokens, which are computed once.

use std::sync::Arc;
use std::time::Instant;

use super::prompt::{check_vocabulary, no_beginning};
use super::slot::Slot;
use super::{Prompt, Session, Stream};
use crate::api::loaded::Loaded;
use crate::cancel::CancelHandle;
use crate::engine::{Job, NextTokens, PromptScores, Scores};
use crate::error::Result;
use crate::event::{Completion, Usage};
use crate::forward::adapter::Adapter;
use crate::options::GenerateOptions;
use crate::sampling::Logprobs;
use crate::tokenizer::AddSpecialTokens;

/// What came of computing a prompt.
pub(crate) struct Filled {
    pub(crate) usage: Usage,
    pub(crate) prompt_logprobs: Option<Vec<Logprobs>>,
}

impl Filled {
    /// Of no tokens.
    fn nothing(scores: Option<PromptScores>) -> Self {
        Filled { usage: Usage::default(), prompt_logprobs: scores.map(|scores| scores.found) }
    }
}

impl Session {
    /// A session with `tokens`, all of them computed with the adapter of `options`, unless `cancel` or a deadline stops that:
    /// then requests that begin with it say so. `scores`: how likely its tokens are, if that is to be said. The deadline counts
    /// from `called`. Returns what was computed, too.
    ///
    /// # Errors
    /// As [`Session::append`] and [`Session::generate`].
    pub(crate) fn filled(
        loaded: Arc<Loaded>,
        tokens: &[u32],
        scores: Option<PromptScores>,
        options: &GenerateOptions,
        called: Instant,
        cancel: &CancelHandle,
    ) -> Result<(Session, Filled)> {
        check_vocabulary(&loaded, tokens)?;
        let mut session = Session::new(loaded)?;
        if tokens.is_empty() {
            return Ok((session, Filled::nothing(scores)));
        }
        session.append_until(Prompt::Tokens(tokens.to_vec()), AddSpecialTokens::No, cancel)?;
        let Slot { loaded, id, .. } = &*session.slot;
        let adapter = loaded.adapter(options.adapter.as_deref())?;
        let mut engine = loaded.engine()?;
        engine.adapt(*id, adapter)?;
        let mut job = Job::fill(tokens.len(), options);
        job.count_deadline_from(called);
        (job.ticket, job.prompt_scores) = (cancel.ticket(), scores);
        let stream = Stream::start(&session.slot, &mut engine, job)?;
        drop(engine);
        let Completion { usage, prompt_logprobs, .. } = stream.begun().finish()?;
        Ok((session, Filled { usage, prompt_logprobs }))
    }

    /// Asks how likely the last tokens of `tokens`, from `first` on, are after those before them; `tokens` begin with those of
    /// this session, which are fewer than `first`. It is part of a request that was admitted. See [`Stream::scores`].
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub(crate) fn score_next(
        &self,
        tokens: &[u32],
        first: usize,
        adapter: Option<Arc<Adapter>>,
        cancel: &CancelHandle,
    ) -> Result<Stream> {
        let Slot { loaded, id, .. } = &*self.slot;
        let before = loaded.engine()?.tokens(*id)?.len();
        // Nothing follows the last one.
        let (_, asked) = tokens.split_last().ok_or_else(no_beginning)?;
        let more = asked.get(before..).unwrap_or_default();
        loaded.when_there_is_room(cancel, || loaded.engine()?.append(*id, more))?;
        let mut engine = loaded.engine()?;
        engine.adapt(*id, adapter)?;
        let targets = tokens.get(first..).unwrap_or_default().to_vec();
        let next = NextTokens { first: first.saturating_sub(1), targets, found: Vec::new() };
        let mut job = Job::score(asked.len(), Scores::Next(next));
        job.admitted = true;
        job.ticket = cancel.ticket();
        let stream = Stream::start(&self.slot, &mut engine, job)?;
        drop(engine);
        Ok(stream.begun())
    }

    /// Adds `token`, and takes a step of a beam search: see [`Stream::stepped`].
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub(crate) fn step(
        &self,
        token: u32,
        job: Job,
        adapter: Option<Arc<Adapter>>,
        cancel: &CancelHandle,
    ) -> Result<Stream> {
        let Slot { loaded, id, .. } = &*self.slot;
        loaded.when_there_is_room(cancel, || loaded.engine()?.append(*id, &[token]))?;
        let mut engine = loaded.engine()?;
        engine.adapt(*id, adapter)?;
        let stream = Stream::start(&self.slot, &mut engine, job)?;
        drop(engine);
        Ok(stream.begun())
    }
}
