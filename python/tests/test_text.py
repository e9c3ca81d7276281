"""Tokenizer, chat templates, and the conversion of messages."""

import collections
import types

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
    assert tokenizer.id_to_token(np.int64(ids[0])) == token
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
    with pytest.raises(clawdbot.InvalidArgument, match="id: expected a token id, found -1"):
        model.tokenizer.id_to_token(-1)
    with pytest.raises(TypeError, match="id: expected a token id, found str"):
        model.tokenizer.id_to_token("a")


def test_render_and_chat(model):
    rendered = model.render_chat(MESSAGES)
    assert MESSAGES[0]["content"] in rendered
    assert model.render_chat(MESSAGES, add_generation_prompt=False) != rendered
    completion = model.chat(MESSAGES, max_tokens=8, temperature=0)
    same = model.generate(rendered, max_tokens=8, temperature=0, add_special_tokens=False)
    assert completion.token_ids == same.token_ids
    assert completion.usage.prompt_tokens == same.usage.prompt_tokens
    assert model.chat(MESSAGES, options={"max_tokens": 3, "temperature": 0}).token_ids == completion.token_ids[:3]
    once = model.chat(MESSAGES, max_tokens=8, temperature=0, add_special_tokens=True)
    assert once.usage.prompt_tokens == same.usage.prompt_tokens
    for call in (model.chat, model.chat_stream, model.session().chat, model.session().chat_stream):
        with pytest.raises(clawdbot.UnknownOption, match="variables of the chat template go into `variables`"):
            call(MESSAGES, enable_thinking=True)
        with pytest.raises(clawdbot.UnknownOption, match='did you mean "variables"'):
            call(MESSAGES, variable={})
    assert model.chat(MESSAGES, variables={"x": 1}, max_tokens=2, temperature=0).token_ids == completion.token_ids[:2]


def test_variables_by_name_or_in_a_mapping():
    template = "{{ messages[0].content }}{{ enable_thinking }}"
    with clawdbot.Model.from_pretrained(chat_template=template) as model:
        rendered = model.render_chat(MESSAGES, enable_thinking=7)
        assert rendered.endswith("7")
        for variables in ({"enable_thinking": 7}, types.MappingProxyType({"enable_thinking": 7})):
            assert model.render_chat(MESSAGES, variables=variables) == rendered
            assert clawdbot.render_chat_template(template, MESSAGES, variables=variables) == rendered
            answer = model.chat(MESSAGES, variables=variables, max_tokens=2, temperature=0)
            assert answer == model.generate(rendered, max_tokens=2, temperature=0, add_special_tokens=False)
        with pytest.raises(clawdbot.InvalidArgument, match="enable_thinking: given by its name, and in `variables`"):
            model.render_chat(MESSAGES, variables=variables, enable_thinking=7)
        for call in (model.render_chat, model.chat):
            with pytest.raises(TypeError, match="variables: expected a mapping such as .*, found list"):
                call(MESSAGES, variables=[1])


def test_messages_of_other_types(model):
    expected = model.render_chat(MESSAGES)
    for messages in (
        tuple(MESSAGES),
        iter(MESSAGES),
        (message for message in MESSAGES),
        collections.deque(MESSAGES),
        [types.MappingProxyType(MESSAGES[0])],
        [collections.UserDict(MESSAGES[0])],
    ):
        assert model.render_chat(messages) == expected
    assert model.render_chat(MESSAGES, None, variables=None) == expected


def test_a_bos_is_not_doubled(directory, edit_json):
    edit_json(directory / "generation_config.json", do_sample=False)
    lines = []
    with clawdbot.Model.from_pretrained(directory, runtime=clawdbot.Runtime(on_log=lambda *line: lines.append(line))) as model:
        rendered = model.render_chat(MESSAGES)
        ids = model.tokenizer.encode(rendered, add_special_tokens=False)
        assert ids[0] == model.info["bos_token_id"]
        assert model.generate(rendered, max_tokens=1, temperature=0).usage.prompt_tokens == len(ids)
        with model.session() as session:
            session.append(rendered)
            assert session.tokens == ids
        assert ("info", "the prompt begins with the beginning-of-sequence token: it is not added once more") in lines
        # A BOS that the caller put there as ids is the caller's.
        assert model.generate([ids[0], *ids], max_tokens=1, temperature=0).usage.prompt_tokens == len(ids) + 1
        model.generate(rendered, max_tokens=1, top_p=0.5)
        model.render_chat(MESSAGES, colour="red")
        warnings = [message for level, message in lines if level == "warning"]
        assert len(warnings) == 2, warnings
        assert "top_p" in warnings[0]
        assert "colour" in warnings[1]


def test_chat_is_streamed(model):
    expected = model.chat(MESSAGES, max_tokens=8, temperature=0)
    events = list(model.chat_stream(MESSAGES, max_tokens=8, temperature=0))
    assert "".join(event.text for event in events if event.kind == "token") == expected.text
    assert events[-1].completion.token_ids == expected.token_ids


def test_a_session_chats_from_what_it_has(model):
    options = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    messages = list(MESSAGES)
    with model.session() as session:
        for said in ("And then?", "Why?", "The end?"):
            answer = session.chat(messages, options=options)
            assert answer.token_ids == model.chat(messages, options=options).token_ids
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": said}]
        before = len(model.tokenizer.encode(model.render_chat(messages[:-3]), add_special_tokens=False))
        last = session.chat_stream(messages, **options).finish()
        assert last.usage.cached_tokens >= before > 50
        # Another conversation: all after the first difference is computed, to the same bits.
        messages[0] = {"role": "user", "content": "Tell me a joke."}
        answer = session.chat(messages, options=options)
        assert answer.token_ids == model.chat(messages, options=options).token_ids
        assert 0 < answer.usage.cached_tokens < 10
        tokens = session.tokens
        with pytest.raises(clawdbot.ContextOverflow):
            session.chat(messages, max_tokens=5000)
        with pytest.raises(clawdbot.InvalidArgument):
            session.chat([{"role": "user"}])
        assert session.tokens == tokens, "a refused request changes nothing"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hello", r"messages: expected a list of messages such as .*found \"Hello\""),
        (MESSAGES[0], "messages: expected a list"),
        ([], "at least one message"),
        (["Hello"], r"messages\[0\]: expected a message"),
        ([MESSAGES, MESSAGES], "one conversation at a time"),
        ([{"role": "usr", "content": "a"}], r'messages\[0\].role: expected one of system, .* did you mean "user"\?'),
        ([{"role": "assistent", "content": "a"}], r'did you mean "assistant"\?'),
        ([{"role": "user", "text": "a"}], r'found "text"'),
        ([{"role": "user", "content": None}], r"messages\[0\].content: expected a string"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], r"content\[0\]: .*models read text only"),
    ],
)
def test_messages_are_checked(model, messages, message):
    for call in (model.chat, model.chat_stream, model.render_chat, model.session().chat):
        with pytest.raises(clawdbot.InvalidArgument, match=message):
            call(messages)


def test_tools_and_slips(model):
    for call in (model.chat, model.render_chat):
        with pytest.raises(clawdbot.InvalidArgument, match="ignores tools"):
            call(MESSAGES, [{"name": "f"}])
    with pytest.raises(clawdbot.UnknownOption, match='did you mean "add_generation_prompt"'):
        model.render_chat(MESSAGES, add_generation_promt=False)
    # Templates on their own are not checked.
    assert clawdbot.render_chat_template("{{ messages[0].x }}", [{"x": 1}], [{"name": "f"}]) == "1"


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
