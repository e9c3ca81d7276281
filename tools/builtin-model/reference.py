"""Reference engine: the exported model in numpy float32, independent of the training code.

As a script it writes the golden file that the Rust engine is tested against.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import int8

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "clawdbot-core/assets/builtin"
GOLDEN = ROOT / "clawdbot-core/tests/golden/builtin/reference.json"
PROMPTS = (
    "<s>Once upon a time",
    "<s>There once was a brave little fox named Pip. He lived in a small house near the river. Pip had a red kite",
    "<s><|user|>\nTell me a story about a bear named Ruby who lost a golden key.<|end|>\n<|assistant|>\n",
)
GREEDY_TOKENS = 48


class Reference:
    """One sequence that the model reads; keeps the keys and values of its tokens."""

    def __init__(self, assets: Path = ASSETS) -> None:
        self.config = json.loads((assets / "config.json").read_text())
        self.weights = int8.load(assets / "model.safetensors")
        self.reset()

    def reset(self) -> None:
        """Forgets all tokens."""
        empty = np.zeros((0, self.config["num_key_value_heads"], self.config["head_dim"]), np.float32)
        self.keys = [empty] * self.config["num_hidden_layers"]
        self.values = list(self.keys)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """RMSNorm of ``x [T, D]``."""
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.config["rms_norm_eps"]))
        return x / scale * self.weights[name + ".weight"]

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        """``x [T, in]`` times the transposed matrix ``[out, in]``: ``[T, out]``."""
        return x @ self.weights[name + ".weight"].T

    def _rope(self, x: np.ndarray, first: int) -> np.ndarray:
        """Rotates ``x [T, heads, E]``, whose first row is at position ``first``."""
        e = self.config["head_dim"]
        inv_freq = self.config["rope_parameters"]["rope_theta"] ** (-np.arange(0, e, 2) / e)
        angles = np.outer(np.arange(first, first + len(x)), inv_freq)
        cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)
        lo, hi = x[..., : e // 2], x[..., e // 2 :]
        return np.concatenate([lo * cos - hi * sin, hi * cos + lo * sin], axis=-1)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        """Causal grouped-query attention of the new rows ``x [T, D]`` over all tokens so far: ``[T, D]``."""
        p, e = f"model.layers.{layer}.self_attn.", self.config["head_dim"]
        t, first = len(x), len(self.keys[layer])
        q, k, v = (self._linear(x, f"{p}{n}_proj").reshape(t, -1, e) for n in "qkv")
        q, k = self._rope(q, first), self._rope(k, first)
        self.keys[layer] = np.concatenate([self.keys[layer], k])
        self.values[layer] = np.concatenate([self.values[layer], v])
        queries_per_key = q.shape[1] // k.shape[1]
        keys = np.repeat(self.keys[layer], queries_per_key, axis=1)
        values = np.repeat(self.values[layer], queries_per_key, axis=1)
        scores = np.einsum("the,she->hts", q, keys) / np.float32(np.sqrt(e))
        scores = np.where(np.tri(t, len(keys), first, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._linear(np.einsum("hts,she->the", weights, values).reshape(t, -1), p + "o_proj")

    def forward(self, ids: list[int]) -> np.ndarray:
        """Appends ``ids`` to the sequence; returns their logits ``[len(ids), V]``."""
        embed = self.weights["model.embed_tokens.weight"]
        x = embed[ids]
        for i in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{i}."
            x = x + self._attention(i, self._norm(x, p + "input_layernorm"))
            h = self._norm(x, p + "post_attention_layernorm")
            gate = self._linear(h, p + "mlp.gate_proj")
            gate = gate / (1 + np.exp(-gate)) * self._linear(h, p + "mlp.up_proj")
            x = x + self._linear(gate, p + "mlp.down_proj")
        return self._norm(x, "model.norm") @ embed.T


def golden_case(model: Reference, tokenizer: Tokenizer, text: str) -> dict:
    """What an engine must reproduce for the prompt ``text``; ``greedy`` ignores stop tokens."""
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    model.reset()
    logits = model.forward(prompt)
    last, greedy = logits[-1], []
    while len(greedy) < GREEDY_TOKENS:
        greedy.append(int(np.argmax(last)))
        last = model.forward(greedy[-1:])[-1]
    return {
        "prompt_text": text,
        "prompt": prompt,
        "last_logits": [round(float(x), 6) for x in logits[-1]],
        "argmax": [int(i) for i in logits.argmax(axis=-1)],
        "greedy": greedy,
        "greedy_text": tokenizer.decode(greedy, skip_special_tokens=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the golden file for the Rust engine.")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--out", type=Path, default=GOLDEN)
    args = parser.parse_args()
    model, tokenizer = Reference(args.assets), Tokenizer.from_file(str(args.assets / "tokenizer.json"))
    cases = [golden_case(model, tokenizer, text) for text in PROMPTS]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases -> {args.out}")


if __name__ == "__main__":
    main()
