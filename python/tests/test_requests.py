"""Many requests: a thread that computes, priorities, deadlines, a bounded queue, and what is counted."""

import time

import clawdbot
import pytest


@pytest.fixture
def runtime():
    return clawdbot.Runtime(threads=2, driver="thread")


def test_requests_advance_while_nobody_waits(runtime):
    model = runtime.load()
    session = model.session()
    session.append("Once upon a time")
    prompt = len(session.tokens)
    stream = session.stream(max_tokens=30, temperature=0, ignore_eos=True)
    deadline = time.monotonic() + 60
    while len(session.tokens) < prompt + 30:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert stream.finish().finish_reason == "length"
    expected = clawdbot.Model.from_pretrained().generate("Once upon a time", max_tokens=30, temperature=0, ignore_eos=True)
    assert session.tokens[prompt:] == expected.token_ids


def test_passes_change_while_requests_run(runtime):
    model = runtime.load(max_batch=4, prefill_chunk=8)
    expected = model.generate("Once", max_tokens=60, temperature=0, ignore_eos=True)
    stream = model.stream("Once", max_tokens=60, temperature=0, ignore_eos=True)
    for most in (1, 7, 64):
        model.set_max_batch(most)
        model.set_prefill_chunk(most)
        assert (model.max_batch, model.prefill_chunk) == (most, most)
        assert next(stream).kind in ("progress", "token")
    assert stream.finish().token_ids == expected.token_ids
    for call, most in ((model.set_max_batch, 4096), (model.set_prefill_chunk, 65536)):
        for wrong in (0, -1, 2**40):
            with pytest.raises(clawdbot.InvalidArgument, match=f"from 1 to {most}, found {wrong}"):
                call(wrong)
        with pytest.raises(TypeError):
            call("5")
    assert (model.max_batch, model.prefill_chunk) == (64, 64)
    paced = runtime.load(target_inter_token_ms=5)
    assert paced.generate("Once", max_tokens=60, temperature=0, ignore_eos=True).token_ids == expected.token_ids


def test_priority_group_and_deadline(runtime):
    model = runtime.load()
    late = model.generate("Once", max_tokens=900, ignore_eos=True, deadline_ms=0, priority=90, group="a")
    assert (late.finish_reason, late.token_ids) == ("deadline", [])
    assert late.options["priority"] == 90 and late.options["group"] == "a"
    for wrong in ({"priority": 101}, {"deadline_ms": -1}, {"group": 5}, {"group": "a" * 257}):
        with pytest.raises((clawdbot.InvalidArgument, clawdbot.UnknownOption), match=next(iter(wrong))):
            model.generate("Once", **wrong)


def test_a_full_queue_refuses():
    model = clawdbot.Runtime(threads=1).load(max_batch=1, max_queue=2)
    streams = [model.stream("Once", max_tokens=3) for _ in range(2)]
    with pytest.raises(clawdbot.Overloaded, match="max_queue") as refused:
        model.stream("Once", max_tokens=3)
    assert refused.value.detail["retry_after_ms"] > 0
    for stream in streams:
        stream.finish()
    assert model.generate("Once", max_tokens=3).token_ids


