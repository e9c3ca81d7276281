"""Loading, planning, runtimes, closing."""

import os
import pathlib
import sys

import pytest

import clawdbot
from conftest import ASSETS

PROMPT = "Once upon a time"


def test_a_directory_as_str_or_path(model):
    expected = model.generate(PROMPT, max_tokens=8, temperature=0).token_ids
    for path in (ASSETS, str(ASSETS)):
        with clawdbot.Model.from_pretrained(path) as loaded:
            assert loaded.generate(PROMPT, max_tokens=8, temperature=0).token_ids == expected
            assert loaded.info["name"] == str(ASSETS)


def test_info_and_repr(model):
    info = model.info
    for key in ("name", "architecture", "parameters", "weights", "kv", "max_context", "kernels", "threads"):
        assert info[key], key
    assert info["weights"] == "int8"
    assert info["vocab_size"] == 1024
    assert "builtin" in repr(model)
    assert "int8" in repr(model)


def test_weight_types():
    for weights, kv in (("f32", "f32"), ("bf16", "bf16"), ("int8", "bf16"), ("int4", "bf16")):
        with clawdbot.Model.from_pretrained(weights=weights, max_context=64, threads=1) as loaded:
            assert (loaded.info["weights"], loaded.info["kv"]) == (weights, kv)
            assert loaded.info["max_context"] == 64
            assert loaded.runtime.threads == 1
            assert loaded.generate(PROMPT, max_tokens=4, temperature=0).text


def test_defaults_are_those_that_are_documented():
    runtime = clawdbot.Runtime()
    documented = {"weights": "int8", "kv": "auto", "prefill_chunk": 512, "max_batch": 64, "merge_adapters": [], "mmap": True, "verify": False, "cache": False}
    assert runtime.plan() == runtime.plan(**documented) == runtime.plan(max_context=None)


def test_thread_count_changes_nothing(model):
    expected = model.generate(PROMPT, max_tokens=20, temperature=0).token_ids
    for threads in (1, 3):
        with clawdbot.Model.from_pretrained(threads=threads) as loaded:
            assert loaded.generate(PROMPT, max_tokens=20, temperature=0).token_ids == expected


def test_kernels_can_be_chosen():
    chosen = clawdbot.Runtime().kernels
    assert clawdbot.Runtime(kernels=chosen).kernels == chosen
    with clawdbot.Model.from_pretrained(kernels=chosen) as loaded:
        assert loaded.info["kernels"] == chosen


def test_log_hooks_are_functions():
    for call in (clawdbot.Runtime, clawdbot.Model.from_pretrained):
        with pytest.raises(TypeError, match="on_log: expected a function of level and message, found int"):
            call(on_log=5)
    with pytest.raises(clawdbot.InvalidArgument, match="on_log: a runtime was given"):
        clawdbot.Model.from_pretrained(runtime=clawdbot.Runtime(), on_log=print)
    seen = []
    with clawdbot.Model.from_pretrained(on_log=lambda level, message: seen.append((level, message))) as loaded:
        bos = loaded.tokenizer.id_to_token(loaded.tokenizer.encode("a")[0])
        loaded.generate(f"{bos}Once", max_tokens=2, temperature=0)
    assert any(level == "info" and "beginning-of-sequence" in message for level, message in seen), seen


def test_misspelt_switches_make_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("false", "True", "tru"):
        with pytest.raises(clawdbot.InvalidArgument, match="option cache: expected true, false or a directory"):
            clawdbot.Model.from_pretrained(ASSETS, cache=word)
    assert not list(tmp_path.iterdir())


def test_a_runtime_is_shared_and_budgeted():
    runtime = clawdbot.Runtime(threads=1, memory_budget=1 << 30)
    assert (runtime.threads, runtime.memory_budget, runtime.memory_used) == (1, 1 << 30, 0)
    assert runtime.kernels in repr(runtime)
    plan = runtime.plan()
    assert runtime.memory_used == 0
    first = runtime.load()
    used = runtime.memory_used
    assert used >= plan["weights_bytes"]
    second = clawdbot.Model.from_pretrained(runtime=runtime)
    assert runtime.memory_used > used
    second.close()
    first.close()
    assert runtime.memory_used == 0


