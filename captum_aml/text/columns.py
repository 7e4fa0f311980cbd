"""Columns of texts: which of a table's, and what stands in it.

A table is a data frame of pandas or polars, a table of pyarrow, a data set of ``datasets``, or a
mapping from names to lists. None of these packages is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from captum_aml.exceptions import InvalidInputError

#: The column with the texts, or the two columns with pairs.
Column: TypeAlias = "str | tuple[str, str]"

#: Under these names pipelines and well-known data sets have a text, or the texts of a pair.
_KNOWN = (
    ("text",),
    ("sentence",),
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("query", "document"),
    ("query", "passage"),
    ("question", "context"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("sentence1", "sentence2"),
)


@dataclass(frozen=True)
class Pairs(Sequence[tuple[Any, Any]]):  # cells hold values of any type
    """Pairs of what stands in the same place of two sequences."""

    first: Sequence[Any]
    second: Sequence[Any]

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, place: int) -> tuple[Any, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Pairs: ...
    def __getitem__(self, place: int | slice) -> tuple[Any, Any] | Pairs:
        first, second = self.first[place], self.second[place]
        return Pairs(first, second) if isinstance(place, slice) else (first, second)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return zip(self.first, self.second, strict=True)


def choose_columns(
    names: Sequence[str], column: Column | None, sample: Callable[[str], object]
) -> tuple[str, ...]:
    """The column with the texts, or the two with the texts of pairs.

    Args:
        names: The names of all columns.
        column: The caller's choice; None for the columns whose names are known for it, or else the
            only one with strings.
        sample: Gives a cell of a column, None where all are missing.

    Raises:
        InvalidInputError: There is no such column, or more than one that it could be.
    """
    listed = ", ".join(map(repr, names)) or "none"
    if column is not None:
        wanted = tuple(column) if isinstance(column, tuple | list) else (column,)
        if len(wanted) not in (1, 2) or any(names.count(name) != 1 for name in wanted):
            raise InvalidInputError(
                f"column: expected one of the columns {listed}, or a pair of them, got {column!r}"
            )
        return wanted
    known = [given for given in _KNOWN if set(given) <= set(names)]
    found = [given for given in known if not any(set(given) < set(more) for more in known)]
    if not known:
        samples = {name: sample(name) for name in names}
        # A column of which nothing is known could be the one.
        if not any(map(is_missing, samples.values())):
            found = [(name,) for name, cell in samples.items() if isinstance(cell, str)]
    if len(found) != 1 or any(names.count(name) != 1 for name in found[0]):
        raise InvalidInputError(
            f"column: expected the name of the column with the texts, or of both with pairs; there "
            f"are {listed}"
        )
    return found[0]


# Cells hold values of any type.
def table_of(given: object) -> tuple[list[str], Callable[[str], Any]] | None:
    """The names of a table's columns, and what gives a column; None where it is no table."""
    if isinstance(given, Mapping):
        return list(given), given.__getitem__
    names = getattr(given, "column_names", getattr(given, "columns", None))
    if isinstance(names, Iterable) and hasattr(given, "__len__") and hasattr(given, "__getitem__"):
        return list(names), given.__getitem__
    return None


def row_of(given: Any) -> Mapping[str, Any] | None:
    """A row with names, of data frames and data bases too, as a mapping; None for what is none."""
    if isinstance(given, Mapping):
        return given
    if hasattr(given, "_asdict"):
        return dict(given._asdict())
    is_named = hasattr(given, "keys") and hasattr(given, "__getitem__")
    return dict(given) if is_named else None


def is_column(values: object) -> bool:
    """Whether a mapping's value is a column, not a cell of a row."""
    return isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)


def cells_of(column: Any) -> Sequence[Any]:
    """The cells of a column of any kind."""
    if isinstance(column, Sequence):
        return column
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def joined_columns(columns: Sequence[Any]) -> Sequence[Any]:
    """The texts of one column, or the pairs of two.

    Raises:
        InvalidInputError: Two columns are not of the same length.
    """
    first, *rest = map(cells_of, columns)
    if not rest:
        return first
    (second,) = rest
    if len(first) != len(second):
        raise InvalidInputError(
            f"texts: expected as many second texts of pairs as first ones, got {len(second)} and "
            f"{len(first)}"
        )
    return Pairs(first, second)


def first_cell(values: Any) -> object:
    """The first cell of a column that is not missing, or the cell itself; None for none."""
    if not is_column(values):
        return values
    return next((cell for cell in cells_of(values) if not is_missing(cell)), None)


def is_missing(cell: object) -> bool:
    """Whether there is nothing in a cell, as JSON or pandas says it."""
    return (
        cell is None
        or type(cell).__name__ == "NAType"
        or (isinstance(cell, float) and cell != cell)
    )
