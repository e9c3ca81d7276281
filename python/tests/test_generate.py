"""Prompts, options, completions, batches."""

import inspect
import itertools
import json
import math
import pickle
import re

import numpy as np
import pytest

import clawdbot

PROMPT = "Once upon a time"


def test_completion_is_complete(model):
    completion = model.generate(PROMPT, max_tokens=12, temperature=0)
    assert completion.text
    assert len(completion.token_ids) == completion.usage.completion_tokens <= 12
    assert completion.finish_reason in ("length", "stop")
    assert completion.logprobs is None
    assert str(completion) == completion.text
    usage = completion.usage
    assert usage.prompt_tokens == len(model.tokenizer.encode(PROMPT))
    assert usage.cached_tokens == 0
    assert usage.prefill_seconds > 0
    assert usage.decode_seconds > 0
    assert usage.time_to_first_token == pytest.approx(usage.queue_seconds + usage.prefill_seconds)
    assert usage.prefill_tokens_per_s > 0
    assert usage.decode_tokens_per_s > 0
    assert f"completion_tokens={usage.completion_tokens}" in repr(usage)
    assert "finish_reason=" in repr(completion)


@pytest.mark.parametrize("convert", [list, tuple, np.array, lambda ids: np.array(ids, dtype=np.uint16)])
def test_ids_equal_text(model, convert):
    ids = model.tokenizer.encode(PROMPT)
    expected = model.generate(PROMPT, max_tokens=8, temperature=0).token_ids
    assert model.generate(convert(ids), max_tokens=8, temperature=0).token_ids == expected


def test_range_is_a_sequence_of_ids(model):
    assert model.generate(range(5, 9), max_tokens=3, temperature=0).token_ids == model.generate([5, 6, 7, 8], max_tokens=3, temperature=0).token_ids


def test_batch_equals_singles(model):
    prompts = [PROMPT, "One day", "The dog", "A little girl named Lily"]
    options = {"max_tokens": 16, "temperature": 0.9, "seed": 7, "logprobs": 2}
    batch = model.generate(prompts, options)
    assert isinstance(batch, list)
    for prompt, completion in zip(prompts, batch, strict=True):
        single = model.generate(prompt, options)
        assert single.token_ids == completion.token_ids
        assert single.text == completion.text
        assert [p.chosen.logprob for p in single.logprobs] == [p.chosen.logprob for p in completion.logprobs]


def test_batches_from_iterators(model):
    options = {"max_tokens": 3, "temperature": 0}
    texts = [PROMPT, "One day"]
    expected = model.generate(texts, options)
    for batch in (iter(texts), (text for text in texts), dict(enumerate(texts)).values(), dict.fromkeys(texts).keys()):
        assert model.generate(batch, options) == expected
    ids = [model.tokenizer.encode(text) for text in texts]
    assert model.generate((iter(row) for row in ids), options) == expected
    assert model.generate(iter(ids[0]), options) == expected[0]
    assert model.generate(iter(texts), iter([options, options])) == expected
    with pytest.raises(clawdbot.InvalidArgument, match="iterator of at most"):
        model.generate(itertools.repeat(5), options)
    with pytest.raises(clawdbot.InvalidArgument, match="one for each of 2 prompts"):
        model.generate(texts, itertools.repeat(options))
    with pytest.raises(clawdbot.InvalidArgument, match="at most"):
        model.generate(PROMPT, stop_token_ids=itertools.repeat(5))
    assert model.generate(PROMPT, options, stop=iter(["xyz"])) == expected[0]


def test_batches_of_ids(model):
    rows = [[5, 6, 7], [8, 9, 10]]
    expected = [model.generate(row, max_tokens=4, temperature=0).token_ids for row in rows]
    arrays = [np.array(row) for row in rows]
    for batch in (rows, tuple(rows), np.array(rows), arrays):
        assert [c.token_ids for c in model.generate(batch, max_tokens=4, temperature=0)] == expected
    assert len(model.generate([PROMPT], max_tokens=2, temperature=0)) == 1
    assert len(model.generate([PROMPT, [5, 6]], max_tokens=2, temperature=0)) == 2


def test_batch_larger_than_max_batch():
    with clawdbot.Model.from_pretrained(max_batch=2, prefill_chunk=4) as small:
        prompts = ["One day"] * 5 + ["The dog"]
        texts = [completion.text for completion in small.generate(prompts, max_tokens=6, temperature=0)]
        assert texts[:5] == [texts[0]] * 5
        assert texts[5] == small.generate("The dog", max_tokens=6, temperature=0).text


