"""The exception classes: one for each kind of the core."""

import copy
import pickle

import pytest

import clawdbot

BUILTINS = {
    "InvalidArgument": ValueError,
    "InvalidUtf8": ValueError,
    "UnknownOption": TypeError,
    "NotFound": FileNotFoundError,
}
KINDS = [
    value
    for value in vars(clawdbot).values()
    if isinstance(value, type) and issubclass(value, clawdbot.ClawdbotError) and value is not clawdbot.ClawdbotError
]


def test_the_numbers_are_those_of_the_core():
    assert sorted(kind.code for kind in KINDS) == list(range(1, len(KINDS) + 1))
    assert len(KINDS) == 24
    assert clawdbot.InvalidArgument.code == 1
    assert clawdbot.Internal.code == 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_class(kind):
    assert kind.kind == kind.__name__
    assert kind.__module__ == "clawdbot"
    assert kind.__doc__
    assert issubclass(kind, BUILTINS.get(kind.kind, Exception))
    with pytest.raises(clawdbot.ClawdbotError) as caught:
        raise kind("message")
    assert str(caught.value) == "message"
    assert dict(caught.value.detail) == {}
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is kind
    assert str(again) == "message"


def test_detail_survives_pickling(model):
    with pytest.raises(clawdbot.ContextOverflow) as caught:
        model.generate([5] * 100, max_tokens=5000, temperature=0)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.detail == caught.value.detail
    assert error.detail["max_tokens"] == 5000
    assert error.code == clawdbot.ContextOverflow.code


def test_handles_are_not_pickled(model):
    handles = [model, model.runtime, model.tokenizer, model.session(), model.stream("One", max_tokens=1, temperature=0)]
    for handle in handles:
        for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"clawdbot.{type(handle).__name__} cannot be pickled"):
                refuse(handle)


def test_values_of_any_shape_take_bounded_memory(model):
    many = ["x"]
    for _ in range(40):
        many = [many, many]
    for value in (many, ["x" * (1 << 20)] * 1000, {"k": many}):
        with pytest.raises(clawdbot.InvalidArgument, match="at most 256 MiB"):
            clawdbot.render_chat_template("{{ 1 }}", [{"role": "user", "content": "a", "x": value}])
    with pytest.raises(clawdbot.InvalidArgument, match="at most 16777216 token ids, found 1000000000"):
        model.generate(range(10**9), max_tokens=2)


def test_sequences_without_end(model):
    class Endless(list):
        def __iter__(self):
            while True:
                yield "x" * 10**7

    with pytest.raises(clawdbot.InvalidArgument, match="1024 MiB"):
        model.generate(Endless(["a"]), max_tokens=1)


def test_what_an_integer_raises_is_raised(model):
    class Loud:
        def __index__(self):
            raise KeyError("mine")

    for call in (lambda: model.generate([5, Loud()]), lambda: model.generate([5], max_tokens=Loud())):
        with pytest.raises(KeyError, match="mine"):
            call()