def test_over_budget():
    runtime = clawdbot.Runtime(memory_budget=1000)
    assert runtime.plan()["load_bytes"] > 1000
    assert (runtime.plan()["memory_budget"], runtime.plan()["fits"]) == (1000, False)
    assert clawdbot.Runtime().plan()["fits"] is True
    with pytest.raises(clawdbot.OutOfBudget) as caught:
        runtime.load()
    assert caught.value.detail
    with pytest.raises(clawdbot.OutOfBudget):
        clawdbot.Model.from_pretrained(memory_budget=1000)


def test_plans_of_shapes():
    runtime = clawdbot.Runtime()
    for shape in clawdbot.SHAPES:
        assert runtime.plan(shape=shape)["parameters"] > 10**8, shape
    with pytest.raises(clawdbot.InvalidArgument, match="llama-3.2-1b"):
        runtime.plan(shape="gpt-9")
    with pytest.raises(clawdbot.InvalidArgument, match="both"):
        runtime.plan(ASSETS, shape="llama-3.2-1b")
    with pytest.raises(clawdbot.OutOfBudget):
        clawdbot.Model.from_shape("llama-3.1-8b", memory_budget=1000)


def test_progress_is_reported():
    seen = []
    clawdbot.Model.from_pretrained(on_progress=lambda done, total: seen.append((done, total))).close()
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_progress_cancels():
    with pytest.raises(clawdbot.Cancelled):
        clawdbot.Model.from_pretrained(on_progress=lambda done, total: False)

    def fail(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        clawdbot.Runtime().load(on_progress=fail)


def test_log_hook(monkeypatch):
    records = []
    runtime = clawdbot.Runtime(threads=1, on_log=lambda level, message: records.append((level, message)))
    runtime.load().close()
    assert {level for level, _ in records} <= {"info", "warning"}
    assert any(runtime.kernels in message for _, message in records)
    assert any("loaded" in message for _, message in records)


def test_what_a_log_hook_raises_is_not_lost(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def fail(level, message):
        raise RuntimeError("in the hook")

    clawdbot.Runtime(on_log=fail).load().close()
    assert unraisable
    assert str(unraisable[0].exc_value) == "in the hook"
    assert unraisable[0].object is fail


@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        ({"weights": "int9"}, clawdbot.InvalidArgument, "weights"),
        ({"kv": 5}, clawdbot.InvalidArgument, "kv"),
        ({"max_context": 0}, clawdbot.InvalidArgument, "max_context"),
        ({"max_context": 10**6}, clawdbot.InvalidArgument, "max_context"),
        ({"prefill_chunk": -1}, clawdbot.InvalidArgument, "prefill_chunk"),
        ({"max_batch": 0}, clawdbot.InvalidArgument, "max_batch"),
        ({"threads": 0}, clawdbot.InvalidArgument, "threads"),
        ({"threads": "many"}, clawdbot.InvalidArgument, "threads"),
        ({"memory_budget": -1}, clawdbot.InvalidArgument, "memory_budget"),
        ({"kernels": "z80"}, clawdbot.InvalidArgument, "z80"),
        ({"thread": 1}, clawdbot.UnknownOption, 'did you mean "threads"'),
        ({"revison": None}, clawdbot.UnknownOption, 'did you mean "revision"'),
        ({"chat_template": "bad.j2"}, clawdbot.InvalidArgument, 'chat_template: expected the text of a Jinja template.*found "bad.j2"'),
        ({"chat_template": ASSETS / "x.jinja"}, clawdbot.InvalidArgument, "not its name"),
        ({"merge_adapters": [ASSETS / "none"]}, clawdbot.NotFound, "none"),
        ({"merge_adapters": ASSETS}, clawdbot.InvalidArgument, "merge_adapters: expected a list of paths"),
    ],
)
def test_bad_options(options, expected, message):
    with pytest.raises(expected, match=message):
        clawdbot.Model.from_pretrained(**options)


def test_paths_are_options_too(directory, tmp_path):
    for cache in (tmp_path / "a", str(tmp_path / "b")):
        clawdbot.Model.from_pretrained(directory, cache=cache).close()
        assert list(pathlib.Path(cache).iterdir())


