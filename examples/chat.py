"""A conversation on the terminal, one line a message: python chat.py [MODEL_DIRECTORY]"""

import sys

import clawdbot


def main() -> None:
    model = clawdbot.Model.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else None)
    messages = []
    for line in sys.stdin:
        messages.append({"role": "user", "content": line.strip()})
        try:
            completion = model.chat(messages, max_tokens=200, seed=0)
        except clawdbot.ContextOverflow as error:
            sys.exit(f"the conversation is full: {error}")
        print(completion.text)
        messages.append({"role": "assistant", "content": completion.text})


if __name__ == "__main__":
    main()
