#!/usr/bin/env python3
"""Lets clients of others talk to `clawdbot serve`: each in an environment of its own, with pinned versions.

    python3 clawdbot-server/tests/clients/run.py [CLIENT...] [--update]

Builds the program, serves the built-in model, installs each client in `target/clients`, and runs its script with the
server's address. Clients in JavaScript need node and npm. `--update` writes the table of docs/server.md.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BEGIN, END = "<!-- clients -->\n", "<!-- end of clients -->\n"


@dataclasses.dataclass(frozen=True)
class Client:
    script: str
    # The first one is the client.
    packages: tuple


CLIENTS = [
    Client("openai_python.py", ("openai==3.57.0",)),
    Client("langchain_python.py", ("langchain-openai==1.8.1",)),
    Client("openai_node.mjs", ("openai@7.60.0",)),
    Client("ai_sdk_node.mjs", ("@ai-sdk/openai-compatible@3.0.92", "ai@7.0.173")),
    Client("ai_sdk_responses_node.mjs", ("@ai-sdk/openai@4.0.118", "ai@7.0.173")),
    Client("anthropic_python.py", ("anthropic==2.16.0",)),
    Client("anthropic_node.mjs", ("@anthropic-ai/sdk@1.16.0",)),
]


def environment(client: Client, work: pathlib.Path) -> list:
    """The command that runs the client's script, once its packages are there."""
    place = work / pathlib.Path(client.script).stem
    place.mkdir(parents=True, exist_ok=True)
    if client.script.endswith(".mjs"):
        subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit", *client.packages], cwd=place, check=True)
        # Scripts find their packages next to them.
        (place / client.script).write_text((HERE / client.script).read_text())
        return ["node", place / client.script]
    python = place / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *client.packages], check=True)
    return [python, HERE / client.script]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help="part of a script's name; all without")
    parser.add_argument("--program", type=pathlib.Path, help="a program that is built already")
    parser.add_argument("--update", action="store_true", help="write the table of docs/server.md")
    args = parser.parse_args()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    chosen = [one for one in CLIENTS if not args.clients or any(part in one.script for part in args.clients)]
    if not args.program:
        subprocess.run(["cargo", "build", "--release", "--package", "clawdbot-cli"], cwd=ROOT, check=True)
    program = [args.program or target / "release" / "clawdbot", "serve", "--port", "0", "--quiet", "--chat-template", HERE / "template.jinja"]
    rows, failed = [], []
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().strip().split(" at ")[1]
        for client in chosen:
            name, version = re.fullmatch(r"(@?[^@=]+)(?:==|@)(.+)", client.packages[0]).groups()
            print(f"{name} {version}", file=sys.stderr)
            done = subprocess.run([*environment(client, target / "clients"), address], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                failed.append(name)
            kind = "npm" if client.script.endswith(".mjs") else "PyPI"
            rows.append(f"| `{name}` ({kind}) | {version} | {done.stdout.strip() or '-'} | {'ok' if not done.returncode else 'FAILED'} |\n")
        server.terminate()
    table = "| client | version | what was exercised | result |\n|---|---|---|---|\n" + "".join(rows)
    print(table)
    if args.update and not args.clients:
        page = ROOT / "docs" / "server.md"
        text = page.read_text()
        before, rest = text.split(BEGIN)
        page.write_text(before + BEGIN + table + END + rest.split(END)[1])
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
