#!/usr/bin/env python3
"""Draws the results of `bench.py --json`: `chart.py RESULTS.json [...] --out CHART.svg`.

Rows are engines, columns work items; bars of a column share a scale. Colours fit a light and a dark background.
"""
import argparse
import html
import json
import pathlib

from bench import columns, compare

LABEL, COLUMN, BAR, ROW, GAP = 170, 122, 66, 19, 12
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 } .small { font-size: 11px; fill: #59636e }
.ours { fill: #0969da } .peer { fill: #9aa4af } .ours-text { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .ours { fill: #4493f8 } .peer { fill: #656c76 }
}
"""


def text(x: float, y: float, content: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{html.escape(content)}</text>'


def figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def panel(results: dict, top: int) -> tuple[list[str], int]:
    """The drawing of one file, from `top` downwards, and its lower end."""
    heads = columns(results["items"])
    limits = results["machine"]["limits"]
    parts = [
        text(0, top + 14, f"{results['shape']}, {results.get('tier', 'best')}", "head"),
        text(LABEL, top + 14, f"tokens/s, more is better; load and memory: less. {results['machine']['cpu']}: "
             f"{limits['dram_gb_per_s']:.0f} GB/s, int8 {limits['int8_gop_per_s']:.0f} GOP/s", "small")]
    parts += [text(LABEL + i * COLUMN, top + 34, head[0], "head") for i, head in enumerate(heads)]
    y, bits = top + 40, None
    rows = [row for row in results["engines"] if row["title"] in results["values"]]
    for row in rows:
        if bits not in (None, row["bits"]):
            y += GAP
        bits = row["bits"]
        ours = row["name"] == "clawdbot"
        parts.append(text(0, y + 14, row["title"], "ours-text" if ours else ""))
        for i, head in enumerate(heads):
            pairs = [compare(results, other["title"], "", head) for other in rows]
            most = max((pair[1] for pair in pairs if pair), default=0)
            pair = compare(results, row["title"], "", head)
            if pair is None:
                parts.append(text(LABEL + i * COLUMN, y + 14, "-", "small"))
                continue
            width = BAR * pair[1] / most
            parts.append(f'<rect x="{LABEL + i * COLUMN}" y="{y + 4}" width="{width:.1f}" height="{ROW - 6}" rx="2" '
                         f'class="{"ours" if ours else "peer"}"/>')
            parts.append(text(LABEL + i * COLUMN + width + 4, y + 14, figure(pair[1]), "small"))
        y += ROW
    return parts, y + 2 * GAP


def draw(all_results: list[dict]) -> str:
    parts, y = [], 4
    for results in all_results:
        more, y = panel(results, y)
        parts += more
    width = LABEL + COLUMN * max(len(columns(results["items"])) for results in all_results)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" role="img">'
    return "\n".join([head, "<title>clawdbot and other engines</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.write_text(draw([json.loads(path.read_text()) for path in args.results]))


if __name__ == "__main__":
    main()
