"""Prints what the exported model writes; without a prompt, a set of samples."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from reference import ASSETS, Reference

SAMPLES = (  # text after <s>, temperature, seed
    ("", 0.0, 0),
    ("Once upon a time", 0.0, 0),
    ("Once upon a time", 0.7, 1),
    ("Once upon a time", 0.7, 2),
    ("Once upon a time", 0.7, 3),
)
CHATS = (
    (["Tell me a story about a fox named Pip who lost a red kite."], 0.0, 0),
    (["Hello!", "Write a story about a brave penguin named Zelda who was afraid of the dark.", "What did Zelda learn?"], 0.7, 4),
)


def pick(logits: np.ndarray, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """A token drawn from ``logits [V]``; the most likely one at temperature 0."""
    if temperature == 0:
        return int(np.argmax(logits))
    p = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-p)
    mass = np.cumsum(p[order] / p.sum())
    kept = order[: int(np.searchsorted(mass, top_p)) + 1]
    return int(rng.choice(kept, p=p[kept] / p[kept].sum()))


class Writer:
    """Continues text with the exported model."""

    def __init__(self, assets: Path, top_p: float, max_tokens: int) -> None:
        self.model, self.top_p, self.max_tokens = Reference(assets), top_p, max_tokens
        self.tokenizer = Tokenizer.from_file(str(assets / "tokenizer.json"))
        self.stops = {self.tokenizer.token_to_id(t) for t in ("</s>", "<|end|>")}

    def write(self, text: str, temperature: float, seed: int) -> str:
        """What follows ``text`` (special tokens spelled out), up to a stop token."""
        rng = np.random.default_rng(seed)
        self.model.reset()
        logits = self.model.forward(self.tokenizer.encode(text, add_special_tokens=False).ids)[-1]
        ids: list[int] = []
        while len(ids) < self.max_tokens and (token := pick(logits, temperature, self.top_p, rng)) not in self.stops:
            ids.append(token)
            logits = self.model.forward([token])[-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def story(self, start: str, temperature: float, seed: int) -> str:
        """A plain story that begins with ``start``."""
        return start + self.write("<s>" + start, temperature, seed)

    def chat(self, requests: list[str], temperature: float, seed: int) -> str:
        """A conversation in which the model answers each request."""
        text, shown = "<s>", []
        for request in requests:
            text += f"<|user|>\n{request}<|end|>\n<|assistant|>\n"
            answer = self.write(text, temperature, seed)
            text += f"{answer}<|end|>\n"
            shown.append(f"user: {request}\nassistant: {answer}")
        return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--story", help="begin a plain story with this text")
    parser.add_argument("--chat", nargs="+", help="user turns of a conversation")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=500)
    args = parser.parse_args()
    writer = Writer(args.assets, args.top_p, args.max_tokens)
    if args.story is not None:
        print(writer.story(args.story, args.temperature, args.seed))
    elif args.chat:
        print(writer.chat(args.chat, args.temperature, args.seed))
    else:
        for write, cases in ((writer.story, SAMPLES), (writer.chat, CHATS)):
            for start, temperature, seed in cases:
                print(f"--- {start!r}, temperature {temperature}, seed {seed}")
                print(write(start, temperature, seed), end="\n\n")


if __name__ == "__main__":
    main()
