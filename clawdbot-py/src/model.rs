//! A loaded model: generate, stream, score, render.

use std::path::PathBuf;

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, EmbedResults, HubOptions, ModelOptions, Request, RerankResults, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString, PyTuple};

use crate::batch::Failure;
use crate::chat::chat;
use crate::error::{invalid_argument, no_pickle, to_py};
use crate::event::Completion;
use crate::floats::to_numpy;
use crate::interrupt::interruptible;
use crate::options::Call;
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

    /// Does what Ctrl-C cancels.
    fn cancellable<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&core::Model, &CancelHandle) -> core::Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let (model, cancel) = (self.0.clone(), CancelHandle::default());
        let handle = cancel.clone();
        interruptible(py, &[cancel], move || work(&model, &handle))
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
        call: Call,
        py: Python<'_>,
        runtime: Option<&Bound<'_, Runtime>>,
        on_log: Option<Py<PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (of_runtime, options) = options::split_runtime(call, py, kwargs)?;
        let runtime = match runtime {
            Some(_) if !of_runtime.is_empty() => {
                return Err(invalid_argument(format!(
                    "{of_runtime}: a runtime was given, which has its own"
                )));
            }
            Some(_) if on_log.is_some() => {
                return Err(invalid_argument("on_log: a runtime was given, which has its own"));
            }
            Some(runtime) => runtime.get().0.clone(),
            None => runtime::new(&of_runtime, on_log)?,
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
    /// (hf://OWNER/NAME and modelscope://OWNER/NAME name the hub; the address of its page works too, as does OWNER/NAME:Q4_K_M for
    /// a GGUF file). revision: branch, tag or commit; file: a GGUF file of
    /// the repository; offline: use the cache alone; `on_download(done, total)` is called with bytes, as `on_progress`.
    ///
    /// Options: weights (`int8`, `int4`, `bf16`, `f32`, `stored`), kv (`auto`, `int8`, `bf16`, `f32`), max_context, prefill_chunk, max_batch, merge_adapters, chat_template, mmap,
    /// verify, cache; and threads, memory_budget, kernels and `on_log` of a runtime of its own, unless `runtime` is given. `on_progress(done, total)` is
    /// called with weights: if it returns False, loading is cancelled (`Cancelled`); what it raises is raised.
    #[staticmethod]
    #[pyo3(signature = (path=None, *, revision=None, file=None, offline=None, on_download=None, runtime=None, on_log=None, on_progress=None, **options))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn from_pretrained(
        py: Python<'_>,
        path: Option<&Bound<'_, PyAny>>,
        revision: Option<String>,
        file: Option<String>,
        offline: Option<bool>,
        on_download: Option<Py<PyAny>>,
        runtime: Option<&Bound<'_, Runtime>>,
        on_log: Option<Py<PyAny>>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let prepared = Prepared::new(options::PRETRAINED, py, runtime, on_log, options)?;
        let hub = HubOptions::default().revision(revision).file(file).offline(offline);
        prepared.load(py, &hub::source(py, &prepared.runtime, path, &hub, on_download)?, on_progress)
    }

    /// Random weights in a published shape, one of `clawdbot.SHAPES`: for measuring speed. There is no tokenizer.
    /// Options as for `from_pretrained`.
    #[staticmethod]
    #[pyo3(signature = (shape, *, runtime=None, on_log=None, on_progress=None, **options))]
    fn from_shape(
        py: Python<'_>,
        shape: String,
        runtime: Option<&Bound<'_, Runtime>>,
        on_log: Option<Py<PyAny>>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Prepared::new(options::SHAPE, py, runtime, on_log, options)?.load(
            py,
            &Source::Shape(shape),
            on_progress,
        )
    }

    /// Generates. A prompt is text or token ids (any sequence, or an integer array).
    ///
    /// One prompt gives a Completion; a list of prompts runs as one batch and gives a list in the same order. A prompt that
    /// fails fails alone: when all are done the first exception is raised, with the list of completions and exceptions as
    /// its attribute `results`; with `return_exceptions` that list is returned, and nothing is raised.
    ///
    /// Options, as a mapping, as keyword arguments, or both; `options` may also be a list with a mapping (or None) for each
    /// prompt. What is not given comes from the model. `GenerateOptions` says more about each.
    ///
    /// - how much: max_tokens, min_tokens, stop (texts), stop_token_ids, ignore_eos;
    /// - which tokens are drawn: temperature (0: the most likely one), top_k, top_p, min_p, typical_p, seed;
    /// - which are favoured: repetition_penalty, presence_penalty, frequency_penalty, no_repeat_ngram_size, logit_bias,
    ///   suppress_tokens, begin_suppress_tokens, bad_words_ids;
    /// - what is reported: logprobs (this many most likely tokens for each), skip_special_tokens;
    /// - add_special_tokens (whether the prompt gets BOS and the like), adapter (a LoRA adapter by its name).
    #[pyo3(signature = (prompt, options=None, *, return_exceptions=false, **opts))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyAny>>,
        return_exceptions: bool,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let prompts = match prompt::one_or_many(prompt)? {
            Prompts::One(prompt) => {
                let options = options::generate(options::GENERATE, py, options, opts)?;
                // What a signal handler raises is not the prompt's error.
                let result = self.cancellable(py, move |model, cancel| {
                    Ok(model.generate_until(prompt, &options, cancel))
                })?;
                let completion = result
                    .map_err(Failure::from)
                    .and_then(|completion| Ok(Py::new(py, Completion::from(completion))?.into_any()));
                return batch::deliver_one(py, completion, return_exceptions);
            }
            Prompts::Batch(prompts) => prompts,
        };
        let options = options::generate_each(py, options, opts, prompts.len())?;
        let requests = prompts.into_iter().zip(options);
        let requests = requests.map(|(prompt, options)| Ok(Request::new(prompt?, options?)));
        batch::deliver(py, batch::generate(py, &self.0, requests.collect())?, return_exceptions)
    }

    /// Generates from one prompt, event by event. Options as of `generate`.
    #[pyo3(signature = (prompt, options=None, **opts))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyAny>>,
        opts: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let (prompt, options) =
            (prompt::one(prompt, "prompt")?, options::generate(options::STREAM, py, options, opts)?);
        py.detach(|| self.0.stream(prompt, &options)).map(Stream::new).map_err(to_py)
    }

    /// Generates the next message of a conversation. `Session.chat` does so from what it has computed already.
    ///
    /// `messages`, `tools` and `variables` (a mapping, such as `{"enable_thinking": False}`) are as for `render_chat`; keyword
    /// arguments are options, as of `generate`. The template brings its special tokens, unless `add_special_tokens` is given.
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
        let chat = chat(messages, tools, variables, None)?;
        let options = options::generate(Call::Chat, py, options, opts)?;
        let work =
            move |model: &core::Model, cancel: &CancelHandle| model.chat_until(&chat, &options, cancel);
        self.cancellable(py, work).map(Completion::from)
    }

    /// Generates the next message of a conversation, event by event. Arguments as of `chat`.
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
        py.detach(|| self.0.chat_stream(&chat, &options)).map(Stream::new).map_err(to_py)
    }

    /// Renders a conversation with the model's chat template, after checking it.
    ///
    /// `messages` is a list of dicts with `role` (system, developer, user, assistant, tool, or another that the template
    /// names) and `content`; `tools` is a list of function descriptions, and tools that the template does not use are an
    /// error; `variables`, a mapping, and further keyword arguments are variables of the template. A prompt that is generated from gets no second BOS if
    /// the template has written one.
    #[pyo3(signature = (messages, tools=None, add_generation_prompt=true, *, variables=None, **more_variables))]
    fn render_chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        variables: Option<&Bound<'_, PyAny>>,
        more_variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let chat = chat(messages, tools, variables, more_variables)?;
        py.detach(|| self.0.render_chat(&chat, add_generation_prompt.into())).map_err(to_py)
    }

    /// Loads the LoRA adapter in `path`, a directory as PEFT writes it, for requests with `adapter=name`. It is applied next to
    /// the weights, which stay as they are.
    fn load_adapter(&self, py: Python<'_>, name: &str, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.load_adapter(name, path)).map_err(to_py)
    }

    /// Unloads an adapter. Requests that run keep using it.
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
        let count = ids.len();
        let work = move |model: &core::Model, cancel: &CancelHandle| {
            model.logits_until(&ids, adapter.as_deref(), cancel)
        };
        let logits = self.cancellable(py, work)?;
        to_numpy(py, logits, (count, self.0.info().vocab_size))
    }

    /// Turns texts into vectors: float32 array `[len(texts), dimensions]`, computed together. A single text, a str, gives
    /// one vector, `[dimensions]`. In a list, a text may also be token ids.
    ///
    /// Options: pooling, normalize, prompt_name, prompt, dimensions, truncate, add_special_tokens (`EmbedOptions`); what is not
    /// given comes from the model's files. `on_progress(done, total)` is called with texts. If it returns
    /// False, the work is cancelled (`Cancelled`); what it raises is raised.
    ///
    /// A text that fails fails alone: when all are done the first exception is raised, with a list of vectors and exceptions as
    /// its attribute `results`; with `return_exceptions` that list is returned, and nothing is raised.
    #[pyo3(signature = (texts, *, return_exceptions=false, on_progress=None, **options))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        return_exceptions: bool,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options::embed(options::EMBED, options)?;
        let single = texts.is_instance_of::<PyString>();
        let texts = match single {
            true => vec![prompt::one(texts, "texts")],
            false => prompt::many(texts, &prompt::TEXTS)?,
        };
        let count = texts.len();
        let EmbedResults { embeddings, faults, .. } = watched(py, on_progress, |progress| {
            self.0.embed_each(batch::given(texts), &options, &CancelHandle::default(), progress)
        })?;
        let vectors = to_numpy(py, embeddings.values, (count, embeddings.dimensions))?;
        if faults.is_empty() && !return_exceptions && !single {
            return Ok(vectors);
        }
        let mut results = batch::results(faults, count, |index| vectors.get_item(index).map(Bound::unbind));
        match results.pop_if(|_| single) {
            Some(result) => batch::deliver_one(py, result, return_exceptions),
            None => batch::deliver(py, results, return_exceptions),
        }
    }

    /// Scores documents against a query, more is more relevant: float32 array `[len(documents)]`.
    ///
    /// Options: sigmoid, instruction, truncate (`RerankOptions`). `on_progress`, called with documents, and
    /// `return_exceptions`, with scores as floats, are as for `embed`.
    #[pyo3(signature = (query, documents, *, return_exceptions=false, on_progress=None, **options))]
    fn rerank<'py>(
        &self,
        py: Python<'py>,
        query: &Bound<'py, PyAny>,
        documents: &Bound<'py, PyAny>,
        return_exceptions: bool,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options::rerank(options::RERANK, options)?;
        let (query, documents) =
            (prompt::text(query, "query")?, prompt::texts(documents, &prompt::DOCUMENTS)?);
        let count = documents.len();
        let RerankResults { scores, faults, .. } = watched(py, on_progress, |progress| {
            let documents = batch::given(documents);
            self.0.rerank_each(&query, documents, &options, &CancelHandle::default(), progress)
        })?;
        if faults.is_empty() && !return_exceptions {
            return to_numpy(py, scores, (1, count))?.call_method1("reshape", (count,));
        }
        let score = |index: usize| Ok(PyFloat::new(py, scores[index].into()).into_any().unbind());
        batch::deliver(py, batch::results(faults, count, score), return_exceptions)
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
