"""Trains the byte-level BPE tokenizer on the training split."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import corpus

SPECIALS = ["<unk>", corpus.BOS, corpus.EOS, corpus.USER, corpus.ASSISTANT, corpus.END]


def plain_texts(seed: int, documents: int) -> Iterator[str]:
    """The stretches of text between special tokens."""
    special = re.compile("|".join(map(re.escape, SPECIALS)))
    for index in range(documents):
        yield from filter(None, special.split(corpus.document(seed, "train", index)))


def train(seed: int, documents: int, vocab_size: int) -> Tokenizer:
    """A tokenizer whose ids start with ``SPECIALS``, then the 256 bytes, then the merges."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(plain_texts(seed, documents), trainer)
    bos = (corpus.BOS, tokenizer.token_to_id(corpus.BOS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{corpus.BOS} $A", pair=f"{corpus.BOS} $A {corpus.BOS}:1 $B:1", special_tokens=[bos]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("build/tokenizer.json"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = train(args.seed, args.documents, args.vocab_size)
    tokenizer.save(str(args.out))
    print(f"{tokenizer.get_vocab_size()} tokens -> {args.out}")


if __name__ == "__main__":
    main()
