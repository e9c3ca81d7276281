"""One engine in a separate process: `engines.py make|run '{"engine": ..., ...}'`. Called by `bench.py`.

`make` writes a model file of random weights; `run` loads it, does one work item and prints "RESULT " and JSON with
`value` (tokens/s), `load_s` and `peak_rss_bytes`. Runs in the environment that `bench.py` makes.
"""
import json
import pathlib
import random
import shutil
import sys
import time

import models

# Ids that are special tokens in no engine.
FIRST_ID, LAST_ID = 300, 1900


def token_ids(count: int) -> list[int]:
    return [random.randrange(FIRST_ID, LAST_ID) for _ in range(count)]


def peak_rss_bytes() -> int:
    """VmHWM is reset by exec; ru_maxrss would include the parent's peak."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class LlamaCpp:
    """Through its C interface. Options: `repack`: whether weights may be repacked for the CPU (the default)."""

    @staticmethod
    def library():
        import llama_cpp

        return llama_cpp

    def __init__(self, path: pathlib.Path, threads: int, options: dict, item: dict):
        self.lib, self.threads = self.library(), threads
        self.lib.llama_backend_init()
        self.load(path, options)
        if not self.model:
            raise RuntimeError(f"{type(self).__name__} cannot load {path}")

    def load(self, path: pathlib.Path, options: dict) -> None:
        import ctypes

        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.silent = kind(lambda *_: None)
        self.lib.llama_log_set(self.silent, ctypes.c_void_p(0))
        params = self.lib.llama_model_default_params()
        params.use_extra_bufts = options.get("repack", True)
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)

    def context(self, tokens: int, sequences: int):
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = tokens, 4096, 512, sequences
        params.n_threads = params.n_threads_batch = self.threads
        params.kv_unified = True
        return self.lib.llama_init_from_model(self.model, params)

    def feed(self, context, rows: list[list[int]], position: int) -> float:
        """Seconds of one call; every sequence's last token asks for logits."""
        batch = self.lib.llama_batch_init(sum(map(len, rows)), 0, 1)
        at = 0
        for sequence, tokens in enumerate(rows):
            for i, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position + i, 1
                batch.seq_id[at][0] = sequence
                batch.logits[at] = i + 1 == len(tokens)
                at += 1
        batch.n_tokens = at
        start = time.perf_counter()
        if self.lib.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.lib.llama_get_logits_ith(context, -1)
        seconds = time.perf_counter() - start
        self.lib.llama_batch_free(batch)
        return seconds

    def prefill(self, tokens: int) -> float:
        context = self.context(tokens + 8, 1)
        seconds = self.feed(context, [token_ids(tokens)], 0)
        self.lib.llama_free(context)
        return seconds

    def decode(self, depth: int, generate: int, batch: int) -> float:
        context = self.context((depth + generate + 8) * batch, batch)
        self.feed(context, [token_ids(depth) for _ in range(batch)], 0)
        steps = [[token_ids(1) for _ in range(batch)] for _ in range(generate)]
        seconds = sum(self.feed(context, step, depth + i) for i, step in enumerate(steps))
        self.lib.llama_free(context)
        return seconds


class IkLlamaCpp(LlamaCpp):
    """The same interface with other structs. Weights are repacked when they are loaded, attention is its fused kernel."""

    @staticmethod
    def library():
        from ik_llama_cpp import _ctypes_api

        return _ctypes_api

    def load(self, path: pathlib.Path, options: dict) -> None:
        params = self.lib.llama_model_default_params()
        params.repack_tensors = options.get("repack", True)
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)

    def context(self, tokens: int, sequences: int):
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = tokens, 4096, 512, sequences
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn = True
        return self.lib.llama_init_from_model(self.model, params)


