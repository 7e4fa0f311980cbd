"""Writes explanations to files that are either complete or not there."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from captum_aml._utils.files import atomic_file
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.explanation import Explanation, headline, text_card
from captum_aml.visualization import legend_text, page, plain_text
from captum_aml.visualization.cards import number_of, score_text
from captum_aml.visualization.segments import printable

_COLUMNS = ("predicted", "probability", "target", "method", "score", "top tokens", "text")
_TOP = 5


def write_explanations(
    path: str | os.PathLike[str],
    explanations: Iterable[Explanation],
    *,
    title: str = "Explanations",
    subtitle: str = "",
) -> int:
    """Writes explanations as they come, in the format that the extension names.

    - ``.jsonl``: everything, one explanation a line.
    - ``.html``: a page to look at, see ``captum_aml.visualization.page``.
    - ``.csv``, ``.tsv``, ``.md``: a table with a line for each text: its five highest tokens, and
      under ``score`` what their numbers are.
    - ``.txt``: a line for each text, with its important stretches marked, below a legend.

    The file appears under its name once it is complete. An error or an interruption leaves what
    was there before.

    Args:
        path: The file, whose folder has to exist.
        explanations: Any iterable; memory does not grow with their number.
        title: The page's heading. Default: "Explanations".
        subtitle: A line below it. Default: "".

    Returns:
        The number of explanations written.

    Raises:
        InvalidInputError: The extension is unknown.
        OSError: The file cannot be written.
    """
    extension = check_format(path)
    count = 0

    def counted() -> Iterator[Explanation]:
        nonlocal count
        for explanation in explanations:
            count += 1
            yield explanation

    if extension == ".html":
        cards = (text_card([explanation]) for explanation in counted())
        pieces = page(cards, title=title, subtitle=subtitle)
    else:
        pieces = _WRITERS[extension](counted())
    with atomic_file(Path(path)) as stream:
        for piece in pieces:
            stream.write(piece.encode("utf-8"))
    return count


def check_format(path: str | os.PathLike[str]) -> str:
    """The extension of a file that can be written, in lower case.

    Raises:
        InvalidInputError: The extension is unknown, or the folder does not exist.
    """
    file = Path(path)
    extension = file.suffix.lower()
    if extension != ".html" and extension not in _WRITERS:
        raise InvalidInputError(
            f"output: expected one of the formats .html, {', '.join(_WRITERS)}, got "
            f"{os.fspath(path)!r}"
        )
    if not file.parent.is_dir():
        raise InvalidInputError(f"output: there is no folder {os.fspath(file.parent)!r}")
    return extension


def to_json_line(explanation: Explanation) -> str:
    """An explanation as one line of JSON, without the line end."""
    return json.dumps(explanation.to_dict(), ensure_ascii=False, allow_nan=False)


def readable(explanation: Explanation) -> str:
    """An explanation as a line of plain text: its headline, then the text with marks."""
    card = text_card([explanation])
    return f"{headline(explanation)} {plain_text(card, card.rows[0])}".replace("\n", " ")


def legend_of(explanation: Explanation, *, colored: bool) -> str:
    """The legend for explanations like this one, of whichever class."""
    return legend_text(text_card([explanation]).rows, colored=colored, name_class=False)


def _cells(explanation: Explanation) -> list[str]:
    largest, signed = max(map(abs, explanation.scores), default=0.0), explanation.signed
    top = ", ".join(
        f"{token} {score_text(score, largest, signed=signed)}"
        for token, score in explanation.top(_TOP)
    )
    return [
        explanation.predicted_label,
        number_of(explanation.probability, explanation.value, 4),
        explanation.explained_label,
        explanation.method,
        explanation.score,
        top,
        explanation.text,
    ]


def _readable(explanations: Iterable[Explanation]) -> Iterator[str]:
    for number, explanation in enumerate(explanations):
        if not number:
            yield f"{legend_of(explanation, colored=False)}\n\n"
        yield f"{readable(explanation)}\n"


def _delimited(explanations: Iterable[Explanation], delimiter: str) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line, delimiter=delimiter, lineterminator="\n")
    for row in chain([_COLUMNS], map(_cells, explanations)):
        writer.writerow(row)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _markdown(explanations: Iterable[Explanation]) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}\n"
    for explanation in explanations:
        yield f"| {' | '.join(map(_markdown_cell, _cells(explanation)))} |\n"


def _markdown_cell(text: str) -> str:
    clean = " ".join(printable(text).split())
    for special in "\\`*_[]|":
        clean = clean.replace(special, f"\\{special}")
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_WRITERS: dict[str, Callable[[Iterable[Explanation]], Iterator[str]]] = {
    ".jsonl": lambda explanations: (f"{to_json_line(e)}\n" for e in explanations),
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
    ".md": _markdown,
    ".txt": _readable,
}
