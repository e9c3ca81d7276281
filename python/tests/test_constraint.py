"""Constraints without a model: what they accept, and where a text leaves them."""

import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import clawdbot

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
SCHEMA_TEXT = '{"type": "array", "items": {"type": "integer"}}'
GRAMMAR = """start: "x" start | "y" """


@pytest.fixture(scope="module")
def tokenizer(model):
    return model.tokenizer


@pytest.mark.parametrize(
    ("options", "accepted", "incomplete", "forbidden"),
    [
        ({"json_schema": SCHEMA}, '{"name": "A", "age": 3}', '{"name": "A", "age": 3', ('{"nam": "A"}', 5)),
        ({"json_schema": SCHEMA_TEXT}, "[1, 22]", "[1, 2", ("{}", 0)),
        ({"json_schema": True}, "null", "nul", ("!", 0)),
        ({"json_object": True}, '{"a": [null]}', '{"a": ', ("[1]", 0)),
        ({"regex": "^[a-c]{2}\\d*$"}, "ab12", "a", ("ax", 1)),
        ({"grammar": GRAMMAR}, "xxy", "xx", ("xxz", 2)),
        ({"choices": ["yes", "no"]}, "no", "ye", ("!", 0)),
        ({"choices": "yes"}, "yes", "ye", ("!", 0)),
        ({"choices": {"yes": 1}.keys()}, "yes", "ye", ("!", 0)),
    ],
)
def test_what_is_accepted(tokenizer, options, accepted, incomplete, forbidden):
    constraint = clawdbot.Constraint(tokenizer, **options)
    assert constraint.accepts(accepted) is True
    assert constraint.forbidden_at(accepted) is None
    assert constraint.accepts(incomplete) is False
    assert constraint.forbidden_at(incomplete) is None
    text, at = forbidden
    assert constraint.accepts(text) is False
    # A token may begin before the character that is at fault.
    assert constraint.forbidden_at(text) <= at


def test_what_is_none_or_false_is_not_given(tokenizer):
    constraint = clawdbot.Constraint(tokenizer, json_schema=None, json_object=False, regex="a", grammar=None, choices=None)
    assert constraint.accepts("a")
    assert clawdbot.Constraint(tokenizer, json_object=None, choices=["a"]).accepts("a")


@pytest.mark.parametrize("letter", ["é", "日", "😀"])
def test_places_are_characters(tokenizer, letter):
    constraint = clawdbot.Constraint(tokenizer, regex=f"{letter}{{3}}[0-9]")
    assert constraint.accepts(letter * 3 + "1")
    for count in range(3):
        text = letter * count + "!"
        assert constraint.forbidden_at(text) == count
        assert constraint.forbidden_at(text[:count]) is None
    other = chr(ord(letter) + 1)
    assert constraint.forbidden_at(letter + other) == 1


def test_a_generated_text_is_accepted(model):
    options = {"json_schema": {"type": "object", "properties": {"a": {"enum": ["é", 1]}}, "required": ["a"]}}
    completion = model.generate("Once", max_tokens=40, seed=1, **options)
    assert clawdbot.Constraint(model.tokenizer, **options).accepts(completion.text)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, "InvalidArgument", "json_schema, json_object, regex, grammar, choices; found none"),
        ({"json_object": False, "regex": None}, "InvalidArgument", "found none"),
        ({"regex": "a", "choices": ["a"]}, "InvalidArgument", "option choices: expected no other constraint, found regex too"),
        ({"regex": 5}, "InvalidArgument", "regex"),
        ({"regex": b"a"}, TypeError, "regex"),
        ({"json_object": "yes"}, "InvalidArgument", "json_object"),
        ({"json_schema": 5}, "InvalidArgument", "json_schema"),
        ({"json_schema": "{"}, "InvalidArgument", "json_schema"),
        ({"json_schema": {"type": float("nan")}}, "InvalidArgument", "json_schema"),
        ({"choices": []}, "InvalidArgument", "choices"),
        ({"choices": [""]}, "InvalidArgument", "choices"),
        ({"choices": [1]}, "InvalidArgument", "choices"),
        ({"regexp": "a"}, "UnknownOption", 'did you mean "regex"'),
        ({"regex": "a", "max_tokens": 3}, "UnknownOption", "max_tokens"),
        ({"regex": "\udc80"}, "InvalidUtf8", "regex"),
        ({"regex": "("}, "InvalidConstraint", "regex"),
        ({"grammar": "start: other"}, "InvalidConstraint", "grammar"),
        ({"json_schema": {"not": {}}}, "InvalidConstraint", "not"),
    ],
)
def test_wrong_options(model, tokenizer, options, kind, message):
    expected = getattr(clawdbot, kind) if isinstance(kind, str) else kind
    with pytest.raises(expected) as caught:
        clawdbot.Constraint(tokenizer, **options)
    assert message in str(caught.value)
    # The same as with a model, where it is wrong there too.
    if options and message not in ("max_tokens", "found none"):
        with pytest.raises(expected) as there:
            model.generate("a", **{"max_tokens": 30, **options})
        assert type(there.value) is type(caught.value)
        if "did you mean" not in message:
            assert str(there.value) == str(caught.value)


