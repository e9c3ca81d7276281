#!/usr/bin/env python3
"""Decodes with 1 to 64 sequences at a time and draws the rates.

    python3 benches/batches.py qwen2.5-0.5b --json OUT.json
    python3 benches/batches.py --draw OUT.json [...] --out OUT.svg

A rate is the median over the rounds; each round goes through all batches in another order, so that a slow phase of the
machine does not meet neighbours. A dip is a batch that is slower than a smaller one.
"""
import argparse
import html
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCHES = [*range(1, 13), 14, 15, 16, 17, 20, 24, 25, 28, 32, 33, 40, 48, 49, 56, 64]
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 300, 60, 24, 36
COLOURS = ["#0969da", "#bf3989", "#1a7f37", "#9a6700"]
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .axis { stroke: #9aa4af }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def rate(args: argparse.Namespace, batch: int) -> float:
    variables = {**os.environ, **({"CLAWDBOT_ISA": args.kernels} if args.kernels else {})}
    command = [args.clawdbot, "bench", "--shape", args.shape, "--weights", args.weights, "--threads", args.threads,
               "--prompt", 1, "--generate", args.generate, "--batch", batch, "--repeat", 2, "--no-limits", "--json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=variables)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return max(json.loads(done.stdout)["samples"]["decode_tokens_per_s"])


def measure(args: argparse.Namespace) -> dict:
    rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for number in range(args.rounds):
        order = BATCHES[:]
        random.Random(number).shuffle(order)
        for done, batch in enumerate(order):
            print(f"\rround {number + 1} of {args.rounds}: {done} of {len(order)} ", end="", file=sys.stderr, flush=True)
            rates[batch].append(rate(args, batch))
    print(file=sys.stderr)
    middle = {batch: statistics.median(values) for batch, values in rates.items()}
    return {"shape": args.shape, "weights": args.weights, "kernels": args.kernels or "best", "rounds": args.rounds,
            "tokens_per_s": middle, "dips": dips(middle)}


def dips(rates: dict[int, float]) -> list[str]:
    """Batches that are slower than a smaller one, and by how much."""
    found, best = [], 0.0
    for batch, value in sorted(rates.items()):
        if value < best:
            found.append(f"{batch}: {value:.0f} after {best:.0f} ({100 * (1 - value / best):.0f} %)")
        best = max(best, value)
    return found


def draw(results: list[dict]) -> str:
    most = max(value for result in results for value in result["tokens_per_s"].values())
    x = lambda batch: LEFT + (WIDTH - LEFT - 20) * int(batch) / 64
    y = lambda value: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / most
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(0):.0f}" y2="{y(0):.0f}"/>',
             f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 4}">sequences</text>', '<text x="0" y="14">tokens/s</text>']
    for batch in (1, 8, 16, 24, 32, 48, 64):
        parts.append(f'<text x="{x(batch) - 6:.0f}" y="{HEIGHT - BOTTOM + 16}">{batch}</text>')
    step = 10 ** (len(str(int(most))) - 1)
    for value in range(0, int(most) + 1, step if most / step > 2 else step // 2):
        parts.append(f'<text x="10" y="{y(value) + 4:.0f}">{value}</text>')
    for result, colour in zip(results, COLOURS):
        points = sorted((int(batch), value) for batch, value in result["tokens_per_s"].items())
        line = " ".join(f"{x(batch):.1f},{y(value):.1f}" for batch, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(batch):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>' for batch, value in points]
        name = f"{result['shape']} {result['weights']}, {result['kernels']}"
        at = TOP + 16 * results.index(result)
        parts.append(f'<text x="{LEFT + 14}" y="{at}" style="fill:{colour}">{html.escape(name)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    return "\n".join([head, "<title>Decoding several sequences</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="qwen2.5-0.5b")
    parser.add_argument("--weights", default="int8")
    parser.add_argument("--kernels", help="a tier, as in CLAWDBOT_ISA")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--generate", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clawdbot", type=pathlib.Path, default=ROOT / "target" / "release" / "clawdbot")
    parser.add_argument("--json", type=pathlib.Path, help="write the rates here")
    parser.add_argument("--draw", nargs="+", type=pathlib.Path, metavar="JSON", help="draw these instead of measuring")
    parser.add_argument("--out", type=pathlib.Path, help="the drawing")
    args = parser.parse_args()
    if args.draw:
        if args.out is None:
            parser.error("--draw needs --out")
        args.out.write_text(draw([json.loads(path.read_text()) for path in args.draw]))
        return
    result = measure(args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    for batch, value in result["tokens_per_s"].items():
        print(f"{batch:3} {value:8.1f} tokens/s")
    print("dips: " + ("; ".join(result["dips"]) or "none"))


if __name__ == "__main__":
    main()
