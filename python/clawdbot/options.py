"""Options as typed dicts: what the keyword arguments of the calls that take options may be.

Generated from the table of options in clawdbot-core by `cargo xtask generate`; do not edit. An option that is absent or
None keeps its default. Names, ranges and messages are the core's.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np


class GenerateOptions(TypedDict, total=False):
    """How to generate. Options that are not given come from the model's `generation_config.json`. The completion
    reports the values that were used."""

    adapter: str | None
    """Name of the loaded LoRA adapter to use. Default: none."""
    priority: int | None
    """Requests of higher priority are served first, with `driver` thread those of other models too; among equals,
    groups share. Value: a whole number from 0 to 100. Default: 50."""
    group: str | None
    """Name of the group of requests (a user, a job) that this one belongs to. Groups get equal shares, however many
    requests each has. Default: none: requests without one share a group."""
    deadline_ms: int | None
    """Milliseconds from now after which the request ends, with the finish reason `deadline` and what it has
    generated. Default: none."""
    speculation: Literal["none", "ngram", "draft", "mtp"] | None
    """How tokens are guessed before they are computed, as for a model. Changes speed, not results. Default: the
    model's."""
    n: int | None
    """How many completions of the prompt to generate; the further ones have the seeds after `seed`. Streams and
    sessions give one. Value: a whole number from 1 to 128. Default: 1."""
    best_of: int | None
    """Generate this many, and give the `n` whose tokens have the highest mean log-probability, best first. Value: a
    whole number from 1 to 128. Default: `n`, in the order of their seeds."""
    num_beams: int | None
    """Beams of a beam search, which keeps so many of the most likely texts while it generates; 1 is off. The best
    `n` are given, best first. Value: a whole number from 1 to 32. Default: 1."""
    length_penalty: float | None
    """The score of a text in a beam search is its log-probability, divided by its length to this power: above 0,
    longer texts gain. Default: the model's, or 1."""
    early_stopping: Literal["false", "true", "never"] | None
    """When a beam search ends: `True`, with `num_beams` finished texts; `False`, when better ones are unlikely;
    `never`, when there can be none. Default: the model's, or False."""
    max_tokens: int | None
    """Maximum number of tokens to generate. Value: a whole number from 1 to 4294967295. Default: the model's, or
    until the context is full."""
    temperature: float | None
    """Logits are divided by this before the softmax: lower values favor likely tokens. 0 is greedy: always the most
    likely token. Value: a finite number, 0 or more. Default: the model's (or 1) with `do_sample`, 0 without."""
    top_k: int | None
    """Sample only from this many of the most likely tokens; 0 is off. Default: the model's, or else 50 with
    `do_sample` and 0 without."""
    top_p: float | None
    """Sample only from the smallest set of most likely tokens whose probabilities add up to this (nucleus
    sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1."""
    min_p: float | None
    """Sample only from tokens at least this many times as likely as the most likely token; 0 is off. Value: a
    number from 0 to 1. Default: the model's, or 0."""
    typical_p: float | None
    """Sample only from tokens whose surprisal is closest to the entropy, until their probabilities add up to this
    (locally typical sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1."""
    top_n_sigma: float | None
    """Sample only from tokens whose logits are at most this many standard deviations below the largest one; 0 is
    off. Value: a finite number, 0 or more. Default: 0."""
    xtc_probability: float | None
    """How often (0 to 1) likely tokens are left out: of those at least as likely as `xtc_threshold`, only the least
    likely stays (exclude top choices); 0 is off. Value: a number from 0 to 1. Default: 0."""
    xtc_threshold: float | None
    """Probability from which on `xtc_probability` leaves tokens out. Value: a number above 0, at most 1. Default:
    0.1."""
    dynatemp_range: float | None
    """By how much the temperature may be higher or lower: higher where many tokens are likely, lower where few are;
    0 is off. Value: a finite number, 0 or more. Default: 0."""
    dynatemp_exponent: float | None
    """Power of the normalized entropy that says where in `dynatemp_range` the temperature is. Value: a finite
    number above 0. Default: 1."""
    mirostat_tau: float | None
    """Keep the surprisal of the text near so many bits per token (Mirostat 2), in place of `top_k`, `top_p` and the
    other filters. Value: a finite number above 0. Default: off."""
    mirostat_eta: float | None
    """How fast Mirostat learns. Value: a finite number above 0. Default: 0.1."""
    samplers: Collection[Literal["penalties", "dry", "top_n_sigma", "temperature", "top_k", "top_p", "min_p", "typ_p", "xtc"]] | None
    """The steps of sampling and their order. Those that are left out are not taken. Default: penalties, dry,
    top_n_sigma, temperature, top_k, top_p, min_p, typ_p, xtc."""
    repetition_penalty: float | None
    """Divide positive logits of tokens that occur in the prompt or the output by this, and multiply negative ones;
    1 is off. Value: a finite number above 0. Default: the model's, or 1."""
    presence_penalty: float | None
    """Subtract this from the logits of tokens that occur in the output. Default: 0."""
    frequency_penalty: float | None
    """Subtract this from the logits of tokens in the output, once for each occurrence. Default: 0."""
    dry_multiplier: float | None
    """Weight of the penalty for tokens that would continue a repetition (DRY); 0 is off. Value: a finite number, 0
    or more. Default: 0."""
    dry_base: float | None
    """The DRY penalty grows by this factor with each repeated token. Value: a finite number, 1 or more. Default:
    1.75."""
    dry_allowed_length: int | None
    """Repetitions of fewer tokens than this get no DRY penalty. Value: a whole number from 1 to 4294967295.
    Default: 2."""
    dry_penalty_last_n: int | None
    """How many of the latest tokens DRY looks for repetitions in. Value: a whole number from 1 to 4294967295.
    Default: all, those of the prompt included."""
    dry_sequence_breakers: str | Collection[str] | None
    """Texts that end a repetition for DRY: tokens that have one of them in their text are not compared, and get no
    penalty. Default: a line break, `:`, `"` and `*`."""
    allowed_token_ids: Collection[int] | None
    """The only tokens that are generated. Without an end-of-sequence token among them, the text ends at
    `max_tokens`. Default: all."""
    suppress_tokens: Collection[int] | None
    """Tokens that are never generated. Default: the model's."""
    begin_suppress_tokens: Collection[int] | None
    """Tokens that are never generated as the first token. Default: the model's."""
    bad_words_ids: Collection[Sequence[int]] | None
    """Sequences of tokens that are never generated. One that is only an end-of-sequence token has no effect.
    Default: the model's."""
    bad_words: str | Collection[str] | None
    """Texts that are never in the output, whatever tokens spell them. Default: none."""
    no_repeat_ngram_size: int | None
    """No sequence of this many tokens occurs twice, counting the prompt; 0 is off. Default: the model's, or 0."""
    min_tokens: int | None
    """Generate at least this many tokens before one that ends the generation. Default: the model's, or 0."""
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    """Numbers to add to the logits of tokens, by token id. Default: none."""
    seed: int | None
    """Seed of the random numbers. Default: random; the completion reports it."""
    stop: str | Collection[str] | None
    """Texts that end the generation. They are left out of the completion's text. Default: the model's."""
    stop_token_ids: Collection[int] | None
    """Tokens that end the generation, in addition to the model's end-of-sequence tokens. Default: none."""
    ignore_eos: bool | None
    """Treat the model's end-of-sequence tokens as ordinary tokens. Default: False."""
    json_schema: Mapping[str, object] | bool | str | None
    """Generate JSON that is an instance of this JSON Schema. Default: none."""
    json_object: bool | None
    """Generate a JSON object. Default: False."""
    regex: str | None
    """Generate text that this regular expression matches as a whole. Default: none."""
    grammar: str | None
    """Generate text of the language of this grammar, in Lark's syntax. Default: none."""
    choices: str | Collection[str] | None
    """Generate one of these texts. Default: none."""
    logprobs: int | None
    """Report the log-probability of each generated token, and of this many most likely tokens. Value: a whole
    number from 0 to 64. Default: nothing is reported."""
    logprobs_mode: Literal["raw", "masked"] | None
    """Which distribution `logprobs` are of: `raw`, the model's own; `masked`, the same over the tokens that masks
    and the constraint allow. Default: raw."""
    prompt_logprobs: int | None
    """Report the log-probability of each token of the prompt but the first, and of this many most likely tokens.
    What is cached of the prompt is computed again. Value: a whole number from 0 to 64. Default: nothing is
    reported."""
    add_special_tokens: bool | None
    """Add the tokenizer's special tokens, such as BOS, to the prompt. A BOS that is already there is not doubled.
    Sessions take this when text is appended. Default: True for text, False for a chat, whose template adds its
    own."""
    skip_special_tokens: bool | None
    """Leave special tokens out of the completion's text. Default: True."""
    tool_choice: str | None
    """In a chat with tools: `auto`, the model decides; `none`, no calls; `required`, at least one; or the name of
    the function to call. What is required is enforced, with the schemas. Default: auto."""
    parallel_tool_calls: bool | None
    """Whether an answer may have several tool calls. Default: True."""
    tool_format: Literal["auto", "none", "harmony", "kimi_k2", "deepseek_dsml", "minimax_m2", "deepseek", "gemma4", "function_gemma", "mistral", "command", "apertus", "lfm2", "internlm", "gigachat", "seed_oss", "glm", "qwen3_coder", "nemotron", "longcat", "tool_calls", "olmo3", "granite", "hermes", "functionary", "pythonic", "llama3_json", "functools", "command_r", "xlam", "gemma3"] | None
    """Format in which tool calls are read from the output. `auto`: that of the chat template, in a chat with tools.
    Default: auto."""
    reasoning_format: Literal["auto", "none", "harmony", "gemma4", "command", "apertus", "mistral", "seed_oss", "apriel", "granite", "kimi_vl", "hunyuan", "ernie", "thought", "think"] | None
    """Format in which reasoning is told from the answer. `auto`: that of the chat template, in a chat. Default:
    auto."""
    logits_processor: "Callable[[list[int], list[int], np.ndarray], np.ndarray | None] | None"
    """A function that may change the logits of each token before it is sampled: it gets the token ids of the prompt
    and of the output, and the logits as an array of float32, and changes them in place or returns others. Slow: it
    is called for each token, and other requests of the model wait for it. It must depend on its arguments alone.
    Default: none."""


