"""Generates from a prompt, token by token: python generate.py [MODEL [PROMPT]]"""

import sys

import clawdbot


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else None
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"
    with clawdbot.Model.from_pretrained(path) as model:
        print(prompt, end="")
        for event in model.stream(prompt, max_tokens=100, seed=0):
            if event.kind == "token":
                print(event.text, end="", flush=True)
            elif event.kind == "done":
                usage = event.completion.usage
        print()
        print(f"{usage.completion_tokens} tokens, {usage.decode_tokens_per_s:.1f} tokens/s", file=sys.stderr)


if __name__ == "__main__":
    main()
