//! Several models under names, loaded when they are needed and unloaded when others need their memory.

mod evict;
mod loading;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::loaded::Loaded;
use super::model::{Model, ModelInfo};
use crate::cancel::{CancelHandle, cancelled};
use crate::error::{Error, Result};
use crate::load::source::Source;
use crate::options::ModelOptions;
use crate::runtime::{Driven, Next, Runtime};
use crate::suggest::closest;
pub use status::{PoolState, PoolStatus};

/// Longest time between two looks at what may have changed unseen: a cancelled call, memory that others gave back.
const LOOK: Duration = Duration::from_millis(50);

/// How a [`ModelPool`] gets a model and keeps it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolModel {
    /// What is loaded.
    pub source: Source,
    /// The options of its instances, which share the weights: at least one. The first one is for loading.
    pub instances: Vec<ModelOptions>,
    /// It stays once it is loaded, whatever others need and however long nobody uses it.
    pub pin: bool,
    /// Time without a user after which it is unloaded. With `driver` caller that happens at the next `get`.
    pub idle_unload: Option<Duration>,
}

impl PoolModel {
    /// One instance of `source`, which stays until others need its memory.
    pub fn new(source: impl Into<Source>, options: ModelOptions) -> Self {
        PoolModel { source: source.into(), instances: vec![options], pin: false, idle_unload: None }
    }

    /// Adds an instance: another engine, with limits of its own, over the same weights.
    #[must_use]
    pub fn instance(mut self, options: ModelOptions) -> Self {
        self.instances.push(options);
        self
    }

    /// Sets `pin`.
    #[must_use]
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Sets `idle_unload`.
    #[must_use]
    pub fn idle_unload(mut self, idle_unload: impl Into<Option<Duration>>) -> Self {
        self.idle_unload = idle_unload.into();
        self
    }
}

/// Named models of one runtime. Each is loaded when it is first asked for; one that does not fit into the runtime's budget
/// takes the place of those that were used longest ago and that nobody uses now.
///
/// Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct ModelPool(Arc<Pool>);

struct Pool {
    runtime: Runtime,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// Calls that load, in the order in which they came. The first one has its turn.
    loading: VecDeque<u64>,
    /// Number of the latest call.
    number: u64,
}

struct Entry {
    model: Arc<PoolModel>,
    place: Place,
    /// Number of the call that used it last.
    used: u64,
    /// How many times it was loaded, or was not.
    loads: u64,
    /// The error of the last of them, if that was the model's.
    failed: Option<Error>,
}

/// Where a model is.
enum Place {
    Unloaded,
    /// A call loads it.
    Loading,
    Loaded(Vec<Instance>),
}

struct Instance {
    loaded: Arc<Loaded>,
    info: ModelInfo,
}

impl Instance {
    fn users(&self) -> usize {
        self.loaded.users.count()
    }
}

impl Entry {
    fn instances(&self) -> &[Instance] {
        match &self.place {
            Place::Loaded(instances) => instances,
            Place::Unloaded | Place::Loading => &[],
        }
    }

    fn users(&self) -> usize {
        self.instances().iter().map(Instance::users).sum()
    }

    /// When it is unloaded, should nobody come.
    fn unloads_at(&self) -> Option<Instant> {
        let after = self.model.idle_unload.filter(|_| !self.model.pin && self.users() == 0)?;
        let left = self.instances().iter().filter_map(|instance| instance.loaded.users.left()).max()?;
        left.checked_add(after)
    }

    /// A handle of the instance that the fewest use.
    fn least_loaded(&self) -> Option<Model> {
        let instance = self.instances().iter().min_by_key(|instance| instance.users())?;
        Some(Model::pooled(Arc::clone(&instance.loaded), instance.info.clone()))
    }

    /// Takes the instances out, which free their memory where they are dropped.
    fn unload(&mut self) -> Vec<Instance> {
        match std::mem::replace(&mut self.place, Place::Unloaded) {
            Place::Loaded(instances) => instances,
            place => {
                self.place = place;
                Vec::new()
            }
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, but not past `until`, nor long.
    ///
    /// # Errors
    /// `Cancelled`.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: Option<Instant>,
        cancel: &CancelHandle,
    ) -> Result<MutexGuard<'a, State>> {
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
        let waited = self.changed.wait_timeout(state, left.min(LOOK));
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Unloads what was idle for long enough. Returns when that is so for the next one.
    fn unload_idle(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut unloaded = Vec::new();
        for entry in state.entries.values_mut() {
            if entry.unloads_at().is_some_and(|time| time <= now) {
                unloaded.extend(entry.unload());
            }
        }
        let next = state.entries.values().filter_map(Entry::unloads_at).min();
        drop(state);
        if !unloaded.is_empty() {
            drop(unloaded);
            self.changed.notify_all();
        }
        next
    }
}

impl Driven for Pool {
    fn drive(&self) -> Next {
        self.unload_idle().map_or(Next::Woken, Next::At)
    }
}

fn unknown(name: &str, entries: &BTreeMap<String, Entry>) -> Error {
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let hint = closest(name, names.iter().copied());
    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {hint:?}?"));
    let message = format!("expected the name of a model of the pool ({known}), found {name:?}{hint}");
    Error::invalid_argument(message).with("found", name)
}

impl ModelPool {
    /// A pool without models, whose models will be loaded on `runtime`.
    ///
    /// # Errors
    /// `Io` when the driver thread, if the runtime wants one, cannot be started; `ForkedRuntime`.
    pub fn new(runtime: &Runtime) -> Result<Self> {
        runtime.pool().check_fork()?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        let pool = Arc::new(Pool { runtime: runtime.clone(), state, changed });
        let driven: Weak<dyn Driven> = Arc::<Pool>::downgrade(&pool);
        runtime.drive(driven, 1)?;
        Ok(ModelPool(pool))
    }