def test_guessed_tokens_change_no_result():
    runtime = clawdbot.Runtime(threads=2)
    plain, guessing = runtime.load(), runtime.load(speculation="ngram")
    prompt = [3 + i % 17 * 7 for i in range(90)]
    for options in ({"temperature": 0}, {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.2}):
        expected = plain.generate(prompt, max_tokens=80, ignore_eos=True, **options)
        found = guessing.generate(prompt, max_tokens=80, ignore_eos=True, **options)
        assert (found.token_ids, found.text) == (expected.token_ids, expected.text)
        assert (expected.options["speculation"], found.options["speculation"]) == ("none", "ngram")
        assert expected.usage.draft_tokens == 0
        assert found.usage.draft_tokens >= found.usage.accepted_tokens == sum(found.usage.accepted_by_position)
        assert len(found.usage.accepted_by_position) == 15
    assert found.usage.to_dict()["draft_tokens"] == found.usage.draft_tokens
    counted = runtime.metrics()["models"]
    assert counted[0]["draft_tokens"] == 0 < counted[1]["draft_tokens"] == sum(counted[1]["drafts_by_position"])
    assert guessing.generate(prompt, max_tokens=80, speculation="none").usage.draft_tokens == 0
    with pytest.raises(clawdbot.InvalidArgument, match="speculation"):
        plain.generate(prompt, speculation="tree")
    with pytest.raises(clawdbot.InvalidArgument, match="draft_model"):
        runtime.load(speculation="draft")
    with pytest.raises(clawdbot.InvalidArgument, match="without a draft_model"):
        plain.generate(prompt, speculation="draft")
    with pytest.raises(clawdbot.InvalidArgument, match="mtp needs a directory"):
        runtime.load(speculation="mtp")
    with pytest.raises(clawdbot.InvalidArgument, match="expected none or ngram, as the model was loaded without speculation mtp"):
        plain.generate(prompt, speculation="mtp")


def test_prompts_that_begin_the_same_and_metrics(runtime):
    model = runtime.load()
    prompt = [3 + i * 7 % 400 for i in range(100)]
    first = model.generate(prompt, max_tokens=5, temperature=0)
    again = model.generate(prompt, max_tokens=5, temperature=0)
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 99)
    assert first.token_ids == again.token_ids
    metrics = runtime.metrics()
    (counted,) = metrics["models"]
    assert counted["prompt_tokens"] == 200 and counted["cached_tokens"] == 99
    assert sum(counted["requests"].values()) == 2
    assert counted["time_to_first_token_seconds"]["count"] == 2
    assert len(metrics["histogram_bounds"]) + 1 == len(counted["queue_seconds"]["counts"])
    with pytest.raises(clawdbot.InvalidArgument, match="prefix_cache_bytes"):
        runtime.load(prefix_cache=False, prefix_cache_bytes=5)


def test_what_has_to_make_room_is_swapped(tmp_path):
    free = clawdbot.Model.from_pretrained()
    info = free.info
    fixed = free.runtime.memory_used
    runtime = clawdbot.Runtime(
        memory_budget=fixed + 640 * info["kv_bytes_per_token"] + (64 << 10),
        swap_space=64 << 20,
        swap_directory=tmp_path,
    )
    model = runtime.load()
    sessions = [model.session() for _ in range(6)]
    answers = []
    for start, session in enumerate(sessions):
        prompt = [3 + (start + i * 7) % 400 for i in range(200)]
        session.append(prompt)
        answers.append((prompt, session.generate(max_tokens=5, temperature=0).token_ids))
    assert answers == [(p, free.generate(p, max_tokens=5, temperature=0).token_ids) for p, _ in answers]
    (counts,) = runtime.metrics()["models"]
    assert counts["swap_outs"] > 0
    assert counts["swap_failures"] == 0
    assert runtime.metrics()["swap_used"] > 0
    with pytest.raises(clawdbot.InvalidArgument, match="swap_directory"):
        clawdbot.Runtime(swap_directory=tmp_path)
    with pytest.raises(clawdbot.NotFound):
        clawdbot.Runtime(swap_space=1 << 20, swap_directory=tmp_path / "none")


def test_prefixes_survive_a_restart(tmp_path):
    prompt = [3 + i * 7 % 400 for i in range(150)]
    cached = []
    for _ in range(2):
        with clawdbot.Runtime().load(prefix_cache=True, prefix_cache_dir=tmp_path) as model:
            cached.append(model.generate(prompt, max_tokens=2).usage.cached_tokens)
    # In the last page too, which is not full.
    assert cached == [0, 149]
    assert len(list(tmp_path.iterdir())) == 1
