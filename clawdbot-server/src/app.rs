//! The models that a server has, and how it answers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use clawdbot_core::{
    CancelHandle, Driver, EmbedOptions, Error, ErrorKind, GenerateOptions, Model, ModelPool, PoolState,
    Prompt,
};

use crate::counters::Counters;
use crate::fault::Fault;
use crate::ids;
use crate::keys::Keys;
use crate::record::AccessRecord;
use crate::settings::Settings;
use crate::store::Store;

/// The models that a server has, and how it answers. Clones are the same.
#[derive(Clone)]
pub struct App(Arc<Inner>);

type AccessHook = dyn Fn(&AccessRecord) + Send + Sync;

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("models", &self.names())
            .field("settings", &self.settings())
            .finish_non_exhaustive()
    }
}

struct Inner {
    pool: ModelPool,
    settings: RwLock<Arc<Settings>>,
    /// Responses that later ones may follow.
    responses: Store,
    started: Instant,
    /// When that was, in seconds since 1970.
    created: i64,
    keys: RwLock<Arc<Keys>>,
    /// Whether it ends: clients are told to go elsewhere.
    ending: AtomicBool,
    /// Whether nothing else begins.
    draining: AtomicBool,
    counters: Counters,
    access: OnceLock<Box<AccessHook>>,
}

/// Cancels a call unless it has ended.
struct CancelOnDrop(Option<CancelHandle>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel.cancel();
        }
    }
}

impl App {
    /// Answers with the models of `pool`.
    ///
    /// # Errors
    /// `InvalidArgument` unless the pool's runtime has the `driver` `thread` (requests are awaited, so nobody else would compute);
    /// `NotFound` for a default model that the pool does not have.
    pub fn new(pool: ModelPool, settings: Settings) -> Result<Self, Error> {
        if pool.runtime().driver() != Driver::Thread {
            let message = "server: expected a runtime with driver thread, found caller";
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "driver"));
        }
        let (started, created) = (Instant::now(), ids::now());
        let keys = RwLock::new(Arc::new(Keys::new(&settings.keys, &Keys::default())));
        let (ending, draining) = (AtomicBool::new(false), AtomicBool::new(false));
        let responses = Store::new(settings.max_stored_responses, settings.max_stored_bytes);
        let counters = Counters::default();
        let settings = RwLock::new(Arc::new(settings));
        let app = App(Arc::new(Inner {
            pool,
            settings,
            keys,
            responses,
            started,
            created,
            ending,
            draining,
            counters,
            access: OnceLock::new(),
        }));
        check_default(&app.settings(), &app.names())?;
        Ok(app)
    }

    /// How it answers.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers as `settings` say from now on. API keys that stay the same keep what has been used of their limits; requests that
    /// have begun go on, and what is about connections holds for a server that is started.
    ///
    /// # Errors
    /// As [`App::new`]; then nothing changes.
    pub fn set_settings(&self, settings: Settings) -> Result<(), Error> {
        check_default(&settings, &self.names())?;
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = Arc::new(Keys::new(&settings.keys, &keys));
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        Ok(())
    }

    /// Calls `log` with each request that ends, on the thread that has served it: it should not wait. The first one stays.
    pub fn on_access(&self, log: impl Fn(&AccessRecord) + Send + Sync + 'static) {
        let _ = self.0.access.set(Box::new(log));
    }

    /// Counts a request that the log could not take, for `/metrics`.
    pub fn count_lost_access(&self) {
        self.0.counters.access_log_lost.up();
    }

    pub(crate) fn has_access_log(&self) -> bool {
        self.0.access.get().is_some()
    }

    pub(crate) fn tell_access(&self, record: &AccessRecord) {
        if let Some(log) = self.0.access.get() {
            log(record);
        }
    }

    /// Its models.
    pub fn pool(&self) -> &ModelPool {
        &self.0.pool
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Makes `/health/ready` say that the server ends. Requests that come are answered.
    pub(crate) fn end(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed) || self.is_draining()
    }

    /// Responses that later ones may follow.
    pub(crate) fn responses(&self) -> &Store {
        &self.0.responses
    }

    /// Lets what has begun go on, and begins nothing else: `/health/ready` says so, and requests are refused.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn created(&self) -> i64 {
        self.0.created
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Names of the models, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.pool.status().into_iter().map(|status| status.name).collect()
    }

    /// Whether all models that stay in memory are there.
    pub(crate) fn is_loaded(&self) -> bool {
        self.0.pool.status().iter().all(|status| !status.pin || status.state == PoolState::Loaded)
    }

    /// Whether each model that stays in memory has computed something.
    pub(crate) fn has_computed(&self) -> bool {
        let metrics = self.0.pool.runtime().metrics().models;
        let computed = |name: &str| {
            metrics.iter().any(|model| model.pool_name.as_deref() == Some(name) && model.passes > 0)
        };
        self.0.pool.status().iter().all(|status| !status.pin || computed(&status.name))
    }

    /// Whether as many requests wait as may, of each model that has such a limit and is loaded.
    pub(crate) fn is_full(&self) -> bool {
        let metrics = self.0.pool.runtime().metrics().models;
        let settings = self.settings();
        let mut limited = metrics.iter().filter_map(|model| {
            let most = settings.max_waiting.get(model.pool_name.as_ref()?)?;
            Some(model.waiting >= *most)
        });
        limited.next().is_some_and(|full| full && limited.all(|full| full))
    }

    /// The API keys.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the models that stay in memory, and lets each compute a token: the first request waits for neither.
    ///
    /// # Errors
    /// As [`ModelPool::get`]; of computing.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let pinned = self.0.pool.status().into_iter().filter(|status| status.pin);
        for name in pinned.map(|status| status.name) {
            self.call(&name, warm).await.map_err(Fault::into_error)?;
        }
        Ok(())
    }

    /// Calls `call` with the model of that name, loaded if it is not, on a thread where it may wait. The call is cancelled if the
    /// future is dropped.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        name: &str,
        call: impl FnOnce(&Model, &CancelHandle) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let cancel = CancelHandle::default();
        let mut guard = CancelOnDrop(Some(cancel.clone()));
        let (pool, name, wait) = (self.0.pool.clone(), name.to_owned(), self.settings().load_timeout);
        let work = tokio::task::spawn_blocking(move || {
            let model = pool.get_until(&name, wait, &cancel)?;
            call(&model, &cancel)
        });
        let done = work.await;
        guard.0 = None;
        match done {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::new(ErrorKind::Internal, "the request failed: a bug in clawdbot").into()),
        }
    }
}

/// Refuses a default model that is none of `names`.
fn check_default(settings: &Settings, names: &[String]) -> Result<(), Error> {
    let Some(name) = settings.default_model.as_ref().filter(|name| !names.contains(name)) else {
        return Ok(());
    };
    let message = format!("default model: expected one of {}, found {name:?}", names.join(", "));
    Err(Error::new(ErrorKind::NotFound, message).with("model", name.as_str()))
}

/// Lets a model compute a token.
fn warm(model: &Model, cancel: &CancelHandle) -> Result<(), Error> {
    let token = model.info().bos_token_id.unwrap_or(0);
    if !model.info().plan.tasks.contains(&"generate") {
        return model.embed(vec![Prompt::Tokens(vec![token])], &EmbedOptions::default()).map(|_| ());
    }
    let options = GenerateOptions::default().max_tokens(1_u32);
    model.generate_until(vec![token], &options, cancel).map(|_| ())
}
