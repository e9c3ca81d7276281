"""A conversation on stdin, one message per line. The session keeps its state, so each turn computes only the new tokens.

    python chat.py [MODEL]
"""

import sys

import clawdbot


def main() -> None:
    model = clawdbot.Model.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else None)
    session = model.session()
    messages = []
    for line in sys.stdin:
        messages.append({"role": "user", "content": line.strip()})
        try:
            for event in session.chat_stream(messages, max_tokens=200, seed=0):
                if event.kind == "token":
                    print(event.text, end="", flush=True)
                elif event.kind == "done":
                    messages.append({"role": "assistant", "content": event.completion.text})
        except clawdbot.ContextOverflow as error:
            sys.exit(f"the conversation is full: {error}")
        print()


if __name__ == "__main__":
    main()
