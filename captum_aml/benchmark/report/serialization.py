"""Results as JSON and back, without the examples' texts; and the table of all scores."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from captum_aml._utils.files import atomic_file
from captum_aml._utils.optional import require
from captum_aml._version import __version__
from captum_aml.benchmark.results import BenchmarkResults, Failure
from captum_aml.benchmark.store import JSON
from captum_aml.exceptions import InvalidInputError

_FORMAT = "captum-aml benchmark results"
_VERSION = 1
#: The field that quotes texts.
_NOT_WRITTEN = "examples"


def results_to_json(results: BenchmarkResults) -> str:
    """Results as JSON: sorted keys, null for what is not finite, no examples.

    Values that JSON has no form for (a path in the settings, say) become strings.
    """
    document = {"format": _FORMAT, "format_version": _VERSION, **_plain(results)}
    del document[_NOT_WRITTEN]
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def results_from_json(text: str | bytes) -> BenchmarkResults:
    """Results from what ``results_to_json`` wrote, to render their report again.

    Where null stands for a number of a cell, curve or cost, the result has NaN.

    Raises:
        InvalidInputError: It is no such JSON, or of a later version.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"results: this is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise InvalidInputError("results: expected the results.json of a benchmark")
    if document.get("format_version") != _VERSION:
        raise InvalidInputError(
            f"results: expected version {_VERSION} of the format, got "
            f"{document.get('format_version')!r}; a later captum_aml may have written it"
        )
    try:
        found: BenchmarkResults = _read(BenchmarkResults, document)
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"results: incomplete or damaged: {type(error).__name__}: {error}"
        ) from error


# Any: what JSON holds is only known by looking, here and below.
def _plain(value: object) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Failure):
        # What an exception says can quote the text; its type cannot.
        kind = value.message.partition(":")[0]
        return {"index": value.index, "seed": value.seed, "message": kind}
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    return str(value)


def _read(kind: Any, value: Any) -> Any:
    """A value of a type from its JSON; NaN where null stands for a number."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is float:
        return math.nan if value is None else value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        names = (item.name for item in fields(kind) if item.name != _NOT_WRITTEN)
        return kind(**{name: _read(hints[name], value[name]) for name in names})
    if origin is Sequence:
        return [_read(inner[0], item) for item in value]
    if origin is Mapping:
        return {name: _read(inner[1], item) for name, item in value.items()}
    if type(None) in inner and value is not None:
        return _read(inner[0], value)
    return value


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
    "target": "int64",
    "target_probability": "float64",
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
