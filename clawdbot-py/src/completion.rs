//! The result of a request. Plain data: compared, pickled, and JSON.

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use serde_json::Value;

use crate::error::to_py;
use crate::event::{Logprobs, ToolCall, Usage};
use crate::objects;
use crate::plain_data::plain_data;

/// The result of a request.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Completion {
    core: core::Completion,
    /// Made when they are first looked at.
    logprobs: PyOnceLock<Option<Vec<Py<Logprobs>>>>,
    prompt_logprobs: PyOnceLock<Option<Vec<Py<Logprobs>>>>,
}

impl From<core::Completion> for Completion {
    fn from(core: core::Completion) -> Self {
        Completion { core, logprobs: PyOnceLock::new(), prompt_logprobs: PyOnceLock::new() }
    }
}

/// The objects of `all`, which are made when they are first looked at.
fn made_once(
    py: Python<'_>,
    made: &PyOnceLock<Option<Vec<Py<Logprobs>>>>,
    all: Option<&Vec<core::Logprobs>>,
) -> PyResult<Option<Vec<Py<Logprobs>>>> {
    let made = made.get_or_try_init(py, || {
        all.map(|all| all.iter().cloned().map(|one| Py::new(py, Logprobs(one))).collect()).transpose()
    })?;
    Ok(made.as_ref().map(|all| all.iter().map(|one| one.clone_ref(py)).collect()))
}

impl Completion {
    fn core(&self) -> &core::Completion {
        &self.core
    }
}

plain_data! {
    Completion {
        /// The generated text: without reasoning and tool calls, where they are read.
        #[getter]
        fn text(&self) -> &str {
            &self.core.text
        }

        /// The reasoning before the answer.
        #[getter]
        fn reasoning(&self) -> &str {
            &self.core.reasoning
        }

        /// The functions that the model asks to be called.
        #[getter]
        fn tool_calls(&self) -> Vec<ToolCall> {
            self.core.tool_calls.iter().cloned().map(ToolCall).collect()
        }

        /// What looked like a tool call and could not be read as one: it is in the text.
        #[getter]
        fn warnings(&self) -> &[String] {
            &self.core.warnings
        }

        /// The generated tokens, a stop token included.
        #[getter]
        fn token_ids(&self) -> &[u32] {
            &self.core.token_ids
        }

        /// Why it ended: `stop`, `length`, `cancelled` or `deadline`.
        #[getter]
        fn finish_reason(&self) -> &'static str {
            self.core.finish_reason.name()
        }

        /// Counts and times.
        #[getter]
        fn usage(&self) -> Usage {
            Usage(self.core.usage)
        }

        /// One entry for each generated token, if asked for.
        #[getter]
        fn logprobs(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<Logprobs>>>> {
            made_once(py, &self.logprobs, self.core.logprobs.as_ref())
        }

        /// One entry for each token of the prompt but the first, if asked for.
        #[getter]
        fn prompt_logprobs(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<Logprobs>>>> {
            made_once(py, &self.prompt_logprobs, self.core.prompt_logprobs.as_ref())
        }

        /// The further completions of the prompt, if `n` asks for several.
        #[getter]
        fn alternatives(&self) -> Vec<Completion> {
            self.core.alternatives.iter().cloned().map(Completion::from).collect()
        }

        /// The options that were in force, defaults included.
        #[getter]
        fn options<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
            objects::map_to_py(py, &self.core.options)
        }

        pub(crate) fn __repr__(&self) -> String {
            let (text, tokens) = (&self.core.text, self.core.token_ids.len());
            format!("Completion(text={text:?}, finish_reason={:?}, tokens={tokens})", self.finish_reason())
        }

        fn __str__(&self) -> &str {
            &self.core.text
        }
    }
}
