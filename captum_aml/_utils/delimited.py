"""Rows of delimited text, with fields of any length.

``csv.reader`` refuses fields above a limit that can only be set for the whole process.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator

_END = re.compile(r"[\r\n]*\Z")


def delimited_rows(lines: Iterable[str], *, delimiter: str) -> Iterator[list[str]]:
    """The rows that ``csv.reader(lines, delimiter=delimiter, strict=True)`` gives.

    Args:
        lines: Lines with their ends. They are read as rows are taken.
        delimiter: One character between fields.

    Raises:
        csv.Error: Characters follow a closing quote, a quote is never closed, or a carriage return
            stands inside a field without quotes.
    """
    plain = re.compile(rf"[^{re.escape(delimiter)}\r\n]*")
    source = iter(lines)
    for first in source:
        line, position, row = first, 0, list[str]()
        if _END.match(line):
            yield row
            continue
        while True:
            if line.startswith('"', position):
                field, line, position = _quoted(source, line, position + 1)
            else:
                end = plain.match(line, position).end()  # type: ignore[union-attr]  # it may be empty
                field, position = line[position:end], end
            row.append(field)
            if line.startswith(delimiter, position):
                position += 1
            elif _END.match(line, position):
                break
            elif line[position] in "\r\n":
                raise csv.Error("a carriage return inside a field without quotes")
            else:
                raise csv.Error(f"{delimiter!r} expected after '\"'")
        yield row


def _quoted(source: Iterator[str], line: str, position: int) -> tuple[str, str, int]:
    """A field from behind its first quote; then the line that it ends in, and the place there."""
    pieces = []
    while True:
        end = line.find('"', position)
        if end < 0:
            pieces.append(line[position:])
            following = next(source, None)
            if following is None:
                raise csv.Error("a quote is never closed")
            line, position = following, 0
        elif line.startswith('"', end + 1):
            pieces.append(line[position : end + 1])
            position = end + 2
        else:
            pieces.append(line[position:end])
            return "".join(pieces), line, end + 1
