//! Many prompts in one call: what is wrong with one is no other's concern.

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, GenerateOptions, Prompt};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::error::to_py;
use crate::event::Completion;
use crate::interrupt::interruptible;

/// Generates for all requests together; one result for each, in their order. A request that is an error stays one.
///
/// # Errors
/// What a signal handler raises.
pub(crate) fn complete(
    py: Python<'_>,
    model: &core::Model,
    requests: Vec<PyResult<(Prompt, GenerateOptions)>>,
) -> PyResult<Vec<PyResult<Completion>>> {
    let mut good = Vec::new();
    let bad: Vec<Option<PyErr>> =
        requests.into_iter().map(|request| request.map(|one| good.push(one)).err()).collect();
    let (model, cancel) = (model.clone(), CancelHandle::default());
    let asked = cancel.clone();
    let work = move || Ok(model.generate_batch_until(good.into_iter(), &asked));
    let mut results = interruptible(py, &[cancel], work)?.into_iter();
    let missing = || Err(core::Error::new(core::ErrorKind::Internal, "a request without a result"));
    let one = |(index, error): (usize, Option<PyErr>)| match error {
        Some(error) => Err(error),
        None => results
            .next()
            .unwrap_or_else(missing)
            .map(Completion::from)
            .map_err(|error| to_py(error.with("prompt", index))),
    };
    Ok(bad.into_iter().enumerate().map(one).collect())
}

/// The results of a batch as a list, where exceptions stand in the place of completions. Unless these are wanted there, the
/// first is raised, with the list as its attribute `results`.
///
/// # Errors
/// The first of the exceptions.
pub(crate) fn deliver<'py>(
    py: Python<'py>,
    results: Vec<PyResult<Completion>>,
    return_exceptions: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let (list, mut first) = (PyList::empty(py), None);
    for result in results {
        match result {
            Ok(completion) => list.append(Py::new(py, completion)?)?,
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
