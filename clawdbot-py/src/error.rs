//! The core's error kinds as exception classes.

use std::collections::HashMap;

use clawdbot_core::{Error, ErrorKind, Item};
use pyo3::exceptions::{PyException, PyFileNotFoundError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::objects;

/// The class of each [`ErrorKind`], by code; 0 is their base.
static CLASSES: PyOnceLock<HashMap<i32, Py<PyType>>> = PyOnceLock::new();

const BASE_DOC: &str = "Any failure of clawdbot: `code` (a stable number), `kind` (the class's name), `detail` (a dict \
                        for programs).";

/// Adds `ClawdbotError` and a class for every kind to `module`.
pub(crate) fn add_exceptions(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for class in classes(module.py())?.values() {
        let class = class.bind(module.py());
        module.add(class.name()?, class)?;
    }
    Ok(())
}

fn classes(py: Python<'_>) -> PyResult<&HashMap<i32, Py<PyType>>> {
    CLASSES.get_or_try_init(py, || {
        let exception = py.get_type::<PyException>();
        let base = new_class(py, "ClawdbotError", 0, BASE_DOC, PyTuple::new(py, [exception])?)?;
        let mut classes = HashMap::from([(0, base.clone().unbind())]);
        for kind in ErrorKind::ALL {
            let bases = match builtin(py, *kind) {
                Some(builtin) => PyTuple::new(py, [base.clone(), builtin])?,
                None => PyTuple::new(py, [base.clone()])?,
            };
            let class = new_class(py, kind.name(), kind.code(), kind.summary(), bases)?;
            classes.insert(kind.code(), class.unbind());
        }
        Ok(classes)
    })
}

/// The exception of Python's own that says the same: `except ValueError` catches it too.
fn builtin(py: Python<'_>, kind: ErrorKind) -> Option<Bound<'_, PyType>> {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::InvalidUtf8 => Some(py.get_type::<PyValueError>()),
        ErrorKind::UnknownOption => Some(py.get_type::<PyTypeError>()),
        ErrorKind::NotFound => Some(py.get_type::<PyFileNotFoundError>()),
        _ => None,
    }
}

fn new_class<'py>(
    py: Python<'py>,
    name: &str,
    code: i32,
    doc: &str,
    bases: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyType>> {
    let body = PyDict::new(py);
    body.set_item("__module__", "clawdbot")?;
    body.set_item("__doc__", doc)?;
    body.set_item("code", code)?;
    body.set_item("kind", name)?;
    body.set_item("detail", py.import("types")?.getattr("MappingProxyType")?.call1((PyDict::new(py),))?)?;
    Ok(py.get_type::<PyType>().call1((name, bases, body))?.cast_into()?)
}

/// `error` as an exception of its class.
pub(crate) fn to_py(error: Error) -> PyErr {
    Python::attach(|py| {
        let make = || {
            let classes = classes(py)?;
            let class = classes.get(&error.code()).unwrap_or(&classes[&0]).bind(py);
            let exception = class.call1((error.message(),))?;
            exception.setattr("detail", objects::map_to_py(py, error.detail())?)?;
            Ok(PyErr::from_value(exception))
        };
        make().unwrap_or_else(|failure: PyErr| failure)
    })
}

/// An exception of class `InvalidArgument`.
pub(crate) fn invalid_argument(message: impl Into<String>) -> PyErr {
    to_py(Error::new(ErrorKind::InvalidArgument, message))
}

/// A `TypeError`: `path` is what it calls `found`.
pub(crate) fn wrong_type(path: &str, expected: &str, found: &Bound<'_, PyAny>) -> PyErr {
    let name = found.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
    PyTypeError::new_err(format!("{path}: expected {expected}, found {name}"))
}

/// The same exception, about prompt `index`: as [`Error::of_item`], for exceptions. Those that are not from here stay as
/// they are.
pub(crate) fn of_prompt(py: Python<'_>, error: PyErr, index: usize) -> PyErr {
    let item = Item::Prompt(index);
    let make = || -> PyResult<Option<PyErr>> {
        let value = error.value(py);
        let class = value.get_type();
        let detail = value.getattr_opt("detail")?;
        if detail.is_none() && !class.is(py.get_type::<PyTypeError>()) {
            return Ok(None);
        }
        let renamed = class.call1((format!("{item}: {}", value.str()?),))?;
        if let Some(detail) = detail {
            renamed.setattr("detail", detail)?;
        }
        Ok(Some(PyErr::from_value(renamed)))
    };
    let renamed = make().ok().flatten().unwrap_or(error);
    set_place(py, &renamed, item);
    renamed
}

/// Adds the place of an item to the detail of an exception whose message names it already.
pub(crate) fn set_place(py: Python<'_>, error: &PyErr, item: Item) {
    let set = || -> PyResult<()> {
        let value = error.value(py);
        if let Some(detail) = value.getattr_opt("detail")? {
            let detail = detail.cast_into::<PyDict>()?.copy()?;
            detail.set_item(item.key(), item.index())?;
            value.setattr("detail", detail)?;
        }
        Ok(())
    };
    // An exception of another origin has no such detail.
    let _ = set();
}

/// An exception of class `Closed`.
pub(crate) fn closed(what: &str) -> PyErr {
    to_py(Error::new(ErrorKind::Closed, format!("the {what} is closed")))
}

/// The answer to `pickle`: a handle belongs to its process.
pub(crate) fn no_pickle(what: &str) -> PyErr {
    PyTypeError::new_err(format!("a clawdbot.{what} cannot be pickled: make one in the process that uses it"))
}
