"""Events and completions that are awaited in asyncio; what `Stream` and `Model` of the compiled part call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._clawdbot import Completion, Event, Stream


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _on_another_thread(free: Callable[[], None]) -> None:
    """Closes or frees a stream where that may wait for the pass that is computed."""
    # Without an executor any more, it is closed when it is freed.
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().run_in_executor(None, free)


async def _next(stream: Stream) -> Event | None:
    """The next event; None after the last."""
    loop = asyncio.get_running_loop()
    while True:
        future: asyncio.Future[None] = loop.create_future()
        there, event = stream._poll(functools.partial(loop.call_soon_threadsafe, _wake, future))
        if there:
            if event is None:
                # Not closed: another thread may be finishing it.
                _on_another_thread(stream._free)
            return event
        try:
            await future
        except asyncio.CancelledError:
            stream.cancel()
            _on_another_thread(stream.close)
            raise


async def next_event(stream: Stream) -> Event:
    event = await _next(stream)
    if event is None:
        raise StopAsyncIteration
    return event


async def enter(stream: Stream) -> Stream:
    return stream


async def leave(stream: Stream) -> None:
    stream.cancel()
    # Closing may wait for the pass that is computed.
    await asyncio.get_running_loop().run_in_executor(None, stream.close)


async def completion(begin: Callable[[], Stream]) -> Completion:
    # Beginning may wait for the pass that is computed, too.
    stream = await asyncio.get_running_loop().run_in_executor(None, begin)
    while (event := await _next(stream)) is not None:
        if event.completion is not None:
            _on_another_thread(stream.close)
            return event.completion
    raise RuntimeError("a stream without a completion")