def test_wrong_arguments(model, tokenizer):
    constraint = clawdbot.Constraint(tokenizer, regex="a")
    for check in (constraint.accepts, constraint.forbidden_at):
        with pytest.raises(TypeError):
            check(b"a")
        with pytest.raises(TypeError):
            check()
        with pytest.raises(clawdbot.InvalidUtf8, match="text"):
            check("a\udc80")
    with pytest.raises(TypeError, match="tokenizer"):
        clawdbot.Constraint(regex="a")
    for tokens in (None, "tokenizer", model):
        with pytest.raises(TypeError, match="tokenizer"):
            clawdbot.Constraint(tokens, regex="a")
    with pytest.raises(TypeError):
        clawdbot.Constraint(tokenizer, SCHEMA)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(constraint)


def test_repr(tokenizer):
    constraint = clawdbot.Constraint(tokenizer, json_schema=SCHEMA)
    assert repr(constraint) == f"<clawdbot.Constraint json_schema for {tokenizer.vocab_size} tokens>"


def test_it_outlives_its_tokenizer():
    with clawdbot.Model.from_pretrained() as model:
        constraint = clawdbot.Constraint(model.tokenizer, choices=["é", "a"])
    del model
    assert constraint.accepts("é")


def test_threads(tokenizer):
    constraint = clawdbot.Constraint(tokenizer, json_object=True)
    texts = ['{"a": [1, 2]}', '{"a": ]', '{"é": {}', "[]"]
    alone = [(constraint.accepts(text), constraint.forbidden_at(text)) for text in texts]
    assert alone == [(True, None), (False, 6), (False, None), (False, 0)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(lambda text: (constraint.accepts(text), constraint.forbidden_at(text)), texts)) == alone
        made = list(pool.map(lambda text: clawdbot.Constraint(tokenizer, choices=[text]), texts))
    assert [one.accepts(text) for one, text in zip(made, texts)] == [True] * 4


def test_other_threads_run_meanwhile(tokenizer):
    """The interpreter is released: a thread counts while this one checks a long text."""
    constraint = clawdbot.Constraint(tokenizer, regex="(ab ?)*")
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.0005)

    def counts():
        before = counted[0]
        # Shorter than what has a thread of its own.
        assert constraint.accepts("ab " * 40_000)
        return counted[0] > before

    thread = threading.Thread(target=count)
    thread.start()
    assert any(counts() for _ in range(100))
    stop.set()
    thread.join()


def test_ctrl_c_ends_a_long_check():
    program = (
        "import clawdbot, signal, threading, os\n"
        "with clawdbot.Model.from_pretrained() as model:\n"
        "    constraint = clawdbot.Constraint(model.tokenizer, regex='(ab ?)*')\n"
        # Who starts the tests may ignore the signal, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "text = 'ab ' * 30_000_000\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    constraint.accepts(text)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "interrupted\n", done.stderr
    assert done.returncode != -signal.SIGINT
