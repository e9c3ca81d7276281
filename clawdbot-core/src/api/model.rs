//! The public handle to a loaded model, and what it holds.

use std::fmt;
#[cfg(feature = "hub")]
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::Serialize;

use super::adapters::Adapters;
use super::plan::Plan;
use super::session::Session;
use crate::cancel::{CancelHandle, cancelled};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Completion, Event};
use crate::forward::decoder::Decoder;
use crate::load::source::Source;
use crate::load::text::{Text, no_tokenizer};
use crate::options::{GenerationDefaults, ModelOptions};
use crate::runtime::{Reservation, Runtime};
use crate::sampling::Drawable;
use crate::spec::embedding::EmbeddingConfig;
use crate::tokenizer::Tokenizer;

/// A loaded model: immutable weights, tokenizer, chat template, and the engine that all its sequences share.
///
/// Cheap to clone, `Send + Sync`: use one from as many threads as you like. Requests that run at the same time are
/// computed together.
#[derive(Clone)]
pub struct Model(pub(crate) Arc<Handle>);

pub(crate) struct Handle {
    pub(crate) info: ModelInfo,
    pub(crate) runtime: Runtime,
    pub(crate) loaded: RwLock<Option<Arc<Loaded>>>,
}

/// Everything a model holds; freed when the model is closed and the last request has ended.
pub(crate) struct Loaded {
    pub(crate) runtime: Runtime,
    pub(crate) decoder: Decoder,
    pub(crate) embedding: EmbeddingConfig,
    pub(crate) options: ModelOptions,
    pub(crate) max_context: usize,
    pub(crate) defaults: GenerationDefaults,
    /// Tokens that end a generation.
    pub(crate) eos: Vec<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) text: Option<Text>,
    /// What may be generated.
    pub(crate) drawable: Drawable,
    pub(crate) engine: Mutex<Engine>,
    pub(crate) turn: Mutex<()>,
    pub(crate) adapters: RwLock<Adapters>,
    pub(crate) _reservation: Reservation,
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// What it would have cost, and did.
    #[serde(flatten)]
    pub plan: Plan,
    /// Rows of the embedding: token ids are below.
    pub vocab_size: usize,
    /// Beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
}

impl Loaded {
    /// The engine, for one caller at a time.
    ///
    /// # Errors
    /// `ForkedRuntime` in a forked child (whose copy of the lock may be held forever), `Internal` after a panic.
    pub(crate) fn engine(&self) -> Result<MutexGuard<'_, Engine>> {
        self.runtime.pool().check_fork()?;
        // Whoever waits for the engine waits here first, so that a caller who needs it again and again has to queue.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine.lock();
        drop(turn);
        engine.map_err(|_| {
            Error::internal("an earlier panic left the engine in an unknown state: load the model again")
        })
    }

    /// Reserves the memory that tokenizing `texts` needs while it runs.
    ///
    /// # Errors
    /// As [`Loaded::when_there_is_room`].
    pub(crate) fn reserve_encoding(&self, texts: &[&str], cancel: &CancelHandle) -> Result<Reservation> {
        let bytes = texts.iter().map(|text| Tokenizer::encoding_bytes(text)).fold(0, u64::saturating_add);
        self.when_there_is_room(cancel, || {
            self.runtime.budget().reserve_growing(bytes, "tokenizing the text")
        })
    }

    /// Calls `f` until it does not fail with `OutOfBudget`. In between, pages that nobody needs now are released, or else
    /// running requests are computed, a step at a time. `f` may lock the engine.
    ///
    /// # Errors
    /// As `f`, with `OutOfBudget` only when nothing can be released and nothing runs; `Cancelled`; as [`Engine::step`].
    pub(crate) fn when_there_is_room<T>(
        &self,
        cancel: &CancelHandle,
        mut f: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match f() {
                Err(error) if error.kind() == ErrorKind::OutOfBudget => {
                    if cancel.is_cancelled() {
                        return Err(cancelled());
                    }
                    if !self.engine()?.make_some_room(self)? {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the model has none.
    pub(crate) fn text(&self) -> Result<&Text> {
        self.text.as_ref().ok_or_else(no_tokenizer)
    }
}

impl Model {
    /// Loads the model in the directory, GGUF or packed file `path` with default options, on a runtime of its own.
    ///
    /// With the feature `hub`, `path` may also name a repository, as for `Source::fetch`.
    ///
    /// # Errors
    /// As [`Runtime::load`]; as `Source::fetch`.
    pub fn from_pretrained(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        #[cfg(feature = "hub")]
        let source = match path.to_str() {
            Some(name) => {
                Source::fetch(name, &Default::default(), |_| ControlFlow::Continue(())).map(Source::Path)?
            }
            None => Source::from(path),
        };
        #[cfg(not(feature = "hub"))]
        let source = Source::from(path);
        Runtime::new(&Default::default())?.load(&source, &ModelOptions::default())
    }

    /// Loads the built-in story model with default options, on a runtime of its own.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn builtin() -> Result<Self> {
        Runtime::new(&Default::default())?.load(&Source::Builtin, &ModelOptions::default())
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    /// The runtime that computes it.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Frees the model once its running requests have ended; they are cancelled. Everything else answers `Closed`.
    pub fn close(&self) {
        let taken = self.0.loaded.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(loaded) = taken
            && let Ok(mut engine) = loaded.engine()
        {
            engine.shut();
        }
    }

    pub(crate) fn loaded(&self) -> Result<Arc<Loaded>> {
        let closed = || Error::new(ErrorKind::Closed, "the model is closed");
        self.0.loaded.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// `Closed`; `InvalidTokenizer` for a model without one.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(self.loaded()?.text()?.tokenizer.clone())
    }

    /// A new conversation without tokens.
    ///
    /// # Errors
    /// `UnsupportedModel` for a model that does not generate, such as an encoder; `Closed`, `ForkedRuntime`.
    pub fn session(&self) -> Result<Session> {
        Session::new(self.generating()?)
    }

    /// What is loaded, if it generates.
    pub(crate) fn generating(&self) -> Result<Arc<Loaded>> {
        let loaded = self.loaded()?;
        let spec = &loaded.decoder.spec;
        if !spec.generates() {
            let (architecture, tasks) = (spec.architecture, spec.tasks().join(" and "));
            let message =
                format!("{architecture} has no output head and does not generate: it can only {tasks}");
            return Err(Error::unsupported_model(message));
        }
        Ok(loaded)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("info", &self.0.info).finish_non_exhaustive()
    }
}

/// Waits for the end of a stream of events.
pub(crate) fn last_event(mut next: impl FnMut() -> Result<Option<Event>>) -> Result<Completion> {
    while let Some(event) = next()? {
        if let Event::Done(completion) = event {
            return Ok(*completion);
        }
    }
    Err(Error::new(ErrorKind::Closed, "the stream has already given its completion"))
}
