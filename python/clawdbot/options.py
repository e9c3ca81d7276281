"""Options as typed dicts: what the keyword arguments of the calls that take options may be.

An option that is absent or None keeps its default. Names, ranges and messages are the core's.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypedDict


class GenerateOptions(TypedDict, total=False):
    """How to generate. What is not given comes from the model's `generation_config.json`."""

    adapter: str | None
    """Name of a LoRA adapter that the model has loaded; default: the model as it is."""
    max_tokens: int | None
    """Most tokens to generate; default: until the context is full."""
    temperature: float | None
    """0 is greedy; logits are divided by it before the softmax."""
    top_k: int | None
    """Keep the `top_k` most likely tokens; 0 keeps all."""
    top_p: float | None
    """Keep the fewest most likely tokens whose probabilities add up to at least `top_p`; 1 keeps all."""
    min_p: float | None
    """Keep tokens at least `min_p` times as likely as the most likely one; 0 keeps all."""
    typical_p: float | None
    """Keep the tokens whose surprise is nearest to what is expected, up to a probability of `typical_p`; 1 keeps all."""
    repetition_penalty: float | None
    """Divide positive (multiply negative) logits of tokens that occurred in prompt or output; 1 is off."""
    presence_penalty: float | None
    """Subtract from the logits of tokens that occurred in the output."""
    frequency_penalty: float | None
    """Subtract from the logits of tokens in the output, once for each occurrence."""
    suppress_tokens: Collection[int] | None
    """Tokens that are never generated; default: the model's own."""
    begin_suppress_tokens: Collection[int] | None
    """Tokens that are not generated first; default: the model's own."""
    bad_words_ids: Collection[Sequence[int]] | None
    """Sequences of tokens that are never generated; default: the model's own."""
    no_repeat_ngram_size: int | None
    """No sequence of this many tokens comes twice, that of the prompt included; 0 is off."""
    min_tokens: int | None
    """Tokens that end the generation are not generated before there are this many others."""
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    """Added to the logits of the tokens with these ids."""
    seed: int | None
    """Seed of the sampler; default: drawn, and reported in the completion's options."""
    stop: str | Collection[str] | None
    """Texts that end the generation; they are not part of the completion's text. Default: the model's own; [] is none."""
    stop_token_ids: Collection[int] | None
    """Tokens that end the generation, besides the model's own."""
    ignore_eos: bool | None
    """Whether the model's own end-of-sequence tokens are taken as ordinary tokens."""
    logprobs: int | None
    """Report the log-probability of each token and of this many most likely ones."""
    add_special_tokens: bool | None
    """Whether a prompt gets the tokenizer's special tokens (such as BOS); default: a text yes, a chat no. A BOS that the
    prompt begins with is not doubled."""
    skip_special_tokens: bool | None
    """Whether special tokens are left out of the text."""


class EmbedOptions(TypedDict, total=False):
    """How texts become vectors. What is not given comes from the model's own files."""

    pooling: Literal["cls", "mean", "max", "last", "weighted_mean", "mean_sqrt_len"] | None
    """How the states of a text's tokens become one; must be given for a model that does not say."""
    normalize: bool | None
    """Whether vectors are scaled to length 1."""
    prompt_name: str | None
    """Name of the prompt, of those that the model has, to put before each text."""
    prompt: str | None
    """Text to put before each text, instead of a prompt of the model."""
    dimensions: int | None
    """Keep this many first elements of each vector, for models that are trained for it (Matryoshka)."""
    truncate: bool | None
    """Whether texts that are too long are cut; otherwise they are errors."""
    add_special_tokens: bool | None
    """Whether texts get the tokenizer's special tokens."""


class RerankOptions(TypedDict, total=False):
    """How documents are scored against a query."""

    sigmoid: bool | None
    """Whether scores are probabilities instead of logits; default: as the model's files say, or else True."""
    instruction: str | None
    """What the query asks for, of models that are told (Qwen3-Reranker)."""
    truncate: bool | None
    """Whether texts that are too long are cut; otherwise they are errors."""


class ModelOptions(TypedDict, total=False):
    """How a model is loaded."""

    weights: Literal["int8", "int4", "bf16", "f32", "stored"] | None
    """What the weights are computed with; default `int8`, what a packed model file holds, or (quantized models) `stored`:
    their own codes."""
    kv: Literal["auto", "int8", "bf16", "f32"] | None
    """What the KV cache is kept as; default `auto`: float32 with float32 weights, bfloat16 otherwise."""
    max_context: int | None
    """Most tokens of a sequence; default: what the model was trained for."""
    prefill_chunk: int | None
    """Most tokens of a forward pass: longer prompts are prefilled in chunks. Changes no result."""
    max_batch: int | None
    """Most sequences of a forward pass; more wait their turn. Changes no result."""
    merge_adapters: Sequence[str | os.PathLike[str]] | None
    """Directories of LoRA adapters that are added to the weights before these are quantized."""
    chat_template: str | None
    """Text of a chat template (Jinja) that is used instead of the model's own; of a file:
    `pathlib.Path("template.jinja").read_text()`."""
    mmap: bool | None
    """Whether a packed model file is mapped, in memory that processes share, instead of read; default True."""
    verify: bool | None
    """Whether a packed model file is read and compared with its checksum first; default False."""
    cache: bool | str | os.PathLike[str] | None
    """Whether loading a directory writes a packed file and uses it the next time: True (in the user's directory
    for caches), a directory, or False; default False."""


class PackOptions(TypedDict, total=False):
    """How a model is packed."""

    weights: Literal["int8", "int4", "bf16", "f32", "stored"] | None
    """What the weights will be computed with; default `int8`, or `stored` for quantized models."""
    merge_adapters: Sequence[str | os.PathLike[str]] | None
    """Directories of LoRA adapters that are added to the weights before these are quantized."""
    overwrite: bool | None
    """Whether a file that is there already is replaced; default False."""


class LoadOptions(ModelOptions, total=False):
    """How a model is loaded on a runtime of its own."""

    threads: int | None
    """Threads to compute on; default: the least of CPU quota, affinity and physical cores."""
    memory_budget: int | None
    """Most bytes that the model may take: weights, KV cache and scratch."""
    kernels: str | None
    """The instruction-set tier to compute with, such as `avx2`; default: the best one of this CPU."""
