//! The public handle: load, generate, score, render.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::Serialize;

use super::adapter::{Adapter, Adapters};
use super::build::Builder;
use super::decoder::{Decoder, floats};
use super::embed::EmbeddingInfo;
use super::embedding::EmbeddingConfig;
use super::load_cache::CacheEntry;
use super::plan::{Plan, Sizes};
use super::pooling::Pooler;
use super::source::{Opened, Source, Text, Weights};
use crate::cache::KvCache;
use crate::engine::{Engine, reserved_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Completion, Event};
use crate::model::generation::GenerationDefaults;
use crate::options::ModelOptions;
use crate::runtime::{LogLevel, Reservation, Runtime};
use crate::sampling::Drawable;
use crate::session::{CancelHandle, Prompt, Session, Wanted, overflow};
use crate::tokenizer::Tokenizer;
use crate::weights::beside_text;

/// A loaded model: immutable weights, tokenizer, chat template, and the engine that all its sequences share.
///
/// Cheap to clone, `Send + Sync`: use one from as many threads as you like. Requests that run at the same time are
/// computed together.
#[derive(Clone)]
pub struct Model(Arc<Handle>);

struct Handle {
    info: ModelInfo,
    runtime: Runtime,
    loaded: RwLock<Option<Arc<Loaded>>>,
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
    engine: Mutex<Engine>,
    turn: Mutex<()>,
    adapters: RwLock<Adapters>,
    _reservation: Reservation,
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
    /// Whether messages can be rendered.
    pub has_chat_template: bool,
    /// What it can do: `generate`, `embed`; `rerank` of models with a head for scores.
    pub tasks: Vec<&'static str>,
    /// How texts become vectors.
    pub embedding: EmbeddingInfo,
}

impl Runtime {
    /// What loading `source` with `options` would cost. Opens and checks the files, but reads no weights, unless asked to
    /// `verify` them.
    ///
    /// # Errors
    /// As [`Runtime::load`], but for the budget.
    pub fn plan(&self, source: &Source, options: &ModelOptions) -> Result<Plan> {
        options.validate()?;
        let opened = Opened::open_with(source, options, &mut |_, _| true)?.merged(&options.merge_adapters)?;
        let verified = opened.verify(options, &mut |_, _| true)?;
        Ok(Plan { verified, ..Plan::new(self, &opened, &opened.resolve(options)?)? })
    }

    /// Loads a model.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `InvalidModel`, `UnsupportedModel`, `InvalidTokenizer`, `InvalidTemplate` for what is wrong
    /// with the files; `InvalidArgument` for options; `OutOfBudget` before anything is allocated.
    pub fn load(&self, source: &Source, options: &ModelOptions) -> Result<Model> {
        self.load_with_progress(source, options, |_, _| true)
    }

