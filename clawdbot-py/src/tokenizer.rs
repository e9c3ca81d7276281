//! Tokenizer, and chat templates on their own.

use std::path::PathBuf;
use std::sync::Arc;

use clawdbot_core as core;
use clawdbot_core::constraint::LazyVocabulary;
use clawdbot_core::{AddSpecialTokens, SkipSpecialTokens};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::{no_pickle, to_py};
use crate::interrupt::interruptible_soon;
use crate::{chat, json, prompt};

/// Bytes of a text from which on tokenizing takes long enough to be interrupted.
pub(crate) const LONG_TEXT: usize = 1 << 17;

/// Ids from which on decoding does.
const LONG_IDS: usize = 1 << 16;

/// Text to token ids and back.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Tokenizer(Arc<LazyVocabulary>);

impl Tokenizer {
    pub(crate) fn new(tokenizer: core::Tokenizer) -> Self {
        Tokenizer(Arc::new(LazyVocabulary::new(tokenizer)))
    }

    fn core(&self) -> &core::Tokenizer {
        self.0.tokenizer()
    }

    /// What its constraints share.
    pub(crate) fn vocabulary(&self) -> Arc<LazyVocabulary> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Tokenizer {
    /// The tokenizer in a `tokenizer.json`, or the vocabulary in a GGUF file.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| core::Tokenizer::from_file(&path)).map(Tokenizer::new).map_err(to_py)
    }

    /// Token ids of `text`. `add_special_tokens`: put what the model expects around it, such as BOS.
    #[pyo3(signature = (text, add_special_tokens=true))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyString>,
        add_special_tokens: bool,
    ) -> PyResult<Vec<u32>> {
        let add_special_tokens = AddSpecialTokens::from(add_special_tokens);
        let text = json::text_of(text, "text")?;
        if text.len() < LONG_TEXT {
            return py.detach(|| self.core().encode(&text, add_special_tokens)).map_err(to_py);
        }
        let (tokenizer, cancel) = (self.core().clone(), core::CancelHandle::default());
        let handle = cancel.clone();
        interruptible_soon(py, &cancel, move || tokenizer.encode_until(&text, add_special_tokens, &handle))
    }

    /// Text of `ids`. `skip_special_tokens`: leave special tokens out.
    #[pyo3(signature = (ids, skip_special_tokens=true))]
    fn decode(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let (ids, skip_special_tokens) =
            (prompt::ids(ids, "ids")?, SkipSpecialTokens::from(skip_special_tokens));
        if ids.len() < LONG_IDS {
            return py.detach(|| self.core().decode(&ids, skip_special_tokens)).map_err(to_py);
        }
        let (tokenizer, cancel) = (self.core().clone(), core::CancelHandle::default());
        let handle = cancel.clone();
        interruptible_soon(py, &cancel, move || tokenizer.decode_until(&ids, skip_special_tokens, &handle))
    }

    /// Number of tokens, added ones included.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.core().vocab_size()
    }

    /// The id of a token, or None.
    fn token_to_id(&self, token: &Bound<'_, PyString>) -> PyResult<Option<u32>> {
        Ok(self.core().token_to_id(&json::text_of(token, "token")?))
    }

    /// The token with an id, or None.
    fn id_to_token(&self, id: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        Ok(self.core().id_to_token(prompt::token(id, || "id".to_owned())?))
    }

    fn __repr__(&self) -> String {
        format!("<clawdbot.Tokenizer of {} tokens>", self.core().vocab_size())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Tokenizer"))
    }
}

/// Renders a conversation with a chat template (Jinja), as transformers does.
///
/// `messages` is a list of dicts with `role` and `content`, `tools` a list of function descriptions; `variables`, a mapping,
/// and further keyword arguments are variables of the template, such as `bos_token`.
#[pyfunction]
#[pyo3(signature = (template, messages, tools=None, add_generation_prompt=true, *, variables=None, **more_variables))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub(crate) fn render_chat_template(
    py: Python<'_>,
    template: &Bound<'_, PyString>,
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    add_generation_prompt: bool,
    variables: Option<&Bound<'_, PyAny>>,
    more_variables: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let template = json::text_of(template, "template")?;
    let messages = json::from_py(messages, "messages")?;
    let tools = tools.map(|tools| json::from_py(tools, "tools")).transpose()?;
    let variables = chat::variables(variables, more_variables)?;
    let render = core::tokenizer::render_chat_template;
    py.detach(|| render(&template, &messages, tools.as_ref(), add_generation_prompt.into(), &variables))
        .map_err(to_py)
}
