//! Constraints without a model, to check texts with.

use clawdbot_core::constraint as core;
use clawdbot_core::{CancelHandle, Result};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::{no_pickle, to_py};
use crate::interrupt::interruptible_soon;
use crate::tokenizer::{LONG_TEXT, Tokenizer};
use crate::{json, options};

/// What a text is constrained to, to check texts without a model. Use one from as many threads as you like.
///
/// The options are those of `Model.generate`, exactly one of them: `json_schema` (an object, or its text), `json_object`,
/// `regex`, `grammar`, `choices`. One that cannot be enforced exactly is `InvalidConstraint`, whose message names the place.
/// Tables of the tokenizer's tokens are made with its first constraint, about a second for 130 000 tokens, and are kept with
/// the `Tokenizer` object for the next ones.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Constraint {
    constraint: core::Constraint,
    /// The option that set it, and the tokens it is for.
    option: &'static str,
    tokens: usize,
}

#[pymethods]
impl Constraint {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    #[pyo3(
        signature = (tokenizer, *, json_schema=None, json_object=None, regex=None, grammar=None, choices=None, **others),
        text_signature = "(tokenizer, *, json_schema=None, json_object=False, regex=None, grammar=None, choices=None, **others)",
    )]
    fn py_new(
        py: Python<'_>,
        tokenizer: &Bound<'_, Tokenizer>,
        json_schema: Option<&Bound<'_, PyAny>>,
        json_object: Option<&Bound<'_, PyAny>>,
        regex: Option<&Bound<'_, PyAny>>,
        grammar: Option<&Bound<'_, PyAny>>,
        choices: Option<&Bound<'_, PyAny>>,
        others: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let kwargs = others.map_or_else(|| Ok(PyDict::new(py)), PyDictMethods::copy)?;
        kwargs.set_item("json_schema", json_schema)?;
        kwargs.set_item("json_object", json_object)?;
        kwargs.set_item("regex", regex)?;
        kwargs.set_item("grammar", grammar)?;
        kwargs.set_item("choices", choices)?;
        let spec = options::constraint(&kwargs)?;
        let (vocabulary, option) = (tokenizer.get().vocabulary(), spec.option());
        let tokens = vocabulary.tokenizer().vocab_size();
        // Compiling ends soon by its own bounds: what is interrupted is left to end on its own.
        let compile = move || core::Constraint::with(&vocabulary.get()?, &spec);
        let constraint = interruptible_soon(py, &CancelHandle::default(), compile)?;
        Ok(Constraint { constraint, option, tokens })
    }

    /// Whether `text` satisfies the constraint as a whole.
    fn accepts(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<bool> {
        self.check(py, text, core::Constraint::accepts_until)
    }

    /// Where the first token of `text` that is forbidden begins, in characters. None if all are allowed: the text is
    /// accepted, or the beginning of one that is.
    fn forbidden_at(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Option<usize>> {
        self.check(py, text, core::Constraint::forbidden_at_until)
    }

    fn __repr__(&self) -> String {
        format!("<clawdbot.Constraint {} for {} tokens>", self.option, self.tokens)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Constraint"))
    }
}

impl Constraint {
    /// Does `work` with `text`, interpreter released; with a long one so that it can be interrupted.
    fn check<T: Send + 'static>(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyString>,
        work: fn(&core::Constraint, &str, &CancelHandle) -> Result<T>,
    ) -> PyResult<T> {
        let (text, cancel) = (json::text_of(text, "text")?, CancelHandle::default());
        if text.len() < LONG_TEXT {
            return py.detach(|| work(&self.constraint, &text, &cancel)).map_err(to_py);
        }
        let (constraint, handle) = (self.constraint.clone(), cancel.clone());
        interruptible_soon(py, &cancel, move || work(&constraint, &text, &handle))
    }
}
