"""LoRA adapters, and quantized directories."""

import pathlib
import shutil

import numpy as np
import pytest

import clawdbot

GOLDEN = pathlib.Path(__file__).parents[2] / "clawdbot-core" / "tests" / "golden"
TOKENS = [1, 7, 30, 4, 4, 19, 2, 11]


def copy(name, target):
    shutil.copytree(GOLDEN / name, target)
    shutil.copy(GOLDEN / "quantized" / "tokenizer.json", target)
    return target


def test_adapters_are_chosen_per_request(tmp_path):
    base = copy("adapters/base", tmp_path / "base")
    with clawdbot.Model.from_pretrained(base, weights="f32") as model:
        assert model.adapters == []
        plain = model.logits(TOKENS)
        model.load_adapter("some", GOLDEN / "adapters" / "some")
        model.load_adapter("all", str(GOLDEN / "adapters" / "everything"))
        assert model.adapters == ["all", "some"]
        assert (model.logits(TOKENS) == plain).all() and (model.logits(TOKENS, adapter=None) == plain).all()
        adapted = {name: model.logits(TOKENS, adapter=name) for name in ("all", "some")}
        assert not np.allclose(adapted["all"], plain) and not np.allclose(adapted["all"], adapted["some"])
        one = model.generate(TOKENS, adapter="some", max_tokens=4, temperature=0)
        assert one.options["adapter"] == "some"
        with pytest.raises(clawdbot.InvalidArgument, match="all, some"):
            model.generate(TOKENS, adapter="none", max_tokens=4)
        with pytest.raises(clawdbot.InvalidArgument, match='has an adapter "some" already; unload it first'):
            model.load_adapter("some", GOLDEN / "adapters" / "some")
        with pytest.raises(clawdbot.NotFound):
            model.load_adapter("other", tmp_path)
        model.unload_adapter("all")
        with pytest.raises(clawdbot.InvalidArgument):
            model.unload_adapter("all")
    merge = [str(GOLDEN / "adapters" / "everything")]
    with clawdbot.Model.from_pretrained(base, weights="f32", merge_adapters=merge) as merged:
        assert np.allclose(merged.logits(TOKENS), adapted["all"], atol=1e-3)


def test_quantized_directories_are_stored_by_default(tmp_path):
    model = clawdbot.Model.from_pretrained(copy("quantized/gptq4", tmp_path / "gptq"))
    assert model.info["weights"] == "stored"
    assert {stored["format"] for stored in model.info["stored"]} == {"BF16", "GPTQ int4/32"}
