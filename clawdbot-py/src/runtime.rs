//! Threads, memory budget, log hook; planning and loading.

use std::path::PathBuf;

use clawdbot_core as core;
use clawdbot_core::{HubOptions, LogLevel, LogRecord, ModelOptions, Source};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{no_pickle, to_py, wrong_type};
use crate::model::Model;
use crate::progress::watched;
use crate::{objects, options};

/// Threads, memory budget and log hook; models of one runtime share them.
///
/// `on_log` is called with level (`warning` or `info`) and message, from any thread; what it raises goes to
/// `sys.unraisablehook`. Any other argument is an error.
///
/// Options of a runtime:
/// - threads: Number of threads that compute. Value: a whole number from 1 to 1024. Default: the smallest of CPU
///   quota, affinity and physical cores.
/// - driver: Who computes: `caller`, the threads that wait for results, so that nothing runs between calls; or
///   `thread`, one of the runtime's own, so that requests advance while nobody waits for them. Default: caller.
/// - numa: On machines with several memory nodes (Linux): `interleave` spreads weights over them, `local` keeps
///   weights next to the threads that read them (`docs/performance.md`). Changes no result. Default: off.
/// - memory_budget: Most bytes that the models of a runtime may use together: weights, KV cache, scratch memory,
///   and all else that grows with requests. Value: a number of bytes below 2^64. Default: no limit for weights; for
///   what grows with requests, a share of the machine's memory (`docs/memory.md`).
/// - swap_space: Most bytes of a file for keys, values and states that memory has no room for: they are read back
///   in place of being computed again, where that is faster. It has no name, and goes with the runtime. Value: a
///   number of bytes below 2^64. Default: 0, no such file.
/// - swap_directory: Directory of that file. Default: the system's directory for temporary files.
/// - kernels: Instruction-set tier. Tiers with `bf16` in their name round activations to bf16 where weights are
///   bf16; all others give equal bits. Default: what `CLAWDBOT_ISA` says, or the best for this CPU.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Runtime(pub(crate) core::Runtime);

#[pymethods]
impl Runtime {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    #[pyo3(signature = (threads=None, memory_budget=None, on_log=None, *, driver=None, kernels=None, numa=None, **others))]
    fn py_new(
        py: Python<'_>,
        threads: Option<&Bound<'_, PyAny>>,
        memory_budget: Option<&Bound<'_, PyAny>>,
        on_log: Option<Py<PyAny>>,
        driver: Option<&Bound<'_, PyAny>>,
        kernels: Option<&Bound<'_, PyAny>>,
        numa: Option<&Bound<'_, PyAny>>,
        others: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let kwargs = others.map_or_else(|| Ok(PyDict::new(py)), PyDictMethods::copy)?;
        kwargs.set_item("threads", threads)?;
        kwargs.set_item("memory_budget", memory_budget)?;
        kwargs.set_item("driver", driver)?;
        kwargs.set_item("kernels", kernels)?;
        kwargs.set_item("numa", numa)?;
        new(&kwargs, on_log).map(Runtime)
    }

