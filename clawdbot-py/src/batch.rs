//! Many texts in one call: what is wrong with one is no other's concern.

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, GenerateOptions, Prompt};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::error::to_py;
use crate::event::Completion;
use crate::interrupt::interruptible;

/// What is wrong with one of several: found here, or by the core.
pub(crate) enum Failure {
    Python(PyErr),
    Core(core::Error),
}

impl From<core::Error> for Failure {
    fn from(error: core::Error) -> Self {
        Failure::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Failure::Python(error)
    }
}

impl Failure {
    fn into_py(self) -> PyErr {
        match self {
            Failure::Python(error) => error,
            Failure::Core(error) => to_py(error),
        }
    }
}

/// Texts that were converted, or not, as the core takes them.
pub(crate) fn given<T>(texts: Vec<PyResult<T>>) -> impl ExactSizeIterator<Item = Result<T, Failure>> {
    texts.into_iter().map(|text| text.map_err(Failure::from))
}

/// Generates for all requests together; one result for each, in their order. A request that is an error stays one.
///
/// # Errors
/// What a signal handler raises.
pub(crate) fn complete(
    py: Python<'_>,
    model: &core::Model,
    requests: Vec<PyResult<(Prompt, GenerateOptions)>>,
) -> PyResult<Vec<PyResult<Py<PyAny>>>> {
    let (model, cancel) = (model.clone(), CancelHandle::default());
    let asked = cancel.clone();
    let work = move || Ok(model.generate_each(given(requests), &asked));
    let results = interruptible(py, &[cancel], work)?.into_iter();
    let one = |result: Result<core::Completion, Failure>| match result {
        Ok(completion) => Py::new(py, Completion::from(completion)).map(Py::into_any),
        Err(error) => Err(error.into_py()),
    };
    Ok(results.map(one).collect())
}

/// Of `count` results, which `good` gives by their places, those that failed replaced by what is wrong with them.
pub(crate) fn each(
    count: usize,
    errors: Vec<(usize, Failure)>,
    good: impl Fn(usize) -> PyResult<Py<PyAny>>,
) -> Vec<PyResult<Py<PyAny>>> {
    let mut errors = errors.into_iter().peekable();
    let mut one = |index| match errors.next_if(|(failed, _)| *failed == index) {
        Some((_, error)) => Err(error.into_py()),
        None => good(index),
    };
    (0..count).map(&mut one).collect()
}

/// The results of a batch as a list, where exceptions stand in the place of results. Unless these are wanted there, the
/// first is raised, with the list as its attribute `results`.
///
/// # Errors
/// The first of the exceptions.
pub(crate) fn deliver(
    py: Python<'_>,
    results: Vec<PyResult<Py<PyAny>>>,
    return_exceptions: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let (list, mut first) = (PyList::empty(py), None);
    for result in results {
        match result {
            Ok(result) => list.append(result)?,
            Err(error) => {
                let exception = error.value(py);
                list.append(exception)?;
                first.get_or_insert_with(|| exception.clone());
            }
        }
    }
    match first.filter(|_| !return_exceptions) {
        Some(exception) => {
            exception.setattr("results", list)?;
            Err(PyErr::from_value(exception.into_any()))
        }
        None => Ok(list.into_any()),
    }
}
