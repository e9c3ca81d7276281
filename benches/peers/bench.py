#!/usr/bin/env python3
"""Compare `clawdbot bench` with llama.cpp on the same shape, in alternation, on this machine.

    python3 benches/peers/bench.py llama-3.2-1b [--repeats 5] [--threads 2] [--json OUT]

The first run makes a virtual environment in --work and installs llama-cpp-python there, compiled for this CPU (some
minutes). Both engines get random weights of the named shape: clawdbot int8, llama.cpp Q8_0. Each repeat runs both, one
after the other, and gives a pair; ratios are medians over the pairs, so a machine that is slow for a while is slow
for both.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# hidden, layers, heads, KV heads, intermediate, vocabulary, head dimension
SHAPES = {
    "llama-3.2-1b": ("llama", 2048, 16, 32, 8, 8192, 128256, 64),
    "qwen2.5-0.5b": ("qwen2", 896, 24, 14, 2, 4864, 151936, 64),
}
METRICS = ["prefill_tokens_per_s", "decode_tokens_per_s"]


def environment(work: pathlib.Path) -> pathlib.Path:
    """The Python of an environment with llama-cpp-python, made when it is not there."""
    python = work / "venv" / "bin" / "python"
    if not (work / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
        variables = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
        install = [python, "-m", "pip", "install", "-q", "llama-cpp-python", "gguf", "numpy"]
        subprocess.run(install, check=True, env=variables)
        (work / "installed").touch()
    return python


def write_gguf(shape: str, path: pathlib.Path) -> None:
    """A Q8_0 file of random weights. (Runs in the environment.)"""
    import gguf
    import numpy as np

    arch, hidden, layers, heads, kv_heads, intermediate, vocab, head_dim = SHAPES[shape]
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_context_length(32768)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(intermediate)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    if arch == "llama":
        writer.add_rope_dimension_count(head_dim)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    # A vocabulary has to be there, but is never used: both engines get token ids.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(vocab)])
    writer.add_token_types([gguf.TokenType.NORMAL] * vocab)
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = np.empty((rows, columns // 32, 34), dtype=np.uint8)
        blocks[..., :2] = np.full((rows, columns // 32, 1), 0.0005, dtype=np.float16).view(np.uint8)
        blocks[..., 2:] = rng.integers(-127, 128, (rows, columns // 32, 32), dtype=np.int8).view(np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def vector(name: str, length: int, value: float) -> None:
        writer.add_tensor(name, np.full(length, value, dtype=np.float32))

    matrix("token_embd.weight", vocab, hidden)
    vector("output_norm.weight", hidden, 1.0)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        vector(prefix + "attn_norm.weight", hidden, 1.0)
        vector(prefix + "ffn_norm.weight", hidden, 1.0)
        for name, rows in [("q", heads * head_dim), ("k", kv_heads * head_dim), ("v", kv_heads * head_dim)]:
            matrix(f"{prefix}attn_{name}.weight", rows, hidden)
            if arch == "qwen2":
                vector(f"{prefix}attn_{name}.bias", rows, 0.0)
        matrix(prefix + "attn_output.weight", hidden, heads * head_dim)
        matrix(prefix + "ffn_gate.weight", intermediate, hidden)
        matrix(prefix + "ffn_up.weight", intermediate, hidden)
        matrix(prefix + "ffn_down.weight", hidden, intermediate)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama(path: pathlib.Path, prompt: int, generate: int, threads: int, repack: bool) -> dict:
    """One measurement of llama.cpp through its C interface. (Runs in the environment.)"""
    import ctypes

    import llama_cpp as lc

    lc.llama_backend_init()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    model_params = lc.llama_model_default_params()
    model_params.use_extra_bufts = repack
    model = lc.llama_model_load_from_file(str(path).encode(), model_params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    params = lc.llama_context_default_params()
    params.n_ctx = prompt + generate + 64
    params.n_batch = params.n_ubatch = max(prompt, 512)
    params.n_threads = params.n_threads_batch = threads
    context = lc.llama_init_from_model(model, params)

    def feed(tokens: list[int], start: int) -> None:
        batch = lc.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, start + i, 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i + 1 == len(tokens)
        if lc.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        lc.llama_get_logits_ith(context, -1)
        lc.llama_batch_free(batch)

    ids = [300 + i * 7 % 1600 for i in range(prompt)]
    feed(ids[:64], 0)
    lc.llama_memory_clear(lc.llama_get_memory(context), True)
    start = time.perf_counter()
    feed(ids, 0)
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(generate):
        feed([300 + i], prompt + i)
    decode = time.perf_counter() - start
    return {"prefill_tokens_per_s": prompt / prefill, "decode_tokens_per_s": generate / decode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers")
    parser.add_argument("--json", type=pathlib.Path, help="write all measurements here")
    parser.add_argument("--child", choices=["write", "run", "run-without-repacking"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    gguf = args.work / f"{args.shape}-Q8_0.gguf"
    if args.child == "write":
        partial = gguf.with_suffix(".partial")
        write_gguf(args.shape, partial)
        partial.rename(gguf)
        return
    if args.child:
        repack = args.child == "run"
        print("RESULT " + json.dumps(run_llama(gguf, args.prompt, args.generate, args.threads, repack)))
        return

    python = environment(args.work)
    child = [python, __file__, args.shape, "--work", args.work, "--threads", str(args.threads),
             "--prompt", str(args.prompt), "--generate", str(args.generate), "--child"]
    if not gguf.exists():
        subprocess.run([*child, "write"], check=True)
    cargo = ["cargo", "build", "--release", "--quiet", "-p", "clawdbot-cli", "--message-format", "json-render-diagnostics"]
    messages = subprocess.run(cargo, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    binary = next(m["executable"] for m in map(json.loads, messages) if m.get("executable"))
    ours = [binary, "bench", "--shape", args.shape, "--weights", "int8", "--threads", str(args.threads), "--repeat", "1",
            "--prompt", str(args.prompt), "--generate", str(args.generate), "--json"]

    # llama-cpp-python 0.3.36 repacks weights for AMX where the CPU has it, and crashes in its first decode there.
    mode = "run"
    if subprocess.run([*child, mode], capture_output=True).returncode != 0:
        mode = "run-without-repacking"
        print("llama.cpp crashes with repacked weights on this CPU: running it without", file=sys.stderr)
    pairs = []
    for repeat in range(args.repeats):
        # The limits of the machine are measured once, with the first pair.
        mine = subprocess.run(ours + (["--no-limits"] if repeat else []), check=True, capture_output=True, text=True).stdout
        theirs = subprocess.run([*child, mode], check=True, capture_output=True, text=True).stdout
        line = next(line for line in theirs.splitlines() if line.startswith("RESULT "))
        pairs.append({"clawdbot": json.loads(mine), "llama.cpp": json.loads(line[len("RESULT "):])})
        shown = [f"{m.split('_')[0]} {pairs[-1]['clawdbot'][m]:.1f} : {pairs[-1]['llama.cpp'][m]:.1f}" for m in METRICS]
        print(f"pair {repeat + 1}: " + ", ".join(shown), file=sys.stderr)

    version = subprocess.run([python, "-c", "import llama_cpp; print(llama_cpp.__version__)"], check=True,
                             capture_output=True, text=True).stdout.strip()
    print(f"{args.shape}, {args.threads} threads, prompt {args.prompt}, generate {args.generate}, "
          f"{args.repeats} pairs; clawdbot int8 ({pairs[0]['clawdbot']['kernels']}), "
          f"llama-cpp-python {version} Q8_0 ({mode})")
    print("| | clawdbot | llama.cpp | ratio (median of pairs) | min | max |\n|---|--:|--:|--:|--:|--:|")
    for metric in METRICS:
        mine = [pair["clawdbot"][metric] for pair in pairs]
        theirs = [pair["llama.cpp"][metric] for pair in pairs]
        ratios = [a / b for a, b in zip(mine, theirs)]
        print(f"| {metric} | {statistics.median(mine):.1f} | {statistics.median(theirs):.1f} | "
              f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")
    if args.json:
        args.json.write_text(json.dumps({"shape": args.shape, "llama_cpp": version, "llama_cpp_mode": mode, "pairs": pairs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
