"""Language models inside your program, on the CPU it has: the compiled part of `clawdbot`."""

import os
import pathlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence, ValuesView
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NoReturn,
    SupportsIndex,
    TypeAlias,
    final,
    overload,
)

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, Unpack

from .options import (
    EmbedOptions,
    EvaluateOptions,
    GenerateOptions,
    LoadOptions,
    ModelOptions,
    PackOptions,
    RerankOptions,
)

__all__ = [
    "AccessDenied",
    "Cancelled",
    "ClawdbotError",
    "Closed",
    "Completion",
    "Constraint",
    "ContextOverflow",
    "EMBED_OPTIONS",
    "EVALUATE_OPTIONS",
    "Download",
    "EmptyPrompt",
    "Event",
    "ForkedRuntime",
    "GENERATE_OPTIONS",
    "Internal",
    "InvalidArgument",
    "InvalidConstraint",
    "InvalidModel",
    "InvalidTemplate",
    "InvalidTokenizer",
    "InvalidUtf8",
    "Io",
    "Logprobs",
    "MODEL_OPTIONS",
    "MissingTemplate",
    "Model",
    "ModelPool",
    "NonFinite",
    "NotFound",
    "NullPointer",
    "OutOfBudget",
    "Overloaded",
    "PACK_OPTIONS",
    "RERANK_OPTIONS",
    "RUNTIME_OPTIONS",
    "Runtime",
    "SHAPES",
    "Session",
    "Stream",
    "TemplateRaised",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "ToolCallDelta",
    "UnknownOption",
    "UnsupportedModel",
    "Usage",
    "__version__",
    "download",
    "render_chat_template",
]

__version__: Final[str]
SHAPES: Final[tuple[str, ...]]
GENERATE_OPTIONS: Final[tuple[str, ...]]
EMBED_OPTIONS: Final[tuple[str, ...]]
RERANK_OPTIONS: Final[tuple[str, ...]]
MODEL_OPTIONS: Final[tuple[str, ...]]
EVALUATE_OPTIONS: Final[tuple[str, ...]]
PACK_OPTIONS: Final[tuple[str, ...]]
RUNTIME_OPTIONS: Final[tuple[str, ...]]

_Path: TypeAlias = str | os.PathLike[str]
_Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
_Prompt: TypeAlias = str | _Ids
_Prompts: TypeAlias = (
    list[str]
    | tuple[str, ...]
    | Iterator[_Prompt]
    | ValuesView[_Prompt]
    | Sequence[Sequence[int]]
    | Sequence[npt.NDArray[np.integer[Any]]]
)
_Texts: TypeAlias = Sequence[_Prompt] | Iterator[_Prompt] | ValuesView[_Prompt]
_Messages: TypeAlias = Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]
_Tools: TypeAlias = Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]
_Progress: TypeAlias = Callable[[int, int], object]
_Log: TypeAlias = Callable[[str, str], object]

@final
class TokenLogprob:
    """The log-probability (natural logarithm) of a token under the model's own distribution."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def id(self) -> int:
        """Token id."""
    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability."""

@final
class Logprobs:
    """What was drawn at a position, and the most likely tokens there."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def chosen(self) -> TokenLogprob:
        """The token that was chosen."""
    @property
    def top(self) -> list[TokenLogprob]:
        """The most likely tokens, most likely first."""

@final
class Usage:
    """Tokens and seconds of a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; for a session, everything before the output."""
    @property
    def cached_tokens(self) -> int:
        """How many of them were in the cache already."""
    @property
    def completion_tokens(self) -> int:
        """Tokens generated, a stop token included."""
    @property
    def draft_tokens(self) -> int:
        """Tokens that were guessed and then computed (speculation)."""
    @property
    def accepted_tokens(self) -> int:
        """How many of them were right."""
    @property
    def accepted_by_position(self) -> list[int]:
        """The right ones by position: of the first drafts of passes, of the second ones, and so on."""
    @property
    def forced_tokens(self) -> int:
        """Those of `accepted_tokens` that a constraint forced: with a pass for several of them."""
    @property
    def queue_seconds(self) -> float:
        """Seconds before the request's first forward pass."""
    @property
    def prefill_seconds(self) -> float:
        """Seconds from there to the first token."""
    @property
    def decode_seconds(self) -> float:
        """Seconds from the first token to the end."""
    @property
    def first_mask_seconds(self) -> float:
        """Seconds until it was known which first tokens a constraint allows, compiling it included; 0
        without one."""
    @property
    def mask_p50_seconds(self) -> float:
        """Median of the seconds that this took for each later token."""
    @property
    def mask_p99_seconds(self) -> float:
        """Their 99th percentile."""
    @property
    def time_to_first_token(self) -> float:
        """Seconds from submission to the first token."""
    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens computed per second; 0 when there is nothing to divide by."""
    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens per second after the first one; 0 when there is nothing to divide by."""

@final
class ToolCall:
    """A call of a function that the model asks for."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def index(self) -> int:
        """Its number among the calls of the answer, from 0. Numbers of deltas that no call followed are left out."""
    @property
    def id(self) -> str:
        """What the model called it, or 9 letters and digits that follow from its place, index and name."""
    @property
    def name(self) -> str:
        """Name of the function."""
    @property
    def arguments(self) -> str:
        """The arguments: a JSON object as text."""

@final
class ToolCallDelta:
    """A part of a tool call that became certain while the model writes it."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def index(self) -> int:
        """Index of the call."""
    @property
    def id(self) -> str | None:
        """Id of the call, in its first delta."""
    @property
    def name(self) -> str | None:
        """Name of the function, in the first delta."""
    @property
    def arguments(self) -> str:
        """The text of the arguments that became certain."""

