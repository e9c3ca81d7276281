"""One engine and one load in a process: `serving.py '{"engine": ..., "load": ...}'`. Called by `serve.py`.

Prints "RESULT " and JSON: what `loads.summary` says. Runs in the environment that `bench.py` makes. Every engine batches
requests continuously, keeps prefixes, decodes greedily and generates as many tokens as are asked for.
"""
import json
import pathlib
import queue
import sys
import threading
import time

import engines
import loads

# Bytes, sequences and tokens for which engines make room before they begin.
CACHE_GB = 4
MOST_SEQUENCES = 64


class Clawdbot:
    """The Python package with its thread as the driver: a thread of the client reads each stream."""

    def __init__(self, task: dict):
        import clawdbot

        runtime = clawdbot.Runtime(threads=task["threads"], driver="thread", memory_budget=(CACHE_GB + 2) << 30)
        options = {"max_batch": MOST_SEQUENCES, **task["options"]}
        if task["file"]:
            self.model = clawdbot.Model.from_pretrained(task["file"], runtime=runtime, **options)
        else:
            self.model = clawdbot.Model.from_shape(task["shape"], runtime=runtime, weights=task["precision"], **options)
        self.events: queue.SimpleQueue = queue.SimpleQueue()

    def submit(self, number: int, prompt: list[int], generate: int) -> None:
        stream = self.model.stream(prompt, max_tokens=generate, min_tokens=generate, temperature=0.0)

        def read() -> None:
            for event in stream:
                ended = event.kind == "done"
                if ended or event.kind == "token":
                    self.events.put((number, time.perf_counter(), [] if ended else [event.id], ended))

        threading.Thread(target=read, daemon=True).start()

    def poll(self, seconds: float) -> list:
        try:
            found = [self.events.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self.events.empty():
            found.append(self.events.get())
        return found


class OpenVino:
    """GenAI's continuous batching, with its prefix cache."""

    def __init__(self, task: dict):
        import numpy
        import openvino
        import openvino_genai

        self.np, self.ov, self.genai = numpy, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs = CACHE_GB, MOST_SEQUENCES
        scheduler.enable_prefix_caching = True
        for name, value in task["options"].get("scheduler", {}).items():
            setattr(scheduler, name, value)
        properties = {"INFERENCE_NUM_THREADS": task["threads"], **task["options"].get("properties", {})}
        self.pipe = openvino_genai.ContinuousBatchingPipeline(task["path"], scheduler, "CPU", properties)
        self.running: dict = {}

    def submit(self, number: int, prompt: list[int], generate: int) -> None:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = generate
        config.ignore_eos, config.do_sample = True, False
        tensor = self.ov.Tensor(self.np.array([prompt], dtype=self.np.int64))
        self.running[number] = self.pipe.add_request(number, tensor, config)

    def poll(self, seconds: float) -> list:
        self.pipe.step()
        now, found = time.perf_counter(), []
        for number, handle in list(self.running.items()):
            tokens = []
            while handle.can_read():
                tokens += [token for output in handle.read().values() for token in output.generated_ids]
            ended = handle.get_status() != self.genai.GenerationStatus.RUNNING
            if tokens or ended:
                found.append((number, now, tokens, ended))
            if ended:
                del self.running[number]
        return found


class Slot:
    """A sequence of llama.cpp. `tokens`: what its cache holds; `prompt`: what is still to be computed."""

    def __init__(self, number: int):
        self.number, self.request, self.tokens, self.prompt, self.left = number, None, [], [], 0


class LlamaCpp(engines.LlamaCpp):
    """`llama_decode` with the unified cache, scheduled as its server does: a batch has a token of every sequence that
    decodes and fills up with prompts; a new request takes over the longest beginning that any sequence has cached."""

    BATCH = 512

    def __init__(self, task: dict):
        super().__init__(pathlib.Path(task["path"]), task["threads"], task["options"], {})
        import numpy

        self.np = numpy
        self.ctx = self.context(task["cells"], MOST_SEQUENCES)
        self.memory = self.lib.llama_get_memory(self.ctx)
        vocab = self.lib.llama_model_get_vocab(self.model)
        self.vocab = self.lib.llama_vocab_n_tokens(vocab)
        self.slots = [Slot(number) for number in range(MOST_SEQUENCES)]
        self.batch = self.lib.llama_batch_init(self.BATCH + MOST_SEQUENCES, 0, 1)
        self.waiting: list = []
        # Whether any request begins as an earlier one did.
        self.keeps = task["keeps"]

    def submit(self, number: int, prompt: list[int], generate: int) -> None:
        self.waiting.append((number, prompt, generate))

    def admit(self) -> None:
        idle = [slot for slot in self.slots if slot.request is None]
        while self.waiting and idle:
            number, prompt, generate = self.waiting.pop(0)

            def common(slot: Slot) -> int:
                pairs = zip(slot.tokens, prompt[:-1])
                return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(slot.tokens), len(prompt) - 1))

            best = max(self.slots, key=common)
            kept = common(best)
            slot = best if best.request is None and kept > 0 else min(idle, key=lambda slot: len(slot.tokens))
            idle.remove(slot)
            if slot is best:
                self.lib.llama_memory_seq_rm(self.memory, slot.number, kept, -1)
            else:
                self.lib.llama_memory_seq_rm(self.memory, slot.number, -1, -1)
                self.lib.llama_memory_seq_cp(self.memory, best.number, slot.number, 0, kept)
            slot.request, slot.tokens, slot.prompt, slot.left = number, prompt[:kept], prompt[kept:], generate

    def poll(self, seconds: float) -> list:
        self.admit()
        busy = [slot for slot in self.slots if slot.request is not None]
        busy.sort(key=lambda slot: len(slot.prompt) > 1)
        batch, at, asked = self.batch, 0, []
        for slot in busy:
            rows = slot.prompt[:max(self.BATCH - at, 0)]
            for i, token in enumerate(rows):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, len(slot.tokens) + i, 1
                batch.seq_id[at][0] = slot.number
                batch.logits[at] = i + 1 == len(slot.prompt)
                at += 1
            if rows and len(rows) == len(slot.prompt):
                asked.append((slot, at - 1))
            slot.tokens += rows
            slot.prompt = slot.prompt[len(rows):]
        batch.n_tokens = at
        code = self.lib.llama_decode(self.ctx, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode: {code}")
        found = []
        for slot, row in asked:
            logits = self.np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.ctx, row), shape=(self.vocab,))
            token = int(logits.argmax())
            slot.left -= 1
            slot.prompt = [token]
            found.append((slot.request, time.perf_counter(), [token], slot.left == 0))
            if slot.left == 0:
                slot.request, slot.prompt = None, []
                if not self.keeps:
                    # Attention would compute their cells too, and mask them.
                    slot.tokens = []
                    self.lib.llama_memory_seq_rm(self.memory, slot.number, -1, -1)
        return found


ENGINES = {"clawdbot": Clawdbot, "llama.cpp": LlamaCpp, "OpenVINO": OpenVino}


def main() -> None:
    task = json.loads(sys.argv[1])
    if task["engine"] != "clawdbot":
        task["path"] = task["file"] or str(engines.model_path(pathlib.Path(task["work"]), task))
    name, arguments = task["load"]
    clients = getattr(loads, name)(*arguments)
    # Room for everything at once: nothing that was cached need be given up.
    task["cells"] = sum(len(turn.tokens) + turn.generate for client in clients for turn in client.turns) + 1024
    engine = ENGINES[task["engine"]](task)
    # Warm up with prompts of their own.
    loads.run(engine, [loads.Client([loads.Turn(list(range(200, 240)), 4)])])
    records = loads.run(engine, clients)
    print("RESULT " + json.dumps({**loads.summary(records), "peak_rss_bytes": engines.peak_rss_bytes()}), flush=True)
    # Some peers hang while they are taken down.
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
