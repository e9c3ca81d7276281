//! Requests that are awaited in asyncio.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::error::{closed, to_py};
use crate::stream::Stream;

/// A coroutine that gives the completion of what `begin` begins on another thread, as that may wait for a pass. `begin` gets the
/// time of this call.
pub(crate) fn completion(
    py: Python<'_>,
    begin: impl FnOnce(Instant) -> core::Result<core::Stream> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    let (begin, called) = (Mutex::new(Some(begin)), Instant::now());
    let begin = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let begin = begin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let begin = begin.ok_or_else(|| closed("coroutine"))?;
        arguments.py().detach(|| begin(called)).map(Stream::new).map_err(to_py)
    };
    let begin = PyCFunction::new_closure(py, None, None, begin)?;
    py.import("clawdbot._await")?.call_method1("completion", (begin,))
}
