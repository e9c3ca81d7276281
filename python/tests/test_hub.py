"""Models by name, from a server that behaves like the hub."""

import hashlib
import http.server
import json
import pathlib
import threading
import time

import pytest

import clawdbot

ASSETS = pathlib.Path(__file__).parents[2] / "clawdbot-core" / "assets" / "builtin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.status = 200
        names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
        self.files = {name: (ASSETS / name).read_bytes() for name in names}

    def listing(self):
        def sibling(name, content):
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            return {"rfilename": name, "size": len(content), "blobId": "0" * 40, "lfs": lfs}

        return {"sha": COMMIT, "siblings": [sibling(*item) for item in self.files.items()]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server
        hub.seen.append((self.path, self.headers.get("Authorization")))
        prefix = f"/org/model/resolve/{COMMIT}/"
        if self.path == "/api/models/org/model/revision/main?blobs=true":
            self.answer(hub.status, json.dumps(hub.listing()).encode())
        elif self.path.startswith(prefix):
            self.answer(200, hub.files[self.path.removeprefix(prefix)])
        else:
            self.answer(404, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CLAWDBOT_HUB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def test_a_model_by_its_name(hub, model, tmp_path):
    calls = []
    with clawdbot.Model.from_pretrained("org/model", on_download=lambda *bytes: calls.append(bytes), threads=1) as found:
        options = {"max_tokens": 5, "temperature": 0}
        assert found.generate("Once", **options).text == model.generate("Once", **options).text
    assert all(0 <= done <= total for done, total in calls if total)
    assert all(token == "Bearer hf_mine" for _, token in hub.seen)
    snapshot = tmp_path / "home" / "hub" / "models--org--model" / "snapshots" / COMMIT
    for name in ("hf://org/model", "https://huggingface.co/org/model/tree/main", "hf.co/org/model:latest"):
        assert clawdbot.download(name) == snapshot
    # Everything is there now.
    hub.seen.clear()
    clawdbot.Model.from_pretrained("org/model", revision=COMMIT).close()
    clawdbot.Model.from_pretrained("org/model", offline=True).close()
    assert hub.seen == []
    assert clawdbot.Runtime().plan(clawdbot.download("org/model", offline=True))["architecture"] == "LlamaForCausalLM"


def test_failures(hub, monkeypatch):
    with pytest.raises(clawdbot.NotFound, match="HF_HUB_OFFLINE"):
        clawdbot.download("org/model", offline=True)
    with pytest.raises(clawdbot.NotFound):
        clawdbot.download("org/other")
    with pytest.raises(clawdbot.NotFound, match="perhaps Qwen/Qwen3-0.6B"):
        clawdbot.download("Qwen3-0.6B")
    hub.status = 403
    with pytest.raises(clawdbot.AccessDenied) as denied:
        clawdbot.download("org/model")
    assert denied.value.detail["status"] == 403
    assert "hf_mine" not in str(denied.value)
    hub.status = 200
    hub.files["config.json"], content = b"{}", hub.files["config.json"]
    listing = hub.listing()
    monkeypatch.setattr(hub, "listing", lambda: listing)
    hub.files["config.json"] = content
    with pytest.raises(clawdbot.Download, match=r"config\.json"):
        clawdbot.download("org/model")


def test_what_is_repeated_goes_to_the_log(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    logged = []
    runtime = clawdbot.Runtime(threads=1, on_log=lambda level, text: logged.append((level, text)))
    with pytest.raises(clawdbot.Download):
        clawdbot.Model.from_pretrained("org/model", runtime=runtime)
    assert [level for level, text in logged if "trying again" in text] == ["warning", "warning"]
    logged.clear()
    with pytest.raises(clawdbot.Download):
        runtime.download("org/model")
    assert [level for level, text in logged if "trying again" in text] == ["warning", "warning"]


def test_options_are_checked_before_anything_is_downloaded(hub):
    with pytest.raises(clawdbot.UnknownOption):
        clawdbot.Model.from_pretrained("org/model", weight="int8")
    with pytest.raises(clawdbot.InvalidArgument):
        clawdbot.Model.from_pretrained("org/model", runtime=clawdbot.Runtime(), threads=2)
    assert hub.seen == []


def test_paths_stay_paths(hub, directory):
    with pytest.raises(clawdbot.NotFound):
        clawdbot.Model.from_pretrained(pathlib.Path("org/model"))
    with pytest.raises(clawdbot.NotFound):
        clawdbot.Runtime().load("org/model")
    with pytest.raises(clawdbot.InvalidArgument, match="revision"):
        clawdbot.Model.from_pretrained(str(directory), revision="main")
    for path in (None, directory):
        with pytest.raises(clawdbot.InvalidArgument, match="revision"):
            clawdbot.Model.from_pretrained(path, revision="main")
    clawdbot.Model.from_pretrained(directory, offline=True).close()
    assert hub.seen == []


def test_hooks_can_stop_a_download(hub, monkeypatch):
    def fail(done, total):
        raise RuntimeError("mine")

    # Called at least once, for the server takes its time.
    answer = Handler.answer
    monkeypatch.setattr(Handler, "answer", lambda *args: (time.sleep(0.3), answer(*args)))
    with pytest.raises(clawdbot.Cancelled):
        clawdbot.download("org/model", on_download=lambda done, total: False)
    with pytest.raises(RuntimeError, match="mine"):
        clawdbot.download("org/model", on_download=fail)
