"""Several models under names."""

import gc
import threading
import time

import pytest

import clawdbot

SMALL = {"max_batch": 4, "prefill_chunk": 32}
GREEDY = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}


def pool(models, **options):
    """With room for so many models, and some requests."""
    budget = clawdbot.Runtime().plan(**SMALL)["load_bytes"] * models + (1 << 20)
    return clawdbot.ModelPool(clawdbot.Runtime(threads=1, memory_budget=budget, **options))


def loaded(pool):
    return [model["name"] for model in pool.status() if model["state"] == "loaded"]


def test_models_are_loaded_when_asked_for_and_give_way():
    models = pool(2)
    for name in "abc":
        models.add(name, **SMALL)
    assert loaded(models) == []
    expected = clawdbot.Model.from_pretrained().generate("Once", **GREEDY)
    for name in "aba":
        with models.get(name) as model:
            assert model.generate("Once", **GREEDY).token_ids == expected.token_ids
        with pytest.raises(clawdbot.Closed):
            model.generate("Once")
    assert loaded(models) == ["a", "b"]
    c = models.get("c")
    assert loaded(models) == ["a", "c"]
    stream = models.get("a").stream("Once", **GREEDY)
    with pytest.raises(clawdbot.OutOfBudget) as refused:
        models.get("b")
    assert refused.value.detail["needed"] > 0
    waiting = threading.Thread(target=lambda: models.get("b", timeout=60).generate("Once", **GREEDY))
    waiting.start()
    stream.finish()
    del stream
    waiting.join()
    assert loaded(models) == ["b", "c"]
    assert not models.unload("c")
    c.close()
    assert models.unload("c")
    models.remove("b")
    assert [model["name"] for model in models.status()] == ["a", "c"]
    assert "a, c" in repr(models)


def test_instances_and_idle_models():
    models = pool(5, driver="thread")
    models.add("a", instances=[{"max_batch": 1}], idle_unload=0.05, **SMALL)
    handles = [models.get("a") for _ in range(2)]
    metrics = models.runtime.metrics()["models"]
    assert {model["id"] for model in metrics} == {model.info["id"] for model in handles}
    assert [model["pool_name"] for model in metrics] == ["a", "a"]
    assert models.status()[0]["users"] == [1, 1]
    assert sorted(model.max_batch for model in handles) == [1, 4]
    another = handles[0].instance(max_batch=2)
    assert another.max_batch == 2
    del handles
    deadline = time.monotonic() + 60
    while loaded(models):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert another.generate("Once", **GREEDY).token_ids


@pytest.mark.parametrize("timeout", [None, float("inf")])
def test_waiting_without_end(timeout):
    models = pool(1)
    for name in "ab":
        models.add(name, idle_unload=float("inf"), **SMALL)
    a = models.get("a")
    found = []
    waiting = threading.Thread(target=lambda: found.append(models.get("b", timeout=timeout)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive() and not found
    a.close()
    waiting.join()
    assert len(found) == 1 and loaded(models) == ["b"]


def test_wrong_arguments():
    models = pool(1)
    models.add("a")
    for wrong in ({"idle_unload": -1.0}, {"max_batch": 0}, {"instances": [{"max_batch": 0}]}):
        with pytest.raises(clawdbot.InvalidArgument):
            models.add("b", **wrong)
    for wrong in ({"instances": [5]}, {"instances": 5}, {"pin": "yes"}):
        with pytest.raises(TypeError):
            models.add("b", **wrong)
    with pytest.raises(clawdbot.UnknownOption):
        models.add("b", instances=[{"max_batc": 1}])
    with pytest.raises(clawdbot.InvalidArgument, match="already"):
        models.add("a")
    for call in (models.get, models.unload, models.remove):
        with pytest.raises(clawdbot.InvalidArgument, match=r"name of a model of the pool \(a\), found \"d\""):
            call("d")
    for wrong in (-1.0, float("nan"), float("-inf"), 1e300):
        with pytest.raises(clawdbot.InvalidArgument, match="timeout"):
            models.get("a", timeout=wrong)
        with pytest.raises(clawdbot.InvalidArgument, match="idle_unload"):
            models.add("b", idle_unload=wrong)
    with pytest.raises(TypeError, match="timeout: expected seconds"):
        models.get("a", timeout="1")
    with pytest.raises(TypeError, match="idle_unload: expected seconds"):
        models.add("b", idle_unload="1")


def test_a_stream_that_was_read_to_its_end_uses_no_model():
    models = pool(2)
    models.add("a", **SMALL)
    stream = models.get("a").stream("Once", max_tokens=3)
    gc.collect()
    assert models.status()[0]["users"] == [1]
    assert list(stream)
    [status] = models.status()
    assert set(status) == {"name", "state", "pin", "bytes", "users", "idle_seconds"}
    assert (status["users"], status["idle_seconds"] >= 0) == ([0], True)
    assert models.unload("a")
    # As any iterator that has ended.
    assert list(stream) == []
