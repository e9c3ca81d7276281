"""Finds the first layer whose result differs from transformers': compare.py MODEL [TOKEN...]. See README.md here."""

import json
import pathlib
import subprocess
import sys

import numpy
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
# float32, with sums in another order.
TOLERANCE = 1e-4


def ours(model: str, tokens: list[int]) -> dict[int, numpy.ndarray]:
    """The states after each number of layers, `[tokens, hidden_size]`."""
    command = ["cargo", "run", "--quiet", "--release", "--package", "clawdbot-core", "--features", "bench-support"]
    command += ["--example", "layers", "--", str(pathlib.Path(model).resolve()), *map(str, tokens)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {}
    for line in output.splitlines():
        record = json.loads(line)
        found[record["layers"]] = numpy.array(record["states"], numpy.float32).reshape(len(tokens), -1)
    return found


def theirs(model: str, tokens: list[int]) -> list[numpy.ndarray]:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        output = loaded(torch.tensor([tokens]), output_hidden_states=True)
    return [states[0].numpy() for states in output.hidden_states]


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    model = sys.argv[1]
    tokens = [int(token) for token in sys.argv[2:]] or list(range(5, 21))
    found, expected = ours(model, tokens), theirs(model, tokens)
    if len(found) != len(expected):
        print(f"expected {len(expected)} states (transformers), found {len(found)}")
        return 1
    first = None
    print("layers  largest difference  relative to the largest value")
    for layers, states in enumerate(expected):
        difference = float(numpy.abs(found[layers] - states).max())
        relative = difference / max(float(numpy.abs(states).max()), 1e-30)
        wrong = not relative < TOLERANCE
        print(f"{layers:6}  {difference:18.3g}  {relative:.3g}{'  differs' if wrong else ''}")
        if wrong and first is None:
            first = layers
            row = int(numpy.abs(found[layers] - states).max(axis=1).argmax())
    if first is None:
        print("all layers agree")
        return 0
    where = "the embedding" if first == 0 else f"layer {first - 1}"
    print(f"the first difference is in {where}, largest at token {row}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