@final
class Completion:
    """The result of a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def text(self) -> str:
        """The generated text: without reasoning and tool calls, where they are read."""
    @property
    def reasoning(self) -> str:
        """The reasoning before the answer."""
    @property
    def tool_calls(self) -> list[ToolCall]:
        """The functions that the model asks to be called."""
    @property
    def warnings(self) -> list[str]:
        """What looked like a tool call and could not be read as one: it is in the text."""
    @property
    def token_ids(self) -> list[int]:
        """The generated tokens, a stop token included."""
    @property
    def finish_reason(self) -> Literal["stop", "length", "cancelled", "deadline"]:
        """Why it ended: `stop`, `length`, `cancelled` or `deadline`."""
    @property
    def usage(self) -> Usage:
        """Counts and times."""
    @property
    def logprobs(self) -> list[Logprobs] | None:
        """One entry for each generated token, if asked for."""
    @property
    def prompt_logprobs(self) -> list[Logprobs] | None:
        """One entry for each token of the prompt but the first, if asked for."""
    @property
    def alternatives(self) -> list[Completion]:
        """The further completions of the prompt, if `n` asks for several."""
    @property
    def options(self) -> dict[str, Any]:
        """The options that were in force, defaults included."""

@final
class Event:
    """Something that happened to a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields as a dict of plain values."""
    def to_json(self) -> str:
        """All fields as a JSON text."""
    @property
    def kind(self) -> Literal["token", "reasoning", "tool_call_delta", "tool_call", "progress", "done"]:
        """`token`, `reasoning`, `tool_call_delta`, `tool_call`, `progress` or `done`."""
    @property
    def id(self) -> int | None:
        """`token`: its id."""
    @property
    def text(self) -> str | None:
        """`token`: the text that became certain with it, perhaps none. `reasoning`: its text."""
    @property
    def logprobs(self) -> Logprobs | None:
        """`token`: log-probabilities, if asked for."""
    @property
    def tool_call(self) -> ToolCall | None:
        """`tool_call`: the call, complete."""
    @property
    def tool_call_delta(self) -> ToolCallDelta | None:
        """`tool_call_delta`: what became certain of a call. The arguments of a call's deltas, joined, are those of its
        `tool_call`, which comes after them; if none with their index comes, it was no call that can be read."""
    @property
    def done(self) -> int | None:
        """`progress`: tokens of the prompt computed so far."""
    @property
    def total(self) -> int | None:
        """`progress`: tokens of the prompt."""
    @property
    def completion(self) -> Completion | None:
        """`done`: the completion."""

@final
class Stream:
    """The events of one request. Iterating computes, with the interpreter released; leaving a `with` block cancels.

    With the option `driver` `thread`, `async for event in stream` awaits events in asyncio. Cancelling the task that awaits one
    cancels the request, and so does leaving an `async with` block, which does not hold up the event loop.

    It is an iterator, not a list: each event is given once. Threads or tasks that read one stream share its events among them, and
    all of them find its end. Who reads on after the end, or after `close` or `finish`, finds the end again, as with any iterator.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> Event: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, Event]: ...
    def _poll(self, callback: Callable[[], object]) -> tuple[bool, Event | None]:
        """For `clawdbot._await`: whether there is something to read, and the event, None at the end. Otherwise `callback` is
        called once there is, on another thread.
        """
    def _free(self) -> None:
        """For `clawdbot._await`: frees the part of the cache of a stream that has ended, unless another thread has taken it
        to finish it.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Self]: ...
    def __aexit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> Coroutine[Any, Any, None]: ...
    def __reduce__(self) -> NoReturn: ...
    def cancel(self) -> None:
        """Asks the request to stop, from any thread. The stream then ends with a completion whose `finish_reason` is
        `cancelled`.
        """
    def finish(self) -> Completion:
        """Computes to the end and gives the completion. Raises `Closed` when it was taken already."""
    def close(self) -> None:
        """Cancels the request and frees its part of the cache."""

@final
class Session:
    """A conversation: its tokens, and their keys and values in the model's cache."""

    @property
    def tokens(self) -> list[int]:
        """All tokens of the conversation, prompts and outputs."""
    def append(self, prompt: _Prompt, add_special_tokens: bool = True, **others: NoReturn) -> int:
        """Adds a prompt to the conversation and says how many tokens that was. Computation starts with the next request.

        `add_special_tokens`: whether text gets the tokenizer's special tokens, such as BOS; usually for the first text
        alone. A BOS that the text begins with is not doubled. Any other argument is an error.
        """
    def stream(
        self, options: Mapping[str, Any] | None = None, **opts: Unpack[GenerateOptions]
    ) -> Stream:
        """Generates a continuation, event by event; the tokens become part of the conversation. Options as of `Model.generate`."""
    def generate(
        self, options: Mapping[str, Any] | None = None, **opts: Unpack[GenerateOptions]
    ) -> Completion:
        """Generates a continuation; the tokens become part of the conversation. Options as of `Model.generate`."""
    def chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates the next message of a conversation, using what the session has computed of it: its tokens become those
        of the rendered conversation, and only what comes after the first difference is computed. `messages` has the whole
        conversation each time; the answer is the one that `Model.chat` gives. Arguments as of `Model.chat`.
        """
    def chat_stream(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Stream:
        """As `chat`, event by event."""
    def fork(self) -> Session:
        """A conversation of its own that begins as this one is. What is cached is shared, and copied page by page where one of
        the two goes on.
        """
    def save(self, path: _Path) -> int:
        """Writes the conversation to a file, with all that is cached of it, and returns its size in bytes:
        `Model.restore_session` goes on with the same bits, and computes nothing again. The file appears when it is complete,
        and replaces an earlier one. The first call for a model reads all its weights, to know what the file belongs to.
        """
    def truncate(self, length: SupportsIndex) -> None:
        """Forgets all but the first `length` tokens."""
    def close(self) -> None:
        """Gives the conversation's part of the cache back; everything else then raises `Closed`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...