def test_seed_decides(model):
    sample = lambda seed: model.generate(PROMPT, max_tokens=24, temperature=1.2, seed=seed).token_ids
    assert sample(3) == sample(3)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1


def test_drawn_seed_is_reported_and_repeats(model):
    first = model.generate(PROMPT, max_tokens=16, temperature=1.0)
    again = model.generate(PROMPT, max_tokens=16, temperature=1.0, seed=first.options["seed"])
    assert again.token_ids == first.token_ids


def test_options_are_echoed_and_can_be_given_again(model):
    first = model.generate(PROMPT, max_tokens=5, temperature=0.5, top_k=10, seed=1, stop="xyz", logit_bias={3: -1.5})
    echo = first.options
    assert echo["max_tokens"] == 5
    assert echo["temperature"] == 0.5
    assert echo["stop"] == ["xyz"]
    assert echo["logit_bias"] == {"3": -1.5}
    assert model.generate(PROMPT, echo).token_ids == first.token_ids
    assert model.generate(PROMPT, echo, max_tokens=3).token_ids == first.token_ids[:3]


def test_none_is_the_default(model):
    nothing = dict.fromkeys(clawdbot.GENERATE_OPTIONS)
    nothing |= {"max_tokens": 6, "temperature": 0}
    assert model.generate(PROMPT, **nothing).token_ids == model.generate(PROMPT, max_tokens=6, temperature=0).token_ids


def test_stop_texts_and_tokens(model):
    full = model.generate(PROMPT, max_tokens=20, temperature=0)
    word = full.text.split()[3]
    for stop in (word, [word], ("never there", word)):
        stopped = model.generate(PROMPT, max_tokens=20, temperature=0, stop=stop)
        assert stopped.text == full.text[: full.text.index(word)]
        assert stopped.finish_reason == "stop"
    by_id = model.generate(PROMPT, max_tokens=20, temperature=0, stop_token_ids=[full.token_ids[4]])
    assert by_id.finish_reason == "stop"
    assert len(by_id.token_ids) <= 5


def test_logit_bias_bans_and_forces(model):
    first = model.generate(PROMPT, max_tokens=1, temperature=0).token_ids[0]
    assert model.generate(PROMPT, max_tokens=1, temperature=0, logit_bias={first: -100}).token_ids[0] != first
    assert model.generate(PROMPT, max_tokens=3, temperature=0, logit_bias={42: 1000.0}).token_ids == [42, 42, 42]
    assert model.generate(PROMPT, max_tokens=1, temperature=0, logit_bias={np.int64(42): 1000}).token_ids == [42]


def test_numbers_and_lists_of_other_libraries(model):
    expected = model.generate([5, 6, 7], max_tokens=3, temperature=0.5, seed=3, stop_token_ids=[9, 10])
    for options in (
        {"max_tokens": np.int64(3), "temperature": np.float32(0.5), "seed": np.uint8(3), "stop_token_ids": {9, 10}},
        {"max_tokens": np.array(3), "temperature": np.array(0.5), "seed": 3, "stop_token_ids": range(9, 11)},
        {"max_tokens": 3, "temperature": np.float64(0.5), "seed": 3, "stop_token_ids": np.array([9, 10])},
        {"max_tokens": 3, "temperature": 0.5, "seed": 3, "stop_token_ids": {9: 1, 10: 1}.keys(), "ignore_eos": np.bool_(False)},
    ):
        assert model.generate([5, 6, 7], **options).token_ids == expected.token_ids
    for ids in (range(5, 8), np.array([5, 6, 7]), [np.int64(5), np.array(6), 7], (5, 6, 7)):
        assert model.generate(ids, max_tokens=3, temperature=0.5, seed=3).token_ids == expected.token_ids
        assert model.tokenizer.decode(ids) == model.tokenizer.decode([5, 6, 7])
    word = model.generate(PROMPT, max_tokens=20, temperature=0).text.split()[3]
    for stop in ({word}, frozenset([word]), np.array([word]), np.str_(word)):
        assert model.generate(PROMPT, max_tokens=20, temperature=0, stop=stop).finish_reason == "stop"
    texts = [completion.text for completion in model.generate(np.array([PROMPT, "One day"]), max_tokens=3, temperature=0)]
    assert texts == [model.generate(text, max_tokens=3, temperature=0).text for text in (PROMPT, "One day")]
    assert model.generate(np.array(PROMPT), max_tokens=3, temperature=0).text == texts[0]
    with pytest.raises(TypeError, match="set"):
        model.generate({5, 6}, max_tokens=1)


