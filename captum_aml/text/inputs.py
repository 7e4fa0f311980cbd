"""The forms in which a text is given, and the one form in which it goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from captum_aml.exceptions import InvalidInputError

#: Start and end of characters in a text.
Span: TypeAlias = tuple[int, int]

#: One text: a string, a pair of strings (a tuple, or a mapping as pipelines take it), or a list of
#: the words of a text that is split already.
TextLike: TypeAlias = "str | tuple[str, str] | Mapping[str, str] | Sequence[str] | Text"

#: Between the two texts of a pair.
PAIR_SEPARATOR = "\n"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Text:
    """One text as it is shown, with the way back to what was given.

    Attributes:
        text: All characters. The two texts of a pair are joined by a line break, words by spaces;
            lone surrogates, which no encoding can hold, became U+FFFD.
        parts: The spans of both texts of a pair; () otherwise.
        words: The spans of words that were given one by one; None otherwise.
    """

    text: str
    parts: tuple[Span, ...] = ()
    words: tuple[Span, ...] | None = None

    @property
    def regions(self) -> tuple[Span, ...]:
        """The spans of the text, or of both texts of a pair."""
        return self.parts or ((0, len(self.text)),)

    @property
    def pieces(self) -> tuple[str, ...]:
        """Strings for the tokenizer: one, or the two of a pair."""
        return tuple(self.text[start:end] for start, end in self.regions)

    @classmethod
    def of(cls, given: object, position: int = 0) -> Text:
        """A text of any form.

        Args:
            given: See ``TextLike``.
            position: Its number among the texts, for the error.

        Raises:
            InvalidInputError: It has none of the forms.
        """
        if isinstance(given, Text):
            return given
        if isinstance(given, str):
            return cls(without_surrogates(given))
        if isinstance(given, Mapping):
            # What transformers' pipelines take for a text, or a pair of texts.
            known = {"text", "text_pair"}
            if not set(given) <= known or "text" not in given:
                raise InvalidInputError(
                    "texts: expected mappings with 'text' and possibly 'text_pair', got the keys "
                    f"{sorted(map(str, given))} at position {position}"
                )
            if given.get("text_pair") is None:
                return cls.of(given["text"], position)
            return cls._pair((given["text"], given["text_pair"]), position)
        if isinstance(given, tuple):
            if len(given) != 2:
                raise InvalidInputError(
                    "texts: expected strings, pairs of two strings, or lists of words, got a "
                    f"tuple of {len(given)} at position {position}"
                )
            return cls._pair(given, position)
        if isinstance(given, list):
            joined, spans = _joined(given, " ", position)
            return cls(joined, words=spans)
        raise InvalidInputError(
            f"texts: expected strings, got {type(given).__name__} at position {position}"
        )

    @classmethod
    def _pair(cls, given: Sequence[object], position: int) -> Text:
        joined, spans = _joined(given, PAIR_SEPARATOR, position)
        return cls(joined, parts=spans)


def is_one_text(texts: object) -> bool:
    """Whether an argument is one text rather than many: a string, a mapping, or a pair.

    A tuple of two strings is a pair; a list is always many texts.
    """
    if isinstance(texts, tuple):
        return len(texts) == 2 and all(isinstance(text, str) for text in texts)
    return isinstance(texts, str | Mapping | Text)


def each_text(texts: Iterable[Any], start: int = 0) -> Iterator[Text]:
    """Texts of any form, one after the other.

    Args:
        texts: What is given: any iterable, a column of a data set or a data frame for instance.
        start: The number of the first, for errors. Default: 0.

    Raises:
        InvalidInputError: A text has none of the forms of ``TextLike``.
    """
    for position, text in enumerate(texts, start=start):
        yield Text.of(text, position)


def _joined(
    strings: Sequence[object], separator: str, position: int
) -> tuple[str, tuple[Span, ...]]:
    """Strings as one, and where each of them stands in it."""
    clean, spans, start = [], [], 0
    for string in strings:
        if not isinstance(string, str):
            raise InvalidInputError(
                f"texts: expected strings, got {type(string).__name__} inside the text at position "
                f"{position}"
            )
        clean.append(without_surrogates(string))
        spans.append((start, start + len(string)))
        start += len(string) + len(separator)
    return separator.join(clean), tuple(spans)


def without_surrogates(text: str) -> str:
    """A string with U+FFFD in place of lone surrogates, which no encoding can hold."""
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
