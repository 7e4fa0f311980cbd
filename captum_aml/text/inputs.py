"""The forms in which texts are given, and the one form in which they go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from captum_aml._utils.rows import shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.choices import choice_of, has_options
from captum_aml.text.columns import (
    Column,
    cells_of,
    choose_columns,
    first_cell,
    is_column,
    joined_columns,
    row_of,
    table_of,
)

#: Start and end of characters in a text.
Span: TypeAlias = tuple[int, int]

#: One text: a string, a pair of strings (a tuple), a row of a data set (a mapping as pipelines take
#: it, perhaps with a label, which does not matter), a list of the words of a text that is split
#: already, a context with its options as :func:`captum_aml.text.choices.choice_of` takes them, or
#: the messages of a chat, a list of mappings with ``role`` and ``content``.
TextLike: TypeAlias = (
    "str | tuple[str, str] | tuple[str, Sequence[str]] | tuple[str, str, Sequence[str]]"
    " | Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any]] | Text"
)

#: Between the two texts of a pair.
PAIR_SEPARATOR = "\n"

#: How pairs are given elsewhere, for errors.
AS_OPTIONS = "on the command line: --pair, or --file with --column twice"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Text:
    """One text as it is shown, with the way back to what was given.

    Attributes:
        text: All characters. The two texts of a pair, and a context, a question and options, are
            joined by line breaks, words by spaces; lone surrogates, which no encoding can hold,
            became U+FFFD.
        parts: The spans of both texts of a pair, or of context, question and options; () otherwise.
        words: The spans of words that were given one by one; None otherwise.
        n_options: How many of the parts, the last ones, are options to choose from.
        messages: The role and the span of each message of a chat; () otherwise.
    """

    text: str
    parts: tuple[Span, ...] = ()
    words: tuple[Span, ...] | None = None
    n_options: int = 0
    messages: tuple[tuple[str, Span], ...] = ()

    @property
    def regions(self) -> tuple[Span, ...]:
        """The spans of the text, or of its parts."""
        return self.parts or ((0, len(self.text)),)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text, or its parts: strings for the tokenizer."""
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
        if isinstance(given, Unreadable):
            raise InvalidInputError(given.reason)
        row = row_of(given)
        given = given if row is None else row
        if (choice := choice_of(given)) is not None:
            text = cls._pair((*choice.before, *choice.options), position)
            return replace(text, n_options=len(choice.options))
        if row is not None:
            return cls.of(_of_row(given, position, None), position)
        if hasattr(given, "tolist"):
            given = given.tolist()
        if isinstance(given, tuple):
            if len(given) != 2 or not isinstance(given[1], str):
                kinds = ", ".join(type(item).__name__ for item in given)
                raise InvalidInputError(
                    "texts: expected strings, pairs of two strings, or lists of words, got a "
                    f"tuple ({kinds}) at position {position}; rows with a label are mappings, "
                    "{'text': ..., 'label': ...}, or those of a table"
                )
            return cls._pair(given, position)
        if is_chat(given):
            roles = [str(message["role"]) for message in given]
            contents = [message["content"] for message in given]
            joined, spans = _joined(contents, PAIR_SEPARATOR, position)
            return cls(joined, messages=tuple(zip(roles, spans, strict=True)))
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


def is_chat(given: object) -> TypeGuard[list[Mapping[str, Any]]]:
    """Whether it is the messages of a chat, which are one text."""
    return isinstance(given, list) and bool(given) and all(map(_is_message, given))


def _is_message(given: object) -> bool:
    return isinstance(given, Mapping) and {"role", "content"} <= set(given)


@dataclass(frozen=True)
class Unreadable:
    """What stands for a row that is no text.

    Attributes:
        reason: What is wrong with it, as an error says it.
    """

    reason: str


class GivenTexts(NamedTuple):
    """The texts of a call.

    Attributes:
        texts: They, one after the other. Each may turn out to be none, which ``Text.of`` says.
        is_one: Whether it is one text that was given, rather than many.
    """

    texts: Iterable[Any]
    is_one: bool


