#!/usr/bin/env python3
"""Compares clawdbot with other CPU engines under many requests: the same requests at the same times, in turns.

    python3 benches/peers/serve.py qwen2.5-0.5b [--rounds 2] [--loads 'closed|shared'] [--json OUT]
    python3 benches/peers/serve.py --file MODEL.gguf       # clawdbot and llama.cpp with the same file
    python3 benches/peers/serve.py qwen2.5-0.5b --quick
    python3 benches/peers/serve.py --list

Uses the environment and the models of `bench.py` (see there), and installs this tree's Python package in it. Each engine
runs each load in a process of its own, with continuous batching, its prefix cache, and greedy decoding. `loads.py` has the
loads: closed ones (8, 32 or 64 clients that never pause), open ones (arrivals at a rate, one of ten prompts with 2,000
tokens), requests that share their first 2,000 tokens, and conversations. llama.cpp has no scheduler in its library:
`serving.py` drives it as its server does.
"""
import argparse
import dataclasses
import datetime
import json
import pathlib
import re
import statistics
import subprocess

from bench import VNNI, Failure, checked, output_of, say
from install import TIERS, VERSIONS, compiled, environment, pip
from models import SHAPES

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Engine:
    name: str
    precision: str
    options: dict = dataclasses.field(default_factory=dict)
    label: str = ""
    # Whether it reads GGUF files.
    files: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} {self.label or self.precision}"


ENGINES = [
    Engine("clawdbot", "int8", files=True),
    Engine("llama.cpp", "Q8_0", files=True),
    Engine("OpenVINO", "int8"),
    Engine("OpenVINO", "int8", VNNI, "int8, hint f32"),
]


@dataclasses.dataclass(frozen=True)
class Load:
    """A function of `loads.py` with its arguments, and what is compared: a field of the summary, whether more of it is better."""

    title: str
    function: str
    arguments: tuple
    field: str
    more_is_better: bool = False
    # Whether requests begin as earlier ones did.
    keeps: bool = False


LOADS = [
    *(Load(f"closed {n}", "closed", (n,), "throughput", True) for n in (8, 32, 64)),
    *(Load(f"open {rate}/s", "poisson", (rate, 60.0), "first_token_p99") for rate in (0.5, 1.0, 1.5)),
    Load("shared prefix", "shared_prefix", (6,), "later_turns", keeps=True),
    Load("conversations", "conversations", (8, 4), "later_turns", keeps=True),
]
QUICK = [Load("closed 2", "closed", (2,), "throughput", True), Load("shared prefix", "shared_prefix", (2,), "later_turns", keeps=True)]

# Columns of a load's table: field, title, factor.
COLUMNS = [
    ("throughput", "tokens/s", 1.0), ("first_token_p50", "first token p50, ms", 1e3),
    ("first_token_p99", "p99, ms", 1e3), ("between_p50", "between tokens p50, ms", 1e3), ("between_p99", "p99, ms", 1e3),
    ("first_turn", "first turn, ms", 1e3), ("later_turns", "later turns, ms", 1e3), ("peak_rss_bytes", "peak MB", 1e-6),
]


def wheel(work: pathlib.Path, python: pathlib.Path) -> None:
    """This tree's package, in a directory of its own."""
    say("building clawdbot's Python package")
    pip(python, "--upgrade", "--no-deps", "--target", str(work / "clawdbot"), str(ROOT))


