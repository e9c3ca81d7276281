//! A loaded model: generate, stream, score, render.

use std::path::PathBuf;

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, GenerateOptions, HubOptions, ModelOptions, Prompt, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyTuple};

use crate::error::{invalid_argument, no_pickle, to_py};
use crate::event::Completion;
use crate::floats::to_numpy;
use crate::interrupt::interruptible;
use crate::prompt::Prompts;
use crate::runtime::{self, Runtime, watched};
use crate::session::Session;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;
use crate::{hub, json, options, prompt};

/// A loaded model: immutable weights, tokenizer, chat template. Use one from as many threads as you like: requests that
/// run at the same time are computed together.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Model(core::Model);

impl Model {
    pub(crate) fn new(model: core::Model) -> Self {
        Model(model)
    }

    /// Generates for all `prompts` together.
    fn complete(
        &self,
        py: Python<'_>,
        prompts: Vec<Prompt>,
        options: &GenerateOptions,
    ) -> PyResult<Vec<Py<Completion>>> {
        let start = |prompt| self.0.stream(prompt, options);
        let started = py.detach(|| prompts.into_iter().map(start).enumerate().map(at).collect());
        let streams: Vec<core::Stream> = Result::map_err(started, to_py)?;
        let cancel: Vec<CancelHandle> = streams.iter().map(core::Stream::cancel_handle).collect();
        let completions = interruptible(py, &cancel, || drain(streams))?;
        completions.into_iter().map(|completion| Completion::new(py, completion)).collect()
    }
}

/// Says which prompt of a batch an error is about.
fn at<T>((index, result): (usize, core::Result<T>)) -> core::Result<T> {
    result.map_err(|error| error.with("prompt", index))
}

/// Takes events of all streams in turn, so that they run as one batch, until each has given its completion. The first
/// error ends them all.
fn drain(streams: Vec<core::Stream>) -> core::Result<Vec<core::Completion>> {
    let mut done: Vec<Option<core::Completion>> = streams.iter().map(|_| None).collect();
    let mut running: Vec<(usize, core::Stream)> = streams.into_iter().enumerate().collect();
    while !running.is_empty() {
        let mut still = Vec::with_capacity(running.len());
        for (index, mut stream) in running {
            match at((index, stream.next_event()))? {
                Some(core::Event::Done(completion)) => done[index] = Some(*completion),
                Some(_) => still.push((index, stream)),
                None => {}
            }
        }
        running = still;
    }
    Ok(done.into_iter().flatten().collect())
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
    /// (hf://OWNER/NAME and modelscope://OWNER/NAME say which hub). revision: branch, tag or commit; file: a GGUF file of
    /// the repository; offline: whether the cache has to do; `on_download(done, total)` is called with bytes, as `on_progress`.
    ///
    /// Options: weights (`int8`, `int4`, `bf16`, `f32`, `stored`), kv (`auto`, `int8`, `bf16`, `f32`), max_context, prefill_chunk, max_batch, merge_adapters, mmap,
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
        prepared.load(py, &hub::source(py, path, &hub, on_download)?, on_progress)
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
    /// One prompt gives a Completion; a list of prompts runs as one batch and gives a list in the same order, or the
    /// error of the first prompt that has one. Options are those of `GenerateOptions`, as a mapping, as keyword
    /// arguments, or both.
    #[pyo3(signature = (prompt, options=None, **opts))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyMapping>>,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options::generate(py, options, opts)?;
        match prompt::one_or_many(prompt)? {
            Prompts::One(prompt) => {
                Ok(self.complete(py, vec![prompt], &options)?.remove(0).into_bound(py).into_any())
            }
            Prompts::Batch(prompts) => Ok(PyList::new(py, self.complete(py, prompts, &options)?)?.into_any()),
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

    /// Generates the next message of a conversation: renders it and continues.
    ///
    /// `variables` is a dict of further variables for the template. `add_special_tokens` is off unless given.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyMapping>>,
        variables: Option<&Bound<'_, PyDict>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Completion>> {
        let options = options::chat(py, options, opts)?;
        let prompt = self.render_chat(py, messages, tools, true, variables)?;
        Ok(self.complete(py, vec![prompt.into()], &options)?.remove(0))
    }

    /// Renders a conversation with the model's chat template.
    ///
    /// `messages` is a list of dicts with `role` and `content`, `tools` a list of function descriptions; further
    /// keyword arguments are variables of the template.
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=true, **variables))]
    fn render_chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let messages = json::from_py(messages, "messages")?;
        let tools = tools.map(|tools| json::from_py(tools, "tools")).transpose()?;
        let variables = json::map_from_py(variables)?;
        py.detach(|| self.0.render_chat(&messages, tools.as_ref(), add_generation_prompt, &variables))
            .map_err(to_py)
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
        let (texts, options) = (prompt::many(texts, "texts")?, options::embed(options)?);
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
