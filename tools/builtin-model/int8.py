"""The ``clawdbot-int8`` weight format: symmetric int8 codes with one bfloat16 scale per 64 weights of a row.

A matrix ``NAME [n, k]`` is stored as two safetensors entries, ``NAME`` (I8,
``[n, k]``) and ``NAME.scales`` (BF16, ``[n, ceil(k / 64)]``); a weight is its
code times the scale of its group. Vectors stay F32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16
from safetensors.numpy import load_file, save_file

GROUP, SCALES = 64, ".scales"


def to_bf16_up(x: np.ndarray) -> np.ndarray:
    """The smallest bfloat16 not below each value of ``x`` (float32, none negative)."""
    bits = (x.view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16
    return bits.astype(np.uint16).view(bfloat16)


def spread(scales: np.ndarray, k: int) -> np.ndarray:
    """Repeats group scales ``[n, groups]`` to one float32 per weight, ``[n, k]``."""
    return np.repeat(scales.astype(np.float32), GROUP, axis=1)[:, :k]


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int8 ``[n, k]``) and scales (bfloat16 ``[n, groups]``) of ``w`` (float32 ``[n, k]``)."""
    k = w.shape[1]
    amax = np.maximum.reduceat(np.abs(w), np.arange(0, k, GROUP), axis=1)
    scales = to_bf16_up(amax / np.float32(127))
    scale = spread(scales, k)
    codes = np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)
    return np.rint(codes).astype(np.int8), scales


def save(path: Path, weights: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Quantizes the matrices among ``weights`` (float32) and writes a safetensors file."""
    entries: dict[str, np.ndarray] = {}
    for name, w in weights.items():
        if w.ndim == 2:
            entries[name], entries[name + SCALES] = quantize(w)
        else:
            entries[name] = w
    header = {"format": "clawdbot-int8", "version": "1", "group_size": str(GROUP)}
    save_file(entries, path, header | metadata)
    path.chmod(0o644)


def load(path: Path) -> dict[str, np.ndarray]:
    """The weights of a file written by ``save``, as float32."""
    stored = load_file(path)
    weights = {name: x for name, x in stored.items() if x.dtype == np.float32}
    for name, codes in stored.items():
        if codes.dtype == np.int8:
            weights[name] = codes * spread(stored[name + SCALES], codes.shape[1])
    return weights