@final
class ModelPool:
    """Named models of one runtime. Each is loaded when it is first asked for; one that does not fit into the runtime's budget
    takes the place of those that were used longest ago and that nobody uses now.
    """

    def __new__(cls, runtime: Runtime) -> Self: ...
    def add(
        self,
        name: str,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        pin: bool = False,
        idle_unload: float | None = None,
        instances: Iterable[dict[str, Any]] | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        """Adds a model, which is loaded when it is first asked for. No path and no shape: the built-in model.

        `pin`: it stays once it is loaded, whatever others need and however long nobody uses it. `idle_unload`: seconds without a
        user after which it is unloaded; with the option `driver` `caller` that happens at the next `get`. Never with None, the
        default, or infinity.
        `instances`: mappings with options of further instances, which share the weights and have limits of their own.
        Options as of `Runtime.load`.
        """
    def get(self, name: str, timeout: float | None = 0.0) -> Model:
        """A model, loaded if it is not: of its instances the one that has the fewest users. It stays loaded as long as it, a session
        made with it, or a stream whose last event was not read, is there; closing it, or leaving a `with` block, gives it back and cancels nothing.

        One that does not fit into the budget waits up to `timeout` seconds until enough of the others are idle, then raises
        `OutOfBudget`; if the loads of others took all that time, `Overloaded`. With 0, the default, it waits for nobody; with None or
        infinity, without end, unless Ctrl-C ends it. `add` does not look at files: a path that is missing (`NotFound`) and options that
        the model or an instance cannot have (`InvalidArgument`) are errors of the first `get`.
        """
    def unload(self, name: str) -> bool:
        """Unloads a model that nobody uses, be it pinned. Says whether it is not loaded now."""
    def remove(self, name: str) -> None:
        """Forgets a model. Who uses it goes on, and its memory is freed with the last user."""
    def status(self) -> list[dict[str, Any]]:
        """How the models are now: a list of dicts, one for each, sorted by name. Reads no files and waits for no load.

        - name: The name that `add` gave.
        - state: `unloaded` (it will be loaded when it is asked for), `loading` (it is being loaded, or waits for memory) or `loaded`.
        - pin: Whether it stays once it is loaded.
        - bytes: What it holds of the budget, in bytes: weights, buffers and what is cached, 0 while it is not loaded. Without what is
          cached by an instance that computes just now.
        - users: A list, one number for each instance that is loaded: its handles, sessions and streams that were not read to their
          ends. It is not unloaded while one is above 0.
        - idle_seconds: Seconds since the last user has gone; None while there is one, or was none yet.
        """
    @property
    def runtime(self) -> Runtime:
        """The runtime that computes the models."""
    def __reduce__(self) -> NoReturn: ...

@final
class Tokenizer:
    """Text to token ids and back."""

    @staticmethod
    def from_file(path: _Path) -> Tokenizer:
        """The tokenizer in a `tokenizer.json`, or the vocabulary in a GGUF file."""
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`. `add_special_tokens`: put what the model expects around it, such as BOS."""
    def decode(self, ids: _Ids, skip_special_tokens: bool = True) -> str:
        """Text of `ids`. `skip_special_tokens`: leave special tokens out."""
    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token, or None."""
    def id_to_token(self, id: SupportsIndex) -> str | None:
        """The token with an id, or None."""
    def __reduce__(self) -> NoReturn: ...

@final
class Constraint:
    """What a text is constrained to, to check texts without a model. Use one from as many threads as you like.

    The options are those of `Model.generate`, exactly one of them: `json_schema` (an object, or its text), `json_object`,
    `regex`, `grammar`, `choices`. One that cannot be enforced exactly is `InvalidConstraint`, whose message names the place.
    Tables of the tokenizer's tokens are made with its first constraint, about a second for 130 000 tokens, and are kept with
    the `Tokenizer` object for the next ones."""

    def __new__(
        cls,
        tokenizer: Tokenizer,
        *,
        json_schema: Mapping[str, object] | bool | str | None = None,
        json_object: bool | None = False,
        regex: str | None = None,
        grammar: str | None = None,
        choices: str | Collection[str] | None = None,
        **others: NoReturn,
    ) -> Self: ...
    def accepts(self, text: str) -> bool:
        """Whether `text` satisfies the constraint as a whole."""

    def forbidden_at(self, text: str) -> int | None:
        """Where the first token of `text` that is forbidden begins, in characters. None if all are allowed: the text is
        accepted, or the beginning of one that is."""

    def __reduce__(self) -> NoReturn: ...

@final
class Runtime:
    """Threads, memory budget and log hook; models of one runtime share them."""

    def __new__(
        cls,
        threads: int | None = None,
        memory_budget: int | None = None,
        on_log: _Log | None = None,
        *,
        driver: Literal["caller", "thread"] | None = None,
        kernels: str | None = None,
        numa: Literal["off", "interleave", "local"] | None = None,
        **others: NoReturn,
    ) -> Self: ...
    def plan(
        self,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> dict[str, Any]:
        """What loading a model would cost, as a dict; sizes in bytes. `fits` says whether `load_bytes` are free in the memory
        budget or, without one, in `system_memory`, `tasks` and `has_chat_template` what the model can do, `warnings` what of its files has no effect. Reads no
        weights, unless asked to `verify` them. No path and no shape: the built-in model. Options as of
        `Model.from_pretrained`, but for those of a runtime.
        """
    def load(
        self,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[ModelOptions],
    ) -> Model:
        """Loads the model in a directory, GGUF or packed file, with random weights in a published shape, or the built-in one.

        `on_progress(done, total)` is called with weights: if it returns False, loading is cancelled (`Cancelled`); what it
        raises is raised.

        Options (`ModelOptions`):
        - weights: Type that weights are computed with; `stored` keeps a quantized model's own codes. Default: as a
          packed file holds them; `stored` for quantized models; int8 for others.
        - kv: Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto.
        - max_context: Maximum number of tokens in a sequence. Value: a whole number from 1 to 4294967295. Default: what
          the model was trained for.
        - prefill_chunk: Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and
          memory, not results. Value: a whole number from 1 to 65536. Default: 512.
        - max_batch: Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory,
          not results. Value: a whole number from 1 to 4096. Default: 64.
        - target_inter_token_ms: Milliseconds between tokens that decoding sequences should have: prompts get as many
          tokens of a pass as that allows, at least 16. Changes speed, not results. Value: a whole number from 1 to
          3600000. Default: no target; prompts get `prefill_chunk`.
        - max_queue: Most requests that wait to begin; further ones are refused with `Overloaded`, which says when to
          try again. Value: a whole number from 1 to 4294967295. Default: no limit.
        - share: With `driver` thread: the model's share of the thread's time, relative to those of other models of the
          runtime that have work at the same time. Changes speed, not results. Value: a whole number from 1 to 1000.
          Default: 1.
        - prefix_cache: Keep keys, values and states of requests that have ended, for prompts that begin as theirs did.
          Changes speed and memory, not results. Not for encoders. Default: True with `driver` thread, else False.
        - prefix_cache_bytes: Most bytes that are kept so. They are given up where requests need memory. Default: half
          of what requests may take.
        - prefix_cache_dir: Directory for a file of what is kept so: written when the model is closed, read when it is
          loaded again. Default: what is kept goes with the model.
        - speculation: How tokens are guessed before they are computed: `ngram`, as what followed the last tokens
          before; `draft`, by the `draft_model`; `mtp`, by the model's own head. Changes speed, not results. Default:
          none.
        - draft_model: A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file.
          Default: none.
        - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
          quantized. Default: none.
        - chat_template: Text of a Jinja chat template to use instead of the model's own. It sees the model's special
          tokens. Default: the model's.
        - mmap: Map a packed file, so that processes share its memory, instead of reading it. A mapped file must not be
          changed or shortened. Default: True; with `numa`, False.
        - verify: Read all of a packed file first and compare it with its checksum. Default: False.
        - cache: Write a packed file when a directory is loaded, and use it the next time: True in the user's cache
          directory, or in the directory given here. Changes no result. Default: False.
        """
    def pack(
        self,
        path: _Path | None,
        target: _Path,
        *,
        shape: str | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[PackOptions],
    ) -> int:
        """Writes a model to the packed file `target`: weights as they are computed with, tokenizer, chat template and
        configuration. Such a file loads in milliseconds, and processes that use it share its memory. Returns its size in
        bytes. No path and no shape: the built-in model.

        `on_progress(done, total)` is called with weights: if it returns False, packing is cancelled (`Cancelled`); what it
        raises is raised.

        Options (`PackOptions`):
        - weights: Type that the weights will be computed with; `stored` keeps a quantized model's own codes. Default:
          `stored` for quantized models, int8 for others.
        - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
          quantized. Default: none.
        - calibrate: Choose int4 codes for least error on texts like the one in this UTF-8 file, not by rounding to
          nearest; `builtin` is a text that comes with the library. 65,536 tokens are used. Default: rounding to
          nearest.
        - overwrite: Replace a file that is already there. Default: False.
        """
    def evaluate(
        self,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[EvaluateOptions],
    ) -> dict[str, Any]:
        """How good a model is with a weight type, as a dict: `perplexity` on a text; against a reference `kl_divergence` (mean
        over tokens, in nats), `top1_agreement` (0 to 1), and in `layers` how far the residual streams are apart; `tokens_per_s`
        of the model. `reference` says what it was compared with: the same model in f32, if nothing else is asked for. One layer
        of each model is in memory at a time. No path and no shape: the built-in model.

        `on_progress(done, total)` is called with weights, of both models: if it returns False, the work is cancelled
        (`Cancelled`); what it raises is raised.

        Options (`EvaluateOptions`):
        - weights: Type of the weights that are evaluated; `stored` keeps a quantized model's own codes. Default: as a
          packed file holds them; `stored` for quantized models; int8 for others.
        - kv: Type of the KV cache that is evaluated; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto.
        - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
          quantized; to those of the reference too, unless it is another model. Default: none.
        - text: UTF-8 file with the text; `builtin` is a text that comes with the library, which calibration uses too.
          Default: builtin.
        - sequences: Maximum number of sequences, of 512 tokens or of the whole context if that is shorter. They are
          taken from all over the text. Value: a whole number from 1 to 4096. Default: 8.
        - reference: Type of the weights that the model is compared with; `none` gives the perplexity alone. Default:
          f32.
        - reference_model: Model to compare with: a directory, GGUF or packed file with the same tokens and sizes.
          Default: the same model; of a packed or quantized one, its own weights, dequantized.
        - store: Store the report in the packed file that is evaluated, where `clawdbot inspect` and plans show it.
          Default: False.
        """
    def download(
        self,
        name: str,
        *,
        revision: str | None = None,
        file: str | None = None,
        offline: bool | None = None,
        on_download: _Progress | None = None,
        **others: NoReturn,
    ) -> pathlib.Path:
        """As `clawdbot.download`; requests that fail and are repeated go to the log of this runtime."""
    @property
    def threads(self) -> int:
        """Number of threads that compute, the caller's included."""
    @property
    def kernels(self) -> str:
        """The instruction-set tier in use, such as `x86_64-avx512-vnni`."""
    @property
    def memory_used(self) -> int:
        """Bytes that models of this runtime hold now."""
    def metrics(self) -> dict[str, Any]:
        """What its models have done since they were loaded, and what they do now: `memory_used`, `memory_budget`, `swap_used`,
        `histogram_bounds` (seconds) and `models`. Each model has an `id` (also in its `info`) and, from a pool, a `pool_name`.
        Waits for no pass.
        """
    @property
    def memory_budget(self) -> int | None:
        """The memory budget in bytes, or None."""
    def __reduce__(self) -> NoReturn: ...

@final
class Model:
    """A loaded model: immutable weights, tokenizer, chat template; for use from any thread."""

    @staticmethod
    def from_pretrained(
        path: _Path | None = None,
        *,
        revision: str | None = None,
        file: str | None = None,
        offline: bool | None = None,
        on_download: _Progress | None = None,
        runtime: Runtime | None = None,
        on_log: _Log | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Loads the model in a directory, GGUF or packed file; no path: the built-in story model.

        A string OWNER/NAME that is no path names a model on Hugging Face, which is downloaded unless its cache has it
        (hf://OWNER/NAME and modelscope://OWNER/NAME name the hub; the address of its page works too, as does OWNER/NAME:Q4_K_M for
        a GGUF file). revision: branch, tag or commit; file: a GGUF file of
        the repository; offline: use the cache alone; `on_download(done, total)` is called with bytes, as `on_progress`.

        `on_progress(done, total)` is called with weights: if it returns False, loading is cancelled (`Cancelled`); what it
        raises is raised. `threads`, `memory_budget`, `kernels` and `on_log` are for a runtime of the model's own, when no
        `runtime` is given.

        Options (`LoadOptions`):
        - weights: Type that weights are computed with; `stored` keeps a quantized model's own codes. Default: as a
          packed file holds them; `stored` for quantized models; int8 for others.
        - kv: Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise. Default: auto.
        - max_context: Maximum number of tokens in a sequence. Value: a whole number from 1 to 4294967295. Default: what
          the model was trained for.
        - prefill_chunk: Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and
          memory, not results. Value: a whole number from 1 to 65536. Default: 512.
        - max_batch: Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory,
          not results. Value: a whole number from 1 to 4096. Default: 64.
        - target_inter_token_ms: Milliseconds between tokens that decoding sequences should have: prompts get as many
          tokens of a pass as that allows, at least 16. Changes speed, not results. Value: a whole number from 1 to
          3600000. Default: no target; prompts get `prefill_chunk`.
        - max_queue: Most requests that wait to begin; further ones are refused with `Overloaded`, which says when to
          try again. Value: a whole number from 1 to 4294967295. Default: no limit.
        - share: With `driver` thread: the model's share of the thread's time, relative to those of other models of the
          runtime that have work at the same time. Changes speed, not results. Value: a whole number from 1 to 1000.
          Default: 1.
        - prefix_cache: Keep keys, values and states of requests that have ended, for prompts that begin as theirs did.
          Changes speed and memory, not results. Not for encoders. Default: True with `driver` thread, else False.
        - prefix_cache_bytes: Most bytes that are kept so. They are given up where requests need memory. Default: half
          of what requests may take.
        - prefix_cache_dir: Directory for a file of what is kept so: written when the model is closed, read when it is
          loaded again. Default: what is kept goes with the model.
        - speculation: How tokens are guessed before they are computed: `ngram`, as what followed the last tokens
          before; `draft`, by the `draft_model`; `mtp`, by the model's own head. Changes speed, not results. Default:
          none.
        - draft_model: A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file.
          Default: none.
        - merge_adapters: Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are
          quantized. Default: none.
        - chat_template: Text of a Jinja chat template to use instead of the model's own. It sees the model's special
          tokens. Default: the model's.
        - mmap: Map a packed file, so that processes share its memory, instead of reading it. A mapped file must not be
          changed or shortened. Default: True; with `numa`, False.
        - verify: Read all of a packed file first and compare it with its checksum. Default: False.
        - cache: Write a packed file when a directory is loaded, and use it the next time: True in the user's cache
          directory, or in the directory given here. Changes no result. Default: False.
        - threads: Number of threads that compute. Value: a whole number from 1 to 1024. Default: the smallest of CPU
          quota, affinity and physical cores.
        - driver: Who computes: `caller`, the threads that wait for results, so that nothing runs between calls; or
          `thread`, one of the runtime's own, so that requests advance while nobody waits for them. Default: caller.
        - numa: On machines with several memory nodes (Linux): `interleave` spreads weights over them, `local` keeps
          weights next to the threads that read them (`docs/performance.md`). Changes no result. Default: off.
        - memory_budget: Most bytes that the models of a runtime may use together: weights, KV cache, scratch memory,
          and all else that grows with requests. Value: a number of bytes below 2^64. Default: no limit for weights; for
          what grows with requests, a share of the machine's memory (`docs/memory.md`).
        - swap_space: Most bytes of a file for keys, values and states that memory has no room for: they are read back
          in place of being computed again, where that is faster. It has no name, and goes with the runtime. Value: a
          number of bytes below 2^64. Default: 0, no such file.
        - swap_directory: Directory of that file. Default: the system's directory for temporary files.
        - kernels: Instruction-set tier. Tiers with `bf16` in their name round activations to bf16 where weights are
          bf16; all others give equal bits. Default: what `CLAWDBOT_ISA` says, or the best for this CPU.
        """
    @staticmethod
    def from_shape(
        shape: str,
        *,
        runtime: Runtime | None = None,
        on_log: _Log | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Random weights in a published shape, one of `clawdbot.SHAPES`: for measuring speed. There is no tokenizer.
        Options as for `from_pretrained`.
        """
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        options: Mapping[str, Any] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **opts: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates. A prompt is text or token ids (any sequence, or an integer array).

        One prompt gives a Completion; a list of prompts runs as one batch and gives a list in the same order. A prompt that
        fails fails alone: when all are done the first exception is raised, with the list of completions and exceptions as
        its attribute `results`; with `return_exceptions` that list is returned, and nothing is raised.

        Options go in a mapping, as keyword arguments, or both; `options` may also be a list with a mapping (or None) for each
        prompt.

        Options (`GenerateOptions`):
        - adapter: Name of the loaded LoRA adapter to use. Default: none.
        - priority: Requests of higher priority are served first, with `driver` thread those of other models too; among
          equals, groups share. Value: a whole number from 0 to 100. Default: 50.
        - group: Name of the group of requests (a user, a job) that this one belongs to. Groups get equal shares,
          however many requests each has. Default: none: requests without one share a group.
        - deadline_ms: Milliseconds from now after which the request ends, with the finish reason `deadline` and what it
          has generated. Default: none.
        - speculation: How tokens are guessed before they are computed, as for a model. Changes speed, not results.
          Default: the model's.
        - n: How many completions of the prompt to generate; the further ones have the seeds after `seed`. Streams and
          sessions give one. Value: a whole number from 1 to 128. Default: 1.
        - best_of: Generate this many, and give the `n` whose tokens have the highest mean log-probability, best first.
          Value: a whole number from 1 to 128. Default: `n`, in the order of their seeds.
        - num_beams: Beams of a beam search, which keeps so many of the most likely texts while it generates; 1 is off.
          The best `n` are given, best first. Value: a whole number from 1 to 32. Default: 1.
        - length_penalty: The score of a text in a beam search is its log-probability, divided by its length to this
          power: above 0, longer texts gain. Default: the model's, or 1.
        - early_stopping: When a beam search ends: `True`, with `num_beams` finished texts; `False`, when better ones
          are unlikely; `never`, when there can be none. Default: the model's, or False.
        - max_tokens: Maximum number of tokens to generate. Value: a whole number from 1 to 4294967295. Default: the
          model's, or until the context is full.
        - temperature: Logits are divided by this before the softmax: lower values favor likely tokens. 0 is greedy:
          always the most likely token. Value: a finite number, 0 or more. Default: the model's (or 1) with `do_sample`,
          0 without.
        - top_k: Sample only from this many of the most likely tokens; 0 is off. Default: the model's, or else 50 with
          `do_sample` and 0 without.
        - top_p: Sample only from the smallest set of most likely tokens whose probabilities add up to this (nucleus
          sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1.
        - min_p: Sample only from tokens at least this many times as likely as the most likely token; 0 is off. Value: a
          number from 0 to 1. Default: the model's, or 0.
        - typical_p: Sample only from tokens whose surprisal is closest to the entropy, until their probabilities add up
          to this (locally typical sampling); 1 is off. Value: a number above 0, at most 1. Default: the model's, or 1.
        - top_n_sigma: Sample only from tokens whose logits are at most this many standard deviations below the largest
          one; 0 is off. Value: a finite number, 0 or more. Default: 0.
        - xtc_probability: How often (0 to 1) likely tokens are left out: of those at least as likely as
          `xtc_threshold`, only the least likely stays (exclude top choices); 0 is off. Value: a number from 0 to 1.
          Default: 0.
        - xtc_threshold: Probability from which on `xtc_probability` leaves tokens out. Value: a number above 0, at most
          1. Default: 0.1.
        - dynatemp_range: By how much the temperature may be higher or lower: higher where many tokens are likely, lower
          where few are; 0 is off. Value: a finite number, 0 or more. Default: 0.
        - dynatemp_exponent: Power of the normalized entropy that says where in `dynatemp_range` the temperature is.
          Value: a finite number above 0. Default: 1.
        - mirostat_tau: Keep the surprisal of the text near so many bits per token (Mirostat 2), in place of `top_k`,
          `top_p` and the other filters. Value: a finite number above 0. Default: off.
        - mirostat_eta: How fast Mirostat learns. Value: a finite number above 0. Default: 0.1.
        - samplers: The steps of sampling and their order. Those that are left out are not taken. Default: penalties,
          dry, top_n_sigma, temperature, top_k, top_p, min_p, typ_p, xtc.
        - repetition_penalty: Divide positive logits of tokens that occur in the prompt or the output by this, and
          multiply negative ones; 1 is off. Value: a finite number above 0. Default: the model's, or 1.
        - presence_penalty: Subtract this from the logits of tokens that occur in the output. Default: 0.
        - frequency_penalty: Subtract this from the logits of tokens in the output, once for each occurrence. Default:
          0.
        - dry_multiplier: Weight of the penalty for tokens that would continue a repetition (DRY); 0 is off. Value: a
          finite number, 0 or more. Default: 0.
        - dry_base: The DRY penalty grows by this factor with each repeated token. Value: a finite number, 1 or more.
          Default: 1.75.
        - dry_allowed_length: Repetitions of fewer tokens than this get no DRY penalty. Value: a whole number from 1 to
          4294967295. Default: 2.
        - dry_penalty_last_n: How many of the latest tokens DRY looks for repetitions in. Value: a whole number from 1
          to 4294967295. Default: all, those of the prompt included.
        - dry_sequence_breakers: Texts that end a repetition for DRY: tokens that have one of them in their text are not
          compared, and get no penalty. Default: a line break, `:`, `"` and `*`.
        - allowed_token_ids: The only tokens that are generated. Without an end-of-sequence token among them, the text
          ends at `max_tokens`. Default: all.
        - suppress_tokens: Tokens that are never generated. Default: the model's.
        - begin_suppress_tokens: Tokens that are never generated as the first token. Default: the model's.
        - bad_words_ids: Sequences of tokens that are never generated. One that is only an end-of-sequence token has no
          effect. Default: the model's.
        - bad_words: Texts that are never in the output, whatever tokens spell them. Default: none.
        - no_repeat_ngram_size: No sequence of this many tokens occurs twice, counting the prompt; 0 is off. Default:
          the model's, or 0.
        - min_tokens: Generate at least this many tokens before one that ends the generation. Default: the model's, or
          0.
        - logit_bias: Numbers to add to the logits of tokens, by token id. Default: none.
        - seed: Seed of the random numbers. Default: random; the completion reports it.
        - stop: Texts that end the generation. They are left out of the completion's text. Default: the model's.
        - stop_token_ids: Tokens that end the generation, in addition to the model's end-of-sequence tokens. Default:
          none.
        - ignore_eos: Treat the model's end-of-sequence tokens as ordinary tokens. Default: False.
        - json_schema: Generate JSON that is an instance of this JSON Schema. Default: none.
        - json_object: Generate a JSON object. Default: False.
        - regex: Generate text that this regular expression matches as a whole. Default: none.
        - grammar: Generate text of the language of this grammar, in Lark's syntax. Default: none.
        - choices: Generate one of these texts. Default: none.
        - logprobs: Report the log-probability of each generated token, and of this many most likely tokens. Value: a
          whole number from 0 to 64. Default: nothing is reported.
        - logprobs_mode: Which distribution `logprobs` are of: `raw`, the model's own; `masked`, the same over the
          tokens that masks and the constraint allow. Default: raw.
        - prompt_logprobs: Report the log-probability of each token of the prompt but the first, and of this many most
          likely tokens. What is cached of the prompt is computed again. Value: a whole number from 0 to 64. Default:
          nothing is reported.
        - add_special_tokens: Add the tokenizer's special tokens, such as BOS, to the prompt. A BOS that is already
          there is not doubled. Sessions take this when text is appended. Default: True for text, False for a chat,
          whose template adds its own.
        - skip_special_tokens: Leave special tokens out of the completion's text. Default: True.
        - tool_choice: In a chat with tools: `auto`, the model decides; `none`, no calls; `required`, at least one; or
          the name of the function to call. What is required is enforced, with the schemas. Default: auto.
        - parallel_tool_calls: Whether an answer may have several tool calls. Default: True.
        - tool_format: Format in which tool calls are read from the output. `auto`: that of the chat template, in a chat
          with tools. Default: auto.
        - reasoning_format: Format in which reasoning is told from the answer. `auto`: that of the chat template, in a
          chat. Default: auto.
        """
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        options: Mapping[str, Any] | None = None,
        *,
        return_exceptions: Literal[True],
        **opts: Unpack[GenerateOptions],
    ) -> Completion | Exception: ...
    @overload
    def generate(
        self,
        prompt: _Prompts,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **opts: Unpack[GenerateOptions],
    ) -> list[Completion]: ...
    @overload
    def generate(
        self,
        prompt: _Prompts,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        return_exceptions: Literal[True],
        **opts: Unpack[GenerateOptions],
    ) -> list[Completion | Exception]: ...
    @overload
    def generate(
        self,
        prompt: npt.NDArray[np.integer[Any]],
        options: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        return_exceptions: bool = False,
        **opts: Unpack[GenerateOptions],
    ) -> Any: ...
    def stream(
        self,
        prompt: _Prompt,
        options: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Stream:
        """Generates from one prompt, event by event. Options as of `generate`."""
    def generate_async(
        self,
        prompt: _Prompt,
        options: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Coroutine[Any, Any, Completion]:
        """As `generate` for one prompt, awaited: a coroutine that gives the Completion, for asyncio. The runtime's option `driver` must be
        `thread`. Cancelling the task that awaits it cancels the request. `deadline_ms` counts from the call, not from when it is awaited.
        """
    def chat_async(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Coroutine[Any, Any, Completion]:
        """As `chat`, awaited: see `generate_async`."""
    def chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates the next message of a conversation. `Session.chat` does so from what it has computed already.

        `messages`, `tools` and `variables` (a mapping, such as `{"enable_thinking": False}`) are as for `render_chat`; keyword
        arguments are options, as of `generate`. The template brings its special tokens, unless `add_special_tokens` is given.
        """
    def chat_stream(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: Mapping[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Stream:
        """Generates the next message of a conversation, event by event. Arguments as of `chat`."""
    def render_chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        add_generation_prompt: bool = True,
        *,
        variables: Mapping[str, Any] | None = None,
        **more_variables: Any,
    ) -> str:
        """Renders a conversation with the model's chat template, after checking it.

        `messages` is a list of dicts with `role` (system, developer, user, assistant, tool, or another that the template
        names) and `content`; `tools` is a list of function descriptions, and tools that the template does not use are an
        error; `variables`, a mapping, and further keyword arguments are variables of the template. A prompt that is generated from gets no second BOS if
        the template has written one.
        """
    @property
    def max_batch(self) -> int:
        """Most sequences of a forward pass, as the option or `set_max_batch` says."""
    def set_max_batch(self, max_batch: SupportsIndex) -> None:
        """Changes the most sequences of a forward pass, also while requests run, whose results stay the same. Raises `OutOfBudget`
        without memory for larger passes; nothing changes then.
        """
    @property
    def prefill_chunk(self) -> int:
        """Most tokens of a forward pass, as the option or `set_prefill_chunk` says."""
    def set_prefill_chunk(self, prefill_chunk: SupportsIndex) -> None:
        """Changes the most tokens of a forward pass, as `set_max_batch` does. Prompts that are under way get no more tokens of a
        pass than before.
        """
    def load_adapter(self, name: str, path: _Path) -> None:
        """Loads the LoRA adapter in `path`, a directory as PEFT writes it, for requests with `adapter=name`. It is applied next to
        the weights, which stay as they are.
        """
    def unload_adapter(self, name: str) -> None:
        """Unloads an adapter. Requests that run keep using it."""
    @property
    def adapters(self) -> list[str]:
        """The names of the loaded adapters, sorted."""
    def logits(self, ids: _Ids, adapter: str | None = None) -> npt.NDArray[np.float32]:
        """Logits at every position of `ids`, with an adapter or without: float32 array `[len(ids), vocab_size]`."""
    def score(self, prompt: _Prompt, continuations: _Texts, adapter: str | None = None) -> list[dict[str, Any]]:
        """How likely each of `continuations` (texts or token ids) is after `prompt`, which is computed once: a dict for each, with
        `token_ids`, `logprobs` (natural logarithms, one for each token), `greedy` (whether each token is the most likely one),
        `logprob` (their sum), `is_greedy` (all are) and `probability` (of all continuations of the call; they add up to 1).

        A prompt that is text gets the tokenizer's special tokens, and continuations that are text are tokenized together with
        it: where the last token of the prompt and the beginning of the continuation become one token, the continuation begins
        with that token."""
    @overload
    def embed(
        self,
        texts: _Texts,
        *,
        return_exceptions: Literal[False] = False,
        on_progress: _Progress | None = None,
        **options: Unpack[EmbedOptions],
    ) -> npt.NDArray[np.float32]:
        """Turns texts into vectors: float32 array `[len(texts), dimensions]`, computed together. A single text, a str, gives
        one vector, `[dimensions]`. In a list, a text may also be token ids.

        Options (`EmbedOptions`):
        - pooling: How to combine the hidden states of a text's tokens into one vector. Required if the model does not
          say. Default: the model's.
        - normalize: Scale vectors to length 1. Default: the model's.
        - prompt_name: Name of one of the model's prompts, which is put before each text. Default: the model's default
          prompt, if it has one.
        - prompt: Text that is put before each text, instead of one of the model's prompts. Default: as `prompt_name`
          says.
        - dimensions: Keep only this many leading elements of each vector, for models trained for it (Matryoshka).
          Value: a whole number from 1 to 4294967295. Default: all.
        - truncate: Cut texts that are too long. Otherwise they are errors. Default: False.
        - add_special_tokens: Add the tokenizer's special tokens to each text. Default: True.

        `on_progress(done, total)` is called with texts. If it returns False, the work is cancelled (`Cancelled`); what it raises
        is raised.

        A text that fails fails alone: when all are done the first exception is raised, with a list of vectors and exceptions as
        its attribute `results`; with `return_exceptions` that list is returned, and nothing is raised.
        """
    @overload
    def embed(  # type: ignore[overload-overlap]
        self,
        texts: str,
        *,
        return_exceptions: Literal[True],
        on_progress: _Progress | None = None,
        **options: Unpack[EmbedOptions],
    ) -> npt.NDArray[np.float32] | Exception: ...
    @overload
    def embed(
        self,
        texts: _Texts,
        *,
        return_exceptions: Literal[True],
        on_progress: _Progress | None = None,
        **options: Unpack[EmbedOptions],
    ) -> list[npt.NDArray[np.float32] | Exception]: ...
    @overload
    def rerank(
        self,
        query: str,
        documents: Sequence[str] | Iterator[str] | ValuesView[str],
        *,
        return_exceptions: Literal[False] = False,
        on_progress: _Progress | None = None,
        **options: Unpack[RerankOptions],
    ) -> npt.NDArray[np.float32]:
        """Scores documents against a query, more is more relevant: float32 array `[len(documents)]`.

        `on_progress`, called with documents, and `return_exceptions`, with scores as floats, are as for `embed`.

        Options (`RerankOptions`):
        - sigmoid: Give scores as probabilities, `1 / (1 + exp(-logit))`, instead of logits. Default: the model's, or
          True.
        - instruction: What makes a document a good answer to the query, for models that take an instruction
          (Qwen3-Reranker). Default: the model's.
        - truncate: Cut texts that are too long. Otherwise they are errors. Default: False.
        """
    @overload
    def rerank(
        self,
        query: str,
        documents: Sequence[str] | Iterator[str] | ValuesView[str],
        *,
        return_exceptions: Literal[True],
        on_progress: _Progress | None = None,
        **options: Unpack[RerankOptions],
    ) -> list[float | Exception]: ...
    def instance(self, **options: Unpack[ModelOptions]) -> Model:
        """Another model over the same weights, which are in memory once: with limits, requests, sessions, a prefix cache and adapters
        of its own. Options as of `Runtime.load`; those that say what the weights are (`weights`, `merge_adapters`,
        `draft_model`, `chat_template`, `mmap`, `verify`, `cache`) are this model's.
        """
    def session(self) -> Session:
        """A new conversation without tokens."""
    def restore_session(self, path: _Path) -> Session:
        """A session from a file that `Session.save` has written. Nothing is computed, and all that follows has the bits that
        it would have had. A file of another model, weight type, type of the KV cache or version of the library, and one that
        was changed, raises `InvalidArgument`. An adapter that the session used has to be loaded, under any name.
        """
    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
    @property
    def runtime(self) -> Runtime:
        """The runtime that computes it."""
    @property
    def info(self) -> dict[str, Any]:
        """Facts about the model, as a dict; sizes in bytes."""
    def close(self) -> None:
        """Cancels running requests and frees the model; everything else then raises `Closed`. The weights stay in memory until the last
        of its sessions, streams (until their last event is read) and instances is closed or freed; instances go on.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...

def download(
    name: str,
    *,
    revision: str | None = None,
    file: str | None = None,
    offline: bool | None = None,
    on_download: _Progress | None = None,
    **others: NoReturn,
) -> pathlib.Path:
    """Downloads a model, unless the cache has it, and returns its path: for `Runtime.load`, `Runtime.plan`, `Runtime.pack`.
    Arguments as those of `Model.from_pretrained`; any other is an error.
    """

def render_chat_template(
    template: str,
    messages: _Messages,
    tools: _Tools | None = None,
    add_generation_prompt: bool = True,
    *,
    variables: Mapping[str, Any] | None = None,
    **more_variables: Any,
) -> str:
    """Renders a conversation with a chat template (Jinja), as transformers does.

    `messages` is a list of dicts with `role` and `content`, `tools` a list of function descriptions; `variables`, a mapping,
    and further keyword arguments are variables of the template, such as `bos_token`.
    """

class ClawdbotError(Exception):
    """Any failure of clawdbot."""

    code: ClassVar[int]
    """A stable number."""
    kind: ClassVar[str]
    """The class's name."""
    detail: Mapping[str, Any]
    """For programs."""

class InvalidArgument(ClawdbotError, ValueError): ...
class UnknownOption(ClawdbotError, TypeError): ...
class NotFound(ClawdbotError, FileNotFoundError): ...
class Io(ClawdbotError): ...
class InvalidModel(ClawdbotError): ...
class UnsupportedModel(ClawdbotError): ...
class InvalidTokenizer(ClawdbotError): ...
class InvalidTemplate(ClawdbotError): ...
class MissingTemplate(ClawdbotError): ...
class TemplateRaised(ClawdbotError): ...
class EmptyPrompt(ClawdbotError): ...
class ContextOverflow(ClawdbotError): ...
class OutOfBudget(ClawdbotError): ...
class Cancelled(ClawdbotError): ...
class Closed(ClawdbotError): ...
class ForkedRuntime(ClawdbotError): ...
class InvalidUtf8(ClawdbotError, ValueError): ...
class NullPointer(ClawdbotError): ...
class NonFinite(ClawdbotError): ...
class Internal(ClawdbotError): ...
class Download(ClawdbotError): ...
class AccessDenied(ClawdbotError): ...
class Overloaded(ClawdbotError): ...
class InvalidConstraint(ClawdbotError): ...