class EmbedOptions(TypedDict, total=False):
    """How to turn texts into vectors. Options that are not given come from the model's own files."""

    pooling: Literal["cls", "mean", "max", "last", "weighted_mean", "mean_sqrt_len"] | None
    """How to combine the hidden states of a text's tokens into one vector. Required if the model does not say.
    Default: the model's."""
    normalize: bool | None
    """Scale vectors to length 1. Default: the model's."""
    prompt_name: str | None
    """Name of one of the model's prompts, which is put before each text. Default: the model's default prompt, if it
    has one."""
    prompt: str | None
    """Text that is put before each text, instead of one of the model's prompts. Default: as `prompt_name` says."""
    dimensions: int | None
    """Keep only this many leading elements of each vector, for models trained for it (Matryoshka). Value: a whole
    number from 1 to 4294967295. Default: all."""
    truncate: bool | None
    """Cut texts that are too long. Otherwise they are errors. Default: False."""
    add_special_tokens: bool | None
    """Add the tokenizer's special tokens to each text. Default: True."""


class RerankOptions(TypedDict, total=False):
    """How to score documents against a query."""

    sigmoid: bool | None
    """Give scores as probabilities, `1 / (1 + exp(-logit))`, instead of logits. Default: the model's, or True."""
    instruction: str | None
    """What makes a document a good answer to the query, for models that take an instruction (Qwen3-Reranker).
    Default: the model's."""
    truncate: bool | None
    """Cut texts that are too long. Otherwise they are errors. Default: False."""