def test_bad_calls():
    with pytest.raises(clawdbot.InvalidArgument, match="runtime"):
        clawdbot.Model.from_pretrained(runtime=clawdbot.Runtime(), threads=1)
    with pytest.raises(clawdbot.UnknownOption):
        clawdbot.Runtime().load(threads=1)
    with pytest.raises(clawdbot.UnknownOption):
        clawdbot.Runtime().plan(nonsense=1)
    with pytest.raises(clawdbot.InvalidArgument):
        clawdbot.Runtime(threads=0)
    with pytest.raises(TypeError):
        clawdbot.Model.from_pretrained(5)
    with pytest.raises(TypeError):
        clawdbot.Model()


def test_bad_directories(directory, edit_json, tmp_path):
    with pytest.raises(clawdbot.NotFound) as caught:
        clawdbot.Model.from_pretrained(tmp_path / "none")
    assert caught.value.detail["path"] == str(tmp_path / "none")
    with pytest.raises(clawdbot.InvalidArgument):
        clawdbot.Model.from_pretrained(directory / "config.json")
    edit_json(directory / "config.json", architectures=["Unheard"])
    with pytest.raises(clawdbot.UnsupportedModel, match="Unheard"):
        clawdbot.Model.from_pretrained(directory)


def test_damaged_files(directory):
    weights = directory / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(clawdbot.InvalidModel):
        clawdbot.Model.from_pretrained(directory)
    (directory / "tokenizer.json").write_text("[]")
    with pytest.raises(clawdbot.InvalidTokenizer):
        clawdbot.Model.from_pretrained(directory)


def test_closed_model():
    with clawdbot.Model.from_pretrained() as own:
        runtime, session = own.runtime, own.session()
        tokenizer = own.tokenizer
        own.generate(PROMPT, max_tokens=1, temperature=0)
    own.close()
    calls = [
        lambda: own.generate(PROMPT),
        lambda: own.generate([PROMPT, PROMPT]),
        lambda: own.stream(PROMPT),
        lambda: own.chat([]),
        lambda: own.render_chat([]),
        lambda: own.logits([5]),
        lambda: own.session(),
        lambda: own.tokenizer,
    ]
    for call in calls:
        with pytest.raises(clawdbot.Closed, match="model"):
            call()
    assert own.info["vocab_size"] == 1024
    assert tokenizer.encode("dog")
    assert runtime.memory_used >= own.info["weights_bytes"], "the session keeps the weights"
    session.close()
    assert runtime.memory_used == 0


def test_streams_and_instances_keep_the_weights():
    own = clawdbot.Model.from_pretrained()
    runtime, weights = own.runtime, own.info["weights_bytes"]
    stream, ended = (own.stream(PROMPT, max_tokens=2, temperature=0) for _ in range(2))
    instance = own.instance()
    assert len(list(ended)) > 2
    own.close()
    assert "weights" in clawdbot.Model.close.__doc__
    assert instance.generate(PROMPT, max_tokens=1).token_ids
    instance.close()
    assert runtime.memory_used >= weights, "the stream that was not read keeps the weights"
    # The completion is its last event.
    assert list(stream)[-1].completion is not None
    assert runtime.memory_used == 0
    assert list(ended) == list(stream) == []


def test_close_ends_a_running_stream():
    own = clawdbot.Model.from_pretrained()
    stream = own.stream(PROMPT, max_tokens=900, temperature=0, ignore_eos=True)
    next(stream)
    own.close()
    assert stream.finish().finish_reason == "cancelled"


def test_memory_nodes_change_nothing(model):
    expected = model.generate(PROMPT, max_tokens=10, temperature=0).token_ids
    for numa in ("off", "interleave", "local"):
        try:
            runtime = clawdbot.Runtime(threads=2, numa=numa)
        except clawdbot.InvalidArgument as error:
            # A system that has no nodes, or does not let programs choose.
            assert numa != "off" and error.detail["option"] == "numa"
            continue
        with runtime.load() as loaded:
            assert loaded.generate(PROMPT, max_tokens=10, temperature=0).token_ids == expected
    with pytest.raises(clawdbot.InvalidArgument, match="one of off, interleave, local"):
        clawdbot.Model.from_pretrained(numa="near")
