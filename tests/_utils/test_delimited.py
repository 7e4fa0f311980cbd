"""Rows of delimited text are those of Python's reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_aml._utils.delimited import delimited_rows


def read(
    reader: Callable[[Iterable[str]], Iterator[list[str]]], text: str
) -> tuple[list[list[str]], bool]:
    """The rows before an error, and whether there is one."""
    rows: list[list[str]] = []
    try:
        for row in reader(io.StringIO(text, newline="\n")):
            rows.append(row)
    except csv.Error:
        return rows, True
    return rows, False


@given(text=st.text(alphabet='a,\t"\n\r b', max_size=30))
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_rows_are_those_of_the_standard_library(delimiter: str, text: str) -> None:
    wanted = read(lambda lines: csv.reader(lines, delimiter=delimiter, strict=True), text)
    assert read(lambda lines: delimited_rows(lines, delimiter=delimiter), text) == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"a"b,c\n', "',' expected after '\"'"),
        ('a,"b\nc,d\n', "a quote is never closed"),
        ("a\rb\r", "carriage return"),
    ],
)
def test_errors_say_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(csv.Error, match=problem):
        list(delimited_rows(io.StringIO(text, newline="\n"), delimiter=","))
