"""Segmenters by name: packages that find the words of languages written without spaces.

========= ======== ================================================================
name      language package
========= ======== ================================================================
jieba     Chinese  ``jieba``
fugashi   Japanese ``fugashi`` with a dictionary, such as ``unidic-lite``
janome    Japanese ``janome``, which brings its dictionary
pythainlp Thai     ``pythainlp``
========= ======== ================================================================

None of them is installed with this package. A package is imported, and its dictionary loaded, when
words are first asked for; both stay for the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeAlias

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span
from captum_aml.text.segmentation import Segmenter, Unit

#: Cuts a text into pieces, in order, which may leave out white space.
_Cut: TypeAlias = Callable[[str], Iterable[str]]


def segmenter_named(name: str, unit: Unit = "word") -> Segmenter:
    """The segmenter of a package: a function that gives the spans of a text's words, in order.

    White space belongs to no word.

    Raises:
        InvalidInputError: There is no segmenter of this name for these units.
        ImportError: Its package, or the dictionary that it needs, is not installed.
    """
    check_segmenter_name(name, unit)
    cut = _loaded(name)
    return lambda text: located(text, cut(text))


def check_segmenter_name(name: str, unit: Unit = "word") -> None:
    """Checks that there is a segmenter of a name for units, and that its package is installed.

    Raises:
        InvalidInputError: There is none.
        ImportError: Its package is not installed.
    """
    if name not in _CUTS:
        raise InvalidInputError(
            f"segmenter: expected one of {', '.join(_CUTS)}, or a function from a text to the "
            f"spans (start, end) of its units, got {name!r}"
        )
    if unit == "sentence":
        raise InvalidInputError(
            f"segmenter: expected a function from a text to its sentences, got {name!r}, which "
            "finds words"
        )
    if importlib.util.find_spec(name) is None:
        raise ImportError(_advice(name, name))


def located(text: str, pieces: Iterable[str]) -> list[Span]:
    """The spans of pieces that follow each other in a text, without those of white space.

    A piece that does not stand where the one before it ends, but for white space between them, was
    changed by what cut the text; it is left out.
    """
    spans: list[Span] = []
    position = 0
    for piece in pieces:
        word = piece.strip()
        start = text.find(word, position)
        if word and start >= 0 and not text[position:start].strip():
            position = start + len(word)
            spans.append((start, position))
    return spans


@cache
def _loaded(name: str) -> _Cut:
    # What a package gives has no types here: none of them needs to be installed.
    return _CUTS[name]()


def _jieba() -> _Cut:
    jieba: Any = importlib.import_module("jieba")
    level = jieba.default_logger.level
    jieba.default_logger.setLevel(logging.WARNING)  # it tells of its dictionary on standard error
    try:
        jieba.initialize()
    finally:
        jieba.default_logger.setLevel(level)
    return lambda text: jieba.cut(text)


def _fugashi() -> _Cut:
    fugashi: Any = importlib.import_module("fugashi")
    try:
        tagger = fugashi.Tagger()
    except RuntimeError as error:
        raise ImportError(_advice("fugashi", "unidic-lite")) from error
    return lambda text: (word.surface for word in tagger(text))


def _janome() -> _Cut:
    tokenizer: Any = importlib.import_module("janome.tokenizer").Tokenizer(wakati=True)
    return lambda text: tokenizer.tokenize(text)


def _pythainlp() -> _Cut:
    tokenize: Any = importlib.import_module("pythainlp.tokenize")
    return lambda text: tokenize.word_tokenize(text)


_CUTS: dict[str, Callable[[], _Cut]] = {
    "jieba": _jieba,
    "fugashi": _fugashi,
    "janome": _janome,
    "pythainlp": _pythainlp,
}


def _advice(name: str, package: str) -> str:
    return f"segmenter={name!r} needs {package}, which is not installed: pip install {package}"
