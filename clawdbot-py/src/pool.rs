//! Several models under names.

use std::path::PathBuf;
use std::time::Duration;

use clawdbot_core as core;
use clawdbot_core::PoolModel;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{invalid_argument, no_pickle, to_py, wrong_type};
use crate::interrupt::interruptible;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::{objects, options};

/// Named models of one runtime. Each is loaded when it is first asked for; one that does not fit into the runtime's budget
/// takes the place of those that were used longest ago and that nobody uses now.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct ModelPool(core::ModelPool);

/// Seconds as a duration, or None. Infinity is one that no clock reaches.
///
/// # Errors
/// `TypeError` for what is no number, `InvalidArgument` for one out of range.
fn seconds(found: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Duration>> {
    if found.is_none() {
        return Ok(None);
    }
    let seconds: f64 =
        found.extract().map_err(|error: PyErr| match error.is_instance_of::<PyTypeError>(found.py()) {
            true => wrong_type(name, "seconds (a number) or None", found),
            false => error,
        })?;
    if seconds == f64::INFINITY {
        return Ok(Some(Duration::MAX));
    }
    Duration::try_from_secs_f64(seconds)
        .map(Some)
        .map_err(|_| invalid_argument(format!("{name}: expected seconds, 0 or more, found {seconds}")))
}

fn timeout_from_py(found: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    seconds(found, "timeout")
}

#[pymethods]
impl ModelPool {
    #[new]
    fn py_new(runtime: &Bound<'_, Runtime>) -> PyResult<Self> {
        core::ModelPool::new(&runtime.get().0).map(ModelPool).map_err(to_py)
    }

    /// Adds a model, which is loaded when it is first asked for. No path and no shape: the built-in model.
    ///
    /// `pin`: it stays once it is loaded, whatever others need and however long nobody uses it. `idle_unload`: seconds without a
    /// user after which it is unloaded; with the option `driver` `caller` that happens at the next `get`. Never with None, the
    /// default, or infinity.
    /// `instances`: mappings with options of further instances, which share the weights and have limits of their own.
    /// Options as of `Runtime.load`.
    #[pyo3(signature = (name, path=None, *, shape=None, pin=false, idle_unload=None, instances=None, **options))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn add(
        &self,
        name: &str,
        path: Option<PathBuf>,
        shape: Option<String>,
        pin: bool,
        idle_unload: Option<&Bound<'_, PyAny>>,
        instances: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let source = options::source(path, shape)?;
        let idle_unload = idle_unload.map(|after| seconds(after, "idle_unload")).transpose()?.flatten();
        let mut model = PoolModel::new(source, options::model(options::POOL_ADD, options)?)
            .pin(pin)
            .idle_unload(idle_unload);
        let instances = instances.map(|instances| instances.try_iter()).transpose()?;
        for instance in instances.into_iter().flatten() {
            let instance = instance?;
            let of_instance = instance
                .cast::<PyDict>()
                .map_err(|_| wrong_type("instances", "mappings such as {\"max_batch\": 8}", &instance))?;
            model = model.instance(options::model(options::INSTANCE, Some(of_instance))?);
        }
        self.0.add(name, model).map_err(to_py)
    }

    /// A model, loaded if it is not: of its instances the one that has the fewest users. It stays loaded as long as it, a session
    /// made with it, or a stream whose last event was not read, is there; closing it, or leaving a `with` block, gives it back and cancels nothing.
    ///
    /// One that does not fit into the budget waits up to `timeout` seconds until enough of the others are idle, then raises
    /// `OutOfBudget`; if the loads of others took all that time, `Overloaded`. With 0, the default, it waits for nobody; with None or
    /// infinity, without end, unless Ctrl-C ends it. `add` does not look at files: a path that is missing (`NotFound`) and options that
    /// the model or an instance cannot have (`InvalidArgument`) are errors of the first `get`.
    #[pyo3(signature = (name, timeout=Some(Duration::ZERO)), text_signature = "($self, name, timeout=0.0)")]
    fn get(
        &self,
        py: Python<'_>,
        name: String,
        #[pyo3(from_py_with = timeout_from_py)] timeout: Option<Duration>,
    ) -> PyResult<Model> {
        let wait = timeout.unwrap_or(Duration::MAX);
        let cancel = core::CancelHandle::default();
        let (pool, handle) = (self.0.clone(), cancel.clone());
        interruptible(py, &[cancel], move || pool.get_until(&name, wait, &handle)).map(Model::new)
    }

    /// Unloads a model that nobody uses, be it pinned. Says whether it is not loaded now.
    fn unload(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        py.detach(|| self.0.unload(name)).map_err(to_py)
    }

    /// Forgets a model. Who uses it goes on, and its memory is freed with the last user.
    fn remove(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        py.detach(|| self.0.remove(name)).map_err(to_py)
    }

    /// How the models are now: a list of dicts, one for each, sorted by name. Reads no files and waits for no load.
    ///
    /// - name: The name that `add` gave.
    /// - state: `unloaded` (it will be loaded when it is asked for), `loading` (it is being loaded, or waits for memory) or `loaded`.
    /// - pin: Whether it stays once it is loaded.
    /// - bytes: What it holds of the budget, in bytes: weights, buffers and what is cached, 0 while it is not loaded. Without what is
    ///   cached by an instance that computes just now.
    /// - users: A list, one number for each instance that is loaded: its handles, sessions and streams that were not read to their
    ///   ends. It is not unloaded while one is above 0.
    /// - idle_seconds: Seconds since the last user has gone; None while there is one, or was none yet.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let status = py.detach(|| self.0.status());
        objects::to_py_object(py, &serde_json::json!(status))
    }

    /// The runtime that computes the models.
    #[getter]
    fn runtime(&self) -> Runtime {
        Runtime(self.0.runtime().clone())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let names: Vec<String> = py.detach(|| self.0.status()).into_iter().map(|model| model.name).collect();
        format!("<clawdbot.ModelPool: {}>", names.join(", "))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("ModelPool"))
    }
}
