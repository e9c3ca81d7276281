//! A loaded model: generate, stream, score, render.

use std::path::PathBuf;

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, HubOptions, ModelOptions, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple};

use crate::chat::chat;
use crate::error::{invalid_argument, no_pickle, to_py};
use crate::event::Completion;
use crate::floats::to_numpy;
use crate::interrupt::interruptible;
use crate::prompt::Prompts;
use crate::runtime::{self, Runtime, watched};
use crate::session::Session;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;
use crate::{batch, hub, json, options, prompt};

/// A loaded model: immutable weights, tokenizer, chat template. Use one from as many threads as you like: requests that
/// run at the same time are computed together.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Model(core::Model);

impl Model {
    pub(crate) fn new(model: core::Model) -> Self {
        Model(model)
    }
}

/// What a model is loaded on and how, checked before anything is downloaded.
struct Prepared {
    runtime: core::Runtime,
    options: ModelOptions,
}

impl Prepared {
    /// `runtime`, or one of its own made with the runtime's options among `kwargs`.
    fn new(
        py: Python<'_>,
        runtime: Option<&Bound<'_, Runtime>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (of_runtime, of_model) = options::split_runtime(py, kwargs)?;
        let options = options::model(Some(&of_model))?;
        let runtime = match runtime {
            Some(_) if !of_runtime.is_empty() => {
                return Err(invalid_argument(format!(
                    "{of_runtime}: a runtime was given, which has its own"
                )));
            }
            Some(runtime) => runtime.get().0.clone(),
            None => runtime::new(&of_runtime, None)?,
        };
        Ok(Prepared { runtime, options })
    }

    fn load(&self, py: Python<'_>, source: &Source, on_progress: Option<Py<PyAny>>) -> PyResult<Model> {
        runtime::load(py, &self.runtime, source, &self.options, on_progress)
    }
}

