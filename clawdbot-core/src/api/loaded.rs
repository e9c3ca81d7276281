//! What a model holds while it is loaded.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::bounds::Bounds;
use super::constrain::Constraints;
use super::spellings::Spellings;
use super::users::Users;
use crate::cancel::{CancelHandle, cancelled};
use crate::engine::{Engine, Limits, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::Adapter;
use crate::forward::decoder::Decoder;
use crate::forward::mtp::MtpHead;
use crate::load::fingerprint::Fingerprint;
use crate::load::text::{Text, no_tokenizer};
use crate::options::{GenerationDefaults, KvType, ModelOptions};
use crate::runtime::{Budget, Reservation, Runtime};
use crate::sampling::Drawable;
use crate::spec::embedding::EmbeddingConfig;
use crate::tokenizer::Tokenizer;

/// A loaded draft model.
pub(crate) struct DraftLoaded {
    pub(crate) loaded: Arc<Loaded>,
    /// What loading it needs of the budget.
    pub(crate) bytes: u64,
    /// Bytes of its buffers.
    pub(crate) scratch: u64,
}

/// What is loaded of a model's head for multi-token prediction, for all its engines.
pub(crate) struct MtpParts {
    pub(crate) head: MtpHead,
    /// Of its keys and values.
    pub(crate) kv: KvType,
    /// Of its passes.
    pub(crate) limits: Limits,
    /// Bytes of the buffers of an engine.
    pub(crate) scratch: u64,
    /// What loading it needs of the budget.
    pub(crate) bytes: u64,
    /// The bytes of the weights.
    pub(crate) _reservation: Reservation,
}

/// A model's head for multi-token prediction, with what it shares with the model.
pub(crate) struct MtpLoaded {
    pub(crate) runtime: Runtime,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) drawable: Drawable,
    pub(crate) parts: MtpParts,
}

/// What instances of a model share: all that does not change.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) embedding: EmbeddingConfig,
    pub(crate) defaults: GenerationDefaults,
    /// Tokens that end a generation.
    pub(crate) eos: Vec<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) text: Option<Text>,
    /// What may be generated.
    pub(crate) drawable: Drawable,
    /// The model that drafts its tokens, for it alone.
    pub(crate) draft: Option<DraftLoaded>,
    /// Its own head that drafts, where it is loaded.
    pub(crate) mtp: Option<MtpLoaded>,
    /// Of all norms and biases.
    pub(crate) vectors: Fingerprint,
    /// Of the model, once somebody asked.
    pub(crate) fingerprint: Mutex<Option<Fingerprint>>,
    pub(crate) constraints: Constraints,
    pub(crate) spellings: Spellings,
    /// The bytes of the weights.
    pub(crate) reservation: Reservation,
}

/// Everything a model holds; freed when the model is closed and the last request has ended.
pub(crate) struct Loaded {
    pub(crate) runtime: Runtime,
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: ModelOptions,
    pub(crate) max_context: usize,
    pub(crate) users: Arc<Users>,
    pub(crate) engine: Mutex<Engine>,
    pub(crate) turn: Mutex<()>,
    pub(crate) adapters: RwLock<Adapters>,
    /// Where its prefix cache is kept.
    pub(crate) prefix_file: Option<PathBuf>,
    pub(crate) bounds: Bounds,
    /// The engine's, which can be read while it is locked.
    pub(crate) urgency: Arc<AtomicU32>,
}

/// The adapters of a model, by name.
pub(crate) type Adapters = BTreeMap<String, Arc<Adapter>>;

impl Deref for Loaded {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
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

    /// Computes a step of the engine, as [`Engine::step`].
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub(crate) fn step(&self, mut engine: MutexGuard<'_, Engine>) -> Result<bool> {
        let done = engine.step(self)?;
        self.ask_others(engine);
        Ok(done)
    }

    /// After a step: asks other engines for the memory that a request waits for, without the lock of this one.
    pub(super) fn ask_others(&self, mut engine: MutexGuard<'_, Engine>) {
        let Some(bytes) = engine.take_wanted() else { return };
        let number = engine.number();
        drop(engine);
        if self.runtime.budget().holders().ask(number, bytes, true).bytes == 0
            && let Ok(mut engine) = self.engine()
        {
            engine.others_had_nothing();
        }
    }

    /// Calls `f` until it does not fail with `OutOfBudget`. In between, pages that nobody needs now are released, or else
    /// running requests are computed, a step at a time, or else other models give back what nobody needs there. `f` may lock the
    /// engine.
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
                    let (number, room) = {
                        let mut engine = self.engine()?;
                        (engine.number(), engine.make_some_room(self)?)
                    };
                    if room == Room::Soon {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    let lacking = Budget::lacking(&error).unwrap_or(1).max(1);
                    let holders = self.runtime.budget().holders();
                    if room == Room::None && holders.ask(number, lacking, true).bytes == 0 {
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
