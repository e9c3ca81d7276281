//! Calls with several items: what is wrong with one fails it alone.

use clawdbot_core as core;
use clawdbot_core::Faults;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::error::to_py;

/// What is wrong with an item: found by its conversion, or by the core.
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

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Core(error) => to_py(error),
        }
    }
}

/// The result of an item.
pub(crate) type One = Result<Py<PyAny>, Failure>;

/// Items that were converted, or not, as the core takes them.
pub(crate) fn given<T>(items: Vec<PyResult<T>>) -> impl ExactSizeIterator<Item = Result<T, Failure>> {
    items.into_iter().map(|item| item.map_err(Failure::from))
}

/// The results of `count` items, in their order: what `good` gives for its place, unless the item failed.
pub(crate) fn results(
    faults: Faults<Failure>,
    count: usize,
    good: impl Fn(usize) -> PyResult<Py<PyAny>>,
) -> Vec<One> {
    faults.into_results(count, |index| good(index).map_err(Failure::from))
}

/// The results of a call as a list, where exceptions stand in the place of results. Unless these are wanted there, the
/// first is raised, with the list as its attribute `results`.
///
/// # Errors
/// The first of the exceptions.
pub(crate) fn deliver(
    py: Python<'_>,
    results: Vec<One>,
    return_exceptions: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let (list, mut first) = (PyList::empty(py), None);
    for result in results {
        match result.map_err(PyErr::from) {
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

/// The result of a call with one item, or its exception where that is wanted.
///
/// # Errors
/// That of the item.
pub(crate) fn deliver_one(
    py: Python<'_>,
    result: One,
    return_exceptions: bool,
) -> PyResult<Bound<'_, PyAny>> {
    match result.map_err(PyErr::from) {
        Err(error) if return_exceptions => Ok(error.into_value(py).into_bound(py).into_any()),
        result => result.map(|result| result.into_bound(py)),
    }
}
