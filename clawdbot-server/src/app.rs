//! The models that a server has, and how it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::StatusCode;
use clawdbot_core::{
    CancelHandle, Driver, EmbedOptions, Error, ErrorKind, GenerateOptions, Model, ModelPool, PoolState,
    Prompt,
};

use crate::fault::Fault;
use crate::ids;
use crate::openai::responses::Store;
use crate::settings::Settings;

/// The models that a server has, and how it answers. Clones are the same.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: ModelPool,
    settings: Settings,
    /// Responses that later ones may follow.
    responses: Store,
    started: Instant,
    /// When that was, in seconds since 1970.
    created: i64,
    /// Whether it ends: what has begun goes on, and nothing else begins.
    draining: AtomicBool,
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
        let responses = Store::new(settings.max_stored_responses, settings.max_stored_bytes);
        let app = Inner { pool, settings, responses, started, created, draining: AtomicBool::new(false) };
        let app = App(Arc::new(app));
        if let Some(name) = &app.settings().default_model
            && !app.names().contains(name)
        {
            let message =
                format!("default model: expected one of {}, found {name:?}", app.names().join(", "));
            return Err(Error::new(ErrorKind::NotFound, message).with("model", name.as_str()));
        }
        Ok(app)
    }

    /// How it answers.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Its models.
    pub fn pool(&self) -> &ModelPool {
        &self.0.pool
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

    /// Whether as many requests of a model wait as may.
    pub(crate) fn is_full(&self) -> bool {
        let Some(most) = self.settings().max_waiting else { return false };
        self.0.pool.runtime().metrics().models.iter().any(|model| model.waiting >= most)
    }

    /// Loads the models that stay in memory, and lets each compute a token: the first request waits for neither.
    ///
    /// # Errors
    /// As [`ModelPool::get`]; of computing.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let pinned = self.0.pool.status().into_iter().filter(|status| status.pin);
        for name in pinned.map(|status| status.name) {
            self.with_model(&name, warm).await.map_err(Fault::into_error)?;
        }
        Ok(())
    }

    /// The name of the model that a request gets that asks for `asked`.
    pub(crate) fn name_of(&self, asked: Option<String>) -> Result<String, Fault> {
        let mut names = self.names();
        let asked = match asked.or_else(|| self.settings().default_model.clone()) {
            Some(asked) => asked,
            None if names.len() == 1 => return Ok(names.remove(0)),
            None => {
                let message = format!("field model: expected one of {}, found none", names.join(", "));
                return Err(Fault::invalid(message).at("model"));
            }
        };
        if names.contains(&asked) {
            return Ok(asked);
        }
        let message = format!("field model: expected one of {}, found {asked:?}", names.join(", "));
        let fault: Fault = Error::new(ErrorKind::NotFound, message).with("field", "model").into();
        Err(fault.coded("model_not_found"))
    }

    /// Calls `call` with the model of that name, loaded if it is not, on a thread where it may wait. The call is cancelled if the
    /// future is dropped.
    pub(crate) async fn with_model<T: Send + 'static>(
        &self,
        name: &str,
        call: impl FnOnce(&Model, &CancelHandle) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Fault> {
        if self.is_draining() {
            let error = Error::new(ErrorKind::Closed, "the server is shutting down");
            return Err(Fault::from(error).with_status(StatusCode::SERVICE_UNAVAILABLE));
        }
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

/// Lets a model compute a token.
fn warm(model: &Model, cancel: &CancelHandle) -> Result<(), Error> {
    let token = model.info().bos_token_id.unwrap_or(0);
    if !model.info().plan.tasks.contains(&"generate") {
        return model.embed(vec![Prompt::Tokens(vec![token])], &EmbedOptions::default()).map(|_| ());
    }
    let options = GenerateOptions::default().max_tokens(1_u32);
    model.generate_until(vec![token], &options, cancel).map(|_| ())
}
