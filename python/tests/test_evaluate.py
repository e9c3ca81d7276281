"""How good a model is."""

import json

import pytest

import clawdbot
from conftest import ASSETS


def test_fewer_bits_are_farther_away():
    runtime = clawdbot.Runtime(threads=2)
    calls = []
    int8 = runtime.evaluate(sequences=2, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls) and calls[0][0] == 0 and calls[-1][0] == calls[-1][1]
    assert (int8["model"], int8["weights"], int8["kv"], int8["text"]) == ("builtin", "int8", "bf16", "builtin")
    assert (int8["sequences"], int8["predicted"]) == (2, int8["tokens"] - 2)
    assert int8["reference"]["weights"] == "f32" and int8["reference"]["dequantized"] is True
    int4 = runtime.evaluate(ASSETS, weights="int4", sequences=2)
    assert int8["kl_divergence"] < int4["kl_divergence"]
    assert int8["top1_agreement"] > int4["top1_agreement"] > 0.5
    assert [layer["layer"] for layer in int4["layers"]] == [0, 1, 2, 3, 4]
    f32 = runtime.evaluate(weights="f32", sequences=2)
    assert (f32["kl_divergence"], f32["top1_agreement"]) == (0.0, 1.0)
    assert f32["perplexity"] == int4["reference"]["perplexity"]
    json.dumps(int4)


def test_packed_files_say_what_they_are_compared_with(tmp_path):
    runtime = clawdbot.Runtime()
    packed, text = tmp_path / "model.clawdbot", tmp_path / "text.txt"
    text.write_text("Once upon a time there was a dog. It was big and red.")
    runtime.pack(ASSETS, packed, weights="int4")
    own = runtime.evaluate(packed, text=text)
    assert own["reference"]["description"] == "the packed file's own weights, dequantized, in f32"
    compared = runtime.evaluate(packed, text=text, reference_model=ASSETS)
    assert compared["reference"]["model"] == str(ASSETS)
    assert own["kl_divergence"] < compared["kl_divergence"]
    alone = runtime.evaluate(packed, text=str(text), reference="none")
    assert alone["perplexity"] == own["perplexity"]
    assert alone["reference"] is None and alone["kl_divergence"] is None and alone["layers"] == []


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    runtime = clawdbot.Runtime()
    with pytest.raises(clawdbot.Cancelled):
        runtime.evaluate(on_progress=lambda done, total: False)

    def fail(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runtime.evaluate(on_progress=fail)
    with pytest.raises(clawdbot.NotFound):
        runtime.evaluate(text=tmp_path / "none")
    with pytest.raises(clawdbot.InvalidArgument, match="option reference: expected one of f32, bf16, none"):
        runtime.evaluate(reference="int8")
    with pytest.raises(clawdbot.UnknownOption, match="sequences"):
        runtime.evaluate(sequence=2)
    with pytest.raises(clawdbot.OutOfBudget):
        clawdbot.Runtime(memory_budget=1 << 20).evaluate()
    with pytest.raises(clawdbot.InvalidArgument, match="a path or a shape"):
        runtime.evaluate(ASSETS, shape=clawdbot.SHAPES[0])
