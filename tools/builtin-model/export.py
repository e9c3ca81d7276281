"""Writes the trained model as the files the Rust crate embeds."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer

import corpus
import int8
from model import Config, Params, loss_fn
from reference import ASSETS
from train import HELD_OUT_DOCUMENTS, load_tree, make_batches

SIZE_LIMIT = 4_000_000
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] in ['user', 'assistant'] %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|end|>\\n' }}"
    "{% else %}{{ raise_exception('the built-in story model knows the roles user and assistant, and no ' ~ message['role']) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def config_json(cfg: Config, bos: int, eos: int) -> dict:
    """``config.json`` of a ``LlamaForCausalLM``."""
    sizes = asdict(cfg)
    theta = sizes.pop("rope_theta")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **sizes,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "dtype": "bfloat16",
    }


def generation_json(bos: int, eos: int, end: int) -> dict:
    """``generation_config.json``: a story ends at ``</s>``, a chat turn at ``<|end|>``."""
    return {"bos_token_id": bos, "eos_token_id": [eos, end], "do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9}


def tokenizer_json(cfg: Config) -> dict:
    """``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": corpus.BOS,
        "eos_token": corpus.EOS,
        "unk_token": "<unk>",
        "additional_special_tokens": [corpus.USER, corpus.ASSISTANT, corpus.END],
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": cfg.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    }


def held_out_loss(cfg: Config, params: Params, tokenizer: Tokenizer, seed: int) -> float:
    """Nats per token on the held-out documents."""
    evaluate = jax.jit(loss_fn, static_argnums=0)
    sums = [evaluate(cfg, params, b) for b in make_batches(tokenizer, seed, "heldout", range(HELD_OUT_DOCUMENTS), 2560)]
    return float(sum(s for s, _ in sums) / sum(n for _, n in sums))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("build"), help="where tokenizer.json and best.npz are")
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=1, help="seed of the held-out documents")
    args = parser.parse_args()

    cfg = Config()
    tokenizer = Tokenizer.from_file(str(args.dir / "tokenizer.json"))
    bos, eos, end = (tokenizer.token_to_id(t) for t in (corpus.BOS, corpus.EOS, corpus.END))
    with np.load(args.dir / "best.npz") as archive:
        params, step = load_tree(archive, "params"), int(archive["step"])
    full = held_out_loss(cfg, params, tokenizer, args.seed)

    args.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.dir / "tokenizer.json", args.out / "tokenizer.json")
    files = {
        "config.json": config_json(cfg, bos, eos),
        "generation_config.json": generation_json(bos, eos, end),
        "tokenizer_config.json": tokenizer_json(cfg),
    }
    for name, content in files.items():
        (args.out / name).write_text(json.dumps(content, indent=2) + "\n")
    weights = args.out / "model.safetensors"
    training = f"tools/builtin-model, step {step}, held-out {full:.4f} nats/token in float32"
    metadata = {"license": "MIT OR Apache-2.0", "training": training}
    int8.save(weights, {name: np.asarray(x) for name, x in params.items()}, metadata)

    exported = held_out_loss(cfg, int8.load(weights), tokenizer, args.seed)
    for label, nats in (("float32", full), ("int8", exported)):
        print(f"{label:8} held-out {nats:.4f} nats/token, perplexity {math.exp(nats):.4f}")
    sizes = {path.name: path.stat().st_size for path in sorted(args.out.iterdir())}
    for name, size in sizes.items():
        print(f"{size:9} {name}")
    if sum(sizes.values()) > SIZE_LIMIT:
        raise SystemExit(f"the export has {sum(sizes.values())} bytes, more than {SIZE_LIMIT}")


if __name__ == "__main__":
    main()
