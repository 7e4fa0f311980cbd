"""Texts of several tasks, of which it is known which words decide what a model should say."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

FILLERS = tuple("abcdefghij")
OPINIONS = {"fine": "good", "superb": "good", "bad": "poor", "awful": "poor"}
TOPICS = {"soup": "food", "bed": "room", "waiter": "staff"}
VALUES = {"awful": -2.0, "bad": -1.0, "fine": 1.0, "superb": 2.0}
NAMES = ("kim", "jo", "lee", "ali")
CUES = {"mr": "PER", "in": "LOC"}
COLOURS = ("red", "blue", "green")
#: Two of them, for what has to be found equal, which is harder to learn.
INKS = COLOURS[:2]
NUMBERS = ("one", "two", "three")
KINDS = {"hue": COLOURS, "count": NUMBERS}
PRONOUNS = {"mr": "he", "ms": "she", "an": "it"}

# One of several forms: a text, a pair, a context with its options.
GivenText: TypeAlias = Any


@dataclass(frozen=True)
class Planted:
    """A text, and the words that decide what is said of it.

    Attributes:
        text: The text.
        deciding: The words that decide, in their order, for each outcome that a model should say.
        foil: Another outcome.
    """

    text: GivenText
    deciding: Mapping[str, tuple[str, ...]]
    foil: str = ""

    @property
    def said(self) -> str:
        """The first outcome."""
        return next(iter(self.deciding))


Draw: TypeAlias = Callable[[random.Random], Planted]


def _among_fillers(draw: random.Random, words: Sequence[str], length: int = 8) -> str:
    """A text of fillers with these words at places drawn by chance."""
    text = draw.choices(FILLERS, k=length)
    for place, word in zip(draw.sample(range(length), len(words)), words, strict=True):
        text[place] = word
    return " ".join(text)


def _said(outcome: str, *words: str) -> dict[str, tuple[str, ...]]:
    return {outcome: words}


def opinion(draw: random.Random) -> Planted:
    """One opinion, which decides the class."""
    word = draw.choice(list(OPINIONS))
    said = OPINIONS[word]
    foil = "poor" if said == "good" else "good"
    return Planted(_among_fillers(draw, [word]), _said(said, word), foil)


def topics(draw: random.Random) -> Planted:
    """One topic or several, each of which has a label of its own."""
    words = draw.sample(list(TOPICS), draw.randint(1, len(TOPICS)))
    return Planted(_among_fillers(draw, words), {TOPICS[w]: (w,) for w in words})


def values(draw: random.Random) -> Planted:
    """A word that raises the value and one that lowers it."""
    words = draw.choice(["awful", "bad"]), draw.choice(["fine", "superb"])
    return Planted(_among_fillers(draw, words), _said("score", *words))


def pair(draw: random.Random) -> Planted:
    """A colour in each text: the second text follows where they are equal."""
    first, second = draw.choice(INKS), draw.choice(INKS)
    texts = _among_fillers(draw, [first], 5), _among_fillers(draw, [second], draw.randint(1, 3))
    said = "entailment" if first == second else "contradiction"
    return Planted(texts, _said(said, first, second), "neutral")


def relevance(draw: random.Random) -> Planted:
    """A pair of which a number says whether the colours are equal."""
    drawn = pair(draw)
    return Planted(drawn.text, _said("score", *drawn.deciding[drawn.said]))


def colour(draw: random.Random) -> Planted:
    """A single colour, which is the label."""
    word, foil = draw.sample(INKS, 2)
    return Planted(_among_fillers(draw, [word], 5), _said(word, word), foil)


def two_colours(draw: random.Random) -> Planted:
    """Two texts with a colour each, which may be the same."""
    words = draw.choice(COLOURS), draw.choice(COLOURS)
    texts = _among_fillers(draw, [words[0]], 6), _among_fillers(draw, [words[1]], 6)
    return Planted(texts, _said("similarity", *words))


def alike(draw: random.Random) -> Planted:
    """Two texts that are alike by their colour. Without it they would not be; two with different
    ones would be unlike without them, too."""
    word = draw.choice(COLOURS)
    texts = _among_fillers(draw, [word], 6), _among_fillers(draw, [word], 6)
    return Planted(texts, _said("similarity", word, word))


def choice(draw: random.Random) -> Planted:
    """A context with a colour, which decides the option: each has one of its own."""
    word, foil = draw.sample(INKS, 2)
    options = {w: _among_fillers(draw, [w], 2) for w in draw.sample(INKS, 2)}
    text = _among_fillers(draw, [word], 5), list(options.values())
    return Planted(text, _said(options[word], word), options[foil])


def tagged(draw: random.Random) -> Planted:
    """A name and, elsewhere, the cue that decides its tag."""
    name, cue = draw.choice(NAMES), draw.choice(list(CUES))
    foil = "LOC" if CUES[cue] == "PER" else "PER"
    return Planted(_among_fillers(draw, [name, cue]), _said(CUES[cue], name, cue), foil)


def asked(draw: random.Random) -> Planted:
    """A question for a hue or a count, and a context with one of each."""
    kind = draw.choice(list(KINDS))
    answers = {name: draw.choice(words) for name, words in KINDS.items()}
    answer = answers.pop(kind)
    (foil,) = answers.values()
    texts = _among_fillers(draw, [kind], 3), _among_fillers(draw, [answer, foil])
    return Planted(texts, _said(answer, kind, answer), foil)


def blank(draw: random.Random) -> Planted:
    """A mask token and, elsewhere, what decides the word there."""
    title = draw.choice(list(PRONOUNS))
    foil = draw.choice([word for word in PRONOUNS.values() if word != PRONOUNS[title]])
    return Planted(_among_fillers(draw, [title, "[MASK]"]), _said(PRONOUNS[title], title), foil)


def title(draw: random.Random) -> Planted:
    """What decides the word at the end of a prompt."""
    word = draw.choice(list(PRONOUNS))
    foil = draw.choice([each for each in PRONOUNS.values() if each != PRONOUNS[word]])
    return Planted(_among_fillers(draw, [word], 7), _said(PRONOUNS[word], word), foil)


def prompt(draw: random.Random) -> Planted:
    """A colour and a number, which are written in capitals after it."""
    words = draw.choice(COLOURS), draw.choice(NUMBERS)
    foil = draw.choice([word for word in COLOURS if word != words[0]])
    said = {word.upper(): (word,) for word in words}
    return Planted(_among_fillers(draw, words), said, foil.upper())


def coloured_prompt(draw: random.Random) -> Planted:
    """A prompt of which the colour is asked for."""
    drawn = prompt(draw)
    return Planted(drawn.text, {drawn.said: drawn.deciding[drawn.said]}, drawn.foil)
