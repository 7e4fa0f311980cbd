"""Results as JSON and back, without the texts of the examples."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from captum_aml.benchmark.results import (
    BenchmarkResults,
    Cell,
    Comparison,
    Cost,
    Curve,
    Failure,
    MethodRow,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric

_FORMAT = "captum-aml benchmark results"
_VERSION = 1


def results_to_json(results: BenchmarkResults) -> str:
    """Results as JSON: sorted keys, null for what is not finite, no examples.

    Values that JSON has no form for (a path in the settings, say) become strings.
    """
    document = {"format": _FORMAT, "format_version": _VERSION, **_plain(results)}
    del document["examples"]
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
        return _results(document)
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


def _results(document: Mapping[str, Any]) -> BenchmarkResults:
    return BenchmarkResults(
        model=document["model"],
        data=document["data"],
        n_texts=document["n_texts"],
        metrics=[Metric(**metric) for metric in document["metrics"]],
        rows=[_row(row) for row in document["rows"]],
        curves=[
            Curve(c["method"], c["shares"], [_number(p) for p in c["probabilities"]])
            for c in document["curves"]
        ],
        protocol=document["protocol"],
        settings=document["settings"],
        versions=document["versions"],
        fingerprints=document["fingerprints"],
        notes=document["notes"],
    )


def _row(row: Mapping[str, Any]) -> MethodRow:
    cost = row["cost"]
    return MethodRow(
        method=row["method"],
        role=row["role"],
        cells={name: _cell(cell) for name, cell in row["cells"].items()},
        cost=Cost(
            _number(cost["forward_passes"]),
            _number(cost["backward_passes"]),
            _number(cost["seconds"]),
            cost["peak_memory_mib"],
        ),
        seeds=row["seeds"],
        training=row["training"],
        rank=row["rank"],
        failures=[Failure(**failure) for failure in row["failures"]],
        settings=row["settings"],
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    comparison = cell["comparison"]
    if comparison is not None:
        numbers = {name: _number(comparison[name]) for name in ("difference", "p_value")}
        comparison = Comparison(**{**comparison, **numbers})
    return Cell(
        _number(cell["mean"]), _number(cell["low"]), _number(cell["high"]), cell["n"], comparison
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


__all__ = ["results_from_json", "results_to_json"]
