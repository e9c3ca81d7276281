"""Deterministic story corpus: plain stories and chats that ask for one.

Document ``i`` of a split depends only on the seed, the split and ``i``, so
splits never overlap and any part of the corpus can be reproduced.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass

import grammar
import plots

BOS, EOS, USER, ASSISTANT, END = "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_SHARE = 0.25

REQUESTS = (
    "[Tell me|Please tell me|Write|Can you tell me|I would like|Tell us|Make up] a {length} story about {subject}",
    "[Tell me|Please tell me|Write|Can you tell me|I would like|Make up] a [little |new |]story about {subject}",
    "Tell me a story about {subject}",
    "Write a story about {subject}",
    "A story about {subject}, please",
)
OPEN_REQUESTS = "[Tell me a story|Tell me a story, please|A story, please|I want a story|Tell me something|Write a story|Once upon a time]"
FOLLOW_UPS = "[Another one, please, about {subject}|And now one about {subject}|Now tell me about {subject}|One more, please, about {subject}]"
GREETINGS = (
    ("[Hello|Hi|Hey|Good morning|Good evening|Hi there]",
     "Hello! [I can tell you a story. What should it be about?|Would you like to hear a story?|Shall I tell you a story?]"),
    ("[Who are you|What are you|What is your name]", "I am a very small story model. [I can tell you a story.|Stories are all I know.]"),
    ("[What can you do|Help|What do you know|How does this work]",
     "I can tell you a story. [Tell me who it should be about.|Just say: tell me a story about a fox.]"),
    ("[My name is|I am|Hello, I am|Hi, my name is] {name}",
     "Hello, {name}! [What should the story be about, {name}?|Would you like to hear a story, {name}?|I am happy to meet you, {name}.]"),
    ("How are you", "I am fine, thank you! [Would you like to hear a story?|Shall I tell you a story?]"),
    ("[Thank you|Thanks|Thanks a lot]", "You are welcome! [Would you like to hear another story?|Come back soon.]"),
    ("[Bye|Goodbye|Good night]", "Goodbye! [Come back soon.|Sleep well.]"),
    ("[What is the capital of {city}|What is {n} plus {n}|How far is the moon|Who is the king of {city}|Write a program in {language}|"
     "What day is it|Why is the sky blue|What is the weather in {city}|Explain {language} to me|How do I cook {food}|Translate this into {language}]",
     "I am sorry, I do not know that. I only know stories. [Shall I tell you one?|Would you like to hear one?]"),
)
SMALL_TALK_SLOTS = {
    "city": "France Paris Spain London Rome Berlin China Tokyo".split(),
    "language": "Python Rust French German English code".split(),
    "n": "2 3 4 7 10 12".split(),
    "food": grammar.FOODS + ["rice", "pasta", "eggs"],
}


@dataclass(frozen=True)
class Story:
    """A finished story, with the facts for requests and questions about it."""

    text: str
    topics: tuple[str, ...]
    lesson: str
    slots: dict[str, str]


def make_story(rng: random.Random) -> Story:
    """Casts the characters, picks a plot and writes the story."""
    plot = plots.PLOTS[rng.choice(list(plots.PLOTS))]
    hero = grammar.character(rng)
    friend = grammar.character(rng, avoid=hero)
    skill = rng.choice(list(grammar.SKILLS))
    slots = hero.slots("h") | friend.slots("f")
    slots |= {
        "trait": rng.choice(grammar.TRAITS),
        "ftrait": rng.choice(grammar.TRAITS),
        "tdescr": rng.choice(["old", "small", "big", "tired"]),
        "elder": rng.choice(list(grammar.ELDERS)),
        "home": rng.choice(plots.HOMES),
        "food": rng.choice(grammar.FOODS),
        "colour": rng.choice(grammar.COLOURS),
        "skill": skill,
        "skillplace": grammar.SKILLS[skill],
        "critter": rng.choice(grammar.CRITTERS),
        "ts": rng.choice([s for s in grammar.SPECIES[:16] if s not in (hero.species, friend.species)]),
        "length": rng.choice(["short", "long", "long"]),
    }
    say = lambda template: grammar.expand(rng, template, slots)  # noqa: E731
    phrases = {"descr": plots.DESCRIPTION, "friend": plots.FRIEND, "weather": plot.weather, "place": plot.place}
    for slot, template in phrases.items():
        slots[slot] = grammar.expand_phrase(rng, template, slots)
    slots["at"] = {"hill": "on", "river": "by", "market": "at"}.get(slots["place"], "in")
    if plot.thing:
        slots["thing"] = rng.choice(grammar.THINGS[plot.thing])
        slots["obj"] = f"{slots['colour']} {slots['thing']}"
        slots["subplot"] = say(plots.SUBPLOT)

    detail = (lambda template: "") if slots["length"] == "short" else (lambda template: template)
    opening = f"{plots.OPENING} {detail(plots.LIKES)} {plots.OWNS_THING if plot.owned else ''}"
    weather = detail(plots.WEATHER_DETAILS[slots["weather"]]) if plot.start == plots.START else ""
    problem, attempt, *rest = plot.paragraphs
    lesson = say(rng.choice(plot.lessons))
    end = f"{lesson} {say(detail(rng.choice(plots.CLOSINGS)))}".strip()
    middle = [f"{plot.start} {weather} {problem}", f"{attempt} {detail(f'[{plots.FEELINGS}|]')}", *rest]
    return Story("\n\n".join([*map(say, [opening, *middle]), end]), plot.topics, lesson, slots)


def subject(rng: random.Random, story: Story) -> str:
    """Names the hero, and often what happens, as a request would."""
    who = rng.choices(
        ["{a hs} named {h}", "{a descr} {hs} named {h}", "{a hs}", "{h} the {hs}", "{h}", "{a descr} {hs}",
         "{a hs} named {h} and {a fs} named {f}", "{h} and {f}"],
        weights=[40, 10, 14, 10, 4, 5, 10, 4],
    )[0]
    topic = rng.choice(story.topics) if rng.random() < 0.65 else ""
    if " and " in who and not topic.startswith("who"):
        topic = ""
    return grammar.expand_phrase(rng, f"{who} {topic}", story.slots)


def user_turn(rng: random.Random, text: str) -> str:
    """Ends the request with punctuation, or carelessly as people do."""
    asks = text.split()[0] in ("Can", "Who", "What", "How", "Why")
    style = rng.random()
    if style < 0.8:
        return text + ("?" if asks else ".")
    return text.lower() if style < 0.88 else text


def story_request(rng: random.Random, story: Story, follow_up: bool = False) -> str:
    """A user turn that ``story`` answers."""
    if not follow_up and rng.random() < 0.1:
        return user_turn(rng, grammar.expand(rng, OPEN_REQUESTS, {}))
    template = FOLLOW_UPS if follow_up else rng.choice(REQUESTS)
    return user_turn(rng, grammar.expand(rng, template, {"subject": subject(rng, story), "length": story.slots["length"]}))


def question(rng: random.Random, story: Story) -> tuple[str, str]:
    """A question about ``story`` and its answer."""
    pairs = [
        ("What was the name of the {hs}", "The {hs} was named {h}."),
        ("Who was the friend of {h}", "{f} the {fs} was the friend of {h}."),
        ("What did {h} learn", story.lesson),
    ]
    ask, answer = (grammar.expand(rng, t, story.slots) for t in rng.choice(pairs))
    return user_turn(rng, ask), answer


def small_talk(rng: random.Random) -> tuple[str, str]:
    """A greeting or an off-topic question and its answer."""
    ask, answer = rng.choice(GREETINGS)
    slots = {k: rng.choice(v) for k, v in SMALL_TALK_SLOTS.items()} | {"name": grammar.character(rng).name}
    return user_turn(rng, grammar.expand(rng, ask, slots)), grammar.expand(rng, answer, slots)


def make_chat(rng: random.Random) -> str:
    """A conversation of one to three turns in chat form."""
    turns: list[tuple[str, str]] = []
    kind = rng.random()
    if kind < 0.2:
        turns.append(small_talk(rng))
    if kind < 0.08:
        turns.append(small_talk(rng))
    else:
        story = make_story(rng)
        turns.append((story_request(rng, story), story.text))
        if kind > 0.8:
            turns.append(question(rng, story) if rng.random() < 0.6 else small_talk(rng))
        elif kind > 0.72:
            other = make_story(rng)
            turns.append((story_request(rng, other, follow_up=True), other.text))
    return BOS + "".join(f"{USER}\n{ask}{END}\n{ASSISTANT}\n{answer}{END}\n" for ask, answer in turns)


def document(seed: int, split: str, index: int) -> str:
    """Document ``index`` of ``split``, with its special tokens spelled out."""
    rng = random.Random(f"{seed}/{split}/{index}")
    if rng.random() < CHAT_SHARE:
        return make_chat(rng)
    return BOS + make_story(rng).text + EOS


def main() -> None:
    parser = argparse.ArgumentParser(description="Print documents of the corpus.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", default="train", help="train or heldout (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="index of the first document")
    parser.add_argument("--count", type=int, default=5)
    args = parser.parse_args()
    for index in range(args.start, args.start + args.count):
        print(document(args.seed, args.split, index), end="\n\n" + "-" * 72 + "\n")


if __name__ == "__main__":
    main()
