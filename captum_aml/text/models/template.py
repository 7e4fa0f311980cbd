"""Prompts with a slot for the text, and the label words that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from string import Formatter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span, Text, TextLike

_SLOTS = ("text", "text_pair")


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Template and label words of a model that takes labels; see :class:`PromptClassifier`.

    Attributes:
        template: The prompt of a language model with its slot ``{text}``; None for that of a class
            that has one of its own.
        labels: The words that stand for the classes.
        examples: Solved examples.
        description: What goes first of all.
        separator: What stands between these.
        add_special_tokens: Whether the tokenizer adds its special tokens.
    """

    template: str | None
    labels: Mapping[str, str] | Sequence[str]
    examples: Sequence[tuple[TextLike, str]] = ()
    description: str = ""
    separator: str = "\n\n"
    add_special_tokens: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """Template and labels, and what else is not as by default, as arguments of a class."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: given[f.name] for f in fields(self) if given[f.name] != f.default}

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        labels = self.labels
        plain = dict(labels) if isinstance(labels, Mapping) else list(labels)
        # As strings or pairs: words that were given one by one are joined.
        texts = [Text.of(text).pieces for text, _ in self.examples]
        examples = [
            [pieces[0] if len(pieces) == 1 else list(pieces), label]
            for pieces, (_, label) in zip(texts, self.examples, strict=True)
        ]
        return asdict(self) | {"labels": plain, "examples": examples}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptConfig:
        """The configuration from values of :meth:`to_dict`."""
        # JSON has no tuples: a pair of texts became a list, which would be words.
        examples = [
            (tuple(text) if isinstance(text, list) else text, label)
            for text, label in values["examples"]
        ]
        return cls(**{**values, "examples": tuple(examples)})


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt cut at its slots.

    Attributes:
        pieces: What stands before, between and after the slots.
        slots: The slots between the pieces, ``text`` or ``text_pair``.
    """

    pieces: tuple[str, ...]
    slots: tuple[str, ...]

    @classmethod
    def of(cls, config: PromptConfig, *, mask: str = "") -> PromptTemplate:
        """The template of a prompt, whose labels are named, with everything that goes before it.

        Args:
            config: The prompt.
            mask: What stands in the template in the place of the answer. Default: "", the answer
                follows the template.

        Raises:
            InvalidInputError: The template is malformed, or an example is.
        """
        words = config.labels
        assert isinstance(words, Mapping)
        own = cls._parsed(config.template)
        n_masks = sum(piece.count(mask) for piece in own.pieces) if mask else 1
        if n_masks != 1:
            raise InvalidInputError(
                f"template: expected the mask token {mask!r} once, where the label word is, got "
                f"it {n_masks} times in {config.template!r}"
            )
        before = [config.description] if config.description else []
        known = {**{word.strip(): word for word in words.values()}, **words}
        for number, example in enumerate(config.examples):
            if not isinstance(example, tuple) or len(example) != 2:
                raise InvalidInputError(
                    "examples: expected pairs of a text and its class, got "
                    f"{type(example).__name__} at position {number}"
                )
            text, label = example
            if label not in known and str(label).strip() not in known:
                raise InvalidInputError(
                    f"examples: expected classes among {', '.join(words)}, got {label!r} at "
                    f"position {number}"
                )
            word = known.get(label) or known[str(label).strip()]
            if mask:
                solved, end = own.answered(mask, word.strip()), ""
            else:
                solved, end = own, own.joined(word)
            before.append(solved.fill(Text.of(text, number))[0] + end)
        first = config.separator.join([*before, own.pieces[0]])
        return cls((first, *own.pieces[1:]), own.slots)

    @classmethod
    def _parsed(cls, template: str | None) -> PromptTemplate:
        if template is None:
            raise InvalidInputError(
                "template: expected it together with labels, to classify by prompt, got None"
            )
        expected = "template: expected a string with the slot {text}"
        if not isinstance(template, str):
            raise InvalidInputError(f"{expected}, got {type(template).__name__}")
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise InvalidInputError(
                f"{expected}, got {template!r} ({error}); double braces that are meant as such"
            ) from None
        pieces, slots = [""], []
        for literal, field, specification, conversion in parts:
            pieces[-1] += literal
            if field is None:
                continue
            if field not in _SLOTS or specification or conversion:
                raise InvalidInputError(
                    f"{expected} and possibly {{text_pair}}, got the slot {field!r} in "
                    f"{template!r}; double braces that are meant as such"
                )
            slots.append(field)
            pieces.append("")
        if sorted(slots) not in (["text"], ["text", "text_pair"]):
            raise InvalidInputError(
                f"{expected} once, and {{text_pair}} once where texts are pairs, got {template!r}"
            )
        return cls(tuple(pieces), tuple(slots))

    def answered(self, mask: str, word: str) -> PromptTemplate:
        """The template with a word in place of the mask token."""
        return replace(self, pieces=tuple(piece.replace(mask, word) for piece in self.pieces))

    @property
    def tail(self) -> str:
        """The text after the last slot."""
        return self.pieces[-1]

    def joined(self, word: str) -> str:
        """A label word as it follows the prompt: with a space, unless there is one already."""
        spaced = self.tail[-1:].isspace() or word[:1].isspace()
        return word if spaced else f" {word}"

    def fill(self, text: Text) -> tuple[str, list[tuple[Span, int]]]:
        """The prompt of a text.

        Returns:
            The prompt, and for each part of the text where it stands in the prompt and where it
            begins in the text.

        Raises:
            InvalidInputError: A pair is given and the template has no slot for it, or the other
                way around.
        """
        origins = dict(zip(_SLOTS, [start for start, _ in text.parts] or [0], strict=False))
        values = dict(zip(_SLOTS, text.pieces, strict=False))
        if set(values) != set(self.slots) or text.n_options or text.messages:
            given = "a pair" if text.parts else "a single text"
            given = "options" if text.n_options else "a chat" if text.messages else given
            raise InvalidInputError(
                f"texts: expected texts for the slots {', '.join(self.slots)} of the template, "
                f"got {given}"
            )
        prompt, spans = self.pieces[0], []
        for slot, piece in zip(self.slots, self.pieces[1:], strict=True):
            spans.append(((len(prompt), len(prompt) + len(values[slot])), origins[slot]))
            prompt += values[slot] + piece
        return prompt, spans


