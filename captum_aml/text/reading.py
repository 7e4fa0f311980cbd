"""Reads texts from files, line by line, with errors that say where the file is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from captum_aml.exceptions import InvalidInputError

_BOM = b"\xef\xbb\xbf"


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
    return _closing(stream, _READERS[file.suffix.lower()](_Lines(stream, os.fspath(path)), column))


def read_lines(stream: BinaryIO, *, name: str) -> Iterator[str]:
    """Texts of a stream, one on every line; blank lines are skipped.

    Args:
        stream: Bytes in UTF-8.
        name: What to call it in errors.

    Raises:
        InvalidInputError: A line is not UTF-8.
    """
    return _read_txt(_Lines(stream, name), "")


class _Lines:
    """Decoded lines with their ends, counting."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream = stream
        self.name = name
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.stream:
            self.number += 1
            content = line.removeprefix(_BOM) if self.number == 1 else line
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self.error(
                    f"expected UTF-8, got the byte 0x{content[error.start]:02x} at position "
                    f"{error.start + 1} of the line"
                ) from None
            yield text

    def error(self, problem: str) -> InvalidInputError:
        return InvalidInputError(f"{self.name}, line {self.number}: {problem}")


def _read_jsonl(lines: _Lines, column: str) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise lines.error(f"expected a JSON object, got invalid JSON ({reason})") from None
        if not isinstance(row, dict):
            raise lines.error(f"expected a JSON object, got a {type(row).__name__}")
        if column not in row:
            raise lines.error(_missing(column, row))
        text = row[column]
        if not isinstance(text, str):
            raise lines.error(
                f"expected a string in {column!r}, got {'null' if text is None else repr(text)}"
            )
        yield text


def _read_delimited(lines: _Lines, column: str, *, delimiter: str) -> Iterator[str]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            return
        names = [name.strip() for name in header]
        if column not in names:
            raise lines.error(_missing(column, names))
        index = names.index(column)
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise lines.error(f"expected {len(names)} columns, got {len(row)}")
            yield row[index]
    except csv.Error as error:
        raise lines.error(f"broken table row ({error})") from None


def _read_csv(lines: _Lines, column: str) -> Iterator[str]:
    return _read_delimited(lines, column, delimiter=",")


def _read_tsv(lines: _Lines, column: str) -> Iterator[str]:
    return _read_delimited(lines, column, delimiter="\t")


def _read_txt(lines: _Lines, column: str) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield line.rstrip("\r\n")


def _missing(column: str, there: Iterable[str]) -> str:
    return f"expected a column {column!r}, got {', '.join(map(repr, there)) or 'none'}"


def _closing(stream: io.BufferedReader, texts: Iterator[str]) -> Iterator[str]:
    with stream:
        yield from texts


_READERS: dict[str, Callable[[_Lines, str], Iterator[str]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_txt,
}