def test_results_are_plain_data(model):
    first = model.generate(PROMPT, max_tokens=3, temperature=0, logprobs=2, seed=1)
    events = list(model.stream(PROMPT, max_tokens=3, temperature=0, logprobs=2, seed=1))
    for value in (first, first.usage, first.logprobs[0], first.logprobs[0].chosen, *events):
        assert pickle.loads(pickle.dumps(value)) == value
        assert pickle.loads(pickle.dumps(value)).to_dict() == value.to_dict()
        assert type(value)(value.to_dict()) == value
        assert type(value)(json.loads(value.to_json())) == value
        assert value != 5
        with pytest.raises(clawdbot.InvalidArgument, match=type(value).__name__):
            type(value)({"nonsense": 1})
    fields = first.to_dict()
    assert list(fields) == [
        "text", "reasoning", "tool_calls", "warnings", "token_ids", "finish_reason", "usage", "logprobs",
        "prompt_logprobs",
        "alternatives", "options",
    ]
    assert fields["usage"]["completion_tokens"] == 3
    assert fields["logprobs"][0] == first.logprobs[0].to_dict()
    assert fields["options"] == first.options
    assert events[0].to_dict()["kind"] == events[0].kind
    other = model.generate(PROMPT, max_tokens=2, temperature=0)
    assert first != other
    assert first.logprobs[0] == events[[event.kind for event in events].index("token")].logprobs


def test_reasoning_is_told_from_the_answer(model):
    prompt, options = PROMPT + " <think>", {"max_tokens": 8, "temperature": 0}
    raw = model.generate(prompt, **options)
    assert (raw.reasoning, raw.tool_calls, raw.warnings) == ("", [], [])
    read = model.generate(prompt, **options, reasoning_format="think")
    assert (read.text, read.reasoning, read.token_ids) == ("", raw.text.strip(), raw.token_ids)
    assert (raw.options["reasoning_format"], read.options["reasoning_format"]) == ("none", "think")
    events = list(model.stream(prompt, **options, reasoning_format="think"))
    assert "".join(event.text for event in events if event.kind == "reasoning") == read.reasoning
    assert sum(event.kind == "token" for event in events) == 8
    for event in events:
        assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(clawdbot.InvalidArgument, match="option tool_format: expected one of auto, none, .*hermes.*, found \"x\""):
        model.generate(PROMPT, tool_format="x")


def test_tool_calls_are_plain_data():
    fields = {"index": 0, "id": "abc", "name": "f", "arguments": '{"a":1}'}
    call = clawdbot.ToolCall(fields)
    assert (call.index, call.id, call.name, call.arguments) == (0, "abc", "f", '{"a":1}')
    assert (call.to_dict(), json.loads(call.to_json()), pickle.loads(pickle.dumps(call))) == (fields, fields, call)
    assert repr(call) == 'ToolCall(id="abc", name="f", arguments="{\\"a\\":1}")'
    event = clawdbot.Event({"kind": "tool_call", **fields})
    assert (event.kind, event.tool_call, event.text) == ("tool_call", call, None)
    assert repr(event).startswith("Event(kind='tool_call', tool_call=ToolCall(")
    for fields in ({**fields, "arguments": '{"a'}, {"index": 0, "id": None, "name": None, "arguments": '":1}'}):
        delta = clawdbot.ToolCallDelta(fields)
        assert (delta.index, delta.id, delta.name, delta.arguments) == tuple(fields.values())
        assert (delta.to_dict(), pickle.loads(pickle.dumps(delta))) == (fields, delta)
        event = clawdbot.Event({"kind": "tool_call_delta", **fields})
        assert (event.kind, event.tool_call_delta, event.tool_call) == ("tool_call_delta", delta, None)
        assert repr(event) == f"Event(kind='tool_call_delta', tool_call_delta={delta!r})"