    /// Loads a model and calls `progress(weights done, weights in all)` now and then; false cancels.
    ///
    /// # Errors
    /// As [`Runtime::load`]; `Cancelled`.
    pub fn load_with_progress(
        &self,
        source: &Source,
        options: &ModelOptions,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Model> {
        self.pool().check_fork()?;
        options.validate()?;
        let opened = Opened::open_with(source, options, &mut progress)?.merged(&options.merge_adapters)?;
        self.load_opened(opened, options, progress)
    }

    /// Loads what is opened, with options that are validated.
    ///
    /// # Errors
    /// As [`Runtime::load_with_progress`].
    pub(crate) fn load_opened(
        &self,
        mut opened: Opened,
        options: &ModelOptions,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Model> {
        let options = &opened.resolve(options)?;
        if let Some(source) = &options.chat_template {
            opened.text.as_mut().ok_or_else(no_tokenizer)?.set_template(source)?;
        }
        let mut plan = Plan::new(self, &opened, options)?;
        let sizes = Sizes::of(&opened, options, self.threads())?;
        let available = self.budget().reserve(plan.load_bytes, "weights, scratch and a page of KV cache")?;
        drop(available);
        self.prove_kernels();
        let reservation =
            self.budget().reserve(sizes.weights.saturating_add(sizes.scratch), "weights and scratch")?;
        let weight_type = options.weight_type();
        let mut entry = CacheEntry::of(&opened, &options.cache, weight_type)
            .inspect_err(|error| CacheEntry::complain(self, &opened, error))
            .unwrap_or_default();
        if let Some(cached) = &entry {
            match cached.lookup(&mut opened, weight_type) {
                Ok(true) => entry = None,
                Ok(false) => {}
                Err(error) => CacheEntry::complain(self, &opened, &error),
            }
        }
        plan.verified = opened.verify(options, &mut progress)?;
        let mapped = match &opened.weights {
            Weights::Packed(file) if options.mmap => Some(file.map()?),
            _ => None,
        };
        let (others, unused): (Vec<&str>, Vec<&str>) =
            opened.unused.iter().map(String::as_str).partition(|name| beside_text(name));
        let name = &opened.name;
        for note in &opened.notes {
            self.log(LogLevel::Warning, || note.clone());
        }
        let some = |names: &[&str]| names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        if !others.is_empty() {
            let (count, some) = (others.len(), some(&others));
            let what = "tensors are not of the text model, which alone is loaded";
            self.log(LogLevel::Info, || format!("{name}: {count} {what}: {some} ..."));
        }
        if !unused.is_empty() {
            let (count, some) = (unused.len(), some(&unused));
            self.log(LogLevel::Warning, || format!("{name}: {count} tensors are not used: {some} ..."));
        }
        let spec = opened.spec.clone();
        let cache = KvCache::new(options.kv_type(), &spec.layer_states(), self.budget())?;
        let mut builder = Builder {
            kernels: self.kernel_set(),
            pool: self.pool(),
            weights: &opened.weights,
            last: None,
            mapped,
            weight_type,
            progress: &mut progress,
            done: 0,
            total: 0,
        };
        let decoder = builder.build(spec)?;
        let total = builder.total;
        drop(builder);
        if let Some(entry) = entry {
            match entry.store(&opened, &decoder, weight_type, &mut || progress(total, total)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => CacheEntry::complain(self, &opened, &error),
            }
        }
        let Opened { defaults, text, name, embedding, .. } = opened;
        let spec = &decoder.spec;
        let eos =
            if defaults.eos_token_id.is_empty() { spec.eos.clone() } else { defaults.eos_token_id.clone() };
        let bos = defaults.bos_token_id.or(spec.bos);
        let info = ModelInfo {
            vocab_size: spec.vocab_size,
            bos_token_id: bos,
            eos_token_ids: eos.clone(),
            has_chat_template: text.as_ref().is_some_and(|text| text.templates.is_some()),
            tasks: spec.tasks(),
            embedding: EmbeddingInfo::new(&embedding, spec.pooled_size(), sizes.max_context),
            plan,
        };
        self.log(LogLevel::Info, || format!("{name}: loaded {} parameters", info.plan.parameters));
        let every = || Drawable::all(spec.vocab_size);
        let drawable =
            text.as_ref().map_or_else(every, |text| Drawable::of(&text.tokenizer, spec.vocab_size));
        let loaded = Loaded {
            runtime: self.clone(),
            drawable,
            options: options.clone(),
            max_context: sizes.max_context,
            defaults,
            eos,
            bos,
            text,
            embedding,
            engine: Mutex::new(Engine::new(cache, reserved_bytes(options), self.budget())),
            turn: Mutex::new(()),
            adapters: RwLock::default(),
            decoder,
            _reservation: reservation,
        };
        let loaded = RwLock::new(Some(Arc::new(loaded)));
        Ok(Model(Arc::new(Handle { info, runtime: self.clone(), loaded })))
    }
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

    /// The adapter of that name; none for none.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not loaded.
    pub(crate) fn adapter(&self, name: Option<&str>) -> Result<Option<Arc<Adapter>>> {
        let Some(name) = name else { return Ok(None) };
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        match adapters.get(name) {
            Some(adapter) => Ok(Some(Arc::clone(adapter))),
            None => Err(no_adapter(name, &adapters)),
        }
    }

    /// Takes out of the budget what tokenizing `texts` needs while it runs.
    pub(crate) fn reserve_encoding(&self, texts: &[&str]) -> Result<Reservation> {
        let bytes = texts.iter().map(|text| Tokenizer::encoding_bytes(text)).fold(0, u64::saturating_add);
        self.runtime.budget().reserve_growing(bytes, "tokenizing the text")
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the model has none.
    pub(crate) fn text(&self) -> Result<&Text> {
        self.text.as_ref().ok_or_else(no_tokenizer)
    }
}

fn no_adapter(name: &str, adapters: &Adapters) -> Error {
    let loaded: Vec<&str> = adapters.keys().map(String::as_str).collect();
    let loaded = if loaded.is_empty() { "none".to_owned() } else { loaded.join(", ") };
    let message = format!("option adapter: expected the name of a loaded adapter ({loaded}), found {name:?}");
    Error::invalid_argument(message).with("option", "adapter").with("found", name)
}

pub(crate) fn no_tokenizer() -> Error {
    Error::invalid_tokenizer("this model has no tokenizer: use token ids")
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
            Some(name) => Source::fetch(name, &Default::default(), |_, _| true).map(Source::Path)?,
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

    /// Loads the LoRA adapter in `dir`, as PEFT writes it, for requests that name it (`GenerateOptions::adapter`). It is
    /// applied beside the weights, which stay as they are; requests with different adapters, and without, are computed
    /// together. Its memory counts in the runtime's budget.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty or taken; `NotFound`, `Io`, `InvalidModel`, `UnsupportedModel` for what
    /// is wrong with the files; `OutOfBudget`, `Closed`, `ForkedRuntime`.
    pub fn load_adapter(&self, name: &str, dir: impl AsRef<Path>) -> Result<()> {
        let loaded = self.loaded()?;
        loaded.runtime.pool().check_fork()?;
        let taken = |adapters: &Adapters| match adapters.contains_key(name) || name.is_empty() {
            true => Err(Error::invalid_argument(format!(
                "adapter: expected a name that is not empty and not taken, found {name:?}"
            ))
            .with("found", name)),
            false => Ok(()),
        };
        taken(&loaded.adapters.read().unwrap_or_else(PoisonError::into_inner))?;
        let adapter = Adapter::load(&loaded.runtime, dir.as_ref(), &loaded.decoder.spec, &loaded.options)?;
        let mut adapters = loaded.adapters.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        taken(&adapters)?;
        adapters.insert(name.to_owned(), Arc::new(adapter));
        Ok(())
    }

    /// Unloads an adapter. Requests that run with it go on; its memory is freed with the last session that used it.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not loaded; `Closed`.
    pub fn unload_adapter(&self, name: &str) -> Result<()> {
        let loaded = self.loaded()?;
        let mut adapters = loaded.adapters.write().unwrap_or_else(PoisonError::into_inner);
        match adapters.remove(name) {
            Some(_) => Ok(()),
            None => Err(no_adapter(name, &adapters)),
        }
    }

    /// The names of the loaded adapters, sorted.
    ///
    /// # Errors
    /// `Closed`.
    pub fn adapters(&self) -> Result<Vec<String>> {
        let loaded = self.loaded()?;
        let adapters = loaded.adapters.read().unwrap_or_else(PoisonError::into_inner);
        Ok(adapters.keys().cloned().collect())
    }

    /// A new conversation without tokens.
    ///
    /// # Errors
    /// `UnsupportedModel` for a model that does not generate, such as an encoder; `Closed`, `ForkedRuntime`.
    pub fn session(&self) -> Result<Session> {
        Session::new(self.generating()?)
    }

    /// What is loaded, if it generates.
    pub(super) fn generating(&self) -> Result<Arc<Loaded>> {
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

    /// Logits at every position of `tokens`: `[tokens.len(), vocab_size]`, row-major.
    ///
    /// # Errors
    /// `EmptyPrompt`, `ContextOverflow`, `InvalidArgument` for a token outside the vocabulary, `Closed`,
    /// `OutOfBudget`, `ForkedRuntime`.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.logits_with(tokens, None)
    }

    /// As [`Model::logits_with`], but stops when `cancel` is cancelled, within a layer of the model.
    ///
    /// # Errors
    /// As [`Model::logits_with`]; `Cancelled`.
    pub fn logits_until(
        &self,
        tokens: &[u32],
        adapter: Option<&str>,
        cancel: &CancelHandle,
    ) -> Result<Vec<f32>> {
        let adapter = self.loaded()?.adapter(adapter)?;
        let mut session = Session::once(self.generating()?)?;
        session.append(Prompt::Tokens(tokens.to_vec()), false)?;
        let mut scores = Vec::new();
        let no_memory = || {
            let vocab = self.info().vocab_size;
            let message = format!("there is no memory for the logits, {} x {vocab} floats", tokens.len());
            Error::new(ErrorKind::OutOfBudget, message)
        };
        let size = tokens.len().checked_mul(self.info().vocab_size).ok_or_else(no_memory)?;
        let _reservation = self.0.runtime.budget().reserve_growing(4 * size as u64, "the logits")?;
        scores.try_reserve_exact(size).map_err(|_| no_memory())?;
        session.score(scores, size, adapter, cancel)
    }

    /// As [`Model::logits`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::logits`]; `InvalidArgument` for an adapter that is not loaded.
    pub fn logits_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Vec<f32>> {
        self.logits_until(tokens, adapter, &CancelHandle::default())
    }

    /// The states behind the last norm at every position of `tokens`: `[tokens.len(), hidden_size]`, row-major. Of a model
    /// that generates, they are what the output head reads; of one that embeds, what is pooled.
    ///
    /// # Errors
    /// As [`Model::logits`].
    pub fn hidden_states(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.hidden_states_with(tokens, None)
    }

    /// As [`Model::hidden_states`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::logits_with`].
    pub fn hidden_states_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Vec<f32>> {
        let loaded = self.loaded()?;
        let adapter = loaded.adapter(adapter)?;
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::EmptyPrompt, "expected at least one token"));
        }
        if tokens.len() > loaded.max_context {
            return Err(overflow(tokens.len(), Wanted::Nothing, loaded.max_context));
        }
        let hidden = loaded.decoder.spec.hidden_size;
        // What overflows is refused here or by `floats`.
        let size = tokens.len().saturating_mul(hidden);
        let bytes = (size as u64).saturating_mul(4);
        let _reservation = self.0.runtime.budget().reserve_growing(bytes, "the hidden states")?;
        let mut room = floats(tokens.len(), hidden)?;
        room.clear();
        let session = Session::once(loaded)?;
        let states = session.pool(tokens.to_vec(), Vec::new(), Pooler::every(room), adapter)?.pooled()?;
        match states.len() == size {
            true => Ok(states),
            false => Err(Error::internal(format!("expected {size} states, found {}", states.len()))),
        }
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
