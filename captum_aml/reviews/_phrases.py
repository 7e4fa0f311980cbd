"""Words and phrases of the synthetic reviews: the random draws, and the one place of the label.

A phrase is written with its deciding words in square brackets, as in ``"was [not] very [clever]"``.
The label matters only where a word is picked from the negative or the positive list.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from captum_aml.reviews import _lexicon as lexicon
from captum_aml.reviews._domains import SLOT_WORDS, Part

T = TypeVar("T")

_INTENSIFIER_RATE = 0.3
_MILD_INTENSIFIERS = ("very", "really", "quite", "extremely", "rather")
_STRONG_INTENSIFIERS = ("truly", "really", "simply", "absolutely")
_DENIED_INTENSIFIERS = ("very", "really", "particularly", "especially")
_VERB_INTENSIFIERS = ("really", "truly", "certainly", "genuinely")
_DENIALS = ("[not]", "[not]", "[not]", "[never]", "[hardly]", "[hardly]", "[scarcely]")
_PREVERBAL_DENIALS = ("[never]", "[never]", "[hardly]")


class _Slots(dict[str, str]):
    """Fills the neutral slots of one text when they are first asked for."""

    def __init__(self, draw: Callable[[Sequence[str]], str]) -> None:
        super().__init__()
        self._draw = draw

    def __missing__(self, name: str) -> str:
        twin = name.removeprefix("other_")
        taken = self[twin] if twin != name else None
        options = [word for word in SLOT_WORDS[twin] if word != taken]
        self[name] = self._draw(options)
        return self[name]


class Phrases:
    """Draws the words and phrases of one review.

    Args:
        rng (random.Random): source of every choice.
        label (int): 0 negative, 1 positive.
    """

    def __init__(self, rng: random.Random, label: int) -> None:
        self._rng = rng
        self._label = label
        self._slots = _Slots(self.draw)

    def draw(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        # One call of random() whatever the number of options: `choice` would consume more or
        # fewer bits, and the label would then leak into what is drawn next.
        return options[int(self._rng.random() * len(options))]

    def draw_weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, as likely as its weight says."""
        return self._rng.choices(list(weights), list(weights.values()))[0]

    def chance(self, rate: float) -> bool:
        """True at the given rate."""
        return self._rng.random() < rate

    def fill(self, template: str) -> str:
        """The template with its neutral slots filled, the same everywhere in one text."""
        return template.format_map(self._slots)

    def word(self, mild: lexicon.WordPair, strong: lexicon.WordPair, *, denied: bool) -> str:
        """A deciding word; if a negator comes before it, a mild one of the other polarity."""
        if denied or self.chance(0.6):
            return f"[{self.draw(mild[self._label ^ denied])}]"
        return f"[{self.draw(strong[self._label])}]"

    def adjective(
        self,
        kind: str,
        *,
        denied: bool = False,
        opposed: bool = False,
        after_article: bool = False,
        unlike: str = "",
        plain: bool = False,
    ) -> str:
        """An adjective for a kind of thing, perhaps with an intensifier before it.

        Args:
            kind (str): key of ``lexicon.MILD``.
            denied (bool, optional): whether a negator comes before it. Default: False.
            opposed (bool, optional): whether it speaks against the label. Default: False.
            after_article (bool, optional): keeps to words that begin with a consonant, so that
                "a" or "an" never depends on the label. Default: False.
            unlike (str, optional): a phrase whose adjective is not drawn again. Default: "".
            plain (bool, optional): no intensifier. Default: False.
        """
        strong = not denied and self.chance(0.4)
        own = self.chance(0.6)
        if strong:
            pair = lexicon.STRONG[kind] if own else lexicon.GENERAL_STRONG
        else:
            pair = lexicon.MILD[kind] if own else lexicon.GENERAL_MILD
        taken = unlike.split(" ")[-1].strip("[]")
        options = [word for word in pair[self._label ^ denied ^ opposed] if word != taken]
        if after_article:
            options = [word for word in options if word[0] not in "aeiou"]
        word = self.draw(options)
        intensifiers = _STRONG_INTENSIFIERS if strong else _MILD_INTENSIFIERS
        intensifier = self.draw(_DENIED_INTENSIFIERS if denied else intensifiers)
        if self.chance(_INTENSIFIER_RATE) and not plain:
            return f"{intensifier} [{word}]"
        return f"[{word}]"

    def predicate(self, part: Part, *, denied: bool) -> str:
        """What is said of a part: "was truly [superb]", "did [not] seem [dull]"."""
        was = "were" if part.plural else "was"
        adjective = self.adjective(part.kind, denied=denied)
        if not denied:
            return self.draw((f"{was} {adjective}", f"{was} {adjective}", f"seemed {adjective}"))
        denial, preverbal = self.denial(adjective)
        return self.draw(
            (
                f"{was} {denial} {adjective}",
                f"{was} {denial} {adjective}",
                f"did [not] seem {adjective}",
                f"{preverbal} seemed {adjective}",
            )
        )

    def denial(self, adjective: str) -> tuple[str, str]:
        """Negators that fit after "was" and before a verb; few fit before an intensifier."""
        if adjective.startswith("["):
            return self.draw(_DENIALS), self.draw(_PREVERBAL_DENIALS)
        return "[not]", "[never]"

    def flaw(self, kind: str, *, plain: bool = False) -> str:
        """An adjective of the other polarity that a contrast sets aside: not deciding."""
        return _unmarked(self.adjective(kind, opposed=True, plain=plain))

    def verb_intensifier(self) -> str:
        """A word and a space to put before a verb, or nothing."""
        word = self.draw(_VERB_INTENSIFIERS)
        return f"{word} " if self.chance(_INTENSIFIER_RATE) else ""

    def preverbal_denial(self) -> str:
        """A negator that fits before a verb in the past tense."""
        return self.draw(_PREVERBAL_DENIALS)


def _unmarked(phrase: str) -> str:
    return phrase.replace("[", "").replace("]", "")
