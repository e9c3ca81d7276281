"""Vectors and scores."""

import json
import pathlib

import numpy as np
import pytest

import clawdbot

GOLDEN = pathlib.Path(__file__).parents[2] / "clawdbot-core" / "tests" / "golden" / "embeddings"


def reference(name):
    return json.loads((GOLDEN / name / "reference.json").read_text())


@pytest.fixture(scope="module")
def bert():
    with clawdbot.Model.from_pretrained(GOLDEN / "bert", weights="f32") as model:
        yield model


def test_vectors_are_those_of_sentence_transformers(bert):
    expected = reference("bert")
    found = bert.embed(expected["texts"])
    assert found.dtype == np.float32
    assert found.shape == np.shape(expected["embeddings"])
    assert np.abs(found - expected["embeddings"]).max() < 1e-5
    prompted = bert.embed(expected["texts"][:2], prompt_name="query")
    assert np.abs(prompted - expected["prompted"]["query"]).max() < 1e-5
    ids = [bert.tokenizer.encode(text) for text in expected["texts"]]
    assert (bert.embed(ids) == found).all()
    assert bert.embed([]).shape == (0, 48)
    assert bert.info["embedding"]["pooling"] == "mean"
    assert bert.info["tasks"] == ["embed"]


def test_a_bad_text_fails_alone(bert):
    long = "a " * 1000
    texts = ["the sea", long, None, "\ud800", "bread"]
    kinds = [np.ndarray, clawdbot.ContextOverflow, TypeError, clawdbot.InvalidUtf8, np.ndarray]
    good = bert.embed(["the sea", "bread"])
    results = bert.embed(texts, return_exceptions=True)
    assert all(isinstance(result, kind) for result, kind in zip(results, kinds, strict=True)), results
    assert (results[0] == good[0]).all()
    assert (results[4] == good[1]).all()
    for i in (1, 2, 3):
        assert str(results[i]).startswith(f"texts[{i}]: ")
    assert results[1].detail["text"] == 1
    with pytest.raises(clawdbot.ContextOverflow) as caught:
        bert.embed(texts)
    assert caught.value.results[1] is caught.value
    assert (caught.value.results[4] == good[1]).all()
    assert isinstance(bert.embed(["the sea"], return_exceptions=True), list)
    # What is wrong with the call fails the call.
    with pytest.raises(clawdbot.UnknownOption):
        bert.embed(texts, return_exceptions=True, pool="mean")
    with clawdbot.Model.from_pretrained(GOLDEN / "bert_score") as model:
        scores = model.rerank("sea", ["a ship", "bread"])
        results = model.rerank("sea", ["a ship", long, 5, "bread"], return_exceptions=True)
        assert [results[0], results[3]] == scores.tolist()
        assert isinstance(results[1], clawdbot.ContextOverflow)
        assert str(results[1]).startswith("documents[1]: ")
        assert isinstance(results[2], TypeError)
        with pytest.raises(clawdbot.ContextOverflow) as caught:
            model.rerank("sea", ["a ship", long])
        assert caught.value.results[0] == scores[0]


def test_a_single_text_gives_one_vector(bert):
    expected = bert.embed(["the sea"])[0]
    for found in (bert.embed("the sea"), bert.embed("the sea", return_exceptions=True)):
        assert found.shape == expected.shape == (48,)
        assert (found == expected).all()
    long = "a " * 1000
    with pytest.raises(clawdbot.ContextOverflow):
        bert.embed(long)
    assert isinstance(bert.embed(long, return_exceptions=True), clawdbot.ContextOverflow)


def test_a_query_that_is_too_long_is_the_calls_error():
    for name in ("bert_score", "qwen3_judge"):
        with clawdbot.Model.from_pretrained(GOLDEN / name) as model:
            with pytest.raises(clawdbot.ContextOverflow, match="^query: expected a text of at most") as caught:
                model.rerank("word " * 5000, ["a", "b"], return_exceptions=True)
            assert "text" not in caught.value.detail


def test_texts_from_iterators(bert):
    texts = ["a ship", "the sea"]
    expected = bert.embed(texts)
    for given in (iter(texts), (text for text in texts), dict(enumerate(texts)).values(), dict.fromkeys(texts).keys()):
        assert (bert.embed(given) == expected).all()


class Array:
    """What arrays and columns have in common: no sequence, but a list on request."""

    def __init__(self, *items):
        self.items = items

    def tolist(self):
        return list(self.items)


def test_arrays_of_texts(bert):
    texts = ["a ship", "the sea"]
    expected = bert.embed(texts)
    ids = [bert.tokenizer.encode(text) for text in texts]
    for given in (Array(*texts), np.array(texts), np.array(texts, dtype=object), Array(*map(np.array, ids))):
        assert (bert.embed(given) == expected).all()
    for wrong in (Array(1), Array(None), Array("a", 1)):
        with pytest.raises(TypeError):
            bert.embed(wrong)
    with clawdbot.Model.from_pretrained(GOLDEN / "bert_score") as model:
        expected = model.rerank("sea", texts)
        for given in (Array(*texts), np.array(texts)):
            assert (model.rerank("sea", given) == expected).all()
        with pytest.raises(TypeError):
            model.rerank("sea", np.array([1]))


def test_options(bert):
    raw = bert.embed(("a", "b"), pooling="cls", normalize=None, dimensions=7, truncate=True)
    assert raw.shape == (2, 7)
    with pytest.raises(clawdbot.UnknownOption):
        bert.embed(["a"], pool="mean")
    with pytest.raises(clawdbot.InvalidArgument):
        bert.embed(["a"], pooling="median")
    with pytest.raises(clawdbot.ContextOverflow) as caught:
        bert.embed(["a", "a " * 1000])
    assert caught.value.detail["text"] == 1
    for wrong in ([1], [None], 5, b"a"):
        with pytest.raises(TypeError):
            bert.embed(wrong)
    with pytest.raises(clawdbot.UnsupportedModel):
        bert.generate("a")


def test_progress(bert):
    calls = []
    bert.embed(["a", "b", "c"], on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(clawdbot.Cancelled):
        bert.embed(["a", "b"], on_progress=lambda done, total: False)
    with pytest.raises(ZeroDivisionError):
        bert.embed(["a", "b"], on_progress=lambda done, total: 1 // 0)


@pytest.mark.parametrize("name", ["bert_score", "qwen3_judge"])
def test_scores_are_those_of_transformers(name):
    expected = reference(name)
    with clawdbot.Model.from_pretrained(GOLDEN / name, weights="f32") as model:
        query, documents = expected["query"], expected["documents"]
        found = model.rerank(query, documents, sigmoid=False)
        assert (found.dtype, found.shape) == (np.float32, (len(documents),))
        assert np.abs(found - expected["logits"]).max() < 1e-4
        assert np.allclose(model.rerank(query, documents), 1 / (1 + np.exp(-found)), atol=1e-6)
        for wrong in ("text", [1]):
            with pytest.raises(TypeError):
                model.rerank(query, wrong)
        with pytest.raises(TypeError):
            model.rerank(["a"], documents)
