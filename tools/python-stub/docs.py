"""Copies the docstrings of the compiled module into its stub. Install clawdbot first, then run:

    python tools/python-stub/docs.py
"""

import ast
import inspect
import pathlib

from clawdbot import _clawdbot

STUB = pathlib.Path(__file__).parents[2] / "python" / "clawdbot" / "_clawdbot.pyi"


def documented(tree):
    """Functions and methods of the stub with those of the module; only the first of overloads."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, getattr(_clawdbot, node.name)
        elif isinstance(node, ast.ClassDef):
            found, seen = vars(getattr(_clawdbot, node.name)), set()
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__") and member.name not in seen:
                    seen.add(member.name)
                    yield member, getattr(found[member.name], "__func__", found[member.name])


def docstring(found, indent):
    first, *rest = inspect.getdoc(found).split("\n")
    if not rest:
        return [f'{indent}"""{first}"""']
    return [f'{indent}"""{first}', *(indent + line if line else "" for line in rest), f'{indent}"""']


def main():
    text = STUB.read_text()
    lines = text.split("\n")
    # From the end, so that line numbers stay valid.
    for node, found in sorted(documented(ast.parse(text)), key=lambda pair: -pair[0].lineno):
        first, last = node.body[0].lineno - 1, node.body[-1].end_lineno - 1
        new = docstring(found, " " * (node.col_offset + 4))
        if lines[last].endswith(": ..."):
            lines[last] = lines[last].removesuffix(" ...")
            lines[last + 1 : last + 1] = new
        else:
            lines[first : last + 1] = new
    STUB.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
