"""Answers in a context: what a model says, and which of them users ask about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TokenizedText
from captum_aml.text.inputs import Span
from captum_aml.text.models.base import Question
from captum_aml.text.models.places import word_places
from captum_aml.text.models.targets import Target
from captum_aml.text.segmentation import trimmed

#: What of an answer is explained.
AnswerPart: TypeAlias = Literal["answer", "start", "end"]

# The model's answer, no answer, words of the context, or characters.
_Place: TypeAlias = "str | Span"

#: The answer that there is none.
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Answer:
    """An answer in a context.

    Attributes:
        text: The answer as it is written in the context, or "no answer".
        span: Its characters in the text; None for no answer.
        tokens: The positions of its first and last token.
        log_probability: The logarithm of its probability.
    """

    text: str
    span: Span | None
    tokens: tuple[int, int]
    log_probability: float


class Wish(NamedTuple):
    """What is asked of a text: a part of an answer, and what it is held against."""

    part: AnswerPart
    fact: _Place
    foil: _Place | None = None


def wishes(asked: Any) -> list[Wish]:
    """What is asked of a text, one after the other.

    Raises:
        InvalidInputError: It has none of the forms.
    """
    if asked == "all":
        asked = list(get_args(AnswerPart))
    if isinstance(asked, list):
        return [wish for item in asked for wish in wishes(item)]
    if asked in ("start", "end"):
        return [Wish(asked, "answer")]
    if asked is None or _is_place(asked):
        return [Wish("answer", "answer" if asked is None else asked)]
    if isinstance(asked, tuple) and len(asked) == 2 and all(map(_is_place, asked)):
        fact, foil = asked
        if fact not in ("start", "end") and foil not in ("start", "end"):
            return [Wish("answer", fact, foil)]
    raise InvalidInputError(
        "target: expected 'answer', 'start', 'end', 'no answer', words of the context, characters "
        f"(start, end), or a pair of answers, got {asked!r}"
    )


def _is_place(given: object) -> bool:
    if isinstance(given, str):
        return bool(given)
    return isinstance(given, tuple) and len(given) == 2 and all(type(i) is int for i in given)


@dataclass(frozen=True)
class FoundAnswer:
    """What a model says of a text.

    Attributes:
        text: The text.
        start: Log-probabilities of its tokens as start (L,).
        end: The same as end (L,).
        context: The characters of the context.
        said: The first and last token of the model's answer.
    """

    text: TokenizedText
    start: Tensor
    end: Tensor
    context: Span
    said: tuple[int, int]

    @property
    def answer(self) -> Answer:
        """The model's answer."""
        return self.at(self.said)

    def at(self, tokens: tuple[int, int]) -> Answer:
        """The answer from one token to another."""
        first, last = tokens
        log_probability = float(self.start[first] + self.end[last])
        if not self.text.maskable[first]:
            return Answer(NO_ANSWER, None, tokens, log_probability)
        ends = (self.text.offsets[first][0], self.text.offsets[last][1])
        span = trimmed(self.text.text, ends)
        return Answer(self.text.text[slice(*span)], span, tokens, log_probability)

    def named(self, place: _Place) -> Answer:
        """The answer that a user names, of several the likeliest."""
        if place == "answer":
            return self.answer
        none = self.text.own_inputs["context"][2]
        if place == NO_ANSWER and none >= 0:
            return self.at((none, none))
        found = word_places(self.text, place, within=self.context)
        return max((self.at((tokens[0], tokens[-1])) for _, tokens in found), key=_likelihood)

    def question(self, wish: Wish) -> Question:
        """What is explained where this is asked: the fact first, then the other spans."""
        answers = [self.named(wish.fact)]
        if wish.foil is not None:
            answers.append(self.named(wish.foil))
            if answers[0].tokens == answers[1].tokens:
                raise InvalidInputError(
                    f"target: expected a contrast between two answers, got {answers[0].text!r} "
                    "twice"
                )
        if self.said not in [each.tokens for each in answers]:
            answers.append(self.answer)
        spans = tuple(border for each in answers for border in _borders(each, wish.part))
        of = "" if wish.part == "answer" else f"{wish.part} of "
        labels = (*(f"{of}{each.text}" for each in answers), f"another {wish.part}")
        text = replace(
            self.text,
            own_inputs={**self.text.own_inputs, "spans": spans},
            labels=labels,
            place=answers[0].span,
        )
        predicted = [each.tokens for each in answers].index(self.said)
        return Question(text, (Target(0, None if wish.foil is None else 1),), predicted)


def _borders(answer: Answer, part: AnswerPart) -> tuple[int, int]:
    first, last = answer.tokens
    return (-1 if part == "end" else first, -1 if part == "start" else last)


def _likelihood(answer: Answer) -> float:
    return answer.log_probability
