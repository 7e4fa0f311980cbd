"""The table of all scores, for other programs to read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from captum_aml._optional import require
from captum_aml._utils.files import atomic_file
from captum_aml._version import __version__
from captum_aml.benchmark.store import JSON
from captum_aml.exceptions import InvalidInputError

#: The columns of ``scores.parquet`` and their types.
SCORE_COLUMNS: Mapping[str, str] = {
    "method": "string",
    "seed": "int64",
    "index": "int64",
    "id": "string",
    "text": "string",
    "label": "int64",
    "tokens": "list of string",
    "offsets": "list of list of int64",
    "scores": "list of float64",
    "predicted": "int64",
    "probability": "float64",
    "explained": "int64",
    "explained_probability": "float64",
    "n_tokens_cut": "int64",
    "forward_passes": "float64",
    "backward_passes": "float64",
    "seconds": "float64",
    "peak_memory_mib": "float64",
    "error": "string",
}

#: Rows that are written together.
_GROUP = 256


def write_scores_parquet(
    path: str | os.PathLike[str], records: Iterable[Mapping[str, JSON]]
) -> int:
    """Writes a table with a row for each method, seed and text.

    The columns are those of ``SCORE_COLUMNS``; what a record lacks is null. The file appears
    under its name once it is complete. Records are written as they come, in groups of rows, so
    that memory does not grow with their number.

    Args:
        path: The file, whose folder has to exist.
        records: By column.

    Returns:
        The number of rows.

    Raises:
        InvalidInputError: A record has a column that the table has not, or a value of a wrong
            type.
        ImportError: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    require("pyarrow", package="pyarrow", feature="scores.parquet", extra="benchmark")
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [(name, _arrow_type(kind)) for name, kind in SCORE_COLUMNS.items()],
        metadata={"captum_aml": __version__},
    )
    count = 0
    rest = iter(records)
    with (
        atomic_file(path) as stream,
        parquet.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        while group := list(islice(rest, _GROUP)):
            for record in group:
                unknown = [name for name in record if name not in SCORE_COLUMNS]
                if unknown:
                    raise InvalidInputError(
                        f"records: expected the columns {', '.join(SCORE_COLUMNS)}, got "
                        f"{', '.join(map(repr, unknown))}"
                    )
            try:
                table = pyarrow.Table.from_pylist(list(map(_encodable, group)), schema=schema)
            except (pyarrow.ArrowException, TypeError, OverflowError) as error:
                raise InvalidInputError(
                    f"records: expected values as SCORE_COLUMNS has them in rows {count + 1} to "
                    f"{count + len(group)}, got others ({error})"
                ) from None
            writer.write_table(table)
            count += len(group)
    return count


# pyarrow has no types.
def _arrow_type(kind: str) -> Any:
    import pyarrow

    inner = kind.removeprefix("list of ")
    return pyarrow.type_for_alias(kind) if inner == kind else pyarrow.list_(_arrow_type(inner))


def _encodable(record: Mapping[str, JSON]) -> dict[str, JSON]:
    """A record whose strings an encoding can hold; lone surrogates become question marks."""

    def clean(value: JSON) -> JSON:
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode("utf-8")
        if isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        return value

    return {name: clean(value) for name, value in record.items()}
