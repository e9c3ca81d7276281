//! What a model is loaded on and how.

use clawdbot_core as core;
use clawdbot_core::{ModelOptions, Source};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::invalid_argument;
use crate::model::Model;
use crate::options;
use crate::options::Call;
use crate::runtime::{self, Runtime};

/// What a model is loaded on and how, checked before anything is downloaded.
pub(crate) struct Prepared {
    pub(crate) runtime: core::Runtime,
    options: ModelOptions,
}

impl Prepared {
    /// `runtime`, or one of its own made with the runtime's options among `kwargs`.
    pub(crate) fn new(
        call: Call,
        py: Python<'_>,
        runtime: Option<&Bound<'_, Runtime>>,
        on_log: Option<Py<PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (of_runtime, options) = options::split_runtime(call, py, kwargs)?;
        let runtime = match runtime {
            Some(_) if !of_runtime.is_empty() => {
                return Err(invalid_argument(format!(
                    "{of_runtime}: a runtime was given, which has its own"
                )));
            }
            Some(_) if on_log.is_some() => {
                return Err(invalid_argument("on_log: a runtime was given, which has its own"));
            }
            Some(runtime) => runtime.get().0.clone(),
            None => runtime::new(&of_runtime, on_log)?,
        };
        Ok(Prepared { runtime, options })
    }

    pub(crate) fn load(
        &self,
        py: Python<'_>,
        source: &Source,
        on_progress: Option<Py<PyAny>>,
    ) -> PyResult<Model> {
        runtime::load(py, &self.runtime, source, &self.options, on_progress)
    }
}