class OpenVino:
    """GenAI's pipelines. Options: `properties` of the CPU plugin (by default its own choice)."""

    def __init__(self, path: pathlib.Path, threads: int, options: dict, item: dict):
        import numpy
        import openvino
        import openvino_genai

        self.np, self.ov, self.genai = numpy, openvino, openvino_genai
        properties = {"INFERENCE_NUM_THREADS": threads, **options.get("properties", {})}
        if item.get("batch", 1) > 1:
            scheduler = self.genai.SchedulerConfig()
            scheduler.cache_size, scheduler.max_num_seqs, scheduler.enable_prefix_caching = 1, item["batch"], False
            self.pipe = self.genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        else:
            backend = options.get("backend", "PA")
            self.pipe = self.genai.LLMPipeline(str(path), "CPU", ATTENTION_BACKEND=backend, **properties)

    def config(self, tokens: int):
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos, config.do_sample = True, False
        return config

    def ids(self, tokens: int):
        return self.ov.Tensor(self.np.array([token_ids(tokens)], dtype=self.np.int64))

    def one(self, prompt: int, generate: int):
        ones = self.ov.Tensor(self.np.ones((1, prompt), dtype=self.np.int64))
        return self.pipe.generate(self.genai.TokenizedInputs(self.ids(prompt), ones), self.config(generate)).perf_metrics

    def many(self, prompt: int, generate: int, batch: int) -> float:
        inputs, configs = [self.ids(prompt) for _ in range(batch)], [self.config(generate) for _ in range(batch)]
        start = time.perf_counter()
        self.pipe.generate(inputs, configs)
        return time.perf_counter() - start

    def prefill(self, tokens: int) -> float:
        return self.one(tokens, 1).get_ttft().mean / 1e3

    def decode(self, depth: int, generate: int, batch: int) -> float:
        if batch == 1:
            return generate * self.one(depth, generate + 1).get_tpot().mean / 1e3
        return self.many(depth, generate + 2, batch) - self.many(depth, 2, batch)


class CTranslate2:
    def __init__(self, path: pathlib.Path, threads: int, options: dict, item: dict):
        import ctranslate2

        # int8 with float32 between the matrices, unless options say otherwise.
        kind = options.get("compute_type", "int8")
        self.generator = ctranslate2.Generator(
            str(path), device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads)

    def timed(self, prompt: int, generate: int, batch: int = 1) -> float:
        prompts = [[f"t{i}" for i in token_ids(prompt)] for _ in range(batch)]
        start = time.perf_counter()
        self.generator.generate_batch(prompts, max_length=generate, min_length=generate, sampling_topk=1,
                                      end_token=[], include_prompt_in_result=False)
        return time.perf_counter() - start

    def prefill(self, tokens: int) -> float:
        return self.timed(tokens, 1)

    def decode(self, depth: int, generate: int, batch: int) -> float:
        return self.timed(depth, generate + 1, batch) - self.timed(depth, 1, batch)


# How a peer is run, the name of its format, how a model is written in it, and the ending of a file ("": a directory).
ENGINES = {
    "llama.cpp": (LlamaCpp, "gguf", models.write_gguf, ".gguf"),
    "ik_llama.cpp": (IkLlamaCpp, "gguf", models.write_gguf, ".gguf"),
    "OpenVINO": (OpenVino, "OpenVINO", models.write_openvino, ""),
    "CTranslate2": (CTranslate2, "CTranslate2", models.write_ctranslate2, ""),
}


def model_path(work: pathlib.Path, task: dict) -> pathlib.Path:
    _, name, _, ending = ENGINES[task["engine"]]
    return work / f"{task['shape']}-{name}-{task['precision']}{ending}"


def make(task: dict) -> None:
    path = model_path(pathlib.Path(task["work"]), task)
    if path.exists():
        return
    partial = path.with_name(path.name + ".partial")
    if partial.is_dir():
        shutil.rmtree(partial)
    ENGINES[task["engine"]][2](models.SHAPES[task["shape"]], task["precision"], partial)
    partial.rename(path)


def run(task: dict) -> dict:
    random.seed(1)
    item = task["item"]
    kind = ENGINES[task["engine"]][0]
    start = time.perf_counter()
    engine = kind(model_path(pathlib.Path(task["work"]), task), task["threads"], task["options"], item)
    load = time.perf_counter() - start
    if item["kind"] == "prefill":
        engine.prefill(min(item["prompt"], 512))
        value = item["prompt"] / engine.prefill(item["prompt"])
    else:
        engine.decode(16, 4, item["batch"])
        seconds = engine.decode(max(item["depth"], 1), item["generate"], item["batch"])
        value = item["batch"] * item["generate"] / seconds
    return {"value": value, "load_s": load, "peak_rss_bytes": peak_rss_bytes()}


if __name__ == "__main__":
    command, task = sys.argv[1], json.loads(sys.argv[2])
    if command == "make":
        make(task)
    else:
        print("RESULT " + json.dumps(run(task)))