@pytest.mark.parametrize(("field", "bad"), [("text", None), ("token_ids", "x"), ("finish_reason", "tired"), ("usage", {}), ("options", [])])
def test_a_bad_field_is_named(model, field, bad):
    completion = model.generate(PROMPT, max_tokens=1, temperature=0)
    for cls, fields in (
        (clawdbot.Completion, {**completion.to_dict(), field: bad}),
        (clawdbot.Event, {"kind": "done", "completion": {**completion.to_dict(), field: bad}}),
    ):
        with pytest.raises(clawdbot.InvalidArgument, match=f"Completion: field {field}: expected .*, found ") as caught:
            cls(fields)
        assert caught.value.detail["field"] == field


def test_a_minimum_that_cannot_be_reached_is_refused(model):
    for call in (model.generate, model.stream):
        with pytest.raises(clawdbot.InvalidArgument, match="min_tokens: expected at most max_tokens, 3, found 4"):
            call(PROMPT, max_tokens=3, min_tokens=4)
    assert len(model.generate(PROMPT, max_tokens=3, min_tokens=3, temperature=0).token_ids) == 3
    with pytest.raises(clawdbot.ContextOverflow, match="at least 100000 to generate"):
        model.generate(PROMPT, min_tokens=100_000)


def test_completions_are_equal_by_content(model):
    first, second = (model.generate(PROMPT, max_tokens=3, temperature=0) for _ in range(2))
    assert first.usage != second.usage
    assert first == second
    assert first == model.generate(PROMPT, max_tokens=3, top_k=1, temperature=0.5)
    assert first != model.generate(PROMPT, max_tokens=3, temperature=0, logprobs=1)
    assert first != model.generate(PROMPT, max_tokens=2, temperature=0)
    for value in (first, first.usage):
        assert set(value.to_dict()) == {name for name in dir(value) if not name.startswith(("_", "to_"))}
    usage = first.usage
    assert usage.to_dict()["time_to_first_token"] == usage.time_to_first_token
    assert json.loads(first.to_json())["usage"] == usage.to_dict()


def test_ignore_eos(model):
    eos = model.info["eos_token_ids"][0]
    forced = {"max_tokens": 5, "logit_bias": {eos: 1000}}
    assert model.generate(PROMPT, forced).token_ids == [eos]
    assert model.generate(PROMPT, forced, ignore_eos=True).token_ids == [eos] * 5
    assert model.generate(PROMPT, forced, ignore_eos=True, skip_special_tokens=False).text
    assert model.generate(PROMPT, forced, ignore_eos=True).text == ""


def test_logprobs(model):
    completion = model.generate(PROMPT, max_tokens=4, temperature=0, logprobs=3)
    assert len(completion.logprobs) == len(completion.token_ids)
    for token, entry in zip(completion.token_ids, completion.logprobs, strict=True):
        assert entry.chosen.id == token == entry.top[0].id, "greedy takes the most likely"
        assert len(entry.top) == 3
        assert 0 >= entry.top[0].logprob >= entry.top[1].logprob >= entry.top[2].logprob
        assert sum(math.exp(top.logprob) for top in entry.top) <= 1 + 1e-6
    assert "chosen=TokenLogprob(id=" in repr(completion.logprobs[0])


def test_logits(model):
    ids = model.tokenizer.encode(PROMPT)
    logits = model.logits(ids)
    assert logits.shape == (len(ids), model.info["vocab_size"])
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert logits[-1].argmax() == model.generate(PROMPT, max_tokens=1, temperature=0).token_ids[0]
    assert (model.logits(np.array(ids)) == logits).all()
    first = model.generate(PROMPT, max_tokens=1, temperature=0, logprobs=1).logprobs[0].chosen
    row = logits[-1].astype(np.float64)
    assert first.logprob == pytest.approx(row[first.id] - np.logaddexp.reduce(row), abs=1e-4)


def test_logits_outlive_the_model():
    with clawdbot.Model.from_pretrained() as own:
        logits = own.logits([5, 6])
        copy = logits.copy()
    del own
    assert (logits == copy).all()
    logits[0, 0] = 1.0
    assert logits[0, 0] == 1.0


def test_special_tokens_option(model):
    with_bos = model.generate(PROMPT, max_tokens=1, temperature=0).usage.prompt_tokens
    without = model.generate(PROMPT, max_tokens=1, temperature=0, add_special_tokens=False).usage.prompt_tokens
    assert without == len(model.tokenizer.encode(PROMPT, add_special_tokens=False))
    assert with_bos >= without


