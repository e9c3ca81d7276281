//! Progress functions of Python, and signals while the interpreter is released.

use std::ops::ControlFlow;

use clawdbot_core as core;
use clawdbot_core::Progress;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::error::to_py;

/// Does `work`, interpreter released, with a progress function that looks after signals and the hook.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    on_progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> core::Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let mut progress = |now: Progress| {
        // When the interpreter is on its way out, nobody waits for the result.
        let next = Python::try_attach(|py| report(py, on_progress.as_ref(), now));
        next.unwrap_or(Ok(ControlFlow::Break(()))).unwrap_or_else(|error| {
            raised = Some(error);
            ControlFlow::Break(())
        })
    };
    let done = py.detach(|| work(&mut progress));
    match raised {
        Some(error) => Err(error),
        None => done.map_err(to_py),
    }
}

fn report(py: Python<'_>, on_progress: Option<&Py<PyAny>>, now: Progress) -> PyResult<ControlFlow<()>> {
    py.check_signals()?;
    let Some(on_progress) = on_progress else { return Ok(ControlFlow::Continue(())) };
    let answer = on_progress.bind(py).call1((now.done, now.total))?;
    Ok(match answer.is(PyBool::new(py, false)) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
}
