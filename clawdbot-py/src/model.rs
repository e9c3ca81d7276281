//! A loaded model: generate, stream, score, render.

use std::path::PathBuf;

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, HubOptions, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::chat::chat;
use crate::completion::Completion;
use crate::error::{no_pickle, to_py};
use crate::floats::{Shape, to_numpy};
use crate::generate::{cancellable, generate};
use crate::options::Call;
use crate::prepared::Prepared;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;
use crate::{awaited, hub, json, objects, options, prompt, vectors};

/// A loaded model: immutable weights, tokenizer, chat template. Use one from as many threads as you like: requests that
/// run at the same time are computed together.
#[pyclass(frozen, module = "clawdbot")]
pub(crate) struct Model(core::Model);

impl Model {
    pub(crate) fn new(model: core::Model) -> Self {
        Model(model)
    }
}

/// Options with a bound of passes, whose range is the option's.
///
/// # Errors
/// `TypeError` for what is no whole number, `InvalidArgument` for one out of range.
fn bounds(name: &str, found: &Bound<'_, PyAny>) -> PyResult<core::ModelOptions> {
    json::check_whole(found, name)?;
    let options = [(name.to_owned(), json::from_py(found, name)?)].into_iter().collect();
    core::ModelOptions::from_json(&options).map_err(to_py)
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
    /// `on_progress(done, total)` is called with weights: if it returns False, loading is cancelled (`Cancelled`); what it
    /// raises is raised. `threads`, `memory_budget`, `kernels` and `on_log` are for a runtime of the model's own, when no
    /// `runtime` is given.
    ///
    /// Options (`LoadOptions`):
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
    /// Options go in a mapping, as keyword arguments, or both; `options` may also be a list with a mapping (or None) for each
    /// prompt.
    ///
    /// Options (`GenerateOptions`):
    /// - adapter: Name of the loaded LoRA adapter to use. Default: none.
    /// - priority: Requests of higher priority are served first, with `driver` thread those of other models too; among
    ///   equals, groups share. Value: a whole number from 0 to 100. Default: 50.
    /// - group: Name of the group of requests (a user, a job) that this one belongs to. Groups get equal shares,
    ///   however many requests each has. Default: none: requests without one share a group.
    /// - deadline_ms: Milliseconds from now after which the request ends, with the finish reason `deadline` and what it
    ///   has generated. Default: none.
    /// - speculation: How tokens are guessed before they are computed, as for a model. Changes speed, not results.
    ///   Default: the model's.
    /// - n: How many completions of the prompt to generate; the further ones have the seeds after `seed`. Streams and
    ///   sessions give one. Value: a whole number from 1 to 128. Default: 1.
    /// - best_of: Generate this many, and give the `n` whose tokens have the highest mean log-probability, best first.
    ///   Value: a whole number from 1 to 128. Default: `n`, in the order of their seeds.
    /// - num_beams: Beams of a beam search, which keeps so many of the most likely texts while it generates; 1 is off.
    ///   The best `n` are given, best first. Value: a whole number from 1 to 32. Default: 1.
    /// - length_penalty: The score of a text in a beam search is its log-probability, divided by its length to this
    ///   power: above 0, longer texts gain. Default: the model's, or 1.
    /// - early_stopping: When a beam search ends: `True`, with `num_beams` finished texts; `False`, when better ones
    ///   are unlikely; `never`, when there can be none. Default: the model's, or False.
    /// - max_tokens: Maximum number of tokens to generate. Value: a whole number from 1 to 4294967295. Default: the
    ///   model's, or until the context is full.
    /// - temperature: Logits are divided by this before the softmax: lower values favor likely tokens. 0 is greedy:
    ///   always the most likely token. Value: a finite number, 0 or more. Default: the model's (or 1) with `do_sample`,
    ///   0 without.
    /// - top_k: Sample only from this many of the most likely tokens; 0 is off. Default: the model's, or else 50 with
    ///   `do_sample` and 0 without.
    /// - top_p: Sample only from the smallest set of most likely tokens whose probabilities add up to this (nucleus
    ///   sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1.
    /// - min_p: Sample only from tokens at least this many times as likely as the most likely token; 0 is off. Value: a
    ///   number from 0 to 1. Default: the model's, or 0.
    /// - typical_p: Sample only from tokens whose surprisal is closest to the entropy, until their probabilities add up
    ///   to this (locally typical sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1.
    /// - top_n_sigma: Sample only from tokens whose logits are at most this many standard deviations below the largest
    ///   one; 0 is off. Value: a finite number, 0 or more. Default: 0.
    /// - xtc_probability: How often (0 to 1) likely tokens are left out: of those at least as likely as
    ///   `xtc_threshold`, only the least likely stays (exclude top choices); 0 is off. Value: a number from 0 to 1.
    ///   Default: 0.
    /// - xtc_threshold: Probability from which on `xtc_probability` leaves tokens out. Value: a number above 0, at most
    ///   1. Default: 0.1.
    /// - dynatemp_range: By how much the temperature may be higher or lower: higher where many tokens are likely, lower
    ///   where few are; 0 is off. Value: a finite number, 0 or more. Default: 0.
    /// - dynatemp_exponent: Power of the normalized entropy that says where in `dynatemp_range` the temperature is.
    ///   Value: a finite number above 0. Default: 1.
    /// - mirostat_tau: Keep the surprisal of the text near so many bits per token (Mirostat 2), in place of `top_k`,
    ///   `top_p` and the other filters. Value: a finite number above 0. Default: off.
    /// - mirostat_eta: How fast Mirostat learns. Value: a finite number above 0. Default: 0.1.
    /// - samplers: The steps of sampling and their order. Those that are left out are not taken. Default: penalties,
    ///   dry, top_n_sigma, temperature, top_k, top_p, min_p, typ_p, xtc.
    /// - repetition_penalty: Divide positive logits of tokens that occur in the prompt or the output by this, and
    ///   multiply negative ones; 1 is off. Value: a finite number above 0. Default: the model's, or 1.
    /// - presence_penalty: Subtract this from the logits of tokens that occur in the output. Default: 0.
    /// - frequency_penalty: Subtract this from the logits of tokens in the output, once for each occurrence. Default:
    ///   0.
    /// - dry_multiplier: Weight of the penalty for tokens that would continue a repetition (DRY); 0 is off. Value: a
    ///   finite number, 0 or more. Default: 0.
    /// - dry_base: The DRY penalty grows by this factor with each repeated token. Value: a finite number, 1 or more.
    ///   Default: 1.75.
    /// - dry_allowed_length: Repetitions of fewer tokens than this get no DRY penalty. Value: a whole number from 1 to
    ///   4294967295. Default: 2.
    /// - dry_penalty_last_n: How many of the latest tokens DRY looks for repetitions in. Value: a whole number from 1
    ///   to 4294967295. Default: all, those of the prompt included.
    /// - dry_sequence_breakers: Texts that end a repetition for DRY: tokens that have one of them in their text are not
    ///   compared, and get no penalty. Default: a line break, `:`, `"` and `*`.
    /// - allowed_token_ids: The only tokens that are generated. Without an end-of-sequence token among them, the text
    ///   ends at `max_tokens`. Default: all.
    /// - suppress_tokens: Tokens that are never generated. Default: the model's.
    /// - begin_suppress_tokens: Tokens that are never generated as the first token. Default: the model's.
    /// - bad_words_ids: Sequences of tokens that are never generated. One that is only an end-of-sequence token has no
    ///   effect. Default: the model's.
    /// - bad_words: Texts that are never in the output, whatever tokens spell them. Default: none.
    /// - no_repeat_ngram_size: No sequence of this many tokens occurs twice, counting the prompt; 0 is off. Default:
    ///   the model's, or 0.
    /// - min_tokens: Generate at least this many tokens before one that ends the generation. Default: the model's, or
    ///   0.
    /// - logit_bias: Numbers to add to the logits of tokens, by token id. Default: none.
    /// - seed: Seed of the random numbers. Default: random; the completion reports it.
    /// - stop: Texts that end the generation. They are left out of the completion's text. Default: the model's.
    /// - stop_token_ids: Tokens that end the generation, in addition to the model's end-of-sequence tokens. Default:
    ///   none.
    /// - ignore_eos: Treat the model's end-of-sequence tokens as ordinary tokens. Default: False.
    /// - json_schema: Generate JSON that is an instance of this JSON Schema. Default: none.
    /// - json_object: Generate a JSON object. Default: False.
    /// - regex: Generate text that this regular expression matches as a whole. Default: none.
    /// - grammar: Generate text of the language of this grammar, in Lark's syntax. Default: none.
    /// - choices: Generate one of these texts. Default: none.
    /// - logprobs: Report the log-probability of each generated token, and of this many most likely tokens. Value: a
    ///   whole number from 0 to 64. Default: nothing is reported.
    /// - logprobs_mode: Which distribution `logprobs` are of: `raw`, the model's own; `masked`, the same over the
    ///   tokens that masks and the constraint allow. Default: raw.
    /// - prompt_logprobs: Report the log-probability of each token of the prompt but the first, and of this many most
    ///   likely tokens. What is cached of the prompt is computed again. Value: a whole number from 0 to 64. Default:
    ///   nothing is reported.
    /// - add_special_tokens: Add the tokenizer's special tokens, such as BOS, to the prompt. A BOS that is already
    ///   there is not doubled. Sessions take this when text is appended. Default: True for text, False for a chat,
    ///   whose template adds its own.
    /// - skip_special_tokens: Leave special tokens out of the completion's text. Default: True.
    /// - tool_choice: In a chat with tools: `auto`, the model decides; `none`, no calls; `required`, at least one; or
    ///   the name of the function to call. What is required is enforced, with the schemas. Default: auto.
    /// - parallel_tool_calls: Whether an answer may have several tool calls. Default: True.
    /// - tool_format: Format in which tool calls are read from the output. `auto`: that of the chat template, in a chat
    ///   with tools. Default: auto.
    /// - reasoning_format: Format in which reasoning is told from the answer. `auto`: that of the chat template, in a
    ///   chat. Default: auto.
    #[pyo3(signature = (prompt, options=None, *, return_exceptions=false, **opts))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyAny>>,
        return_exceptions: bool,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        generate(py, &self.0, prompt, (options, opts), return_exceptions)
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

    /// As `generate` for one prompt, awaited: a coroutine that gives the Completion, for asyncio. The runtime's option `driver` must be
    /// `thread`. Cancelling the task that awaits it cancels the request. `deadline_ms` counts from the call, not from when it is awaited.
    #[pyo3(signature = (prompt, options=None, **opts))]
    fn generate_async<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyAny>>,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let prompt = prompt::one(prompt, "prompt")?;
        let options = options::generate(options::STREAM, py, options, opts)?;
        let model = self.0.clone();
        awaited::completion(py, move |called| model.submit_since(prompt, &options, called))
    }

    /// As `chat`, awaited: see `generate_async`.
    #[pyo3(signature = (messages, tools=None, options=None, *, variables=None, **opts))]
    fn chat_async<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        tools: Option<&Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyAny>>,
        variables: Option<&Bound<'py, PyAny>>,
        opts: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let chat = chat(messages, tools, variables, None)?;
        let options = options::generate(Call::Chat, py, options, opts)?;
        let model = self.0.clone();
        awaited::completion(py, move |called| model.chat_submit_since(&chat, &options, called))
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
        cancellable(py, &self.0, work).map(Completion::from)
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

    /// Most sequences of a forward pass, as the option or `set_max_batch` says.
    #[getter]
    fn max_batch(&self) -> PyResult<u32> {
        self.0.max_batch().map_err(to_py)
    }

    /// Changes the most sequences of a forward pass, also while requests run, whose results stay the same. Raises `OutOfBudget`
    /// without memory for larger passes; nothing changes then.
    fn set_max_batch(&self, py: Python<'_>, max_batch: &Bound<'_, PyAny>) -> PyResult<()> {
        let most = bounds("max_batch", max_batch)?.max_batch;
        py.detach(|| self.0.set_max_batch(most)).map_err(to_py)
    }

    /// Most tokens of a forward pass, as the option or `set_prefill_chunk` says.
    #[getter]
    fn prefill_chunk(&self) -> PyResult<u32> {
        self.0.prefill_chunk().map_err(to_py)
    }

    /// Changes the most tokens of a forward pass, as `set_max_batch` does. Prompts that are under way get no more tokens of a
    /// pass than before.
    fn set_prefill_chunk(&self, py: Python<'_>, prefill_chunk: &Bound<'_, PyAny>) -> PyResult<()> {
        let most = bounds("prefill_chunk", prefill_chunk)?.prefill_chunk;
        py.detach(|| self.0.set_prefill_chunk(most)).map_err(to_py)
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
    fn adapters(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.0.adapters()).map_err(to_py)
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
        let logits = cancellable(py, &self.0, work)?;
        to_numpy(py, logits, Shape { rows: count, columns: self.0.info().vocab_size })
    }

    /// How likely each of `continuations` (texts or token ids) is after `prompt`, which is computed once: a dict for each, with
    /// `token_ids`, `logprobs` (natural logarithms, one for each token), `greedy` (whether each token is the most likely one),
    /// `logprob` (their sum), `is_greedy` (all are) and `probability` (of all continuations of the call; they add up to 1).
    ///
    /// A prompt that is text gets the tokenizer's special tokens, and continuations that are text are tokenized together with
    /// it: where the last token of the prompt and the beginning of the continuation become one token, the continuation begins
    /// with that token.
    #[pyo3(signature = (prompt, continuations, adapter=None))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        continuations: &Bound<'py, PyAny>,
        adapter: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let prompt = prompt::one(prompt, "prompt")?;
        let continuations = prompt::many(continuations, &prompt::CONTINUATIONS)?;
        let continuations = continuations.into_iter().collect::<PyResult<Vec<_>>>()?;
        let work = move |model: &core::Model, cancel: &CancelHandle| {
            model.score_until(prompt, &continuations, adapter.as_deref(), cancel)
        };
        objects::to_py_object(py, &serde_json::json!(cancellable(py, &self.0, work)?))
    }

    /// Turns texts into vectors: float32 array `[len(texts), dimensions]`, computed together. A single text, a str, gives
    /// one vector, `[dimensions]`. In a list, a text may also be token ids.
    ///
    /// Options (`EmbedOptions`):
    /// - pooling: How to combine the hidden states of a text's tokens into one vector. Required if the model does not
    ///   say. Default: the model's.
    /// - normalize: Scale vectors to length 1. Default: the model's.
    /// - prompt_name: Name of one of the model's prompts, which is put before each text. Default: the model's default
    ///   prompt, if it has one.
    /// - prompt: Text that is put before each text, instead of one of the model's prompts. Default: as `prompt_name`
    ///   says.
    /// - dimensions: Keep only this many leading elements of each vector, for models trained for it (Matryoshka).
    ///   Value: a whole number from 1 to 4294967295. Default: all.
    /// - truncate: Cut texts that are too long. Otherwise they are errors. Default: False.
    /// - add_special_tokens: Add the tokenizer's special tokens to each text. Default: True.
    ///
    /// `on_progress(done, total)` is called with texts. If it returns False, the work is cancelled (`Cancelled`); what it raises
    /// is raised.
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
        vectors::embed(py, &self.0, texts, return_exceptions, on_progress, options)
    }

    /// Scores documents against a query, more is more relevant: float32 array `[len(documents)]`.
    ///
    /// `on_progress`, called with documents, and `return_exceptions`, with scores as floats, are as for `embed`.
    ///
    /// Options (`RerankOptions`):
    /// - sigmoid: Give scores as probabilities, `1 / (1 + exp(-logit))`, instead of logits. Default: the model's, or
    ///   True.
    /// - instruction: What makes a document a good answer to the query, for models that take an instruction
    ///   (Qwen3-Reranker). Default: the model's.
    /// - truncate: Cut texts that are too long. Otherwise they are errors. Default: False.
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
        vectors::rerank(py, &self.0, (query, documents), return_exceptions, on_progress, options)
    }

    /// Another model over the same weights, which are in memory once: with limits, requests, sessions, a prefix cache and adapters
    /// of its own. Options as of `Runtime.load`; those that say what the weights are (`weights`, `merge_adapters`,
    /// `draft_model`, `chat_template`, `mmap`, `verify`, `cache`) are this model's.
    #[pyo3(signature = (**options))]
    fn instance(&self, py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Model> {
        let options = options::model(options::INSTANCE, options)?;
        py.detach(|| self.0.instance(&options)).map(Model).map_err(to_py)
    }

    /// A new conversation without tokens.
    fn session(&self, py: Python<'_>) -> PyResult<Session> {
        py.detach(|| self.0.session()).map(Session::new).map_err(to_py)
    }

    /// A session from a file that `Session.save` has written. Nothing is computed, and all that follows has the bits that
    /// it would have had. A file of another model, weight type, type of the KV cache or version of the library, and one that
    /// was changed, raises `InvalidArgument`. An adapter that the session used has to be loaded, under any name.
    fn restore_session(&self, py: Python<'_>, path: PathBuf) -> PyResult<Session> {
        py.detach(|| self.0.restore_session(path)).map(Session::new).map_err(to_py)
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        self.0.tokenizer().map(Tokenizer::new).map_err(to_py)
    }

    /// The runtime that computes it.
    #[getter]
    fn runtime(&self) -> Runtime {
        Runtime(self.0.runtime().clone())
    }

    /// Facts about the model, as a dict; sizes in bytes.
    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        objects::to_py_object(py, &serde_json::json!(self.0.info()))
    }

    /// Cancels running requests and frees the model; everything else then raises `Closed`. The weights stay in memory until the last
    /// of its sessions, streams (until their last event is read) and instances is closed or freed; instances go on.
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
