#!/usr/bin/env python3
"""Compares clawdbot with other CPU engines on this machine: the same shapes and the same work, in turns.

    python3 benches/peers/bench.py llama-3.2-1b [--rounds 5] [--threads 2] [--json OUT]
    python3 benches/peers/bench.py qwen2.5-0.5b --quick
    python3 benches/peers/bench.py --list

The first run makes a virtual environment in --work (default target/peers) and installs the peers there from PyPI:
llama.cpp compiled for this CPU (5 to 10 minutes), ik_llama.cpp (a wheel for AVX2), openvino-genai, ctranslate2; about
0.5 GB, no torch. It also writes models with random weights there (8 GB for both shapes). In each round, all engines do each work
item one after the other, each in a separate process, after a warm-up. A ratio is the median over the rounds of runs
that follow each other directly, so a slow phase of the machine slows down all. A failing engine is listed with its
error. With --tier avx512-vnni or avx2, no engine may use more than these instructions: how it would be on such a CPU.
"""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import time

from install import TIERS, VERSIONS, compiled, environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Engine:
    """One row. Rows with equal `bits` (a width, or the type of a file) are compared. `options` go to `engines.py`, or to
    the command line of clawdbot."""

    name: str
    precision: str
    bits: object
    options: object = None
    label: str = ""
    # Tried when the first process of the engine crashes.
    fallback: object = None

    @property
    def title(self) -> str:
        return f"{self.name} {self.label or self.precision}"

    @property
    def ours(self) -> bool:
        return self.name == "clawdbot"


