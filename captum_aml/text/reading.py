"""Reads texts from files, line by line, with errors that say where the file is wrong."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from captum_aml._utils.rows import Lines, json_rows, missing_column, shown, table_rows, text_rows
from captum_aml.exceptions import InvalidInputError


def read_texts(path: str | os.PathLike[str], *, column: str = "text") -> Iterator[str]:
    """Texts of a file, whose format is told by its extension.

    - ``.jsonl``: an object on every line. Blank lines are skipped.
    - ``.csv`` and ``.tsv``: a header and rows, quoted as usual. Blank lines are skipped.
    - ``.txt``: a text on every line. Blank lines are skipped.

    Files are UTF-8, with or without a byte order mark. They are read as texts are taken, so that
    their size does not matter. An empty text in a column is a text, too.

    Args:
        path: The file.
        column: The field or column that holds the text. Default: "text".

    Raises:
        InvalidInputError: The extension is unknown; or, as texts are taken, a line is broken,
            lacks the column, or is not UTF-8. The message names file and line.
        OSError: The file cannot be opened.
    """
    file = Path(path)
    if file.suffix.lower() not in _READERS:
        raise InvalidInputError(
            f"file: expected one of the formats {', '.join(_READERS)}, got {os.fspath(path)!r}"
        )
    stream = file.open("rb")
    return _closing(stream, _READERS[file.suffix.lower()](Lines(stream, os.fspath(path)), column))


def read_lines(stream: BinaryIO, *, name: str) -> Iterator[str]:
    """Texts of a stream, one on every line; blank lines are skipped.

    Args:
        stream: Bytes in UTF-8.
        name: What to call it in errors.

    Raises:
        InvalidInputError: A line is not UTF-8.
    """
    return text_rows(Lines(stream, name))


def _read_jsonl(lines: Lines, column: str) -> Iterator[str]:
    for row in json_rows(lines):
        if column not in row:
            raise lines.error(missing_column(column, row))
        text = row[column]
        if not isinstance(text, str):
            raise lines.error(f"expected a string in {column!r}, got {shown(text)}")
        yield text


def _read_csv(lines: Lines, column: str) -> Iterator[str]:
    return (row[column] for row in table_rows(lines, delimiter=",", column=column))


def _read_tsv(lines: Lines, column: str) -> Iterator[str]:
    return (row[column] for row in table_rows(lines, delimiter="\t", column=column))


def _read_txt(lines: Lines, column: str) -> Iterator[str]:
    return text_rows(lines)


def _closing(stream: io.BufferedReader, texts: Iterator[str]) -> Iterator[str]:
    with stream:
        yield from texts


_READERS: dict[str, Callable[[Lines, str], Iterator[str]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_txt,
}
