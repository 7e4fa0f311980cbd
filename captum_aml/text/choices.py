"""Questions with options to choose from, in the forms in which they are given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: Under these names well-known data sets have the context, the question and the options.
_BEFORE = (
    ("text", "context", "article", "passage", "premise", "ctx", "sent1"),
    ("question", "sent2"),
)
_OPTIONS = ("choices", "options", "endings")
#: As of SWAG and COPA, a column for each option.
_NUMBERED = re.compile(r"(?:choice|option|ending)_?(\d+)")


class Choice(NamedTuple):
    """What there is to choose from.

    Attributes:
        before: The context, or the context and a question that each option follows.
        options: The options, two or more.
    """

    before: tuple[str, ...]
    options: tuple[str, ...]


def choice_of(given: object) -> Choice | None:
    """A context and its options; None for whatever else it is.

    - A tuple ``(context, [option, ...])``, or ``(context, question, [option, ...])``.
    - A row, a mapping with ``choices``, ``options`` or ``endings``, or one of these for each option
      (``ending0``, ``ending1`` ...); and with ``text``, ``context``, ``article``, ``passage``,
      ``premise`` or ``sent1``, ``question`` or ``sent2``, or both.

    Args:
        given: Anything.
    """
    if isinstance(given, Mapping):
        names = [next((n for n in known if n in given), None) for known in _BEFORE]
        return _checked([given[name] for name in names if name is not None], _of_row(given))
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        return None
    return _checked(given[:-1], given[-1])


def has_options(names: Iterable[str]) -> bool:
    """Whether columns of these names hold options."""
    return any(name in _OPTIONS or _NUMBERED.fullmatch(str(name)) for name in names)


def _of_row(row: Mapping[Any, Any]) -> object:
    """The options of a row, in whichever form."""
    options = next((row[name] for name in _OPTIONS if name in row), None)
    if isinstance(options, Mapping):  # as of ARC, the texts beside their letters
        return options.get("text")
    if options is not None:
        return options
    numbered = {int(m[1]): row[n] for n in row if (m := _NUMBERED.fullmatch(str(n)))}
    return [numbered[number] for number in sorted(numbered)]


def _checked(before: Sequence[Any], options: Any) -> Choice | None:
    if hasattr(options, "tolist"):
        options = options.tolist()
    if not before or not isinstance(options, list | tuple) or len(options) < 2:
        return None
    if not all(isinstance(string, str) for string in (*before, *options)):
        return None
    return Choice(tuple(before), tuple(options))
