"""Streams: iteration, cancelling, threads."""

import threading

import pytest

import clawdbot

PROMPT = "Once upon a time"


def test_pieces_add_up(model):
    options = {"max_tokens": 30, "temperature": 0.9, "seed": 5, "logprobs": 1}
    whole = model.generate(PROMPT, options)
    events = list(model.stream(PROMPT, options))
    tokens = [event for event in events if event.kind == "token"]
    assert [event.id for event in tokens] == whole.token_ids
    assert whole.text.startswith("".join(event.text for event in tokens))
    assert all(event.logprobs.chosen.id == event.id for event in tokens)
    last = events[-1]
    assert last.kind == "done"
    assert last.completion.text == whole.text
    assert last.completion.token_ids == whole.token_ids
    assert [event.kind for event in events].count("done") == 1
    assert "kind='token'" in repr(tokens[0])
    assert "Completion(" in repr(last)


def test_text_that_is_certain_is_all_of_it(model):
    stream = model.stream(PROMPT, max_tokens=30, temperature=0)
    events = list(stream)
    assert "".join(event.text for event in events if event.kind == "token") == events[-1].completion.text


def test_a_long_prompt_reports_progress():
    with clawdbot.Model.from_pretrained(prefill_chunk=16) as chunked:
        events = list(chunked.stream([5] * 100, max_tokens=2, temperature=0))
    progress = [(event.done, event.total) for event in events if event.kind == "progress"]
    assert len(progress) >= 6
    assert progress == sorted(progress)
    assert all(total == 100 for _, total in progress)
    assert "done=" in repr(events[0])


def test_the_end_is_final(model):
    stream = model.stream(PROMPT, max_tokens=2, temperature=0)
    assert iter(stream) is stream
    list(stream)
    assert list(stream) == []
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(clawdbot.Closed):
        stream.finish()


def test_finish(model):
    stream = model.stream(PROMPT, max_tokens=9, temperature=0)
    while next(stream).kind != "token":
        pass
    assert stream.finish().token_ids == model.generate(PROMPT, max_tokens=9, temperature=0).token_ids
    with pytest.raises(clawdbot.Closed):
        stream.finish()
    assert list(stream) == []


def test_cancel(model):
    stream = model.stream(PROMPT, max_tokens=500, temperature=0, ignore_eos=True)
    seen = 0
    for event in stream:
        seen += event.kind == "token"
        if seen == 3:
            stream.cancel()
    assert event.kind == "done"
    assert event.completion.finish_reason == "cancelled"
    assert 3 <= len(event.completion.token_ids) < 100


def test_cancel_from_another_thread(model):
    # How soon 900 tokens are done depends on the machine: cancel earlier until it is in time.
    for attempt in range(12):
        stream = model.stream(PROMPT, max_tokens=900, temperature=0, ignore_eos=True)
        timer = threading.Timer(0.05 / 2**attempt, stream.cancel)
        timer.start()
        reason = stream.finish().finish_reason
        timer.join()
        if reason == "cancelled":
            return
        assert reason == "length"
    pytest.fail("no stream was cancelled from another thread")


def test_with_cancels(model):
    with model.stream(PROMPT, max_tokens=500, temperature=0, ignore_eos=True) as stream:
        next(stream)
    assert list(stream) == []
    stream.close()
    assert model.generate(PROMPT, max_tokens=3, temperature=0).text


def test_an_abandoned_stream_gives_its_memory_back():
    with clawdbot.Model.from_pretrained() as own:
        before = own.runtime.memory_used
        streams = [own.stream(PROMPT, max_tokens=100, temperature=0) for _ in range(8)]
        for stream in streams:
            next(stream)
        assert own.runtime.memory_used > before
        del streams, stream
        own.generate(PROMPT, max_tokens=1, temperature=0)
        again = own.runtime.memory_used
        for _ in range(5):
            next(own.stream(PROMPT, max_tokens=100, temperature=0))
        assert own.runtime.memory_used <= again


def test_one_stream_taken_by_many_threads(model):
    expected = model.generate(PROMPT, max_tokens=40, temperature=0, ignore_eos=True).token_ids
    stream = model.stream(PROMPT, max_tokens=40, temperature=0, ignore_eos=True)
    taken = []

    def take():
        for event in stream:
            if event.kind == "token":
                taken.append(event.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(expected)
