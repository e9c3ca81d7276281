"""Events and completions awaited in asyncio."""

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pytest

import clawdbot

GREEDY = {"temperature": 0, "ignore_eos": True}
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def driven():
    runtime = clawdbot.Runtime(threads=2, driver="thread")
    with runtime.load() as model:
        yield model


def until(so):
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def cancelled(model):
    return model.runtime.metrics()["models"][0]["requests"]["cancelled"]


def test_events_and_completions(driven):
    expected = driven.generate(PROMPT, max_tokens=40, **GREEDY)
    chat = [{"role": "user", "content": "Hello"}]

    async def events():
        return [event async for event in driven.stream(PROMPT, max_tokens=40, **GREEDY)]

    async def main():
        return await asyncio.gather(
            events(),
            *(driven.generate_async(PROMPT, max_tokens=40, **GREEDY) for _ in range(20)),
            driven.chat_async(chat, max_tokens=9, **GREEDY),
        )

    events, *completions, answer = asyncio.run(main())
    assert [event.id for event in events if event.kind == "token"] == expected.token_ids
    assert events[-1].completion.token_ids == expected.token_ids
    assert [completion.token_ids for completion in completions] == [expected.token_ids] * 20
    assert answer.token_ids == driven.chat(chat, max_tokens=9, **GREEDY).token_ids


def test_more_events_than_wait(driven):
    # One that reads late: the request pauses, and goes on.
    async def main():
        stream = driven.stream(PROMPT, max_tokens=600, **GREEDY)
        await asyncio.sleep(0.3)
        return [event async for event in stream]

    events = asyncio.run(main())
    assert len(events[-1].completion.token_ids) == 600


def test_a_coroutine_is_what_asyncio_takes(driven):
    async def main():
        task = asyncio.create_task(driven.generate_async(PROMPT, max_tokens=3, **GREEDY))
        return await asyncio.wait_for(task, 60)

    assert asyncio.run(main()).finish_reason == "length"


def test_a_deadline_counts_from_the_call(driven):
    async def main():
        coroutines = [
            driven.generate_async(PROMPT, max_tokens=900, deadline_ms=50, **GREEDY),
            driven.chat_async([{"role": "user", "content": "Hello"}], max_tokens=400, deadline_ms=50, **GREEDY),
        ]
        await asyncio.sleep(0.2)
        return await asyncio.gather(*coroutines)

    for completion in asyncio.run(main()):
        assert (completion.finish_reason, completion.token_ids) == ("deadline", [])
        assert completion.options["deadline_ms"] == 50


def test_the_loop_goes_on_meanwhile(driven):
    async def main():
        task = asyncio.ensure_future(driven.generate_async(PROMPT, max_tokens=300, **GREEDY))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(main()) > 3


def test_cancelling_the_task_cancels_the_request(driven):
    async def events(begun):
        async for _ in driven.stream(PROMPT, max_tokens=900, **GREEDY):
            begun.set()

    async def main():
        begun = asyncio.Event()
        tasks = [asyncio.create_task(events(begun)), asyncio.create_task(driven.generate_async(PROMPT, max_tokens=900, **GREEDY))]
        await begun.wait()
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    before = cancelled(driven)
    found = asyncio.run(main())
    assert all(isinstance(one, asyncio.CancelledError) for one in found)
    until(lambda: cancelled(driven) == before + 2)


def test_errors_are_raised_where_they_are_awaited(driven):
    with pytest.raises(clawdbot.UnknownOption):
        driven.generate_async(PROMPT, max_token=3)

    async def too_long():
        await driven.generate_async([5] * 100_000, max_tokens=3)

    with pytest.raises(clawdbot.ContextOverflow):
        asyncio.run(too_long())
    called = clawdbot.Model.from_pretrained(threads=1)

    async def nobody_computes():
        with pytest.raises(clawdbot.InvalidArgument, match="driver"):
            await called.generate_async(PROMPT, max_tokens=3)
        with pytest.raises(clawdbot.InvalidArgument, match="driver"):
            async for _ in called.stream(PROMPT, max_tokens=3):
                pass

    asyncio.run(nobody_computes())


def test_a_loop_that_is_closed_early(driven):
    stream = driven.stream(PROMPT, max_tokens=900, **GREEDY)

    async def first():
        return await stream.__anext__()

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(first()).kind == "token"
    waiting = loop.create_task(first())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    # Nobody is called any more, and others read on.
    del waiting
    gc.collect()
    assert stream.finish().finish_reason in ("length", "cancelled")


