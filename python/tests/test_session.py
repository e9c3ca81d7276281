"""Sessions: one conversation and its cache."""

import numpy as np
import pytest

import clawdbot

PROMPT = "Once upon a time"


def test_a_session_continues_with_its_cache(model):
    ids = model.tokenizer.encode(PROMPT)
    with model.session() as session:
        assert session.append(PROMPT) == len(ids)
        first = session.generate(max_tokens=6, temperature=0)
        assert first.token_ids == model.generate(PROMPT, max_tokens=6, temperature=0).token_ids
        assert session.tokens == ids + first.token_ids
        more = session.append(" Then", add_special_tokens=False)
        length = len(session.tokens)
        second = session.generate({"max_tokens": 5}, temperature=0)
        assert second.usage.prompt_tokens == length
        assert second.usage.cached_tokens >= length - more - 1
        fresh = model.generate(session.tokens[:length], max_tokens=5, temperature=0)
        assert fresh.token_ids == second.token_ids
        assert f"{len(session.tokens)} tokens" in repr(session)


def test_streaming_in_a_session(model):
    session = model.session()
    session.append([5, 6, 7])
    stream = session.stream(max_tokens=8, temperature=0)
    next(stream)
    for call in (lambda: session.append([5]), lambda: session.generate(), lambda: session.truncate(1)):
        with pytest.raises(clawdbot.InvalidArgument, match="stream"):
            call()
    completion = stream.finish()
    assert session.tokens == [5, 6, 7, *completion.token_ids]


def test_forks_go_on_by_themselves(model):
    session = model.session()
    session.append(PROMPT)
    first = session.generate(max_tokens=6, temperature=0)
    fork = session.fork()
    assert fork.tokens == session.tokens
    fork.truncate(len(fork.tokens) - 6)
    again = fork.generate(max_tokens=6, temperature=0)
    assert again.token_ids == first.token_ids
    assert again.usage.cached_tokens == len(fork.tokens) - 7
    fork.append([5, 6])
    assert len(fork.tokens) == len(session.tokens) + 2
    fork.close()
    with pytest.raises(clawdbot.Closed):
        fork.fork()
    stream = session.stream(max_tokens=5)
    with pytest.raises(clawdbot.InvalidArgument, match="unfinished stream"):
        session.fork()
    stream.finish()


def test_truncate_and_do_it_again(model):
    session = model.session()
    session.append(PROMPT)
    length = len(session.tokens)
    first = session.generate(max_tokens=6, temperature=0)
    session.truncate(length)
    assert len(session.tokens) == length
    assert session.generate(max_tokens=6, temperature=0).token_ids == first.token_ids
    with pytest.raises(clawdbot.InvalidArgument, match="at most"):
        session.truncate(10_000)
    for length in (-1, 2**70):
        with pytest.raises(clawdbot.InvalidArgument, match=f"length: expected a whole number from 0 to .*, found {length}"):
            session.truncate(length)
    for length in ("1", 1.0, True, None):
        with pytest.raises(TypeError, match=f"length: expected a whole number, found {type(length).__name__}"):
            session.truncate(length)
    session.truncate(np.int64(1))
    assert len(session.tokens) == 1


def test_closed_session(model):
    session = model.session()
    session.append(PROMPT)
    session.close()
    session.close()
    for call in (session.generate, session.stream, lambda: session.append("x"), lambda: session.truncate(0)):
        with pytest.raises(clawdbot.Closed, match="session"):
            call()
    with pytest.raises(clawdbot.Closed):
        session.tokens
    assert "closed" in repr(session)


def test_bad_input(model):
    session = model.session()
    with pytest.raises(clawdbot.InvalidArgument):
        session.append([10**6])
    with pytest.raises(TypeError):
        session.append(None)
    with pytest.raises(clawdbot.UnknownOption):
        session.generate(nonsense=1)
    for call in (session.generate, session.stream):
        with pytest.raises(TypeError, match=r"options: expected a mapping such as .*found str \(a prompt is no option\)"):
            call("Once upon a time")
        with pytest.raises(TypeError, match="options: expected a mapping such as .*found int"):
            call(5)
    session.append([5] * 1000)
    with pytest.raises(clawdbot.ContextOverflow) as caught:
        session.append([5] * 1000)
    assert caught.value.detail["max_context"] == model.info["max_context"]
    with pytest.raises(clawdbot.ContextOverflow):
        session.generate(max_tokens=1000, temperature=0)


def test_a_saved_session_goes_on_in_another_model(model, tmp_path):
    session = model.session()
    session.append(PROMPT)
    session.generate(max_tokens=6, temperature=0)
    path = tmp_path / "session"
    assert session.save(path) == path.stat().st_size
    other = clawdbot.Model.from_pretrained()
    restored = other.restore_session(str(path))
    assert restored.tokens == session.tokens
    expected = session.generate(max_tokens=5, temperature=0)
    found = restored.generate(max_tokens=5, temperature=0)
    assert found.token_ids == expected.token_ids
    assert found.usage.cached_tokens == found.usage.prompt_tokens - 1
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(clawdbot.InvalidArgument, match="expected the checksum"):
        other.restore_session(path)
    with pytest.raises(clawdbot.NotFound):
        other.restore_session(tmp_path / "none")
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(clawdbot.InvalidArgument, match="found another file"):
        session.save(tmp_path / "notes")
    session.close()
    with pytest.raises(clawdbot.Closed):
        session.save(path)
