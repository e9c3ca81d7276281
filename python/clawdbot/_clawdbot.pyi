"""Language models inside your program, on the CPU it has: the compiled part of `clawdbot`."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, NoReturn, TypeAlias, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, Unpack

from .options import EmbedOptions, GenerateOptions, LoadOptions, ModelOptions, PackOptions, RerankOptions

__all__ = [
    "AccessDenied",
    "Cancelled",
    "ClawdbotError",
    "Closed",
    "Completion",
    "ContextOverflow",
    "EMBED_OPTIONS",
    "Download",
    "EmptyPrompt",
    "Event",
    "ForkedRuntime",
    "GENERATE_OPTIONS",
    "Internal",
    "InvalidArgument",
    "InvalidModel",
    "InvalidTemplate",
    "InvalidTokenizer",
    "InvalidUtf8",
    "Io",
    "Logprobs",
    "MODEL_OPTIONS",
    "MissingTemplate",
    "Model",
    "NonFinite",
    "NotFound",
    "NullPointer",
    "OutOfBudget",
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
PACK_OPTIONS: Final[tuple[str, ...]]
RUNTIME_OPTIONS: Final[tuple[str, ...]]

_Path: TypeAlias = str | os.PathLike[str]
_Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
_Prompt: TypeAlias = str | _Ids
_Prompts: TypeAlias = (
    list[str] | tuple[str, ...] | Sequence[Sequence[int]] | Sequence[npt.NDArray[np.integer[Any]]]
)
_Messages: TypeAlias = Sequence[Mapping[str, Any]]
_Tools: TypeAlias = Sequence[Mapping[str, Any]]
_Progress: TypeAlias = Callable[[int, int], object]
_Log: TypeAlias = Callable[[str, str], object]

@final
class TokenLogprob:
    """The log-probability (natural logarithm) of a token under the model's own distribution."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    @property
    def id(self) -> int: ...
    @property
    def logprob(self) -> float: ...

@final
class Logprobs:
    """What was drawn at a position, and the most likely tokens there."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    @property
    def chosen(self) -> TokenLogprob: ...
    @property
    def top(self) -> list[TokenLogprob]: ...

@final
class Usage:
    """Tokens and seconds of a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def queue_seconds(self) -> float: ...
    @property
    def prefill_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...
    @property
    def time_to_first_token(self) -> float: ...
    @property
    def prefill_tokens_per_s(self) -> float: ...
    @property
    def decode_tokens_per_s(self) -> float: ...

@final
class Completion:
    """The result of a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "cancelled"]: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def logprobs(self) -> list[Logprobs] | None: ...
    @property
    def options(self) -> dict[str, Any]: ...

@final
class Event:
    """Something that happened to a request."""

    def __new__(cls, fields: Mapping[str, Any]) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def to_json(self) -> str: ...
    @property
    def kind(self) -> Literal["token", "progress", "done"]: ...
    @property
    def id(self) -> int | None: ...
    @property
    def text(self) -> str | None: ...
    @property
    def logprobs(self) -> Logprobs | None: ...
    @property
    def done(self) -> int | None: ...
    @property
    def total(self) -> int | None: ...
    @property
    def completion(self) -> Completion | None: ...

@final
class Stream:
    """The events of one request. Iterating computes; leaving a `with` block cancels."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Event: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def cancel(self) -> None: ...
    def finish(self) -> Completion: ...
    def close(self) -> None: ...

@final
class Session:
    """A conversation: its tokens, and their keys and values in the model's cache."""

    @property
    def tokens(self) -> list[int]: ...
    def append(self, prompt: _Prompt, add_special_tokens: bool = True) -> int: ...
    def stream(
        self, options: Mapping[str, Any] | None = None, **opts: Unpack[GenerateOptions]
    ) -> Stream: ...
    def generate(
        self, options: Mapping[str, Any] | None = None, **opts: Unpack[GenerateOptions]
    ) -> Completion: ...
    def chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: dict[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Completion: ...
    def chat_stream(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: dict[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Stream: ...
    def truncate(self, length: int) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, *_exception: type[BaseException] | BaseException | TracebackType | None
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Tokenizer:
    """Text to token ids and back."""

    @staticmethod
    def from_file(path: _Path) -> Tokenizer: ...
    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...
    def decode(self, ids: _Ids, skip_special_tokens: bool = True) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
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
        kernels: str | None = None,
    ) -> Self: ...
    def plan(
        self,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        **options: Unpack[ModelOptions],
    ) -> dict[str, Any]: ...
    def load(
        self,
        path: _Path | None = None,
        *,
        shape: str | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[ModelOptions],
    ) -> Model: ...
    def pack(
        self,
        path: _Path | None,
        target: _Path,
        *,
        shape: str | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[PackOptions],
    ) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def kernels(self) -> str: ...
    @property
    def memory_used(self) -> int: ...
    @property
    def memory_budget(self) -> int | None: ...
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
        on_progress: _Progress | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model: ...
    @staticmethod
    def from_shape(
        shape: str,
        *,
        runtime: Runtime | None = None,
        on_progress: _Progress | None = None,
        **options: Unpack[LoadOptions],
    ) -> Model: ...
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        options: Mapping[str, Any] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **opts: Unpack[GenerateOptions],
    ) -> Completion: ...
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
    ) -> Stream: ...
    def chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: dict[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Completion: ...
    def chat_stream(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        variables: dict[str, Any] | None = None,
        **opts: Unpack[GenerateOptions],
    ) -> Stream: ...
    def render_chat(
        self,
        messages: _Messages,
        tools: _Tools | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str: ...
    def load_adapter(self, name: str, path: _Path) -> None: ...
    def unload_adapter(self, name: str) -> None: ...
    @property
    def adapters(self) -> list[str]: ...
    def logits(self, ids: _Ids, adapter: str | None = None) -> npt.NDArray[np.float32]: ...
    def embed(
        self,
        texts: Sequence[str] | Sequence[_Ids],
        *,
        on_progress: _Progress | None = None,
        **options: Unpack[EmbedOptions],
    ) -> npt.NDArray[np.float32]: ...
    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        on_progress: _Progress | None = None,
        **options: Unpack[RerankOptions],
    ) -> npt.NDArray[np.float32]: ...
    def session(self) -> Session: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def runtime(self) -> Runtime: ...
    @property
    def info(self) -> dict[str, Any]: ...
    def close(self) -> None: ...
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
) -> pathlib.Path:
    """Downloads a model, unless the cache has it, and returns its path."""

def render_chat_template(
    template: str,
    messages: _Messages,
    tools: _Tools | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """Renders a conversation with a chat template (Jinja), as transformers does."""

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
