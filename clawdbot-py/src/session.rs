//! One conversation.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clawdbot_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::chat::chat;
use crate::completion::Completion;
use crate::error::{closed, no_pickle, to_py};
use crate::interrupt::{Released, interruptible, interruptible_here};
use crate::options::Call;
use crate::stream::Stream;
use crate::tokenizer::LONG_TEXT;
use crate::{json, options, prompt};

/// A conversation: its tokens, and their keys and values in the model's cache. One request at a time.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Session(Mutex<Released<core::Session>>);

impl Session {
    pub(crate) fn new(session: core::Session) -> Self {
        Session(Mutex::new(Released::new(session)))
    }

    /// Calls into the core, interpreter released.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut core::Session) -> core::Result<T> + Send,
    ) -> PyResult<T> {
        let result = py.detach(|| {
            let mut session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            session.get().map(call)
        });
        result.ok_or_else(|| closed("session"))?.map_err(to_py)
    }
}

#[pymethods]
impl Session {
    /// Adds a prompt to the conversation and says how many tokens that was. Computation starts with the next request.
    ///
    /// `add_special_tokens`: whether text gets the tokenizer's special tokens, such as BOS; usually for the first text
    /// alone. A BOS that the text begins with is not doubled. Any other argument is an error.
    #[pyo3(signature = (prompt, add_special_tokens=true, **others))]
    fn append(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        add_special_tokens: bool,
        others: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<usize> {
        options::APPEND.no_more(others)?;
        let prompt = prompt::one(prompt, "prompt")?;
        if !matches!(&prompt, core::Prompt::Text(text) if text.len() >= LONG_TEXT) {
            return self.with(py, |session| session.append(prompt, add_special_tokens.into()));
        }
        let cancel = core::CancelHandle::default();
        interruptible_here(py, &cancel.clone(), || {
            let mut session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let closed = || core::Error::new(core::ErrorKind::Closed, "the session is closed");
            let session = session.get().ok_or_else(closed)?;
            session.append_until(prompt, add_special_tokens.into(), &cancel)
        })
    }

    /// Generates a continuation, event by event; the tokens become part of the conversation. Options as of `Model.generate`.
    #[pyo3(signature = (options=None, **opts))]
    fn stream(
        &self,
        py: Python<'_>,
        options: Option<&Bound<'_, PyAny>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let options = options::generate(options::CONTINUE, py, options, opts)?;
        self.with(py, |session| session.stream(&options)).map(Stream::new)
    }

    /// Generates a continuation; the tokens become part of the conversation. Options as of `Model.generate`.
    #[pyo3(signature = (options=None, **opts))]
    fn generate(
        &self,
        py: Python<'_>,
        options: Option<&Bound<'_, PyAny>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        let options = options::generate(options::CONTINUE, py, options, opts)?;
        let stream = self.with(py, |session| session.stream(&options))?;
        let cancel = [stream.cancel_handle()];
        interruptible(py, &cancel, move || stream.finish()).map(Completion::from)
    }

    /// Generates the next message of a conversation, using what the session has computed of it: its tokens become those
    /// of the rendered conversation, and only what comes after the first difference is computed. `messages` has the whole
    /// conversation each time; the answer is the one that `Model.chat` gives. Arguments as of `Model.chat`.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyAny>>,
        variables: Option<&Bound<'_, PyAny>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        self.chat_stream(py, messages, tools, options, variables, opts)?.finish(py)
    }

    /// As `chat`, event by event.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat_stream(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyAny>>,
        variables: Option<&Bound<'_, PyAny>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let chat = chat(messages, tools, variables, None)?;
        let options = options::generate(Call::Chat, py, options, opts)?;
        self.with(py, |session| session.chat_stream(&chat, &options)).map(Stream::new)
    }

    /// All tokens of the conversation, prompts and outputs.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.with(py, |session| session.tokens())
    }

    /// A conversation of its own that begins as this one is. What is cached is shared, and copied page by page where one of
    /// the two goes on.
    fn fork(&self, py: Python<'_>) -> PyResult<Session> {
        self.with(py, |session| session.fork()).map(Session::new)
    }

    /// Writes the conversation to a file, with all that is cached of it, and returns its size in bytes:
    /// `Model.restore_session` goes on with the same bits, and computes nothing again. The file appears when it is complete,
    /// and replaces an earlier one. The first call for a model reads all its weights, to know what the file belongs to.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<u64> {
        self.with(py, move |session| session.save(path))
    }

    /// Forgets all but the first `length` tokens.
    fn truncate(&self, py: Python<'_>, length: &Bound<'_, PyAny>) -> PyResult<()> {
        // No session is longer.
        let length = json::whole(length, "length", u32::MAX.into())? as usize;
        self.with(py, |session| session.truncate(length))
    }

    /// Gives the conversation's part of the cache back; everything else then raises `Closed`.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.tokens(py) {
            Ok(tokens) => format!("<clawdbot.Session of {} tokens>", tokens.len()),
            Err(_) => "<clawdbot.Session, closed>".to_owned(),
        }
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Session"))
    }
}