@pytest.mark.parametrize(
    ("prompt", "expected", "message"),
    [
        (None, TypeError, "prompt: expected str"),
        (1.5, TypeError, "float"),
        (b"bytes", TypeError, "bytes"),
        ({"a": 1}, TypeError, "dict"),
        ([1.5], TypeError, r"prompt\[0\]"),
        ([1, "x"], TypeError, r"prompt\[1\]"),
        ([1, True], TypeError, r"prompt\[1\]"),
        (["x", 1], TypeError, r"prompt\[1\]"),
        ([[1], None], TypeError, r"prompt\[1\]"),
        (np.array([1.0]), TypeError, r"prompt\[0\]"),
        ([], clawdbot.InvalidArgument, "empty sequence"),
        ([-1], clawdbot.InvalidArgument, r"prompt\[0\]"),
        ([2**32], clawdbot.InvalidArgument, r"prompt\[0\]"),
        ([999_999], clawdbot.InvalidArgument, "vocabulary"),
        ("\ud800", clawdbot.InvalidUtf8, "prompt"),
        ("word " * 3000, clawdbot.ContextOverflow, "context"),
    ],
)
def test_bad_prompts(model, prompt, expected, message):
    with pytest.raises(expected, match=message):
        model.generate(prompt, max_tokens=2, temperature=0)


def test_a_bad_prompt_fails_alone(model):
    prompts = [PROMPT, [999_999], "One day", "\ud800", None, "word " * 3000]
    options = {"max_tokens": 4, "temperature": 0}
    kinds = [None, clawdbot.InvalidArgument, None, clawdbot.InvalidUtf8, TypeError, clawdbot.ContextOverflow]
    results = model.generate(prompts, options, return_exceptions=True)
    for result, kind in zip(results, kinds, strict=True):
        assert isinstance(result, clawdbot.Completion if kind is None else kind), result
    assert results[1].detail["prompt"] == 1
    assert results[5].detail["prompt"] == 5
    assert results[3].detail["prompt"] == 3
    for i in (1, 3, 4, 5):
        assert str(results[i]).startswith(f"prompt[{i}]: ")
    with pytest.raises(clawdbot.InvalidArgument, match="^expected"):
        model.generate(prompts[1], options)
    assert results[2].token_ids == model.generate("One day", options).token_ids
    with pytest.raises(clawdbot.InvalidArgument) as caught:
        model.generate(prompts, options)
    assert caught.value.results[1] is caught.value
    assert caught.value.results[2].token_ids == results[2].token_ids
    assert [type(result) for result in caught.value.results] == [type(result) for result in results]
    alone = model.generate([999_999], options, return_exceptions=True)
    assert isinstance(alone, clawdbot.InvalidArgument)
    assert isinstance(model.generate(PROMPT, options, return_exceptions=True), clawdbot.Completion)


def test_options_for_each_prompt(model):
    each = [{"max_tokens": 2}, None, {"max_tokens": 3, "ignore_eos": True}, {"max_tokenz": 3}, 5]
    results = model.generate([PROMPT] * 5, each, temperature=0, return_exceptions=True)
    assert [len(result.token_ids) for result in results[:3:2]] == [2, 3]
    assert results[1].options["max_tokens"] > 100
    assert isinstance(results[3], clawdbot.UnknownOption)
    assert results[3].detail["suggestion"] == "max_tokens" and results[3].detail["prompt"] == 3
    assert isinstance(results[4], TypeError)
    for i in (3, 4):
        assert str(results[i]).startswith(f"prompt[{i}]: ")
    with pytest.raises(clawdbot.InvalidArgument, match="one for each of 2 prompts, found a list of 5"):
        model.generate([PROMPT] * 2, each)
    with pytest.raises(TypeError, match="options"):
        model.generate(PROMPT, [{}])


def test_the_bad_prompt_of_a_batch_is_named(model):
    with pytest.raises(clawdbot.InvalidArgument) as caught:
        model.generate([[5], [6], [999_999]], max_tokens=2, temperature=0)
    assert caught.value.detail["prompt"] == 2
    assert caught.value.detail["token"] == 999_999


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", 2**70),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", math.nan),
        ("max_tokens", math.nan),
        ("suppress_tokens", [2**70]),
        ("logit_bias", {1: math.inf}),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -1),
        ("typical_p", 0),
        ("repetition_penalty", 0),
        ("logprobs", 65),
        ("stop", [""]),
        ("stop", 5),
        ("seed", -1),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", [1]),
        ("stop_token_ids", [10**6]),
        ("ignore_eos", "yes"),
    ],
)
def test_bad_option_values(model, name, value):
    for call in (model.generate, model.stream):
        with pytest.raises(clawdbot.InvalidArgument, match=f"{name}: expected .*, found ") as caught:
            call(PROMPT, **{name: value})
        assert caught.value.detail["option"] == name
        assert {"expected", "found"} <= caught.value.detail.keys()
        assert not re.search(r"\b[uif](32|64)\b|Vec|Option<|sequence|invalid type", str(caught.value))


