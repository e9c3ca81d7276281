//! What a request gives: events, completions, usage, log-probabilities. Plain data.

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::error::to_py;
use crate::json;

/// The log-probability (natural logarithm) of a token under the model's own distribution.
#[pyclass(frozen, module = "clawdbot", get_all)]
pub(crate) struct TokenLogprob {
    /// Token id.
    id: u32,
    /// Natural logarithm of its probability.
    logprob: f32,
}

#[pymethods]
impl TokenLogprob {
    fn __repr__(&self) -> String {
        format!("TokenLogprob(id={}, logprob={})", self.id, self.logprob)
    }
}

impl From<core::TokenLogprob> for TokenLogprob {
    fn from(token: core::TokenLogprob) -> Self {
        TokenLogprob { id: token.id, logprob: token.logprob }
    }
}

/// What was drawn at a position, and the most likely tokens there.
#[pyclass(frozen, module = "clawdbot", get_all)]
pub(crate) struct Logprobs {
    /// The token that was chosen.
    chosen: Py<TokenLogprob>,
    /// The most likely tokens, most likely first.
    top: Vec<Py<TokenLogprob>>,
}

#[pymethods]
impl Logprobs {
    fn __repr__(&self) -> String {
        let top = self.top.len();
        format!("Logprobs(chosen={}, top=<{top} tokens>)", self.chosen.get().__repr__())
    }
}

impl Logprobs {
    fn new(py: Python<'_>, logprobs: core::Logprobs) -> PyResult<Py<Self>> {
        let chosen = Py::new(py, TokenLogprob::from(logprobs.chosen))?;
        let top = logprobs.top.into_iter().map(|token| Py::new(py, TokenLogprob::from(token)));
        Py::new(py, Logprobs { chosen, top: top.collect::<PyResult<_>>()? })
    }
}

/// Tokens and seconds of a request.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Usage(core::Usage);

#[pymethods]
impl Usage {
    /// Tokens of the prompt; for a session, everything before the output.
    #[getter]
    fn prompt_tokens(&self) -> usize {
        self.0.prompt_tokens
    }

    /// How many of them were in the cache already.
    #[getter]
    fn cached_tokens(&self) -> usize {
        self.0.cached_tokens
    }

    /// Tokens generated, a stop token included.
    #[getter]
    fn completion_tokens(&self) -> usize {
        self.0.completion_tokens
    }

    /// Seconds before the request's first forward pass.
    #[getter]
    fn queue_seconds(&self) -> f64 {
        self.0.queue_seconds
    }

    /// Seconds from there to the first token.
    #[getter]
    fn prefill_seconds(&self) -> f64 {
        self.0.prefill_seconds
    }

    /// Seconds from the first token to the end.
    #[getter]
    fn decode_seconds(&self) -> f64 {
        self.0.decode_seconds
    }

    /// Seconds from submission to the first token.
    #[getter]
    fn time_to_first_token(&self) -> f64 {
        self.0.time_to_first_token()
    }

    /// Prompt tokens computed per second; 0 when there is nothing to divide by.
    #[getter]
    fn prefill_tokens_per_s(&self) -> f64 {
        self.0.prefill_tokens_per_s()
    }

    /// Tokens per second after the first one; 0 when there is nothing to divide by.
    #[getter]
    fn decode_tokens_per_s(&self) -> f64 {
        self.0.decode_tokens_per_s()
    }

    fn __repr__(&self) -> String {
        let u = &self.0;
        format!(
            "Usage(prompt_tokens={}, cached_tokens={}, completion_tokens={}, prefill_seconds={:.3}, decode_seconds={:.3})",
            u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.prefill_seconds, u.decode_seconds
        )
    }
}

/// The result of a request.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Completion {
    /// The generated text.
    #[pyo3(get)]
    text: String,
    /// The generated tokens, a stop token included.
    #[pyo3(get)]
    token_ids: Vec<u32>,
    /// Why it ended: `stop`, `length` or `cancelled`.
    #[pyo3(get)]
    finish_reason: &'static str,
    /// Counts and times.
    #[pyo3(get)]
    usage: Py<Usage>,
    /// One entry for each generated token, if asked for.
    #[pyo3(get)]
    logprobs: Option<Vec<Py<Logprobs>>>,
    options: Map<String, Value>,
}

impl Completion {
    /// The core's completion as a Python object.
    pub(crate) fn new(py: Python<'_>, completion: core::Completion) -> PyResult<Py<Self>> {
        let per_token = |list: Vec<core::Logprobs>| {
            list.into_iter().map(|logprobs| Logprobs::new(py, logprobs)).collect::<PyResult<_>>()
        };
        let completion = Completion {
            text: completion.text,
            token_ids: completion.token_ids,
            finish_reason: completion.finish_reason.name(),
            usage: Py::new(py, Usage(completion.usage))?,
            logprobs: completion.logprobs.map(per_token).transpose()?,
            options: completion.options,
        };
        Py::new(py, completion)
    }
}

#[pymethods]
impl Completion {
    /// The options that were in force, defaults included.
    #[getter]
    fn options<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        json::map_to_py(py, &self.options)
    }

    fn __repr__(&self) -> String {
        let (text, tokens) = (&self.text, self.token_ids.len());
        format!("Completion(text={text:?}, finish_reason={:?}, tokens={tokens})", self.finish_reason)
    }

    fn __str__(&self) -> &str {
        &self.text
    }
}

/// Something that happened to a request.
#[pyclass(frozen, module = "clawdbot", get_all)]
pub(crate) struct Event {
    /// `token`, `progress` or `done`.
    kind: &'static str,
    /// `token`: its id.
    id: Option<u32>,
    /// `token`: the text that became certain with it, perhaps none.
    text: Option<String>,
    /// `token`: log-probabilities, if asked for.
    logprobs: Option<Py<Logprobs>>,
    /// `progress`: tokens of the prompt computed so far.
    done: Option<usize>,
    /// `progress`: tokens of the prompt.
    total: Option<usize>,
    /// `done`: the completion.
    completion: Option<Py<Completion>>,
}

impl Event {
    /// The core's event as a Python object.
    pub(crate) fn new(py: Python<'_>, event: core::Event) -> PyResult<Self> {
        let none = Event {
            kind: "done",
            id: None,
            text: None,
            logprobs: None,
            done: None,
            total: None,
            completion: None,
        };
        Ok(match event {
            core::Event::Progress { done, total } => {
                Event { kind: "progress", done: Some(done), total: Some(total), ..none }
            }
            core::Event::Token { id, text, logprobs } => {
                let logprobs = logprobs.map(|logprobs| Logprobs::new(py, logprobs)).transpose()?;
                Event { kind: "token", id: Some(id), text: Some(text), logprobs, ..none }
            }
            core::Event::Done(completion) => {
                Event { completion: Some(Completion::new(py, *completion)?), ..none }
            }
            other => {
                let error = core::Error::new(core::ErrorKind::Internal, format!("unknown event {other:?}"));
                return Err(to_py(error));
            }
        })
    }
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        match (&self.id, &self.text, &self.done, &self.total, &self.completion) {
            (Some(id), Some(text), ..) => format!("Event(kind='token', id={id}, text={text:?})"),
            (.., Some(done), Some(total), _) => format!("Event(kind='progress', done={done}, total={total})"),
            (.., Some(completion)) => {
                format!("Event(kind='done', completion={})", completion.get().__repr__())
            }
            _ => format!("Event(kind={:?})", self.kind),
        }
    }
}