    /// What loading a model would cost, as a dict; sizes in bytes. `fits` says whether `load_bytes` are free in the memory
    /// budget or, without one, in `system_memory`, `tasks` and `has_chat_template` what the model can do, `warnings` what of its files has no effect. Reads no
    /// weights, unless asked to `verify` them. No path and no shape: the built-in model. Options as of
    /// `Model.from_pretrained`, but for those of a runtime.
    #[pyo3(signature = (path=None, *, shape=None, **options))]
    fn plan<'py>(
        &self,
        py: Python<'py>,
        path: Option<PathBuf>,
        shape: Option<String>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (source, options) = (options::source(path, shape)?, options::model(options::PLAN, options)?);
        let plan = py.detach(|| self.0.plan(&source, &options)).map_err(to_py)?;
        objects::to_py_object(py, &serde_json::json!(plan))
    }

    /// Loads the model in a directory, GGUF or packed file, with random weights in a published shape, or the built-in one.
    ///
    /// `on_progress(done, total)` is called with weights: if it returns False, loading is cancelled (`Cancelled`); what it
    /// raises is raised.
    ///
    /// Options (`ModelOptions`):
    /// - weights: Type that weights are computed with; `stored` keeps a quantized model's own codes. Default: as a
    ///   packed file holds them; `stored` for quantized models; int8 for others.
    /// - kv: Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto.
    /// - max_context: Maximum number of tokens in a sequence. Value: a whole number from 1 to 4294967295. Default: what
    ///   the model was trained for.
    /// - prefill_chunk: Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and
    ///   memory, not results. Value: a whole number from 1 to 65536. Default: 512.
    /// - max_batch: Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory,
    ///   not results. Value: a whole number from 1 to 4096. Default: 64.
    /// - target_inter_token_ms: Milliseconds between tokens that decoding sequences should have: prompts get as many
    ///   tokens of a pass as that allows, at least 16. Changes speed, not results. Value: a whole number from 1 to
    ///   3600000. Default: no target; prompts get `prefill_chunk`.
    /// - max_queue: Most requests that wait to begin; further ones are refused with `Overloaded`, which says when to
    ///   try again. Value: a whole number from 1 to 4294967295. Default: no limit.
    /// - share: With `driver` thread: the model's share of the thread's time, relative to those of other models of the
    ///   runtime that have work at the same time. Changes speed, not results. Value: a whole number from 1 to 1000.
    ///   Default: 1.
    /// - prefix_cache: Keep keys, values and states of requests that have ended, for prompts that begin as theirs did.
    ///   Changes speed and memory, not results. Not for encoders. Default: True with `driver` thread, else False.
    /// - prefix_cache_bytes: Most bytes that are kept so. They are given up where requests need memory. Default: half
    ///   of what requests may take.
    /// - prefix_cache_dir: Directory for a file of what is kept so: written when the model is closed, read when it is
    ///   loaded again. Default: what is kept goes with the model.
    /// - speculation: How tokens are guessed before they are computed: `ngram`, as what followed the last tokens
    ///   before; `draft`, by the `draft_model`; `mtp`, by the model's own head. Changes speed, not results. Default:
    ///   none.
    /// - draft_model: A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file.
    ///   Default: none.
    /// - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
    ///   quantized. Default: none.
    /// - chat_template: Text of a Jinja chat template to use instead of the model's own. It sees the model's special
    ///   tokens. Default: the model's.
    /// - mmap: Map a packed file, so that processes share its memory, instead of reading it. A mapped file must not be
    ///   changed or shortened. Default: True; with `numa`, False.
    /// - verify: Read all of a packed file first and compare it with its checksum. Default: False.
    /// - cache: Write a packed file when a directory is loaded, and use it the next time: True in the user's cache
    ///   directory, or in the directory given here. Changes no result. Default: False.
    #[pyo3(signature = (path=None, *, shape=None, on_progress=None, **options))]
    fn load(
        &self,
        py: Python<'_>,
        path: Option<PathBuf>,
        shape: Option<String>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Model> {
        let options = options::model(options::LOAD, options)?;
        load(py, &self.0, &options::source(path, shape)?, &options, on_progress)
    }

    /// Writes a model to the packed file `target`: weights as they are computed with, tokenizer, chat template and
    /// configuration. Such a file loads in milliseconds, and processes that use it share its memory. Returns its size in
    /// bytes. No path and no shape: the built-in model.
    ///
    /// `on_progress(done, total)` is called with weights: if it returns False, packing is cancelled (`Cancelled`); what it
    /// raises is raised.
    ///
    /// Options (`PackOptions`):
    /// - weights: Type that the weights will be computed with; `stored` keeps a quantized model's own codes. Default:
    ///   `stored` for quantized models, int8 for others.
    /// - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
    ///   quantized. Default: none.
    /// - calibrate: Choose int4 codes for least error on texts like the one in this UTF-8 file, not by rounding to
    ///   nearest; `builtin` is a text that comes with the library. 65,536 tokens are used. Default: rounding to
    ///   nearest.
    /// - overwrite: Replace a file that is already there. Default: False.
    #[pyo3(signature = (path, target, *, shape=None, on_progress=None, **options))]
    fn pack(
        &self,
        py: Python<'_>,
        path: Option<PathBuf>,
        target: PathBuf,
        shape: Option<String>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<u64> {
        let (source, options) = (options::source(path, shape)?, options::pack(options::PACK, options)?);
        watched(py, on_progress, |progress| self.0.pack_with_progress(&source, &target, &options, progress))
    }

    /// How good a model is with a weight type, as a dict: `perplexity` on a text; against a reference `kl_divergence` (mean
    /// over tokens, in nats), `top1_agreement` (0 to 1), and in `layers` how far the residual streams are apart; `tokens_per_s`
    /// of the model. `reference` says what it was compared with: the same model in f32, if nothing else is asked for. One layer
    /// of each model is in memory at a time. No path and no shape: the built-in model.
    ///
    /// `on_progress(done, total)` is called with weights, of both models: if it returns False, the work is cancelled
    /// (`Cancelled`); what it raises is raised.
    ///
    /// Options (`EvaluateOptions`):
    /// - weights: Type of the weights that are evaluated; `stored` keeps a quantized model's own codes. Default: as a
    ///   packed file holds them; `stored` for quantized models; int8 for others.
    /// - kv: Type of the KV cache that is evaluated; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto.
    /// - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
    ///   quantized; to those of the reference too, unless it is another model. Default: none.
    /// - text: UTF-8 file with the text; `builtin` is a text that comes with the library, which calibration uses too.
    ///   Default: builtin.
    /// - sequences: Maximum number of sequences, of 512 tokens or of the whole context if that is shorter. They are
    ///   taken from all over the text. Value: a whole number from 1 to 4096. Default: 8.
    /// - reference: Type of the weights that the model is compared with; `none` gives the perplexity alone. Default:
    ///   f32.
    /// - reference_model: Model to compare with: a directory, GGUF or packed file with the same tokens and sizes.
    ///   Default: the same model; of a packed or quantized one, its own weights, dequantized.
    /// - store: Store the report in the packed file that is evaluated, where `clawdbot inspect` and plans show it.
    ///   Default: False.
    #[pyo3(signature = (path=None, *, shape=None, on_progress=None, **options))]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        path: Option<PathBuf>,
        shape: Option<String>,
        on_progress: Option<Py<PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = options::source(path, shape)?;
        let options = options::evaluate(options::EVALUATE, options)?;
        let found =
            watched(py, on_progress, |progress| self.0.evaluate_with_progress(&source, &options, progress))?;
        objects::to_py_object(py, &serde_json::json!(found))
    }

    /// As `clawdbot.download`; requests that fail and are repeated go to the log of this runtime.
    #[pyo3(signature = (name, *, revision=None, file=None, offline=None, on_download=None, **others))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn download(
        &self,
        py: Python<'_>,
        name: &str,
        revision: Option<String>,
        file: Option<String>,
        offline: Option<bool>,
        on_download: Option<Py<PyAny>>,
        others: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PathBuf> {
        options::DOWNLOAD.no_more(others)?;
        let options = HubOptions::default().revision(revision).file(file).offline(offline);
        watched(py, on_download, |progress| self.0.fetch(name, &options, progress))
    }

    /// Number of threads that compute, the caller's included.
    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    /// The instruction-set tier in use, such as `x86_64-avx512-vnni`.
    #[getter]
    fn kernels(&self) -> &'static str {
        self.0.kernels()
    }

    /// Bytes that models of this runtime hold now.
    #[getter]
    fn memory_used(&self) -> u64 {
        self.0.memory_used()
    }

    /// What its models have done since they were loaded, and what they do now: `memory_used`, `memory_budget`, `swap_used`,
    /// `histogram_bounds` (seconds) and `models`. Each model has an `id` (also in its `info`) and, from a pool, a `pool_name`.
    /// Waits for no pass.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        objects::to_py_object(py, &serde_json::json!(self.0.metrics()))
    }

    /// The memory budget in bytes, or None.
    #[getter]
    fn memory_budget(&self) -> Option<u64> {
        self.0.memory_budget()
    }

    fn __repr__(&self) -> String {
        let (threads, kernels, used) = (self.0.threads(), self.0.kernels(), self.0.memory_used());
        format!("<clawdbot.Runtime of {threads} threads, {kernels}, {used} bytes used>")
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("Runtime"))
    }
}

