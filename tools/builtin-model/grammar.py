"""Words, characters and the small template language the stories are written in.

Templates know three constructs:

* ``[one|two|]`` picks one alternative (they may be nested or empty),
* ``{slot}`` inserts a value of the story's cast, and
* ``{a slot}`` inserts it after the right indefinite article.

The first letter of a sentence is capitalised afterwards, so ``{he}`` may start
one. (After ``!"`` and ``?"`` the case is left as written, because a speaker
may follow: ``"Help!" cried Pip.``)
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

SPECIES = (
    "fox rabbit bear mouse cat dog owl duck frog hedgehog squirrel turtle pig goat lamb pony dragon "
    "girl boy robot"
).split()
RARE_SPECIES = (
    "penguin elephant lion tiger monkey panda wolf deer badger otter beaver crow snail kitten puppy "
    "dinosaur unicorn princess knight wizard giant mole sparrow horse cow koala seal raccoon"
).split()
SHE_SPECIES, HE_SPECIES = {"girl", "princess"}, {"boy", "knight", "wizard"}

SHE_NAMES = "Lily Mia Ruby Daisy Poppy Luna Nora Rosie Bella Wren Hazel Olive Molly Tilly Anna Zoe".split()
HE_NAMES = "Pip Max Finn Oscar Toby Leo Ben Sam Otto Hugo Milo Jack Tom Gus Theo Felix".split()
SYLLABLES = "ba be bo da di do fa fi ka ki ko la li lo ma mi mo na ni no pa po ra ri ro sa so ta ti to va vi za zu".split()
NAME_ENDS = ["", "n", "l", "x", "s", "m", "la", "na", "by", "ko"]

COLOURS = "red blue green yellow orange purple white golden silver pink".split()
# How a thing can get lost decides which things fit a plot.
THINGS = {
    "flies": "kite balloon hat scarf feather".split(),
    "rolls": "ball wagon drum wheel".split(),
    "floats": "boat basket cup bottle".split(),
    "falls": "key button bell spoon ring coin".split(),
    "breaks": "cup lantern flute boat bowl kite".split(),
}
FOODS = ["apple pie", "honey cake", "warm bread", "berry jam", "carrot cake", "nut cake"]
TRAITS = "kind brave shy curious clever cheerful gentle quiet happy".split()
SKILLS = {
    "swim": "the lake", "skate": "the ice", "whistle": "the garden", "dance": "the meadow", "sing": "the hill",
    "ride a bike": "the long road", "climb a tree": "the old oak tree", "play the drum": "the barn",
}
CRITTERS = ["bird", "beetle", "chick", "bee", "butterfly", "duckling", "bunny"]
ELDERS = {"grandmother": "she", "grandfather": "he", "mother": "she", "father": "he"}
PRONOUNS = {"she": ("she", "her", "her", "herself"), "he": ("he", "him", "his", "himself")}


@dataclass(frozen=True)
class Character:
    """A named character; ``gender`` is ``"she"`` or ``"he"``."""

    name: str
    species: str
    gender: str

    def slots(self, prefix: str) -> dict[str, str]:
        """Template slots: ``h hs he him his himself`` for prefix ``h`` (the hero), ``f fs fhe fhim ...`` for ``f``."""
        he, him, his, himself = PRONOUNS[self.gender]
        p = "" if prefix == "h" else prefix
        return {prefix: self.name, prefix + "s": self.species, p + "he": he, p + "him": him, p + "his": his,
                p + "himself": himself}


def invented_name(rng: random.Random) -> str:
    """A name that is in no list, so that the model learns to copy names."""
    return ("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 2))) + rng.choice(NAME_ENDS)).capitalize()


def character(rng: random.Random, avoid: Character | None = None) -> Character:
    """A random character whose name and species differ from those of ``avoid``."""
    while True:
        species = rng.choice(RARE_SPECIES if rng.random() < 0.2 else SPECIES)
        gender = "she" if species in SHE_SPECIES else "he" if species in HE_SPECIES else rng.choice(["she", "he"])
        name = rng.choice(SHE_NAMES if gender == "she" else HE_NAMES)
        if rng.random() < 0.12:
            name = invented_name(rng)
        if len(name) > 1 and (avoid is None or (name != avoid.name and species != avoid.species)):
            return Character(name, species, gender)


def with_article(phrase: str) -> str:
    """``phrase`` after "a" or "an"."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith("uni")
    return f"{'an' if vowel else 'a'} {phrase}"


_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(a )?(\w+)\}")
_SENTENCE_START = re.compile(r'(?:^|(?<=[.!?] )|(?<=\." )|(?<=\n))[a-z]')


def expand_phrase(rng: random.Random, template: str, slots: dict[str, str]) -> str:
    """Resolves choices from the inside out, fills the slots and removes double spaces."""
    while (match := _CHOICE.search(template)) is not None:
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    text = _SLOT.sub(lambda m: with_article(slots[m[2]]) if m[1] else slots[m[2]], template)
    return re.sub(r" {2,}", " ", text).strip()


def expand(rng: random.Random, template: str, slots: dict[str, str]) -> str:
    """Like ``expand_phrase`` for whole sentences, whose first letters it capitalises."""
    return _SENTENCE_START.sub(lambda m: m[0].upper(), expand_phrase(rng, template, slots))
