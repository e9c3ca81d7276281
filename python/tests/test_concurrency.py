"""Threads, the interpreter lock, signals, fork, and silence."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import clawdbot

PROMPT = "Once upon a time"
LONG = {"max_tokens": 900, "temperature": 0, "ignore_eos": True}


def test_threads_give_what_one_gives(model):
    prompts = [PROMPT, "One day", "The dog", "A cat"]
    options = {"max_tokens": 40, "temperature": 0.8, "seed": 11}
    alone = [model.generate(prompt, options).token_ids for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = pool.map(lambda prompt: model.generate(prompt, options).token_ids, prompts)
            assert list(together) == alone


def test_threads_that_stream_score_and_talk(model):
    ids = model.tokenizer.encode(PROMPT)
    logits = model.logits(ids)
    text = model.generate(PROMPT, max_tokens=30, temperature=0).text

    def stream(_):
        *_, last = model.stream(PROMPT, max_tokens=30, temperature=0)
        return last.completion.text == text

    def score(_):
        return bool((model.logits(ids) == logits).all())

    def talk(_):
        with model.session() as session:
            session.append(PROMPT)
            return session.generate(max_tokens=30, temperature=0).text == text

    with ThreadPoolExecutor(6) as pool:
        results = [pool.submit(work, i) for i in range(4) for work in (stream, score, talk)]
        assert all(result.result() for result in results)


@pytest.mark.parametrize("kind", ["generate", "stream", "logits", "load"])
def test_the_interpreter_is_released(model, kind):
    """Another Python thread gets on with its work during one call."""
    work = {
        "generate": lambda: model.generate(PROMPT, max_tokens=300, temperature=0, ignore_eos=True),
        "stream": lambda: next(model.stream([5] * 900, max_tokens=1, temperature=0)),
        "logits": lambda: model.logits([5] * 900),
        "load": lambda: clawdbot.Model.from_pretrained(weights="f32").close(),
    }[kind]
    count, stop = 0, threading.Event()

    def other():
        nonlocal count
        while not stop.is_set():
            time.sleep(0.0001)
            count += 1

    interval = sys.getswitchinterval()
    # From here on a thread that wants the lock gets it only when the one that has it lets go.
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=other)
    try:
        thread.start()
        before = count
        work()
        counted = count - before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert counted >= 5


@pytest.fixture
def interrupt():
    """Sends SIGINT to this process after a while; says when."""
    sent = []

    def kill():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    def after(seconds):
        threading.Timer(seconds, kill).start()
        return sent

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.signal(signal.SIGINT, handler)


def long_session(model):
    session = model.session()
    session.append(PROMPT)
    return session


@pytest.mark.parametrize(
    "work",
    [
        lambda model: model.generate(PROMPT, LONG),
        lambda model: model.generate([PROMPT] * 16, LONG),
        lambda model: model.generate([[5] * 1000] * 400, max_tokens=1, temperature=0),
        lambda model: model.stream(PROMPT, LONG).finish(),
        lambda model: list(model.stream(PROMPT, LONG)),
        lambda model: long_session(model).generate(LONG),
        lambda model: [model.chat([{"role": "user", "content": "Go"}], max_tokens=500, temperature=0) for _ in range(99)],
        lambda model: [clawdbot.Model.from_pretrained(weights="f32") for _ in range(999)],
        lambda model: [model.logits([5] * 1000) for _ in range(999)],
    ],
    ids=["generate", "batch", "prefill", "finish", "list", "session", "chat", "load", "logits"],
)
def test_keyboard_interrupt(model, interrupt, work):
    sent = interrupt(0.1)
    with pytest.raises(KeyboardInterrupt):
        while True:
            work(model)
    # Far less than the work would take, and far more than a busy machine needs.
    assert time.perf_counter() - sent[0] < 10.0
    assert model.generate(PROMPT, max_tokens=3, temperature=0).text, "the model still works"


class Interrupting(list):
    """A prompt during whose conversion Ctrl-C is pressed."""

    def __iter__(self):
        signal.raise_signal(signal.SIGINT)
        return super().__iter__()


def test_an_interrupt_while_prompts_are_converted_is_no_prompt_s_error(model, interrupt):
    for call in (lambda prompts: model.generate(prompts, max_tokens=1, return_exceptions=True), lambda texts: model.embed(texts, pooling="mean", return_exceptions=True)):
        with pytest.raises(KeyboardInterrupt):
            call([[5], Interrupting([5]), [6]])


def test_a_signal_handler_that_does_not_raise_is_run_and_disturbs_nothing(model):
    seen = []
    handler = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.perf_counter()))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        # A fast machine may be done before signals are looked at: once more, then.
        for _ in range(100):
            interrupted = model.generate(PROMPT, max_tokens=900, temperature=0, ignore_eos=True)
            if seen:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert seen
    assert interrupted.token_ids == model.generate(PROMPT, max_tokens=900, temperature=0, ignore_eos=True).token_ids


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork(model):
    expected = model.generate(PROMPT, max_tokens=5, temperature=0).token_ids
    stream = model.stream(PROMPT, max_tokens=50, temperature=0)
    next(stream)
    stopped = model.stream(PROMPT, max_tokens=50, temperature=0)
    stopped.cancel()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            calls = [
                lambda: model.generate(PROMPT),
                lambda: model.stream(PROMPT),
                lambda: model.logits([5]),
                lambda: list(stream),
                lambda: model.session(),
            ]
            for code, call in enumerate(calls, start=2):
                try:
                    call()
                except clawdbot.ForkedRuntime:
                    continue
                os._exit(code)
            try:
                list(stopped)
                os._exit(21)
            except clawdbot.Cancelled:
                pass
            own = clawdbot.Model.from_pretrained()
            code = 0 if own.generate(PROMPT, max_tokens=5, temperature=0).token_ids == expected else 20
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0
    assert stream.finish().token_ids == model.generate(PROMPT, max_tokens=50, temperature=0).token_ids


def test_nothing_is_printed(capfd):
    with clawdbot.Model.from_pretrained() as own:
        own.generate([PROMPT, "One day"], max_tokens=5, temperature=0, logprobs=2)
        list(own.stream(PROMPT, max_tokens=3, temperature=0))
        own.logits([5])
        with pytest.raises(clawdbot.InvalidArgument):
            own.generate([10**6])
    with pytest.raises(clawdbot.NotFound):
        clawdbot.Model.from_pretrained("/nonexistent")
    assert capfd.readouterr() == ("", "")


def test_exit_while_threads_compute():
    """A program may end in the middle of a generation in a daemon thread."""
    program = """
import threading, time, clawdbot
model = clawdbot.Model.from_pretrained()
def run():
    while True:
        for event in model.stream("One day", max_tokens=900, temperature=0, ignore_eos=True):
            pass
for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
time.sleep(0.3)
kept = model.stream("One day", max_tokens=10, temperature=0)
next(kept)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