def beginning(text: Text, end: int) -> Text:
    """A text up to a character; both texts of a pair remain, the second perhaps empty."""
    if not text.parts:
        return Text(text.text[:end])
    (_, first_end), (second_start, _) = text.parts
    first = text.text[: min(end, first_end)]
    return Text.of((first, text.text[second_start : max(end, second_start)]))


def text_offsets(offsets: Sequence[Span], spans: Sequence[tuple[Span, int]]) -> tuple[Span, ...]:
    """Spans in a prompt as spans in the text; (0, 0) where a token has none of its characters.

    Args:
        offsets: The tokens' spans in the prompt.
        spans: Where parts of the text stand in the prompt, and where each begins in the text.
    """
    found = []
    for start, end in offsets:
        own = (0, 0)
        for (first, last), origin in spans:
            low, high = max(start, first), min(end, last)
            if low < high:
                own = (low - first + origin, high - first + origin)
                break
        found.append(own)
    return tuple(found)


class Word(NamedTuple):
    """A class's word: its tokens, and the number of the branch that all but the last begin."""

    ids: tuple[int, ...]
    branch: int


def named_words(
    labels: Mapping[str, str] | Sequence[str], *, least: int = 2
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes' names and their words, as many as ``least`` or more."""
    if isinstance(labels, str) or not isinstance(labels, Mapping | Sequence):
        raise InvalidInputError(
            f"labels: expected a mapping from names to words, or words, got {labels!r}"
        )
    words = list(labels.values()) if isinstance(labels, Mapping) else list(labels)
    names = list(labels) if isinstance(labels, Mapping) else [str(word).strip() for word in words]
    for word in (*names, *words):
        if not isinstance(word, str) or not word.strip():
            raise InvalidInputError(f"labels: expected words, got {word!r}")
    if len(words) < least or len(set(names)) != len(names):
        count = "two different words or more" if least == 2 else "different words"
        raise InvalidInputError(f"labels: expected {count}, got {words}")
    return tuple(names), tuple(words)


def read_words(ids: Sequence[tuple[int, ...]], names: Sequence[str]) -> tuple[list[Word], Tensor]:
    """Reading of each word, and the token ids after the prompt, (B, T).

    Words that begin alike share a branch; branches that are shorter than the longest are filled up
    with a token that nothing of theirs is read after.
    """
    for index, own in enumerate(ids):
        if own in ids[:index]:
            raise InvalidInputError(
                f"labels: expected different words, got the same tokens for "
                f"{names[ids.index(own)]!r} and {names[index]!r}"
            )
        if not own:
            raise InvalidInputError(f"labels: the tokenizer has no token for {names[index]!r}")
    given = sorted({own[:-1] for own in ids}, key=lambda b: (-len(b), b))
    branches: list[tuple[int, ...]] = []
    for prefix in given:
        if not any(branch[: len(prefix)] == prefix for branch in branches):
            branches.append(prefix)
    words = [
        Word(own, next(i for i, b in enumerate(branches) if b[: len(own) - 1] == own[:-1]))
        for own in ids
    ]
    longest = max(len(branch) for branch in branches)
    table = torch.zeros(len(branches), longest, dtype=torch.long)
    for row, branch in enumerate(branches):
        table[row, : len(branch)] = torch.tensor(branch, dtype=torch.long)
    return words, table