class ModelOptions(TypedDict, total=False):
    """How to load a model."""

    weights: Literal["int8", "int4", "int4-mixed", "bf16", "f32", "stored"] | None
    """Type that weights are computed with; `stored` keeps a quantized model's own codes. Default: as a packed file
    holds them; `stored` for quantized models; int8 for others."""
    kv: Literal["auto", "int8", "bf16", "f32"] | None
    """Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto."""
    max_context: int | None
    """Maximum number of tokens in a sequence. Value: a whole number from 1 to 4294967295. Default: what the model
    was trained for."""
    prefill_chunk: int | None
    """Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and memory, not
    results. Value: a whole number from 1 to 65536. Default: 512."""
    max_batch: int | None
    """Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory, not results.
    Value: a whole number from 1 to 4096. Default: 64."""
    target_inter_token_ms: int | None
    """Milliseconds between tokens that decoding sequences should have: prompts get as many tokens of a pass as that
    allows, at least 16. Changes speed, not results. Value: a whole number from 1 to 3600000. Default: no target;
    prompts get `prefill_chunk`."""
    max_queue: int | None
    """Most requests that wait to begin; further ones are refused with `Overloaded`, which says when to try again.
    Value: a whole number from 1 to 4294967295. Default: no limit."""
    share: int | None
    """With `driver` thread: the model's share of the thread's time, relative to those of other models of the
    runtime that have work at the same time. Changes speed, not results. Value: a whole number from 1 to 1000.
    Default: 1."""
    prefix_cache: bool | None
    """Keep keys, values and states of requests that have ended, for prompts that begin as theirs did. Changes speed
    and memory, not results. Not for encoders. Default: True with `driver` thread, else False."""
    prefix_cache_bytes: int | None
    """Most bytes that are kept so. They are given up where requests need memory. Default: half of what requests may
    take."""
    prefix_cache_dir: str | os.PathLike[str] | None
    """Directory for a file of what is kept so: written when the model is closed, read when it is loaded again.
    Default: what is kept goes with the model."""
    speculation: Literal["none", "ngram", "draft", "mtp"] | None
    """How tokens are guessed before they are computed: `ngram`, as what followed the last tokens before; `draft`,
    by the `draft_model`; `mtp`, by the model's own head. Changes speed, not results. Default: none."""
    draft_model: str | os.PathLike[str] | None
    """A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file. Default:
    none."""
    merge_adapters: Sequence[str | os.PathLike[str]] | None
    """Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized. Default:
    none."""
    chat_template: str | None
    """Text of a Jinja chat template to use instead of the model's own. It sees the model's special tokens. Default:
    the model's."""
    mmap: bool | None
    """Map a packed file, so that processes share its memory, instead of reading it. A mapped file must not be
    changed or shortened. Default: True; with `numa`, False."""
    verify: bool | None
    """Read all of a packed file first and compare it with its checksum. Default: False."""
    cache: bool | str | os.PathLike[str] | None
    """Write a packed file when a directory is loaded, and use it the next time: True in the user's cache directory,
    or in the directory given here. Changes no result. Default: False."""


