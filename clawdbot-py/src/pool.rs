//! Several models under names.

use std::path::PathBuf;
use std::time::Duration;

use clawdbot_core as core;
use clawdbot_core::PoolModel;
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

/// Seconds as a duration. Infinity is one that no clock reaches.
fn seconds(found: f64, name: &str) -> PyResult<Duration> {
    if found == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(found)
        .map_err(|_| invalid_argument(format!("{name}: expected seconds, 0 or more, found {found}")))
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
        idle_unload: Option<f64>,
        instances: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let source = options::source(path, shape)?;
        let idle_unload = idle_unload.map(|after| seconds(after, "idle_unload")).transpose()?;
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
    #[pyo3(signature = (name, timeout=0.0))]
    fn get(&self, py: Python<'_>, name: String, timeout: Option<f64>) -> PyResult<Model> {
        let wait = seconds(timeout.unwrap_or(f64::INFINITY), "timeout")?;
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

    /// A list of dicts, one for each model, sorted by name: `name`, `state` (`unloaded`, `loading`, `loaded`), `pin`, `bytes`,
    /// `users` (a list, one number for each instance), `idle_seconds` (None while it is used, or was not yet).
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