#[pymethods]
impl Model {
    /// Loads the model in a directory, GGUF or packed file; no path: the built-in story model.
    ///
    /// A string OWNER/NAME that is no path names a model on Hugging Face, which is downloaded unless its cache has it
    /// (hf://OWNER/NAME and modelscope://OWNER/NAME say which hub; the address of its page will do, and OWNER/NAME:Q4_K_M for
    /// a GGUF file). revision: branch, tag or commit; file: a GGUF file of
    /// the repository; offline: whether the cache has to do; `on_download(done, total)` is called with bytes, as `on_progress`.
    ///
    /// Options: weights (`int8`, `int4`, `bf16`, `f32`, `stored`), kv (`auto`, `int8`, `bf16`, `f32`), max_context, prefill_chunk, max_batch, merge_adapters, chat_template, mmap,
    /// verify, cache; and threads, memory_budget and kernels of a runtime of its own, unless `runtime` is given. `on_progress(done, total)` is
    /// called with weights; returning False cancels, raising cancels and raises.
    #[staticmethod]
    #[pyo3(signature = (path=None, *, revision=None, file=None, offline=None, on_download=None, runtime=None, on_progress=None, **options))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn from_pretrained(
        py: Python<'_>,
        path: Option<&Bound<'_, PyAny>>,
        revision: Option<String>,
        file: Option<String>,
        offline: Option<bool>,
        on_download: Option<Py<PyAny>>,
        runtime: Option<&Bound<'_, Runtime>>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let prepared = Prepared::new(py, runtime, options)?;
        let hub = HubOptions::default().revision(revision).file(file).offline(offline);
        prepared.load(py, &hub::source(py, &prepared.runtime, path, &hub, on_download)?, on_progress)
    }

    /// Random weights in a published shape, one of `clawdbot.SHAPES`: for measuring speed. There is no tokenizer.
    /// Options as for `from_pretrained`.
    #[staticmethod]
    #[pyo3(signature = (shape, *, runtime=None, on_progress=None, **options))]
    fn from_shape(
        py: Python<'_>,
        shape: String,
        runtime: Option<&Bound<'_, Runtime>>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Prepared::new(py, runtime, options)?.load(py, &Source::Shape(shape), on_progress)
    }

    /// Generates. A prompt is text or token ids (any sequence, or an integer array).
    ///
    /// One prompt gives a Completion; a list of prompts runs as one batch and gives a list in the same order. A prompt that
    /// fails fails alone: when all are done the first exception is raised, with the list of completions and exceptions as
    /// its attribute `results`; with `return_exceptions` that list is returned, and nothing is raised.
    ///
    /// Options are those of `GenerateOptions`, as a mapping, as keyword arguments, or both; `options` may also be a list
    /// with a mapping (or None) for each prompt.
    #[pyo3(signature = (prompt, options=None, *, return_exceptions=false, **opts))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyAny>>,
        return_exceptions: bool,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (prompts, single) = match prompt::one_or_many(prompt)? {
            Prompts::One(prompt) => (vec![Ok(prompt)], true),
            Prompts::Batch(prompts) => (prompts, false),
        };
        let options = match single {
            true => vec![options::generate(py, options::mapping(options)?, opts)],
            false => options::generate_each(py, options, opts, prompts.len())?,
        };
        let requests = prompts.into_iter().zip(options).map(|(prompt, options)| Ok((prompt?, options?)));
        let mut results = batch::complete(py, &self.0, requests.collect())?;
        match results.pop() {
            Some(result) if single && !return_exceptions => Ok(Bound::new(py, result?)?.into_any()),
            last => {
                results.extend(last);
                let list = batch::deliver(py, results, return_exceptions)?;
                if single { list.get_item(0) } else { Ok(list) }
            }
        }
    }

    /// Generates from one prompt, event by event.
    #[pyo3(signature = (prompt, options=None, **opts))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyMapping>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let (prompt, options) = (prompt::one(prompt, "prompt")?, options::generate(py, options, opts)?);
        py.detach(|| self.0.stream(prompt, &options)).map(Stream::new).map_err(to_py)
    }

    /// Generates the next message of a conversation. `Session.chat` does so from what it has computed already.
    ///
    /// `messages`, `tools` and `variables` (a dict of further variables for the template) are as for `render_chat`. The
    /// template brings its special tokens, unless `add_special_tokens` is given.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyMapping>>,
        variables: Option<&Bound<'_, PyDict>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Completion> {
        self.chat_stream(py, messages, tools, options, variables, opts)?.finish(py)
    }

    /// Generates the next message of a conversation, event by event. Arguments as of `chat`.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat_stream(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyMapping>>,
        variables: Option<&Bound<'_, PyDict>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let (chat, options) = (chat(messages, tools, variables)?, options::generate(py, options, opts)?);
        py.detach(|| self.0.chat_stream(&chat, &options)).map(Stream::new).map_err(to_py)
    }

    /// Renders a conversation with the model's chat template, after checking it.
    ///
    /// `messages` is a list of dicts with `role` (system, developer, user, assistant, tool, or what the template names
    /// besides) and `content`; `tools` is a list of function descriptions, and tools that the template does not use are an
    /// error; further keyword arguments are variables of the template. A prompt that is generated from gets no second BOS if
    /// the template has written one.
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=true, **variables))]
    fn render_chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let chat = chat(messages, tools, variables)?;
        py.detach(|| self.0.render_chat(&chat, add_generation_prompt)).map_err(to_py)
    }

    /// Loads the LoRA adapter in `path`, a directory as PEFT writes it, for requests with `adapter=name`. It is applied beside
    /// the weights, which stay as they are.
    fn load_adapter(&self, py: Python<'_>, name: &str, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.load_adapter(name, path)).map_err(to_py)
    }

    /// Unloads an adapter. Requests that run with it go on.
    fn unload_adapter(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        py.detach(|| self.0.unload_adapter(name)).map_err(to_py)
    }

    /// The names of the loaded adapters, sorted.
    #[getter]
    fn adapters(&self) -> PyResult<Vec<String>> {
        self.0.adapters().map_err(to_py)
    }

    /// Logits at every position of `ids`, with an adapter or without: float32 array `[len(ids), vocab_size]`.
    #[pyo3(signature = (ids, adapter=None))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        adapter: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ids = prompt::ids(ids, "ids")?;
        let (count, model, cancel) = (ids.len(), self.0.clone(), CancelHandle::default());
        let handle = cancel.clone();
        let work = move || model.logits_until(&ids, adapter.as_deref(), &handle);
        let logits = interruptible(py, &[cancel], work)?;
        to_numpy(py, logits, (count, self.0.info().vocab_size))
    }

    /// Turns texts into vectors: float32 array `[len(texts), dimensions]`, computed together. A text may also be token ids.
    ///
    /// Options are those of `EmbedOptions`; what is not given comes from the model's files. `on_progress(done, total)` is
    /// called with texts; returning False cancels, raising cancels and raises.
    #[pyo3(signature = (texts, *, on_progress=None, **options))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let texts = prompt::many(texts, "texts")?.into_iter().collect::<PyResult<Vec<_>>>()?;
        let options = options::embed(options)?;
        let count = texts.len();
        let found =
            watched(py, on_progress, |progress| self.0.embed_with_progress(texts, &options, progress))?;
        to_numpy(py, found.values, (count, found.dimensions))
    }

    /// Scores documents against a query, more is more relevant: float32 array `[len(documents)]`.
    ///
    /// Options are those of `RerankOptions`; `on_progress` is as for `embed`, called with documents.
    #[pyo3(signature = (query, documents, *, on_progress=None, **options))]
    fn rerank<'py>(
        &self,
        py: Python<'py>,
        query: &Bound<'py, PyAny>,
        documents: &Bound<'py, PyAny>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (query, documents) = (prompt::text(query, "query")?, prompt::texts(documents, "documents")?);
        let (options, count) = (options::rerank(options)?, documents.len());
        let scores = watched(py, on_progress, |progress| {
            self.0.rerank_with_progress(&query, &documents, &options, progress)
        })?;
        to_numpy(py, scores, (1, count))?.call_method1("reshape", (count,))
    }

    /// A new conversation without tokens.
    fn session(&self, py: Python<'_>) -> PyResult<Session> {
        py.detach(|| self.0.session()).map(Session::new).map_err(to_py)
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        self.0.tokenizer().map(Tokenizer).map_err(to_py)
    }

    /// The runtime that computes it.
    #[getter]
    fn runtime(&self) -> Runtime {
        Runtime(self.0.runtime().clone())
    }

    /// Facts about the model, as a dict; sizes in bytes.
    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_py_object(py, &serde_json::json!(self.0.info()))
    }

    /// Cancels running requests and frees the model; everything else then raises `Closed`.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let plan = &self.0.info().plan;
        let (name, architecture, weights) = (&plan.name, plan.architecture, plan.weights);
        format!("<clawdbot.Model {name:?}: {architecture}, {} parameters, {weights}>", plan.parameters)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Model"))
    }
}
