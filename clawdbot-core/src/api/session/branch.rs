//! Sessions that begin with the same tokens, which are computed once.

use std::sync::Arc;

use super::prompt::check_vocabulary;
use super::slot::Slot;
use super::{Prompt, Session, Stream};
use crate::api::loaded::Loaded;
use crate::cancel::CancelHandle;
use crate::engine::Job;
use crate::error::Result;
use crate::event::Usage;
use crate::options::GenerateOptions;
use crate::tokenizer::AddSpecialTokens;

impl Session {
    /// A session with `tokens`, all of them computed with the adapter of `options`, unless `cancel` or a deadline stops that:
    /// then requests that begin with it say so. Returns what was computed, too.
    ///
    /// # Errors
    /// As [`Session::append`] and [`Session::generate`].
    pub(crate) fn filled(
        loaded: Arc<Loaded>,
        tokens: &[u32],
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<(Session, Usage)> {
        check_vocabulary(&loaded, tokens)?;
        let mut session = Session::new(loaded)?;
        if tokens.is_empty() {
            return Ok((session, Usage::default()));
        }
        session.append_until(Prompt::Tokens(tokens.to_vec()), AddSpecialTokens::No, cancel)?;
        let Slot { loaded, id, .. } = &*session.slot;
        let adapter = loaded.adapter(options.adapter.as_deref())?;
        let mut engine = loaded.engine()?;
        engine.adapt(*id, adapter)?;
        let mut job = Job::fill(tokens.len(), options);
        job.ticket = cancel.ticket();
        let stream = Stream::start(&session.slot, &mut engine, job)?;
        drop(engine);
        let usage = stream.begun().finish()?.usage;
        Ok((session, usage))
    }
}
