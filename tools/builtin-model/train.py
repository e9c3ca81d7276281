"""Trains the model: AdamW with warm-up, a constant rate and a final decay, one pass over fresh documents.

The first steps read only the openings of documents: names are repeated there
at short distances, which teaches the model early to copy them.

Every run with the same arguments sees the same batches in the same order, and
a run with more ``--documents`` sees the same chunks of them first, so a run can
be stopped before its decay and resumed with another length. ``latest.npz``
holds all that ``--resume`` needs, ``best.npz`` the parameters
with the lowest held-out loss.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

import corpus
from model import PAD, Config, Params, init_params, loss_fn

ROW_LENGTHS = (64, 96, 256, 288, 320, 352, 416, 512, 640, 768)  # a document goes into the shortest row that holds it
OPENING_TOKENS = 96
HELD_OUT_DOCUMENTS = 160
CHUNK = 2000  # documents whose batches are shuffled together
WARM_UP, DECAY = 60, 200  # steps at the start and at the end
WEIGHT_DECAY, CLIP, BETAS, EPS = 0.1, 1.0, (0.9, 0.98), 1e-9


def padded(rows: list[list[int]], size: int, length: int) -> np.ndarray:
    """``rows`` padded with ``PAD`` to a batch ``[size, length]``."""
    batch = np.full((size, length), PAD, np.int32)
    for target, ids in zip(batch, rows):
        target[: len(ids)] = ids
    return batch


def make_batches(
    tokenizer: Tokenizer, seed: int, split: str, documents: range, tokens: int, cut: int | None = None
) -> list[np.ndarray]:
    """Batches ``[B, T]`` of one document per row, about ``tokens`` tokens each, shuffled within chunks.

    With ``cut``, only the first ``cut`` tokens of a document are kept.
    """
    batches: list[np.ndarray] = []
    for start in range(documents.start, documents.stop, CHUNK):
        texts = [corpus.document(seed, split, i) for i in range(start, min(start + CHUNK, documents.stop))]
        rows: dict[int, list[list[int]]] = {length: [] for length in ROW_LENGTHS}
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = encoding.ids[:cut]
            fitting = [length for length in ROW_LENGTHS if len(ids) <= length]
            if fitting:
                rows[fitting[0]].append(ids)
        chunk = [
            padded(ids[at : at + size], size, length)
            for length, ids in rows.items()
            for size in [tokens // length]
            for at in range(0, len(ids), size)
        ]
        batches += [chunk[i] for i in np.random.default_rng([seed, start]).permutation(len(chunk))]
    return batches


def learning_rate(step: jax.Array, steps: int, peak: float) -> jax.Array:
    """Linear warm-up to ``peak``, constant, then a linear decay towards zero."""
    return peak * jnp.clip(jnp.minimum((step + 1) / WARM_UP, (steps - step) / DECAY), 0.0, 1.0)


def train_step(
    cfg: Config, steps: int, peak: float, params: Params, m: Params, v: Params, step: jax.Array, tokens: jax.Array
) -> tuple[Params, Params, Params, jax.Array]:
    """One AdamW update on ``tokens [B, T]``; returns the new state and the mean loss in nats per token."""

    def mean_loss(p: Params) -> jax.Array:
        total, count = loss_fn(cfg, p, tokens)
        return total / count

    loss, grads = jax.value_and_grad(mean_loss)(params)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
    scale = jnp.minimum(1.0, CLIP / (norm + 1e-6))
    lr = learning_rate(step, steps, peak)
    (b1, b2), t = BETAS, step + 1.0
    new_params, new_m, new_v = {}, {}, {}
    for name, p in params.items():
        g = grads[name] * scale
        new_m[name] = b1 * m[name] + (1 - b1) * g
        new_v[name] = b2 * v[name] + (1 - b2) * g * g
        update = (new_m[name] / (1 - b1**t)) / (jnp.sqrt(new_v[name] / (1 - b2**t)) + EPS)
        decay = WEIGHT_DECAY if p.ndim == 2 else 0.0
        new_params[name] = p - lr * (update + decay * p)
    return new_params, new_m, new_v, loss


def save(path: Path, trees: dict[str, Params], **scalars: float) -> None:
    """Writes the trees as ``tree/name`` entries, replacing ``path`` in one step."""
    arrays = {f"{tree}/{name}": np.asarray(x) for tree, params in trees.items() for name, x in params.items()}
    partial_file = path.with_suffix(".tmp.npz")
    np.savez(partial_file, **arrays, **scalars)
    partial_file.replace(path)


def load_tree(archive: np.lib.npyio.NpzFile, tree: str) -> Params:
    """The inverse of ``save`` for one tree."""
    prefix = tree + "/"
    return {k.removeprefix(prefix): jnp.asarray(archive[k]) for k in archive.files if k.startswith(prefix)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the built-in model.")
    parser.add_argument("--dir", type=Path, default=Path("build"), help="where tokenizer.json is and checkpoints go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=6500, help="documents read in full (default: %(default)s)")
    parser.add_argument("--openings", type=int, default=8000, help="documents whose openings alone are read first")
    parser.add_argument("--batch-tokens", type=int, default=2560, help="tokens per step, padding included")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--eval-every", type=int, default=100, help="steps between held-out evaluations")
    parser.add_argument("--resume", action="store_true", help="continue from latest.npz")
    args = parser.parse_args()

    cfg = Config()
    tokenizer = Tokenizer.from_file(str(args.dir / "tokenizer.json"))
    openings = range(args.openings)
    batches = make_batches(tokenizer, args.seed, "train", openings, args.batch_tokens, OPENING_TOKENS)
    stories = range(args.openings, args.openings + args.documents)
    batches += make_batches(tokenizer, args.seed, "train", stories, args.batch_tokens)
    held_out = make_batches(tokenizer, args.seed, "heldout", range(HELD_OUT_DOCUMENTS), args.batch_tokens)
    params = init_params(cfg, args.seed)
    m = {k: jnp.zeros_like(x) for k, x in params.items()}
    v = {k: jnp.zeros_like(x) for k, x in params.items()}
    first, best = 0, math.inf
    if args.resume:
        with np.load(args.dir / "latest.npz") as archive:
            params, m, v = (load_tree(archive, tree) for tree in ("params", "m", "v"))
            first, best = int(archive["step"]), float(archive["best"])

    steps = len(batches)
    update = jax.jit(partial(train_step, cfg, steps, args.lr), donate_argnums=(0, 1, 2))
    evaluate = jax.jit(partial(loss_fn, cfg))
    trained = sum(int((b != PAD).sum()) for b in batches)
    print(f"{sum(x.size for x in params.values())} parameters, {steps} steps, {trained} tokens", flush=True)

    started, seen, running = time.monotonic(), 0, None
    for step in range(first, steps):
        params, m, v, loss = update(params, m, v, jnp.float32(step), batches[step])
        running = float(loss) if running is None else 0.95 * running + 0.05 * float(loss)
        seen += int((batches[step] != PAD).sum())
        done = step + 1
        if done % 20 == 0:
            elapsed = time.monotonic() - started
            eta = elapsed / (done - first) * (steps - done) / 60
            print(f"step {done}/{steps} loss {running:.4f} {seen / elapsed:.0f} tok/s ETA {eta:.1f} min", flush=True)
        if done % args.eval_every == 0 or done == steps:
            sums = [evaluate(params, batch) for batch in held_out]
            nats = float(sum(s for s, _ in sums) / sum(n for _, n in sums))
            print(f"step {done} held-out {nats:.4f} nats/token, perplexity {math.exp(nats):.3f}", flush=True)
            if nats < best:
                best = nats
                save(args.dir / "best.npz", {"params": params}, step=done, nats=nats)
            save(args.dir / "latest.npz", {"params": params, "m": m, "v": v}, step=done, best=best)


if __name__ == "__main__":
    main()