# OpenVINO's CPU plugin computes in bf16 where the CPU can; decoding is faster in f32 with int8 activations.
VNNI = {"properties": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128"}}

# A peer is compared with the first clawdbot row that has the same bits.
ENGINES = [
    Engine("clawdbot", "int8", 8),
    Engine("clawdbot", "int8", 8, ["--kv", "int8"], "int8, kv int8"),
    Engine("llama.cpp", "Q8_0", 8, {}, fallback={"repack": False}),
    Engine("ik_llama.cpp", "Q8_0", 8, {}, "Q8_0, AVX2"),
    Engine("OpenVINO", "int8", 8, {}),
    Engine("OpenVINO", "int8", 8, VNNI, "int8, hint f32"),
    Engine("CTranslate2", "int8", 8, {}),
    Engine("clawdbot", "int4", 4),
    Engine("llama.cpp", "Q4_0", 4, {}, fallback={"repack": False}),
    Engine("ik_llama.cpp", "Q4_0", 4, {}, "Q4_0, AVX2"),
    Engine("OpenVINO", "int4", 4, {}),
    Engine("OpenVINO", "int4", 4, VNNI, "int4, hint f32"),
    Engine("clawdbot", "bf16", 16),
    Engine("llama.cpp", "BF16", 16, {}, fallback={"repack": False}),
]


# With --gguf: the same file in all.
FILES = [engine for kind in ("Q8_0", "Q4_0", "Q4_K_M") for engine in (
    Engine("clawdbot", kind, kind, None, f"{kind} file"),
    Engine("llama.cpp", kind, kind, {}, f"{kind} file", {"repack": False}),
    Engine("ik_llama.cpp", kind, kind, {}, f"{kind} file, AVX2"),
)]


@dataclasses.dataclass(frozen=True)
class Item:
    """A work item: prefill of a prompt, or decode by `batch` sequences after `depth` tokens of context."""

    name: str
    kind: str
    prompt: int = 1
    depth: int = 0
    generate: int = 1
    batch: int = 1


ITEMS = [
    Item("prefill 512", "prefill", prompt=512),
    Item("prefill 4096", "prefill", prompt=4096),
    Item("decode", "decode", generate=64),
    Item("decode at 2048", "decode", depth=2048, generate=64),
    Item("decode, batch 8", "decode", depth=16, generate=64, batch=8),
]
QUICK = [Item("prefill 64", "prefill", prompt=64), Item("decode", "decode", generate=8)]

# CPU features that matter, and their names.
FEATURES = {
    "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512-VNNI", "avx512_bf16": "AVX-512-BF16", "avx512_fp16": "AVX-512-FP16",
    "amx_int8": "AMX-int8", "amx_bf16": "AMX-bf16",
    "asimd": "NEON", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "SVE",
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def build() -> str:
    """The path of the program, built from this tree."""
    say("building clawdbot")
    cargo = ["cargo", "build", "--release", "--quiet", "-p", "clawdbot-cli", "--message-format",
             "json-render-diagnostics"]
    lines = subprocess.run(cargo, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return next(message["executable"] for message in map(json.loads, lines) if message.get("executable"))


class Failure(Exception):
    """The last output of an engine that failed."""


def output_of(command: list) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return checked([done.returncode, done.stdout, done.stderr])


def checked(done: list) -> str:
    """The output of a process, given as exit code, stdout and stderr."""
    code, stdout, stderr = done
    # A shell in between reports signal N as 128 + N.
    number = -code if code < 0 else code - 128
    if number > 0:
        raise Failure(f"ended by {signal.Signals(number).name}")
    if code != 0:
        raise Failure(" ".join(stderr.strip().splitlines()[-3:])[-400:] or f"exit code {code}")
    return stdout


def run_until(commands: list[list[str]], seconds: float) -> None:
    """Runs the commands one after the other, starts none after `seconds`, and prints each result as a line of JSON."""
    end = time.monotonic() + seconds
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
        if time.monotonic() > end:
            break


class Runner:
    def __init__(self, args: argparse.Namespace, clawdbot: str, engines: list[Engine]):
        self.args, self.clawdbot = args, clawdbot
        names = list(dict.fromkeys(engine.name for engine in engines))
        self.python = environment(args.work, names, say)
        self.paths = {name: compiled(args.work, self.python, name, args.tier, say) for name in names}
        self.prefix = shlex.split(args.wrap)

    def peer(self, engine: Engine, command: str, **more) -> list:
        """`engines.py` with the instructions and the package of this run."""
        task = {"engine": engine.name, "precision": engine.precision, "shape": self.args.shape,
                "work": str(self.args.work), "threads": self.args.threads, **more}
        path = self.paths[engine.name]
        variables = {**TIERS[self.args.tier].environment, **({"PYTHONPATH": path} if path else {})}
        return ["env", *(f"{name}={value}" for name, value in variables.items()),
                self.python, HERE / "engines.py", command, json.dumps(task)]

    def ours(self, *arguments) -> list:
        kernels = TIERS[self.args.tier].kernels
        return ["env", *([f"CLAWDBOT_ISA={kernels}"] if kernels else []), self.clawdbot, "bench", *arguments]

    def make(self, engine: Engine) -> None:
        output_of(self.peer(engine, "make"))

    def commands(self, commands: list[list]) -> list[list]:
        """Exit code, stdout and stderr of each. Successive commands share a process of --wrap, so nothing runs between them."""
        done: list[list] = []
        while len(done) < len(commands):
            rest = [[str(part) for part in command] for command in commands[len(done):]]
            group = [*self.prefix, sys.executable, __file__, "--wrapped", json.dumps([rest, self.args.wrap_seconds])]
            ended = subprocess.run(group, stdout=subprocess.PIPE, text=True)
            lines = [json.loads(line) for line in ended.stdout.splitlines()]
            done += lines or [[ended.returncode or 1, "", "the process around it failed"]]
        return done

    def command(self, engine: Engine, item: Item, options) -> list:
        if not engine.ours:
            return self.peer(engine, "run", options=options, item=dataclasses.asdict(item))
        # The last sample counts. Decoding is warm after its context; a long prompt is warm after its first chunk.
        repeat = 2 if item.kind == "prefill" and item.prompt <= 512 else 1
        model = ["--shape", self.args.shape, "--weights", engine.precision]
        if engine in FILES:
            # The file that the peers read.
            model = ["--model", self.args.work / f"{self.args.shape}-gguf-{engine.precision}.gguf"]
        return self.ours(*model, *(options or []),
                         "--threads", self.args.threads, "--prompt", item.prompt, "--generate", item.generate,
                         "--depth", item.depth, "--batch", item.batch, "--repeat", repeat, "--no-limits", "--json")

    def value(self, engine: Engine, item: Item, text: str) -> dict:
        if not engine.ours:
            line = next(line for line in text.splitlines() if line.startswith("RESULT "))
            return json.loads(line[len("RESULT "):])
        report = json.loads(text)
        return {"value": report["samples"][f"{item.kind}_tokens_per_s"][-1], "load_s": report["load_seconds"],
                "peak_rss_bytes": report["peak_rss_bytes"], "kernels": report["kernels"]}

    def machine(self) -> dict:
        text = output_of([*self.prefix, *self.ours("--threads", self.args.threads, "--prompt", 8, "--generate", 1,
                                                   "--repeat", 1, "--json")])
        info = pathlib.Path("/proc/cpuinfo").read_text()
        field = lambda name: next((line.split(":", 1)[1].strip() for line in info.splitlines()
                                   if line.split(":")[0].strip().lower() == name), "")
        flags = set((field("flags") or field("features")).split())
        return {"cpu": field("model name"), "cores": os.cpu_count(),
                "features": [word for flag, word in FEATURES.items() if flag in flags],
                "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "limits": json.loads(text)["limits"]}

    def versions(self, engines: list[Engine]) -> dict:
        found = {}
        for name in dict.fromkeys(engine.name for engine in engines):
            if name == "clawdbot":
                git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
                found[name] = output_of([self.clawdbot, "--version"]).split()[-1] + " " + git.stdout.strip()
            else:
                found[name] = " ".join(VERSIONS[name])
        return found


def measure(runner: Runner, engines: list[Engine], items: list[Item], rounds: int, results: dict, save) -> None:
    """Fills `results` in place: `values` and `failures` by title and item, `notes` by title."""
    options = {engine.title: engine.options for engine in engines}

    def measure_item(of: list[Engine], item: Item, where: str) -> None:
        again = []
        outcomes = runner.commands([runner.command(engine, item, options[engine.title]) for engine in of])
        for engine, done in zip(of, outcomes):
            title = engine.title
            try:
                value = runner.value(engine, item, checked(done))
                results["values"].setdefault(title, {}).setdefault(item.name, []).append(value)
                say(f"{where}, {item.name}: {title} {value['value']:.1f} tokens/s")
            except Failure as failure:
                if engine.fallback is not None and options[title] != engine.fallback:
                    options[title] = engine.fallback
                    results["notes"][title] = f"{failure} with its defaults; run with {json.dumps(engine.fallback)}"
                    say(f"{where}, {item.name}: {title}: {results['notes'][title]}")
                    again.append(engine)
                else:
                    results["failures"].setdefault(title, {})[item.name] = str(failure)
                    say(f"{where}, {item.name}: {title} FAILED: {failure}")
        if again:
            measure_item(again, item, where)

    for number in range(1, rounds + 1):
        for item in items:
            able = [engine for engine in engines if item.name not in results["failures"].get(engine.title, {})]
            measure_item(able, item, f"round {number} of {rounds}")
            save()


# Columns of the table: title, item, field, factor for display, whether more is better.
def columns(items: list[str]) -> list[tuple]:
    shown = [(name, name, "value", 1.0, True) for name in items]
    last = items[-2] if len(items) > 2 else items[-1]
    return shown + [("load, s", items[0], "load_s", 1.0, False), ("peak MB", last, "peak_rss_bytes", 1e-6, False)]


def compare(results: dict, title: str, base: str, column: tuple) -> tuple[float, float] | None:
    """How many times better `base` is (median over rounds) and the median of `title`; None where one is missing."""
    _, item, field, factor, more_is_better = column
    theirs = [value[field] for value in results["values"].get(title, {}).get(item, [])]
    ours = [value[field] for value in results["values"].get(base, {}).get(item, [])]
    if not theirs:
        return None
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, theirs)]
    return (statistics.median(ratios) if ratios else float("nan")), statistics.median(theirs) * factor


def table(results: dict) -> str:
    """Markdown. A cell: how many times better clawdbot with the same bits is, and the figure itself."""
    heads = columns(results["items"])
    machine, limits = results["machine"], results["machine"]["limits"]
    lines = [
        f"{results['shape']}, tier {results.get('tier', 'best')}, {results['threads']} threads, {results['rounds']} rounds, "
        f"{results['date']}",
        f"{machine['cpu']}: {', '.join(machine['features'])}; memory {limits['dram_gb_per_s']:.1f} GB/s, "
        f"int8 {limits['int8_gop_per_s']:.0f} GOP/s, f32 {limits['f32_gflop_per_s']:.0f} GFLOP/s",
        "A cell: how many times better clawdbot of the same width is (its first row), and tokens/s, s or MB.", "",
        "| engine | version | " + " | ".join(head[0] for head in heads) + " |",
        "|---|---|" + "--:|" * len(heads)]
    for row in results["engines"]:
        title = row["title"]
        if title not in results["values"]:
            continue
        base = next((other["title"] for other in results["engines"] if other["bits"] == row["bits"]
                     and other["name"] == "clawdbot" and other["title"] in results["values"]), "")
        cells = []
        for head in heads:
            pair = compare(results, title, base, head)
            if pair is None:
                cells.append("-")
            else:
                figure = f"{pair[1]:.0f}" if pair[1] >= 100 else f"{pair[1]:.1f}"
                cells.append(figure if pair[0] != pair[0] or title == base else f"{pair[0]:.2f} x ({figure})")
        lines.append(f"| {title} | {results['versions'][row['name']]} | " + " | ".join(cells) + " |")
    lines += [f"{title}: {note}" for title, note in results["notes"].items()]
    lines += [f"FAILED {title}, {item}: {text}" for title, by_item in results["failures"].items()
              for item, text in by_item.items()]
    return "\n".join(lines)


def selected(all_of: list, texts: str | None, name) -> list:
    """Those whose name contains one of the texts, separated by `|`; all if there are none."""
    if texts is None:
        return list(all_of)
    wanted = [text.strip() for text in texts.split("|")]
    found = [one for one in all_of if any(text in name(one) for text in wanted)]
    if not found:
        raise SystemExit(f"nothing is called {texts!r}; known: {', '.join(map(name, all_of))}")
    return found


def main() -> None:
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES)
    parser.add_argument("--tier", choices=TIERS, default="best", help="instructions that all engines may use")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", metavar="TEXT|TEXT", help="rows whose title contains one of the texts")
    parser.add_argument("--items", metavar="TEXT|TEXT", help="work items, likewise")
    parser.add_argument("--gguf", action="store_true", help="files of llama.cpp's types, each in clawdbot and llama.cpp")
    parser.add_argument("--quick", action="store_true", help="one round of short work, to see that everything runs")
    parser.add_argument("--wrap", default="", metavar="CMD", help="command before what is measured, as taskset -c 0,1")
    parser.add_argument("--wrap-seconds", type=float, default=40.0, metavar="S",
                        help="one such command runs measured processes until S seconds have passed")
    parser.add_argument("--wrapped", help=argparse.SUPPRESS)
    parser.add_argument("--clawdbot", metavar="FILE", help="the program to measure; default: this tree, built")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured here, after each item")
    parser.add_argument("--show", type=pathlib.Path, metavar="FILE", help="print the table of such a file, and measure nothing")
    parser.add_argument("--list", action="store_true", help="say what is measured")
    args = parser.parse_args()
    if args.wrapped:
        return run_until(*json.loads(args.wrapped))
    if args.show:
        print(table(json.loads(args.show.read_text())))
        return
    if args.list or args.shape is None:
        print("shapes:", ", ".join(SHAPES))
        print("engines:", "; ".join(engine.title for engine in ENGINES))
        print("with --gguf:", "; ".join(engine.title for engine in FILES))
        print("items:", "; ".join(item.name for item in ITEMS))
        return
    engines = selected(FILES if args.gguf else ENGINES, args.engines, lambda engine: engine.title)
    items = selected(QUICK if args.quick else ITEMS, args.items, lambda item: item.name)
    rounds = 1 if args.quick else args.rounds
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    runner = Runner(args, args.clawdbot or build(), engines)
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "shape": args.shape,
        "tier": args.tier, "threads": args.threads, "rounds": rounds, "machine": runner.machine(), "versions": runner.versions(engines),
        "items": [item.name for item in items],
        "engines": [{"title": e.title, "name": e.name, "bits": e.bits, "options": e.options} for e in engines],
        "values": {}, "notes": {}, "failures": {},
    }
    for engine in sorted(engines, key=lambda engine: engine.ours):
        try:
            if not engine.ours:
                say(f"model for {engine.title}")
                runner.make(engine)
        except Failure as failure:
            results["failures"][engine.title] = {"making its model": str(failure)}

    usable = [engine for engine in engines if engine.title not in results["failures"]]

    def save() -> None:
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")

    measure(runner, usable, items, rounds, results, save)
    save()
    print(table(results))


if __name__ == "__main__":
    main()
