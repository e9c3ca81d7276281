#!/usr/bin/env python3
"""Extracts small records from sentences with a chat model, under a JSON Schema and without, and counts the valid ones.

    python3 benches/extraction.py PATH/TO/MODEL [--count 200] [--json OUT.json]

Needs the Python package clawdbot. Decoding is greedy; both ways get the same conversations. A record is valid if it is JSON and an
instance of the schema, and right if its values are those of the sentence.
"""
import argparse
import json
import pathlib
import random
import time

import clawdbot

NAMES = ["Anna Berg", "Tom Hill", "Mira Sato", "Jan Novak", "Lea Roy", "Omar Aziz", "Ines Costa", "Paul Weiss", "Nora Lind", "Ravi Rao"]
CITIES = ["Lisbon", "Oslo", "Kyoto", "Prague", "Lyon", "Cairo", "Porto", "Vienna", "Bergen", "Pune"]
JOBS = ["teacher", "nurse", "baker", "pilot", "farmer"]
SENTENCES = [
    "{name} is {age} years old, lives in {city} and works as a {job}.",
    "In {city} I met {name}, a {job} of {age}.",
    "{name}, {age}, has been a {job} in {city} for a long time.",
    "The {job} next door is called {name}. At {age}, there is no city {name} likes better than {city}.",
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "city": {"type": "string", "maxLength": 40},
        "job": {"enum": JOBS},
    },
    "required": ["name", "age", "city", "job"],
    "additionalProperties": False,
}
ASK = "Write the person in this text as JSON with the keys name, age, city and job, and nothing else.\n\n"


def records(count):
    """Sentences, each with the record that it says."""
    choose = random.Random(7)
    for _ in range(count):
        record = {
            "name": choose.choice(NAMES), "age": choose.randrange(18, 90),
            "city": choose.choice(CITIES), "job": choose.choice(JOBS),
        }
        yield choose.choice(SENTENCES).format(**record), record


def is_valid(record):
    """Whether it is an instance of SCHEMA."""
    if not isinstance(record, dict) or record.keys() != SCHEMA["properties"].keys():
        return False
    texts = all(isinstance(record[key], str) and len(record[key]) <= 40 for key in ("name", "city"))
    age = type(record["age"]) is int and 0 <= record["age"] <= 130
    return texts and age and record["job"] in JOBS


def parsed(text):
    """The JSON value of a text, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def run(model, cases, options):
    """Valid and right records, and tokens per second, of one way to ask."""
    prompts = [model.render_chat([{"role": "user", "content": ASK + text}]) for text, _ in cases]
    began = time.perf_counter()
    found = model.generate(prompts, temperature=0, max_tokens=100, add_special_tokens=False, **options)
    seconds = time.perf_counter() - began
    values = [parsed(one.text) for one in found]
    tokens = sum(one.usage.completion_tokens for one in found)
    return {
        "valid": sum(map(is_valid, values)),
        "right": sum(value == record for value, (_, record) in zip(values, cases)),
        "tokens": tokens,
        "forced_tokens": sum(one.usage.forced_tokens for one in found),
        "tokens_per_second": tokens / seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=pathlib.Path, help="write the results there")
    arguments = parser.parse_args()
    cases = list(records(arguments.count))
    with clawdbot.Model.from_pretrained(arguments.model) as model:
        ways = {"with the schema": {"json_schema": SCHEMA}, "without": {}}
        results = {way: run(model, cases, options) for way, options in ways.items()}
    print(f"{'':16} {'valid':>9} {'right':>9} {'tokens':>7} {'forced':>7} {'tokens/s':>9}")
    for way, one in results.items():
        valid, right = (f"{one[key]}/{arguments.count}" for key in ("valid", "right"))
        print(f"{way:16} {valid:>9} {right:>9} {one['tokens']:>7} {one['forced_tokens']:>7} {one['tokens_per_second']:>9.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"count": arguments.count, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