def measure(args: argparse.Namespace, python: pathlib.Path, engine: Engine, load: Load) -> dict:
    package = args.work / "clawdbot" if engine.name == "clawdbot" else compiled(args.work, python, engine.name, args.tier, say)
    tier = TIERS[args.tier]
    variables = {**tier.environment, **({"PYTHONPATH": package} if package else {})}
    if engine.name == "clawdbot" and tier.kernels:
        variables["CLAWDBOT_ISA"] = tier.kernels
    task = {"engine": engine.name, "precision": engine.precision, "options": engine.options, "shape": args.shape,
            "file": args.file and str(args.file), "work": str(args.work), "threads": args.threads, "keeps": load.keeps,
            "load": [load.function, load.arguments]}
    command = ["env", *(f"{name}={value}" for name, value in variables.items()), python, HERE / "serving.py", json.dumps(task)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    text = checked([done.returncode, done.stdout, done.stderr])
    return json.loads(next(line for line in text.splitlines() if line.startswith("RESULT "))[len("RESULT "):])


def median(results: dict, title: str, load: str, field: str) -> float | None:
    values = [value[field] for value in results["values"].get(title, {}).get(load, [])]
    return statistics.median(values) if values and None not in values else None


def tables(results: dict) -> str:
    """Markdown: a table for each load. The ratio says how many times better clawdbot is in what the load is about."""
    lines = []
    for load in results["loads"]:
        lines += ["", f"### {load['title']}", "",
                  "| engine | clawdbot is better | " + " | ".join(title for _, title, _ in COLUMNS) + " |",
                  "|---|--:|" + "--:|" * len(COLUMNS)]
        ours = results["values"].get(results["engines"][0], {}).get(load["title"], [])
        for title in results["engines"]:
            theirs = results["values"].get(title, {}).get(load["title"], [])
            pairs = [(a[load["field"]], b[load["field"]]) for a, b in zip(ours, theirs)]
            ratios = [a / b if load["more_is_better"] else b / a for a, b in pairs]
            ratio = f"{statistics.median(ratios):.2f} x" if ratios and title != results["engines"][0] else ""
            cells = [median(results, title, load["title"], field) for field, _, _ in COLUMNS]
            shown = ["-" if cell is None else f"{cell * factor:.3g}" for cell, (_, _, factor) in zip(cells, COLUMNS)]
            failure = results["failures"].get(title, {}).get(load["title"])
            lines.append(f"| {title} | {failure or ratio} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def selected(of: list, texts: str | None) -> list:
    return [one for one in of if texts is None or any(text in one.title for text in texts.split("|"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES)
    parser.add_argument("--file", type=pathlib.Path, help="a GGUF file instead of a shape")
    parser.add_argument("--tier", choices=TIERS, default="best", help="instructions that all engines may use")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", metavar="TEXT|TEXT", help="rows whose title contains one of the texts")
    parser.add_argument("--loads", metavar="TEXT|TEXT", help="loads, likewise")
    parser.add_argument("--quick", action="store_true", help="one round of small loads, to see that everything runs")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers")
    parser.add_argument("--no-build", action="store_true", help="use this tree's package as the run before has built it")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured here, after each load")
    parser.add_argument("--show", type=pathlib.Path, metavar="FILE", help="print the tables of such a file, and measure nothing")
    parser.add_argument("--list", action="store_true", help="say what is measured")
    args = parser.parse_args()
    if args.show:
        print(tables(json.loads(args.show.read_text())))
        return
    if args.list or (args.shape is None) == (args.file is None):
        print("shapes:", ", ".join(SHAPES))
        print("engines:", "; ".join(engine.title for engine in ENGINES))
        print("loads:", "; ".join(load.title for load in LOADS))
        return
    engines = [engine for engine in selected(ENGINES, args.engines) if engine.files or not args.file]
    loads = QUICK if args.quick else selected(LOADS, args.loads)
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(engine.name for engine in engines))
    python = environment(args.work, names, say)
    if not args.no_build:
        wheel(args.work, python)
    model = re.search("model name.*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    version = output_of(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "shape": args.shape or args.file.name, "tier": args.tier, "threads": args.threads,
        "cpu": model.group(1) if model else "",
        "versions": {name: " ".join(VERSIONS.get(name, ("clawdbot", version))) for name in names},
        "engines": [engine.title for engine in engines], "loads": [dataclasses.asdict(load) for load in loads],
        "values": {}, "failures": {},
    }
    for engine in engines:
        package = compiled(args.work, python, engine.name, args.tier, say)
        if engine.name != "clawdbot" and not args.file:
            say(f"model for {engine.title}")
            task = {"engine": engine.name, "precision": engine.precision, "shape": args.shape, "work": str(args.work)}
            output_of(["env", *([f"PYTHONPATH={package}"] if package else []), python, HERE / "engines.py", "make", json.dumps(task)])
    for number in range(1, (1 if args.quick else args.rounds) + 1):
        for load in loads:
            for engine in engines:
                try:
                    value = measure(args, python, engine, load)
                    results["values"].setdefault(engine.title, {}).setdefault(load.title, []).append(value)
                    say(f"round {number}, {load.title}: {engine.title} {load.field} {value[load.field]:.4g}")
                except Failure as failure:
                    results["failures"].setdefault(engine.title, {})[load.title] = str(failure)
                    say(f"round {number}, {load.title}: {engine.title} FAILED: {failure}")
                if args.json:
                    args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(tables(results))


if __name__ == "__main__":
    main()
