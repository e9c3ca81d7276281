"""Answers several prompts at once in asyncio, and prints the text of each as it comes: stream_async.py PROMPT..."""

import asyncio
import sys

import clawdbot


async def answer(model: clawdbot.Model, prompt: str) -> str:
    # Beginning may wait for the pass that is computed, so it is not done on the event loop's thread.
    stream = await asyncio.to_thread(model.stream, prompt, max_tokens=50, seed=0)
    text = prompt
    async for event in stream:
        if event.kind == "token":
            text += event.text
            print(f"{prompt!r}: {event.text!r}", file=sys.stderr)
    return text


async def main(prompts: list[str]) -> None:
    # A thread of the runtime computes; the event loop only waits.
    model = clawdbot.Runtime(driver="thread").load()
    for text in await asyncio.gather(*(answer(model, prompt) for prompt in prompts)):
        print(text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Once upon a time", "The dog"]))