# What is given may hold anything, which is checked text by text.
def given_texts(texts: Any, text_pair: Any = None, *, column: Column | None = None) -> GivenTexts:
    """The texts that an argument holds, one after the other.

    - A string, a pair as a tuple of two strings, a mapping or a series of one row, a context with
      its options, or a chat as a list of its messages: one text.
    - A data frame, a data set of ``datasets``, or a mapping from names to lists: the texts of a
      column, or the pairs of two.
    - Any other iterable: its elements, of which rows are mappings.

    A row or a table has its texts in ``column``. Where that is None, in the columns whose names are
    known for it: ``text``, ``sentence``, ``text`` and ``text_pair``, ``question`` and ``context``,
    ``premise`` and ``hypothesis``, ``query`` and ``document`` or ``passage``, ``sentence1`` and
    ``sentence2``; or else in the only one with strings. Other columns do not matter.

    Args:
        texts: What is given.
        text_pair (optional): The second text of a pair, or of each.
        column (optional): The column with the texts, or the two with pairs.

    Returns:
        The texts, which have a length and can be read anew where ``texts`` does.

    Raises:
        InvalidInputError: There is no such column, or several that could be meant; or the arguments
            do not go together.
    """
    if text_pair is not None:
        if column is not None:
            raise InvalidInputError("column: expected none beside text_pair, which makes the pairs")
        return _paired(texts, text_pair)
    if (
        isinstance(texts, str | Text)
        or is_chat(texts)
        or (isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(t, str) for t in texts))
    ):
        if column is not None:
            raise InvalidInputError("column: expected rows or columns beside it, got one text")
        return GivenTexts([texts], is_one=True)
    if column is None and choice_of(texts) is not None:
        return GivenTexts([texts], is_one=True)
    if _is_message(texts):
        raise InvalidInputError("texts: expected a chat as a list, [message], got a message alone")
    if isinstance(texts, Mapping) and any(hasattr(v, "column_names") for v in texts.values()):
        names = ", ".join(map(repr, texts))
        raise InvalidInputError(
            f"texts: expected one data set, got several by name; choose one of {names}"
        )
    table = table_of(texts)
    if table is not None:
        return _of_table(*table, column)
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):
        raise InvalidInputError(f"texts: expected texts, got {type(texts).__name__}")
    if column is None:
        return GivenTexts(texts, is_one=False)
    rows = _Rows(texts, column)
    if isinstance(texts, Iterator):
        return GivenTexts(iter(rows), is_one=False)
    return GivenTexts(list(rows) if isinstance(texts, Sequence) else rows, is_one=False)


def each_text(texts: Any, start: int = 0) -> Iterator[Text]:
    """Texts of any form, one after the other.

    Args:
        texts: See ``given_texts``.
        start: The number of the first, for errors. Default: 0.

    Raises:
        InvalidInputError: A text has none of the forms of ``TextLike``.
    """
    for position, text in enumerate(given_texts(texts).texts, start=start):
        yield Text.of(text, position)


def _paired(first: Any, second: Any) -> GivenTexts:
    if isinstance(first, str) and (isinstance(second, str) or choice_of((first, second))):
        return GivenTexts([(first, second)], is_one=True)
    if not (is_column(first) and is_column(second)):
        raise InvalidInputError(
            "text_pair: expected a string beside a string, or a list beside a list, got "
            f"{type(second).__name__} beside {type(first).__name__}"
        )
    return GivenTexts(joined_columns([first, second]), is_one=False)


def _of_table(
    names: list[str], column_of: Callable[[str], Any], column: Column | None
) -> GivenTexts:
    if column is None and has_options(names) and all(is_column(column_of(n)) for n in names):
        rows = zip(*(cells_of(column_of(name)) for name in names), strict=True)
        texts = [dict(zip(names, row, strict=True)) for row in rows]
        return GivenTexts(texts, is_one=False)
    chosen = choose_columns(names, column, lambda name: first_cell(column_of(name)))
    columns = {name: column_of(name) for name in chosen}
    kinds = {is_column(values) for values in columns.values()}
    if kinds == {True}:
        return GivenTexts(joined_columns(list(columns.values())), is_one=False)
    if kinds == {False}:
        row = {name: column_of(name) for name in names}
        return GivenTexts([_of_row(row, 0, column)], is_one=True)
    raise InvalidInputError(
        "texts: expected strings or lists in both columns "
        f"{' and '.join(map(repr, chosen))}, got one of each"
    )


class _Rows(Iterable[Any]):
    """The texts in a column of rows, read anew each time."""

    def __init__(self, rows: Iterable[Any], column: Column) -> None:
        self._rows = rows
        self._column = column

    def __iter__(self) -> Iterator[Any]:
        return (_of_row(row, i, self._column) for i, row in enumerate(self._rows))


def _of_row(given: Any, position: int, column: Column | None) -> object:
    """The text of a row, or what says why it has none."""
    try:
        row = row_of(given)
        if row is None:
            raise InvalidInputError(
                f"texts: expected rows with a column {column!r}, got {type(given).__name__}"
            )
        return _row_text(row, column)
    except InvalidInputError as error:
        return Unreadable(f"{error}, at position {position}")


def _row_text(row: Mapping[str, Any], column: Column | None) -> object:
    chosen = choose_columns(list(row), column, row.__getitem__)
    if chosen == ("text", "text_pair") and row["text_pair"] is None:
        chosen = ("text",)
    for name in chosen:
        is_words = column is not None and len(chosen) == 1 and isinstance(row[name], list)
        if not isinstance(row[name], str) and not is_words:
            raise InvalidInputError(f"texts: expected a string in {name!r}, got {shown(row[name])}")
    cells = tuple(row[name] for name in chosen)
    return cells if len(cells) == 2 else cells[0]


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
