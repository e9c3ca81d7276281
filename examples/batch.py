"""Reads prompts from stdin, one per line, and generates for all of them in one batch:

    python batch.py [MODEL] < prompts.txt
"""

import sys
import time

import clawdbot


def main() -> None:
    model = clawdbot.Model.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else None)
    prompts = [line.strip() for line in sys.stdin if line.strip()]
    start = time.perf_counter()
    completions = model.generate(prompts, max_tokens=50, seed=0) if prompts else []
    seconds = time.perf_counter() - start
    for prompt, completion in zip(prompts, completions, strict=True):
        print(f"{prompt!r} -> {completion.text!r} ({completion.finish_reason})")
    tokens = sum(completion.usage.completion_tokens for completion in completions)
    print(f"{tokens} tokens in {seconds:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
