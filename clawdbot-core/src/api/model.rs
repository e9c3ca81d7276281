//! The public handle to a loaded model.

use std::fmt;
#[cfg(feature = "hub")]
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use super::loaded::Loaded;
use super::plan::Plan;
use super::session::Session;
use super::users::User;
use crate::error::{Error, ErrorKind, Result};
use crate::load::source::Source;
use crate::options::ModelOptions;
use crate::runtime::Runtime;
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
    loaded: RwLock<Option<Held>>,
    /// Whether a pool has the model: closing gives this handle up alone.
    pooled: bool,
}

/// What a handle keeps, until it is closed.
struct Held {
    loaded: Arc<Loaded>,
    _user: User,
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its number among the models and instances that its runtime has loaded, from 1: also that of its metrics.
    pub id: u64,
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

    /// A handle of its own.
    pub(super) fn new(loaded: Arc<Loaded>, info: ModelInfo) -> Self {
        Self::with(loaded, info, false)
    }

    /// A handle of a model that a pool has.
    pub(super) fn pooled(loaded: Arc<Loaded>, info: ModelInfo) -> Self {
        Self::with(loaded, info, true)
    }

    fn with(loaded: Arc<Loaded>, info: ModelInfo, pooled: bool) -> Self {
        let runtime = loaded.runtime.clone();
        let loaded = RwLock::new(Some(Held { _user: User::new(&loaded.users), loaded }));
        Model(Arc::new(Handle { info, runtime, loaded, pooled }))
    }

    /// Frees the model once its running requests have ended; they are cancelled. Everything else answers `Closed`. Of a model
    /// that a [`ModelPool`](crate::ModelPool) gave, this handle alone is given up, and nothing is cancelled. The weights stay in memory
    /// until the last of its sessions, streams (until their last event is read) and instances is dropped; instances go on.
    pub fn close(&self) {
        let taken = self.0.loaded.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Held { loaded, .. }) = taken else { return };
        if self.0.pooled {
            return;
        }
        loaded.keep_prefix_file();
        if let Ok(mut engine) = loaded.engine() {
            engine.shut();
        }
    }

    pub(crate) fn loaded(&self) -> Result<Arc<Loaded>> {
        let closed = || Error::new(ErrorKind::Closed, "the model is closed");
        let held = self.0.loaded.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| Arc::clone(&held.loaded)).ok_or_else(closed)
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
