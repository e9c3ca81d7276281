"""Embeds texts and prints their cosines with the first one: python embed.py [MODEL [QUERY TEXT...]]"""

import sys

import clawdbot

TEXTS = ["A cat sat.", "The cat was sitting.", "Rain fell on the sea."]


def main() -> None:
    if len(sys.argv) > 1:
        vectors_of = clawdbot.Model.from_pretrained(sys.argv[1]).embed
    else:
        # The built-in story model is not an embedding model, but any model can embed.
        model = clawdbot.Model.from_pretrained()

        def vectors_of(texts):
            return model.embed(texts, pooling="mean", normalize=True)

    texts = sys.argv[2:] or TEXTS
    vectors = vectors_of(texts)
    # The dot product of vectors of length 1 is their cosine.
    for text, cosine in zip(texts[1:], vectors[1:] @ vectors[0], strict=True):
        print(f"{cosine:.4f} {text!r}")


if __name__ == "__main__":
    main()
