#!/usr/bin/env python3
"""Decodes a mix of edits and a mix of prose with and without guessing tokens, and compares the rates.

    python3 benches/speculation.py PATH/TO/MODEL [--method ngram] [--rounds 5] [--json OUT.json]

Runs alternate, and a ratio is the median over the rounds. The texts of both runs are compared: they must be equal.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE = '''def load_users(path):
    users = []
    with open(path) as file:
        for line in file:
            name, age, city = line.strip().split(",")
            users.append({"name": name, "age": int(age), "city": city})
    return users


def average_age(users):
    total = 0
    for user in users:
        total += user["age"]
    return total / len(users)


def by_city(users):
    cities = {}
    for user in users:
        cities.setdefault(user["city"], []).append(user["name"])
    return cities
'''
TEXT = '''The library opens at nine in the morning and closes at six in the evening. Visitors can borrow up to ten books at a time, \
and keep them for four weeks. A book that is late costs ten cents a day. Children under twelve pay nothing. On Saturdays there is \
a reading hour for children in the small hall, and on the first Sunday of each month the library invites a writer.'''
RECORD = '''{"id": 17, "name": "Anna Berg", "email": "anna@example.org", "roles": ["admin", "editor"], "active": true}
{"id": 18, "name": "Tom Hill", "email": "tom@example.org", "roles": ["editor"], "active": true}
{"id": 19, "name": "Mira Sato", "email": "mira@example.org", "roles": ["reader"], "active": false}
{"id": 20, "name": "Jan Novak", "email": "jan@example.org", "roles": ["reader", "editor"], "active": true}'''
MIXES = {
    "edits": [
        f"Repeat this program, with a docstring in each function:\n\n{CODE}",
        f"Rename the variable `users` to `people` in this program, and print the whole program:\n\n{CODE}",
        f"Repeat this text word for word, and correct mistakes if there are any:\n\n{TEXT}",
        f"Change ten cents to twenty cents in this text, and print all of it:\n\n{TEXT}",
        f"Print these records again, sorted by name:\n\n{RECORD}",
        f"Set active to true in each of these records, and print all of them:\n\n{RECORD}",
    ],
    "prose": [
        "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
        "Explain how rain is made, in your own words.",
        "Describe a market in a small town on a winter morning.",
        "What should somebody know who wants to grow tomatoes on a balcony?",
        "Write a letter to a friend who has moved to another country.",
        "Tell me about the history of the bicycle.",
    ],
}


def run(args: argparse.Namespace, prompt: str, method: str) -> dict:
    options = ["--max-tokens", args.tokens, "--temperature", args.temperature, "--seed", 1, "--speculation", method,
               "--threads", args.threads, "--json"]
    options += ["--draft-model", args.draft_model] if args.draft_model and method == "draft" else []
    if args.chat:
        # A message of several lines.
        command, typed = [args.clawdbot, "chat", args.model, *options], f'"""\n{prompt}\n"""\n'
    else:
        command, typed = [args.clawdbot, "generate", "--model", args.model, *options, "--prompt", prompt], ""
    done = subprocess.run([str(part) for part in command], input=typed, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr + done.stdout)
    return json.loads(done.stdout)


def measure(args: argparse.Namespace) -> dict:
    result = {"model": str(args.model), "method": args.method, "rounds": args.rounds, "tokens": args.tokens}
    for mix, prompts in MIXES.items():
        ratios, rates, guessed = [], {"none": [], args.method: []}, [0, 0]
        for number in range(args.rounds):
            seconds, tokens = {"none": 0.0, args.method: 0.0}, {"none": 0, args.method: 0}
            for at, prompt in enumerate(prompts):
                order = ["none", args.method][:: 1 if (number + at) % 2 == 0 else -1]
                found = {method: run(args, prompt, method) for method in order}
                if found["none"]["token_ids"] != found[args.method]["token_ids"]:
                    raise SystemExit(f"other tokens: {prompt!r}")
                for method, completion in found.items():
                    usage = completion["usage"]
                    seconds[method] += usage["decode_seconds"]
                    tokens[method] += usage["completion_tokens"] - 1
                usage = found[args.method]["usage"]
                guessed = [guessed[0] + usage["accepted_tokens"], guessed[1] + usage["draft_tokens"]]
            for method in rates:
                rates[method].append(tokens[method] / seconds[method])
            ratios.append(rates[args.method][-1] / rates["none"][-1])
            print(f"{mix}, round {number + 1}: {ratios[-1]:.2f}", file=sys.stderr)
        result[mix] = {"ratio": statistics.median(ratios), "ratios": ratios, "right": guessed[0], "drafts": guessed[1],
                       "tokens_per_s": {method: statistics.median(values) for method, values in rates.items()}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--method", default="ngram")
    parser.add_argument("--draft-model")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-chat", dest="chat", action="store_false", help="for a model without a chat template")
    parser.add_argument("--clawdbot", type=pathlib.Path, default=ROOT / "target" / "release" / "clawdbot")
    parser.add_argument("--json", type=pathlib.Path, help="write the results here")
    args = parser.parse_args()
    result = measure(args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    for mix in MIXES:
        found = result[mix]
        rates = found["tokens_per_s"]
        print(f"{mix:6} {found['ratio']:.2f} x: {rates['none']:.1f} tokens/s without, {rates[args.method]:.1f} with; "
              f"{found['right']} of {found['drafts']} drafts were right")


if __name__ == "__main__":
    main()