CALLS = [
    (clawdbot.Model.from_pretrained, ()),
    (clawdbot.Model.from_shape, ("llama-3.2-1b",)),
    (clawdbot.Runtime.load, (clawdbot.Runtime(),)),
    (clawdbot.Runtime, ()),
    (clawdbot.download, ("a/b",)),
    (clawdbot.Runtime.download, (clawdbot.Runtime(), "a/b")),
    (clawdbot.Runtime.plan, (clawdbot.Runtime(),)),
    (clawdbot.ModelPool.add, (clawdbot.ModelPool(clawdbot.Runtime()), "name")),
    (clawdbot.Runtime.pack, (clawdbot.Runtime(), None, "never-written")),
    (clawdbot.Runtime.evaluate, (clawdbot.Runtime(),)),
    (clawdbot.Model.generate, ("model", PROMPT)),
    (clawdbot.Model.stream, ("model", PROMPT)),
    (clawdbot.Model.chat, ("model", [])),
    (clawdbot.Model.chat_stream, ("model", [])),
    (clawdbot.Model.generate_async, ("model", PROMPT)),
    (clawdbot.Model.chat_async, ("model", [])),
    (clawdbot.Model.embed, ("model", [])),
    (clawdbot.Model.rerank, ("model", "", [])),
    (clawdbot.Session.append, ("session", "a")),
    (clawdbot.Session.generate, ("session",)),
    (clawdbot.Session.stream, ("session",)),
    (clawdbot.Session.chat, ("session", [])),
    (clawdbot.Session.chat_stream, ("session", [])),
]


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_slips_find_options_and_arguments(model, call, arguments):
    first = {"model": model, "session": model.session()}
    arguments = tuple(first.get(argument, argument) if isinstance(argument, str) else argument for argument in arguments)
    names = {name for name, p in inspect.signature(call).parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self"}
    if call in (clawdbot.Model.from_pretrained, clawdbot.Model.from_shape):
        names |= {*clawdbot.MODEL_OPTIONS, *clawdbot.RUNTIME_OPTIONS}
    assert names
    for name in names:
        slip = f"{name[:-1]}{name[-1] * 2}"
        with pytest.raises(clawdbot.UnknownOption) as caught:
            call(*arguments, **{slip: None})
        assert caught.value.detail["suggestion"] == name
        assert name in re.findall(r"\w+", str(caught.value).split("Known ")[1])


def test_every_call_with_options_is_looked_at():
    looked_at = {call for call, _ in CALLS} | {clawdbot.Model.render_chat, clawdbot.Model.instance}
    for owner in (clawdbot.Model, clawdbot.ModelPool, clawdbot.Session, clawdbot.Runtime, clawdbot.Stream, clawdbot.Tokenizer):
        for name in (name for name in vars(owner) if name[0] != "_" and callable(getattr(owner, name))):
            parameters = inspect.signature(getattr(owner, name)).parameters.values()
            assert getattr(owner, name) in looked_at or all(p.kind is not p.VAR_KEYWORD for p in parameters), name


@pytest.mark.parametrize("given", [{}, {"add_special_tokens": False, "skip_special_tokens": False}], ids=["default", "raw"])
def test_the_options_of_a_completion_give_it_again(model, given):
    session = model.session()
    session.append(PROMPT)
    for call, arguments in (
        (model.generate, (PROMPT,)),
        (model.chat, ([{"role": "user", "content": "Hello"}], None)),
        (session.generate, ()),
    ):
        if call == model.chat:
            given = {**given, "add_special_tokens": True}
        completion = call(*arguments, max_tokens=10, seed=3, temperature=0.8, **given)
        assert set(completion.options) == set(clawdbot.GENERATE_OPTIONS)
        session.truncate(len(session.tokens) - len(completion.token_ids) if call == session.generate else len(session.tokens))
        assert call(*arguments, completion.options) == completion


def test_options_of_something_else(model):
    with pytest.raises(clawdbot.UnknownOption, match='"max_context" here, it is one of loading a model'):
        model.generate(PROMPT, max_context=5)
    with pytest.raises(clawdbot.UnknownOption, match='"threads" here, it is one of a runtime'):
        clawdbot.Runtime().load(threads=1)


def test_unknown_options(model):
    for call in (model.generate, model.stream):
        with pytest.raises(clawdbot.UnknownOption, match="max_tokens") as caught:
            call(PROMPT, max_token=5)
        assert caught.value.detail == {"option": "max_token", "suggestion": "max_tokens"}
        assert 'did you mean "max_tokens"?' in str(caught.value)
        with pytest.raises(TypeError):
            call(PROMPT, {"nonsense": None})
    for call in (model.generate, model.stream):
        with pytest.raises(TypeError, match="options: expected a mapping such as .*, found int"):
            call(PROMPT, 5)
        with pytest.raises(TypeError, match=r"options: expected names of type str, found int"):
            call(PROMPT, {5: 5})
    with pytest.raises(TypeError, match=r"a prompt is no option"):
        model.generate(PROMPT, "more")


def test_a_function_changes_logits(model):
    seen = []

    def only(token):
        def process(prompt, output, logits):
            seen.append((len(prompt), list(output), logits.shape, logits.dtype))
            others = np.arange(logits.size) != token
            logits[others] = -np.inf

        return process

    options = {"max_tokens": 3, "ignore_eos": True, "temperature": 0}
    found = model.generate("Once", logits_processor=only(77), **options)
    assert found.token_ids == [77] * 3 and "logits_processor" not in found.options
    vocab = model.info["vocab_size"] if isinstance(model.info, dict) else len(model.logits([1])[0])
    assert [one[1] for one in seen] == [[], [77], [77, 77]]
    assert all(one[0] > 0 and one[2:] == ((vocab,), np.dtype("float32")) for one in seen)
    # What it returns counts; lists have their own; streams and chats too.
    alone = np.where(np.arange(vocab) == 78, 0.0, -np.inf)
    assert model.generate("Once", logits_processor=lambda *_: alone, **options).token_ids == [78] * 3
    both = model.generate(["Once", "One"], [dict(options), dict(options, logits_processor=only(79))])
    assert both[0] == model.generate("Once", **options) and both[1].token_ids == [79] * 3
    assert model.stream("Once", logits_processor=only(80), **options).finish().token_ids == [80] * 3
    assert model.generate("Once", logits_processor=None, **options) == both[0]


def test_a_function_that_fails_ends_its_request(model):
    def raises(prompt, output, logits):
        raise KeyError("mine")

    for function, words in [
        (raises, "logits_processor: it raised KeyError: 'mine'"),
        (lambda *_: np.zeros(3), r"expected None or an array of shape \(\d+,\), found one of shape \(3,\)"),
        (lambda *_: np.full_like(_[2], np.nan), "found NaN for token 0"),
        (lambda: None, "it raised TypeError"),
        (lambda *_: "text", "it raised ValueError"),
    ]:
        with pytest.raises(clawdbot.InvalidArgument, match=words):
            model.generate("Once", logits_processor=function, max_tokens=2)
    with pytest.raises(TypeError, match="logits_processor: expected a function"):
        model.generate("Once", logits_processor=5)
    assert model.generate("Once", max_tokens=2)


def test_prompts_say_how_likely_they_are(model):
    tokens = model.tokenizer.encode("Once upon a time")
    found = model.generate(tokens, prompt_logprobs=2, max_tokens=1)
    scores = found.prompt_logprobs
    assert [one.chosen.id for one in scores] == tokens[1:] and all(len(one.top) == 2 for one in scores)
    expected = model.score(tokens[:1], [tokens[1:]])[0]
    assert [one.chosen.logprob for one in scores] == expected["logprobs"]
    assert model.generate(tokens, max_tokens=1).prompt_logprobs is None


def test_bad_words_are_left_out(model):
    plain = model.generate("Once upon a time", max_tokens=30, temperature=0)
    word = next(word for word in plain.text.split() if len(word) > 3)
    found = model.generate("Once upon a time", max_tokens=30, temperature=0, bad_words=[word[1:]])
    assert word[1:] not in found.text
