"""Rows of data files, read one after another, with errors that say where a file is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from captum_aml._utils.delimited import delimited_rows
from captum_aml.exceptions import InvalidInputError

_BOM = b"\xef\xbb\xbf"
_SHOWN = 80


class Lines:
    """Decoded lines with their ends, counting.

    Files are UTF-8, with or without a byte order mark.

    Args:
        stream: Bytes.
        name: What to call it in errors.

    Attributes:
        number: The number of the line that was taken last; the first is 1.
    """

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

    @property
    def place(self) -> str:
        """The file and the line that was taken last, as errors name them."""
        return f"{self.name}, line {self.number}"

    def error(self, problem: str) -> InvalidInputError:
        """An error at the line that was taken last."""
        return InvalidInputError(f"{self.place}: {problem}")


# JSON holds values of any type; whoever takes a row checks what it uses.
def json_rows(lines: Lines) -> Iterator[dict[str, Any]]:
    """The object on every line; blank lines are skipped.

    Raises:
        InvalidInputError: A line is not UTF-8, not JSON, or not an object.
    """
    return (json_row(line, lines) for line in lines if line.strip())


def json_row(line: str, lines: Lines) -> dict[str, Any]:
    """The object on a line.

    Args:
        line: The line.
        lines: The lines of which it was taken last, for the error.

    Raises:
        InvalidInputError: It is not JSON, or not an object.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise lines.error(f"expected a JSON object, got invalid JSON ({reason})") from None
    if not isinstance(row, dict):
        raise lines.error(f"expected a JSON object, got a {type(row).__name__}")
    return row


def table_rows(
    lines: Lines, *, delimiter: str, columns: Sequence[str]
) -> Iterator[dict[str, str] | InvalidInputError]:
    """The rows of a table with a header, quoted as usual; blank lines are skipped.

    Fields may be of any length.

    Args:
        lines: The table. After a row that spans lines, its last one was taken.
        delimiter: What stands between cells.
        columns: Columns that have to be there. Of columns with the same name the first counts.

    Yields:
        A row's cells by column, or what is wrong where there are more or fewer than columns.

    Raises:
        InvalidInputError: A line is not UTF-8, a row is broken, or a column is missing.
    """
    reader = delimited_rows(lines, delimiter=delimiter)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            return
        names = [name.strip() for name in header]
        for column in columns:
            if column not in names:
                raise lines.error(missing_column(column, names))
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                yield lines.error(f"expected {len(names)} columns, got {len(row)}")
            else:
                last_first = dict(zip(reversed(names), reversed(row), strict=True))
                yield dict(reversed(last_first.items()))
    except csv.Error as error:
        raise lines.error(f"broken table row ({error})") from None


def text_rows(lines: Lines) -> Iterator[str]:
    """The lines without their ends; blank ones are skipped."""
    for line in lines:
        if line.strip():
            yield line.rstrip("\r\n")


def missing_column(column: str, there: Iterable[str]) -> str:
    """The message where a column is missing."""
    return f"expected a column {column!r}, got {', '.join(map(repr, there)) or 'none'}"


def shown(value: object) -> str:
    """A value as an error shows it: in the words of JSON where it is nothing, and cut short."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
