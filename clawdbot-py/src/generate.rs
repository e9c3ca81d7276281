//! Generating from one prompt, or from several together.

use std::ops::ControlFlow;

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, Prompt, Request};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::batch::{Failure, One, deliver, deliver_one, given};
use crate::completion::Completion;
use crate::interrupt::interruptible;
use crate::options;
use crate::prompt::{Prompts, one_or_many};

/// The options of a call: in a mapping, or one for each prompt; and as keyword arguments.
pub(crate) type Options<'a, 'py> = (Option<&'a Bound<'py, PyAny>>, Option<&'a Bound<'py, PyDict>>);

/// What `Model.generate` gives for `prompt`, one or a list.
///
/// # Errors
/// What is wrong with the arguments, what a signal handler raises, and that of the prompt, or the first of them.
pub(crate) fn generate<'py>(
    py: Python<'py>,
    model: &core::Model,
    prompt: &Bound<'py, PyAny>,
    (options, opts): Options<'_, 'py>,
    return_exceptions: bool,
) -> PyResult<Bound<'py, PyAny>> {
    match one_or_many(prompt)? {
        Prompts::One(prompt) => {
            let options = options::generate(options::GENERATE, py, options, opts)?;
            deliver_one(py, one(py, model, prompt, options)?, return_exceptions)
        }
        Prompts::Batch(prompts) => {
            let options = options::generate_each(py, options, opts, prompts.len())?;
            let requests = prompts.into_iter().zip(options);
            let requests = requests.map(|(prompt, options)| Ok(Request::new(prompt?, options?)));
            deliver(py, together(py, model, requests.collect())?, return_exceptions)
        }
    }
}

/// The result of one prompt.
///
/// # Errors
/// What a signal handler raises, which is not the prompt's error.
fn one(py: Python<'_>, model: &core::Model, prompt: Prompt, options: core::GenerateOptions) -> PyResult<One> {
    let work =
        move |model: &core::Model, cancel: &CancelHandle| Ok(model.generate_until(prompt, &options, cancel));
    let result = cancellable(py, model, work)?.map_err(Failure::from);
    Ok(result.and_then(|completion| Ok(Py::new(py, Completion::from(completion))?.into_any())))
}

/// Generates for all requests together; one result for each, in their order.
///
/// # Errors
/// What a signal handler raises.
fn together(py: Python<'_>, model: &core::Model, requests: Vec<PyResult<Request>>) -> PyResult<Vec<One>> {
    let work = move |model: &core::Model, cancel: &CancelHandle| {
        Ok(model.generate_each(given(requests), cancel, |_| ControlFlow::Continue(())))
    };
    let results = cancellable(py, model, work)?.into_iter();
    Ok(results.map(|result| Ok(Py::new(py, Completion::from(result?))?.into_any())).collect())
}

/// Does what Ctrl-C cancels.
///
/// # Errors
/// What a signal handler raises; those of `work`.
pub(crate) fn cancellable<T: Send + 'static>(
    py: Python<'_>,
    model: &core::Model,
    work: impl FnOnce(&core::Model, &CancelHandle) -> core::Result<T> + Send + 'static,
) -> PyResult<T> {
    let (model, cancel) = (model.clone(), CancelHandle::default());
    let handle = cancel.clone();
    interruptible(py, &[cancel], move || work(&model, &handle))
}