    /// Adds a model. It is loaded when it is first asked for.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty or taken, and for options out of range; `ForkedRuntime`.
    pub fn add(&self, name: &str, mut model: PoolModel) -> Result<()> {
        self.0.runtime.pool().check_fork()?;
        // It is named once, for all instances.
        if let Some((first, others)) = model.instances.split_first_mut() {
            let unnamed = others.iter_mut().filter(|options| options.draft_model.is_none());
            unnamed.for_each(|options| options.draft_model.clone_from(&first.draft_model));
        }
        let refused = |message: String| Err(Error::invalid_argument(message).with("found", name));
        model.instances.iter().try_for_each(ModelOptions::validate)?;
        if model.instances.is_empty() {
            return refused(format!("model {name:?}: expected at least one instance, found none"));
        }
        let mut state = self.0.lock();
        match (name.is_empty(), state.entries.contains_key(name)) {
            (true, _) => refused("model: expected a name, found an empty text".to_owned()),
            (_, true) => refused(format!("the pool has a model {name:?} already; remove it first")),
            _ => {
                let entry =
                    Entry { model: Arc::new(model), place: Place::Unloaded, used: 0, loads: 0, failed: None };
                state.entries.insert(name.to_owned(), entry);
                Ok(())
            }
        }
    }

    /// Forgets a model. Who uses it goes on, and its memory is freed with the last user.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none of that name; `ForkedRuntime`.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.0.runtime.pool().check_fork()?;
        let mut state = self.0.lock();
        let removed = state.entries.remove(name);
        let result = removed.as_ref().map(|_| ()).ok_or_else(|| unknown(name, &state.entries));
        drop(state);
        drop(removed);
        self.0.changed.notify_all();
        result
    }

    /// Unloads a model that nobody uses, be it pinned. Returns whether it is not loaded now.
    ///
    /// # Errors
    /// As [`ModelPool::remove`].
    pub fn unload(&self, name: &str) -> Result<bool> {
        self.0.runtime.pool().check_fork()?;
        let mut state = self.0.lock();
        let unloaded = match state.entries.get_mut(name) {
            None => return Err(unknown(name, &state.entries)),
            Some(entry) if entry.users() == 0 => entry.unload(),
            Some(_) => Vec::new(),
        };
        let gone = state.entries.get(name).is_some_and(|entry| matches!(entry.place, Place::Unloaded));
        drop(state);
        drop(unloaded);
        self.0.changed.notify_all();
        Ok(gone)
    }

    /// A model, loaded if it is not: of its instances the one that has the fewest users. It is in use, and stays loaded, as long
    /// as this handle, a clone of it, or a session made with it, or a stream whose last event was not read, is there.
    ///
    /// Of calls that ask for a model at the same time, one loads it for all. One that does not fit into the budget waits up to
    /// `wait` until enough of the others are idle; loads come one after another, in the order in which they were asked for.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none of that name; as [`Runtime::load`]; `OutOfBudget` with the bytes that it needs if it
    /// fits not even without the others, or not in time; `Overloaded` if other loads took all that time.
    pub fn get(&self, name: &str, wait: Duration) -> Result<Model> {
        self.get_until(name, wait, &CancelHandle::default())
    }

    /// As [`ModelPool::get`], but stops when `cancel` is cancelled.
    ///
    /// # Errors
    /// As [`ModelPool::get`]; `Cancelled`.
    pub fn get_until(&self, name: &str, wait: Duration, cancel: &CancelHandle) -> Result<Model> {
        let pool = &self.0;
        pool.runtime.pool().check_fork()?;
        // None that is further away than the clock can tell.
        let until = Instant::now().checked_add(wait);
        pool.unload_idle();
        let mut state = pool.lock();
        state.number += 1;
        let number = state.number;
        let mut waits_for = None;
        loop {
            let State { entries, .. } = &mut *state;
            let Some(entry) = entries.get_mut(name) else { return Err(unknown(name, entries)) };
            match (&entry.place, &entry.failed) {
                // The load that this call has waited for.
                (_, Some(error)) if waits_for.is_some_and(|loads| loads < entry.loads) => {
                    return Err(error.clone());
                }
                (Place::Loaded(_), _) => {
                    entry.used = number;
                    return entry.least_loaded().ok_or_else(|| Error::internal("a model without instances"));
                }
                (Place::Loading, _) => waits_for = Some(entry.loads),
                (Place::Unloaded, _) => {
                    entry.place = Place::Loading;
                    let model = Arc::clone(&entry.model);
                    state.loading.push_back(number);
                    drop(state);
                    return pool.load(name, &model, number, until, cancel);
                }
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                let message = format!("model {name:?} was not loaded in time by the call that loads it");
                return Err(loading::late(&message, wait));
            }
            state = pool.wait(state, until, cancel)?;
        }
    }

    /// The runtime that computes the models.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }
}

impl fmt::Debug for ModelPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelPool").field("models", &self.status()).finish_non_exhaustive()
    }
}
