"""Packed model files."""

import pytest

import clawdbot
from conftest import ASSETS

PROMPT = "Once upon a time"


def test_a_packed_file_is_the_model(model, tmp_path):
    runtime = clawdbot.Runtime()
    target = tmp_path / "model.clawdbot"
    calls = []
    size = runtime.pack(ASSETS, target, on_progress=lambda done, total: calls.append((done, total)))
    assert size == target.stat().st_size
    assert calls == sorted(calls) and calls[-1][0] == calls[-1][1]
    expected = model.generate(PROMPT, max_tokens=8, temperature=0).token_ids
    for path in (target, str(target)):
        for options in ({}, {"mmap": False}, {"verify": True}, {"weights": "int8"}):
            with clawdbot.Model.from_pretrained(path, **options) as packed:
                assert packed.generate(PROMPT, max_tokens=8, temperature=0).token_ids == expected
                assert packed.info["packed"] is True
    assert runtime.plan(target)["packed"] is True
    with pytest.raises(clawdbot.InvalidArgument, match="packed as int8"):
        runtime.load(target, weights="f32")


def test_files_are_kept_unless_told(tmp_path):
    runtime = clawdbot.Runtime()
    target = tmp_path / "m"
    target.write_text("mine")
    with pytest.raises(clawdbot.InvalidArgument, match="overwrite"):
        runtime.pack(None, target)
    with pytest.raises(clawdbot.Cancelled):
        runtime.pack(None, target, overwrite=True, on_progress=lambda done, total: False)

    def fail(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runtime.pack(None, target, overwrite=True, on_progress=fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"] and target.read_text() == "mine"
    runtime.pack(None, target, overwrite=True, weights="bf16")
    assert runtime.plan(target)["weights"] == "bf16"
    with pytest.raises(clawdbot.UnknownOption):
        runtime.pack(None, target, kv="bf16")
    with pytest.raises(clawdbot.InvalidArgument):
        runtime.pack(ASSETS, target, shape=clawdbot.SHAPES[0])


def test_calibration_takes_int4_and_enough_text(tmp_path):
    runtime = clawdbot.Runtime()
    target, text = tmp_path / "m", tmp_path / "text.txt"
    text.write_text("Once upon a time")
    with pytest.raises(clawdbot.InvalidArgument, match="expected weights int4 or int4-mixed, found int8") as refused:
        runtime.pack(None, target, calibrate=text)
    assert refused.value.detail["option"] == "calibrate"
    with pytest.raises(clawdbot.InvalidArgument, match="at least 4096 tokens, found 4"):
        runtime.pack(None, target, weights="int4", calibrate=text)
    with pytest.raises(clawdbot.NotFound):
        runtime.pack(None, target, weights="int4", calibrate=tmp_path / "none")
    messages = []
    told = clawdbot.Runtime(on_log=lambda level, message: messages.append(message))
    told.pack(None, target, weights="int4", calibrate="builtin")
    assert runtime.plan(target)["calibrated_tokens"] >= 4096
    assert any(message.endswith(": calibrating layer 1 of 4") for message in messages), messages
    runtime.pack(None, target, weights="int4-mixed", overwrite=True)
    plan = runtime.plan(target)
    assert (plan["weights"], plan["calibrated_tokens"]) == ("int4-mixed", None)


def test_a_cache_is_made_and_used(tmp_path):
    cache = tmp_path / "cache"
    expected = clawdbot.Model.from_pretrained(ASSETS).generate(PROMPT, max_tokens=8, temperature=0).token_ids
    for _ in range(2):
        with clawdbot.Model.from_pretrained(ASSETS, cache=str(cache)) as loaded:
            assert loaded.generate(PROMPT, max_tokens=8, temperature=0).token_ids == expected
        assert len(list(cache.iterdir())) == 1