/// A runtime with the options in `kwargs`.
pub(crate) fn new(kwargs: &Bound<'_, PyDict>, on_log: Option<Py<PyAny>>) -> PyResult<core::Runtime> {
    let options = options::runtime(options::RUNTIME, Some(kwargs))?;
    if let Some(on_log) =
        on_log.as_ref().map(|on_log| on_log.bind(kwargs.py())).filter(|on_log| !on_log.is_callable())
    {
        return Err(wrong_type("on_log", "a function of level and message", on_log));
    }
    let runtime = kwargs.py().detach(|| match on_log {
        Some(on_log) => core::Runtime::with_log(&options, move |record| log(&on_log, record)),
        None => core::Runtime::new(&options),
    });
    runtime.map_err(to_py)
}

/// Calls the log hook. There is no caller who could take its exception.
fn log(on_log: &Py<PyAny>, record: &LogRecord) {
    let level = match record.level {
        LogLevel::Warning => "warning",
        _ => "info",
    };
    Python::try_attach(|py| {
        if let Err(error) = on_log.call1(py, (level, &record.message)) {
            error.write_unraisable(py, Some(on_log.bind(py)));
        }
    });
}

/// Loads, interpreter released; signals and the progress hook are looked after between weights.
pub(crate) fn load(
    py: Python<'_>,
    runtime: &core::Runtime,
    source: &Source,
    options: &ModelOptions,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<Model> {
    watched(py, on_progress, |progress| runtime.load_with_progress(source, options, progress)).map(Model::new)
}