class PackOptions(TypedDict, total=False):
    """How to pack a model."""

    weights: Literal["int8", "int4", "int4-mixed", "bf16", "f32", "stored"] | None
    """Type that the weights will be computed with; `stored` keeps a quantized model's own codes. Default: `stored`
    for quantized models, int8 for others."""
    merge_adapters: Sequence[str | os.PathLike[str]] | None
    """Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized. Default:
    none."""
    calibrate: str | os.PathLike[str] | None
    """Choose int4 codes for least error on texts like the one in this UTF-8 file, not by rounding to nearest;
    `builtin` is a text that comes with the library. 65,536 tokens are used. Default: rounding to nearest."""
    overwrite: bool | None
    """Replace a file that is already there. Default: False."""


class EvaluateOptions(TypedDict, total=False):
    """How to evaluate a model: what is evaluated, on which text, and what it is compared with."""

    weights: Literal["int8", "int4", "int4-mixed", "bf16", "f32", "stored"] | None
    """Type of the weights that are evaluated; `stored` keeps a quantized model's own codes. Default: as a packed
    file holds them; `stored` for quantized models; int8 for others."""
    kv: Literal["auto", "int8", "bf16", "f32"] | None
    """Type of the KV cache that is evaluated; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto."""
    merge_adapters: Sequence[str | os.PathLike[str]] | None
    """Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized; to those
    of the reference too, unless it is another model. Default: none."""
    text: str | os.PathLike[str] | None
    """UTF-8 file with the text; `builtin` is a text that comes with the library, which calibration uses too.
    Default: builtin."""
    sequences: int | None
    """Maximum number of sequences, of 512 tokens or of the whole context if that is shorter. They are taken from
    all over the text. Value: a whole number from 1 to 4096. Default: 8."""
    reference: Literal["f32", "bf16", "none"] | None
    """Type of the weights that the model is compared with; `none` gives the perplexity alone. Default: f32."""
    reference_model: str | os.PathLike[str] | None
    """Model to compare with: a directory, GGUF or packed file with the same tokens and sizes. Default: the same
    model; of a packed or quantized one, its own weights, dequantized."""
    store: bool | None
    """Store the report in the packed file that is evaluated, where `clawdbot inspect` and plans show it. Default:
    False."""


class LoadOptions(ModelOptions, total=False):
    """How to load a model on a runtime of its own."""

    threads: int | None
    """Number of threads that compute. Value: a whole number from 1 to 1024. Default: the smallest of CPU quota,
    affinity and physical cores."""
    driver: Literal["caller", "thread"] | None
    """Who computes: `caller`, the threads that wait for results, so that nothing runs between calls; or `thread`,
    one of the runtime's own, so that requests advance while nobody waits for them. Default: caller."""
    numa: Literal["off", "interleave", "local"] | None
    """On machines with several memory nodes (Linux): `interleave` spreads weights over them, `local` keeps weights
    next to the threads that read them (`docs/performance.md`). Changes no result. Default: off."""
    memory_budget: int | None
    """Most bytes that the models of a runtime may use together: weights, KV cache, scratch memory, and all else
    that grows with requests. Value: a number of bytes below 2^64. Default: no limit for weights; for what grows
    with requests, a share of the machine's memory (`docs/memory.md`)."""
    swap_space: int | None
    """Most bytes of a file for keys, values and states that memory has no room for: they are read back in place of
    being computed again, where that is faster. It has no name, and goes with the runtime. Value: a number of bytes
    below 2^64. Default: 0, no such file."""
    swap_directory: str | os.PathLike[str] | None
    """Directory of that file. Default: the system's directory for temporary files."""
    kernels: str | None
    """Instruction-set tier. Tiers with `bf16` in their name round activations to bf16 where weights are bf16; all
    others give equal bits. Default: what `CLAWDBOT_ISA` says, or the best for this CPU."""
