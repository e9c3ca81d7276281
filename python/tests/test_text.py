"""Tokenizer, chat templates, and the conversion of messages."""

import collections

import numpy as np
import pytest

import clawdbot
from conftest import ASSETS

MESSAGES = [{"role": "user", "content": "Tell me a story."}]


def test_round_trip(model):
    tokenizer = model.tokenizer
    text = "Once upon a time, there was a dog."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids).strip() == text
    assert tokenizer.decode(np.array(ids)) == tokenizer.decode(tuple(ids))
    assert tokenizer.vocab_size <= model.info["vocab_size"]
    token = tokenizer.id_to_token(ids[0])
    assert tokenizer.token_to_id(token) == ids[0]
    assert tokenizer.token_to_id("no such token, surely") is None
    assert tokenizer.id_to_token(4_000_000_000) is None
    assert str(tokenizer.vocab_size) in repr(tokenizer)


def test_special_tokens(model):
    tokenizer, bos = model.tokenizer, model.info["bos_token_id"]
    with_bos = tokenizer.encode("One day")
    assert with_bos == [bos, *tokenizer.encode("One day", add_special_tokens=False)]
    assert tokenizer.decode(with_bos) == tokenizer.decode(with_bos[1:])
    assert tokenizer.decode(with_bos, skip_special_tokens=False).startswith(tokenizer.id_to_token(bos))


def test_from_file(model, tmp_path):
    path = ASSETS / "tokenizer.json"
    text = "The little dog."
    for source in (path, str(path)):
        assert clawdbot.Tokenizer.from_file(source).encode(text) == model.tokenizer.encode(text)
    with pytest.raises(clawdbot.NotFound):
        clawdbot.Tokenizer.from_file(tmp_path / "none.json")
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(clawdbot.InvalidTokenizer):
        clawdbot.Tokenizer.from_file(bad)
    with pytest.raises(TypeError):
        clawdbot.Tokenizer.from_file(5)


def test_bad_arguments(model):
    with pytest.raises(TypeError):
        model.tokenizer.encode(5)
    with pytest.raises(clawdbot.InvalidUtf8):
        model.tokenizer.encode("\udc80")
    with pytest.raises(TypeError):
        model.tokenizer.decode("text")
    with pytest.raises(clawdbot.InvalidArgument):
        model.tokenizer.decode([-1])
    with pytest.raises(clawdbot.InvalidArgument):
        model.tokenizer.decode([4_000_000_000])


def test_render_and_chat(model):
    rendered = model.render_chat(MESSAGES)
    assert MESSAGES[0]["content"] in rendered
    assert model.render_chat(MESSAGES, add_generation_prompt=False) != rendered
    completion = model.chat(MESSAGES, max_tokens=8, temperature=0)
    same = model.generate(rendered, max_tokens=8, temperature=0, add_special_tokens=False)
    assert completion.token_ids == same.token_ids
    assert completion.usage.prompt_tokens == same.usage.prompt_tokens
    assert model.chat(MESSAGES, options={"max_tokens": 3, "temperature": 0}).token_ids == completion.token_ids[:3]
    doubled = model.chat(MESSAGES, max_tokens=8, temperature=0, add_special_tokens=True)
    assert doubled.usage.prompt_tokens == same.usage.prompt_tokens + 1
    with pytest.raises(clawdbot.UnknownOption):
        model.chat(MESSAGES, enable_thinking=True)
    assert model.chat(MESSAGES, variables={"x": 1}, max_tokens=2, temperature=0).token_ids == completion.token_ids[:2]


def test_a_model_without_template(directory, edit_json):
    edit_json(directory / "tokenizer_config.json", chat_template=None)
    with clawdbot.Model.from_pretrained(directory) as plain:
        assert plain.info["has_chat_template"] is False
        for call in (plain.render_chat, plain.chat):
            with pytest.raises(clawdbot.MissingTemplate):
                call(MESSAGES)


def test_values_reach_the_template():
    render = clawdbot.render_chat_template
    values = {
        "big": 2**64 - 1,
        "negative": -(2**63),
        "float": 1.5,
        "flag": True,
        "nothing": None,
        "text": "ü€😀",
        "list": [1, (2, 3)],
        "ordered": collections.OrderedDict(z=1, a=2),
        "array_item": np.int64(7),
    }
    text = render("{{ v | tojson }}|{{ messages | length }}|{{ bos }}", [], v=values, bos="<s>")
    assert text == (
        '{"big": 18446744073709551615, "negative": -9223372036854775808, "float": 1.5, "flag": true, '
        '"nothing": null, "text": "ü€😀", "list": [1, [2, 3]], "ordered": {"z": 1, "a": 2}, "array_item": 7}|0|<s>'
    )
    assert render("{{ tools[0].name }}{{ add_generation_prompt }}", [], [{"name": "f"}], False) == "fFalse"


@pytest.mark.parametrize(
    ("content", "expected", "path"),
    [
        (object(), TypeError, r"messages\[0\]\.content: .*object"),
        ({1: 2}, TypeError, r"messages\[0\]\.content"),
        ([{"x": {1, 2}}], TypeError, r"messages\[0\]\.content\[0\]\.x: .*set"),
        (b"x", TypeError, "bytes"),
        (2**64, clawdbot.InvalidArgument, r"messages\[0\]\.content"),
        (float("inf"), clawdbot.InvalidArgument, r"messages\[0\]\.content"),
        ("\ud800", clawdbot.InvalidUtf8, r"messages\[0\]\.content"),
    ],
)
def test_what_cannot_be_converted_is_named(model, content, expected, path):
    with pytest.raises(expected, match=path):
        model.render_chat([{"role": "user", "content": content}])


def test_endless_nesting(model):
    loop = []
    loop.append(loop)
    with pytest.raises(clawdbot.InvalidArgument, match="nested"):
        model.render_chat(loop)


def test_template_errors():
    with pytest.raises(clawdbot.InvalidTemplate):
        clawdbot.render_chat_template("{% if %}", [])
    with pytest.raises(clawdbot.TemplateRaised, match="no system"):
        clawdbot.render_chat_template("{{ raise_exception('no system role') }}", [])
