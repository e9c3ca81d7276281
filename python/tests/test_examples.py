"""The examples run."""

import pathlib
import re
import subprocess
import sys

import pytest

import clawdbot

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "clawdbot-core" / "tests" / "golden" / "embeddings"


def run(name, *arguments, text=""):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=120)


def test_generate(model):
    done = run("generate.py")
    expected = model.generate("Once upon a time", max_tokens=100, seed=0)
    assert done.stdout == f"Once upon a time{expected.text}\n"
    assert done.stderr.startswith(f"{expected.usage.completion_tokens} tokens")


def test_chat(model):
    done = run("chat.py", text="Hello\nTell me more\n")
    first = model.chat([{"role": "user", "content": "Hello"}], max_tokens=200, seed=0).text
    assert done.stdout.startswith(first)


def test_batch(model):
    done = run("batch.py", text="One day\n\nThe dog\n")
    texts = [completion.text for completion in model.generate(["One day", "The dog"], max_tokens=50, seed=0)]
    assert [repr(text) in done.stdout for text in texts] == [True, True]
    assert run("batch.py").stdout == ""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("batch.py", "/nonexistent", text="x")
    assert clawdbot.NotFound.__name__ in caught.value.stderr


def test_stream_async(model):
    done = run("stream_async.py", "One day", "The dog")
    prompts = ["One day", "The dog"]
    expected = [prompt + model.generate(prompt, max_tokens=50, seed=0).text for prompt in prompts]
    assert done.stdout == "".join(f"{text}\n" for text in expected)


def test_embed(model):
    done = run("embed.py")
    texts = ["A cat sat.", "The cat was sitting.", "Rain fell on the sea."]
    vectors = model.embed(texts, pooling="mean", normalize=True)
    assert done.stdout.splitlines()[0] == f"{vectors[1] @ vectors[0]:.4f} 'The cat was sitting.'"
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("document", ["README.md", "python/README.md", "docs/python.md", "docs/structured-output.md"])
def test_documents_run(document, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, ran = {}, 0
    text = (ROOT / document).read_text().replace("path/to/embedder", str(GOLDEN / "bert"))
    text = text.replace("path/to/reranker", str(GOLDEN / "bert_score"))
    for match in re.finditer(r"^```python( hub)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start(2))
        code = compile("\n" * line + match[2], document, "exec")
        # What needs a network is read alone.
        if not match[1]:
            exec(code, names)
            ran += 1
    assert ran >= 1
    assert capsys.readouterr().out