def test_who_awaits_a_stream_that_is_closed_finds_the_end(driven):
    async def waits():
        # The first event comes late.
        stream = driven.stream([5 + i % 400 for i in range(1000)], max_tokens=9, **GREEDY)
        asyncio.get_running_loop().call_later(0.001, stream.close)
        return [event async for event in stream]

    async def main():
        return await asyncio.wait_for(waits(), 60)

    assert all(event.kind == "progress" for event in asyncio.run(main()))


def test_tasks_that_share_a_stream_all_find_the_end(driven):
    expected = driven.generate(PROMPT, max_tokens=40, **GREEDY)

    async def main():
        stream = driven.stream(PROMPT, max_tokens=40, **GREEDY)

        async def reads():
            events = []
            async for event in stream:
                events.append(event)
                # Who has the last event reads no further, and wakes the others all the same.
                if event.kind == "done":
                    break
            return events

        return await asyncio.wait_for(asyncio.gather(reads(), reads(), reads()), 60)

    events = [event for events in asyncio.run(main()) for event in events]
    # Each event is read once, by one of them.
    assert sorted(event.id for event in events if event.kind == "token") == sorted(expected.token_ids)
    assert [event.kind for event in events].count("done") == 1


def test_leaving_an_async_block_ends_the_request(driven):
    async def main():
        async with driven.stream(PROMPT, max_tokens=900, **GREEDY) as stream:
            async for event in stream:
                if event.kind == "token":
                    break
        # It is closed: as any iterator that has ended, it goes on giving nothing.
        assert [event async for event in stream] == []
        with pytest.raises(clawdbot.Closed):
            stream.finish()
        with pytest.raises(KeyError):
            async with driven.stream(PROMPT, max_tokens=900, **GREEDY):
                raise KeyError("of the block")
        return stream

    before = cancelled(driven)
    asyncio.run(main())
    assert cancelled(driven) == before + 2


def test_a_thread_that_finishes_it_gets_the_whole_completion(driven):
    expected = driven.generate(PROMPT, max_tokens=400, **GREEDY)

    async def main():
        stream = driven.stream(PROMPT, max_tokens=400, **GREEDY)
        await stream.__anext__()

        async def reads():
            return [event async for event in stream]

        reading = asyncio.create_task(reads())
        await asyncio.sleep(0.01)
        finished = await asyncio.to_thread(stream.finish)
        await asyncio.wait_for(reading, 60)
        return finished

    finished = asyncio.run(main())
    assert finished.finish_reason == "length"
    assert finished.token_ids == expected.token_ids


def test_dropped_by_another_thread(driven):
    before = cancelled(driven)

    async def main():
        stream = driven.stream(PROMPT, max_tokens=900, **GREEDY)
        await stream.__anext__()
        thread = threading.Thread(target=stream.close)
        thread.start()
        events = [event async for event in stream]
        await asyncio.to_thread(thread.join)
        return events

    # It ends, whatever it had given by then.
    asyncio.run(main())
    until(lambda: cancelled(driven) == before + 1)


def test_a_task_that_nobody_has_any_more_is_collected(driven):
    before = cancelled(driven)
    loop = asyncio.new_event_loop()
    task = loop.create_task(driven.generate_async(PROMPT, max_tokens=900, **GREEDY))

    async def begun():
        while driven.runtime.metrics()["models"][0]["running"] == 0:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)

    loop.run_until_complete(begun())
    assert not task.done()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    del task, loop, begun
    gc.collect()
    until(lambda: cancelled(driven) == before + 1)


AT_EXIT = """
import asyncio, sys, threading
import clawdbot

model = clawdbot.Runtime(threads=2, driver="thread").load()

async def events():
    async for event in model.stream("Once", max_tokens=900, ignore_eos=True):
        pass

if sys.argv[1] == "thread":
    # A loop in a thread that nobody waits for.
    threading.Thread(target=lambda: asyncio.run(events()), daemon=True).start()
    import time
    time.sleep(0.3)
else:
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(events()) for _ in range(5)]
    loop.run_until_complete(asyncio.sleep(0.3))
print("done")
"""


@pytest.mark.parametrize("how", ["thread", "loop"])
def test_the_interpreter_ends_while_events_come(how):
    command = [sys.executable, "-W", "ignore", "-c", AT_EXIT, how]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
