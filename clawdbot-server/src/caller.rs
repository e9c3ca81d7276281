//! Who asks: the application as the holder of an API key sees it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use clawdbot_core::{CancelHandle, Error, ErrorKind, GenerateOptions, Model};

use crate::app::App;
use crate::fault::Fault;
use crate::kept::Keep;
use crate::keys::{Key, Running};
use crate::prompt::Ask;
use crate::record::Notes;
use crate::store::Shelf;

/// Who asks: the application with the limits of a key, if keys are needed.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    app: App,
    holder: Holder,
}

/// The key of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holder {
    key: Option<Arc<Key>>,
    /// The request, which counts until its answer has ended.
    running: Option<Arc<Running>>,
    /// For the access log.
    notes: Notes,
}

/// A request counts until all of its answer is sent.
impl Keep for Holder {}

impl Holder {
    /// The holder of `key`, with a request that begins if it is `counted`.
    pub(crate) fn new(key: Option<Arc<Key>>, counted: bool, notes: Notes) -> Result<Self, Fault> {
        if let Some(key) = &key {
            notes.key(&key.limits.name);
        }
        let begun = key.as_ref().filter(|_| counted).map(|key| Running::begin(key, Instant::now()));
        let running = begun.transpose()?.map(Arc::new);
        Ok(Holder { key, running, notes })
    }

    /// Takes tokens that were used from the key's limit.
    pub(crate) fn used(&self, tokens: usize) {
        self.notes.tokens(tokens);
        if let Some(running) = &self.running {
            running.used(tokens);
        }
    }

    fn may_use(&self, model: &str) -> bool {
        let models = self.key.as_ref().and_then(|key| key.limits.models.as_ref());
        models.is_none_or(|models| models.iter().any(|name| name == model))
    }
}

impl Deref for Caller {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        // Routes that need a key put it there; without one, no request may come this far.
        let holder = parts.extensions.get::<Holder>().cloned();
        let holder =
            holder.ok_or_else(|| Error::new(ErrorKind::Internal, "a route that asks for no key: a bug"))?;
        Ok(Caller::new(app.clone(), holder))
    }
}

impl Caller {
    pub(crate) fn new(app: App, holder: Holder) -> Self {
        Caller { app, holder }
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Responses that later ones may follow: those of this key.
    pub(crate) fn responses(&self) -> Shelf<'_> {
        self.app.responses().of(self.holder.key.as_ref().map_or("", |key| &key.limits.name))
    }

    /// Names of the models that may be asked for, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.app.names();
        names.retain(|name| self.holder.may_use(name));
        names
    }

    /// The name of the model that a request gets that asks for `asked`.
    pub(crate) fn name_of(&self, asked: Option<String>) -> Result<String, Fault> {
        let (names, settings) = (self.names(), self.settings());
        let known =
            || if names.is_empty() { "no model".to_owned() } else { format!("one of {}", names.join(", ")) };
        let asked = match (asked.or_else(|| settings.default_model.clone()), &names[..]) {
            (Some(asked), _) => asked,
            (None, [only]) => only.clone(),
            (None, _) => {
                let message = format!("field model: expected {}, found none", known());
                return Err(Fault::invalid(message).at("model"));
            }
        };
        let meant = settings.aliases.get(&asked).unwrap_or(&asked);
        if names.contains(meant) {
            self.holder.notes.model(meant);
            return Ok(meant.clone());
        }
        let message = format!("field model: expected {}, found {asked:?}", known());
        let fault: Fault = Error::new(ErrorKind::NotFound, message).with("field", "model").into();
        Err(fault.coded("model_not_found"))
    }

    /// `options` within the limits of the key, for `asks` of the model of that name.
    pub(crate) async fn limited(
        &self,
        name: &str,
        asks: &[Ask],
        mut options: GenerateOptions,
    ) -> Result<GenerateOptions, Fault> {
        let Some(key) = &self.holder.key else { return Ok(options) };
        if options.group.is_some() {
            let message = "field group: expected none, as the requests of an API key are a group, found one";
            return Err(Fault::invalid(message).at("group"));
        }
        options.group = Some(key.limits.name.clone());
        if let Some(most) = key.limits.priority {
            let own = options.priority != GenerateOptions::default().priority;
            options.priority = if own { options.priority.min(most) } else { most };
        }
        if let Some(most) = key.limits.max_context {
            options.max_tokens = Some(self.within(name, asks, options.max_tokens, most).await?);
        }
        Ok(options)
    }

    /// How many tokens an answer may have with which prompt and answer have at most `most`.
    async fn within(&self, name: &str, asks: &[Ask], asked: Option<u32>, most: u64) -> Result<u32, Fault> {
        let asks = asks.to_vec();
        let longest = self.with_model(name, move |model, cancel| {
            let counts = asks.iter().map(|ask| ask.count(model, cancel)).collect::<Result<Vec<_>, _>>()?;
            Ok(counts.into_iter().max().unwrap_or(0) as u64)
        });
        let longest = longest.await?;
        let left = most.saturating_sub(longest);
        let asked_tokens = asked.map_or(1, u64::from);
        if left < asked_tokens {
            let message = format!(
                "the API key allows {most} tokens for prompt and answer: expected at most {} tokens of the prompt, found {longest}",
                most.saturating_sub(asked_tokens)
            );
            return Err(Error::new(ErrorKind::ContextOverflow, message).into());
        }
        Ok(asked.unwrap_or_else(|| u32::try_from(left).unwrap_or(u32::MAX)))
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
        self.app.call(name, call).await
    }
}
